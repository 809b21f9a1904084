//! The journal's thread: takes entries from the two queues and decides whether each goes to stderr, to syslog
//! or to both. Also holds its settings, and what it shares with the handles.

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::{channel::Receiver, select};

use super::{
    access::Access,
    record::{Entry, Record, Source},
    severity::Severity,
    stderr::{Format, Sink, Stderr},
    syslog::{Delivery, Syslog, SyslogFormat, SyslogTarget},
};
use crate::rt::panics::survive;

/// How many records, and how many lines of the access log, may wait for the thread. Threads that log at the same
/// time may exceed it by one each. With the limits of each record they hold 40 MiB at most, and 10 MiB of the
/// access log. The queues grow as they fill: made at full size, each start would have to touch a megabyte.
pub(super) const QUEUE: usize = 4096;
/// Lines of the access log that are written before records have their turn again.
const ACCESS_BATCH: usize = 32;
/// While the queue stays full, losses are reported this often.
const REPORT_LOSSES: Duration = Duration::from_secs(1);

pub struct Settings {
    pub syslog: SyslogTarget,
    pub syslog_format: SyslogFormat,
    /// How lines on stderr look.
    pub format: Format,
    pub sink: Sink,
}

impl Settings {
    /// Settings with these two, and the loader's own for the rest.
    pub fn new(syslog: SyslogTarget, format: Format) -> Settings {
        Settings { syslog, syslog_format: SyslogFormat::Rfc3164, format, sink: Sink::stderr() }
    }
}

/// What the handles and the thread share. It is apart from the queues' senders: if the thread had those, its
/// queues would never close.
///
/// Every access is relaxed: no value depends on another, and the queue orders the records.
#[derive(Default)]
pub(super) struct State {
    pub(super) level: AtomicU32,
    pub(super) losses: AtomicU64,
    pub(super) access_losses: AtomicU64,
    pub(super) closed: AtomicBool,
    /// What sets the level of the `log` crate, once this journal is its logger.
    pub(super) set_log_level: OnceLock<fn(Severity)>,
}

impl State {
    pub(super) fn new(level: Severity) -> State {
        State { level: AtomicU32::new(level as u32), ..State::default() }
    }

    pub(super) fn level(&self) -> Severity {
        Severity::from(self.level.load(Ordering::Relaxed))
    }
}

pub(super) struct Writer {
    /// `None` if the operator has turned syslog off.
    syslog: Option<Syslog>,
    stderr: Stderr,
    state: Arc<State>,
    /// The losses that have been reported: of records, and of lines of the access log.
    reported: [u64; 2],
    reported_at: Instant,
}

impl Writer {
    pub(super) fn new(settings: Settings, state: Arc<State>) -> Writer {
        Writer {
            syslog: Syslog::new(settings.syslog, settings.syslog_format),
            stderr: Stderr::new(settings.sink, settings.format),
            state,
            reported: [0; 2],
            reported_at: Instant::now(),
        }
    }

    /// Writes until the journal is closed or its last handle is dropped, and then writes what is left. A panic costs
    /// the line that it comes of.
    pub(super) fn run(
        mut self,
        records: &Receiver<Entry<Record>>,
        accesses: &Receiver<Entry<Access>>,
        stopped: &Receiver<()>,
    ) {
        let state = Arc::clone(&self.state);
        let mut write_all = || {
            self.write_all(records, accesses, stopped);
            Ok(())
        };
        while survive(&mut write_all).is_err() {
            state.losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_all(
        &mut self,
        records: &Receiver<Entry<Record>>,
        accesses: &Receiver<Entry<Access>>,
        stopped: &Receiver<()>,
    ) {
        // After a panic, the word to stop may have come already.
        while !self.state.closed.load(Ordering::Relaxed) {
            select! {
                recv(records) -> entry => match entry {
                    Ok(entry) => self.write(&entry),
                    Err(_) => break,
                },
                recv(accesses) -> entry => match entry {
                    Ok(entry) => {
                        let more = accesses.try_iter().take(ACCESS_BATCH);
                        self.stderr.write_accesses(std::iter::once(entry).chain(more));
                    }
                    Err(_) => break,
                },
                recv(stopped) -> _ => break,
            }
            // Only when half of the queue is free: else a flood would alternate between one line and one
            // report.
            if records.len().max(accesses.len()) <= QUEUE / 2 || self.reported_at.elapsed() >= REPORT_LOSSES {
                self.report_losses();
            }
        }
        records.try_iter().for_each(|entry| self.write(&entry));
        self.stderr.write_accesses(accesses.try_iter());
        self.report_losses();
    }

    fn write(&mut self, entry: &Entry<Record>) {
        // Before syslog, which may take long.
        let on_stderr = entry.what.source == Source::Loader || self.stderr.is_terminal();
        if on_stderr {
            self.stderr.write(entry);
        }
        let delivery = match &mut self.syslog {
            Some(syslog) => {
                let delivery = syslog.send(&entry.what);
                self.state.losses.fetch_add(mem::take(&mut syslog.n_lost), Ordering::Relaxed);
                delivery
            }
            None => Delivery::Unavailable,
        };
        if let Delivery::Gone(reason) = &delivery {
            self.note(format!("syslog is unavailable ({reason}): its lines go to stderr until it is back"));
        }
        if !on_stderr && matches!(delivery, Delivery::Gone(_) | Delivery::Unavailable) {
            self.stderr.write(entry);
        }
        if delivery == Delivery::Back {
            let note = self.note("syslog is back".to_owned());
            if let Some(syslog) = &mut self.syslog {
                syslog.send_now(&note.what);
            }
        }
    }

    fn report_losses(&mut self) {
        let losses = [&self.state.losses, &self.state.access_losses].map(|n| n.load(Ordering::Relaxed));
        if losses == self.reported {
            return;
        }
        let before = mem::replace(&mut self.reported, losses);
        self.reported_at = Instant::now();
        let what = ["log lines were lost", "lines of the access log were lost"];
        for (n_lost, what) in losses.iter().zip(before).map(|(now, before)| now - before).zip(what) {
            if n_lost > 0 {
                self.write(&Entry::now(Record::of_loader(Severity::Warning, format!("{n_lost} {what}"))));
            }
        }
    }

    /// Writes a notice about syslog to stderr.
    fn note(&mut self, text: String) -> Entry<Record> {
        let entry = Entry::now(Record::of_loader(Severity::Notice, text));
        if Severity::Notice <= self.state.level() {
            self.stderr.write(&entry);
        }
        entry
    }
}
