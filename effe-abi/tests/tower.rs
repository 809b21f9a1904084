//! A lambda that is a `tower::Service`: here an axum Router.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request},
    http::{HeaderMap, Method, StatusCode, Uri, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use effe_abi::{
    Params, Result, export,
    testing::{Call, Effe},
};

static MADE: AtomicUsize = AtomicUsize::new(0);

async fn app(params: Params) -> Result<Router> {
    let greeting = params.get("greeting").unwrap_or("Hello");
    if greeting.is_empty() {
        Err("nothing to say")?;
    }
    MADE.fetch_add(1, Ordering::Relaxed);
    Ok(Router::new()
        .route("/greet/{name}", get(async move |Path(name): Path<String>| format!("{greeting}, {name}\n")))
        .route("/echo", post(async |headers: HeaderMap, body: Bytes| (headers, body)))
        .route("/through", post(async |request: Request| Body::new(request.into_body())))
        .route("/facts", get(facts))
        .route("/trailers", get(trailers))
        .route("/two", get(two_pieces))
        .route("/breaks", get(breaks))
        .route("/panics", get(panics))
        .layer(middleware::from_fn(stamp)))
}

export!(tower app);

async fn facts(method: Method, uri: Uri, version: Version) -> String {
    format!("{method} {} {:?} {version:?}", uri.path(), uri.query())
}

async fn stamp(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-layer", "yes".parse().unwrap());
    response
}

/// A body of the given pieces, which doesn't say beforehand which one is the last.
struct Pieces(Vec<std::result::Result<Bytes, &'static str>>);

impl axum::body::HttpBody for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, &'static str>>> {
        let piece = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        std::task::Poll::Ready(piece.map(|piece| piece.map(http_body::Frame::data)))
    }
}

async fn two_pieces() -> Response {
    let pieces = Pieces(vec![Ok("one ".into()), Ok("two".into())]);
    (StatusCode::ACCEPTED, [(header::SET_COOKIE, "a=1")], Body::new(pieces)).into_response()
}

/// A body with trailers: at once behind its only piece or its last one, or alone, as the query says.
async fn trailers(uri: Uri) -> Body {
    let mut fields = HeaderMap::new();
    fields.insert("x-sum", "7".parse().unwrap());
    let pieces: &[&str] = match uri.query() {
        Some("none") => &[],
        Some("two") => &["one ", "two"],
        _ => &["one"],
    };
    let frames = pieces.iter().map(|piece| http_body::Frame::data(Bytes::from_static(piece.as_bytes())));
    Body::new(Frames(frames.chain([http_body::Frame::trailers(fields)]).collect()))
}

/// A body of the given frames.
struct Frames(std::collections::VecDeque<http_body::Frame<Bytes>>);

impl axum::body::HttpBody for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, &'static str>>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}

async fn breaks() -> Body {
    Body::new(Pieces(vec![Ok("half".into()), Err("the other half is missing")]))
}

async fn panics() {
    panic!("the handler fell over");
}

#[test]
fn a_router_answers_with_its_middleware_and_the_operators_parameters() {
    let effe = Effe::with(&LAMBDA, &[("greeting", "Ciao")]);
    let answer = effe.get("/greet/world");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Ciao, world\n"));
    assert_eq!(answer.header("x-layer"), Some("yes"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.pieces.len(), 1, "what is whole is not streamed");
    assert_eq!(effe.get("/nowhere").status, 404);
}

#[test]
fn the_request_arrives_as_it_came() {
    let effe = Effe::of(&LAMBDA);
    assert_eq!(effe.get("/facts?a=b%20c").text(), "GET /facts Some(\"a=b%20c\") HTTP/1.1");
    let call = Call::post("/echo").header("x-many", "1").header("x-many", "2").header("x-bytes", b"\xff");
    let answer = effe.call(call.body("ping ").chunk("pong"));
    assert_eq!(answer.text(), "ping pong");
    let many: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "x-many").collect();
    assert_eq!(many.len(), 2);
    assert!(answer.headers.iter().any(|(name, value)| name == "x-bytes" && value == b"\xff"));
}

