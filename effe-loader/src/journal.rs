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
mod severity;
mod stderr;
mod syslog;
mod writer;

#[cfg(test)]
mod testing;

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
    severity::Severity,
    stderr::{Format, Sink},
    syslog::{SyslogFormat, SyslogTarget},
};

/// How many records wait for the thread, give or take one for each thread that logs. With the limits below they hold
/// 40 MiB at the very worst. The queues grow as they fill: made whole, they would be a megabyte to touch at each start.
const QUEUE: usize = 4096;
/// How many lines of the access log wait beside them. At the very worst they hold 10 MiB.
const ACCESS_QUEUE: usize = 4096;
/// Bytes of a text. With head, target and a few fields it fits into the 8 KiB that rsyslog takes.
const TEXT_LIMIT: usize = 8 * 1024 - 512;
/// Bytes of a field's value.
const FIELD_LIMIT: usize = 1024;
/// Bytes of a target.
const TARGET_LIMIT: usize = 128;

/// Who says it, which decides where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The loader and its dependencies: stderr, and syslog if it is there.
    Loader,
    /// The lambda: syslog; stderr too if it is a terminal, and instead if there is no syslog.
    Lambda,
}

impl Source {
    /// `loader` or `lambda`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Loader => "loader",
            Source::Lambda => "lambda",
        }
    }
}

