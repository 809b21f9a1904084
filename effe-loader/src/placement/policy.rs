//! Whether a lambda is trusted not to wait: how long its runs took decides. Where runs go is `placement.rs`'s business.

use std::time::Duration;

/// A run up to this is short: what a hop to another thread and back costs is a large part of it.
pub const SHORT: Duration = Duration::from_micros(100);
/// A run on the server's thread past this has kept every other connection of that thread waiting for too long.
pub const OVERSTAY: Duration = Duration::from_millis(1);
/// Short runs in a row after which a lambda is trusted for the first time. One that waits in one run of a hundred has
/// a chance of 1 in 30,000 to get there.
const FEWEST_NEEDED: u32 = 1024;
/// However often it has overstayed, this many in a row are enough.
const MOST_NEEDED: u32 = 1 << 20;
/// Good runs, in multiples of those needed, after which only half as many are needed the next time.
const HALVE_AFTER: u64 = 16;
/// A run that is neither short nor an overstay adds so much to a trusted lambda's debt, a short one takes 1 off, and
/// past the limit the lambda is not trusted any more.
const MIDDLING: u32 = 16;
const MAX_DEBT: u32 = 256;
/// A poll up to this is forgiven, behind so many good ones: all connections of the thread have waited for it, but more
/// seldom than once in a second where they would notice it.
const FORGIVEN: Duration = Duration::from_millis(5);
const FORGIVEN_AFTER: u64 = 1 << 14;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinePolicy {
    trusted: bool,
    /// Short runs in a row, while not trusted.
    n_short: u32,
    /// How many of them it takes.
    pub needed: u32,
    /// Good runs, while trusted.
    n_good: u64,
    debt: u32,
    /// Whether a single overstay may be forgiven: of an async lambda, whose runs elsewhere cost twice as much.
    forgives: bool,
    /// Good runs since the last overstay.
    n_since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Enough short runs in a row.
    Gained,
    /// An overstay, or too many middling runs.
    Lost,
}

impl InlinePolicy {
    /// A lambda is trusted from the start if its author says that it never waits.
    pub fn new(trusted: bool) -> InlinePolicy {
        let (n_short, n_good, debt, n_since) = Default::default();
        InlinePolicy { trusted, n_short, needed: FEWEST_NEEDED, n_good, debt, forgives: false, n_since }
    }

    /// The same for the polls of an async lambda. The first of them may take long because nothing of the lambda is in
    /// memory yet, and is forgiven too.
    pub fn of_polls(trusted: bool) -> InlinePolicy {
        InlinePolicy { forgives: true, n_since: FORGIVEN_AFTER, ..InlinePolicy::new(trusted) }
    }

    /// Whether a run that overstays is forgiven if it takes no longer than this.
    pub fn may_forgive(&self, took: Duration) -> bool {
        self.forgives && took <= FORGIVEN && self.n_since >= FORGIVEN_AFTER
    }

    /// A run ended.
    pub fn ran(&mut self, took: Duration) -> Option<Change> {
        if self.trusted {
            self.debt = if took <= SHORT { self.debt.saturating_sub(1) } else { self.debt + MIDDLING };
            if took > OVERSTAY && self.may_forgive(took) {
                self.n_since = 0;
                return None;
            }
            if took > OVERSTAY || self.debt > MAX_DEBT {
                return self.overstayed();
            }
            self.count_good(1);
            return None;
        }
        self.n_short = if took <= SHORT { self.n_short + 1 } else { 0 };
        (self.n_short >= self.needed).then(|| {
            *self = InlinePolicy { needed: self.needed, forgives: self.forgives, ..InlinePolicy::new(true) };
            Change::Gained
        })
    }

    /// A run on the server's thread has overstayed, and may not have ended yet.
    pub fn overstayed(&mut self) -> Option<Change> {
        self.trusted.then(|| {
            let needed = self.needed.saturating_mul(2).min(MOST_NEEDED);
            *self = InlinePolicy { needed, forgives: self.forgives, ..InlinePolicy::new(false) };
            Change::Lost
        })
    }

