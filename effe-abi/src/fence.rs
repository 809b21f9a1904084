//! The fence around every entry: the author's code runs inside, and no panic passes.

use std::{
    panic::{self, AssertUnwindSafe},
    task::Poll,
};

use crate::{
    calls::HostRef,
    error::{Level, Result},
    raw::{Failure, Status, status},
    report::{self, Inside},
};

/// What an entry reports instead of OK: how severe it is, and what the operator reads.
pub(crate) type Verdict = std::result::Result<(), (Level, String)>;

/// Turns the author's result into what is reported; to be called inside the fence, for the author's `Display` is the
/// author's code too.
pub(crate) fn verdict(outcome: Result) -> Verdict {
    outcome.map_err(|err| (err.level(), err.to_string()))
}

/// Runs the author's code so that nothing unwinds out of it, and turns what came of it into a status.
pub(crate) fn fence(host: HostRef, failure: &mut Failure, body: impl FnOnce() -> Poll<Verdict>) -> Status {
    let _inside = Inside::enter(host);
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Poll::Pending) => status::PENDING,
        Ok(Poll::Ready(Ok(()))) => status::OK,
        Ok(Poll::Ready(Err((level, text)))) => {
            report_failure(failure, level, text);
            status::ERROR
        }
        Err(payload) => {
            report_failure(failure, Level::Critical, report::describe_panic(host, &*payload));
            // A payload's destructor may panic as well (rust-lang/rust#86027); what that panics with is leaked.
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
