//! One lambda being served: where a request meets a Context, and every Context its Stop.

pub mod async_run;
pub mod contexts;
pub mod generation;
pub mod health;
mod inline;
pub mod maintenance;
pub mod monitor;
mod pooled;
pub mod swap;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::generation::{Generation, Generations};
use crate::{
    exchange::{
        call::{Call, Completions},
        run::AsyncRun,
    },
    http::head::Head,
    journal::{Journal, Record, Severity, Source},
    plugin::{Context, ContextCounts, Fault},
    process::signals,
    scheduler::{
        in_flight::Timeouts,
        meter::{Meter, Totals},
        pool::{Job, KEEP, Pool},
        worker_status::WorkerStatus,
    },
};

/// What a client is told at least and at most to wait before it tries again, in seconds.
const RETRY_AFTER: (u64, u64) = (1, 60);

/// How long past the drain's time the Stops of dropped runs may take. Retire has the rest of the watchdog's time.
const GRACE: Duration = Duration::from_millis(signals::GRACE.as_millis() as u64 / 2);

/// A lambda, in one generation after the other, and the threads that run it.
pub struct Effe {
    pub generations: Generations,
    pub context_counts: Arc<ContextCounts>,
    pub pool: Pool<Work>,
    pub journal: Journal,
    pub limits: Limits,
    /// Runs that the client was told take too long, and that have not ended yet.
    /// Below zero for a moment where a run ends before the loss of its thread is noted.
    n_lost: AtomicIsize,
    /// Whether it is on its way out.
    draining: Arc<AtomicBool>,
    /// What the pool's threads count, if anybody can ask; not beside what the server's threads read.
    meter: Option<Box<Meter>>,
    /// The server's threads.
    statuses: Mutex<Vec<Arc<WorkerStatus>>>,
}

/// What the pool does for an effe.
pub enum Work {
    /// Runs the lambda of the generation that served when the request came.
    Run(Arc<Effe>, Arc<Generation>, Box<Call>),
    /// Ends a run of a lambda that blocks: its last poll may still be under way.
    End(Box<UnwantedRun>),
    /// Stops a Context.
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
    /// Drops the run, which waits for a poll that is under way; its Context is kept, or stopped on this thread.
    fn end(self) {
        let UnwantedRun { effe, generation, run, keeps_context } = self;
        let (context, call) = run.take_apart();
        let in_time = effe.end(&call);
        drop(if keeps_context && in_time { generation.contexts.give(context) } else { Some(context) });
    }
}

/// What an effe may use, and how long its runs may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at once on the pool.
    pub max_concurrency: usize,
    /// Runs that wait for a thread of the pool.
    pub queue: usize,
    /// How long a client waits for a thread and for a run.
    pub timeouts: Timeouts,
    /// Requests to an async lambda at once, for each thread of the server.
    pub max_async: usize,
    /// Bytes of a request body that is held whole.
    pub body: usize,
    /// Bytes of a response that is held whole.
    pub response: usize,
    /// Lost threads past which the effe is not ready.
    pub max_lost_threads: usize,
    /// Whether it is counted what becomes of requests.
    pub metered: bool,
}

