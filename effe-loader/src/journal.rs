//! The journal: where everything goes that the loader and its lambda have to say.
//!
//! Whoever logs puts a [`Record`] into a bounded queue and never waits; one thread writes. What the lambda says goes
//! to syslog, what the loader says to stderr and to syslog, and stderr gets everything while there is no syslog.
//! The `syslog` crate's formatter writes the datagrams' heads, but its loggers are not used: they block their caller
//! when the daemon stops reading, never recover from its restart, and let line feeds through.

mod access;
mod dependencies;
mod json;
mod line;
mod panics;
mod record;
mod severity;
mod stderr;
mod syslog;
mod writer;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use time::OffsetDateTime;

pub use self::{
    access::Access,
    dependencies::Inmate,
    record::{Record, Source},
    severity::Severity,
    stderr::{Format, Sink},
    syslog::{SyslogFormat, SyslogTarget},
};

/// How many records wait for the thread, give or take one for each thread that logs. With the limits of each they
/// hold 40 MiB at the very worst. The queues grow as they fill: made whole, they would be a megabyte to touch at each start.
const QUEUE: usize = 4096;
/// How many lines of the access log wait beside them. At the very worst they hold 10 MiB.
const ACCESS_QUEUE: usize = 4096;

/// What a journal has to know before it starts.
pub struct Settings {
    /// Where syslog is.
    pub syslog: SyslogTarget,
    /// How records look there.
    pub syslog_format: SyslogFormat,
    /// How lines on stderr look.
    pub format: Format,
    /// The least severe level that is wanted.
    pub level: Severity,
    /// The program's name in syslog.
    pub tag: String,
    /// What stands for stderr.
    pub sink: Sink,
}

impl Settings {
    /// The two that an operator chooses first; the rest as the loader has it.
    pub fn new(syslog: SyslogTarget, format: Format) -> Settings {
        Settings {
            syslog,
            syslog_format: SyslogFormat::Rfc3164,
            format,
            level: Severity::Info,
            tag: "effe-loader".to_owned(),
            sink: Sink::Stderr,
        }
    }
}

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
        let gauges = Arc::new(Gauges {
            level: AtomicU32::new(settings.level as u32),
            losses: AtomicU64::new(0),
            access_losses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            installed: AtomicBool::new(false),
        });
        let writer = writer::Writer::new(settings, Arc::clone(&gauges));
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
        if self.gauges().installed.load(Ordering::Relaxed) {
            dependencies::follow(level);
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

    /// Makes this journal the logger of the loader's dependencies: their warnings and errors become the loader's, and
    /// panics critical lines. In a program that holds a lambda, what its crate logs is the lambda's. A program that has a
    /// logger keeps it.
    pub fn install(&self, lambda: Option<Inmate>) {
        panics::install(self);
        if dependencies::install(self, lambda) {
            self.gauges().installed.store(true, Ordering::Relaxed);
            dependencies::follow(self.level());
        }
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

    fn gauges(&self) -> &Gauges {
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

/// What the handles and the thread share. Not in [`Handle`]: the thread must not keep its own queue open.
///
/// Every access is relaxed: each is a value by itself, and the queue orders the records.
struct Gauges {
    level: AtomicU32,
    losses: AtomicU64,
    access_losses: AtomicU64,
    closed: AtomicBool,
    /// Whether this journal is the `log` crate's logger.
    installed: AtomicBool,
}

impl Gauges {
    fn level(&self) -> Severity {
        Severity::from(self.level.load(Ordering::Relaxed))
    }

    fn wants(&self, severity: Severity) -> bool {
        severity <= self.level()
    }
}

/// A record in the queue.
struct Entry {
    /// When it was said, which may be long before it is written.
    at: OffsetDateTime,
    record: Record,
}

/// A line of the access log in its queue.
struct AccessEntry {
    at: OffsetDateTime,
    access: Access,
}
