//! A thread that watches over runs: it gives waiting jobs another hand when those at work are kept, sends a lambda
//! that overstays back to the pool while it still overstays, and ends an effe whose server's thread hangs. It also
//! waits for signals, and has the keeper do what is due: one thread costs less than three, and none of this waits.
//!
//! It sleeps while nothing runs: an idle effe wakes nobody.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::Pid;

use crate::{
    effe::{Effe, maintenance::Maintenance},
    placement::{cpu_time::ThreadState, policy::OVERSTAY},
    process::{
        control::{Control, Stop},
        signals::{Interrupt, Signals, Watchdog},
    },
    rt::clock::Moment,
    scheduler::worker_status::{Overview, WorkerStatus},
};

/// How often it looks while the pool works.
const QUICK: Duration = Duration::from_millis(1);
/// How often it looks while only the server's threads do.
const SLOW: Duration = Duration::from_millis(20);
/// How often it looks for an effe while it has none.
const GLANCE: Duration = Duration::from_secs(1);
/// How long nothing must have happened before it sleeps.
const CALM: Duration = Duration::from_millis(500);

/// The thread, as those see it who make it look.
pub struct Monitor {
    awake: AtomicBool,
    interrupt: Interrupt,
    /// What it watches over, between [`take_on`](Monitor::take_on) and [`end`](Monitor::end); held while it looks.
    watched: Mutex<Option<Watched>>,
}

/// What is watched over.
struct Watched {
    effe: Arc<Effe>,
    maintenance: Maintenance,
    /// Runs so far.
    n_runs: u64,
    /// Whether a server's thread hangs, and the effe is stopped for it.
    hanging: bool,
    /// See [`is_to_blame`].
    seen: HashMap<Pid, (Moment, Duration)>,
}

impl Monitor {
    /// Takes the signals over, and waits for them and for an effe.
    ///
    /// # Errors
    /// The system has no room for a handler, a descriptor or a thread.
    pub fn start(watchdog: Watchdog, control: Control) -> io::Result<Arc<Monitor>> {
        let (signals, interrupt) = Signals::take_over(watchdog, control)?;
        let monitor =
            Arc::new(Monitor { awake: AtomicBool::new(false), interrupt, watched: Mutex::new(None) });
        thread::Builder::new().name("effe-monitor".to_owned()).spawn({
            let monitor = Arc::clone(&monitor);
            move || monitor.run(signals)
        })?;
        Ok(monitor)
    }

    /// Watches over an effe from now on, and has its keeper do what is due.
    pub fn take_on(&self, effe: Arc<Effe>, maintenance: Maintenance) {
        let soon = maintenance.next().is_some_and(|next| next < Instant::now() + GLANCE);
        *self.watched() =
            Some(Watched { effe, maintenance, n_runs: 0, hanging: false, seen: HashMap::new() });
        if soon {
            self.interrupt.send();
        }
    }

    /// Something begins to run.
    pub fn look(&self) {
        if !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::Relaxed) {
            self.interrupt.send();
        }
    }

    /// No longer watches over the effe, and waits for what its keeper is at. Signals still count.
    pub fn end(&self) {
        let watched = self.watched().take();
        if let Some(Watched { mut maintenance, .. }) = watched {
            maintenance.stop();
        }
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut signals: Signals) {
        let (mut tick, mut calm) = (None, Duration::ZERO);
        let mut next_chore = Some(GLANCE);
        loop {
            signals.wait([tick, next_chore].into_iter().flatten().min());
            let mut watched = self.watched();
            let Some(watched) = &mut *watched else {
                (tick, next_chore) = (None, Some(GLANCE));
                continue;
            };
            let due = |maintenance: &Maintenance| {
                maintenance.next().map(|next| next.saturating_duration_since(Instant::now()))
            };
            if due(&watched.maintenance).is_some_and(|left| left.is_zero()) {
                watched.maintenance.run_due();
            }
            next_chore = due(&watched.maintenance);
            let Some(last) = tick else {
                // Asleep, until somebody says that something runs; what does is looked at after the first tick.
                if self.awake.load(Ordering::Relaxed) {
                    (tick, calm) = (Some(watched.tick()), Duration::ZERO);
                }
                continue;
            };
            calm = if watched.look(&signals) { Duration::ZERO } else { calm + last };
            if calm < CALM {
                tick = Some(watched.tick());
            } else {
                tick = None;
                self.awake.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Watched {
    fn tick(&self) -> Duration {
        if self.effe.pool.is_busy() { QUICK } else { SLOW }
    }

    /// Whether anything has run since the last look, or runs.
    fn look(&mut self, signals: &Signals) -> bool {
        let effe = &self.effe;
        let busy = effe.pool.is_busy();
        effe.pool.rescue();
        let statuses = effe.statuses().clone();
        let generation = effe.generations.hold();
        for status in &statuses {
            if !status.completions().calls.is_empty() {
                // Results that a thread holds back while it is kept by its next run.
                status.completions().ring();
            }
            let Some(run) = status.running() else { continue };
            let overstays = run.so_far > OVERSTAY && run.generation == generation.number;
            if overstays && is_to_blame(status, &run, &mut self.seen) {
                generation.placement.overstays(run.so_far, &run.request);
            }
            let Overview { so_far, request, .. } = run;
            if !self.hanging && effe.limits.timeouts.run.is_some_and(|timeout| so_far > timeout) {
                self.hanging = true;
                effe.journal.critical(format!(
                    "{request} has been running for {so_far:.1?} on a server's thread, which can't be taken from \
                     it: stopping, to be started again"
                ));
                signals.stop(Stop::failed());
            }
        }
        let n_now = statuses.iter().map(|status| status.n_runs()).sum();
        generation.placement.ran_well(n_now - self.n_runs);
        let something = busy || n_now != self.n_runs || statuses.iter().any(|status| status.n_running() > 0);
        self.n_runs = n_now;
        something
    }
}

/// Whether a run that lasts long waits or works, and is not just kept from running. `seen` has, by thread, the runs that
/// were met so before, and the CPU that their threads had used then.
fn is_to_blame(status: &WorkerStatus, run: &Overview, seen: &mut HashMap<Pid, (Moment, Duration)>) -> bool {
    let Some(sight) = ThreadState::of(status.thread()) else { return true };
    if !status.is_in(run) {
        // What was seen is what the thread does now.
        return false;
    }
    if sight.waits {
        return true;
    }
    match seen.insert(status.thread(), (run.since, sight.cpu)) {
        Some((since, cpu)) if since == run.since => {
            seen.insert(status.thread(), (since, cpu));
            sight.cpu.saturating_sub(cpu) > OVERSTAY
        }
        _ => false,
    }
}
