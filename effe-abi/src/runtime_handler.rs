//! A handler that was written for the crate `lambda_runtime`, as a lambda. Needs the feature `lambda_runtime`.
//!
//! ```
//! use lambda_runtime::{Error, LambdaEvent};
//!
//! async fn handler(event: LambdaEvent<Vec<i64>>) -> Result<i64, Error> {
//!     Ok(event.payload.iter().sum())
//! }
//!
//! effe_abi::export!(lambda_runtime handler);
//!
//! # fn main() {
//! # use effe_abi::testing::{Call, Effe};
//! let answer = Effe::of(&LAMBDA).call(Call::post("/events").body("[1, 2, 3]"));
//! assert_eq!(answer.text(), "6");
//! # }
//! ```
//!
//! What `export!(event …)` makes of events, results and errors, this does too. The caller of a function is told the
//! error's type and text, as `lambda_runtime` itself tells them.

use std::{
    env, fmt,
    future::Future,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lambda_runtime::{Config, Context, Diagnostic, LambdaEvent};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    async_entries::async_table,
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    error::{Error, Result},
    event_handler::{MISFIT, fail},
    function::{assert_captures_nothing, function},
    lambda::{Options, StartError, Started},
    params::Params,
    raw::Plugin,
    request::Request,
};

/// Lambda's longest timeout: what a handler is told where there is none.
const LONGEST: Duration = Duration::from_secs(900);

/// The table of the lambda for `handler`.
pub const fn runtime_table<F, Fut, T, R, E>(handler: F, info: &'static str, build: &'static str) -> Plugin
where
    F: Fn(LambdaEvent<T>) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<Diagnostic> + fmt::Debug + Send + 'static,
{
    let _ = handler;
    assert_captures_nothing::<F>();
    async_table::<Handler<F, T>>(info, build)
}

/// A Context, which holds nothing.
struct Handler<F, T>(PhantomData<fn(T) -> F>);

impl<F, Fut, T, R, E> AsyncLambda for Handler<F, T>
where
    F: Fn(LambdaEvent<T>) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<Diagnostic> + fmt::Debug + Send + 'static,
{
    const OPTIONS: Options = Options::new().keep_cancelled();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Handler(PhantomData))
    }

    async fn run(handler: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        handler?;
        let payload: T = match request.json() {
            Ok(payload) => payload,
            Err(err) => {
                response.status(400);
                return fail(request, response, MISFIT, "the body is no event of this lambda's\n", err);
            }
        };
        match function::<F>()(LambdaEvent::new(payload, context(request))).await {
            Ok(result) => {
                response.json(&result)?;
                Ok(())
            }
            Err(err) => diagnose(request, response, err.into()),
        }
    }
}

/// Tells the caller of a function what `lambda_runtime` would tell, and a client of HTTP a sentence.
pub(crate) fn diagnose(
    request: &Request,
    response: &mut AsyncResponse<'_>,
    diagnostic: Diagnostic,
) -> Result {
    response.status(500);
    let err = Error::new(diagnostic.error_message);
    fail(request, response, &diagnostic.error_type, "the lambda failed\n", err)
}

/// What the handler may know of its invocation. Of a request that came over HTTP it is the same, as far as there is
/// such a thing.
pub(crate) fn context(request: &Request) -> Context {
    let mut context = Context::default();
    context.env_config = config();
    let (deadline, trace) = match request.invocation() {
        Some(invocation) => {
            context.invoked_function_arn = invocation.function_arn().unwrap_or_default().to_owned();
            context.client_context = invocation.client_context().and_then(read);
            context.identity = invocation.cognito_identity().and_then(read);
            (invocation.deadline(), invocation.trace_id())
        }
        None => (None, request.header("x-amzn-trace-id")),
    };
    context.request_id = request.id().to_owned();
    context.xray_trace_id = trace.map(str::to_owned);
    let deadline = deadline.unwrap_or_else(|| {
        let left = request.deadline().map(|at| at.saturating_duration_since(std::time::Instant::now()));
        SystemTime::now() + left.unwrap_or(LONGEST)
    });
    let since_1970 = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
    context.deadline = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    context
}

/// What doesn't fit is left out: a caller can say anything.
fn read<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

/// What Lambda says of the function, by the environment. Elsewhere there is nothing.
fn config() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let text = |name| env::var(name).unwrap_or_default();
        Arc::new(Config {
            function_name: text("AWS_LAMBDA_FUNCTION_NAME"),
            memory: text("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").parse().unwrap_or_default(),
            version: text("AWS_LAMBDA_FUNCTION_VERSION"),
            log_stream: text("AWS_LAMBDA_LOG_STREAM_NAME"),
            log_group: text("AWS_LAMBDA_LOG_GROUP_NAME"),
        })
    });
    Arc::clone(config)
}
