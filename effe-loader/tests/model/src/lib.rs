//! The loader's own concurrent code, word for word, over locks, atomics and threads that a test schedules.
//!
//! crossbeam's queue, cell and parker are trusted, and modelled by the simplest thing that does the same.

pub mod rt;

#[expect(missing_docs, reason = "it is private in the loader")]
#[path = "../../../src/effe/contexts.rs"]
pub mod contexts;
#[expect(missing_docs, reason = "it is private in the loader")]
#[path = "../../../src/scheduler/pool.rs"]
pub mod pool;
