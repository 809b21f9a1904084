//! How long the runs of the calling thread take, and whether a run took long by itself or was preempted.
//!
//! To ask the system what a thread has used takes two system calls. So it is asked now and then; once a run was
//! preempted, it is asked before each run for a while, so that the next verdict is exact.

use std::{cell::Cell, time::Duration};

use crate::{
    placement::{
        cpu_time::Usage,
        policy::{OVERSTAY, SHORT},
    },
    rt::clock::Moment,
};

/// Runs from one look at what the thread has used to the next.
const LOOK_EVERY: u64 = 64;
/// After a run that overstayed because it was preempted, the thread looks before each of so many runs.
const CAREFUL_FOR: u64 = 4096;
/// After a run that was no longer short and may have been preempted: such runs cost the trust only if one in sixteen is
/// one of them.
const WARY_FOR: u64 = LOOK_EVERY;

#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub took: Duration,
    /// Whether it took long because it was preempted.
    pub preempted: bool,
}

thread_local! {
    static CLOCK: RunClock = const { RunClock::new() };
}

/// A run or a poll begins on this thread: when, for [`end`]. `now` saves a look at the clock.
#[inline]
pub fn begin(now: Option<Moment>) -> Moment {
    CLOCK.with(|clock| clock.begin(Usage::now));
    now.unwrap_or_else(Moment::now)
}

#[inline]
pub fn end(begun: Moment) -> Ended {
    let took = begun.elapsed();
    CLOCK.with(|clock| Ended { took, preempted: clock.end(took, Usage::now) })
}

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

    /// Whether a run that took so long was preempted.
    fn end(&self, took: Duration, usage: impl Fn() -> Usage) -> bool {
        let preempted = took > SHORT && self.was_preempted(took, usage());
        self.n_runs.set(self.n_runs.get() + 1);
        preempted
    }

    fn was_preempted(&self, took: Duration, now: Usage) -> bool {
        let used = now.since(self.used.replace(now));
        let overstayed = took > OVERSTAY;
        let preempted = match self.is_careful() {
            true => used.shows_preemption(if overstayed { OVERSTAY } else { SHORT }),
            // Such a verdict may rest on what the runs just before used.
            false => overstayed && used.shows_preemption_before(),
        };
        let careful_for = match used.n_preempted {
            _ if preempted && overstayed => CAREFUL_FOR,
            0 => 0,
            _ => WARY_FOR,
        };
        self.careful_until.set(self.careful_until.get().max(self.n_runs.get() + careful_for));
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
    const PREEMPTED: Usage = Usage { cpu: Duration::from_micros(10), n_waits: 0, n_preempted: 1 };

    /// The verdict on a run that took long and used so much, after `n_waits` waits between earlier runs.
    fn was_preempted(clock: &RunClock, used: Usage, n_waits: u64) -> bool {
        let before = Cell::new(Usage { cpu: Duration::from_secs(1), n_waits: 10, n_preempted: 10 });
        clock.begin(|| before.get());
        let Usage { cpu, n_waits: waits, n_preempted } = before.get();
        let now = Usage {
            cpu: cpu + used.cpu,
            n_waits: waits + used.n_waits + n_waits,
            n_preempted: n_preempted + used.n_preempted,
        };
        clock.end(LONG, || now)
    }

    #[test]
    fn a_run_that_waits_or_works_was_not_preempted() {
        assert!(!was_preempted(&RunClock::new(), Usage { n_preempted: 0, n_waits: 1, ..PREEMPTED }, 0));
        assert!(!was_preempted(&RunClock::new(), Usage { cpu: LONG, ..PREEMPTED }, 0));
    }

    #[test]
    fn the_first_verdict_may_rest_on_the_runs_before_and_the_next_one_not() {
        let clock = RunClock::new();
        assert!(was_preempted(&clock, PREEMPTED, 3), "the server has waited between the runs");
        assert!(!was_preempted(&clock, Usage { n_waits: 3, ..PREEMPTED }, 0), "now it is the run's own");
        assert!(was_preempted(&clock, PREEMPTED, 0));
    }

    #[test]
    fn a_run_that_is_short_by_itself_is_not_charged_for_the_time_that_others_had() {
        let middling = |clock: &RunClock, cpu| {
            let before = Usage { cpu: Duration::from_secs(1), ..PREEMPTED };
            clock.begin(|| before);
            let now = Usage { cpu: before.cpu + cpu, n_preempted: before.n_preempted + 1, ..before };
            clock.end(2 * SHORT, || now)
        };
        let clock = RunClock::new();
        assert!(!middling(&clock, SHORT / 2), "it may rest on the runs before");
        assert!(middling(&clock, SHORT / 2));
        assert!(!middling(&clock, SHORT), "it has worked for as long");
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
            assert!(!clock.end(SHORT, look));
        }
        assert_eq!(n_looks.get(), 3);
    }
}
