//! The wire of v1, as it was frozen.

pub mod raw;
