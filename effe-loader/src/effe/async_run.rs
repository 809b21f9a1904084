//! Async runs on the server's thread that their request came to. The lambda may poll a run on a thread of its own behind
//! that. Whoever drops a run cancels it.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll, Waker},
};

use crate::{
    body::sender::BodySender,
    effe::{Effe, UnwantedRun, generation::Generation},
    exchange::{
        call::{Call, Progress},
        run::AsyncRun,
    },
    placement::{Place, run_clock::Ended},
    plugin::{Context, Fault, Started, Starting},
    rt::{
        clock::Moment,
        wake_batch::{BatchedWaker, WakeBatch},
    },
    scheduler::{background::BackgroundTasks, in_flight::InFlight, worker_status::WorkerStatus},
};

/// What async runs of one thread of the server share.
pub struct Worker {
    pub effe: Arc<Effe>,
    pub status: Arc<WorkerStatus>,
    pub in_flight: Rc<InFlight>,
    pub background: Rc<BackgroundTasks>,
    pub wake_batch: Arc<WakeBatch>,
}

impl Worker {
    /// Polls a request's run once. Most runs are over then, and the call comes back with its answer. One that is not
    /// must be polled again at once, because this poll wakes nobody. Where the last run waited, this poll is left out.
    pub fn run(
        self: &Rc<Worker>,
        generation: &Arc<Generation>,
        call: Box<Call>,
        now: Moment,
    ) -> Result<Box<Call>, Box<AsyncCall>> {
        let waits = generation.placement.waits();
        let Some(context) = (!waits).then(|| generation.contexts.take()).flatten() else {
            let mut waiting = AsyncCall::new(self, Arc::clone(generation), call, now);
            if waits {
                return Err(Box::new(waiting));
            }
            return match Pin::new(&mut waiting).poll(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Ready(call) => Ok(call),
                Poll::Pending => Err(Box::new(waiting)),
            };
        };
        call.progress.begin_alone();
        let deadline = call.deadline;
        let since = self.status.meter.is_some().then_some(now);
        let mut run = self.begin(generation, context, call);
        match self.poll(generation, &mut run, Waker::noop(), Some(now)) {
            Poll::Ready(outcome) => Ok(self.finish(generation, run, outcome, since, None)),
            Poll::Pending => Err(Box::new(AsyncCall {
                worker: Rc::clone(self),
                generation: Arc::clone(generation),
                failed: None,
                batched_waker: None,
                n_waits: 0,
                deadline,
                progress: Arc::clone(run.progress()),
                sender: run.sender().cloned(),
                since,
                now: None,
                step: Step::Running(run),
            })),
        }
    }

    fn begin(&self, generation: &Generation, context: Box<Context>, call: Box<Call>) -> AsyncRun {
        AsyncRun::new(context, call, self.effe.limits.response, Arc::clone(&generation.placement))
    }

    /// A poll on this thread.
    fn poll(
        &self,
        generation: &Generation,
        run: &mut AsyncRun,
        waker: &Waker,
        now: Option<Moment>,
    ) -> Polled {
        let begun = self.status.begin(run.head().method(), run.head().path(), generation.number, now);
        let polled = run.poll(waker);
        let Ended { took, preempted } = self.status.end(begun);
        if !preempted {
            generation.placement.ran_inline(took, || (run.head().method(), run.head().path()));
        }
        polled
    }

    /// Drops a run. That runs code of the lambda's, and waits for a poll that is under way on another thread, so it counts
    /// as a run of this thread.
    fn cancel(&self, generation: &Generation, run: AsyncRun) -> (Box<Context>, Box<Call>) {
        let head = run.head();
        let begun = self.status.begin(head.method(), head.path(), generation.number, None);
        let parts = run.take_apart();
        let Ended { took, preempted } = self.status.end(begun);
        if !preempted {
            let head = &parts.1.head;
            generation.placement.ran_inline(took, || (head.method(), head.path()));
        }
        parts
    }

