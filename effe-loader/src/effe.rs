//! One lambda being served: where a request meets a Context, and every Context its Stop.

pub mod async_run;
pub mod contexts;
pub mod generation;
pub mod health;
pub mod maintenance;
pub mod monitor;
pub mod swap;

use std::{
    future::poll_fn,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use self::generation::{Generation, Generations};
use crate::{
    exchange::{
        Exchange,
        call::{Call, Completions},
        response::ResponseBuilder,
        run::AsyncRun,
    },
    http::{head::Head, request::Request},
    journal::{Journal, Record, Severity, Source},
    placement::run_clock::Ended,
    plugin::{Context, ContextCounts, Fault, Started},
    process::signals,
    rt::{block_on::block_on, clock::Moment},
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
    /// The lambda that serves, and those before it.
    pub generations: Generations,
    context_counts: Arc<ContextCounts>,
    pool: Pool<Work>,
    journal: Journal,
    /// What it may use.
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
    /// The effe.
    pub effe: Arc<Effe>,
    /// The generation that it belongs to.
    pub generation: Arc<Generation>,
    /// The run.
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

    /// Runs a request on the server's own thread, if a Context is at hand: Start and Stop never happen there.
    /// How long it took, if it did; the answer is in `response`.
    pub fn run_inline(
        self: &Arc<Self>,
        generation: &Generation,
        request: &Request,
        body: &[u8],
        response: &mut ResponseBuilder,
        status: &WorkerStatus,
    ) -> Option<Duration> {
        let mut context = generation.contexts.take()?;
        let head = Head::Live(request);
        let (target, path_len) = head.target();
        let path = &target[..path_len];
        let begun = status.begin(head.method(), path, generation.number, None);
        let deadline = self.limits.timeouts.run.map(|timeout| begun + timeout);
        let id = OnceLock::new();
        let exchange = Exchange::new(
            Head::Live(request),
            body,
            response,
            status.never_gone(),
            deadline,
            self.limits.response,
            &id,
        );
        let outcome = exchange.lend(|exchange| context.run(exchange));
        drop(exchange);
        let Ended { took, preempted } = status.end(begun);
        if !preempted {
            generation.placement.ran_inline(took, || (head.method(), path));
        }
        if let Some(meter) = &status.meter {
            count(meter, generation, took, outcome.is_err());
        }
        let unwanted = match outcome {
            Ok(()) => {
                response.end();
                generation.contexts.give(context)
            }
            Err(fault) => {
                self.log("run", &head, &id, &fault);
                if let Fault::Panic(_) = fault { Some(context) } else { generation.contexts.give(context) }
            }
        };
        if let Some(context) = unwanted {
            self.stop_on_pool(context);
        }
        Some(took)
    }

    /// Hands a call to the pool, whose thread runs it and sends it back to its desk; to be followed by
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

    /// Runs a call here and now; what is left over afterwards waits to be dropped, which may take its time.
    fn run(&self, generation: &Generation, call: &mut Call) -> Option<Box<Context>> {
        if !call.progress.begin() {
            return None;
        }
        let (mut context, failed) = match generation.contexts.take() {
            Some(context) => (context, None),
            None => match self.start(generation) {
                Started::Ready(context) => (Box::new(context), None),
                Started::Failed(context, fault) => {
                    self.log_call("start", call, &fault);
                    (Box::new(context), Some(fault))
                }
                Started::Panicked(fault) => {
                    self.log_call("start", call, &fault);
                    if let Some(meter) = &self.meter {
                        meter.failed();
                    }
                    self.end(call);
                    return None;
                }
            },
        };
        let (outcome, took);
        if generation.plugin.is_async() {
            let begun = Moment::now();
            (context, outcome) = self.run_polled(generation, context, call);
            took = begun.elapsed();
        } else {
            let exchange = Exchange::new(
                Head::Copied(&call.head),
                &call.body,
                &mut call.response,
                &call.progress.gone,
                call.deadline,
                self.limits.response,
                &call.progress.id,
            )
            .with_streams(&call.streams);
            let run = || exchange.lend(|exchange| context.run(exchange));
            let (returned, time) = generation.placement.learn(run);
            (outcome, took) = (Some(returned), time);
        }
        let Some(outcome) = outcome else {
            let reusable = generation.plugin.keeps_cancelled() && failed.is_none();
            let in_time = self.end(call);
            call.streams.close();
            return if reusable && in_time { generation.contexts.give(context) } else { Some(context) };
        };
        if let Some(meter) = &self.meter {
            count(meter, generation, took, failed.is_some() || outcome.is_err());
        }
        let in_time = self.end(call);
        let reusable = self.conclude(call, outcome, failed.as_ref());
        if reusable && in_time { generation.contexts.give(context) } else { Some(context) }
    }

    /// Polls a run of an async lambda to its end, on this thread; no outcome where nobody waits for it any more.
    fn run_polled(
        &self,
        generation: &Generation,
        context: Box<Context>,
        call: &mut Call,
    ) -> (Box<Context>, Option<Result<(), Fault>>) {
        // The run owns its call. If our own code panics, the one that is put in its place goes back without an answer.
        let owned = Box::new(call.replace());
        let placement = Arc::clone(&generation.placement);
        let mut run = AsyncRun::new(context, owned, self.limits.response, placement);
        let progress = Arc::clone(run.progress());
        let outcome = block_on(poll_fn(|cx| match generation.placement.learn(|| run.poll(cx.waker())).0 {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => progress.poll_unwanted(cx).map(|()| None),
        }));
        let (context, owned) = run.take_apart();
        *call = *owned;
        (context, outcome)
    }

    /// A run is over: its answer is complete, or the log has why not. `failed` is what its Start said, if that failed.
    /// Whether the Context may have another run.
    pub fn conclude(&self, call: &mut Call, outcome: Result<(), Fault>, failed: Option<&Fault>) -> bool {
        let reusable = match outcome {
            Ok(()) => {
                call.response.end();
                if let Some(sender) = &call.streams.response {
                    sender.finish();
                }
                true
            }
            Err(fault) => {
                // `context?` hands Start's own error on, which is in the log.
                if failed != Some(&fault) {
                    self.log_call("run", call, &fault);
                }
                !matches!(fault, Fault::Panic(_))
            }
        };
        // What is streamed and not complete ends here.
        if call.streams.response.as_ref().is_some_and(|sender| !sender.keeps_its_length()) {
            let text = "the answer is not as long as its content-length says: the connection is broken off";
            self.log_call("run", call, &Fault::Error(Severity::Error, text.to_owned()));
        }
        call.streams.close();
        reusable && failed.is_none()
    }

    /// Calls Start, which a request waits for.
    fn start(&self, generation: &Generation) -> Started {
        let Some(meter) = &self.meter else { return generation.plugin.start() };
        let begun = Moment::now();
        let started = generation.plugin.start();
        meter.started(begun.elapsed());
        started
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

    /// A thread of the server takes its seat.
    pub fn status(&self, completions: &Arc<Completions>) -> Arc<WorkerStatus> {
        let meter = self.limits.metered.then(Meter::default);
        let status = Arc::new(WorkerStatus::new(Arc::clone(completions), meter));
        self.statuses().push(Arc::clone(&status));
        status
    }

    /// The seats of the server's threads.
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

    /// The pool, for whoever watches over it.
    pub fn pool(&self) -> &Pool<Work> {
        &self.pool
    }

    /// Requests that have been taken up and not answered yet.
    pub fn n_running(&self) -> usize {
        self.statuses().iter().map(|status| status.n_running()).sum()
    }

    /// All Contexts of the process.
    pub fn context_counts(&self) -> &Arc<ContextCounts> {
        &self.context_counts
    }

    /// Whether it is on its way out: not ready, and answers say `Connection: close`.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Runs that the client was told take too long, and that have not ended: each has a thread for itself.
    pub fn n_lost(&self) -> usize {
        usize::try_from(self.n_lost.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
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

/// Counts a run of a generation.
/// Counts a run that has ended.
pub fn count(meter: &Meter, generation: &Generation, took: Duration, failed: bool) {
    meter.ran(took);
    generation.tally.ran(failed);
    if failed {
        meter.failed();
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
    /// Whose desk has mail.
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
