//! One lambda being served: requests get Contexts, and each Context is stopped.

pub mod async_run;
pub mod contexts;
#[cfg_attr(not(feature = "aws"), path = "effe/event_counts/disabled.rs")]
pub mod event_counts;
pub mod generation;
pub mod health;
mod inline;
pub mod maintenance;
pub mod monitor;
mod pooled;
pub mod swap;

#[cfg(test)]
mod testing;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    event_counts::EventCounts,
    generation::{Generation, Generations},
};
use crate::{
    body::held::HeldBytes,
    exchange::{
        call::{Call, Completions, Progress},
        run::AsyncRun,
    },
    journal::{Journal, Record, Severity, Source},
    message::request::RequestHead,
    plugin::{Context, ContextCounts, Fault},
    process::signals,
    scheduler::{
        in_flight::Timeouts,
        meter::{Meter, Totals},
        pool::{Job, KEEP, Pool},
        worker_status::WorkerStatus,
    },
};

/// The least and the most that `Retry-After` says, in seconds.
const RETRY_AFTER: (u64, u64) = (1, 60);

/// How often the log says that too much is held.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How long past the drain's time the Stops of dropped runs may take. Retire has the rest of the watchdog's time.
const GRACE: Duration = Duration::from_millis(signals::GRACE.as_millis() as u64 / 2);

pub struct Effe {
    pub generations: Generations,
    pub context_counts: Arc<ContextCounts>,
    pub pool: Pool<Work>,
    pub journal: Journal,
    pub limits: Limits,
    pub held: Arc<HeldBytes>,
    /// When the log last said that too much is held.
    told_no_room: Mutex<Option<Instant>>,
    /// Overdue runs that have not ended yet. Below zero for a moment where a run ends before `lose_thread` counts it.
    n_lost: AtomicIsize,
    /// Runs that go on with a connection that they have taken over.
    n_upgraded_runs: AtomicUsize,
    draining: Arc<AtomicBool>,
    /// What the pool's threads count, if anybody can ask; boxed, so that the server's threads don't share its cache
    /// lines.
    meter: Option<Box<Meter>>,
    pub events: Arc<EventCounts>,
    /// Of the server's threads.
    statuses: Mutex<Vec<Arc<WorkerStatus>>>,
}

pub enum Work {
    /// Runs the lambda of the generation that served when the request came.
    Run(Arc<Effe>, Arc<Generation>, Box<Call>),
    /// Ends a run of an async lambda that blocks: its last poll may still be under way.
    End(Box<UnwantedRun>),
    Stop(Box<Context>),
}

/// A run of an async lambda that nobody waits for any more.
pub struct UnwantedRun {
    pub effe: Arc<Effe>,
    pub generation: Arc<Generation>,
    pub run: AsyncRun,
    /// Whether its Context may have another run.
    pub keeps_context: bool,
}

impl UnwantedRun {
    /// Drops the run, which waits for a poll that is under way; its Context is given back, or stopped on this thread.
    fn end(self) {
        let UnwantedRun { effe, generation, run, keeps_context } = self;
        let (context, call) = run.take_apart();
        let in_time = effe.end(&call);
        drop(if keeps_context && in_time { generation.contexts.give(context) } else { Some(context) });
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at once on the pool.
    pub max_concurrency: usize,
    /// Runs that wait for a thread of the pool.
    pub queue: usize,
    pub timeouts: Timeouts,
    /// Requests to an async lambda at once, for each thread of the server.
    pub max_async: usize,
    /// Bytes of a request body that is held whole.
    pub body: usize,
    /// Bytes of a response that is held whole.
    pub response: usize,
    /// Bytes of all bodies that are held.
    pub held: usize,
    /// Lost threads past which the effe is not ready.
    pub max_lost_threads: usize,
    /// Whether requests and runs are counted.
    pub metered: bool,
}

impl Effe {
    pub fn new(
        first: Generation,
        context_counts: Arc<ContextCounts>,
        limits: Limits,
        draining: Arc<AtomicBool>,
        journal: Journal,
    ) -> Arc<Effe> {
        Arc::new(Effe {
            generations: Generations::new(first),
            context_counts,
            pool: Pool::new(limits.max_concurrency, limits.queue, KEEP),
            journal,
            meter: limits.metered.then(Box::default),
            held: HeldBytes::new(limits.held),
            limits,
            told_no_room: Mutex::default(),
            n_lost: AtomicIsize::new(0),
            n_upgraded_runs: AtomicUsize::new(0),
            draining,
            events: Arc::default(),
            statuses: Mutex::default(),
        })
    }

