//! The loader's own concurrent code, word for word, over locks, atomics and threads that a test schedules.
//!
//! Of a rescue there are a connection's slot and entry; the rest of the scoreboard, and who reads it, is stood in for.
//!
//! crossbeam's queue, cell and parker are trusted, and modelled by the simplest thing that does the same.

pub mod rescue;
pub mod rt;

#[expect(missing_docs, reason = "it is private in the loader")]
#[path = "../../../src/effe/contexts.rs"]
pub mod contexts;
#[expect(missing_docs, reason = "it is private in the loader")]
#[path = "../../../src/scheduler/pool.rs"]
pub mod pool;
