//! How long the runs of the calling thread take, and whether a run took long by itself or because the system gave its
//! thread's CPU to somebody else.
//!
//! To ask the system what a thread has used takes two system calls. So it is asked now and then; once a run was
//! excused, it is asked before each run for a while, so that the next excuse is exact.

use std::{cell::Cell, time::Duration};

use crate::{
    placement::{cpu_time::Usage, policy::OVERSTAY},
    rt::clock::Moment,
};

/// Runs from one look at what the thread has used to the next.
const LOOK_EVERY: u64 = 64;
/// Runs for which an excuse makes the thread look before each one.
const CAREFUL_FOR: u64 = 4096;

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// Whether it took long because the system did not let its thread run.
    pub preempted: bool,
}

thread_local! {
    static CLOCK: RunClock = const { RunClock::new() };
}

/// A run begins on this thread, or a poll of one; `now` saves a look at the clock. The beginning is for [`end`].
pub fn begin(now: Option<Moment>) -> Moment {
    CLOCK.with(|clock| clock.begin(Usage::now));
    now.unwrap_or_else(Moment::now)
}

/// The run that began then has ended on this thread.
pub fn end(begun: Moment) -> Ended {
    let took = begun.elapsed();
    CLOCK.with(|clock| Ended { took, preempted: clock.end(took, Usage::now) })
}

/// The clock of one thread. What the thread has used is told by whoever calls.
struct RunClock {
    n_runs: Cell<u64>,
    /// What the thread had used when it last looked: before this run, or not many runs ago.
    used: Cell<Usage>,
    /// Until so many runs, it looks before each.
    careful_until: Cell<u64>,
}

impl RunClock {
    const fn new() -> RunClock {
        RunClock { n_runs: Cell::new(0), used: Cell::new(Usage::NONE), careful_until: Cell::new(0) }
    }

    fn begin(&self, usage: impl Fn() -> Usage) {
        if self.is_careful() || self.n_runs.get().is_multiple_of(LOOK_EVERY) {
            self.used.set(usage());
        }
    }

    /// Whether a run that took so long is excused.
    fn end(&self, took: Duration, usage: impl Fn() -> Usage) -> bool {
        let preempted = took > OVERSTAY && {
            let now = usage();
            let used = now.since(self.used.replace(now));
            // The first excuse may rest on what the runs just before it used.
            if self.is_careful() { used.shows_preemption() } else { used.shows_preemption_before() }
        };
        if preempted {
            self.careful_until.set(self.n_runs.get() + CAREFUL_FOR);
        }
        self.n_runs.set(self.n_runs.get() + 1);
        preempted
    }

    fn is_careful(&self) -> bool {
        self.n_runs.get() < self.careful_until.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(3);
    const KEPT: Usage = Usage { cpu: Duration::from_micros(10), n_waits: 0, n_losses: 1 };

    /// The verdict on a run that took long and used so much, after `n_waits` waits between earlier runs.
    fn excuses(clock: &RunClock, used: Usage, n_waits: u64) -> bool {
        let before = Cell::new(Usage { cpu: Duration::from_secs(1), n_waits: 10, n_losses: 10 });
        clock.begin(|| before.get());
        let Usage { cpu, n_waits: waits, n_losses } = before.get();
        let now = Usage {
            cpu: cpu + used.cpu,
            n_waits: waits + used.n_waits + n_waits,
            n_losses: n_losses + used.n_losses,
        };
        clock.end(LONG, || now)
    }

    #[test]
    fn a_run_that_waits_or_works_is_not_excused() {
        assert!(!excuses(&RunClock::new(), Usage { n_losses: 0, n_waits: 1, ..KEPT }, 0));
        assert!(!excuses(&RunClock::new(), Usage { cpu: LONG, ..KEPT }, 0));
    }

    #[test]
    fn the_first_excuse_may_rest_on_the_runs_before_and_the_next_one_not() {
        let clock = RunClock::new();
        assert!(excuses(&clock, KEPT, 3), "the server has waited between the runs");
        assert!(!excuses(&clock, Usage { n_waits: 3, ..KEPT }, 0), "now it is the run's own");
        assert!(excuses(&clock, KEPT, 0));
    }

    #[test]
    fn a_short_run_asks_the_system_once_in_a_while() {
        let (clock, n_looks) = (RunClock::new(), Cell::new(0));
        for _ in 0..3 * LOOK_EVERY {
            let look = || {
                n_looks.set(n_looks.get() + 1);
                Usage::NONE
            };
            clock.begin(look);
            assert!(!clock.end(OVERSTAY, look));
        }
        assert_eq!(n_looks.get(), 3);
    }
}
