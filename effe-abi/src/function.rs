//! A function as a type: a table of entries is made of types alone, and must call the function that it was made for.

use std::ptr::NonNull;

/// Fails to compile unless `F` is the type of a function that captures nothing.
pub(crate) const fn assert_captures_nothing<F>() {
    const { assert!(size_of::<F>() == 0, "export! takes a function that captures nothing") };
}

/// The function that a table was made for. To be called only where a value of its type has been passed to what has
/// called [`assert_captures_nothing`].
#[expect(unsafe_code, reason = "a function's type has one value, and that takes no memory")]
pub(crate) fn function<F: Copy + 'static>() -> F {
    assert_captures_nothing::<F>();
    // SAFETY: its size is 0, as the line above proves. `F` is `Copy`, and copying such a value reads no bytes. That
    // there is a value was proved by passing one in.
    unsafe { NonNull::<F>::dangling().read() }
}
