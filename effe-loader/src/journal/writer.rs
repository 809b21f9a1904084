//! The journal's thread: takes records from the queue and decides whether each goes to stderr, to syslog or
//! to both.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam::{channel::Receiver, select};
use time::OffsetDateTime;

use super::{
    queue::{ACCESS_QUEUE, AccessEntry, Entry, QUEUE, State},
    record::{Record, Source},
    settings::Settings,
    severity::Severity,
    stderr::Stderr,
    syslog::{Delivery, Syslog},
};

/// Lines of the access log that are written before records have their turn again.
const ACCESS_BATCH: usize = 32;
/// While the queue stays full, losses are reported this often.
const REPORT_LOSSES: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    /// `None` if the operator has turned syslog off.
    syslog: Option<Syslog>,
    stderr: Stderr,
    state: Arc<State>,
    /// The losses that have been reported.
    reported: Losses,
    reported_at: Instant,
}

/// How many lines were lost.
#[derive(Clone, Copy, Default, PartialEq)]
struct Losses {
    records: u64,
    accesses: u64,
}

impl Writer {
    pub(super) fn new(settings: Settings, state: Arc<State>) -> Writer {
        Writer {
            syslog: Syslog::new(&settings.syslog, settings.syslog_format, &settings.tag),
            stderr: Stderr::new(settings.sink, settings.format),
            state,
            reported: Losses::default(),
            reported_at: Instant::now(),
        }
    }

    /// Writes until the journal is closed or its last handle is dropped, and then writes what is left.
    pub(super) fn run(
        mut self,
        records: &Receiver<Entry>,
        accesses: &Receiver<AccessEntry>,
        stopped: &Receiver<()>,
    ) {
        loop {
            select! {
                recv(records) -> entry => match entry {
                    Ok(entry) => self.write(&entry),
                    Err(_) => break,
                },
                recv(accesses) -> entry => match entry {
                    // A batch, and then records have their turn.
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
            if records.len() <= QUEUE / 2 && accesses.len() <= ACCESS_QUEUE / 2
                || self.reported_at.elapsed() >= REPORT_LOSSES
            {
                self.report_losses();
            }
        }
        for entry in records.try_iter() {
            self.write(&entry);
        }
        self.stderr.write_accesses(accesses.try_iter());
        self.report_losses();
    }

    fn write(&mut self, entry: &Entry) {
        // Before syslog, which may take long.
        let on_stderr = entry.record.source == Source::Loader || self.stderr.is_terminal();
        if on_stderr {
            self.stderr.write(entry);
        }
        let delivery = match &mut self.syslog {
            Some(syslog) => {
                let delivery = syslog.send(&entry.record);
                self.state.losses.fetch_add(syslog.take_lost(), Ordering::Relaxed);
                delivery
            }
            None => Delivery::Unavailable,
        };
        if let Delivery::Gone(reason) = &delivery {
            self.note(format!("syslog is unavailable ({reason}): its lines go to stderr until it is back"));
        }
        if !on_stderr && !delivery.arrived() {
            self.stderr.write(entry);
        }
        if let Delivery::Back = delivery {
            let note = self.note("syslog is back".to_owned());
            if let Some(syslog) = &mut self.syslog {
                // The next record finds out if it has gone again.
                let _ = syslog.send_now(&note.record);
            }
        }
    }

    fn report_losses(&mut self) {
        let losses = Losses {
            records: self.state.losses.load(Ordering::Relaxed),
            accesses: self.state.access_losses.load(Ordering::Relaxed),
        };
        if losses == self.reported {
            return;
        }
        let before = std::mem::replace(&mut self.reported, losses);
        self.reported_at = Instant::now();
        for (n_lost, what) in [
            (losses.records - before.records, "log lines were lost"),
            (losses.accesses - before.accesses, "lines of the access log were lost"),
        ] {
            if n_lost > 0 {
                self.write(&own(Severity::Warning, format!("{n_lost} {what}")));
            }
        }
    }

    /// Writes a notice about syslog to stderr.
    fn note(&mut self, text: String) -> Entry {
        let entry = own(Severity::Notice, text);
        if self.state.wants(Severity::Notice) {
            self.stderr.write(&entry);
        }
        entry
    }
}

/// A record of the journal's own.
fn own(severity: Severity, text: String) -> Entry {
    let target = Cow::Borrowed("");
    Entry {
        at: OffsetDateTime::now_utc(),
        record: Record { severity, source: Source::Loader, target, text, fields: Vec::new() },
    }
}
