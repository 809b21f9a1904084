//! The journal's handle, for everybody who logs: it puts records into the queue and never waits. The thread of
//! `writer.rs` writes them.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use super::{
    access::Access,
    record::{Entry, Record},
    severity::Severity,
    tap,
    writer::{QUEUE, Settings, State, Writer},
};

/// A line may wait as long: twice what syslog has.
const LONGEST_LINE: Duration = Duration::from_secs(2);
/// How long the lines that are left at the end may take.
const FINISH: Duration = Duration::from_secs(10);
/// The name of the journal's thread.
pub(super) const THREAD: &str = "journal";

/// A handle on the journal. Clones share it; when the last is dropped, its thread writes what is queued and
/// ends.
#[derive(Clone)]
pub struct Journal(Arc<Handle>);

struct Handle {
    queue: Sender<Entry<Record>>,
    access_queue: Sender<Entry<Access>>,
    stop: Sender<()>,
    /// Carries nothing. It is disconnected when the thread ends.
    done: Receiver<Infallible>,
    state: Arc<State>,
}

impl Journal {
    /// Starts the journal's thread, and fails if the system has none. The thread connects to syslog when there
    /// is something to send.
    pub fn start(settings: Settings) -> io::Result<Journal> {
        let (queue, records) = channel::unbounded();
        let (access_queue, accesses) = channel::unbounded();
        let (stop, stopped) = channel::bounded(1);
        let (alive, done) = channel::bounded::<Infallible>(0);
        let state = Arc::new(State::new(Severity::Info));
        let writer = Writer::new(settings, Arc::clone(&state));
        thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            // Dropped when the thread ends, even by a panic. `close` waits for this.
            let _alive = alive;
            writer.run(&records, &accesses, &stopped);
        })?;
        Ok(Journal(Arc::new(Handle { queue, access_queue, stop, done, state })))
    }

    /// Queues a record, or drops and counts it if the queue is full or the journal is closed. Never blocks.
    pub fn log(&self, mut record: Record) {
        if self.wants(record.severity) {
            record.cut();
            tap::copy(&record);
            self.enqueue(&self.0.queue, record, &self.state().losses);
        }
    }

    /// Queues a line of the access log, under the same terms as [`Journal::log`].
    pub fn access(&self, mut access: Access) {
        access.cut();
        self.enqueue(&self.0.access_queue, access, &self.state().access_losses);
    }

    fn enqueue<T>(&self, queue: &Sender<Entry<T>>, what: T, losses: &AtomicU64) {
        let has_room = !self.state().closed.load(Ordering::Relaxed) && queue.len() < QUEUE;
        if !has_room || queue.send(Entry::now(what)).is_err() {
            losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a sentence of the loader's, with fields for machines.
    pub fn report(
        &self,
        severity: Severity,
        text: impl Into<String>,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        // `log` asks, too; asking here saves making a record that isn't wanted.
        if self.wants(severity) {
            let fields = fields.into_iter().collect();
            self.log(Record { fields, ..Record::of_loader(severity, text.into()) });
        }
    }

    pub fn critical(&self, text: impl Into<String>) {
        self.report(Severity::Critical, text, []);
    }

    pub fn error(&self, text: impl Into<String>) {
        self.report(Severity::Error, text, []);
    }

    pub fn warning(&self, text: impl Into<String>) {
        self.report(Severity::Warning, text, []);
    }

    pub fn notice(&self, text: impl Into<String>) {
        self.report(Severity::Notice, text, []);
    }

    pub fn level(&self) -> Severity {
        self.state().level()
    }

    /// Sets the least severe level that is written, from the next record on.
    pub fn set_level(&self, level: Severity) {
        self.state().level.store(level as u32, Ordering::Relaxed);
        if let Some(set_log_level) = self.state().set_log_level.get() {
            set_log_level(level);
        }
    }

    pub fn wants(&self, severity: Severity) -> bool {
        severity <= self.level()
    }

    /// How many records were lost: dropped because the queue was full or the journal closed, or known not to
    /// have reached syslog.
    pub fn losses(&self) -> u64 {
        self.state().losses.load(Ordering::Relaxed)
    }

    pub fn access_losses(&self) -> u64 {
        self.state().access_losses.load(Ordering::Relaxed)
    }

    /// Closes the journal and waits until everything queued is written. Returns whether that happened
    /// `within` the time; if not, the thread goes on writing. Later records are dropped. May be called again,
    /// from any thread.
    pub fn close(&self, within: Duration) -> bool {
        self.state().closed.store(true, Ordering::Relaxed);
        // A full channel means that it was closed before.
        let _ = self.0.stop.try_send(());
        matches!(self.0.done.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
    }

    /// Closes the journal and waits for as long as lines are being written, at most ten seconds; how many are left,
    /// which nobody writes if the process ends now.
    pub fn finish(&self) -> usize {
        let until = Instant::now() + FINISH;
        let n_queued = || self.0.queue.len() + self.0.access_queue.len();
        let mut n_left = n_queued();
        while !self.close(LONGEST_LINE) {
            let n_before = std::mem::replace(&mut n_left, n_queued());
            if n_left >= n_before || Instant::now() >= until {
                return n_left;
            }
        }
        0
    }

    pub(super) fn state(&self) -> &State {
        &self.0.state
    }
}
