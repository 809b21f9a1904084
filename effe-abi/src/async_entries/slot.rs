//! What a Context pointer points to: the Context, and the room in which its runs live.
//!
//! The room gives a run's future a place that doesn't move and that both the loader's polls and a task of the runtime
//! can point to. That it is allocated once for all runs of a Context saves 400 to 1,200 instructions a request, of some
//! 17,500 (an axum Router, 1 and 3 headers, by callgrind).
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
    response::Scratch,
    spawned::Spawned,
};

/// What a Context pointer points to. Its two halves are reached through the pointer, one or the other: a run's future
/// borrows the first while a poll uses the second.
pub(super) struct Slot<L> {
    pub(super) lent: Lent<L>,
    pub(super) kept: Kept,
}

/// What a run's future borrows: the Context or why there is none, and the buffers that live with it.
pub(super) struct Lent<L> {
    pub(super) started: std::result::Result<L, StartError<L>>,
    pub(super) scratch: Scratch,
}

/// What polling and dropping need.
pub(super) struct Kept {
    pub(super) host: HostRef,
    pub(super) runtime: Handle,
    pub(super) async_host: Option<AsyncHostRef>,
    pub(super) spawn_host: Option<SpawnHostRef>,
    /// Bytes of a response that may be held.
    pub(super) limit: usize,
    pub(super) room: Room,
    /// Where the run at hand says why it failed.
    pub(super) failure: *mut Failure,
    /// The run's exchange, up to its first poll, if it is the loader that polls.
    pub(super) exchange: Option<ExchangeRef<'static>>,
    /// The run, once it goes on as a task of the runtime: then the future in the room is the task's.
    pub(super) spawned: Option<Spawned>,
}

/// # Safety
/// `start` made the Context, `stop` has not been called, and no other reference to this half lives.
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

/// Memory for the future of a run, which has the same type each time.
pub(super) struct Room {
    pub(super) memory: NonNull<u8>,
    layout: Layout,
    /// Whether there is a future in it.
    pub(super) full: bool,
}

impl Room {
    pub(super) const NONE: Room =
        Room { memory: NonNull::dangling(), layout: Layout::new::<()>(), full: false };

    /// Moves a future in. The room must be empty.
    pub(super) fn put<F>(&mut self, future: F) {
        let layout = Layout::new::<F>();
        if self.layout != layout && layout.size() > 0 {
            // SAFETY: its size is not 0.
            let memory = unsafe { alloc::alloc(layout) };
            let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
            *self = Room { memory, layout, full: false };
        }
        // SAFETY: the memory has this layout, and nothing is in it.
        unsafe { self.memory.cast::<F>().write(future) };
        self.full = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `put` got it with this layout.
            unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) }
        }
    }
}
