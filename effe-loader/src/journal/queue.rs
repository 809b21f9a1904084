//! What the handles of a journal and its thread share: the entries of the two queues, their bounds, and the counts.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use time::OffsetDateTime;

use super::{access::Access, record::Record, severity::Severity};

/// How many records wait for the thread, give or take one for each thread that logs. With the limits of each they
/// hold 40 MiB at the very worst. The queues grow as they fill: made whole, they would be a megabyte to touch at each start.
pub(super) const QUEUE: usize = 4096;
/// How many lines of the access log wait beside them. At the very worst they hold 10 MiB.
pub(super) const ACCESS_QUEUE: usize = 4096;

/// What the handles and the thread share. Not in [`Handle`]: the thread must not keep its own queue open.
///
/// Every access is relaxed: each is a value by itself, and the queue orders the records.
pub(super) struct Gauges {
    pub(super) level: AtomicU32,
    pub(super) losses: AtomicU64,
    pub(super) access_losses: AtomicU64,
    pub(super) closed: AtomicBool,
    /// What sets the level of the `log` crate, once this journal is its logger.
    pub(super) set_log_level: OnceLock<fn(Severity)>,
}

impl Gauges {
    pub(super) fn new(level: Severity) -> Gauges {
        Gauges {
            level: AtomicU32::new(level as u32),
            losses: AtomicU64::new(0),
            access_losses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            set_log_level: OnceLock::new(),
        }
    }

    pub(super) fn level(&self) -> Severity {
        Severity::from(self.level.load(Ordering::Relaxed))
    }

    pub(super) fn wants(&self, severity: Severity) -> bool {
        severity <= self.level()
    }
}

/// A record in the queue.
pub(super) struct Entry {
    /// When it was said, which may be long before it is written.
    pub(super) at: OffsetDateTime,
    pub(super) record: Record,
}

/// A line of the access log in its queue.
pub(super) struct AccessEntry {
    pub(super) at: OffsetDateTime,
    pub(super) access: Access,
}
