//! What became of the events of AWS's clients that nobody waits for: nobody but whoever reads these numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub struct EventCounts {
    /// Whether there can be events at all.
    is_on: AtomicBool,
    /// Events that wait or run.
    under_way: AtomicUsize,
    done: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
}

/// How an event has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Each of its tries has failed.
    Lost,
}

impl EventCounts {
    pub fn switch_on(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    pub fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    pub fn end(&self, ended: Ended) {
        let count = match ended {
            Ended::Done => &self.done,
            Ended::Lost => &self.lost,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// One was not taken on: there are too many, or the effe stops.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Those that are under way have no time left. How many they are.
    pub fn abandon(&self) -> usize {
        let n = self.under_way();
        self.abandoned.fetch_add(n as u64, Ordering::Relaxed);
        n
    }

    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// All of them by their names, if there can be any.
    pub fn results(&self) -> Option<[(&'static str, u64); 4]> {
        let counts = [
            ("done", &self.done),
            ("lost", &self.lost),
            ("refused", &self.refused),
            ("abandoned", &self.abandoned),
        ];
        let is_on = self.is_on.load(Ordering::Relaxed);
        is_on.then(|| counts.map(|(name, count)| (name, count.load(Ordering::Relaxed))))
    }
}
