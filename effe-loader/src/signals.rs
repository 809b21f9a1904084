//! Signals, on a thread of their own: the first one begins the end, the second one is the end.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{journal::Journal, plugin::Plugin};

/// What Stop and Retire may take beyond the deadline before the watchdog ends the process.
const GRACE: Duration = Duration::from_secs(2);

/// An order to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// When it was given.
    given: Instant,
    /// Whether the process has failed, and its exit code says so.
    pub failed: bool,
}

impl Stop {
    /// The operator wants it.
    pub fn wanted() -> Stop {
        Stop { given: Instant::now(), failed: false }
    }

    /// The effe can't go on.
    pub fn failed() -> Stop {
        Stop { given: Instant::now(), failed: true }
    }

    /// When what still runs is abandoned.
    pub fn deadline(&self, drain_timeout: Duration) -> Instant {
        self.given + drain_timeout
    }
}

/// Takes SIGTERM and SIGINT over. Orders to stop may come from elsewhere, too, through the sender.
///
/// # Errors
/// The system refuses a handler or a thread.
pub fn watch(
    plugin: &'static Plugin,
    journal: Journal,
    drain_timeout: Duration,
) -> io::Result<(UnboundedSender<Stop>, UnboundedReceiver<Stop>)> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let (sender, receiver) = unbounded_channel();
    let thread = thread::Builder::new().name("effe-signals".to_owned());
    let orders = sender.clone();
    thread.spawn(move || wait(signals, plugin, &journal, drain_timeout, &orders))?;
    Ok((sender, receiver))
}

/// Sees that the process ends, whatever hangs.
///
/// # Errors
/// The system has no room for a thread.
pub fn watchdog(plugin: &'static Plugin, journal: Journal, deadline: Instant) -> io::Result<()> {
    let last = deadline + GRACE;
    let watchdog = thread::Builder::new().name("effe-watchdog".to_owned()).spawn(move || {
        thread::sleep(last.saturating_duration_since(Instant::now()));
        leave(plugin, &journal, "the time to stop is over");
    });
    watchdog.map(drop)
}

fn wait(
    mut signals: Signals,
    plugin: &'static Plugin,
    journal: &Journal,
    drain_timeout: Duration,
    sender: &UnboundedSender<Stop>,
) {
    let mut stopping = false;
    for signal in signals.forever() {
        let name = low_level::signal_name(signal).unwrap_or("a signal");
        if stopping {
            leave(plugin, journal, &format!("{name} again: leaving at once"));
        }
        stopping = true;
        journal.notice(format!("{name}: finishing what runs, for at most {drain_timeout:?}"));
        let order = Stop::wanted();
        let _ = sender.send(order);
        if watchdog(plugin, journal.clone(), order.deadline(drain_timeout)).is_err() {
            journal
                .warning("no thread for a watchdog: only a second signal ends what does not end by itself");
        }
    }
}

/// Ends the process without running anything more of the lambda or of the server.
fn leave(plugin: &'static Plugin, journal: &Journal, why: &str) -> ! {
    journal.critical(format!("{why}; {} Contexts were not stopped", plugin.contexts()));
    journal.close(Duration::from_millis(200));
    low_level::exit(1)
}
