//! Where a run goes: on the server's own thread, or to the pool.

pub mod cpu_time;
pub mod policy;

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
    policy::{Change, SHORT, Trust},
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

/// The decision for one lambda, and what it rests on.
pub struct Execution {
    inline: AtomicBool,
    /// Whether runs change the decision.
    measured: bool,
    /// What of the lambda's is measured.
    unit: &'static str,
    trust: Mutex<Trust>,
    /// Times that the decision changed.
    n_changes: AtomicU64,
    /// Whether the async run that ended last was not ready at once.
    waits: AtomicBool,
    /// A moving average of runs on the pool, in nanoseconds.
    average: AtomicU64,
    journal: Journal,
}

impl Execution {
    /// The decision at the start: the operator's word, then the author's (`flags`), else the pool. A lambda that
    /// streams is never run on the server's thread, which would have to fill the stream and empty it; an async one
    /// is polled there, and the decision is about its polls.
    pub fn new(mode: Mode, flags: u64, is_async: bool, journal: Journal) -> Execution {
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
        Execution {
            inline: AtomicBool::new(inline),
            measured,
            unit: if is_async { "poll" } else { "run" },
            trust: Mutex::new(Trust::new(inline)),
            n_changes: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            average: AtomicU64::new(u64::MAX),
            journal,
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

    /// An async run ended, which was ready at its first poll or wasn't.
    pub fn waited(&self, waited: bool) {
        // Written only where it changes: the threads share it.
        if self.waits.load(Ordering::Relaxed) != waited {
            self.waits.store(waited, Ordering::Relaxed);
        }
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
        self.ran(took, OWN_THREAD, request);
    }

    fn ran<'a>(&self, took: Duration, place: &str, request: impl FnOnce() -> (&'a str, &'a str)) {
        // Nearly all runs of a trusted lambda are short, and a short one changes nothing that can't wait: they are
        // not counted one by one, which would take a lock.
        if took > SHORT && self.measured {
            let request = || {
                let (method, path) = request();
                format!("{method} {path}")
            };
            self.settle(|trust| trust.ran(took), took, place, request);
        }
    }

    /// A run on the server's thread has overstayed and has not ended yet.
    pub fn overstays(&self, so_far: Duration, request: &str) {
        if self.measured {
            self.settle(Trust::overstayed, so_far, SERVERS_THREAD, || request.to_owned());
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
            took > SHORT && before.is_some_and(|before| Usage::now().since(before).excuses_run());
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
            self.settle(|trust| trust.ran(took), took, POOL, String::new);
        }
    }

    /// Short runs on the server's threads, counted together now and then.
    pub fn ran_well(&self, n: u64) {
        if self.measured && n > 0 {
            self.trust().ran_well(n);
        }
    }

    fn settle(
        &self,
        learn: impl FnOnce(&mut Trust) -> Option<Change>,
        took: Duration,
        place: &str,
        request: impl FnOnce() -> String,
    ) {
        let mut trust = self.trust();
        let Some(change) = learn(&mut trust) else { return };
        self.inline.store(change == Change::Gained, Ordering::Relaxed);
        let (proof, unit) = (trust.proof(), self.unit);
        drop(trust);
        let n_changes = self.n_changes.fetch_add(1, Ordering::Relaxed) + 1;
        let (to, text) = match change {
            Change::Gained => {
                ("inline", format!("{proof} short {unit}s in a row: running on the server's threads"))
            }
            Change::Lost => {
                ("pool", format!("{}: a {unit} took {took:.1?} on {place}: running on the pool", request()))
            }
        };
        let fields = [("execution", to.to_owned()), ("changes", n_changes.to_string())];
        self.journal.report(Severity::Info, text, fields);
    }

    fn trust(&self) -> std::sync::MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
