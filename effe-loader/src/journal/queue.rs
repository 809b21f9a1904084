//! What the handles of a journal and its thread share: the entries of the two queues, their bounds, and the
//! counts.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use time::OffsetDateTime;

use super::{access::Access, record::Record, severity::Severity};

/// How many records may wait for the thread. Threads that log at the same time may exceed it by one each.
/// With the limits of each record they hold 40 MiB at most. The queues grow as they fill: made at full size,
/// each start would have to touch a megabyte.
pub(super) const QUEUE: usize = 4096;
/// How many lines of the access log may wait. They hold 10 MiB at most.
pub(super) const ACCESS_QUEUE: usize = 4096;

/// What the handles and the thread share. It is apart from the queues' senders: if the thread had those, its
/// queues would never close.
///
/// Every access is relaxed: no value depends on another, and the queue orders the records.
pub(super) struct State {
    pub(super) level: AtomicU32,
    pub(super) losses: AtomicU64,
    pub(super) access_losses: AtomicU64,
    pub(super) closed: AtomicBool,
    /// What sets the level of the `log` crate, once this journal is its logger.
    pub(super) set_log_level: OnceLock<fn(Severity)>,
}

impl State {
    pub(super) fn new(level: Severity) -> State {
        State {
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
    /// When it was logged, which may be long before it is written.
    pub(super) at: OffsetDateTime,
    pub(super) record: Record,
}

/// A line of the access log in its queue.
pub(super) struct AccessEntry {
    pub(super) at: OffsetDateTime,
    pub(super) access: Access,
}
