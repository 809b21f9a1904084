//! A function that gets an event and returns a result, both of serde's types, as a lambda. Needs the feature `aws`.
//!
//! ```
//! use effe_abi::{Result, export};
//!
//! async fn add(numbers: Vec<i64>) -> Result<i64> {
//!     Ok(numbers.iter().sum())
//! }
//!
//! export!(event add);
//!
//! # fn main() {
//! # use effe_abi::testing::{Call, Effe};
//! let answer = Effe::of(&LAMBDA).call(Call::post("/events").body("[1, 2, 3]"));
//! assert_eq!(answer.text(), "6");
//! # }
//! ```
//!
//! As a function of AWS Lambda's it gets each event that is invoked; elsewhere, each body that is posted, whatever its
//! path. What is to be made once is kept in a `static`, such as a `OnceLock`.
//!
//! An error that it returns goes to the operator's log. The caller of a function is told its text, as
//! `{"errorType": …, "errorMessage": …}`; a client of HTTP gets 500 and a fixed sentence.

use std::{future::Future, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    async_entries::async_table,
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    error::{Error, Result},
    function::{assert_captures_nothing, function},
    lambda::{Options, StartError, Started},
    params::Params,
    raw::Plugin,
    request::Request,
};

/// The types that an error has for the caller of a function.
pub(crate) const MISFIT: &str = "Effe.EventMisfit";
const FAILED: &str = "Effe.LambdaFailed";

/// The table of the lambda for `handler`.
pub const fn event_table<F, Fut, T, R>(handler: F, info: &'static str, build: &'static str) -> Plugin
where
    F: Fn(T) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    let _ = handler;
    assert_captures_nothing::<F>();
    async_table::<Handler<F, T>>(info, build)
}

/// A Context, which holds nothing.
struct Handler<F, T>(PhantomData<fn(T) -> F>);

impl<F, Fut, T, R> AsyncLambda for Handler<F, T>
where
    F: Fn(T) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R>> + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    const OPTIONS: Options = Options::new().keep_cancelled();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Handler(PhantomData))
    }

    async fn run(handler: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        handler?;
        let event: T = match request.json() {
            Ok(event) => event,
            Err(err) => {
                response.status(400);
                return fail(request, response, MISFIT, "the body is no event of this lambda's\n", err);
            }
        };
        match function::<F>()(event).await {
            Ok(result) => {
                response.json(&result)?;
                Ok(())
            }
            Err(err) => {
                response.status(500);
                fail(request, response, FAILED, "the lambda failed\n", err)
            }
        }
    }
}

/// Tells the caller of a function what went wrong, and a client of HTTP a sentence.
pub(crate) fn fail(
    request: &Request,
    response: &mut AsyncResponse<'_>,
    kind: &str,
    sentence: &'static str,
    err: Error,
) -> Result {
    if request.invocation().is_some() {
        // Without the place in the source, which is for the log.
        let message = err.source().to_string();
        response.json(&serde_json::json!({"errorType": kind, "errorMessage": message}))?;
    } else {
        response.text(sentence);
    }
    Err(err)
}