impl Effe {
    /// Serves a first generation, until `draining` says that it is on its way out.
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
            limits,
            n_lost: AtomicIsize::new(0),
            draining,
            statuses: Mutex::default(),
        })
    }

    /// Hands a call to the pool, whose thread runs it and sends it back; to be followed by
    /// [`wake_pool`](Effe::wake_pool). Where there is no room, it comes back given up.
    pub fn run_on_pool(self: &Arc<Self>, call: Box<Call>) {
        let work = Work::Run(Arc::clone(self), self.generations.hold(), call);
        if let Err(work) = self.pool.push(work) {
            work.give_up();
        }
    }

    /// Has a thread of the pool end a run that nobody waits for any more.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn end_on_pool(&self, unwanted: Box<UnwantedRun>) -> Result<(), Box<UnwantedRun>> {
        match self.pool.push(Work::End(unwanted)) {
            Ok(()) => {
                self.wake(false);
                Ok(())
            }
            Err(Work::End(unwanted)) => Err(unwanted),
            Err(_) => unreachable!("what comes back is what went in"),
        }
    }

    /// Has a thread of the pool stop a Context. Where there is no room, or no thread can be made, it is stopped on this
    /// thread: a Stop here is better than none.
    fn stop_on_pool(&self, context: Box<Context>) {
        match self.pool.push(Work::Stop(context)) {
            Ok(()) => self.wake(false),
            Err(work) => work.give_up(),
        }
    }

    /// Sees that somebody takes up what was handed to the pool. Once for all that a thread of the server hands in
    /// before it sleeps: the thread that is woken would else run before the next call is there.
    pub fn wake_pool(&self) {
        self.wake(self.generations.current().placement.is_short());
    }

    /// Wakes a thread of the pool. What can't be run, because no thread can be made, is given up: it may be of other
    /// clients than the one that this thread is answering.
    fn wake(&self, short: bool) {
        self.pool.wake(short).into_iter().for_each(Work::give_up);
    }

    /// The run has ended; whether the client was still waiting for it.
    pub fn end(&self, call: &Call) -> bool {
        let in_time = call.progress.end();
        if !in_time {
            self.n_lost.fetch_sub(1, Ordering::Relaxed);
        }
        in_time
    }

    /// A client was told that its run takes too long.
    pub fn report_overdue(&self, head: &Head<'_>, id: &OnceLock<String>, what: &str) {
        if let Some(meter) = &self.meter {
            meter.timed_out();
        }
        let text = format!("a run takes longer than --run-timeout; {what}");
        self.journal.report(Severity::Error, text, about(head, id));
    }

    /// A run of which the client was told that it takes too long goes on, and has its thread for itself.
    pub fn lose_thread(&self) -> usize {
        let n_lost = usize::try_from(self.n_lost.fetch_add(1, Ordering::Relaxed) + 1).unwrap_or(0);
        if n_lost == self.limits.max_lost_threads.saturating_add(1) {
            self.journal.critical(format!("{n_lost} threads are lost: no longer ready"));
        }
        n_lost
    }

    /// Seconds after which a client that was turned away may find room: what waits, at the pace of late.
    pub fn retry_after(&self) -> u64 {
        let average = self.generations.current().placement.average().unwrap_or_default();
        let waiting = u32::try_from(self.pool.n_waiting()).unwrap_or(u32::MAX);
        let hands = u32::try_from(self.limits.max_concurrency).unwrap_or(u32::MAX);
        let seconds = average.saturating_mul(waiting).div_f64(f64::from(hands.max(1))).as_secs_f64().ceil();
        (seconds as u64).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    /// The status of the calling thread, one of the server's; its calls come back to `completions`.
    pub fn status(&self, completions: &Arc<Completions>) -> Arc<WorkerStatus> {
        let meter = self.limits.metered.then(Meter::default);
        let status = Arc::new(WorkerStatus::new(Arc::clone(completions), meter));
        self.statuses().push(Arc::clone(&status));
        status
    }

    /// One for each of the server's threads.
    pub fn statuses(&self) -> MutexGuard<'_, Vec<Arc<WorkerStatus>>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all threads have counted so far; `None` if nothing is.
    pub fn totals(&self) -> Option<Totals> {
        let mut totals = Totals::default();
        totals.add(self.meter.as_deref()?);
        self.statuses().iter().filter_map(|status| status.meter.as_ref()).for_each(|meter| totals.add(meter));
        Some(totals)
    }

    /// Requests that have been taken up and not answered yet.
    pub fn n_running(&self) -> usize {
        self.statuses().iter().map(|status| status.n_running()).sum()
    }

    /// Whether it is on its way out: not ready, and answers say `Connection: close`.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Runs that the client was told take too long, and that have not ended: each has a thread for itself.
    pub fn n_lost(&self) -> usize {
        usize::try_from(self.n_lost.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Ends the effe: the pool's threads finish, every Context is stopped, the lambda retires. How many Contexts
    /// had to be abandoned because their Run had not ended by the deadline; a generation with such ones does not retire.
    pub fn close(&self, deadline: Instant) -> u64 {
        let _ = self.pool.close(deadline);
        // With the server's threads end the async runs that were still waiting, and their Contexts are stopped there.
        let grace = deadline.max(Instant::now() + GRACE);
        while self.n_running() > 0 && Instant::now() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        self.generations.close();
        self.context_counts.living()
    }

    /// Logs what an entry reported, and for what request.
    pub fn log_call(&self, step: &'static str, call: &Call, fault: &Fault) {
        self.log(step, &Head::Copied(&call.head), &call.progress.id, fault);
    }

    fn log(&self, step: &'static str, head: &Head<'_>, id: &OnceLock<String>, fault: &Fault) {
        // The lambda's hook has logged a panic, with its place; what the request was is said here.
        let (severity, text) = match fault {
            Fault::Error(severity, text) => (*severity, text.clone()),
            Fault::Panic(text) => (Severity::Debug, text.clone()),
        };
        if self.journal.wants(severity) {
            let (target, fields) = (step.into(), about(head, id).into());
            self.journal.log(Record { severity, source: Source::Lambda, target, text, fields });
        }
    }
}

/// What a line about a request says of it: never its query, which may hold secrets.
fn about(head: &Head<'_>, id: &OnceLock<String>) -> [(&'static str, String); 3] {
    let id = id.get_or_init(|| head.request_id()).clone();
    [("request_id", id), ("method", head.method().to_owned()), ("path", head.path().to_owned())]
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
    /// Where calls have come back that nobody was woken for.
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
            Work::End(unwanted) => return unwanted.end(),
            Work::Stop(context) => return drop(context),
        };
        // No panic of the lambda's gets here. One of ours must not cost the client its answer.
        let left_over = panic::catch_unwind(AssertUnwindSafe(|| effe.run(&generation, &mut call)));
        let completions = call.send_back();
        if !matches!(left_over, Ok(None)) {
            // After the answer: Stop takes as long as it takes.
            completions.ring();
        } else if !batch.iter().any(|other| Arc::ptr_eq(other, &completions)) {
            batch.push(completions);
        }
    }

    fn finish(batch: &mut Self::Batch) {
        batch.drain(..).for_each(|completions| completions.ring());
    }
}
