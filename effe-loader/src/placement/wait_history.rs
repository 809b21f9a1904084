//! How often the runs of an async lambda wait, and what follows for the next ones: [`SpawnPolicy`] decides.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    cpu_time,
    spawn_policy::{N_LOOKED_AT, Runs, SpawnPolicy},
};

/// Every access is relaxed. Two threads may both miss a run that the other counts, which the decision survives.
pub struct WaitHistory {
    spawns: AtomicBool,
    /// The runs that the last decision is for.
    n_decided: AtomicU32,
    /// Those of them that have ended, that waited once, and that waited more than once.
    n_runs: AtomicU32,
    n_once: AtomicU32,
    n_again: AtomicU32,
    policy: Mutex<SpawnPolicy>,
}

impl Default for WaitHistory {
    fn default() -> WaitHistory {
        WaitHistory {
            spawns: AtomicBool::new(false),
            n_decided: AtomicU32::new(N_LOOKED_AT),
            n_runs: AtomicU32::new(0),
            n_once: AtomicU32::new(0),
            n_again: AtomicU32::new(0),
            policy: Mutex::new(SpawnPolicy::new()),
        }
    }
}

impl WaitHistory {
    /// Whether a run that begins now had better be spawned.
    pub fn spawns(&self) -> bool {
        self.spawns.load(Ordering::Relaxed)
    }

    /// A run has ended that waited so often.
    pub fn ended(&self, n_waits: u32) {
        match n_waits {
            0 => {}
            1 => _ = self.n_once.fetch_add(1, Ordering::Relaxed),
            _ => _ = self.n_again.fetch_add(1, Ordering::Relaxed),
        }
        let n_runs = self.n_runs.fetch_add(1, Ordering::Relaxed) + 1;
        if n_runs >= self.n_decided.load(Ordering::Relaxed) {
            self.decide(n_runs);
        }
    }

    #[cold]
    fn decide(&self, n_runs: u32) {
        // Whoever holds it decides.
        let Ok(mut policy) = self.policy.try_lock() else {
            return;
        };
        let take = |count: &AtomicU32| count.swap(0, Ordering::Relaxed);
        let runs = Runs { n_runs, n_once: take(&self.n_once), n_again: take(&self.n_again) };
        // To ask takes a call to the system.
        let cpu = if runs.n_once > 0 { cpu_time::of_process() } else { Duration::ZERO };
        let decision = policy.next(runs, cpu);
        self.spawns.store(decision.spawns, Ordering::Relaxed);
        self.n_decided.store(decision.n_runs, Ordering::Relaxed);
        self.n_runs.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_runs_are_often_a_third_is_not() {
        let history = WaitHistory::default();
        for n in 0..10 * N_LOOKED_AT {
            history.ended(if n % 3 == 0 { 2 } else { n % 2 });
            assert!(!history.spawns());
        }
        for n in 0..N_LOOKED_AT {
            assert!(!history.spawns());
            history.ended(1 + n % 2);
        }
        assert!(history.spawns());
    }

    #[test]
    fn runs_that_wait_once_are_tried_both_ways() {
        let history = WaitHistory::default();
        let n_spawned = (0..1 << 13).filter(|_| {
            history.ended(1);
            history.spawns()
        });
        assert!(n_spawned.count() > 2000);
    }
}
