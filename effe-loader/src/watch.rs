//! A thread that watches over runs: it gives waiting jobs another hand when those at work are kept, sends a lambda
//! that overstays back to the pool while it still overstays, and ends an effe whose server's thread hangs.
//!
//! It sleeps while nothing runs: an idle effe wakes nobody.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::sync::{Parker, Unparker};
use rustix::thread::Pid;

use crate::{
    blame::Sight,
    clock::Moment,
    control::Stop,
    effe::Effe,
    seat::{Overview, Seat},
    trust::OVERSTAY,
};

/// How often it looks while the pool works.
const QUICK: Duration = Duration::from_millis(1);
/// How often it looks while only the server's threads do.
const SLOW: Duration = Duration::from_millis(20);
/// How long nothing must have happened before it sleeps.
const CALM: Duration = Duration::from_millis(500);

/// The thread, as those see it who make it look.
pub struct Watch {
    awake: AtomicBool,
    over: AtomicBool,
    unparker: OnceLock<Unparker>,
}

impl Watch {
    /// Starts watching over an effe. A thread of the server that hangs in a run ends the effe by `stop`.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(
        effe: Arc<Effe>,
        stop: impl Fn(Stop) + Send + 'static,
    ) -> io::Result<(Arc<Watch>, JoinHandle<()>)> {
        let parker = Parker::new();
        let unparker = OnceLock::from(parker.unparker().clone());
        let watch = Arc::new(Watch { awake: AtomicBool::new(false), over: AtomicBool::new(false), unparker });
        let thread = thread::Builder::new().name("effe-watch".to_owned()).spawn({
            let watch = Arc::clone(&watch);
            move || watch.run(&effe, &parker, stop)
        })?;
        Ok((watch, thread))
    }

    /// Something begins to run.
    pub fn look(&self) {
        if !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::Relaxed) {
            self.unpark();
        }
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(unparker) = self.unparker.get() {
            unparker.unpark();
        }
    }

    fn run(&self, effe: &Arc<Effe>, parker: &Parker, stop: impl Fn(Stop)) {
        let (mut calm, mut n_runs, mut hanging) = (Duration::ZERO, 0, false);
        let mut seen = HashMap::new();
        while !self.over.load(Ordering::Relaxed) {
            if calm >= CALM {
                self.awake.store(false, Ordering::Relaxed);
                parker.park();
                calm = Duration::ZERO;
                continue;
            }
            let busy = effe.pool().is_busy();
            let tick = if busy { QUICK } else { SLOW };
            parker.park_timeout(tick);
            effe.pool().rescue();
            let seats = effe.seats().clone();
            let generation = effe.generations.hold();
            for seat in &seats {
                if !seat.mailbox().is_empty() {
                    // Results that a thread holds back while it is kept by its next run.
                    seat.mailbox().ring();
                }
                let Some(run) = seat.running() else { continue };
                let overstays = run.so_far > OVERSTAY && run.generation == generation.number;
                if overstays && is_to_blame(seat, &run, &mut seen) {
                    generation.execution.overstays(run.so_far, &run.request);
                }
                let Overview { so_far, request, .. } = run;
                if !hanging && effe.run_timeout().is_some_and(|timeout| so_far > timeout) {
                    hanging = true;
                    effe.journal().critical(format!(
                        "{request} has been running for {so_far:.1?} on a server's thread, which can't be taken from \
                         it: stopping, to be started again"
                    ));
                    stop(Stop::failed());
                }
            }
            let n_now = seats.iter().map(|seat| seat.n_runs()).sum();
            generation.execution.ran_well(n_now - n_runs);
            let something = busy || n_now != n_runs || seats.iter().any(|seat| seat.n_running() > 0);
            n_runs = n_now;
            calm = if something { Duration::ZERO } else { calm + tick };
        }
    }
}

/// Whether a run that lasts long waits or works, and is not just kept from running. `seen` has, by thread, the runs that
/// were met so before, and the CPU that their threads had used then.
fn is_to_blame(seat: &Seat, run: &Overview, seen: &mut HashMap<Pid, (Moment, Duration)>) -> bool {
    let Some(sight) = Sight::of(seat.thread()) else { return true };
    if !seat.is_in(run) {
        // What was seen is what the thread does now.
        return false;
    }
    if sight.waits {
        return true;
    }
    match seen.insert(seat.thread(), (run.since, sight.cpu)) {
        Some((since, cpu)) if since == run.since => {
            seen.insert(seat.thread(), (since, cpu));
            sight.cpu.saturating_sub(cpu) > OVERSTAY
        }
        _ => false,
    }
}
