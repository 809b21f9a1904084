//! Panics that a thread outlives.

use std::panic::{self, AssertUnwindSafe};

/// What `step` returns, or that it has panicked. Where, the program's panic hook has logged. What `step` changes must
/// be left in order by a panic: locks that are poisoned are ignored everywhere.
pub fn survive<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err("the loader itself has panicked; a line of the log says where".to_owned()))
}
