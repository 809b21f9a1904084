//! The ground that everything else stands on: the clock, tasks of a server's thread, locks, and wakes.

pub mod block_on;
pub mod clock;
pub mod sync;
pub mod tasks;
pub mod wake_batch;
