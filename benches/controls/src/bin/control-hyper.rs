//! The same work in bare hyper: `control-hyper [WORKERS] PORT`. Each worker is a thread with a runtime of its own, and
//! serves its connections alone; the first one accepts, and hands them out in turns, as actix-server does.

use std::{convert::Infallible, io, iter, net, rc::Rc, thread, time::Duration};

use controls::{Greeter, millis, port, receipt, workers};
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
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
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
        (&Method::POST, "/upload") => {
            *response.body_mut() = Full::new(measure(request.into_body()).await.into());
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

/// Reads a body as it comes, and tells how long it was.
async fn measure(mut body: Incoming) -> String {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    format!("{length}\n")
}

fn main() -> io::Result<()> {
    let others = (1..workers()).map(|_| {
        let (connections, handed) = unbounded_channel();
        thread::spawn(move || serve_handed(handed));
        Some(connections)
    });
    let turns: Vec<_> = iter::once(None).chain(others).collect();
    let greeter = Rc::new(Greeter::new());
    LocalSet::new().block_on(&runtime()?, async move {
        let listener = TcpListener::bind(("127.0.0.1", port())).await?;
        for turn in turns.iter().cycle() {
            let (stream, _) = listener.accept().await?;
            match turn {
                None => serve(stream, &greeter)?,
                Some(other) => hand(stream, other)?,
            }
        }
        Ok(())
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Gives a connection to another worker, whose runtime is to watch it.
fn hand(stream: TcpStream, worker: &UnboundedSender<net::TcpStream>) -> io::Result<()> {
    worker.send(stream.into_std()?).map_err(io::Error::other)
}

/// The life of a worker that doesn't accept.
fn serve_handed(mut handed: UnboundedReceiver<net::TcpStream>) -> io::Result<()> {
    let greeter = Rc::new(Greeter::new());
    LocalSet::new().block_on(&runtime()?, async move {
        while let Some(stream) = handed.recv().await {
            serve(TcpStream::from_std(stream)?, &greeter)?;
        }
        Ok(())
    })
}

/// Serves a connection in a task of its own.
fn serve(stream: TcpStream, greeter: &Rc<Greeter>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The time limit on heads is hyper's default, as it is actix's and so effe's.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let greeter = Rc::clone(greeter);
    let service = service_fn(move |request| answer(Rc::clone(&greeter), request));
    let connection = server.serve_connection(TokioIo::new(stream), service);
    spawn_local(async move {
        let _ = connection.await;
    });
    Ok(())
}
