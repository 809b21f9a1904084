//! Memory that a lambda's future writes its result to, while the loader moves whatever owns the memory.
#![expect(
    unsafe_code,
    reason = "two sides use this memory, and only its owner knows when the other one is done"
)]

use std::ptr::NonNull;

/// A value on the heap, which the lambda writes to through a pointer for as long as its future lives.
///
/// A `Box` would not do: to move a `Box` is to claim that nobody else has a pointer to its value.
pub(super) struct OutParam<T>(NonNull<T>);

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for OutParam<T> {}

impl<T> OutParam<T> {
    pub(super) fn new(value: T) -> OutParam<T> {
        OutParam(NonNull::from(Box::leak(Box::new(value))))
    }

    /// What the lambda gets. It stays the same until the owner is dropped.
    pub(super) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// The value, for its owner.
    ///
    /// # Safety
    /// The lambda has no future any more that may write to it.
    pub(super) unsafe fn get_mut(&mut self) -> &mut T {
        // SAFETY: `new` made it, `drop` has not freed it, and the owner is its only user, as the caller says.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for OutParam<T> {
    fn drop(&mut self) {
        // SAFETY: `new` leaked it, and this is its last use.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_after_the_owner_has_moved_arrives_and_is_freed() {
        let out = OutParam::new(String::new());
        let pointer = out.as_ptr();
        let mut moved = Box::new(out);
        // SAFETY: `moved` is alive, and nobody else has a reference to its value.
        unsafe { (*pointer).push_str("written") };
        // SAFETY: nothing is written any more.
        assert_eq!(unsafe { moved.get_mut() }, "written");
        assert_eq!(moved.as_ptr(), pointer);
    }
}
