//! What a thread runs, as others see it: the monitor, and after a crash whoever tells of it.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Bytes of a request's method and path that are kept.
pub const TEXT: usize = 128;

/// One thread. Only that thread writes.
#[repr(C, align(64))]
pub struct Record {
    /// The thread's number; 0 if there is none.
    pub(super) thread: AtomicI32,
    /// The request that is being answered on it: see [`name`]; 0 for none.
    request: AtomicU64,
    /// When the run that it is in began, in nanoseconds of the clock; 0 if it is in none.
    pub since: AtomicU64,
    /// Of the last run that began.
    generation: AtomicU64,
    n_runs: AtomicU64,
    /// Requests that have come on its connections.
    n_requests: AtomicU64,
    len: AtomicU32,
    /// Whether it serves connections.
    pub(super) is_server: AtomicU32,
    /// Whether it has crashed, or hangs.
    is_stuck: AtomicU32,
    /// `GET /path`, of the last run that began.
    text: [AtomicU64; TEXT / 8],
}

impl Record {
    /// One that nobody shares.
    pub const fn new() -> Record {
        Record {
            thread: AtomicI32::new(0),
            request: AtomicU64::new(0),
            since: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            n_runs: AtomicU64::new(0),
            n_requests: AtomicU64::new(0),
            len: AtomicU32::new(0),
            is_server: AtomicU32::new(0),
            is_stuck: AtomicU32::new(0),
            text: [const { AtomicU64::new(0) }; TEXT / 8],
        }
    }

    /// Takes it for a thread, if no other has it.
    pub(super) fn take(&self, thread: i32) -> bool {
        self.thread.compare_exchange(0, thread, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }

    /// The request that the run is for: the descriptor of its connection, and its number on it.
    pub fn request(&self) -> Option<(i32, u32)> {
        let request = self.served();
        let descriptor = i32::try_from(request as u32).ok()?.checked_sub(1).filter(|number| *number >= 0)?;
        Some((descriptor, (request >> 32) as u32))
    }

    /// What [`Record::serve`] was told last.
    pub fn served(&self) -> u64 {
        self.request.load(Ordering::Relaxed)
    }

    /// What is answered on this thread from now on: see [`name`].
    pub fn serve(&self, request: u64) {
        self.request.store(request, Ordering::Relaxed);
    }

    pub fn is_server(&self) -> bool {
        self.is_server.load(Ordering::Relaxed) != 0
    }

    /// It goes on with nothing.
    pub fn stick(&self) {
        self.is_stuck.store(1, Ordering::Relaxed);
    }

    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed) != 0
    }

    pub fn is_in_run(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Runs that have ended.
    pub fn n_runs(&self) -> u64 {
        self.n_runs.load(Ordering::Relaxed)
    }

    /// A request has come.
    pub fn count_request(&self) {
        self.n_requests.store(self.n_requests() + 1, Ordering::Relaxed);
    }

    pub fn n_requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed)
    }

    /// A run begins. No other is under way: the one before has ended, so nobody takes what is half written for its own.
    #[inline]
    pub fn begin(&self, method: &str, path: &str, generation: u64, since: u64) {
        // Eight bytes of the method, then the path: no copy on the way, which this is too often for.
        let path = path.as_bytes();
        self.text[0].store(word(&method.as_bytes()[..method.len().min(8)]), Ordering::Relaxed);
        let path = &path[..path.len().min(TEXT - 8)];
        let whole = path.chunks_exact(8);
        let rest = whole.remainder();
        for (place, bytes) in self.text[1..].iter().zip(whole) {
            place.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            self.text[1 + path.len() / 8].store(word(rest), Ordering::Relaxed);
        }
        self.len.store(path.len() as u32, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.since.store(since, Ordering::Release);
    }

    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.n_runs.store(self.n_runs() + 1, Ordering::Relaxed);
    }

    /// Method and path of the last run that began, as bytes, and how many they are. It needs no memory.
    pub fn text(&self) -> ([u8; TEXT], usize) {
        let (mut bytes, mut text) = ([0; TEXT], [0; TEXT]);
        for (place, word) in self.text.iter().zip(bytes.chunks_exact_mut(8)) {
            word.copy_from_slice(&place.load(Ordering::Relaxed).to_le_bytes());
        }
        let n = bytes[..8].iter().position(|byte| *byte == 0).unwrap_or(8);
        let m = (self.len.load(Ordering::Relaxed) as usize).min(TEXT - 9);
        text[..n].copy_from_slice(&bytes[..n]);
        text[n] = b' ';
        text[n + 1..][..m].copy_from_slice(&bytes[8..8 + m]);
        (text, n + 1 + m)
    }
}

/// A request by the descriptor of its connection and its number on it. The number tells it from a later request of the
/// same connection, or of another one that has the descriptor by then.
pub fn name(descriptor: i32, number: u32) -> u64 {
    u64::from(number) << 32 | u64::from(descriptor.cast_unsigned().wrapping_add(1))
}

/// Up to eight bytes as a number.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_as_much_of_a_request_as_fits() {
        let record = Record::new();
        let said = |record: &Record| {
            let (text, len) = record.text();
            String::from_utf8_lossy(&text[..len]).into_owned()
        };
        record.begin("GET", "/a", 3, 7);
        assert_eq!((said(&record).as_str(), record.is_in_run(), record.generation()), ("GET /a", true, 3));
        record.end();
        assert_eq!((record.is_in_run(), record.n_runs()), (false, 1));
        for len in 0..40 {
            let path = &"/0123456789abcdefghijklmnopqrstuvwxyzABCDEF"[..len];
            record.begin("DELETE", path, 3, 7);
            assert_eq!(said(&record), format!("DELETE {path}"));
        }
        let (method, path) = ("M".repeat(100), "/p".repeat(100));
        record.begin(&method, &path, 4, 8);
        assert_eq!(said(&record), format!("{} {}", &method[..8], &path[..TEXT - 9]));
        record.begin("", "", 4, 8);
        assert_eq!(said(&record), " ");
        // Whatever the lambda writes there.
        record.text[0].store(u64::MAX, Ordering::Relaxed);
        record.len.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(record.text().1, TEXT);
        for nonsense in [0, u64::MAX, name(-1, 7), name(i32::MIN, 7)] {
            record.serve(nonsense);
            assert_eq!(record.request(), None);
        }
        record.serve(name(5, u32::MAX));
        assert_eq!(record.request(), Some((5, u32::MAX)));
    }
}
