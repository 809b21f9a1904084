//! A mock of Lambda's Runtime API for functions that are raced, as small as it can be: `control-runtime-api PORT`.
//!
//! Whoever races them asks the same port. `GET /first` is answered when a function asks for an invocation; `GET /run/N`
//! when the function that asks has answered N of them, with how many of the answers were wrong.

use std::{cell::Cell, convert::Infallible, env, rc::Rc};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::{LocalSet, spawn_local},
};

/// What a Function URL sends for a request of a browser's.
const EVENT: &str = r#"{"version":"2.0","routeKey":"$default","rawPath":"/","rawQueryString":"","headers":{"x-amzn-tls-version":"TLSv1.3","x-amzn-trace-id":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700","x-forwarded-proto":"https","host":"id.lambda-url.eu-west-1.on.aws","x-forwarded-port":"443","x-forwarded-for":"192.0.2.1","accept":"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8","accept-language":"en-US,en;q=0.5","accept-encoding":"gzip, deflate, br","user-agent":"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"},"requestContext":{"accountId":"anonymous","apiId":"id","domainName":"id.lambda-url.eu-west-1.on.aws","domainPrefix":"id","http":{"method":"GET","path":"/","protocol":"HTTP/1.1","sourceIp":"192.0.2.1","userAgent":"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"},"requestId":"0f2d7e0f-8c2b-4c8e-9d4e-1c1f4c8f3a21","routeKey":"$default","stage":"$default","time":"01/Jan/2026:00:00:00 +0000","timeEpoch":1767225600000},"isBase64Encoded":false}"#;

#[derive(Default)]
struct State {
    /// Invocations that may still be handed out, and results that are still to come.
    to_hand_out: Cell<u64>,
    to_come: Cell<u64>,
    wrong: Cell<u64>,
    n_ids: Cell<u64>,
    asked: Notify,
    more: Notify,
    done: Notify,
}

async fn answer(state: Rc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    let response = if *request.method() == Method::POST {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        state.take(path.ends_with("/response") && is_right(&body));
        response.status(StatusCode::ACCEPTED).body(Full::default())
    } else if path.ends_with("/invocation/next") {
        let id = state.next().await;
        response
            .header("lambda-runtime-aws-request-id", format!("0f2d7e0f-8c2b-4c8e-9d4e-{id:012}"))
            .header("lambda-runtime-deadline-ms", "4102444800000")
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:f")
            .header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700")
            .header("content-type", "application/json")
            .body(Full::from(EVENT))
    } else if path == "/first" {
        state.asked.notified().await;
        response.body(Full::default())
    } else {
        let n = path.strip_prefix("/run/").and_then(|n| n.parse().ok()).unwrap_or(0);
        response.body(Full::from(state.run(n).await.to_string()))
    };
    Ok(response.unwrap_or_default())
}

fn is_right(body: &[u8]) -> bool {
    let expected = b"Hello from Effe:  ";
    body.windows(expected.len()).any(|window| window == expected)
}

impl State {
    /// Waits until there is an invocation; its number.
    async fn next(&self) -> u64 {
        self.asked.notify_waiters();
        while self.to_hand_out.get() == 0 {
            self.more.notified().await;
        }
        self.to_hand_out.set(self.to_hand_out.get() - 1);
        self.n_ids.set(self.n_ids.get() + 1);
        self.n_ids.get()
    }

    fn take(&self, is_right: bool) {
        self.wrong.set(self.wrong.get() + u64::from(!is_right));
        self.to_come.set(self.to_come.get().saturating_sub(1));
        if self.to_come.get() == 0 {
            self.done.notify_waiters();
        }
    }

    /// Hands out so many, and waits for all results; how many are wrong.
    async fn run(&self, n: u64) -> u64 {
        let done = self.done.notified();
        self.wrong.set(0);
        self.to_come.set(n);
        self.to_hand_out.set(n);
        self.more.notify_one();
        if n > 0 {
            done.await;
        }
        self.wrong.get()
    }
}

fn main() -> std::io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = Rc::<State>::default();
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let state = Rc::clone(&state);
            let service = service_fn(move |request| answer(Rc::clone(&state), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            spawn_local(async move {
                let _ = connection.await;
            });
        }
    })
}
