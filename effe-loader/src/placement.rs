//! Where a run goes: on the server's own thread, or to the pool.

pub mod cpu_time;
pub mod policy;
pub mod run_clock;
mod spawn_policy;
pub mod spawned_poll;
mod wait_history;

use std::{
    fmt,
    str::FromStr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use effe_abi::{
    extensions::{ANSWERS_EARLY, UPGRADES},
    raw::plugin_flags,
};

use self::{
    cpu_time::Usage,
    policy::{Change, InlinePolicy, OVERSTAY, SHORT},
    wait_history::WaitHistory,
};
use crate::{
    journal::{Journal, Severity},
    rt::clock::Moment,
};

/// What `--execution` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As measured.
    Auto,
    /// Always on the server's thread, as far as that is possible.
    Inline,
    Pool,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        let mode = [Mode::Auto, Mode::Inline, Mode::Pool].into_iter().find(|mode| mode.to_string() == text);
        mode.ok_or_else(|| "write auto, inline or pool".to_owned())
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

/// A poll past this has blocked its thread, rather than been kept from it by the system: the next ones are made where
/// other tasks don't wait for that thread, which makes each of them dear.
const BLOCKED: Duration = Duration::from_millis(20);

/// Where a run was that took too long, for the log.
const SERVERS_THREAD: &str = "a server's thread";
const OWN_THREAD: &str = "a thread of its own runtime";
const POOL: &str = "the pool";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the server's own thread: an async run is polled there.
    Inline,
    Pool,
    /// As a task of the async lambda's own runtime.
    Runtime,
}

impl Place {
    pub const ALL: [Place; 3] = [Place::Inline, Place::Pool, Place::Runtime];

    pub fn name(self) -> &'static str {
        match self {
            Place::Inline => "inline",
            Place::Pool => "pool",
            Place::Runtime => "runtime",
        }
    }
}

/// The decision for one lambda, and what has been measured for it.
pub struct Placement {
    inline: AtomicBool,
    /// Where runs go that don't go inline.
    elsewhere: Place,
    /// Whether runs change the decision.
    measured: bool,
    /// What is measured, for the log.
    unit: &'static str,
    policy: Mutex<InlinePolicy>,
    /// Times that the decision changed.
    n_changes: AtomicU64,
    /// Whether the async run that ended last was not ready at once.
    waits: AtomicBool,
    wait_history: WaitHistory,
    /// Whether a poll has blocked, and the lambda is not trusted again since.
    blocks: AtomicBool,
    /// A moving average of runs on the pool, in nanoseconds.
    average: AtomicU64,
    journal: Journal,
}

impl Placement {
    /// The decision at the start: the operator's `mode`, then the author's `flags`, else the pool. A lambda that
    /// streams is never run on the server's thread, which would have to fill the stream and empty it, nor is one that
    /// answers early or upgrades; an async one is polled there, and the decision is about its polls. `can_spawn`: an
    /// async run can be spawned in the lambda's own runtime.
    pub fn new(mode: Mode, flags: u64, is_async: bool, can_spawn: bool, journal: Journal) -> Placement {
        let declared = |flag| flags & flag != 0;
        let needs_thread = declared(plugin_flags::STREAM_REQUEST)
            || declared(plugin_flags::STREAM_RESPONSE)
            || declared(ANSWERS_EARLY)
            || declared(UPGRADES);
        let (inline, measured) = match mode {
            // It gives the thread back where it waits, unless it is seen not to.
            _ if is_async => (mode != Mode::Pool, mode == Mode::Auto),
            _ if needs_thread => (false, false),
            Mode::Inline => (true, false),
            Mode::Pool => (false, false),
            Mode::Auto if declared(plugin_flags::WAITS) => (false, false),
            Mode::Auto => (declared(plugin_flags::NEVER_WAITS), true),
        };
        Placement {
            inline: AtomicBool::new(inline),
            elsewhere: if can_spawn && mode != Mode::Pool { Place::Runtime } else { Place::Pool },
            measured,
            unit: if is_async { "poll" } else { "run" },
            policy: Mutex::new(if is_async {
                InlinePolicy::of_polls(inline)
            } else {
                InlinePolicy::new(inline)
            }),
            n_changes: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            wait_history: WaitHistory::default(),
            blocks: AtomicBool::new(false),
            average: AtomicU64::new(u64::MAX),
            journal,
        }
    }

    /// Where a run goes that begins now.
    pub fn current(&self) -> Place {
        if self.is_inline() { Place::Inline } else { self.elsewhere }
    }

