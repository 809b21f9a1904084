//! Invocations of this effe's function, and what comes of them.

use std::{
    cell::Cell,
    fmt,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::{reply::ApiError, route::Route};
use crate::{
    aws::{
        event::Shape,
        failure::FunctionError,
        invoker::{Invoker, Whole, noted},
    },
    effe::Effe,
    handler::failure::Failure,
    http::response::Response,
    journal::{Tap, keep_last},
    message::invocation::Invocation,
    rt::clock::Moment,
};

const LATEST: &str = "$LATEST";

/// What a caller says beside the event.
#[derive(Clone, Default)]
pub struct Context {
    pub arn: String,
    pub client: Option<String>,
    pub trace: Option<String>,
}

/// Runs invocations, and knows which function this is.
pub struct Invocations {
    invoker: Invoker,
    effe: Arc<Effe>,
    seed: u64,
    n_ids: Cell<u64>,
}

/// Why there is no result.
pub enum Failed {
    Busy,
    Error(FunctionError),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Busy => f.write_str("as many requests as may be are running"),
            Failed::Error(err) => write!(f, "{}: {}", err.kind, err.message),
        }
    }
}

impl Invocations {
    pub fn new(invoker: Invoker, effe: Arc<Effe>) -> Invocations {
        Invocations { invoker, effe, seed: fastrand::u64(..), n_ids: Cell::new(0) }
    }

    /// An id in the form of a UUID, which clients may check.
    pub fn new_id(&self) -> String {
        let n = self.n_ids.get();
        self.n_ids.set(n + 1);
        let (seed, n) = (self.seed, n & 0xffff_ffff_ffff);
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}",
            seed >> 32,
            (seed >> 16) & 0xffff,
            (seed >> 4) & 0xfff,
            std::process::id() & 0xfff
        )
    }

    /// Whether this effe is the function that is asked for: the version that runs.
    pub fn check(&self, route: &Route) -> Result<String, ApiError> {
        let generation = self.effe.generations.current();
        let info: Value = serde_json::from_str(generation.plugin.info()).unwrap_or_default();
        let text = |name| info.get(name).and_then(Value::as_str).unwrap_or_default();
        let version = text("version");
        let is_version = route.qualifier.as_deref().is_none_or(|asked| asked == LATEST || asked == version);
        if route.name != text("name") || !is_version {
            let text = format!("Function not found: {}", route.arn());
            return Err(ApiError::new(404, "ResourceNotFoundException", text));
        }
        Ok(if version.is_empty() || route.qualifier.is_none() { LATEST } else { version }.to_owned())
    }

    pub fn invocation(&self, id: &str, event: Bytes, context: Context) -> Arc<Invocation> {
        let timeout = self.effe.limits.timeouts.run;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Invocation {
            request_id: id.to_owned(),
            deadline: timeout.map(|timeout| Moment::now() + timeout),
            deadline_ms: timeout.map(|timeout| (now + timeout).as_millis().to_string()),
            function_arn: Some(context.arn),
            trace_id: context.trace,
            client_context: context.client,
            event,
            ..Invocation::default()
        })
    }

    /// The head of the answer, and the shape of the event.
    pub async fn begin(&self, invocation: &Arc<Invocation>) -> Result<(Shape, Response), Failed> {
        let begun = self.invoker.invoke(invocation).await;
        let (shape, response) = begun.map_err(|err| self.failed(err, invocation))?;
        // The answer of the handler is in the shape of the event, but the function has not been called.
        let failure = noted(&response);
        match failure {
            Some(Failure::Busy | Failure::NoRoom | Failure::NotReady) => Err(Failed::Busy),
            _ => Ok((shape, response)),
        }
    }

    /// The whole result.
    pub async fn run(&self, invocation: &Arc<Invocation>) -> Result<Vec<u8>, Failed> {
        let (shape, response) = self.begin(invocation).await?;
        let whole = Whole::of(response, invocation).await;
        whole.and_then(|whole| whole.result(shape)).map_err(|err| self.failed(err, invocation))
    }

    pub fn failed(&self, err: FunctionError, invocation: &Invocation) -> Failed {
        if err.kind == "Effe.Busy" {
            return Failed::Busy;
        }
        let timeout = self.effe.limits.timeouts.run.filter(|_| err == FunctionError::timed_out());
        Failed::Error(match timeout {
            // As Lambda itself says it.
            Some(timeout) => FunctionError {
                message: format!(
                    "RequestId: {} Error: Task timed out after {:.2} seconds",
                    invocation.request_id,
                    timeout.as_secs_f64()
                ),
                ..err
            },
            None => err,
        })
    }
}

/// What a run says, for a client that wants the end of it.
pub struct RunLog {
    tap: Tap,
    id: String,
    version: String,
    since: Instant,
}

impl RunLog {
    pub fn begin(id: &str, version: &str) -> RunLog {
        RunLog { tap: Tap::on(id), id: id.to_owned(), version: version.to_owned(), since: Instant::now() }
    }

    /// The last 4 KiB as base64.
    pub fn end(self) -> String {
        let (id, took) = (&self.id, self.since.elapsed().as_secs_f64() * 1000.0);
        let mut text = format!(
            "START RequestId: {id} Version: {}\n{}END RequestId: {id}\n\
             REPORT RequestId: {id}\tDuration: {took:.2} ms\tBilled Duration: {} ms\n",
            self.version,
            self.tap.lines(),
            took.ceil()
        );
        keep_last(&mut text);
        STANDARD.encode(text)
    }
}
