//! The orders that an effe gets while it serves: to stop, to reload, to roll back, to upgrade the loader. They come
//! from signals and from the admin listener; the server carries out a stop, `effe/swap.rs` a change.

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
    /// How long connections are still accepted, until load balancers have noticed.
    pub delay: Duration,
    /// How long runs may take after that.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Stop {
    given: Instant,
    /// Whether the effe has failed, so that the exit code is a failure's.
    pub failed: bool,
    /// Whether the delay is left out: no connection is accepted from now on.
    pub hurried: bool,
    /// Whether connections at rest are left to other processes of the effe.
    pub hands_over: bool,
}

impl Stop {
    /// The operator's order, with the delay.
    pub fn wanted() -> Stop {
        Stop { given: Instant::now(), failed: false, hurried: false, hands_over: false }
    }

    /// The order of an operator who waits for the end.
    pub fn hurried() -> Stop {
        Stop { hurried: true, ..Stop::wanted() }
    }

    /// Of an effe that can't go on.
    pub fn failed() -> Stop {
        Stop { failed: true, ..Stop::wanted() }
    }

    /// An order whose runs may take `left` from now on, whatever the drain's own time is.
    pub fn within(left: Duration, drain: Drain) -> Stop {
        let now = Instant::now();
        Stop { given: now.checked_sub(drain.timeout.saturating_sub(left)).unwrap_or(now), ..Stop::hurried() }
    }

    /// When the runs that have not ended are abandoned.
    pub fn deadline(&self, drain: Drain) -> Instant {
        self.given + self.delay(drain) + drain.timeout
    }

    pub fn delay(&self, drain: Drain) -> Duration {
        if self.hurried { Duration::ZERO } else { drain.delay }
    }
}

/// An order to change what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Open the plugin and the parameters again, if they have changed.
    Reload,
    /// Return to the generation before.
    RollBack,
    /// Go on as the loader's program that is in its file now.
    Upgrade,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The one that serves now.
    pub generation: u64,
    /// Whether another one served before.
    pub swapped: bool,
}

/// An order to change, and where its outcome goes.
pub struct ChangeOrder {
    pub change: Change,
    /// Gets what serves now, or in one line why nothing has changed.
    pub reply: oneshot::Sender<Result<Changed, String>>,
}

/// Gives orders, from any thread.
#[derive(Clone)]
pub struct Control {
    stopping: Arc<AtomicBool>,
    stops: UnboundedSender<Stop>,
    changes: Sender<ChangeOrder>,
    /// Called after each order to change; set by [`Control::on_change`].
    changer: Arc<OnceLock<Changer>>,
}

type Changer = Box<dyn Fn() + Send + Sync>;

pub struct Orders {
    /// For the server.
    pub stops: UnboundedReceiver<Stop>,
    /// For the thread that changes generations.
    pub changes: Receiver<ChangeOrder>,
}

impl Control {
    pub fn new() -> (Control, Orders) {
        let ((stops, stopped), (changes, changed)) = (unbounded_channel(), unbounded());
        (
            Control { stopping: Arc::default(), stops, changes, changer: Arc::default() },
            Orders { stops: stopped, changes: changed },
        )
    }

    /// Orders a stop. When this returns, every response says that its connection closes, and the effe is not
    /// ready.
    pub fn stop(&self, stop: Stop) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.stops.send(stop);
    }

    /// Orders a stop of this process, of which clients learn nothing.
    pub fn hand_over(&self, stop: Stop) {
        let _ = self.stops.send(Stop { hands_over: true, ..stop });
    }

    /// Says that a stop will be ordered: from now on every response says that its connection closes, and the effe is
    /// not ready.
    pub fn announce_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// True once a stop was ordered.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Orders a change. The receiver gets the outcome; it may be dropped. An effe that has ended or is
    /// stopping closes the channel without an outcome.
    pub fn change(&self, change: Change) -> oneshot::Receiver<Result<Changed, String>> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.changes.send(ChangeOrder { change, reply });
        self.changer.get().into_iter().for_each(|changer| changer());
        outcome
    }

    /// Calls `changer` now, for orders that came before, and after each order to change.
    pub fn on_change(&self, changer: impl Fn() + Send + Sync + 'static) {
        self.changer.get_or_init(|| Box::new(changer))();
    }
}
