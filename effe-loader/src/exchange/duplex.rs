//! The entries that a lambda calls for a connection that it has taken over.
#![expect(unsafe_code, reason = "the entries get their data as a pointer")]

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use effe_abi::{
    extensions::{self, DuplexTable, Waker},
    raw::{self, Status, status},
    waker,
};

use super::piece::{bytes, chunk};
use crate::{body::duplex::Duplex, rt::block_on::block_until};

/// Lends the lambda its end of a connection.
pub fn handle(duplex: Arc<Duplex>) -> extensions::Duplex {
    extensions::Duplex { data: Arc::into_raw(duplex).cast(), table: &OPS }
}

static OPS: DuplexTable = DuplexTable {
    size: size_of::<DuplexTable>() as u32,
    version: 1,
    read,
    poll_read,
    write,
    poll_ready,
    shutdown,
    state,
    poll_away,
    clone,
    drop: drop_handle,
};

/// Contract of all below: `data` is a reference that `handle` or `clone` has given out, and `drop_handle` has not taken
/// back.
unsafe fn duplex(data: *const ()) -> ManuallyDrop<Arc<Duplex>> {
    // SAFETY: the contract above; `ManuallyDrop` leaves the reference with the lambda.
    ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Duplex>()) })
}

unsafe extern "C" fn read(data: *const (), out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    let read = block_until(None, |cx| duplex.poll_read(cx));
    read.map_or(status::GONE, |read| give(read, out))
}

unsafe extern "C" fn poll_read(data: *const (), waker: *const Waker, out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    // SAFETY: the lambda's promise.
    let read = unsafe { waker::borrow(waker, |waker| duplex.poll_read(&mut Context::from_waker(waker))) };
    if let Poll::Ready(read) = read { give(read, out) } else { status::PENDING }
}

fn give(read: Result<Bytes, Status>, out: &mut raw::Chunk) -> Status {
    match read {
        Ok(piece) => {
            *out = chunk(piece);
            status::OK
        }
        Err(status) => status,
    }
}

unsafe extern "C" fn write(data: *const (), piece: raw::Chunk) -> Status {
    let piece = bytes(piece);
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    match block_until(None, |cx| duplex.poll_room(cx)) {
        Some(status::OK) => duplex.write(piece),
        other => other.unwrap_or(status::GONE),
    }
}

unsafe extern "C" fn poll_ready(data: *const (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    // SAFETY: the lambda's promise.
    let room = unsafe { waker::borrow(waker, |waker| duplex.poll_room(&mut Context::from_waker(waker))) };
    if let Poll::Ready(status) = room { status } else { status::PENDING }
}

unsafe extern "C" fn shutdown(data: *const ()) {
    // SAFETY: the contract of this file's entries.
    unsafe { duplex(data) }.shutdown();
}

unsafe extern "C" fn state(data: *const ()) -> Status {
    // SAFETY: the contract of this file's entries.
    unsafe { duplex(data) }.state()
}

unsafe extern "C" fn poll_away(data: *const (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    // SAFETY: the lambda's promise.
    let away = unsafe { waker::borrow(waker, |waker| duplex.poll_away(&mut Context::from_waker(waker))) };
    if let Poll::Ready(status) = away { status } else { status::PENDING }
}

unsafe extern "C" fn clone(data: *const ()) -> *const () {
    // SAFETY: the contract of this file's entries.
    let duplex = unsafe { duplex(data) };
    duplex.add_handle();
    Arc::into_raw(Arc::clone(&duplex)).cast()
}

unsafe extern "C" fn drop_handle(data: *const ()) {
    // SAFETY: the contract of this file's entries; this is the reference's last use.
    let duplex = ManuallyDrop::into_inner(unsafe { duplex(data) });
    duplex.drop_handle();
}
