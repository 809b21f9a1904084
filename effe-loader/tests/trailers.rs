//! Fields behind bodies, and interim responses before answers: both ways, on every road of a run, over both protocols.

use crate::support::{
    Connection, Counts, Loader, Scratch, Server,
    plugins::{async_probe, probe, spout},
};

/// A body in chunks, and fields behind it of which one is no trailer.
const UPLOAD: &str = "3\r\nabc\r\n0\r\nX-Came: 1\r\nAuthorization: x\r\nx-came:  2 \r\n\r\n";

/// All the bytes of an answer that the connection ends behind.
fn all(server: &Server, request: &str) -> String {
    let mut connection = server.connect();
    connection.send(request);
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n")
}

fn post(target: &str, headers: &str) -> String {
    let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}");
    format!("{head}Transfer-Encoding: chunked\r\n\r\n{UPLOAD}")
}

/// Every road that a run may take, each with whether its answer is streamed.
fn roads() -> Vec<(&'static str, Server, bool)> {
    let serve = |plugin, args: &[&str]| Loader::of(plugin).args(["--workers", "1"]).args(args).serve();
    vec![
        ("inline", serve(probe(), &["--execution", "inline"]), false),
        ("on the pool", serve(probe(), &["--execution", "pool"]), false),
        ("streamed", serve(spout(), &[]), true),
        ("polled", serve(async_probe(), &["--execution", "inline"]), true),
        ("polled on the pool", serve(async_probe(), &["--execution", "pool"]), true),
    ]
}

#[test]
fn trailers_go_both_ways_where_the_client_takes_them() {
    const SENT: &str = "x-sum: \u{fffd}7\r\nx-end: \r\n\r\n";
    for (name, server, is_streamed) in roads() {
        let came = "x-came: 1\nx-came: 2\n";
        let expected = if is_streamed { format!("abc{came}") } else { came.to_owned() };
        for te in ["TE: trailers\r\n", "TE: gzip\r\nte: deflate;q=0.5, Trailers\r\n"] {
            let answer = all(&server, &post("/trailers", te));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("\r\ntransfer-encoding: chunked"), "{name}: {answer}");
            assert!(head.contains("\r\ntrailer: x-sum"), "{name}: {answer}");
            let (body, trailers) = body.split_once("0\r\n").unwrap();
            let body: String = body.split("\r\n").skip(1).step_by(2).collect();
            assert_eq!((body, trailers), (expected.clone(), SENT), "{name}");
        }
        for te in ["", "TE: trailer\r\n"] {
            let answer = all(&server, &post("/trailers", te));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {answer}");
            assert!(answer.contains("x-came: 2\n") && !answer.contains("x-sum"), "{name}: {answer}");
        }
        // A client of HTTP/1.0 has no chunks.
        let old = get("/trailers", "TE: trailers\r\n").replace("HTTP/1.1", "HTTP/1.0");
        let answer = all(&server, &old);
        assert!(answer.starts_with("HTTP/1.") && !answer.contains("x-sum"), "{name}: {answer}");
        let head = all(&server, &get("/trailers", "TE: trailers\r\n").replace("GET", "HEAD"));
        assert!(head.ends_with("\r\n\r\n") && !head.contains("x-sum"), "{name}: {head}");
        server.stop();
    }
}

#[test]
fn trailers_of_one_request_are_not_those_of_the_next() {
    for (name, server, _) in roads() {
        let mut connection = server.connect();
        let head = "POST /trailers HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        for _ in 0..2 {
            let reply = connection.send([head, UPLOAD].concat()).reply();
            assert!(reply.text().ends_with("x-came: 1\nx-came: 2\n"), "{name}: {reply:?}");
            let reply = connection.send([head, "3\r\nabc\r\n0\r\n\r\n"].concat()).reply();
            assert!(!reply.text().contains("x-came"), "{name}: {reply:?}");
            // Of a body that nobody reads.
            let unread = head.replace("/trailers", "/why");
            connection.send([&unread, UPLOAD].concat()).reply();
            assert!(!connection.get("/trailers").text().contains("x-came"), "{name}");
        }
        server.stop();
    }
}

