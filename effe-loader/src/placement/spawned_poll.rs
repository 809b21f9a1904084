//! Times a poll on a thread of an async lambda's own runtime, as polls on the server's threads are timed.

use std::cell::Cell;

use super::{
    Placement,
    cpu_time::Usage,
    policy::{OVERSTAY, SHORT},
    run_clock::{self, Ended},
};
use crate::rt::clock::Moment;

/// While a lambda is not trusted, one of so many polls on a thread counts: a closer look takes system calls.
const LOOK_EVERY: u32 = 8;

thread_local! {
    /// When the poll began that this thread is in, and what the thread had used then, if that was looked at.
    static BEGUN: Cell<(Moment, Option<Usage>)> = const { Cell::new((Moment::ZERO, None)) };
    static N_POLLS: Cell<u32> = const { Cell::new(0) };
}

/// A poll begins on this thread, for [`end`]; the two come in pairs, and no poll is inside another.
pub fn begin(placement: Option<&Placement>) {
    let n_polls = N_POLLS.get().wrapping_add(1);
    N_POLLS.set(n_polls);
    let is_looked_at = n_polls.is_multiple_of(LOOK_EVERY);
    let used = placement.filter(|_| is_looked_at).and_then(Placement::usage);
    BEGUN.set((run_clock::begin(None), used));
}

/// The poll ended; `request` tells its method and path. One that was preempted doesn't count.
pub fn end<'a>(placement: Option<&Placement>, request: impl FnOnce() -> (&'a str, &'a str)) {
    let (begun, used) = BEGUN.get();
    let Ended { took, preempted } = run_clock::end(begun);
    let is_preempted = |used| Usage::now().since(used).shows_preemption(OVERSTAY);
    if preempted || took > SHORT && used.is_some_and(is_preempted) {
        return;
    }
    if let Some(placement) = placement {
        placement.ran_spawned(took, used.is_some(), request);
    }
}
