//! What the wire has grown since v1: tables that one side asks the other for, by id, through `extension`.
//!
//! An extension is optional on both sides: null means "not supported here", and whoever asked does without. Each
//! table begins with its size and version, so that it can be told how much of it there is; a table may grow at its
//! end under the same id, where the size says so, and all else changes under another id.
//!
//! The three rules of [`raw`](crate::raw) hold here too. abi_stable does not compare these tables: their layout is
//! pinned below, and by `tests/layout.rs`.
//!
//! An author never meets this module; a loader is written against it.

use crate::raw::{Failure, Host, Status};

/// From the lambda, a [`Ready`]: whether it can serve.
pub const READY: &str = "effe.ready/1";

/// The lambda's own word on whether it wants requests.
#[repr(C)]
pub struct Ready {
    /// `size_of::<Ready>()` of whoever made the table.
    pub size: u32,
    /// 1
    pub version: u32,
    /// OK: it can serve. Any thread, one call at a time, between `init` and `retire`. May wait.
    pub ready: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
}

/// The size of every type and the place of every field: a change does not compile.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Ready>() == 16 && offset_of!(Ready, version) == 4 && offset_of!(Ready, ready) == 8);
};