#[test]
fn each_request_has_its_own_headers_however_many_there_are() {
    let effe = Effe::of(&LAMBDA);
    for n in [0, 1, 3, 15, 16, 17, 48, 200, 40, 2, 0] {
        let sent: Vec<_> = (0..n).map(|nth| (format!("x-{}", nth % 50), format!("{n} {nth}"))).collect();
        let call = sent.iter().fold(Call::post("/echo"), |call, (name, value)| call.header(name, value));
        let mut answered: Vec<_> = effe.call(call).headers;
        answered.retain(|(name, _)| name != "x-layer" && name.starts_with("x-"));
        let mut wanted: Vec<_> = sent.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        answered.sort();
        wanted.sort();
        assert_eq!(answered, wanted, "{n}");
    }
}

#[test]
fn bodies_stream_through_and_break_off_as_the_handler_says() {
    let effe = Effe::of(&LAMBDA);
    let answer = effe.call(Call::post("/through").body("a").chunk("b").chunk("c"));
    assert_eq!((answer.text().as_str(), answer.pieces.len()), ("abc", 3));
    let answer = effe.get("/two");
    assert_eq!((answer.status, answer.pieces), (202, vec![b"one ".to_vec(), b"two".to_vec()]));
    assert!(answer.headers.contains(&("set-cookie".to_owned(), b"a=1".to_vec())));
    let answer = effe.get("/breaks");
    assert_eq!((answer.text().as_str(), answer.broken), ("half", true));
    assert!(answer.failure.unwrap().contains("the other half is missing"));
}

#[test]
fn trailers_come_with_a_body_and_go_with_another() {
    let effe = Effe::of(&LAMBDA);
    for (target, body) in [("/trailers", "one"), ("/trailers?two", "one two"), ("/trailers?none", "")] {
        let answer = effe.get(target);
        assert_eq!((answer.text().as_str(), answer.trailer("x-sum")), (body, Some("7")), "{target}");
    }
    assert_eq!(effe.get("/trailers").pieces.len(), 1, "what is here at once is one answer");
    let call = || Call::post("/through").chunk("a").chunk("b").trailer("X-Came", b"\xff");
    for answer in [effe.call(call()), effe.call_spawned(call()), effe.call_waiting(call())] {
        assert_eq!(answer.bytes(), b"ab");
        assert_eq!(answer.trailers, [("x-came".to_owned(), b"\xff".to_vec())]);
    }
}

#[test]
fn a_panicking_handler_is_500_and_loses_its_context() {
    let effe = Effe::of(&LAMBDA);
    let answer = effe.get("/panics");
    assert_eq!((answer.status, answer.panicked, effe.stopped()), (500, true, 1));
    assert_eq!(effe.get("/greet/again").status, 200);
}

#[test]
fn the_app_is_made_once_and_what_it_says_keeps_the_effe_from_serving() {
    let refused = Effe::try_with(&LAMBDA, &[("greeting", "")]).err().unwrap();
    assert!(refused.starts_with("nothing to say ("), "{refused}");
    let effe = Effe::of(&LAMBDA);
    // Four threads at a time need up to four Contexts, and no more apps than one.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(effe.get("/greet/you").status, 200)));
        }
    });
    assert!(effe.started() <= 4);
}

#[test]
fn dropped_after_any_poll_the_context_serves_on() {
    let effe = Effe::of(&LAMBDA);
    for polls in 0.. {
        let call = Call::post("/through").body("a").chunk("b").chunk("c");
        if let Some(answer) = effe.call_dropped(call, polls) {
            assert_eq!(answer.text(), "abc");
            assert!(polls > 5, "{polls}");
            break;
        }
        assert_eq!(effe.started(), 1, "nothing of a run stays in a service");
    }
}
