//! Bytes on their way between the lambda and the loader, each with its owner.
#![expect(unsafe_code, reason = "the wire has bytes as pointers")]

use bytes::Bytes;
use effe_abi::raw;

use super::watched;

/// Bytes. To copy a chunk up to this size is cheaper than to keep its owner.
const COPY_LIMIT: usize = 4 * 1024;

/// Takes over what the lambda hands in: a view is copied; owned bytes are released when they have been sent.
pub(super) fn bytes(chunk: raw::Chunk) -> Bytes {
    let owned = Owned(chunk);
    if owned.0.release.is_none() || owned.0.len <= COPY_LIMIT {
        return Bytes::copy_from_slice(owned.as_ref());
    }
    Bytes::from_owner(owned)
}

/// Gives bytes to the lambda, which releases their owner.
pub(super) fn chunk(bytes: Bytes) -> raw::Chunk {
    unsafe extern "C" fn release(owner: *mut (), _: *const u8, _: usize) {
        // SAFETY: made below, and released once: the wire's promise.
        drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
    }
    let (ptr, len) = (bytes.as_ptr(), bytes.len());
    let owner = Box::into_raw(Box::new(bytes)).cast();
    let chunk = raw::Chunk { ptr, len, owner, release: Some(release) };
    if watched::is_on() { watched::watched_chunk(chunk) } else { chunk }
}

/// A chunk that is released when it is dropped.
struct Owned(raw::Chunk);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the wire's promise: the bytes are there until they are released, a view as long as the call,
        // which `bytes` does not outlast with one.
        unsafe { std::slice::from_raw_parts(self.0.ptr, self.0.len) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the wire's promise; once, as nothing else has the chunk.
            unsafe { release(self.0.owner, self.0.ptr, self.0.len) }
        }
    }
}

// SAFETY: the wire's promise: `release` may be called on any thread, and so the bytes be read.
unsafe impl Send for Owned {}
// SAFETY: shared, it only lends bytes that nobody changes.
unsafe impl Sync for Owned {}