/// One thing that is said. Anything may be in its strings: control characters are escaped where it is written.
#[derive(Clone, Debug)]
pub struct Record {
    /// How bad it is.
    pub severity: Severity,
    /// Who says it.
    pub source: Source,
    /// The part of the program that says it; may be empty.
    pub target: Cow<'static, str>,
    /// What is said: a sentence that suffices by itself. Lines after the first are details, such as a backtrace.
    pub text: String,
    /// Facts for machines: members of a JSON line, `name=value` elsewhere.
    pub fields: Vec<(&'static str, String)>,
}

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
        line::cut(&mut record.text, TEXT_LIMIT);
        if record.target.len() > TARGET_LIMIT {
            line::cut(record.target.to_mut(), TARGET_LIMIT);
        }
        for (_, value) in &mut record.fields {
            line::cut(value, FIELD_LIMIT);
        }
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

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        time::{Duration, Instant},
    };

    use super::{
        testing::{Captured, Daemon, StuckSink, lambda, start},
        *,
    };

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn every_severity_has_its_priority_in_syslog() {
        let (daemon, stderr) = (Daemon::new(), Captured::default());
        let journal = start(daemon.target(), Format::Text, &stderr);
        journal.set_level(Severity::Trace);
        let expected = [(2, 26), (3, 27), (4, 28), (5, 29), (6, 30), (7, 31), (8, 31), (99, 31), (0, 26)];
        for (number, priority) in expected {
            journal.log(lambda(Severity::from(number), "said"));
            let datagram = daemon.receive();
            let pid = std::process::id();
            assert!(datagram.starts_with(&format!("<{priority}>")), "{datagram}");
            assert!(datagram.ends_with(&format!(" effe-loader[{pid}]: lambda: hello::db: said id=\"a b\"")));
        }
        assert!(journal.close(LONG));
        assert_eq!(stderr.text(), "", "what syslog has is not on stderr too");
    }

    #[test]
    fn the_loader_is_heard_on_stderr_and_in_syslog() {
        let (daemon, stderr) = (Daemon::new(), Captured::default());
        let journal = start(daemon.target(), Format::Text, &stderr);
        let address = "127.0.0.1:8080".to_owned();
        journal.report(Severity::Notice, format!("listening on http://{address}"), [("address", address)]);
        assert!(daemon.receive().ends_with("]: listening on http://127.0.0.1:8080"));
        assert!(journal.close(LONG));
        assert_eq!(stderr.text(), "listening on http://127.0.0.1:8080\n");
    }

    #[test]
    fn a_terminal_shows_what_syslog_has() {
        let (daemon, stderr) = (Daemon::new(), Captured::terminal());
        let journal = start(daemon.target(), Format::Auto, &stderr);
        journal.log(lambda(Severity::Error, "said"));
        daemon.receive();
        assert!(journal.close(LONG));
        assert_eq!(stderr.text().matches("said").count(), 1);
    }

    #[test]
    fn without_syslog_all_goes_to_stderr_and_that_is_said_once() {
        let (mut daemon, stderr) = (Daemon::new(), Captured::default());
        daemon.kill();
        let journal = start(daemon.target(), Format::Text, &stderr);
        for n in 0..3 {
            journal.log(lambda(Severity::Error, &format!("number {n}")));
        }
        stderr.wait_for(|text| text.contains("number 2"));
        assert_eq!(stderr.text().matches("syslog is unavailable").count(), 1);
        let since = Instant::now();
        daemon.revive();
        while daemon.try_receive(Duration::from_millis(20)).is_none() {
            journal.log(lambda(Severity::Error, "again"));
        }
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        stderr.wait_for(|text| text.contains("syslog is back"));
        while !daemon.receive().contains("syslog is back") {}
        assert!(journal.close(LONG));
        assert_eq!(stderr.text().matches("syslog is back").count(), 1);
    }

    #[test]
    fn switched_off_syslog_is_not_missed() {
        let stderr = Captured::default();
        let journal = start(SyslogTarget::None, Format::Text, &stderr);
        journal.log(lambda(Severity::Error, "said"));
        assert!(journal.close(LONG));
        assert_eq!(stderr.text().lines().count(), 1);
        assert!(stderr.text().ends_with(" lambda: error: hello::db: said id=\"a b\"\n"));
    }

    #[test]
    fn the_record_that_meets_a_dead_socket_reaches_the_new_daemon() {
        let (mut daemon, stderr) = (Daemon::new(), Captured::default());
        let journal = start(daemon.target(), Format::Text, &stderr);
        for n in 0..3 {
            journal.log(lambda(Severity::Error, &format!("number {n}")));
            let since = Instant::now();
            assert!(daemon.receive().contains(&format!("number {n}")));
            assert!(since.elapsed() < Duration::from_secs(1));
            daemon.kill();
            daemon.revive();
        }
        assert!(journal.close(LONG));
        assert_eq!(stderr.text(), "");
    }

    #[test]
    fn the_record_that_meets_no_daemon_is_on_stderr() {
        let (mut daemon, stderr) = (Daemon::new(), Captured::default());
        let journal = start(daemon.target(), Format::Text, &stderr);
        journal.log(lambda(Severity::Error, "before"));
        assert!(daemon.receive().contains("before"));
        daemon.kill();
        journal.log(lambda(Severity::Error, "between"));
        stderr.wait_for(|text| text.contains("between"));
        assert!(journal.close(LONG));
    }

    #[test]
    fn a_daemon_that_stops_reading_delays_nobody_and_every_record_is_accounted_for() {
        const N: usize = 10_000;
        let (daemon, stderr) = (Daemon::new(), Captured::default());
        let journal = start(daemon.target(), Format::Text, &stderr);
        let since = Instant::now();
        for n in 0..N {
            journal.log(lambda(Severity::Error, &format!("number {n};")));
        }
        // One blocked call would take a second by itself.
        assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
        stderr
            .wait_for(|text| text.contains("log lines were lost") && text.contains("syslog is unavailable"));
        let (mut received, mut back, mut n_said) = (HashSet::new(), false, N);
        while !back {
            journal.log(lambda(Severity::Error, &format!("number {n_said};")));
            n_said += 1;
            while let Some(datagram) = daemon.try_receive(Duration::from_millis(20)) {
                back |= datagram.contains("syslog is back");
                received.extend(numbers(&datagram));
            }
        }
        assert!(journal.close(LONG));
        let written: HashSet<_> = numbers(&stderr.text()).collect();
        assert!(received.is_disjoint(&written));
        assert!(journal.losses() > 0);
        assert_eq!(received.len() + written.len() + journal.losses() as usize, n_said);
        let text = stderr.text();
        let said = text.lines().filter_map(|line| line.strip_suffix(" log lines were lost"));
        let said = said.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(said.sum::<u64>(), journal.losses());
    }

    /// The `N` of every `number N;` in a text.
    fn numbers(text: &str) -> impl Iterator<Item = usize> {
        text.split("number ").skip(1).filter_map(|rest| rest.split_once(';')?.0.parse().ok())
    }

    #[test]
    fn whatever_is_said_it_is_one_datagram_and_one_line() {
        let long = "x".repeat(64 * 1024);
        let texts = [
            "a\nb<13>Jan 01 00:00:00 sshd[1]: Accepted password",
            "a\r\nb",
            "a\0b",
            "\x1b]0;title\x07\x1b[31mred",
            "a\u{85}b\u{9b}31mc\x7fd",
            "a\u{2028}b\u{2029}c\u{202e}d",
            "\n",
            "",
            "{\"level\":\"info\"}\n{\"level\":\"error\"}",
            &long,
            &"\n".repeat(64 * 1024),
        ];
        for format in [Format::Text, Format::Json] {
            let (daemon, stderr) = (Daemon::new(), Captured::default());
            let journal = start(daemon.target(), format, &stderr);
            for text in texts {
                journal.log(Record {
                    severity: Severity::Error,
                    source: Source::Loader,
                    target: text.to_owned().into(),
                    text: text.to_owned(),
                    fields: vec![("path", text.to_owned())],
                });
                let datagram = daemon.receive();
                assert!(datagram.len() <= 8 * 1024, "{} bytes", datagram.len());
                assert!(!datagram.chars().any(line::is_unsafe), "{datagram:?}");
                assert_eq!(daemon.try_receive(Duration::from_millis(1)), None, "{text:?}");
            }
            assert!(journal.close(LONG));
            let lines = stderr.text();
            assert_eq!(lines.lines().count(), texts.len(), "{format:?}");
            for line in lines.lines() {
                assert!(!line.chars().any(line::is_unsafe), "{line:?}");
                if format == Format::Json {
                    let value: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert!(value["message"].as_str().unwrap().len() <= 8 * 1024);
                }
            }
        }
    }

    #[test]
    fn closing_writes_what_is_queued_and_may_be_repeated() {
        let stderr = Captured::default();
        let journal = start(SyslogTarget::None, Format::Text, &stderr);
        for n in 0..1_000 {
            journal.info(format!("line {n}"));
        }
        assert!(journal.close(LONG));
        assert_eq!(stderr.text().lines().count(), 1_000);
        assert!(journal.clone().close(Duration::ZERO));
        journal.error("too late");
        assert_eq!(journal.losses(), 1);
        assert_eq!(stderr.text().lines().count(), 1_000);
    }

    #[test]
    fn a_stuck_stderr_holds_up_nobody() {
        let (sink, release) = StuckSink::new();
        let sink = Sink::Writer { writer: Box::new(sink), terminal: false };
        let journal =
            Journal::start(Settings { sink, ..Settings::new(SyslogTarget::None, Format::Text) }).unwrap();
        let since = Instant::now();
        for _ in 0..10_000 {
            journal.error("said");
        }
        assert!(!journal.close(Duration::from_millis(50)));
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        drop(release);
        assert!(journal.close(LONG));
    }

    #[test]
    fn lines_of_the_access_log_displace_only_each_other() {
        const N: usize = 10_000;
        let (sink, release) = StuckSink::new();
        let sink = Sink::Writer { writer: Box::new(sink), terminal: false };
        let journal =
            Journal::start(Settings { sink, ..Settings::new(SyslogTarget::None, Format::Text) }).unwrap();
        for _ in 0..N {
            journal.access(Access {
                request_id: "abc".to_owned(),
                peer: None,
                method: "GET".to_owned(),
                path: "/".to_owned(),
                version: "HTTP/1.1",
                status: 200,
                bytes: 0,
                took: Duration::ZERO,
                extra: Vec::new(),
            });
        }
        (0..1_000).for_each(|_| journal.error("said"));
        assert_eq!(journal.losses(), 0);
        let lost = journal.access_losses() as usize;
        // What the thread had taken out before it got stuck made room.
        assert!((N - ACCESS_QUEUE - 64..=N - ACCESS_QUEUE).contains(&lost), "{lost}");
        drop(release);
        assert!(journal.close(LONG));
    }

    #[test]
    fn a_broken_stderr_is_nobodys_trouble() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(reader);
        let sink = Sink::Writer { writer: Box::new(writer), terminal: false };
        let journal =
            Journal::start(Settings { sink, ..Settings::new(SyslogTarget::None, Format::Text) }).unwrap();
        journal.error("said");
        assert!(journal.close(LONG));
    }

    #[test]
    fn dropping_the_last_handle_writes_what_is_queued() {
        let stderr = Captured::default();
        let journal = start(SyslogTarget::None, Format::Text, &stderr);
        journal.info("last words");
        drop(journal);
        stderr.wait_for(|text| text.contains("last words"));
    }

    #[test]
    fn what_is_not_wanted_is_not_written() {
        let stderr = Captured::default();
        let journal = start(SyslogTarget::None, Format::Text, &stderr);
        journal.debug("one");
        journal.set_level(Severity::Error);
        journal.warning("two");
        journal.error("three");
        journal.critical("four");
        assert!(journal.close(LONG));
        assert_eq!(stderr.text().lines().count(), 2);
    }
}
