//! Where a run goes: on the server's own thread, or to the pool.

pub mod cpu_time;
pub mod policy;
pub mod run_clock;
mod wait_history;

use std::{
    fmt,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use effe_abi::raw::plugin_flags;

use self::{
    cpu_time::Usage,
    policy::{Change, InlinePolicy, SHORT},
    wait_history::WaitHistory,
};
use crate::{
    journal::{Journal, Severity},
    rt::clock::Moment,
};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As measured.
    Auto,
    /// Always on the server's thread, as far as that is possible.
    Inline,
    /// Always on the pool.
    Pool,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text {
            "auto" => Ok(Mode::Auto),
            "inline" => Ok(Mode::Inline),
            "pool" => Ok(Mode::Pool),
            _ => Err("write auto, inline or pool".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Inline => "inline",
            Mode::Pool => "pool",
        })
    }
}

/// Where a run was that has cost its lambda the trust, for the log.
const SERVERS_THREAD: &str = "a server's thread";
const OWN_THREAD: &str = "a thread of its own runtime";
const POOL: &str = "the pool";

/// Where a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the server's own thread: an async run is polled there.
    Inline,
    /// On a thread of the pool.
    Pool,
    /// As a task of the async lambda's own runtime.
    Runtime,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 3] = [Place::Inline, Place::Pool, Place::Runtime];

    /// Its name, as operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Inline => "inline",
            Place::Pool => "pool",
            Place::Runtime => "runtime",
        }
    }
}

/// What a lambda lets a loader decide about its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run is one call, which returns at its end.
    Sync,
    /// A run is polled.
    Async {
        /// Whether the loader can have each run spawned in the lambda's own runtime.
        spawns_on_request: bool,
    },
}

/// The decision for one lambda, and what it rests on.
pub struct Placement {
    inline: AtomicBool,
    /// Where runs go that don't go inline.
    elsewhere: Place,
    /// Whether runs change the decision.
    measured: bool,
    /// What of the lambda's is measured.
    unit: &'static str,
    policy: Mutex<InlinePolicy>,
    /// Times that the decision changed.
    n_changes: AtomicU64,
    /// Whether the async run that ended last was not ready at once.
    waits: AtomicBool,
    wait_history: WaitHistory,
    /// A moving average of runs on the pool, in nanoseconds.
    average: AtomicU64,
    journal: Journal,
}

impl Placement {
    /// The decision at the start: the operator's word, then the author's (`flags`), else the pool. A lambda that
    /// streams is never run on the server's thread, which would have to fill the stream and empty it; an async one
    /// is polled there, and the decision is about its polls.
    pub fn new(mode: Mode, flags: u64, kind: Kind, journal: Journal) -> Placement {
        let is_async = kind != Kind::Sync;
        let declared = |flag| flags & flag != 0;
        let streams = declared(plugin_flags::STREAM_REQUEST) || declared(plugin_flags::STREAM_RESPONSE);
        let (inline, measured) = match mode {
            // It gives the thread back where it waits, unless it is seen not to.
            _ if is_async => (mode != Mode::Pool, mode == Mode::Auto),
            _ if streams => (false, false),
            Mode::Inline => (true, false),
            Mode::Pool => (false, false),
            Mode::Auto if declared(plugin_flags::WAITS) => (false, false),
            Mode::Auto => (declared(plugin_flags::NEVER_WAITS), true),
        };
        let elsewhere = match (mode, kind) {
            (Mode::Auto | Mode::Inline, Kind::Async { spawns_on_request: true }) => Place::Runtime,
            _ => Place::Pool,
        };
        Placement {
            inline: AtomicBool::new(inline),
            elsewhere,
            measured,
            unit: if is_async { "poll" } else { "run" },
            policy: Mutex::new(InlinePolicy::new(inline)),
            n_changes: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            wait_history: WaitHistory::default(),
            average: AtomicU64::new(u64::MAX),
            journal,
        }
    }

    /// Where a run goes that begins now.
    pub fn current(&self) -> Place {
        if self.is_inline() { Place::Inline } else { self.elsewhere }
    }

    /// Whether an async run had better go on as a task of the lambda's own runtime: it waits again and again, or the
    /// lambda was seen to block.
    pub fn wants_spawn(&self) -> bool {
        match self.current() {
            Place::Inline => self.wait_history.waits_often(),
            Place::Pool => false,
            Place::Runtime => true,
        }
    }

    /// Whether a run that begins now goes on the server's thread.
    pub fn is_inline(&self) -> bool {
        self.inline.load(Ordering::Relaxed)
    }

