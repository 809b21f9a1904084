//! How many bytes of bodies the process holds: of requests that are read whole, and of answers that wait for their
//! clients. Clients choose how long that is, so it has a bound; what is over it is refused, not kept.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Bytes of a body that isn't counted, since that would cost a short request something. HTTP/2 has at most a hundred
/// of them on a connection, HTTP/1.1 one.
pub const UNCOUNTED: usize = 16 * 1024;

/// Bytes that are worth the time that giving them back takes.
const MUCH: usize = 8 << 20;

/// The bytes that are held, and their bound.
#[derive(Debug)]
pub struct HeldBytes {
    limit: usize,
    total: AtomicUsize,
    /// The most since the allocator last gave memory back.
    peak: AtomicUsize,
}

impl HeldBytes {
    pub fn new(limit: usize) -> Arc<HeldBytes> {
        Arc::new(HeldBytes { limit, total: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// Without a bound.
    pub fn unlimited() -> Arc<HeldBytes> {
        HeldBytes::new(usize::MAX)
    }

    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether so much is held that no run begins: its answer might have no room.
    pub fn is_full(&self) -> bool {
        self.total() > self.limit / 4 * 3
    }

    /// Whether so much is held that clients that take nothing of it have less time.
    pub fn is_scarce(&self) -> bool {
        self.total() > self.limit / 2
    }

    /// Bytes of answers that may wait on one connection before its next run begins.
    #[cfg(feature = "http2")]
    pub fn share(&self) -> usize {
        self.limit / 8
    }

    /// Holds a body until the last reference to it is dropped; `None` if there is no room for it.
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() <= UNCOUNTED {
            return Some(bytes);
        }
        let mut room = self.room();
        room.grow(bytes.len())?;
        Some(room.holding(bytes))
    }

    /// Whether much less is held than was: then the allocator may have pages that nobody needs. Says so once.
    pub fn has_fallen(&self) -> bool {
        let (total, peak) = (self.total(), self.peak.load(Ordering::Relaxed));
        let has_fallen = peak > MUCH && total < peak / 4;
        if has_fallen {
            self.peak.store(total, Ordering::Relaxed);
        }
        has_fallen
    }

    /// No room yet, which may grow.
    pub fn room(self: &Arc<Self>) -> Room {
        Room { held: Arc::clone(self), n_bytes: 0 }
    }
}

/// Room for a body, which is given back when this is dropped.
pub struct Room {
    held: Arc<HeldBytes>,
    n_bytes: usize,
}

impl Room {
    /// Whether a body of so many bytes has room where it is the only one.
    pub fn fits(&self, n_bytes: usize) -> bool {
        n_bytes <= self.held.limit
    }

    /// Takes as much room as a body of so many bytes needs; `None` if there is none.
    pub fn grow_to(&mut self, n_bytes: usize) -> Option<()> {
        self.grow(n_bytes.saturating_sub(self.n_bytes))
    }

    /// Takes room for so many bytes more; `None` if there is none.
    pub fn grow(&mut self, n_bytes: usize) -> Option<()> {
        let HeldBytes { limit, total, peak } = &*self.held;
        let before = total.fetch_add(n_bytes, Ordering::Relaxed);
        if before.saturating_add(n_bytes) > *limit {
            total.fetch_sub(n_bytes, Ordering::Relaxed);
            return None;
        }
        peak.fetch_max(before + n_bytes, Ordering::Relaxed);
        self.n_bytes += n_bytes;
        Some(())
    }

    /// The body that the room is for, which keeps the room until its last reference is dropped.
    pub fn holding(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.total.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

struct Held<T> {
    bytes: T,
    _room: Room,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_until_the_last_reference_is_dropped() {
        let held = HeldBytes::new(100_000);
        let body = |n| Bytes::from(vec![0; n]);
        let first = held.hold(body(60_000)).unwrap();
        assert!(held.hold(body(60_000)).is_none());
        assert_eq!(held.total(), 60_000, "what is refused takes nothing");
        let part = first.slice(..10);
        drop(first);
        assert!(held.is_scarce() && !held.is_full());
        let second = held.hold(body(40_000)).unwrap();
        assert!(held.is_full());
        assert!(held.hold(body(UNCOUNTED)).is_some(), "it is not counted");
        drop((part, second));
        assert_eq!(held.total(), 0);
    }

    #[test]
    fn room_that_grows_is_given_back_as_a_whole() {
        let held = HeldBytes::new(10);
        let mut room = held.room();
        assert!(room.grow(4).is_some() && room.grow(6).is_some() && room.grow(1).is_none());
        let body = room.holding(vec![1, 2, 3]);
        assert_eq!((held.total(), &body[..]), (10, &[1, 2, 3][..]));
        drop(body);
        assert_eq!(held.total(), 0);
        assert!(HeldBytes::unlimited().room().grow(1 << 40).is_some());
    }
}
