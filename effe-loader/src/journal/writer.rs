//! The journal's thread: takes records from the queue and decides which of the two ways out each one goes.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam::{channel::Receiver, select};
use time::OffsetDateTime;

use super::{
    queue::{ACCESS_QUEUE, AccessEntry, Entry, Gauges, QUEUE},
    record::{Record, Source},
    settings::Settings,
    severity::Severity,
    stderr::Stderr,
    syslog::{Delivery, Syslog},
};

/// Lines of the access log that are written before records have their turn again.
const ACCESS_BATCH: usize = 32;
/// How long a count of losses may wait while the queue stays full.
const LOSSES_UNSAID: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    /// `None` if the operator wants none.
    syslog: Option<Syslog>,
    stderr: Stderr,
    gauges: Arc<Gauges>,
    /// The losses that have been said.
    said: Losses,
    said_at: Instant,
}

/// Lines that nobody will ever see.
#[derive(Clone, Copy, Default, PartialEq)]
struct Losses {
    records: u64,
    accesses: u64,
}

impl Writer {
    pub(super) fn new(settings: Settings, gauges: Arc<Gauges>) -> Writer {
        Writer {
            syslog: Syslog::new(&settings.syslog, settings.syslog_format, &settings.tag),
            stderr: Stderr::new(settings.sink, settings.format),
            gauges,
            said: Losses::default(),
            said_at: Instant::now(),
        }
    }

    /// Writes until the journal is closed or nobody has a handle any more, and then what is left.
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
                    // A pipe's fill, and then records have their turn.
                    Ok(entry) => {
                        let more = accesses.try_iter().take(ACCESS_BATCH);
                        self.stderr.write_accesses(std::iter::once(entry).chain(more));
                    }
                    Err(_) => break,
                },
                recv(stopped) -> _ => break,
            }
            // Half a queue of room, or every flood would alternate between a line and a count.
            if records.len() <= QUEUE / 2 && accesses.len() <= ACCESS_QUEUE / 2
                || self.said_at.elapsed() >= LOSSES_UNSAID
            {
                self.say_losses();
            }
        }
        for entry in records.try_iter() {
            self.write(&entry);
        }
        self.stderr.write_accesses(accesses.try_iter());
        self.say_losses();
    }

    fn write(&mut self, entry: &Entry) {
        // Before syslog, which may keep us waiting.
        let on_stderr = entry.record.source == Source::Loader || self.stderr.is_terminal();
        if on_stderr {
            self.stderr.write(entry);
        }
        let delivery = match &mut self.syslog {
            Some(syslog) => {
                let delivery = syslog.send(&entry.record);
                self.gauges.losses.fetch_add(syslog.take_lost(), Ordering::Relaxed);
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

    fn say_losses(&mut self) {
        let losses = Losses {
            records: self.gauges.losses.load(Ordering::Relaxed),
            accesses: self.gauges.access_losses.load(Ordering::Relaxed),
        };
        if losses == self.said {
            return;
        }
        let said = std::mem::replace(&mut self.said, losses);
        self.said_at = Instant::now();
        for (n_lost, what) in [
            (losses.records - said.records, "log lines were lost"),
            (losses.accesses - said.accesses, "lines of the access log were lost"),
        ] {
            if n_lost > 0 {
                self.write(&own(Severity::Warning, format!("{n_lost} {what}")));
            }
        }
    }

    /// Says something about syslog, on stderr.
    fn note(&mut self, text: String) -> Entry {
        let entry = own(Severity::Notice, text);
        if self.gauges.wants(Severity::Notice) {
            self.stderr.write(&entry);
        }
        entry
    }
}

/// What the journal itself has to say.
fn own(severity: Severity, text: String) -> Entry {
    let target = Cow::Borrowed("");
    Entry {
        at: OffsetDateTime::now_utc(),
        record: Record { severity, source: Source::Loader, target, text, fields: Vec::new() },
    }
}
