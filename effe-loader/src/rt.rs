//! What every other layer uses: the clock, tasks of a server's thread, panics, locks, and wakers.

pub mod block_on;
pub mod clock;
pub mod date;
pub mod inner_waker;
pub mod panics;
pub mod sync;
pub mod tasks;
pub mod wake_batch;
