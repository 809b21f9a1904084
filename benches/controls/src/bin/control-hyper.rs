//! The same work in bare hyper on one thread: `control-hyper PORT`.

use std::{convert::Infallible, rc::Rc, time::Duration};

use controls::{Greeter, millis, port, receipt};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::{LocalSet, spawn_local},
};

async fn answer(
    greeter: Rc<Greeter>,
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, Incoming>>, Infallible> {
    if (request.method(), request.uri().path()) == (&Method::POST, "/pipe") {
        return Ok(pipe(request));
    }
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            *response.body_mut() = Full::new(Bytes::from(greeter.greet()));
        }
        (&Method::POST, "/echo") => {
            if let Some(kind) = request.headers().get(CONTENT_TYPE) {
                response.headers_mut().insert(CONTENT_TYPE, kind.clone());
            }
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            *response.body_mut() = Full::new(body);
        }
        (&Method::POST, "/json") => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match receipt(&body) {
                Some(receipt) => *response.body_mut() = Full::new(receipt.into()),
                None => *response.status_mut() = StatusCode::BAD_REQUEST,
            }
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        (&Method::GET, "/sleep") => {
            let millis = millis(request.uri().query().unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(millis)).await;
            *response.body_mut() = Full::new(format!("slept {millis} ms\n").into());
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response.map(Either::Left))
}

/// Sends a body back as it comes.
fn pipe(request: Request<Incoming>) -> Response<Either<Full<Bytes>, Incoming>> {
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let mut response = Response::new(Either::Right(request.into_body()));
    response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    response
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let greeter = Rc::new(Greeter::new());
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port())).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // The time limit on heads is hyper's default, as it is actix's and so effe's.
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new());
            let connection = server.serve_connection(
                TokioIo::new(stream),
                service_fn({
                    let greeter = Rc::clone(&greeter);
                    move |request| answer(Rc::clone(&greeter), request)
                }),
            );
            spawn_local(async move {
                let _ = connection.await;
            });
        }
    })
}
