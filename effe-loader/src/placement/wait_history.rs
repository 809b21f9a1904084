//! Whether the runs of an async lambda wait again and again: then they had better be spawned in the lambda's runtime. A
//! run that is ready at once costs no hop between threads, and one that waits once costs one. One that waits again and
//! again for tasks of the lambda's runtime would go back and forth between that thread and ours.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Runs that are looked at before the decision is made, and how many of them must wait more than once.
const N_LOOKED_AT: u32 = 32;
const N_OFTEN: u32 = 16;
/// Runs after which the decision to spawn is tried anew: a spawned run doesn't show how often it waits.
const N_SPAWNED: u32 = 4096;

/// Every access is relaxed. Two threads may both miss a run that the other counts, which the decision survives.
#[derive(Default)]
pub struct WaitHistory {
    waits_often: AtomicBool,
    /// Runs since the last decision, and those of them that waited more than once.
    n_runs: AtomicU32,
    n_waited_again: AtomicU32,
}

impl WaitHistory {
    pub fn waits_often(&self) -> bool {
        self.waits_often.load(Ordering::Relaxed)
    }

    /// A run has ended that waited so often.
    pub fn ended(&self, n_waits: u32) {
        if n_waits > 1 {
            self.n_waited_again.fetch_add(1, Ordering::Relaxed);
        }
        let n_runs = self.n_runs.fetch_add(1, Ordering::Relaxed) + 1;
        let waits_often = self.waits_often();
        if n_runs >= if waits_often { N_SPAWNED } else { N_LOOKED_AT } {
            let n_again = self.n_waited_again.swap(0, Ordering::Relaxed);
            self.waits_often.store(!waits_often && n_again >= N_OFTEN, Ordering::Relaxed);
            self.n_runs.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_runs_are_often_a_third_is_not_and_it_is_tried_anew() {
        let history = WaitHistory::default();
        for n in 0..10 * N_LOOKED_AT {
            history.ended(if n % 3 == 0 { 2 } else { n % 2 });
            assert!(!history.waits_often());
        }
        for n in 0..N_LOOKED_AT {
            assert!(!history.waits_often());
            history.ended(1 + n % 2);
        }
        assert!(history.waits_often());
        for _ in 0..N_SPAWNED {
            assert!(history.waits_often(), "a spawned run waits once, as far as we see");
            history.ended(1);
        }
        assert!(!history.waits_often());
    }
}
