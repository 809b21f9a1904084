//! Generations: the lambda that serves, the one before it, and those that leave.
//!
//! A request holds the generation that it began with until its Context is back. So a generation that nobody holds any
//! more, and that has no Context left, is to retire.

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
    body::duplex::Holder,
    effe::contexts::Contexts,
    journal::Journal,
    placement::{Mode, Place, Placement},
    plugin::{Context, Fault, Plugin, Policy, Started, parameters::Sources},
    rt::clock::Moment,
    scheduler::meter::Meter,
};

#[derive(Clone, Debug)]
pub struct GenerationConfig {
    pub policy: Policy,
    /// Where the operator's parameters come from; read again for each generation.
    pub sources: Sources,
    pub mode: Mode,
    pub max_idle: usize,
}

/// A lambda that is open, its idle Contexts, and where its runs go.
pub struct Generation {
    /// 1 for the one that the loader was started with.
    pub number: u64,
    pub plugin: &'static Plugin,
    pub contexts: Contexts<Context>,
    pub placement: Arc<Placement>,
    pub opened: Moment,
    warm: AtomicBool,
    /// Runs so far; nothing is counted where nobody can ask. Up to 16 threads have one each, the others share them.
    runs: [CachePadded<AtomicU64>; 16],
    /// Runs that met an error or a panic.
    errors: AtomicU64,
    /// Connections that it has taken over.
    streams: AtomicUsize,
}

impl Generation {
    /// `plugin` is a lambda whose Init has run.
    pub fn new(
        number: u64,
        plugin: &'static Plugin,
        config: &GenerationConfig,
        journal: &Journal,
    ) -> Generation {
        let (is_async, can_spawn) = (plugin.is_async(), plugin.spawns_on_request());
        let placement = Placement::new(config.mode, plugin.flags(), is_async, can_spawn, journal.clone());
        Generation {
            number,
            plugin,
            contexts: Contexts::new(config.max_idle),
            placement: Arc::new(placement),
            opened: Moment::now(),
            warm: AtomicBool::new(false),
            runs: Default::default(),
            errors: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
        }
    }

    /// Starts a Context and keeps it for the first request. If Start fails, its Context is stopped.
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
    #[inline]
    pub fn is_polled_here(&self) -> bool {
        self.plugin.is_async() && self.placement.current() != Place::Pool
    }

    /// Counts a run that has ended.
    pub fn count(&self, meter: &Meter, took: Duration, failed: bool) {
        thread_local! {
            static PLACE: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed)
            };
        }
        meter.ran(took);
        let place = PLACE.with(|place| place % self.runs.len());
        self.runs[place].fetch_add(1, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
            meter.failed();
        }
    }

    pub fn n_runs(&self) -> u64 {
        self.runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum()
    }

    pub fn n_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Connections that it has taken over, and that are open or that it has not given back yet.
    pub fn n_streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
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

impl Holder for Generation {
    fn opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct Generations {
    current: ArcSwap<Generation>,
    others: Mutex<Others>,
}

#[derive(Default)]
struct Others {
    /// The one that a roll-back returns to: not retired, without a Context.
    previous: Option<Arc<Generation>>,
    /// Those that retire once no request holds them.
    leaving: Vec<Arc<Generation>>,
}

impl Generations {
    pub fn new(first: Generation) -> Generations {
        Generations { current: ArcSwap::from_pointee(first), others: Mutex::default() }
    }

    /// The one that serves, for a moment: no longer than one run on the calling thread.
    pub fn current(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    /// The one that serves, for as long as a request lasts.
    pub fn hold(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    pub fn previous(&self) -> Option<Arc<Generation>> {
        self.others().previous.clone()
    }

    /// All that are not retired, the one that serves first.
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

    /// The one before, if there is one, serves again, and the one that served is kept in its place.
    pub fn roll_back(&self) {
        let mut others = self.others();
        others.previous = others.previous.take().map(|previous| self.current.swap(previous));
    }

    /// Stops the Contexts that have come back to generations that no longer serve, and retires those that leave and
    /// have no request left. True if there are requests that may give more Contexts back: then call it again.
    pub fn reap(&self) -> bool {
        let (previous, leaving) = {
            let others = self.others();
            (others.previous.clone(), others.leaving.clone())
        };
        let is_used = |generation: &Arc<Generation>, n_ours| {
            // Beyond ours, requests hold it; to be looked at before the Contexts are stopped.
            let held = Arc::strong_count(generation) > n_ours;
            generation.stop_idle() || held
        };
        // A Stop may take long: not under the lock, which a scrape of the metrics waits for.
        let previous_is_used = previous.is_some_and(|previous| is_used(&previous, 2));
        // They stay where whoever asks for all of them sees them, until they retire.
        let unused: Vec<_> = leaving.into_iter().filter(|generation| !is_used(generation, 2)).collect();
        let is_unused = |one: &Arc<Generation>| unused.iter().any(|other| Arc::ptr_eq(one, other));
        let (retired, is_left) = {
            let mut others = self.others();
            let (retired, stay): (Vec<_>, _) =
                std::mem::take(&mut others.leaving).into_iter().partition(is_unused);
            others.leaving = stay;
            (retired, previous_is_used || !others.leaving.is_empty())
        };
        retired.iter().for_each(|generation| retire(generation));
        is_left
    }

    /// Stops every Context that is idle, and retires each generation that has none left.
    pub fn close(&self) {
        // Taken out, so that `reap` retires none of them as well.
        let leaving = std::mem::take(&mut self.others().leaving);
        for generation in self.all() {
            if !generation.stop_idle() {
                retire(&generation);
            }
        }
        for generation in leaving {
            if generation.stop_idle() {
                self.others().leaving.push(generation);
            } else {
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
