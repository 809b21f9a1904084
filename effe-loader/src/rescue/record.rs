//! What a thread runs, as others see it: the monitor, and after a crash whoever tells of it.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, compiler_fence};

/// Bytes of a request's method and path that are kept.
pub const TEXT: usize = 128;

/// One thread. Only that thread writes.
#[repr(C, align(64))]
pub struct Record {
    /// The thread's number; 0 if there is none.
    pub(super) thread: AtomicI32,
    /// The descriptor of the connection that is being answered on it, and one more; 0 for none.
    connection: AtomicU32,
    /// When the run that it is in began, in nanoseconds of the clock; 0 if it is in none.
    pub since: AtomicU64,
    /// Of the last run that began.
    generation: AtomicU64,
    n_runs: AtomicU64,
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
            connection: AtomicU32::new(0),
            since: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            n_runs: AtomicU64::new(0),
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

    /// The descriptor of the connection that the run is for.
    pub fn connection(&self) -> Option<i32> {
        i32::try_from(self.connection.load(Ordering::Relaxed))
            .ok()?
            .checked_sub(1)
            .filter(|number| *number >= 0)
    }

    /// What [`Record::serve`] was told last.
    pub fn served(&self) -> u32 {
        self.connection.load(Ordering::Relaxed)
    }

    /// What is answered on this thread from now on: a descriptor, and one more.
    pub fn serve(&self, connection: u32) {
        self.connection.store(connection, Ordering::Relaxed);
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

    /// A run begins.
    pub fn begin(&self, method: &str, path: &str, generation: u64, since: u64) {
        // Whoever reads sees first that this run is none.
        self.since.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let (method, path) = (method.as_bytes(), path.as_bytes());
        let mut text = [0; TEXT];
        let n = method.len().min(32);
        text[..n].copy_from_slice(&method[..n]);
        text[n] = b' ';
        let m = path.len().min(TEXT - n - 1);
        text[n + 1..][..m].copy_from_slice(&path[..m]);
        let len = n + 1 + m;
        for (place, word) in self.text.iter().zip(text.chunks_exact(8)).take(len.div_ceil(8)) {
            let word = word.try_into().unwrap_or_default();
            place.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.len.store(len as u32, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.since.store(since, Ordering::Release);
    }

    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.n_runs.store(self.n_runs() + 1, Ordering::Relaxed);
    }

    /// Method and path of the last run that began, as bytes, and how many they are. It needs no memory.
    pub fn text(&self) -> ([u8; TEXT], usize) {
        let mut text = [0; TEXT];
        for (place, word) in self.text.iter().zip(text.chunks_exact_mut(8)) {
            word.copy_from_slice(&place.load(Ordering::Relaxed).to_ne_bytes());
        }
        (text, (self.len.load(Ordering::Relaxed) as usize).min(TEXT))
    }
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
        let (method, path) = ("M".repeat(100), "/p".repeat(100));
        record.begin(&method, &path, 4, 8);
        assert_eq!(said(&record), format!("{} {}", &method[..32], &path[..TEXT - 33]));
        record.begin("", "", 4, 8);
        assert_eq!(said(&record), " ");
        // Whatever the lambda writes there.
        record.len.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(record.text().1, TEXT);
        record.serve(u32::MAX);
        assert_eq!(record.connection(), None);
    }
}
