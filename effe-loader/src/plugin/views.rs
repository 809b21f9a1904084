//! Views that a lambda hands in. One in another language than Rust may be null if it is empty, and what should be text
//! may be none: nothing here trusts either.

use std::{borrow::Cow, str};

use abi_stable::std_types::{RSlice, RStr};
use effe_abi::raw::Header;

/// The values of a view.
#[inline]
pub fn slice<T>(view: RSlice<'_, T>) -> &[T] {
    if view.is_empty() { &[] } else { view.as_slice() }
}

/// The bytes of a text.
#[inline]
pub fn bytes(text: RStr<'_>) -> &[u8] {
    slice(text.as_rslice())
}

/// A text; `None` if it is not UTF-8.
#[inline]
pub fn text(text: RStr<'_>) -> Option<&str> {
    str::from_utf8(bytes(text)).ok()
}

/// A text, with replacement characters for what is not UTF-8.
pub fn lossy(text: RStr<'_>) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes(text))
}

/// Name and value of each header. A name is no more than bytes.
#[inline]
pub fn headers<'a>(view: RSlice<'a, Header<'a>>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
    slice(view).iter().map(|header| (bytes(header.name), slice(header.value)))
}
