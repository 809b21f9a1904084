//! Whether the async runs of a lambda had better be spawned in the lambda's runtime: the rule, without a clock or a
//! lock.
//!
//! A run that is ready at once costs no hop between threads. One that waits again and again for tasks of the lambda's
//! runtime would go back and forth between that thread and ours, so such runs are spawned. For runs that wait once it
//! depends on what they wait for: a timer wakes our thread alone, while a task of the runtime, such as a connection, is
//! also handed something first. Nobody tells us which it is, so both ways are tried, and the one that takes less CPU
//! is taken for a while.

use std::time::Duration;

/// Runs that are looked at together, how many of them must wait more than once to be spawned, and how many must wait
/// once to be tried both ways.
pub const N_LOOKED_AT: u32 = 32;
const N_OFTEN: u32 = 16;
const N_ONCE: u32 = 30;
/// Runs after which the decision to spawn is tried anew: a spawned run doesn't show how often it waits.
const N_SPAWNED: u32 = 4096;

/// Runs of either way whose CPU time is compared, and those before them, among which some went the other way.
const N_MEASURED: u32 = 2048;
const N_UNMEASURED: u32 = 512;
/// Runs until both ways are tried again. Each time that says the same makes it twice as many.
const N_SETTLED: u32 = 1 << 14;
const MAX_SETTLED: u32 = 1 << 20;

/// Runs that have ended one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    pub n_runs: u32,
    /// How many of them waited once.
    pub n_once: u32,
    /// How many of them waited more than once.
    pub n_again: u32,
}

/// What is done with so many runs from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub spawns: bool,
    pub n_runs: u32,
}

const LOOK: Decision = Decision { spawns: false, n_runs: N_LOOKED_AT };

#[derive(Debug)]
enum Stage {
    /// Runs are polled, and so many in a row waited once.
    Looking {
        n_once: u32,
    },
    /// Runs are spawned, and not measured yet.
    Trying,
    Measuring,
    /// Runs are spawned.
    Settled,
}

#[derive(Debug)]
pub struct SpawnPolicy {
    stage: Stage,
    /// What the process had used when the runs that are measured began.
    begun: Duration,
    /// What it used for `N_MEASURED` runs that were polled.
    polled: Duration,
    /// What the last trial said, and for how many runs that holds.
    is_cheaper: bool,
    n_settled: u32,
    /// Runs that are polled until both ways are tried again.
    n_left: u32,
}

impl SpawnPolicy {
    pub const fn new() -> SpawnPolicy {
        SpawnPolicy {
            stage: Stage::Looking { n_once: 0 },
            begun: Duration::ZERO,
            polled: Duration::ZERO,
            is_cheaper: false,
            n_settled: N_SETTLED,
            n_left: 0,
        }
    }

    /// The runs of the last decision have ended. `cpu`: what the whole process has used so far.
    pub fn next(&mut self, runs: Runs, cpu: Duration) -> Decision {
        match self.stage {
            Stage::Looking { .. } if runs.n_again >= N_OFTEN => {
                self.stage = Stage::Settled;
                Decision { spawns: true, n_runs: N_SPAWNED }
            }
            Stage::Looking { n_once } => self.look(n_once, runs, cpu),
            Stage::Trying => {
                self.begun = cpu;
                self.stage = Stage::Measuring;
                Decision { spawns: true, n_runs: N_MEASURED }
            }
            Stage::Measuring => self.compare(cpu.saturating_sub(self.begun)),
            Stage::Settled => {
                self.stage = Stage::Looking { n_once: 0 };
                LOOK
            }
        }
    }

    fn look(&mut self, n_once: u32, runs: Runs, cpu: Duration) -> Decision {
        self.n_left = self.n_left.saturating_sub(runs.n_runs);
        let n_once = if self.n_left == 0 && runs.n_once >= N_ONCE { n_once + N_LOOKED_AT } else { 0 };
        self.stage = Stage::Looking { n_once };
        if n_once == N_UNMEASURED {
            self.begun = cpu;
        } else if n_once == N_UNMEASURED + N_MEASURED {
            self.polled = cpu.saturating_sub(self.begun);
            self.stage = Stage::Trying;
            return Decision { spawns: true, n_runs: N_UNMEASURED };
        }
        LOOK
    }

