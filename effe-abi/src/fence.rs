//! The fence around every entry: the author's code runs inside it, and no panic gets out.
//!
//! This file turns what the author's code returned, or its panic, into a status and a failure. The text of a panic is
//! left to `report.rs`.

use std::{
    panic::{self, AssertUnwindSafe},
    task::Poll,
};

use crate::{
    calls::HostRef,
    error::{Level, Result},
    raw::{Failure, Status, status},
    report::{self, CallScope},
};

/// What the author's code came to. An error has its severity and the text for the operator.
pub(crate) type Verdict = std::result::Result<(), (Level, String)>;

/// Turns the author's result into a verdict. It must be called inside the fence, because `Display` of the author's
/// error is the author's code, too.
pub(crate) fn verdict(outcome: Result) -> Verdict {
    outcome.map_err(|err| (err.level(), err.to_string()))
}

/// Calls `body`, which calls the author's code. Returns its status and fills in `failure`; doesn't unwind.
pub(crate) fn fence(host: HostRef, failure: &mut Failure, body: impl FnOnce() -> Poll<Verdict>) -> Status {
    let _scope = CallScope::enter(host);
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Poll::Pending) => status::PENDING,
        Ok(Poll::Ready(Ok(()))) => status::OK,
        Ok(Poll::Ready(Err((level, text)))) => {
            report_failure(failure, level, text);
            status::ERROR
        }
        Err(payload) => {
            report_failure(failure, Level::Critical, report::describe_panic(host, &*payload));
            // Dropping the payload may panic, too (rust-lang/rust#86027). That second payload is leaked.
            if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            status::PANIC
        }
    }
}

fn report_failure(failure: &mut Failure, level: Level, text: String) {
    failure.level = level as u32;
    failure.text = text.into();
}