    /// The run is over: what becomes of its Context; and the call with its answer.
    fn finish(
        &self,
        generation: &Generation,
        run: AsyncRun,
        outcome: Result<(), Fault>,
        since: Option<Moment>,
        failed: Option<&Fault>,
    ) -> Box<Call> {
        let (context, mut call) = run.take_apart();
        call.progress.end();
        if let (Some(meter), Some(since)) = (&self.status.meter, since) {
            generation.count(meter, since.elapsed(), failed.is_some() || outcome.is_err());
        }
        let reusable = self.effe.conclude(&mut call, outcome, failed);
        self.settle(generation, context, reusable);
        call
    }

    /// Keeps a Context, or stops it.
    fn settle(&self, generation: &Generation, context: Box<Context>, reusable: bool) {
        let unwanted = if reusable { generation.contexts.give(context) } else { Some(context) };
        if let Some(context) = unwanted {
            self.background.add(&self.status, context.stop_polled());
        }
    }
}

/// What came of a poll.
type Polled = Poll<Result<(), Fault>>;

/// A request and its run, from Start to the end of the answer. Dropped before that, the run is cancelled.
pub struct AsyncCall {
    worker: Rc<Worker>,
    generation: Arc<Generation>,
    step: Step,
    /// What Start said, if it failed: then this run is its Context's only one.
    failed: Option<Fault>,
    /// The waker of the run's polls, once the run was not ready at once.
    batched_waker: Option<(Arc<BatchedWaker>, Waker)>,
    /// How often it was not ready when somebody waited for it.
    n_waits: u32,
    /// When the client is told that it takes too long.
    pub deadline: Option<Moment>,
    pub progress: Arc<Progress>,
    /// For the body of the answer, if it may be sent piece by piece.
    pub sender: Option<Arc<BodySender>>,
    /// When Start or Run began, if somebody wants to know.
    since: Option<Moment>,
    /// What the clock said just before the first poll of a run: it needs no second look.
    now: Option<Moment>,
}

enum Step {
    /// There was no idle Context.
    Starting(Starting, Box<Call>),
    Running(AsyncRun),
    Over,
}

impl AsyncCall {
    /// Begins a run; nothing happens before it is polled, which is to be at once.
    pub fn new(worker: &Rc<Worker>, generation: Arc<Generation>, call: Box<Call>, now: Moment) -> AsyncCall {
        call.progress.begin_alone();
        let worker = Rc::clone(worker);
        let (step, deadline, progress) = (Step::Over, call.deadline, Arc::clone(&call.progress));
        let sender = call.streams.response.clone();
        let since = worker.status.meter.is_some().then_some(now);
        let mut waiting = AsyncCall {
            worker,
            generation,
            step,
            failed: None,
            batched_waker: None,
            n_waits: 0,
            deadline,
            progress,
            sender,
            since,
            now: None,
        };
        waiting.step = match waiting.generation.contexts.take() {
            Some(context) => {
                waiting.now = Some(now);
                Step::Running(waiting.worker.begin(&waiting.generation, context, call))
            }
            None => Step::Starting(waiting.generation.plugin.start_polled(), call),
        };
        waiting
    }

    /// Lets a run go on whose answer has gone: nobody waits for it any more.
    pub fn go_on(self) {
        let worker = Rc::clone(&self.worker);
        let in_flight = Rc::clone(&worker.in_flight);
        worker.background.add(&worker.status, Box::pin(async move { in_flight.keep(self.await) }));
    }

    /// Takes back a call whose answer has gone, or whose client has.
    pub fn keep(&self, call: Box<Call>) {
        self.worker.in_flight.keep(call);
    }

    /// Start has ended: the run, or the call back if there is none.
    fn started(&mut self, started: Started, call: Box<Call>) -> Result<AsyncRun, Box<Call>> {
        let meter = self.worker.status.meter.as_ref().zip(self.since);
        if let Some((meter, since)) = meter {
            meter.started(since.elapsed());
            self.since = Some(Moment::now());
        }
        match started {
            Started::Ready(context) => Ok(self.worker.begin(&self.generation, Box::new(context), call)),
            Started::Failed(context, fault) => {
                self.worker.effe.log_call("start", &call, &fault);
                self.failed = Some(fault);
                Ok(self.worker.begin(&self.generation, Box::new(context), call))
            }
            Started::Panicked(fault) => {
                self.worker.effe.log_call("start", &call, &fault);
                if let Some((meter, _)) = meter {
                    meter.failed();
                }
                call.progress.end();
                Err(call)
            }
        }
    }

