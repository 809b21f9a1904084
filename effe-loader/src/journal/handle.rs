//! The journal as its users have it: a handle that queues what is said, and never waits.

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
    queue::{ACCESS_QUEUE, AccessEntry, Entry, Gauges, QUEUE},
    record::{Record, Source},
    settings::Settings,
    severity::Severity,
    writer::Writer,
};

/// A handle on the journal. Clones share it; when the last is dropped, its thread writes what is queued and ends.
#[derive(Clone)]
pub struct Journal(Arc<Handle>);

impl Journal {
    /// Starts the journal and its one thread. Syslog is looked for when there is something to say.
    ///
    /// # Errors
    /// The system's, if it refuses the thread.
    pub fn start(settings: Settings) -> io::Result<Journal> {
        let (queue, records) = channel::unbounded();
        let (access_queue, accesses) = channel::unbounded();
        let (stop, stopped) = channel::bounded(1);
        let (alive, done) = channel::bounded::<Infallible>(0);
        let gauges = Arc::new(Gauges::new(settings.level));
        let writer = Writer::new(settings, Arc::clone(&gauges));
        thread::Builder::new().name("journal".to_owned()).spawn(move || {
            // Dropped at the end of the thread, however that comes, which is what `close` waits for.
            let _alive = alive;
            writer.run(&records, &accesses, &stopped);
        })?;
        Ok(Journal(Arc::new(Handle { queue, access_queue, stop, done, gauges })))
    }

    /// Queues a record, or drops and counts it if the queue is full or the journal closed. Never blocks.
    pub fn log(&self, mut record: Record) {
        if !self.wants(record.severity) {
            return;
        }
        record.cut();
        let entry = Entry { at: OffsetDateTime::now_utc(), record };
        if !self.queued(&self.0.queue, QUEUE, entry) {
            self.gauges().losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a line of the access log, or drops and counts it if their queue is full or the journal closed. Never
    /// blocks.
    pub fn access(&self, mut access: Access) {
        access.cut();
        let entry = AccessEntry { at: OffsetDateTime::now_utc(), access };
        if !self.queued(&self.0.access_queue, ACCESS_QUEUE, entry) {
            self.gauges().access_losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a sentence of the loader's with facts for machines.
    pub fn report(
        &self,
        severity: Severity,
        text: impl Into<String>,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        // Asked here too, so that what isn't wanted costs nothing.
        if self.wants(severity) {
            let (text, fields) = (text.into(), fields.into_iter().collect());
            self.log(Record { severity, source: Source::Loader, target: Cow::Borrowed(""), text, fields });
        }
    }

    /// The loader can't go on, or a lambda's code broke.
    pub fn critical(&self, text: impl Into<String>) {
        self.report(Severity::Critical, text, []);
    }

    /// Something failed.
    pub fn error(&self, text: impl Into<String>) {
        self.report(Severity::Error, text, []);
    }

    /// Something will fail, or is less than it should be.
    pub fn warning(&self, text: impl Into<String>) {
        self.report(Severity::Warning, text, []);
    }

    /// Something that every operator wants to know: listening, draining.
    pub fn notice(&self, text: impl Into<String>) {
        self.report(Severity::Notice, text, []);
    }

    /// Something that some operators want to know.
    pub fn info(&self, text: impl Into<String>) {
        self.report(Severity::Info, text, []);
    }

    /// Something that only a search for a fault wants to know.
    pub fn debug(&self, text: impl Into<String>) {
        self.report(Severity::Debug, text, []);
    }

    /// The least severe level that is wanted now.
    pub fn level(&self) -> Severity {
        self.gauges().level()
    }

    /// Changes what is wanted, from the next record on.
    pub fn set_level(&self, level: Severity) {
        self.gauges().level.store(level as u32, Ordering::Relaxed);
        if let Some(set_log_level) = self.gauges().set_log_level.get() {
            set_log_level(level);
        }
    }

    /// Whether a record of this severity would be written.
    pub fn wants(&self, severity: Severity) -> bool {
        self.gauges().wants(severity)
    }

    /// How many records were dropped because the queue was full or the journal closed, or are known to have been lost
    /// on their way to syslog.
    pub fn losses(&self) -> u64 {
        self.gauges().losses.load(Ordering::Relaxed)
    }

    /// How many lines of the access log were dropped.
    pub fn access_losses(&self) -> u64 {
        self.gauges().access_losses.load(Ordering::Relaxed)
    }

    /// Ends the journal. Waits until everything queued is written, and says whether that came `within` the time;
    /// if not, the thread still writes on. What is logged after this is dropped. May be called again, by anyone.
    pub fn close(&self, within: Duration) -> bool {
        self.gauges().closed.store(true, Ordering::Relaxed);
        // Full means that somebody has said so already.
        let _ = self.0.stop.try_send(());
        matches!(self.0.done.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
    }

    fn queued<T>(&self, queue: &Sender<T>, room: usize, entry: T) -> bool {
        !self.gauges().closed.load(Ordering::Relaxed) && queue.len() < room && queue.send(entry).is_ok()
    }

    pub(super) fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("level", &self.level()).field("losses", &self.losses()).finish()
    }
}

/// What all handles share.
struct Handle {
    queue: Sender<Entry>,
    access_queue: Sender<AccessEntry>,
    stop: Sender<()>,
    /// Nothing comes out of it; it is disconnected when the thread ends.
    done: Receiver<Infallible>,
    gauges: Arc<Gauges>,
}
