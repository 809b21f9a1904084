//! How many Contexts the process has, of whatever generation.

use std::sync::atomic::{AtomicU64, Ordering};

/// All Contexts of the process, of whatever generation.
#[derive(Default)]
pub struct ContextCounts {
    pub(super) started: AtomicU64,
    pub(super) stopped: AtomicU64,
}

impl ContextCounts {
    /// Contexts that were made so far.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Contexts that were made and are not stopped yet.
    pub fn living(&self) -> u64 {
        let stopped = self.stopped.load(Ordering::Acquire);
        self.started().saturating_sub(stopped)
    }
}