    /// Whether an async run had better go on as a task of the lambda's own runtime: because of how often such runs
    /// wait, or because the lambda was seen to block.
    pub fn wants_spawn(&self) -> bool {
        match self.current() {
            Place::Inline => self.wait_history.spawns(),
            Place::Pool => false,
            Place::Runtime => true,
        }
    }

    pub fn is_inline(&self) -> bool {
        self.inline.load(Ordering::Relaxed)
    }

    /// Whether an async run that begins now is likely not to be ready at its first poll.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// An async run ended that waited so often.
    pub fn waited(&self, n_waits: u32) {
        // Written only where it changes, because the threads share it.
        if self.waits.load(Ordering::Relaxed) != (n_waits > 0) {
            self.waits.store(n_waits > 0, Ordering::Relaxed);
        }
        self.wait_history.ended(n_waits);
    }

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

    /// Whether polls of the lambda may block their thread. Many that take neither short nor too long don't.
    pub fn blocks(&self) -> bool {
        self.blocks.load(Ordering::Relaxed)
    }

    /// What this thread has used, for [`since`](Usage::since) after a run, where runs are to win the trust. To ask
    /// takes two calls to the system.
    pub fn usage(&self) -> Option<Usage> {
        (self.measured && !self.is_inline()).then(Usage::now)
    }

    /// A poll on a thread of the lambda's own ended; whether it was looked at closely.
    pub fn ran_spawned<'a>(
        &self,
        took: Duration,
        is_looked_at: bool,
        request: impl FnOnce() -> (&'a str, &'a str),
    ) {
        if self.measured && !self.is_inline() {
            if is_looked_at || took > OVERSTAY {
                self.settle(|policy| policy.ran(took), took, OWN_THREAD, String::new);
            }
        } else {
            self.ran(took, OWN_THREAD, request);
        }
    }

    fn ran<'a>(&self, took: Duration, place: &str, request: impl FnOnce() -> (&'a str, &'a str)) {
        // Nearly all runs of a trusted lambda are short. To count each at once would take a lock; `ran_well` counts
        // them later.
        if took > SHORT && self.measured {
            let request = || {
                let (method, path) = request();
                format!("{method} {path}")
            };
            self.settle(|policy| policy.ran(took), took, place, request);
        }
    }

    /// A run on the server's thread takes longer than `OVERSTAY` and has not ended yet.
    pub fn overstays(&self, so_far: Duration, request: &str) {
        if self.measured {
            let learn = |policy: &mut InlinePolicy| {
                if policy.may_forgive(so_far) { None } else { policy.overstayed() }
            };
            self.settle(learn, so_far, SERVERS_THREAD, || request.to_owned());
        }
    }

    /// Runs something on a thread of the pool, and measures it. A run that was preempted doesn't count: on a busy
    /// machine no lambda would ever be seen to be short.
    pub fn learn<T>(&self, run: impl FnOnce() -> T) -> (T, Duration) {
        // It takes two system calls, so only where it matters.
        let before = self.usage();
        let begun = Moment::now();
        let value = run();
        let took = begun.elapsed();
        if took > SHORT && before.is_some_and(|before| Usage::now().since(before).shows_preemption(OVERSTAY))
        {
            return (value, took);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        // Two threads may each overwrite the other's run, which an average survives.
        let average = match self.average.load(Ordering::Relaxed) {
            u64::MAX => nanos,
            average => average - average / 8 + nanos / 8,
        };
        self.average.store(average, Ordering::Relaxed);
        if self.measured {
            self.settle(|policy| policy.ran(took), took, POOL, String::new);
        }
        (value, took)
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
        let change = learn(&mut policy);
        if let Some(change) = change {
            self.inline.store(change == Change::Gained, Ordering::Relaxed);
            self.blocks.store(false, Ordering::Relaxed);
        }
        // The run may have cost the trust earlier, while it was under way.
        if took > BLOCKED && !self.is_inline() {
            self.blocks.store(true, Ordering::Relaxed);
        }
        let Some(change) = change else { return };
        let (needed, unit) = (policy.needed, self.unit);
        drop(policy);
        let n_changes = self.n_changes.fetch_add(1, Ordering::Relaxed) + 1;
        let (to, text) = match change {
            Change::Gained => {
                ("inline", format!("{needed} short {unit}s in a row: running on the server's threads"))
            }
            Change::Lost => {
                let to = if self.elsewhere == Place::Runtime { "in its own runtime" } else { "on the pool" };
                let text = format!("{}: a {unit} took {took:.1?} on {place}: running {to}", request());
                (self.elsewhere.name(), text)
            }
        };
        let fields = [("execution", to.to_owned()), ("changes", n_changes.to_string())];
        self.journal.report(Severity::Info, text, fields);
    }

    fn policy(&self) -> MutexGuard<'_, InlinePolicy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