    /// Hands a call to the pool; to be followed by [`wake_pool`](Effe::wake_pool). Where there is no room, it comes
    /// back given up.
    pub fn run_on_pool(self: &Arc<Self>, generation: Arc<Generation>, call: Box<Call>) {
        let work = Work::Run(Arc::clone(self), generation, call);
        if let Err(work) = self.pool.push(work) {
            work.give_up();
        }
    }

    /// Ends an unwanted run on the pool, or gives it back where there is no room.
    pub fn end_on_pool(&self, unwanted: Box<UnwantedRun>) -> Result<(), Box<UnwantedRun>> {
        let pushed = self.pool.push(Work::End(unwanted)).map(|()| self.wake(false));
        pushed.map_err(|work| match work {
            Work::End(unwanted) => unwanted,
            Work::Run(..) | Work::Stop(_) => unreachable!("what comes back is what went in"),
        })
    }

    /// Stops a Context on the pool. Where there is no room, or no thread can be made, it is stopped on this thread,
    /// which is better than not at all.
    fn stop_on_pool(&self, context: Box<Context>) {
        match self.pool.push(Work::Stop(context)) {
            Ok(()) => self.wake(false),
            Err(work) => work.give_up(),
        }
    }

    /// Makes sure that a thread of the pool runs the calls that were handed in: once for all that a thread of the
    /// server hands in before it sleeps. A thread that is woken for each would run before the next call is there.
    pub fn wake_pool(&self) {
        self.wake(self.generations.current().placement.is_short());
    }

    /// Wakes a thread of the pool. If there is none and none can be made, all that waits is given up.
    fn wake(&self, short: bool) {
        self.pool.wake(short).into_iter().for_each(Work::give_up);
    }

    /// A run has ended; whether that was before the client was told that it takes too long.
    pub fn end(&self, call: &Call) -> bool {
        let in_time = call.progress.end();
        if !in_time {
            self.n_lost.fetch_sub(1, Ordering::Relaxed);
        }
        in_time
    }

    /// A client is told that its run takes too long.
    pub fn report_overdue(&self, head: &RequestHead, id: &OnceLock<String>, what: &str) {
        self.meter.iter().for_each(|meter| meter.timed_out());
        let text = format!("a run takes longer than --run-timeout; {what}");
        self.journal.report(Severity::Error, text, head.about(id));
    }

    /// A client is told that too much is held. The log says so once in a while.
    pub fn report_no_room(&self) {
        let mut told = self.told_no_room.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            *told = Some(Instant::now());
            let n_bytes = self.held.total();
            self.journal.warning(format!(
                "{n_bytes} bytes of bodies are held, because clients read or send slowly: requests get 503 \
                 until there are fewer; --held-limit allows {}",
                self.limits.held
            ));
        }
    }

    /// What a run does after its answer takes too long.
    pub fn report_rest_overdue(&self, progress: &Progress, what: &str) {
        self.meter.iter().for_each(|meter| meter.timed_out());
        let text =
            format!("a run goes on for longer than --run-timeout after it has ended its answer; {what}");
        let fields = progress.early.rest().map(|rest| rest.about.clone());
        self.journal.report(Severity::Error, text, fields.into_iter().flatten());
    }

    /// An overdue run goes on, and has its thread for itself. What that means, for the log.
    pub fn lose_thread(&self) -> String {
        let n_lost = usize::try_from(self.n_lost.fetch_add(1, Ordering::Relaxed) + 1).unwrap_or(0);
        if n_lost == self.limits.max_lost_threads.saturating_add(1) {
            self.journal.critical(format!("{n_lost} threads are lost: no longer ready"));
        }
        format!("{n_lost} threads are lost to such runs")
    }

