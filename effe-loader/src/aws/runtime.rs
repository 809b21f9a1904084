//! The loader as a function of AWS Lambda's: it listens on nothing, asks the Runtime API for one invocation after
//! another, and posts what comes of each (Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes").

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::{
    sync::{Notify, mpsc::UnboundedReceiver},
    task::JoinHandle,
    time,
};

use super::{
    client::{Client, ClientError, whole_in_time},
    endpoint::Endpoint,
    event::{Shape, prelude},
    failure::FunctionError,
    invoker::{Invoker, Whole},
    payload::{ERROR_BODY, ERROR_TYPE, Payload},
    settings::Function,
    wanted::Serving,
};
use crate::{
    error::Error,
    http::response::Response as LambdaResponse,
    journal::{Journal, Severity},
    message::invocation::Invocation,
    process::control::Stop,
    rt::{clock::Moment, tasks},
};

const ROOT: &str = "/2018-06-01/runtime";
const MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
/// The media type of an answer that begins with its head.
const INTEGRATION: &str = "application/vnd.awslambda.http-integration-response";
/// How often in a row the API may fail to give an invocation before the function ends; it is asked again after the
/// first of these times, then after twice as long, and so on.
const MAX_FAILURES: u32 = 10;
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// The day that Lambda was first heard of, 2014-11-13, in milliseconds since 1970: no deadline was before.
const FIRST_DAY_MS: u64 = 1_415_836_800_000;
/// How often a result is posted where the connection breaks off.
const MAX_POSTS: u32 = 3;
/// How often to look whether what runs after its answer is over.
const LOOK: Duration = Duration::from_millis(1);

impl Serving<'_> {
    /// Serves invocations until `orders` says to stop, and finishes those that are under way. Gives the order back, and
    /// how many were cut off at its deadline. `begun` is called before the first invocation is asked for; `failed`
    /// hears why no more can be had, and is to order a stop.
    pub fn serve(
        self,
        mut orders: UnboundedReceiver<Stop>,
        begun: impl FnOnce(),
        failed: impl Fn(String) + 'static,
    ) -> io::Result<(Stop, usize)> {
        let Serving { function, effe, monitor, timeouts, access_log, drain, streams } = self;
        tasks::run(async move {
            let (journal, limit) = (effe.journal.clone(), effe.limits.body);
            let runtime = Rc::new(Runtime {
                api: function.api.clone(),
                invoker: Invoker::new(effe, monitor, timeouts, access_log),
                journal,
                limit,
                streams,
                is_stopping: Cell::new(false),
                stopping: Notify::new(),
                n_under_way: Cell::new(0),
                failed: Box::new(failed),
            });
            begun();
            let text = format!("asking the Runtime API at {} for invocations", function.api);
            runtime.journal.report(Severity::Info, text, [("address", function.api.to_string())]);
            let pollers: Vec<JoinHandle<()>> =
                (0..function.n_pollers).map(|_| tasks::spawn(Rc::clone(&runtime).poll())).collect();
            let Some(order) = orders.recv().await else {
                return Err(io::Error::other("nobody gives orders"));
            };
            runtime.is_stopping.set(true);
            runtime.stopping.notify_waiters();
            let deadline = time::Instant::from_std(order.deadline(drain));
            let mut n_cut_off = 0;
            for poller in pollers {
                let abort = poller.abort_handle();
                if time::timeout_at(deadline, poller).await.is_err() {
                    n_cut_off += 1;
                    abort.abort();
                }
            }
            while runtime.invoker.is_busy() && time::Instant::now() < deadline {
                time::sleep(LOOK).await;
            }
            Ok((order, n_cut_off))
        })?
    }
}

struct Runtime {
    api: Endpoint,
    invoker: Invoker,
    journal: Journal,
    /// Bytes of an event.
    limit: usize,
    streams: bool,
    is_stopping: Cell<bool>,
    stopping: Notify,
    /// Invocations of all pollers.
    n_under_way: Cell<usize>,
    failed: Box<dyn Fn(String)>,
}

