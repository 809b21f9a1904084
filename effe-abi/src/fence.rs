//! The fence around every entry: the author's code runs inside it, and no panic gets out.
//!
//! This file turns what the author's code returned, or its panic, into a status and a failure. The text of a panic is
//! left to `report.rs`.

use std::{
    panic::{self, AssertUnwindSafe},
    task::Poll,
};

use crate::{
    calls::{FailHostRef, HostRef},
    error::{Level, Result},
    raw::{Failure, Status, status},
    report::{describe_panic, in_call},
};

/// What the author's code came to. An error has its severity and the text for the operator.
pub(crate) type Verdict = std::result::Result<(), (Level, String)>;

/// Turns the author's result into a verdict. It must be called inside the fence, because `Display` of the author's
/// error is the author's code, too.
#[inline]
pub(crate) fn verdict(outcome: Result) -> Verdict {
    match outcome {
        Ok(()) => Ok(()),
        Err(err) => Err((err.level(), err.to_string())),
    }
}

/// Calls `body`, which calls the author's code. Returns its status and fills in `failure`, which is the host's; doesn't
/// unwind.
pub(crate) fn fence(host: HostRef, failure: &mut Failure, body: impl FnOnce() -> Poll<Verdict>) -> Status {
    caught(host, body, |level, text| report_failure(host, failure, level, text))
}

/// Does the same where the host asks for no failure: a panic is only logged.
#[cfg(feature = "async")]
pub(crate) fn fence_alone(host: HostRef, body: impl FnOnce()) {
    let body = || {
        body();
        Poll::Ready(Ok(()))
    };
    caught(host, body, |_, _| ());
}

fn caught(host: HostRef, body: impl FnOnce() -> Poll<Verdict>, report: impl FnOnce(Level, String)) -> Status {
    in_call(host, || match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Poll::Pending) => status::PENDING,
        Ok(Poll::Ready(Ok(()))) => status::OK,
        Ok(Poll::Ready(Err((level, text)))) => {
            report(level, text);
            status::ERROR
        }
        Err(payload) => {
            report(Level::Critical, describe_panic(host, &*payload));
            // Dropping the payload may panic, too (rust-lang/rust#86027). That second payload is leaked.
            if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            status::PANIC
        }
    })
}

/// Fills in a failure of the host's. An older host reads it as v1 has it; to any other, it is opaque here.
pub(crate) fn report_failure(host: HostRef, failure: &mut Failure, level: Level, text: String) {
    match FailHostRef::find(host) {
        Some(table) => table.fail(failure, level as u32, &text),
        None => *failure = Failure { level: level as u32, text: text.into() },
    }
}
