//! The journal's handle, for everybody who logs: it puts records into the queue and never waits. Writing them
//! is up to the thread in `writer.rs`.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt, io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use time::OffsetDateTime;

use super::{
    access::Access,
    queue::{ACCESS_QUEUE, AccessEntry, Entry, QUEUE, State},
    record::{Record, Source},
    settings::Settings,
    severity::Severity,
    writer::Writer,
};

/// A handle on the journal. Clones share it; when the last is dropped, its thread writes what is queued and
/// ends.
#[derive(Clone)]
pub struct Journal(Arc<Handle>);

impl Journal {
    /// Starts the journal and its thread. It connects to syslog when there is something to send.
    ///
    /// # Errors
    /// The system can't start the thread.
    pub fn start(settings: Settings) -> io::Result<Journal> {
        let (queue, records) = channel::unbounded();
        let (access_queue, accesses) = channel::unbounded();
        let (stop, stopped) = channel::bounded(1);
        let (alive, done) = channel::bounded::<Infallible>(0);
        let state = Arc::new(State::new(settings.level));
        let writer = Writer::new(settings, Arc::clone(&state));
        thread::Builder::new().name("journal".to_owned()).spawn(move || {
            // Dropped when the thread ends, even by a panic. `close` waits for this.
            let _alive = alive;
            writer.run(&records, &accesses, &stopped);
        })?;
        Ok(Journal(Arc::new(Handle { queue, access_queue, stop, done, state })))
    }

    /// Queues a record. If the queue is full or the journal is closed, it is dropped and counted. Never
    /// blocks.
    pub fn log(&self, mut record: Record) {
        if !self.wants(record.severity) {
            return;
        }
        record.cut();
        let entry = Entry { at: OffsetDateTime::now_utc(), record };
        if !self.queued(&self.0.queue, QUEUE, entry) {
            self.state().losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a line of the access log. If its queue is full or the journal is closed, it is dropped and
    /// counted. Never blocks.
    pub fn access(&self, mut access: Access) {
        access.cut();
        let entry = AccessEntry { at: OffsetDateTime::now_utc(), access };
        if !self.queued(&self.0.access_queue, ACCESS_QUEUE, entry) {
            self.state().access_losses.fetch_add(1, Ordering::Relaxed);
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
            let (text, fields) = (text.into(), fields.into_iter().collect());
            self.log(Record { severity, source: Source::Loader, target: Cow::Borrowed(""), text, fields });
        }
    }

    /// Logs that the loader can't go on, or that code panicked.
    pub fn critical(&self, text: impl Into<String>) {
        self.report(Severity::Critical, text, []);
    }

    /// Logs that something failed.
    pub fn error(&self, text: impl Into<String>) {
        self.report(Severity::Error, text, []);
    }

    /// Logs that something will fail, or is not as it should be.
    pub fn warning(&self, text: impl Into<String>) {
        self.report(Severity::Warning, text, []);
    }

    /// Logs what every operator wants to know: listening, draining.
    pub fn notice(&self, text: impl Into<String>) {
        self.report(Severity::Notice, text, []);
    }

    /// Logs what some operators want to know.
    pub fn info(&self, text: impl Into<String>) {
        self.report(Severity::Info, text, []);
    }

    /// Logs what helps to find a fault.
    pub fn debug(&self, text: impl Into<String>) {
        self.report(Severity::Debug, text, []);
    }

    /// The least severe level that is written now.
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

    /// Whether a record of this severity would be written.
    pub fn wants(&self, severity: Severity) -> bool {
        self.state().wants(severity)
    }

    /// How many records were lost: dropped because the queue was full or the journal closed, or known not to
    /// have reached syslog.
    pub fn losses(&self) -> u64 {
        self.state().losses.load(Ordering::Relaxed)
    }

    /// How many lines of the access log were dropped.
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

    fn queued<T>(&self, queue: &Sender<T>, room: usize, entry: T) -> bool {
        !self.state().closed.load(Ordering::Relaxed) && queue.len() < room && queue.send(entry).is_ok()
    }

    pub(super) fn state(&self) -> &State {
        &self.0.state
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("level", &self.level()).field("losses", &self.losses()).finish()
    }
}

/// What all clones of the handle share.
struct Handle {
    queue: Sender<Entry>,
    access_queue: Sender<AccessEntry>,
    stop: Sender<()>,
    /// Carries nothing. It is disconnected when the thread ends.
    done: Receiver<Infallible>,
    state: Arc<State>,
}
