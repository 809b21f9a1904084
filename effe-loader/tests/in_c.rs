//! The suites of the life cycle once more, over plugins in C: the same tests, the same counts.

#[path = "damaged.rs"]
mod damaged;
#[path = "drain.rs"]
mod drain;
#[path = "failures.rs"]
mod failures;
#[path = "lifecycle.rs"]
mod lifecycle;
#[path = "streams.rs"]
mod streams;
#[path = "swap.rs"]
mod swap;

/// What they are about here.
mod fixtures {
    use std::path::PathBuf;

    use crate::support::plugins::of_c;

    pub fn probe() -> PathBuf {
        of_c("probe")
    }

    pub fn spout() -> PathBuf {
        of_c("spout")
    }

    pub fn pipe() -> PathBuf {
        of_c("pipe")
    }

    pub fn ticker() -> PathBuf {
        of_c("ticker")
    }

    /// Where the probe says that it fails.
    pub const SOURCE: &str = "probe.c:";
}
