//! Bytes that a lambda hands over, as the host of a test takes them.

use crate::{chunk::Chunk, raw};

/// A copy of the bytes that the lambda has handed over; the chunk is released.
#[expect(unsafe_code, reason = "plays the host's side of a chunk")]
pub(super) fn bytes(chunk: raw::Chunk) -> Vec<u8> {
    let view = (chunk.ptr, chunk.len);
    // SAFETY: the lambda has just handed it over.
    if let Some(owned) = unsafe { Chunk::from_raw(chunk) } {
        return owned.to_vec();
    }
    if view.1 == 0 {
        return Vec::new();
    }
    // SAFETY: a view that is valid for the length of the call.
    unsafe { std::slice::from_raw_parts(view.0, view.1) }.to_vec()
}