    /// Whether an async run that begins now is likely not to be ready at its first poll.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// An async run ended, which waited so often.
    pub fn waited(&self, n_waits: u32) {
        // Written only where it changes: the threads share it.
        if self.waits.load(Ordering::Relaxed) != (n_waits > 0) {
            self.waits.store(n_waits > 0, Ordering::Relaxed);
        }
        self.wait_history.ended(n_waits);
    }

    /// Times that the decision changed.
    pub fn n_changes(&self) -> u64 {
        self.n_changes.load(Ordering::Relaxed)
    }

    /// Whether runs on the pool are so short that waking a second thread costs more than waiting for the first.
    pub fn is_short(&self) -> bool {
        self.average.load(Ordering::Relaxed) <= (SHORT / 2).as_nanos() as u64
    }

    /// How long a run on the pool takes, on average; `None` before the first.
    pub fn average(&self) -> Option<Duration> {
        let nanos = self.average.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    /// A run on the server's thread ended; `request` tells its method and path.
    pub fn ran_inline<'a>(&self, took: Duration, request: impl FnOnce() -> (&'a str, &'a str)) {
        self.ran(took, SERVERS_THREAD, request);
    }

    /// A poll on a thread of the lambda's own ended.
    pub fn ran_spawned<'a>(&self, took: Duration, request: impl FnOnce() -> (&'a str, &'a str)) {
        if self.measured && !self.is_inline() {
            // While the lambda is not trusted, each short poll counts as a proof.
            self.settle(|policy| policy.ran(took), took, OWN_THREAD, String::new);
        } else {
            self.ran(took, OWN_THREAD, request);
        }
    }

    fn ran<'a>(&self, took: Duration, place: &str, request: impl FnOnce() -> (&'a str, &'a str)) {
        // Nearly all runs of a trusted lambda are short, and a short one changes nothing that can't wait: they are
        // not counted one by one, which would take a lock.
        if took > SHORT && self.measured {
            let request = || {
                let (method, path) = request();
                format!("{method} {path}")
            };
            self.settle(|policy| policy.ran(took), took, place, request);
        }
    }

    /// A run on the server's thread has overstayed and has not ended yet.
    pub fn overstays(&self, so_far: Duration, request: &str) {
        if self.measured {
            self.settle(InlinePolicy::overstayed, so_far, SERVERS_THREAD, || request.to_owned());
        }
    }

    /// Runs something on a thread of the pool, and learns from it; how long it took. That the system gave the CPU to
    /// somebody else meanwhile teaches nothing: on a busy machine no lambda would ever be seen to be short.
    pub fn learn<T>(&self, run: impl FnOnce() -> T) -> (T, Duration) {
        // It takes two calls to the system, so only where it matters.
        let before = (self.measured && !self.is_inline()).then(Usage::now);
        let begun = Moment::now();
        let value = run();
        let took = begun.elapsed();
        let is_excused =
            took > SHORT && before.is_some_and(|before| Usage::now().since(before).shows_preemption());
        if !is_excused {
            self.ran_on_pool(took);
        }
        (value, took)
    }

    /// A run on the pool ended.
    fn ran_on_pool(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        // Two threads may both miss the other's run, which an average survives.
        let average = match self.average.load(Ordering::Relaxed) {
            u64::MAX => nanos,
            average => average - average / 8 + nanos / 8,
        };
        self.average.store(average, Ordering::Relaxed);
        if self.measured {
            self.settle(|policy| policy.ran(took), took, POOL, String::new);
        }
    }

    /// Short runs on the server's threads, counted together now and then.
    pub fn ran_well(&self, n: u64) {
        if self.measured && n > 0 {
            self.policy().ran_well(n);
        }
    }

    fn settle(
        &self,
        learn: impl FnOnce(&mut InlinePolicy) -> Option<Change>,
        took: Duration,
        place: &str,
        request: impl FnOnce() -> String,
    ) {
        let mut policy = self.policy();
        let Some(change) = learn(&mut policy) else { return };
        self.inline.store(change == Change::Gained, Ordering::Relaxed);
        let (proof, unit) = (policy.proof(), self.unit);
        drop(policy);
        let n_changes = self.n_changes.fetch_add(1, Ordering::Relaxed) + 1;
        let (to, text) = match change {
            Change::Gained => {
                ("inline", format!("{proof} short {unit}s in a row: running on the server's threads"))
            }
            Change::Lost => {
                let elsewhere = match self.elsewhere {
                    Place::Runtime => "running in its own runtime",
                    _ => "running on the pool",
                };
                (
                    self.elsewhere.name(),
                    format!("{}: a {unit} took {took:.1?} on {place}: {elsewhere}", request()),
                )
            }
        };
        let fields = [("execution", to.to_owned()), ("changes", n_changes.to_string())];
        self.journal.report(Severity::Info, text, fields);
    }

    fn policy(&self) -> std::sync::MutexGuard<'_, InlinePolicy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
