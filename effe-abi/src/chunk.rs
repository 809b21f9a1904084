//! Bytes that go from one side to the other with their owner: a piece of a body, moved and not copied.
//!
//! This file owns reading and releasing such bytes: each is done in one place. The wire's form is
//! [`raw::Chunk`].

use std::{fmt, ops::Deref, panic, ptr, slice};

use crate::raw;

/// Bytes together with their owner: a piece of a body that moves to the loader, or from it, without a copy.
///
/// `From` makes one of a `Vec<u8>`, a `String`, a `&'static str` or a `&'static [u8]`, and [`Chunk::from_owner`] of
/// anything that holds bytes.
pub struct Chunk(raw::Chunk);

impl Chunk {
    /// Bytes that live for ever. They are never copied.
    pub const fn from_static(bytes: &'static [u8]) -> Chunk {
        Chunk(raw::Chunk::view(bytes))
    }

    /// The bytes of `owner`. The owner is dropped when they have been sent, on any thread.
    pub fn from_owner<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Chunk {
        let owner = Box::new(owner);
        let bytes: &[u8] = (*owner).as_ref();
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        Chunk(raw::Chunk { ptr, len, owner: Box::into_raw(owner).cast(), release: Some(release_box::<T>) })
    }

    /// Takes over a chunk that came from the other side. `None`: it is only a view.
    ///
    /// # Safety
    /// `raw` is valid as the wire says, and the caller doesn't use it again.
    #[expect(unsafe_code, reason = "its duty is the caller's")]
    pub(crate) unsafe fn from_raw(raw: raw::Chunk) -> Option<Chunk> {
        raw.release.is_some().then_some(Chunk(raw))
    }

    /// The bytes and their owner in the wire's form, for the other side to release.
    pub fn into_raw(self) -> raw::Chunk {
        let raw::Chunk { ptr, len, owner, release } = self.0;
        std::mem::forget(self);
        raw::Chunk { ptr, len, owner, release }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[expect(unsafe_code, reason = "the one place that reads a chunk")]
    fn deref(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: `ptr` and `len` came from a slice whose owner is in `self`, or from the other side, which promises
        // the same (the contract of `raw::Chunk`); the bytes stay until `release`, which only `drop` calls.
        unsafe { slice::from_raw_parts(self.0.ptr, self.0.len) }
    }
}

impl Drop for Chunk {
    #[expect(unsafe_code, reason = "the one place that releases a chunk")]
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: called once: `into_raw` forgets the chunk, and nothing else copies it.
            unsafe { release(self.0.owner, self.0.ptr, self.0.len) }
        }
    }
}

// SAFETY: static bytes, or an owner that `from_owner` requires to be Send, or the other side's, whose `release` any
// thread may call.
#[expect(unsafe_code, reason = "the owner hides behind a pointer")]
unsafe impl Send for Chunk {}
// SAFETY: a shared chunk gives out nothing but references to bytes that nobody changes.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Chunk {}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Chunk {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        let owner = ptr::without_provenance_mut(bytes.capacity());
        let (ptr, len) = (bytes.as_mut_ptr().cast_const(), bytes.len());
        Chunk(raw::Chunk { ptr, len, owner, release: Some(release_vec) })
    }
}

impl From<String> for Chunk {
    fn from(text: String) -> Chunk {
        text.into_bytes().into()
    }
}

impl From<&'static str> for Chunk {
    fn from(text: &'static str) -> Chunk {
        Chunk::from_static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Chunk {
        Chunk::from_static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Chunk {
    fn from(bytes: &'static [u8; N]) -> Chunk {
        Chunk::from_static(bytes)
    }
}

#[cfg(feature = "async")]
impl From<bytes::Bytes> for Chunk {
    fn from(bytes: bytes::Bytes) -> Chunk {
        Chunk::from_owner(bytes)
    }
}

#[cfg(feature = "async")]
impl From<Chunk> for bytes::Bytes {
    fn from(chunk: Chunk) -> bytes::Bytes {
        bytes::Bytes::from_owner(chunk)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.0.len)
    }
}

/// Contract: `owner` is the `Box<T>` that `from_owner` gave away, and this is the only call.
#[expect(unsafe_code, reason = "frees what this image allocated")]
unsafe extern "C" fn release_box<T>(owner: *mut (), _: *const u8, _: usize) {
    // The author's `Drop` may panic, and nothing may unwind from here. The payload is leaked, since dropping it may
    // panic once more.
    let dropped = panic::catch_unwind(|| {
        // SAFETY: the contract above.
        drop(unsafe { Box::from_raw(owner.cast::<T>()) });
    });
    if let Err(payload) = dropped {
        std::mem::forget(payload);
    }
}

/// Contract: `ptr`, `len` and the capacity in `owner` are those of the vector that `From<Vec<u8>>` gave away,
/// and this is the only call.
#[expect(unsafe_code, reason = "frees what this image allocated")]
unsafe extern "C" fn release_vec(owner: *mut (), ptr: *const u8, len: usize) {
    // SAFETY: the contract above.
    drop(unsafe { Vec::from_raw_parts(ptr.cast_mut(), len, owner.addr()) });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_owner_is_dropped_once_here_or_across() {
        let drops = Arc::new(AtomicUsize::new(0));
        let chunk = Chunk::from_owner(Counted(b"abc".to_vec(), drops.clone()));
        assert_eq!(&*chunk, b"abc");
        drop(chunk);
        assert_eq!(drops.load(Ordering::Relaxed), 1);

        let raw = Chunk::from_owner(Counted(b"abc".to_vec(), drops.clone())).into_raw();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        #[expect(unsafe_code, reason = "plays the other side")]
        // SAFETY: a valid chunk, taken over once.
        let back = unsafe { Chunk::from_raw(raw) };
        assert_eq!(back.as_deref(), Some(&b"abc"[..]));
        drop(back);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_vector_moves_with_its_spare_capacity() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"xyz");
        let address = bytes.as_ptr();
        let chunk = Chunk::from(bytes);
        assert_eq!((&*chunk, chunk.as_ptr()), (&b"xyz"[..], address));
    }

    #[test]
    fn an_empty_vector_and_a_panicking_drop_are_survived() {
        assert!(Chunk::from(Vec::new()).is_empty());
        struct Bomb;
        impl AsRef<[u8]> for Bomb {
            fn as_ref(&self) -> &[u8] {
                b"!"
            }
        }
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        drop(Chunk::from_owner(Bomb));
    }
}