    /// So many short runs ended.
    pub fn ran_well(&mut self, n: u64) {
        if self.trusted {
            self.debt = self.debt.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
            self.count_good(n);
        }
    }

    fn count_good(&mut self, n: u64) {
        self.n_good += n;
        self.n_since += n;
        if self.n_good >= HALVE_AFTER * u64::from(self.needed) {
            self.needed = (self.needed / 2).max(FEWEST_NEEDED);
            self.n_good = 0;
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
        let runs = short(FEWEST_NEEDED - 1).chain([MIDDLE]).chain(short(FEWEST_NEEDED)).chain([LONG]);
        let gained = 2 * FEWEST_NEEDED as usize;
        let expected = [(gained, Change::Gained), (gained + 1, Change::Lost)];
        assert_eq!(changes(&mut InlinePolicy::new(false), runs), expected);
        let one_in_a_hundred = (0..100_000).map(|n| if n % 100 == 99 { LONG } else { SHORT });
        assert_eq!(changes(&mut InlinePolicy::new(false), one_in_a_hundred), []);
    }

    #[test]
    fn each_time_it_takes_twice_as_long_up_to_a_limit() {
        let mut policy = InlinePolicy::new(false);
        for doublings in 0..12 {
            let needed = FEWEST_NEEDED << doublings.min(10);
            assert_eq!(policy.needed, needed);
            assert_eq!(changes(&mut policy, short(needed)), [(needed as usize, Change::Gained)]);
            assert_eq!(policy.ran(LONG), Some(Change::Lost));
        }
    }

    #[test]
    fn after_many_good_runs_fewer_are_needed() {
        let mut policy = InlinePolicy::new(true);
        assert_eq!(policy.overstayed(), Some(Change::Lost));
        assert_eq!(policy.overstayed(), None, "it is lost once");
        changes(&mut policy, short(2 * FEWEST_NEEDED));
        assert_eq!((policy.trusted, policy.needed), (true, 2 * FEWEST_NEEDED));
        changes(&mut policy, short(16 * 2 * FEWEST_NEEDED));
        assert_eq!(policy.needed, FEWEST_NEEDED);
    }

    #[test]
    fn a_single_overstay_of_a_poll_is_forgiven_behind_many_good_ones() {
        let mut policy = InlinePolicy::of_polls(true);
        assert_eq!(policy.clone().ran(FORGIVEN), None, "the first may be slow");
        assert_eq!(policy.ran(2 * FORGIVEN), Some(Change::Lost), "one that is too long is not");
        changes(&mut policy, short(2 * FEWEST_NEEDED));
        for _ in 0..3 {
            policy.ran_well(FORGIVEN_AFTER);
            assert!(policy.may_forgive(FORGIVEN));
            assert_eq!(policy.ran(FORGIVEN), None);
            assert!(!policy.may_forgive(FORGIVEN));
        }
        policy.ran_well(FORGIVEN_AFTER - 1);
        assert_eq!(policy.ran(FORGIVEN), Some(Change::Lost), "it came too soon behind the last one");
        let mut sync = InlinePolicy::new(true);
        sync.ran_well(FORGIVEN_AFTER);
        assert_eq!(sync.ran(FORGIVEN), Some(Change::Lost));
    }

    #[test]
    fn middling_runs_are_borne_while_they_are_few() {
        let mut policy = InlinePolicy::new(true);
        let one_in_twenty = (0..10_000).map(|n| if n % 20 == 0 { MIDDLE } else { SHORT });
        assert_eq!(changes(&mut policy, one_in_twenty), []);
        let one_in_five = (0..10_000).map(|n| if n % 5 == 0 { MIDDLE } else { SHORT });
        let changed = changes(&mut policy, one_in_five);
        assert_eq!(changed[0].1, Change::Lost);
        assert_eq!(changed.len(), 1, "with one in five it is never trusted again");
    }
}
