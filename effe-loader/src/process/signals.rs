//! The process's signals, and the watchdog that ends a process which doesn't stop in time.
//!
//! The first SIGTERM or SIGINT stops the effe; a second one ends the process at once. SIGHUP orders a reload,
//! unless it comes because the terminal has gone: then it stops the effe. SIGUSR2 orders an upgrade. What the orders
//! do is up to those who receive them from `control.rs`; the thread that waits here is the monitor's.

use std::{
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendFlags, send},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2, SIGXFSZ},
    flag,
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

/// Ends the process if it doesn't end by itself, and logs how many Contexts were not stopped.
#[derive(Clone)]
pub struct Watchdog {
    /// Of all generations.
    pub counts: Arc<ContextCounts>,
    pub journal: Journal,
    pub drain: Drain,
}

impl Watchdog {
    /// Starts a thread that ends the process when the time to stop is over, whatever hangs.
    pub fn arm(&self, stop: Stop) {
        let last = stop.deadline(self.drain) + GRACE;
        let watchdog = self.clone();
        let started = thread::Builder::new().name("effe-watchdog".to_owned()).spawn(move || {
            thread::sleep(last.saturating_duration_since(Instant::now()));
            watchdog.exit("the time to stop is over");
        });
        if started.is_err() {
            self.journal
                .warning("no thread for a watchdog: only a second signal ends what does not end by itself");
        }
    }

    /// Ends the process at once: nothing more of the lambda or the server runs.
    pub fn exit(&self, why: &str) -> ! {
        self.journal.critical(format!("{why}; {} Contexts were not stopped", self.counts.living()));
        self.journal.close(Duration::from_millis(200));
        low_level::exit(FAILED.into())
    }
}

/// The signals that this process handles: SIGTERM, SIGINT, SIGHUP and SIGUSR2.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Whether a SIGHUP may say that the terminal has gone. Not if the process has none, nor if it was started
    /// with SIGHUP ignored (`nohup`), to outlive its terminal.
    follows_terminal: bool,
    stopping: bool,
    obeyed: Obeyed,
    watchdog: Watchdog,
    control: Control,
}

/// Whether the signals are orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obeyed {
    Yes,
    /// A supervisor gets them and gives orders of its own. A signal to the whole group, such as Ctrl-C, also comes
    /// here. It is not ignored in the system's sense: the programs that a lambda starts would ignore it, too.
    No,
}

/// Wakes the thread in [`Signals::wait`].
pub struct Interrupt(UnixStream);

impl Interrupt {
    pub fn send(&self) {
        // A full socket means that the thread was woken already, and has not run yet.
        let _ = send(&self.0, &[0], SendFlags::DONTWAIT);
    }
}

impl Signals {
    /// Installs the handlers, or fails if the system refuses one, or a descriptor. Whoever started this process may
    /// have ignored or blocked the signals; the threads that this thread makes from now on don't block them.
    pub fn take_over(
        watchdog: Watchdog,
        control: Control,
        obeyed: Obeyed,
    ) -> io::Result<(Signals, Interrupt)> {
        let follows_terminal = has_terminal() && !is_ignored(SIGHUP);
        let (read, write) = UnixStream::pair()?;
        let interrupt = Interrupt(write.try_clone()?);
        let ours = [SIGTERM, SIGINT, SIGHUP, SIGUSR2];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, ours)?;
        unblock(&ours);
        Ok((Signals { delivery, follows_terminal, stopping: false, obeyed, watchdog, control }, interrupt))
    }

    /// Waits for a signal, for an interrupt, or until `timeout` is over, and does what the signals demand.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        if poll(&mut fds, timeout.as_ref()) == Ok(0) {
            return;
        }
        for signal in self.delivery.pending() {
            if self.obeyed == Obeyed::Yes {
                self.apply(signal);
            }
        }
    }

    /// Stops the effe, and arms the watchdog.
    pub fn stop(&self, stop: Stop) {
        self.control.stop(stop);
        self.watchdog.arm(stop);
    }

    fn apply(&mut self, signal: i32) {
        let name = low_level::signal_name(signal).unwrap_or("a signal");
        if signal == SIGUSR2 {
            drop(self.control.change(Change::Upgrade));
            return;
        }
        if signal == SIGHUP && (!self.follows_terminal || has_terminal()) {
            // The outcome is logged where the change is made.
            drop(self.control.change(Change::Reload));
            return;
        }
        if self.stopping && signal == SIGHUP {
            return;
        }
        if self.stopping {
            self.watchdog.exit(&format!("{name} again: leaving at once"));
        }
        self.stopping = true;
        let stop = if signal == SIGTERM { Stop::wanted() } else { Stop::hurried() };
        self.stop(stop);
        let why = if signal == SIGHUP { " (the terminal has gone)" } else { "" };
        let timeout = self.watchdog.drain.timeout;
        self.watchdog.journal.notice(format!("{name}{why}: finishing what runs, for at most {timeout:?}"));
    }
}

/// A write past the limit of a file's size is an error from now on, and no longer the end of the process.
pub fn outlive_file_limit() {
    // The handler has nothing to do. One that can't be installed leaves things as they are.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Has this thread, and those that it makes, get the signals even if whoever started this process had blocked them.
pub fn unblock(signals: &[i32]) {
    set_mask(libc::SIG_UNBLOCK, signals);
}

/// Keeps the signals from this thread, and from those that it makes. They wait, also for a program that the process
/// executes meanwhile.
pub fn block(signals: &[i32]) {
    set_mask(libc::SIG_BLOCK, signals);
}

#[expect(unsafe_code, reason = "the mask of signals")]
fn set_mask(how: i32, signals: &[i32]) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it writes a whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set is initialised; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut()) };
}

/// Whether the process has a controlling terminal. When the terminal goes away, the system sends SIGHUP, and
/// so may a shell.
pub fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether this process was started with the signal ignored. Call it before a handler is installed.
pub fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
