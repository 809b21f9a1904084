//! The host's side of [`FailHost`], for hosts whose failures are those of v1: the loader, and the one for tests.
#![expect(unsafe_code, reason = "an entry of the wire")]

use std::slice;

use abi_stable::std_types::RStr;

use crate::{extensions::FailHost, raw::Failure};

/// What such a host gives out under the id [`FAIL`](crate::extensions::FAIL).
pub static TABLE: FailHost = FailHost { size: size_of::<FailHost>() as u32, version: 1, fail };

unsafe extern "C" fn fail(failure: *mut Failure, level: u32, text: RStr<'_>) {
    // Another language's empty view may be null, and what it calls text may be none.
    let text = match text.len() {
        0 => &[],
        // SAFETY: the plugin's promise: a view, valid for the length of the call.
        len => unsafe { slice::from_raw_parts(text.as_ptr(), len) },
    };
    let text = String::from_utf8_lossy(text).into_owned();
    // SAFETY: the plugin's promise: the failure that its entry was given, in one call at a time.
    let failure = unsafe { &mut *failure };
    *failure = Failure { level, text: text.into() };
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_failure_has_the_last_text_and_any_bytes_are_one() {
        let mut failure = Failure::new();
        // SAFETY: what a lambda in C may hand in; nothing but `fail` looks at it.
        let not_utf8 = unsafe { RStr::from_raw_parts(b"a\xffb".as_ptr(), 3) };
        // SAFETY: as above.
        let null = unsafe { RStr::from_raw_parts(ptr::null(), 0) };
        for (level, text, expected) in
            [(3, RStr::from("first"), "first"), (2, not_utf8, "a\u{fffd}b"), (4, null, "")]
        {
            // SAFETY: a failure of this host, and views that last.
            unsafe { (TABLE.fail)(&mut failure, level, text) };
            assert_eq!((failure.level, failure.text.as_str()), (level, expected));
        }
    }
}
