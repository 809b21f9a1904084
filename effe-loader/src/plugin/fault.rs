//! Errors and panics that a lambda's entries report.

use std::fmt;

use effe_abi::raw::{Failure, Status, status};

use crate::journal::Severity;

/// Why a call into a lambda failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The author's error, at the author's severity.
    Error(Severity, String),
    /// A panic, which the lambda's hook has logged.
    Panic(String),
}

impl Fault {
    /// What an entry reports.
    pub fn check(status: Status, failure: Failure) -> Result<(), Fault> {
        match status {
            status::OK => Ok(()),
            status::PANIC => Err(Fault::Panic(failure.text.into())),
            status::ERROR => Err(Fault::Error(Severity::from(failure.level), failure.text.into())),
            unexpected => Err(Fault::Error(Severity::Error, format!("an entry reports status {unexpected}"))),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Error(_, text) => write!(f, "failed: {text}"),
            Fault::Panic(text) => f.write_str(text),
        }
    }
}
