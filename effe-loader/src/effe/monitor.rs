//! A thread that watches runs: it wakes another thread of the pool when jobs wait and those at work are busy, takes a
//! lambda off the server's threads while its run still overstays, and stops an effe with a server's thread that hangs.
//! It also waits for signals, and does the maintenance that is due: one thread costs less than three, and none of this
//! blocks. While nothing runs, it sleeps.

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
        signals::{Interrupt, Obeyed, Signals, Watchdog},
    },
    rescue,
    rt::{clock::Moment, panics::survive},
    scheduler::worker_status::{Overview, WorkerStatus},
};

/// How often it looks while the pool works.
const QUICK: Duration = Duration::from_millis(1);
/// How often it looks while only the server's threads do.
const SLOW: Duration = Duration::from_millis(20);
/// How often it looks for an effe while it has none.
const GLANCE: Duration = Duration::from_secs(1);
/// How long nothing must have run before it sleeps.
const CALM: Duration = Duration::from_millis(500);

pub struct Monitor {
    awake: AtomicBool,
    interrupt: Interrupt,
    /// What it watches, between [`take_on`](Monitor::take_on) and [`end`](Monitor::end); locked while it looks.
    watched: Mutex<Option<Watched>>,
}

struct Watched {
    effe: Arc<Effe>,
    maintenance: Maintenance,
    n_runs: u64,
    /// Whether a server's thread hangs, and the effe is stopped for it.
    hanging: bool,
    /// See [`took_long_by_itself`].
    seen: HashMap<Pid, (Moment, Duration)>,
}

impl Monitor {
    /// Installs the signal handlers, and waits for signals and for an effe.
    pub fn start(watchdog: Watchdog, control: Control, obeyed: Obeyed) -> io::Result<Arc<Monitor>> {
        let (signals, interrupt) = Signals::take_over(watchdog, control, obeyed)?;
        let monitor =
            Arc::new(Monitor { awake: AtomicBool::new(false), interrupt, watched: Mutex::new(None) });
        thread::Builder::new().name("effe-monitor".to_owned()).spawn({
            let monitor = Arc::clone(&monitor);
            move || monitor.keep_on(signals)
        })?;
        Ok(monitor)
    }

    pub fn take_on(&self, effe: Arc<Effe>, maintenance: Maintenance) {
        let soon = maintenance.next().is_some_and(|next| next < Instant::now() + GLANCE);
        let seen = HashMap::new();
        *self.watched() = Some(Watched { effe, maintenance, n_runs: 0, hanging: false, seen });
        if soon {
            self.interrupt.send();
        }
    }

    /// To be called when something begins to run.
    pub fn look(&self) {
        if !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::Relaxed) {
            self.interrupt.send();
        }
    }

    /// No longer watches the effe, and waits for the maintenance that is under way. Signals still count.
    pub fn end(&self) {
        let watched = self.watched().take();
        if let Some(watched) = watched {
            watched.maintenance.stop();
        }
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a panic nothing is watched any more, and the effe is stopped as one that has failed. Signals still count.
    fn keep_on(&self, mut signals: Signals) {
        while survive::<()>(|| self.run(&mut signals)).is_err() {
            if self.watched().take().is_some() {
                signals.stop(Stop::failed());
            }
        }
    }

    fn run(&self, signals: &mut Signals) -> ! {
        let (mut tick, mut calm, mut until_due) = (None, Duration::ZERO, Some(GLANCE));
        loop {
            signals.wait(tick.into_iter().chain(until_due).min());
            let mut watched = self.watched();
            let Some(watched) = &mut *watched else {
                (tick, until_due) = (None, Some(GLANCE));
                continue;
            };
            watched.maintenance.run_due();
            let next = watched.maintenance.next();
            until_due = next.map(|next| next.saturating_duration_since(Instant::now()));
            let Some(last) = tick else {
                // Asleep, until `look` is called; the run is looked at after the first tick.
                if self.awake.load(Ordering::Relaxed) {
                    (tick, calm) = (Some(watched.tick()), Duration::ZERO);
                }
                continue;
            };
            calm = if watched.look(signals) { Duration::ZERO } else { calm + last };
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
            if !status.completions.calls.is_empty() {
                // Results that a thread of the pool holds back while its next run takes long.
                status.completions.ring();
            }
            let Some(run) = status.running() else { continue };
            let so_far = run.since.elapsed();
            let overstays = so_far > OVERSTAY && run.generation == generation.number;
            if overstays && took_long_by_itself(status, &run, &mut self.seen) {
                generation.placement.overstays(so_far, &run.request);
            }
            if !self.hanging && effe.limits.timeouts.run.is_some_and(|timeout| so_far > timeout) {
                self.hanging = true;
                let request = run.request;
                effe.journal.critical(format!(
                    "{request} has been running for {so_far:.1?} on a server's thread, which can't be taken from \
                     it: stopping, to be started again"
                ));
                if rescue::global::is_supervised() {
                    rescue::fault::end_hung(status.thread.as_raw_nonzero().get());
                }
                signals.stop(Stop::failed());
            }
        }
        let n_before = self.n_runs;
        self.n_runs = statuses.iter().map(|status| status.n_runs()).sum();
        generation.placement.ran_well(self.n_runs - n_before);
        busy || self.n_runs != n_before || effe.n_running() > 0
    }
}

