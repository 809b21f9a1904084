//! Whether a lambda has shown that it does not wait. Pure: times in, a verdict out; where runs go is
//! `execution.rs`'s business.

use std::time::Duration;

/// A run up to this is short: what a hop to another thread and back costs is a large part of it.
pub const SHORT: Duration = Duration::from_micros(100);
/// A run on the server's thread past this has kept every other connection of that thread waiting for too long.
pub const OVERSTAY: Duration = Duration::from_millis(1);
/// Short runs in a row that earn trust for the first time. A lambda that waits in one run of a hundred has a chance
/// of 1 in 30,000 to get there.
pub const FIRST_PROOF: u32 = 1024;
/// However often trust was lost, this many in a row regain it.
const LONGEST_PROOF: u32 = 1 << 20;
/// Good runs, in proofs, after which an old overstay counts half.
const PARDON: u64 = 16;
/// What a run that is neither short nor an overstay costs, in short runs, and what a lambda may owe.
const MIDDLING: u32 = 16;
const CREDIT: u32 = 256;

/// What is known of a lambda's runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinePolicy {
    trusted: bool,
    /// Short runs in a row, while not trusted.
    proved: u32,
    /// How many it takes.
    proof: u32,
    /// Runs since trust was gained.
    kept: u64,
    /// Middling runs that short ones have not made up for yet, while trusted.
    debt: u32,
}

/// What a run changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Enough short runs in a row.
    Gained,
    /// An overstay, or too many middling runs.
    Lost,
}

impl InlinePolicy {
    /// A lambda of which nothing is known, or whose author says that it never waits.
    pub fn new(trusted: bool) -> InlinePolicy {
        InlinePolicy { trusted, proved: 0, proof: FIRST_PROOF, kept: 0, debt: 0 }
    }

    /// Whether runs are short, as far as is known.
    #[cfg(test)]
    fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Short runs in a row that it takes to gain trust.
    pub fn proof(&self) -> u32 {
        self.proof
    }

    /// A run ended.
    pub fn ran(&mut self, took: Duration) -> Option<Change> {
        if self.trusted { self.ran_trusted(took) } else { self.ran_untrusted(took) }
    }

    /// A run on the server's thread has overstayed, and may not have ended yet.
    pub fn overstayed(&mut self) -> Option<Change> {
        self.trusted.then(|| {
            *self = InlinePolicy {
                proof: self.proof.saturating_mul(2).min(LONGEST_PROOF),
                ..InlinePolicy::new(false)
            };
            Change::Lost
        })
    }

    /// Many short runs, of a lambda that is trusted: as if each had been told.
    pub fn ran_well(&mut self, n: u64) {
        if self.trusted {
            self.debt = self.debt.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
            self.kept += n;
            self.pardon();
        }
    }

    fn ran_untrusted(&mut self, took: Duration) -> Option<Change> {
        self.proved = if took <= SHORT { self.proved + 1 } else { 0 };
        (self.proved >= self.proof).then(|| {
            *self = InlinePolicy { proof: self.proof, ..InlinePolicy::new(true) };
            Change::Gained
        })
    }

    fn ran_trusted(&mut self, took: Duration) -> Option<Change> {
        if took > OVERSTAY {
            return self.overstayed();
        }
        self.debt = if took <= SHORT { self.debt.saturating_sub(1) } else { self.debt + MIDDLING };
        if self.debt > CREDIT {
            return self.overstayed();
        }
        self.kept += 1;
        self.pardon();
        None
    }

    fn pardon(&mut self) {
        if self.kept >= PARDON * u64::from(self.proof) {
            self.proof = (self.proof / 2).max(FIRST_PROOF);
            self.kept = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(50);
    const MIDDLE: Duration = Duration::from_micros(500);

    /// Feeds runs; where trust changed, by number.
    fn changes(policy: &mut InlinePolicy, runs: impl IntoIterator<Item = Duration>) -> Vec<(usize, Change)> {
        let runs = runs.into_iter().enumerate();
        runs.filter_map(|(n, took)| Some((n + 1, policy.ran(took)?))).collect()
    }

    fn short(n: u32) -> impl Iterator<Item = Duration> {
        std::iter::repeat_n(SHORT, n as usize)
    }

    #[test]
    fn trust_is_gained_by_short_runs_in_a_row_and_lost_by_one_overstay() {
        let mut policy = InlinePolicy::new(false);
        let runs = short(FIRST_PROOF - 1).chain([MIDDLE]).chain(short(FIRST_PROOF)).chain([LONG]);
        let gained = 2 * FIRST_PROOF as usize;
        assert_eq!(changes(&mut policy, runs), [(gained, Change::Gained), (gained + 1, Change::Lost)]);
    }

    #[test]
    fn each_time_it_takes_twice_as_long_up_to_a_limit() {
        let mut policy = InlinePolicy::new(false);
        for doublings in 0..12 {
            let proof = FIRST_PROOF << doublings.min(10);
            assert_eq!(policy.proof(), proof);
            assert_eq!(changes(&mut policy, short(proof)), [(proof as usize, Change::Gained)]);
            assert_eq!(policy.ran(LONG), Some(Change::Lost));
        }
    }

    #[test]
    fn good_behaviour_is_rewarded() {
        let mut policy = InlinePolicy::new(true);
        assert_eq!(policy.overstayed(), Some(Change::Lost));
        assert_eq!(policy.overstayed(), None, "it is lost once");
        changes(&mut policy, short(2 * FIRST_PROOF));
        assert_eq!((policy.is_trusted(), policy.proof()), (true, 2 * FIRST_PROOF));
        changes(&mut policy, short(16 * 2 * FIRST_PROOF));
        assert_eq!(policy.proof(), FIRST_PROOF);
    }

    #[test]
    fn middling_runs_are_borne_while_they_are_few() {
        let mut policy = InlinePolicy::new(true);
        let one_in_twenty = (0..10_000).map(|n| if n % 20 == 0 { MIDDLE } else { SHORT });
        assert_eq!(changes(&mut policy, one_in_twenty), []);
        let one_in_five = (0..10_000).map(|n| if n % 5 == 0 { MIDDLE } else { SHORT });
        let changed = changes(&mut policy, one_in_five);
        assert_eq!(changed[0].1, Change::Lost);
        assert_eq!(changed.len(), 1, "one in five is never a proof");
    }

    #[test]
    fn a_lambda_that_waits_in_one_run_of_a_hundred_stays_untrusted() {
        let mut policy = InlinePolicy::new(false);
        assert_eq!(changes(&mut policy, (0..100_000).map(|n| if n % 100 == 99 { LONG } else { SHORT })), []);
    }
}
