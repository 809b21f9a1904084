//! The monotonic clock as one number, which fits into an atomic.

use std::{
    ops::Add,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// A moment, in nanoseconds since shortly before the first one was taken; never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        let origin = *ORIGIN.get_or_init(|| now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
        // The cast would overflow after 584 years.
        Moment((now.duration_since(origin).as_nanos() as u64).max(1))
    }

    /// A moment that was taken out with `nanos`.
    pub fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    /// The number.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago it was; zero if it is to come.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Moment::now().0.saturating_sub(self.0))
    }

    /// How long it is since an earlier moment; zero if that one is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long it is until then; zero if it has passed.
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
