//! What an async run is lent, at a place where it stays.
#![expect(unsafe_code, reason = "memory without a value may be sent")]

use std::mem::MaybeUninit;

use effe_abi::raw::{self, Failure};

use super::Exchange;

/// What the run has been lent, at a place where it stays.
pub struct Lent {
    pub form: Option<raw::Exchange<'static>>,
    pub failure: Failure,
    /// Borrows from the call.
    pub exchange: Exchange<'static>,
}

/// The place for what a run is lent; it stays with the call, for the next run.
#[derive(Default)]
pub struct Room(pub Option<Box<MaybeUninit<Lent>>>);

// SAFETY: it is memory without a value.
unsafe impl Send for Room {}
