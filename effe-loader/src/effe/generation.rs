//! Generations: the lambda that serves, the one before it, and those on their way out.
//!
//! A request holds the generation it began with until its Context is back; so a generation that nobody holds any
//! more, and that has no Context left, is through.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use crossbeam::utils::CachePadded;

use crate::{
    effe::contexts::Contexts,
    journal::Journal,
    placement::{Kind, Mode, Place, Placement},
    plugin::{Context, Fault, Plugin, Policy, Started, parameters::Sources},
    rt::clock::Moment,
    scheduler::meter::Meter,
};

/// How generations are opened.
#[derive(Clone, Debug)]
pub struct GenerationConfig {
    /// What may be loaded.
    pub policy: Policy,
    /// Where the operator's parameters come from; read again for each generation.
    pub sources: Sources,
    /// Where runs go.
    pub mode: Mode,
    /// Idle Contexts.
    pub max_idle: usize,
}

/// A lambda that is open, its idle Contexts, and where its runs go.
pub struct Generation {
    /// 1 for the one that the loader was started with.
    pub number: u64,
    /// The lambda.
    pub plugin: &'static Plugin,
    /// Its idle Contexts.
    pub contexts: Contexts<Context>,
    /// Where its runs go.
    pub placement: Arc<Placement>,
    /// When it was opened.
    pub opened: Moment,
    /// What became of its runs.
    pub tally: Tally,
    warm: AtomicBool,
}

/// How many runs a generation has had; nothing is counted where nobody can ask.
#[derive(Default)]
pub struct Tally {
    /// Each thread has one of these for itself, as far as they go.
    runs: [CachePadded<AtomicU64>; 16],
    errors: AtomicU64,
}

impl Tally {
    /// A run ended.
    pub fn ran(&self, failed: bool) {
        thread_local! {
            static PLACE: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed)
            };
        }
        let place = PLACE.with(|place| place % self.runs.len());
        self.runs[place].fetch_add(1, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs so far.
    pub fn runs(&self) -> u64 {
        self.runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum()
    }

    /// Those of them that met an error or a panic.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

impl Generation {
    /// A lambda whose Init has run.
    pub fn new(
        number: u64,
        plugin: &'static Plugin,
        config: &GenerationConfig,
        journal: &Journal,
    ) -> Generation {
        let kind = if plugin.is_async() {
            Kind::Async { spawns_on_request: plugin.spawns_on_request() }
        } else {
            Kind::Sync
        };
        let placement = Placement::new(config.mode, plugin.flags(), kind, journal.clone());
        let (contexts, warm) = (Contexts::new(config.max_idle), AtomicBool::new(false));
        Generation {
            number,
            plugin,
            contexts,
            placement: Arc::new(placement),
            opened: Moment::now(),
            tally: Tally::default(),
            warm,
        }
    }

    /// Starts a Context and keeps it for the first request.
    ///
    /// # Errors
    /// Start failed; its Context, if it made one, has been stopped.
    pub fn warm(&self) -> Result<(), Fault> {
        let context = match self.plugin.start() {
            Started::Ready(context) => context,
            Started::Failed(_, fault) | Started::Panicked(fault) => return Err(fault),
        };
        drop(self.contexts.give(Box::new(context)));
        self.warm.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a run that begins now is polled on the server's thread, rather than called there or on the pool.
    pub fn is_polled_here(&self) -> bool {
        self.plugin.is_async() && self.placement.current() != Place::Pool
    }

    /// Counts a run that has ended.
    pub fn count(&self, meter: &Meter, took: Duration, failed: bool) {
        meter.ran(took);
        self.tally.ran(failed);
        if failed {
            meter.failed();
        }
    }

    /// Whether a first Start has succeeded.
    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed)
    }

    /// Stops what is idle; whether a Context is left that a request has.
    fn stop_idle(&self) -> bool {
        self.plugin.stop_all(self.contexts.drain());
        self.plugin.contexts.living() > 0
    }
}

/// The generations of an effe.
pub struct Generations {
    current: ArcSwap<Generation>,
    others: Mutex<Others>,
}

#[derive(Default)]
struct Others {
    /// The one that a roll-back returns to: not retired, without a Context.
    previous: Option<Arc<Generation>>,
    /// Those that retire once they are through.
    leaving: Vec<Arc<Generation>>,
}

impl Generations {
    /// The first one serves.
    pub fn new(first: Generation) -> Generations {
        Generations { current: ArcSwap::from_pointee(first), others: Mutex::default() }
    }

    /// The one that serves, for a moment: no longer than one run on the calling thread.
    pub fn current(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    /// The one that serves, to be held as long as a request lasts.
    pub fn hold(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The one before it, to which a roll-back returns.
    pub fn previous(&self) -> Option<Arc<Generation>> {
        self.others().previous.clone()
    }

    /// All that are not retired: the one that serves, the one before it, those on their way out.
    pub fn all(&self) -> Vec<Arc<Generation>> {
        let others = self.others();
        let rest = others.previous.iter().chain(&others.leaving).cloned();
        std::iter::once(self.hold()).chain(rest).collect()
    }

    /// The next one serves from now on, the one that served is kept for a roll-back, the one before it leaves.
    pub fn publish(&self, next: Generation) {
        let mut others = self.others();
        let served = self.current.swap(Arc::new(next));
        let leaves = others.previous.replace(served);
        others.leaving.extend(leaves);
    }

    /// The one before serves again, and the one that served is kept in its place; false if there is none.
    pub fn roll_back(&self) -> bool {
        let mut others = self.others();
        let Some(previous) = others.previous.take() else { return false };
        others.previous = Some(self.current.swap(previous));
        true
    }

    /// Stops the Contexts that have come back to generations that no longer serve, and retires those that are
    /// through. Whether there are requests left that may bring more; then this is to be called again.
    pub fn reap(&self) -> bool {
        let (previous, leaving) = {
            let mut others = self.others();
            (others.previous.clone(), std::mem::take(&mut others.leaving))
        };
        // A Stop may take its time: not under the lock, which a scrape of the metrics waits for.
        let left = previous.is_some_and(|previous| {
            // Held by `others` and here; by whom else, then by a request.
            let held = Arc::strong_count(&previous) > 2;
            previous.stop_idle() || held
        });
        let (stay, through): (Vec<_>, Vec<_>) = leaving.into_iter().partition(|generation| {
            let held = Arc::strong_count(generation) > 1;
            generation.stop_idle() || held
        });
        through.iter().for_each(|generation| retire(generation));
        let left = left || !stay.is_empty();
        self.others().leaving.extend(stay);
        left
    }

    /// Stops every Context that is idle, and retires each generation that has none left.
    pub fn close(&self) {
        for generation in self.all() {
            if !generation.stop_idle() {
                retire(&generation);
            }
        }
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retire(generation: &Generation) {
    if let Err(fault @ Fault::Error(..)) = generation.plugin.retire() {
        generation.plugin.log(&fault);
    }
}