    /// Both ways are measured. A twentieth is the least that is more than chance.
    fn compare(&mut self, spawned: Duration) -> Decision {
        let is_cheaper = spawned * 20 < self.polled * 19;
        let is_same = is_cheaper == self.is_cheaper;
        self.n_settled = if is_same { (2 * self.n_settled).min(MAX_SETTLED) } else { N_SETTLED };
        self.is_cheaper = is_cheaper;
        if is_cheaper {
            self.stage = Stage::Settled;
            Decision { spawns: true, n_runs: self.n_settled }
        } else {
            self.stage = Stage::Looking { n_once: 0 };
            self.n_left = self.n_settled;
            LOOK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lambda whose runs cost so many microseconds if they are polled, and if they are spawned; which part of at
    /// least `n_runs` was spawned.
    fn share(policy: &mut SpawnPolicy, n_runs: u32, n_waits: u32, polled: u64, spawned: u64) -> f64 {
        let (mut decision, mut cpu, mut n_ended, mut n_spawned) = (LOOK, Duration::ZERO, 0, 0);
        while n_ended < n_runs {
            let Decision { spawns, n_runs } = decision;
            n_ended += n_runs;
            n_spawned += if spawns { n_runs } else { 0 };
            cpu += n_runs * Duration::from_micros(if spawns { spawned } else { polled });
            // As far as we see, a spawned run waits once.
            let n_waits = if spawns { 1 } else { n_waits };
            let all_if = |condition| if condition { n_runs } else { 0 };
            let runs = Runs { n_runs, n_once: all_if(n_waits == 1), n_again: all_if(n_waits > 1) };
            decision = policy.next(runs, cpu);
        }
        f64::from(n_spawned) / f64::from(n_ended)
    }

    #[test]
    fn runs_that_wait_again_are_spawned_whatever_they_cost() {
        let mut policy = SpawnPolicy::new();
        let (half, third) = (N_LOOKED_AT / 2, N_LOOKED_AT / 3);
        let runs = |n_again| Runs { n_runs: N_LOOKED_AT, n_once: N_LOOKED_AT - n_again, n_again };
        for _ in 0..10 {
            assert_eq!(policy.next(runs(third), Duration::ZERO), LOOK);
        }
        assert_eq!(policy.next(runs(half), Duration::ZERO), Decision { spawns: true, n_runs: N_SPAWNED });
        let spawned = Runs { n_runs: N_SPAWNED, n_once: N_SPAWNED, n_again: 0 };
        assert_eq!(policy.next(spawned, Duration::ZERO), LOOK, "it is tried anew");
    }

    #[test]
    fn runs_that_wait_once_go_the_cheaper_way() {
        for (polled, spawned, least, most) in
            [(10, 10, 0.0, 0.01), (10, 30, 0.0, 0.01), (100, 97, 0.0, 0.01), (30, 27, 0.98, 1.0)]
        {
            let share = share(&mut SpawnPolicy::new(), 10 << 20, 1, polled, spawned);
            assert!((least..=most).contains(&share), "{polled} to {spawned}: {share} spawned");
        }
    }

    #[test]
    fn runs_that_don_t_wait_are_never_spawned() {
        assert_eq!(share(&mut SpawnPolicy::new(), 1 << 20, 0, 30, 10), 0.0);
    }

    #[test]
    fn what_has_changed_is_noticed() {
        let mut policy = SpawnPolicy::new();
        share(&mut policy, 1 << 20, 1, 30, 10);
        assert!(policy.is_cheaper);
        share(&mut policy, 3 << 20, 1, 10, 30);
        assert!(!policy.is_cheaper);
    }
}
