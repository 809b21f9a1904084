//! Connections that are kept open for their clients' sake alone, so that these get what they were told.

use std::cell::Cell;

thread_local! {
    static N: Cell<usize> = const { Cell::new(0) };
}

/// One of them, on this thread, until it is dropped.
pub struct Lingering(());

impl Lingering {
    pub fn begin() -> Lingering {
        N.set(N.get() + 1);
        Lingering(())
    }

    /// How many there are.
    pub fn n() -> usize {
        N.get()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // A task may be dropped after the thread's variables.
        let _ = N.try_with(|n| n.set(n.get() - 1));
    }
}
