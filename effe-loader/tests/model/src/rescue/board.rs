//! Stands in for the scoreboard: it has one entry, whatever the descriptor.

use shuttle::sync::atomic::{AtomicU32, Ordering};

use super::entry::Entry;

/// The scoreboard of a process with one connection at a time.
pub struct Board {
    /// Its place.
    pub entry: Entry,
    serial: AtomicU32,
}

impl Board {
    pub(super) fn new() -> Board {
        Board { entry: Entry::new(), serial: AtomicU32::new(0) }
    }

    /// As in the loader.
    pub fn use_entry(&self, _: i32) -> Option<(&Entry, u32)> {
        Some((&self.entry, self.serial.fetch_add(1, Ordering::Relaxed) + 1))
    }
}