/// Whether a run that lasts long waits or works, rather than being preempted. `seen` has, by thread, the run that it
/// was in at the last look, and the CPU time that the thread had used by then.
fn took_long_by_itself(
    status: &WorkerStatus,
    run: &Overview,
    seen: &mut HashMap<Pid, (Moment, Duration)>,
) -> bool {
    let Some(state) = ThreadState::of(status.thread) else { return true };
    if !status.is_in(run) {
        // The state is of something else that the thread does now.
        return false;
    }
    let first = seen.entry(status.thread).or_insert((run.since, state.cpu));
    if first.0 != run.since {
        *first = (run.since, state.cpu);
    }
    state.waits || state.cpu.saturating_sub(first.1) > OVERSTAY
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Wake, Waker},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::{
        effe::testing::{effe, is_alone},
        exchange::{
            call::{Call, Completions},
            response::ResponseBuilder,
        },
        plugin::ContextCounts,
        process::control::{Change, Drain},
    };

    /// A task of a server's thread.
    struct PanicsWhenWoken;

    impl Wake for PanicsWhenWoken {
        fn wake(self: Arc<Self>) {
            panic!("told to");
        }
    }

    /// In a process of its own, whose signals these are.
    #[test]
    fn after_a_panic_the_effe_stops_as_failed_and_signals_still_count() {
        if !is_alone("effe::monitor::tests::after_a_panic_the_effe_stops_as_failed_and_signals_still_count") {
            return;
        }
        let counts = Arc::new(ContextCounts::default());
        let effe = effe(&counts);
        // A call has come back, and its thread was not woken: the monitor does it.
        let completions = Arc::new(Completions::default());
        let _status = effe.status(&completions);
        completions.calls.push(Box::new(Call::new(
            Arc::clone(&completions),
            ResponseBuilder::default(),
            None,
        )));
        let mut arrived = pin!(completions.arrived.notified());
        let waker = Waker::from(Arc::new(PanicsWhenWoken));
        assert!(arrived.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

        let (control, mut orders) = Control::new();
        // The watchdog has no part in this.
        let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_secs(3600) };
        let watchdog = Watchdog { counts, journal: effe.journal.clone(), drain };
        let monitor = Monitor::start(watchdog, control, Obeyed::Yes).unwrap();
        monitor.take_on(Arc::clone(&effe), Maintenance::new(Arc::clone(&effe), None, true));
        monitor.look();
        assert!(orders.stops.blocking_recv().unwrap().failed);
        assert!(monitor.watched().is_none(), "nothing is watched any more");

        kill_process(getpid(), Signal::HUP).unwrap();
        let order = orders.changes.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(order.change, Change::Reload);
        kill_process(getpid(), Signal::TERM).unwrap();
        assert!(!orders.stops.blocking_recv().unwrap().failed, "the operator's own order");
    }
}
