//! What an effe can be told while it serves: to stop, to take up what has changed, to go back to what was before.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, unbounded};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

/// How an effe ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long connections are still taken, while whoever sends them learns of it.
    pub delay: Duration,
    /// How long what runs may take after that.
    pub timeout: Duration,
}

/// An order to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// When it was given.
    given: Instant,
    /// Whether the process has failed, and its exit code says so.
    pub failed: bool,
    /// Whether there is nobody who must first learn of it: no connection is taken from now on.
    pub hurried: bool,
}

impl Stop {
    /// The operator wants it.
    pub fn wanted() -> Stop {
        Stop { given: Instant::now(), failed: false, hurried: false }
    }

    /// The operator waits for it.
    pub fn hurried() -> Stop {
        Stop { hurried: true, ..Stop::wanted() }
    }

    /// The effe can't go on.
    pub fn failed() -> Stop {
        Stop { failed: true, ..Stop::wanted() }
    }

    /// When what still runs is abandoned.
    pub fn deadline(&self, drain: Drain) -> Instant {
        self.given + self.delay(drain) + drain.timeout
    }

    /// How long connections are still taken.
    pub fn delay(&self, drain: Drain) -> Duration {
        if self.hurried { Duration::ZERO } else { drain.delay }
    }
}

/// An order to change the generation that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Take up a plugin or parameters that have changed.
    Reload,
    /// Return to the generation before.
    RollBack,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The generation that serves now.
    pub generation: u64,
    /// Whether it is another than before.
    pub swapped: bool,
}

/// An order to change, and who waits to hear what came of it.
pub struct ChangeOrder {
    /// What is to be done.
    pub change: Change,
    /// Where the outcome goes: what serves now, or in one line why nothing has changed.
    pub reply: oneshot::Sender<Result<Changed, String>>,
}

/// Where orders are given. Any thread may give them.
#[derive(Clone)]
pub struct Control {
    stopping: Arc<AtomicBool>,
    stops: UnboundedSender<Stop>,
    changes: Sender<ChangeOrder>,
    /// Told of each order to change, once somebody wants to be.
    changer: Arc<OnceLock<Changer>>,
}

type Changer = Box<dyn Fn() + Send + Sync>;

/// Where orders arrive.
pub struct Orders {
    /// For the server.
    pub stops: UnboundedReceiver<Stop>,
    /// For the one who changes generations.
    pub changes: Receiver<ChangeOrder>,
}

impl Control {
    /// Both ends.
    pub fn new() -> (Control, Orders) {
        let ((stops, stopped), (changes, changed)) = (unbounded_channel(), unbounded());
        (
            Control { stopping: Arc::default(), stops, changes, changer: Arc::default() },
            Orders { stops: stopped, changes: changed },
        )
    }

    /// Orders the end. When this returns, every answer says that its connection closes, and the effe is not ready.
    pub fn stop(&self, stop: Stop) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.stops.send(stop);
    }

    /// Whether the end was ordered, from now on.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Orders a change; the outcome comes out of the receiver, which nobody need wait for. An effe that is no longer
    /// there, or on its way out, hangs up.
    pub fn change(&self, change: Change) -> oneshot::Receiver<Result<Changed, String>> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.changes.send(ChangeOrder { change, reply });
        self.changer.get().into_iter().for_each(|changer| changer());
        outcome
    }

    /// Has `changer` called whenever a change is ordered, and now, for what was ordered before.
    pub fn on_change(&self, changer: impl Fn() + Send + Sync + 'static) {
        self.changer.get_or_init(|| Box::new(changer))();
    }
}