impl Runtime {
    /// Takes one invocation after another.
    async fn poll(self: Rc<Self>) {
        let mut client = Client::new(&self.api);
        let mut n_failures = 0;
        while !self.is_stopping.get() {
            self.finish_rest().await;
            let next = format!("{ROOT}/invocation/next");
            let next = tokio::select! {
                biased;
                next = client.send("GET", &next, &[], Payload::Whole(Bytes::new())) => next,
                () = self.stopping.notified() => return,
            };
            match next {
                Ok(next) if next.status() == StatusCode::OK => {
                    n_failures = 0;
                    self.n_under_way.set(self.n_under_way.get() + 1);
                    self.serve(&mut client, next).await;
                    self.n_under_way.set(self.n_under_way.get() - 1);
                }
                // There is none yet, says an emulator that doesn't keep its clients waiting.
                Ok(next) if next.status() == StatusCode::NO_CONTENT => {
                    n_failures = 0;
                    time::sleep(FIRST_RETRY).await;
                }
                // The guide: the runtime is to exit. It gets no better by asking again.
                Ok(answer) => {
                    return self.fail(format!("the Runtime API gives no invocation: {}", answer.status()));
                }
                Err(err) => {
                    n_failures += 1;
                    if n_failures > MAX_FAILURES {
                        return self.fail(format!("the Runtime API at {} is gone: {err}", self.api));
                    }
                    self.journal.warning(format!("the Runtime API gives no invocation: {err}; asking again"));
                    time::sleep(retry_after(n_failures)).await;
                }
            }
        }
    }

    /// Waits for what runs after its answer: to ask for the next invocation is to say that the process may be frozen.
    /// Nobody asks while another invocation is under way, which keeps the process from that.
    async fn finish_rest(&self) {
        while self.n_under_way.get() == 0 && self.invoker.is_busy() && !self.is_stopping.get() {
            time::sleep(LOOK).await;
        }
    }

    fn fail(&self, why: String) {
        if !self.is_stopping.get() {
            (self.failed)(why);
        }
    }

    /// Serves the invocation that `next` tells of.
    async fn serve(&self, client: &mut Client, next: Response<Incoming>) {
        let Some(mut invocation) = invocation(next.headers()) else {
            return self
                .journal
                .error("the Runtime API gives an invocation without an id, which nobody can answer");
        };
        let (invocation, result) = match whole_in_time(next, self.limit).await {
            Ok(Some(event)) => {
                invocation.event = event;
                let invocation = Arc::new(invocation);
                let result = self.run(&invocation).await;
                (invocation, result)
            }
            Ok(None) => {
                let text = format!("the event is larger than {} bytes; raise --body-limit", self.limit);
                (Arc::new(invocation), Err(FunctionError::new("Effe.EventTooLarge", text)))
            }
            Err(err) => {
                let text = format!("the event broke off on its way: {err}");
                (Arc::new(invocation), Err(FunctionError::new("Effe.EventBrokenOff", text)))
            }
        };
        let id = &invocation.request_id;
        let (shape, response) = match result {
            Ok(answer) => answer,
            Err(err) => return self.post_error(client, id, &err).await,
        };
        let is_answer = shape != Shape::Other || response.head.status.as_u16() < 400;
        if self.streams && is_answer {
            return self.stream(client, id, shape, response).await;
        }
        let whole = Whole::of(response, &invocation).await;
        match whole.and_then(|whole| whole.result(shape)) {
            Ok(result) => self.post_result(client, id, result.into()).await,
            Err(err) => self.post_error(client, id, &err).await,
        }
    }

    /// The head of the lambda's answer, and the shape of the event.
    async fn run(&self, invocation: &Arc<Invocation>) -> Result<(Shape, LambdaResponse), FunctionError> {
        if invocation.deadline.is_some_and(|deadline| deadline.remaining().is_zero()) {
            return Err(FunctionError::timed_out());
        }
        self.invoker.invoke(invocation).await
    }

    async fn post_result(&self, client: &mut Client, id: &str, result: Bytes) {
        let (path, length) = (format!("{ROOT}/invocation/{id}/response"), result.len());
        let headers = [(header::CONTENT_TYPE, "application/json".to_owned())];
        if self.post(client, id, &path, &headers, result).await == Some(StatusCode::PAYLOAD_TOO_LARGE) {
            let text = format!("the result has {length} bytes, more than Lambda takes");
            self.post_error(client, id, &FunctionError::new("Function.ResponseSizeTooLarge", text)).await;
        }
    }

    async fn post_error(&self, client: &mut Client, id: &str, err: &FunctionError) {
        let fields = [("request_id", id.to_owned())];
        self.journal.report(
            Severity::Error,
            format!("an invocation has failed: {}: {}", err.kind, err.message),
            fields,
        );
        let path = format!("{ROOT}/invocation/{id}/error");
        self.post(client, id, &path, &error_headers(&err.kind), err.to_json().into()).await;
    }

