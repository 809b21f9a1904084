//! The monotonic clock as one number, which fits into an atomic.

use std::{ops::Add, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// A moment, in nanoseconds since the machine was started; never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    pub const ZERO: Moment = Moment(0);

    #[inline]
    pub fn now() -> Moment {
        // `Instant` would have to be compared with an earlier one to get a number.
        let now = clock_gettime(ClockId::Monotonic);
        // Neither is negative, and the sum would overflow after 584 years.
        Moment((now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64).max(1))
    }

    pub fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago it was; zero if it is to come.
    #[inline]
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Moment::now().0.saturating_sub(self.0))
    }

    /// How long it is after `earlier`; zero if it is before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long it takes until then; zero if it has passed.
    pub fn remaining(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(Moment::now().0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}
