//! Signals. SIGTERM and SIGINT: the first one begins the end, the second one is the end. SIGHUP: take up what has changed, or, if it came because the terminal has gone, the end as well.

use std::{
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendFlags, send},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
    low_level,
};

use crate::{
    error::FAILED,
    journal::Journal,
    plugin::ContextCounts,
    process::control::{Change, Control, Drain, Stop},
};

/// What Stop and Retire may take beyond the deadline before the watchdog ends the process.
pub const GRACE: Duration = Duration::from_secs(2);

/// Sees that the process ends, and says what of the lambda's was left behind.
#[derive(Clone)]
pub struct Ender {
    /// All Contexts of the process.
    pub counts: Arc<ContextCounts>,
    /// Where it is said.
    pub journal: Journal,
    /// How long the end may take.
    pub drain: Drain,
}

impl Ender {
    /// Ends the process when the time to stop is over, whatever hangs.
    pub fn watch(&self, stop: Stop) {
        let last = stop.deadline(self.drain) + GRACE;
        let ender = self.clone();
        let watchdog = thread::Builder::new().name("effe-watchdog".to_owned()).spawn(move || {
            thread::sleep(last.saturating_duration_since(Instant::now()));
            ender.leave("the time to stop is over");
        });
        if watchdog.is_err() {
            self.journal
                .warning("no thread for a watchdog: only a second signal ends what does not end by itself");
        }
    }

    /// Ends the process without running anything more of the lambda or of the server.
    fn leave(&self, why: &str) -> ! {
        self.journal.critical(format!("{why}; {} Contexts were not stopped", self.counts.living()));
        self.journal.close(Duration::from_millis(200));
        low_level::exit(FAILED.into())
    }
}

/// The signals that are this process's business.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    terminal: Terminal,
    stopping: bool,
    ender: Ender,
    control: Control,
}

/// Wakes whoever waits for signals.
pub struct Bell(UnixStream);

impl Bell {
    /// Once is enough for one who has not woken yet.
    pub fn ring(&self) {
        // Full means that it has been rung before.
        let _ = send(&self.0, &[0], SendFlags::DONTWAIT);
    }
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The system refuses a handler or a descriptor.
    pub fn take_over(ender: Ender, control: Control) -> io::Result<(Signals, Bell)> {
        let terminal = Terminal::of_this_process();
        let (read, write) = UnixStream::pair()?;
        let bell = Bell(write.try_clone()?);
        let ours = [SIGTERM, SIGINT, SIGHUP];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, ours)?;
        Ok((Signals { delivery, terminal, stopping: false, ender, control }, bell))
    }

    /// Waits for a signal, for the bell, or until the time is over, and obeys.
    pub fn wait(&mut self, patience: Option<Duration>) {
        let timeout = patience.map(|patience| Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: patience.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        if poll(&mut fds, timeout.as_ref()) == Ok(0) {
            return;
        }
        for signal in self.delivery.pending() {
            self.obey(signal);
        }
    }

    /// Ends the effe, and sees that it ends.
    pub fn stop(&self, stop: Stop) {
        self.control.stop(stop);
        self.ender.watch(stop);
    }

    fn obey(&mut self, signal: i32) {
        let name = low_level::signal_name(signal).unwrap_or("a signal");
        if signal == SIGHUP && !self.terminal.has_gone() {
            // What came of it, the log says.
            drop(self.control.change(Change::Reload));
            return;
        }
        if signal == SIGHUP && self.stopping {
            return;
        }
        if self.stopping {
            self.ender.leave(&format!("{name} again: leaving at once"));
        }
        self.stopping = true;
        let stop = if signal == SIGTERM { Stop::wanted() } else { Stop::hurried() };
        self.stop(stop);
        let why = if signal == SIGHUP { " (the terminal has gone)" } else { "" };
        let timeout = self.ender.drain.timeout;
        self.ender.journal.notice(format!("{name}{why}: finishing what runs, for at most {timeout:?}"));
    }
}

/// Whether the process hangs on a terminal: when that goes away, the system says so by SIGHUP, and so may a shell.
enum Terminal {
    /// It does.
    Controls,
    /// It never did, or whoever started it (`nohup`) wants it to outlive its terminal.
    None,
}

impl Terminal {
    fn of_this_process() -> Terminal {
        if File::open("/dev/tty").is_ok() && !is_ignored(SIGHUP) {
            Terminal::Controls
        } else {
            Terminal::None
        }
    }

    fn has_gone(&self) -> bool {
        matches!(self, Terminal::Controls) && File::open("/dev/tty").is_err()
    }
}

/// Whether a signal is ignored by whoever started this process; to be asked before a handler is installed.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
