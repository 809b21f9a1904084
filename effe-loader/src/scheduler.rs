//! Threads, and what they hand on to one another.

pub mod background;
pub mod in_flight;
pub mod meter;
pub mod pool;
pub mod worker_status;
