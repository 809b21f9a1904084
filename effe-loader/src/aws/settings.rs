//! What the environment says of a function, and what it means for the flags.

use std::{env, ffi::OsString, num::NonZeroUsize, path::PathBuf};

use super::endpoint::Endpoint;
use crate::error::Error;

/// Where the Runtime API is. It is set wherever a process is to be a function.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// A function of AWS Lambda's, which this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub api: Endpoint,
    /// Invocations that may be under way at once.
    pub n_pollers: usize,
}

impl Function {
    /// What Lambda says of this process; `None` if it isn't a function.
    ///
    /// # Errors
    /// A line for the operator.
    pub fn of_environment() -> Result<Option<Function>, String> {
        let Some(api) = text(RUNTIME_API) else { return Ok(None) };
        let api =
            Endpoint::parse(&api).ok_or_else(|| format!("{RUNTIME_API} is {api:?}: write HOST:PORT"))?;
        let n_pollers = match text("AWS_LAMBDA_MAX_CONCURRENCY") {
            None => NonZeroUsize::MIN,
            Some(text) => {
                text.parse().map_err(|_| format!("AWS_LAMBDA_MAX_CONCURRENCY is {text:?}: write a number"))?
            }
        };
        Ok(Some(Function { api, n_pollers: n_pollers.get() }))
    }

    /// Defaults of flags that are others in a function, by the names of the arguments.
    ///
    /// `_HANDLER` is the plugin. The Runtime API bounds events, time and memory. A process that is frozen between two
    /// invocations must not take that time for idle, and nobody listens to syslog.
    pub fn defaults() -> Vec<(&'static str, OsString)> {
        if text(RUNTIME_API).is_none() {
            return Vec::new();
        }
        let is_json = text("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
        let mut defaults = vec![
            ("body_limit", "16MiB".into()),
            ("idle_timeout", "0s".into()),
            ("log_format", if is_json { "json" } else { "text" }.into()),
            ("run_timeout", "0s".into()),
            ("syslog", "none".into()),
        ];
        if let Some(handler) = env::var_os("_HANDLER").filter(|handler| !handler.is_empty()) {
            let root = env::var_os("LAMBDA_TASK_ROOT").map(PathBuf::from).unwrap_or_default();
            defaults.push(("plugin", root.join(handler).into()));
        }
        defaults
    }

    /// Why a flag makes no sense here.
    pub fn misplaced(flag: &str) -> String {
        format!("{flag}: a function of AWS Lambda's listens on nothing and is one process; leave it out")
    }

    /// The type that an error of the start has for Lambda, and its text: without what a panic of the author's says.
    pub fn init_error(err: &Error) -> (&'static str, String) {
        match err {
            Error::Refused(_) => ("Effe.PluginRefused", err.to_string()),
            Error::Step { step, what, .. } => {
                let kind = if *step == "init" { "Effe.InitFailed" } else { "Effe.StartFailed" };
                let is_authors = what.starts_with("failed: ");
                (kind, if is_authors { err.to_string() } else { format!("the lambda's {step} panicked") })
            }
            _ => ("Effe.CannotStart", err.to_string()),
        }
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}