    /// Seconds after which a client that was turned away may find room: by then the queue has run, at the average time
    /// of a run.
    pub fn retry_after(&self) -> u64 {
        let average = self.generations.current().placement.average().unwrap_or_default();
        let waiting = u32::try_from(self.pool.n_waiting()).unwrap_or(u32::MAX);
        let n_threads = self.limits.max_concurrency.max(1) as f64;
        let seconds = average.saturating_mul(waiting).div_f64(n_threads).as_secs_f64().ceil();
        (seconds as u64).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    /// Makes the status of the calling thread, one of the server's; its calls come back to `completions`.
    pub fn status(&self, completions: &Arc<Completions>) -> Arc<WorkerStatus> {
        let meter = self.limits.metered.then(Meter::default);
        let status = Arc::new(WorkerStatus::new(Arc::clone(completions), meter));
        self.statuses().push(Arc::clone(&status));
        status
    }

    pub fn statuses(&self) -> MutexGuard<'_, Vec<Arc<WorkerStatus>>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all threads have counted so far; `None` if nothing is counted.
    pub fn totals(&self) -> Option<Totals> {
        let mut totals = Totals::default();
        totals.add(self.meter.as_deref()?);
        self.statuses().iter().filter_map(|status| status.meter.as_ref()).for_each(|meter| totals.add(meter));
        Some(totals)
    }

    pub fn n_running(&self) -> usize {
        self.statuses().iter().map(|status| status.n_running()).sum()
    }

    /// Counts a run that goes on with a connection that it has taken over.
    pub fn counting_upgraded<R: Future>(
        self: &Arc<Self>,
        run: R,
    ) -> impl Future<Output = R::Output> + use<R> {
        struct Counted(Arc<Effe>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.n_upgraded_runs.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.n_upgraded_runs.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(self));
        async move {
            let ended = run.await;
            drop(counted);
            ended
        }
    }

    pub fn n_upgraded_runs(&self) -> usize {
        self.n_upgraded_runs.load(Ordering::Relaxed)
    }

    /// Connections that lambdas have taken over, and that are open or that they have not given back yet.
    pub fn n_streams(&self) -> usize {
        self.generations.all().iter().map(|generation| generation.n_streams()).sum()
    }

    /// Contexts that are in a run, or in Start or Stop.
    pub fn n_in_runs(&self) -> usize {
        let n_living = self.context_counts.living();
        let n_idle: usize = self.generations.all().iter().map(|one| one.contexts.n_idle()).sum();
        usize::try_from(n_living).unwrap_or(usize::MAX).saturating_sub(n_idle)
    }

    /// It is about to stop.
    pub fn announce_stop(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to stop: it is not ready, and answers say `Connection: close`.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn n_lost(&self) -> usize {
        usize::try_from(self.n_lost.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Ends the effe: the pool's threads finish, every Context is stopped, the lambda retires. How many Contexts are
    /// not stopped because their Run had not ended by the deadline; their generations don't retire.
    pub fn close(&self, deadline: Instant) -> u64 {
        let _ = self.pool.close(deadline);
        // The server's threads are about to end. They drop the async runs that still wait, and stop their Contexts;
        // sync runs that wait for a client are told that it has gone.
        let grace = deadline.max(Instant::now() + GRACE);
        while (self.n_running() > 0 || self.n_in_runs() > 0) && Instant::now() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        self.generations.close();
        self.context_counts.living()
    }

    pub fn log_call(&self, step: &'static str, call: &Call, fault: &Fault) {
        self.log(step, &call.head, &call.progress.id, fault);
    }

    /// Logs a fault of a step, and the request that it was for.
    fn log(&self, step: &'static str, head: &RequestHead, id: &OnceLock<String>, fault: &Fault) {
        if let Some(invocation) = head.invocation() {
            invocation.note(step, matches!(fault, Fault::Panic(_)));
        }
        // The lambda's panic hook has logged a panic with its place, but not the request.
        let (severity, text) = match fault {
            Fault::Error(severity, text) => (*severity, text.clone()),
            Fault::Panic(text) => (Severity::Debug, text.clone()),
        };
        if self.journal.wants(severity) {
            let (target, fields) = (step.into(), head.about(id).into());
            self.journal.log(Record { severity, source: Source::Lambda, target, text, fields });
        }
    }
}

impl Work {
    /// There is no thread for it.
    fn give_up(self) {
        match self {
            Work::Run(_, _, call) => {
                call.progress.give_up();
                call.send_back().ring();
            }
            Work::End(unwanted) => unwanted.end(),
            Work::Stop(context) => drop(context),
        }
    }
}

impl Job for Work {
    /// Where calls have come back for which no thread has been woken yet.
    type Batch = Vec<Arc<Completions>>;

    fn is_short(&self) -> bool {
        match self {
            Work::Run(_, generation, _) => generation.placement.is_short(),
            Work::End(_) | Work::Stop(_) => false,
        }
    }

    fn run(self, batch: &mut Self::Batch) {
        let (effe, generation, mut call) = match self {
            Work::Run(effe, generation, call) => (effe, generation, call),
            // A panic of ours costs neither this thread nor a client its answer; the lambda's own panics are caught by
            // the fence in the plugin.
            other => return drop(panic::catch_unwind(AssertUnwindSafe(|| other.give_up()))),
        };
        let left_over = panic::catch_unwind(AssertUnwindSafe(|| effe.run(&generation, &mut call)));
        let completions = call.send_back();
        if !matches!(left_over, Ok(None)) {
            // At once, because the Stop of the Context that is left over may take long.
            completions.ring();
        } else if !batch.iter().any(|other| Arc::ptr_eq(other, &completions)) {
            batch.push(completions);
        }
    }

    fn finish(batch: &mut Self::Batch) {
        batch.drain(..).for_each(|completions| completions.ring());
    }
}