    /// Posts what came of an invocation, again if the connection breaks off. What the API says to it.
    async fn post(
        &self,
        client: &mut Client,
        id: &str,
        path: &str,
        headers: &[(HeaderName, String)],
        bytes: Bytes,
    ) -> Option<StatusCode> {
        let mut n_posts = 0;
        loop {
            let posted = client.post(path, headers, Payload::Whole(bytes.clone())).await;
            n_posts += 1;
            match posted {
                Err(err) if n_posts < MAX_POSTS => {
                    self.journal.warning(format!(
                        "the result of invocation {id} can't be posted: {err}; trying again"
                    ));
                    time::sleep(retry_after(n_posts)).await;
                }
                posted => return self.posted(id, posted),
            }
        }
    }

    /// Posts an answer while the lambda writes it.
    async fn stream(&self, client: &mut Client, id: &str, shape: Shape, response: LambdaResponse) {
        let is_http = shape != Shape::Other;
        let content_type = if is_http { INTEGRATION } else { "application/octet-stream" };
        let headers = [
            (header::CONTENT_TYPE, content_type.to_owned()),
            (MODE, "streaming".to_owned()),
            (header::TRAILER, format!("{ERROR_TYPE}, {ERROR_BODY}")),
        ];
        let LambdaResponse { head, body, .. } = response;
        let prelude = is_http.then(|| prelude(head.status, &head.fields).into());
        let payload = Payload::Streamed { prelude, body: Some(body) };
        let posted = client.post(&format!("{ROOT}/invocation/{id}/response"), &headers, payload).await;
        self.posted(id, posted);
    }

    /// Says in the log if a result was not taken. An API that has failed takes no more results.
    fn posted(&self, id: &str, posted: Result<StatusCode, ClientError>) -> Option<StatusCode> {
        let (status, what) = match posted {
            Ok(status) if status.is_success() => return Some(status),
            Ok(status) => (Some(status), status.to_string()),
            Err(err) => (None, err.to_string()),
        };
        let fields = [("request_id", id.to_owned())];
        let text = format!("the result of an invocation is lost: the Runtime API doesn't take it: {what}");
        self.journal.report(Severity::Error, text, fields);
        if status.is_some_and(|status| status.is_server_error()) {
            self.fail(format!("the Runtime API has failed: {what}"));
        }
        status
    }
}

/// What the API says of an invocation beside the event; `None` without an id that can stand in a path.
fn invocation(headers: &HeaderMap) -> Option<Invocation> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let is_id = |id: &String| {
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let deadline_ms: Option<u64> = text("lambda-runtime-deadline-ms").and_then(|digits| digits.parse().ok());
    // One of cargo-lambda's emulator says how long an invocation may take, though the API says until when.
    let deadline_ms = deadline_ms.filter(|at| *at >= FIRST_DAY_MS);
    // The system's clock, as the API's; the loader's own is monotonic.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = deadline_ms.map(|at| Duration::from_millis(at).saturating_sub(now));
    Some(Invocation {
        request_id: text("lambda-runtime-aws-request-id").filter(is_id)?,
        deadline: left.map(|left| Moment::now() + left),
        deadline_ms: deadline_ms.map(|at| at.to_string()),
        function_arn: text("lambda-runtime-invoked-function-arn"),
        trace_id: text("lambda-runtime-trace-id"),
        client_context: text("lambda-runtime-client-context"),
        cognito_identity: text("lambda-runtime-cognito-identity"),
        ..Invocation::default()
    })
}

fn error_headers(kind: &str) -> [(HeaderName, String); 2] {
    // An author's own type may be any text, a header's value may not.
    let kind = kind.chars().filter(char::is_ascii_graphic).collect();
    [(header::CONTENT_TYPE, "application/vnd.aws.lambda.error+json".to_owned()), (ERROR_TYPE, kind)]
}

fn retry_after(n_failures: u32) -> Duration {
    (FIRST_RETRY * 2_u32.saturating_pow(n_failures.saturating_sub(1).min(16))).min(LONGEST_RETRY)
}

/// Tells Lambda why the function doesn't start.
pub fn report_init_error(function: &Function, err: &Error) {
    let (kind, message) = Function::init_error(err);
    post_init_error(function, &FunctionError::new(kind, message));
}

/// Tells Lambda that the flags are wrong.
pub fn report_usage(function: &Function, text: &str) {
    post_init_error(function, &FunctionError::new("Effe.Usage", text));
}

/// Whoever reads the log knows it already, so an API that can't be reached is not told of.
fn post_init_error(function: &Function, err: &FunctionError) {
    let mut client = Client::new(&function.api);
    let payload = Payload::Whole(err.to_json().into());
    let _ = tasks::run(async {
        client.post(&format!("{ROOT}/init/error"), &error_headers(&err.kind), payload).await
    });
}