#[test]
fn a_bad_trailer_is_the_lambdas_fault_and_one_behind_a_length_has_no_place() {
    let server = Loader::of(probe()).serve();
    let answer = all(&server, &get("/bad-trailer", "TE: trailers\r\n"));
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    server.wait_for_line("the response's trailer \"x\" has a bad name or value");
    let server = Loader::of(spout()).serve();
    let answer = all(&server, &get("/trailers-behind-a-length", "TE: trailers\r\n"));
    assert!(answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(!answer.contains("trailer"), "{answer}");
}

/// The next head, as text.
fn head(connection: &mut Connection) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.byte());
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn interim_responses_come_before_the_answer_in_order_and_never_behind_its_head() {
    let interims =
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\nx: y\r\n\r\n";
    for (name, server, _) in roads() {
        let targets: &[&str] = match name {
            "inline" | "on the pool" => &["/informs", "/informs?status=204"],
            "streamed" => &["/informs?/"],
            _ => &["/informs", "/informs?5"],
        };
        for target in targets {
            for method in ["GET", "HEAD"] {
                let answer = all(&server, &get(target, "").replace("GET", method));
                let rest = answer.strip_prefix(interims);
                let rest = rest.unwrap_or_else(|| panic!("{name}, {method} {target}: {answer}"));
                assert!(rest.starts_with("HTTP/1.1 20"), "{name}, {method} {target}: {answer}");
                assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
                assert!(method == "GET" || rest.ends_with("\r\n\r\n"), "{name}: {answer}");
            }
            let old = all(&server, &get(target, "").replace("HTTP/1.1", "HTTP/1.0"));
            assert_eq!(old.matches("HTTP/1.").count(), 1, "{name}: {old}");
        }
        // The connection is in step behind them.
        let mut connection = server.connect();
        for _ in 0..3 {
            connection.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", targets[0]));
            assert!(head(&mut connection).starts_with("HTTP/1.1 103 "), "{name}");
            assert!(head(&mut connection).starts_with("HTTP/1.1 102 "), "{name}");
            assert_eq!(connection.reply().status, 200, "{name}");
        }
        server.stop();
    }
}

#[test]
fn an_interim_response_of_a_stream_goes_out_while_the_run_goes_on() {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let server = Loader::of(spout()).counting(&counts).serve();
    let mut connection = server.connect();
    let gate = scratch.join("gate");
    connection.send(format!("GET /informs?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    assert_eq!(head(&mut connection), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
    assert_eq!(counts.of("ended"), 0);
    scratch.write("gate", "");
    assert_eq!(head(&mut connection), "HTTP/1.1 102 Processing\r\nx: y\r\n\r\n");
    assert_eq!(connection.reply().text(), "begun the head of the response has been sent");
    let many = all(&server, &get("/informs-often", ""));
    assert_eq!(many.matches("HTTP/1.1 103 ").count(), 64);
    assert!(many.ends_with("64 times"), "{many}");
    server.stop();
    counts.assert_complete();
}

#[test]
fn the_loader_alone_asks_for_bodies_and_no_run_switches_protocols() {
    let server = Loader::of(probe()).serve();
    let refused = "the status of an interim response is";
    let statuses = [99, 100, 101, 200];
    let expected = statuses.map(|status| format!("{refused} {status}; it must be 102 to 199\n")).concat();
    assert_eq!(server.get("/informs-badly").text(), expected);
}

#[cfg(feature = "http2")]
mod http2 {
    use std::{future::poll_fn, time::Duration};

    use bytes::Bytes;
    use http::{HeaderMap, Request};

    use super::*;
    use crate::support::LONG;

    /// What a client of HTTP/2 sees of an answer: interim statuses, the status, the body and the trailers.
    type Seen = (Vec<u16>, u16, String, Option<HeaderMap>);

    async fn ask(server: &Server, target: &str, trailers: Option<HeaderMap>) -> Seen {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        actix_rt::spawn(connection);
        let request = Request::post(format!("http://test{target}")).body(()).unwrap();
        let (mut answer, mut body) = client.send_request(request, trailers.is_none()).unwrap();
        if let Some(trailers) = trailers {
            body.send_data(Bytes::from_static(b"abc"), false).unwrap();
            body.send_trailers(trailers).unwrap();
        }
        let mut interims = Vec::new();
        while let Some(interim) = poll_fn(|cx| answer.poll_informational(cx)).await {
            interims.push(interim.unwrap().status().as_u16());
        }
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            text.extend_from_slice(&piece.unwrap());
        }
        let trailers = body.trailers().await.unwrap();
        (interims, head.status.as_u16(), String::from_utf8(text).unwrap(), trailers)
    }

    fn run<T>(client: impl Future<Output = T>) -> T {
        let wait = Duration::from_secs(LONG.as_secs());
        actix_rt::System::new()
            .block_on(async { tokio::time::timeout(wait, client).await.expect("it ends in time") })
    }

    #[test]
    fn trailers_and_interim_responses_are_frames_of_headers() {
        for (name, server, is_streamed) in roads() {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-came", "1".parse().unwrap());
            trailers.append("x-came", "2".parse().unwrap());
            trailers.insert("authorization", "x".parse().unwrap());
            let (_, status, body, trailers) = run(ask(&server, "/trailers", Some(trailers)));
            let came = "x-came: 1\nx-came: 2\n";
            let expected = if is_streamed { format!("abc{came}") } else { came.to_owned() };
            assert_eq!((status, body), (200, expected), "{name}");
            let trailers = trailers.expect("they came");
            let all: Vec<_> =
                trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            assert_eq!(all, [("x-sum", &b"\xff7"[..]), ("x-end", b"")], "{name}");
            let (_, _, body, trailers) = run(ask(&server, "/trailers", None));
            assert!(body.is_empty() && trailers.is_some(), "{name}: trailers alone");
            let target = if name == "streamed" { "/informs?/" } else { "/informs" };
            let (interims, status, ..) = run(ask(&server, target, None));
            assert_eq!((interims, status), (vec![103, 102], 200), "{name}");
            server.stop();
        }
    }
}