    fn poll_run(&mut self, mut run: AsyncRun, waker: &Waker) -> Poll<Box<Call>> {
        let now = self.now.take();
        self.set_batched_waker(waker);
        let waker = self.batched_waker.as_ref().map_or(waker, |(_, batched_waker)| batched_waker);
        match self.worker.poll(&self.generation, &mut run, waker, now) {
            Poll::Ready(outcome) => {
                let (since, failed) = (self.since, self.failed.as_ref());
                self.generation.placement.waited(self.n_waits);
                Poll::Ready(self.worker.finish(&self.generation, run, outcome, since, failed))
            }
            Poll::Pending => {
                // Nobody waits for what is polled with no waker, and it is polled again at once.
                self.n_waits = self.n_waits.saturating_add(u32::from(self.batched_waker.is_some()));
                self.step = Step::Running(run);
                Poll::Pending
            }
        }
    }

    /// Makes the waker for the task that `waker` wakes. The first poll needs none: nobody is woken by it.
    fn set_batched_waker(&mut self, waker: &Waker) {
        if !waker.will_wake(Waker::noop())
            && !self.batched_waker.as_ref().is_some_and(|(batched_waker, _)| batched_waker.wakes(waker))
        {
            let batched_waker = Arc::new(BatchedWaker::new(waker.clone(), &self.worker.wake_batch));
            self.batched_waker = Some((Arc::clone(&batched_waker), batched_waker.into()));
        }
    }

    /// Ends a run that is not over. Where the lambda blocks, a poll may be under way in its own runtime: a thread of
    /// the pool waits for that, and not this one.
    fn cancel(&self, run: AsyncRun) {
        let keeps_context = self.generation.plugin.keeps_cancelled() && self.failed.is_none();
        let run = if self.generation.placement.current() == Place::Inline {
            run
        } else {
            let (effe, generation) = (Arc::clone(&self.worker.effe), Arc::clone(&self.generation));
            match self.worker.effe.end_on_pool(Box::new(UnwantedRun { effe, generation, run, keeps_context }))
            {
                Ok(()) => return,
                Err(unwanted) => unwanted.run,
            }
        };
        let (context, call) = self.worker.cancel(&self.generation, run);
        let in_time = self.worker.effe.end(&call);
        self.worker.in_flight.keep(call);
        self.worker.settle(&self.generation, context, keeps_context && in_time);
    }

    /// The client is told that it takes too long; to be followed by the drop. Where the lambda blocks, the thread that
    /// ends the run is lost until the run's last poll has ended: how many threads are.
    pub fn overdue(&self) -> Option<usize> {
        let blocks =
            matches!(self.step, Step::Running(_)) && self.generation.placement.current() != Place::Inline;
        (blocks && self.progress.is_overdue()).then(|| self.worker.effe.lose_thread())
    }
}

impl Future for AsyncCall {
    type Output = Box<Call>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Box<Call>> {
        let waker = cx.waker();
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Starting(mut starting, call) => match Pin::new(&mut starting).poll(cx) {
                Poll::Pending => {
                    self.step = Step::Starting(starting, call);
                    Poll::Pending
                }
                Poll::Ready(started) => match self.started(started, call) {
                    Ok(run) => self.poll_run(run, waker),
                    Err(call) => Poll::Ready(call),
                },
            },
            Step::Running(run) => self.poll_run(run, waker),
            Step::Over => unreachable!("a future is not polled again once it is ready"),
        }
    }
}

impl Drop for AsyncCall {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Over => {}
            Step::Running(run) => self.cancel(run),
            // Clients that are less patient than Start must not keep it from ever ending.
            Step::Starting(starting, call) => {
                self.worker.in_flight.keep(call);
                let generation = Arc::clone(&self.generation);
                let task = async move {
                    let unwanted = match starting.await {
                        Started::Ready(context) => generation.contexts.give(Box::new(context)),
                        Started::Failed(context, _) => Some(Box::new(context)),
                        Started::Panicked(_) => None,
                    };
                    if let Some(context) = unwanted {
                        context.stop_polled().await;
                    }
                };
                self.worker.background.add(&self.worker.status, Box::pin(task));
            }
        }
    }
}
