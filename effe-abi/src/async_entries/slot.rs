//! What a Context pointer points to: the Context, and the storage for the futures of its runs.
//!
//! The storage gives a run's future a place that doesn't move, to which both the loader's polls and a task of the
//! runtime can point. It is allocated once for all runs of a Context, which saves 400 to 1,200 of the about 17,500
//! instructions of a request (an axum Router, requests with 3 and 1 headers, by callgrind).
//!
//! This file owns the memory. Which half of it is used when is left to `run.rs`.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::{
    alloc::{self, Layout},
    ptr::NonNull,
};

use tokio::runtime::Handle;

use crate::{
    calls::{AsyncHostRef, ExchangeRef, HostRef, SpawnHostRef},
    lambda::StartError,
    raw::Failure,
    response::{Scratch, Terms},
    spawned::Spawned,
};

/// What a Context pointer points to. It has two halves, and a reference to one is made without a reference to the
/// other: a run's future borrows the first half while a poll uses the second.
pub(super) struct Slot<L> {
    pub(super) lent: Lent<L>,
    pub(super) kept: Kept,
}

/// The half that a run's future borrows.
pub(super) struct Lent<L> {
    /// The Context, or why Start made none.
    pub(super) started: std::result::Result<L, StartError<L>>,
    pub(super) scratch: Scratch,
}

/// The half that polling and dropping use.
pub(super) struct Kept {
    pub(super) host: HostRef,
    pub(super) runtime: Handle,
    pub(super) async_host: Option<AsyncHostRef>,
    pub(super) spawn_host: Option<SpawnHostRef>,
    pub(super) terms: Terms,
    pub(super) storage: FutureStorage,
    /// Where the current run says why it failed.
    pub(super) failure: *mut Failure,
    /// The current run's exchange, until it is spawned. `None` also if the run waits on its thread.
    pub(super) exchange: Option<ExchangeRef<'static>>,
    /// The current run, if it was spawned: then the future in the storage is the task's.
    pub(super) spawned: Option<Spawned>,
}

/// # Safety
/// `start` made the Context, `stop` has not been called, and there is no other reference to this half.
pub(super) unsafe fn lent<'a, L>(context: *mut ()) -> &'a mut Lent<L> {
    // SAFETY: the caller's promise.
    unsafe { &mut (*context.cast::<Slot<L>>()).lent }
}

/// # Safety
/// As [`lent`].
pub(super) unsafe fn kept<'a, L>(context: *mut ()) -> &'a mut Kept {
    // SAFETY: the caller's promise.
    unsafe { &mut (*context.cast::<Slot<L>>()).kept }
}

/// Memory for the future of a run, which has the same type in every run.
pub(super) struct FutureStorage {
    pub(super) memory: NonNull<u8>,
    layout: Layout,
    /// Whether there is a future in the memory.
    pub(super) full: bool,
}

impl FutureStorage {
    pub(super) const NONE: FutureStorage =
        FutureStorage { memory: NonNull::dangling(), layout: Layout::new::<()>(), full: false };

    /// Puts a future in. There must be none. It is made when the memory is there, so that the compiler makes it in its
    /// place: a move costs 148 instructions for an axum Router.
    #[inline(always)]
    pub(super) fn put<F>(&mut self, future: impl FnOnce() -> F) {
        let layout = Layout::new::<F>();
        if self.layout != layout && layout.size() > 0 {
            // SAFETY: its size is not 0.
            let memory = unsafe { alloc::alloc(layout) };
            let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
            *self = FutureStorage { memory, layout, full: false };
        }
        // SAFETY: the memory has this layout, and there is no future in it.
        unsafe { self.memory.cast::<F>().write(future()) };
        self.full = true;
    }
}

impl Drop for FutureStorage {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `put` got it with this layout.
            unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) }
        }
    }
}
