//! Async runs on the server's thread that their request came to, which polls them; the lambda may spawn a run in its
//! own runtime behind that. A run that is dropped is cancelled.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use tokio::time;

use crate::{
    body::sender::BodySender,
    effe::{Effe, UnwantedRun, generation::Generation},
    exchange::{
        call::{Call, Progress},
        run::AsyncRun,
    },
    message::request::RequestHead,
    placement::run_clock::Ended,
    plugin::{Context, Fault, Started, Starting},
    rt::{
        clock::Moment,
        wake_batch::{BatchedWaker, WakeBatch},
    },
    scheduler::{background::BackgroundTasks, in_flight::InFlight, worker_status::WorkerStatus},
};

/// What the runs of one thread of the server share.
pub struct Worker {
    pub effe: Arc<Effe>,
    pub status: Arc<WorkerStatus>,
    pub in_flight: Rc<InFlight>,
    pub background: Rc<BackgroundTasks>,
    pub wake_batch: Arc<WakeBatch>,
}

impl Worker {
    /// Polls a request's run once. Most runs are over then, and the call comes back with its answer. Another one must
    /// be polled again at once, because this poll's waker wakes nothing. Where the last run waited, this poll is left
    /// out.
    pub fn run(
        self: &Rc<Worker>,
        generation: &Arc<Generation>,
        call: Box<Call>,
        now: Moment,
    ) -> Result<Box<Call>, Box<AsyncCall>> {
        if generation.placement.waits() {
            return Err(Box::new(AsyncCall::new(self, Arc::clone(generation), call, now)));
        }
        let Some(context) = generation.contexts.take() else {
            let mut waiting = AsyncCall::new(self, Arc::clone(generation), call, now);
            return match Pin::new(&mut waiting).poll(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Ready(call) => Ok(call),
                Poll::Pending => Err(Box::new(waiting)),
            };
        };
        // Without an `AsyncCall`, of which most runs have no need.
        call.progress.begin_alone();
        let deadline = call.deadline;
        let since = self.status.meter.is_some().then_some(now);
        let mut run = self.begin(generation, context, call);
        match self.poll(generation, &mut run, Waker::noop(), Some(now)) {
            Poll::Ready(outcome) => {
                generation.placement.waited(0);
                Ok(self.finish(generation, run, outcome, since, None))
            }
            Poll::Pending => {
                let parts = (deadline, Arc::clone(run.progress()), run.sender().cloned());
                let (generation, step) = (Arc::clone(generation), Step::Running(run));
                Err(Box::new(AsyncCall::at(step, self, generation, parts, since)))
            }
        }
    }

    fn begin(&self, generation: &Generation, context: Box<Context>, call: Box<Call>) -> AsyncRun {
        AsyncRun::new(context, call, self.effe.limits.response, Arc::clone(&generation.placement))
    }

    fn poll(
        &self,
        generation: &Generation,
        run: &mut AsyncRun,
        waker: &Waker,
        now: Option<Moment>,
    ) -> Poll<Result<(), Fault>> {
        self.status.serve(run.served());
        let begun = self.status.begin(run.head().method.as_str(), run.head().path(), generation.number, now);
        let polled = run.poll(waker);
        if let Some(took) = self.polled(generation, begun, run.head()) {
            run.took(took);
        }
        polled
    }

    /// Drops a run. That runs code of the lambda's, and waits for a poll that is under way on another thread, so it
    /// counts as a poll.
    fn cancel(&self, generation: &Generation, run: AsyncRun) -> (Box<Context>, Box<Call>) {
        self.status.serve(run.served());
        let begun = self.status.begin(run.head().method.as_str(), run.head().path(), generation.number, None);
        let (context, call) = run.take_apart();
        self.polled(generation, begun, &call.head);
        (context, call)
    }

    /// How long a poll took that has ended; `None` if the thread was kept from it.
    fn polled(&self, generation: &Generation, begun: Moment, head: &RequestHead) -> Option<Duration> {
        let Ended { took, preempted } = self.status.end(begun);
        if preempted {
            return None;
        }
        generation.placement.ran_inline(took, || (head.method.as_str(), head.path()));
        Some(took)
    }

    /// The run is over: settles its Context, and returns the call with its answer.
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

    fn settle(&self, generation: &Generation, context: Box<Context>, reusable: bool) {
        let unwanted = if reusable { generation.contexts.give(context) } else { Some(context) };
        if let Some(context) = unwanted {
            self.background.add(&self.status, context.stop_polled());
        }
    }
}

/// A request and its run, from Start to the end of the answer. Dropped before that, the run is cancelled.
pub struct AsyncCall {
    worker: Rc<Worker>,
    generation: Arc<Generation>,
    step: Step,
    /// The fault of Start, if it failed: then this run is its Context's only one.
    failed: Option<Fault>,
    /// The waker of the run's polls, once the run was not ready at once.
    batched_waker: Option<(Arc<BatchedWaker>, Waker)>,
    /// How many polls with a waker were not ready.
    n_waits: u32,
    /// When the client is told that it takes too long.
    pub deadline: Option<Moment>,
    pub progress: Arc<Progress>,
    /// For the body of the answer, if it may be sent piece by piece.
    pub sender: Option<Arc<BodySender>>,
    /// Whether the answer has gone, and the run goes on in the background.
    goes_on: bool,
    /// When Start or Run began, if runs are measured.
    since: Option<Moment>,
    /// The time just before the first poll of a run, which saves a look at the clock.
    now: Option<Moment>,
}

/// The rest of a run that has taken its connection over.
struct WithConnection {
    /// `None` once it is over.
    rest: Option<Pin<Box<dyn Future<Output = ()>>>>,
    worker: Rc<Worker>,
}

impl Future for WithConnection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            task::ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        Poll::Ready(())
    }
}

impl Drop for WithConnection {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take().filter(|_| !self.worker.background.is_over()) {
            self.worker.background.add_uncounted(rest);
        }
    }
}

enum Step {
    Starting(Starting, Box<Call>),
    Running(AsyncRun),
    Over,
}

impl AsyncCall {
    /// Begins a run; nothing happens before it is polled, which is to be at once.
    pub fn new(worker: &Rc<Worker>, generation: Arc<Generation>, call: Box<Call>, now: Moment) -> AsyncCall {
        call.progress.begin_alone();
        let parts = (call.deadline, Arc::clone(&call.progress), call.streams.response.clone());
        let since = worker.status.meter.is_some().then_some(now);
        let (step, now) = match generation.contexts.take() {
            Some(context) => (Step::Running(worker.begin(&generation, context, call)), Some(now)),
            None => (Step::Starting(generation.plugin.start_polled(), call), None),
        };
        let mut waiting = AsyncCall::at(step, worker, generation, parts, since);
        waiting.now = now;
        waiting
    }

    fn at(
        step: Step,
        worker: &Rc<Worker>,
        generation: Arc<Generation>,
        (deadline, progress, sender): (Option<Moment>, Arc<Progress>, Option<Arc<BodySender>>),
        since: Option<Moment>,
    ) -> AsyncCall {
        AsyncCall {
            worker: Rc::clone(worker),
            generation,
            step,
            failed: None,
            batched_waker: None,
            n_waits: 0,
            deadline,
            progress,
            sender,
            goes_on: false,
            since,
            now: None,
        }
    }

    /// Lets a run go on in the background after its answer has gone, for as long as a run may take.
    pub fn go_on(mut self) {
        self.goes_on = true;
        let worker = Rc::clone(&self.worker);
        if worker.background.is_over() {
            // To be dropped is to be cancelled.
            return;
        }
        if self.has_connection() {
            worker.background.add_uncounted(worker.effe.counting_upgraded(self.rest()));
        } else {
            worker.background.add(&worker.status, Box::pin(self.rest()));
        }
    }

    /// What a run has left to do that has taken its connection over, for that connection's task to poll. Dropped before
    /// its end, it goes on in the background.
    pub fn go_on_with_connection(mut self) -> Pin<Box<dyn Future<Output = ()>>> {
        self.goes_on = true;
        let worker = Rc::clone(&self.worker);
        let rest = worker.effe.counting_upgraded(self.rest());
        Box::pin(WithConnection { rest: Some(Box::pin(rest)), worker })
    }

    /// Whether the run has taken its connection over.
    fn has_connection(&self) -> bool {
        self.progress.early.rest().is_some_and(|rest| !rest.is_timed)
    }

    /// What it has left to do after its answer.
    fn rest(mut self) -> impl Future<Output = ()> {
        let is_timed = !self.has_connection();
        async move {
            let effe = Arc::clone(&self.worker.effe);
            let ended = match effe.limits.timeouts.run.filter(|_| is_timed) {
                Some(timeout) => time::timeout(timeout, &mut self).await.ok(),
                None => Some((&mut self).await),
            };
            match ended {
                Some(call) => self.keep(call),
                None => {
                    let what = match self.blocks() && self.progress.rest_is_overdue() {
                        true => effe.lose_thread(),
                        false => "it is dropped".to_owned(),
                    };
                    effe.report_rest_overdue(&self.progress, &what);
                }
            }
        }
    }

    /// What is left of it, where only a reference to it is at hand: a run that has ended its answer.
    fn take_rest(&mut self, run: AsyncRun) -> AsyncCall {
        let parts = (self.deadline, Arc::clone(&self.progress), self.sender.clone());
        let generation = Arc::clone(&self.generation);
        let mut rest = AsyncCall::at(Step::Running(run), &self.worker, generation, parts, self.since);
        (rest.failed, rest.n_waits) = (self.failed.take(), self.n_waits);
        rest
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
        let (context, fault) = match started {
            Started::Ready(context) => (Some(context), None),
            Started::Failed(context, fault) => (Some(context), Some(fault)),
            Started::Panicked(fault) => (None, Some(fault)),
        };
        if let Some(fault) = &fault {
            self.worker.effe.log_call("start", &call, fault);
        }
        self.failed = fault;
        let Some(context) = context else {
            if let Some((meter, _)) = meter {
                meter.failed();
            }
            call.progress.end();
            return Err(call);
        };
        Ok(self.worker.begin(&self.generation, Box::new(context), call))
    }

    fn poll_run(&mut self, mut run: AsyncRun, waker: &Waker) -> Poll<Box<Call>> {
        let now = self.now.take();
        self.set_batched_waker(waker);
        let waker = self.batched_waker.as_ref().map_or(waker, |(_, batched_waker)| batched_waker);
        match self.worker.poll(&self.generation, &mut run, waker, now) {
            Poll::Ready(outcome) => {
                // How often a run waits for its own connection says nothing of those that answer requests.
                if !self.has_connection() {
                    self.generation.placement.waited(self.n_waits);
                }
                let failed = self.failed.as_ref();
                Poll::Ready(self.worker.finish(&self.generation, run, outcome, self.since, failed))
            }
            Poll::Pending => {
                // A poll without a waker is followed by another one at once.
                self.n_waits = self.n_waits.saturating_add(u32::from(self.batched_waker.is_some()));
                self.step = Step::Running(run);
                Poll::Pending
            }
        }
    }

    /// Makes the waker for the task that `waker` wakes. The first poll, which wakes nothing, needs none.
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
    fn cancel(&self, mut run: AsyncRun) {
        let keeps_context = self.generation.plugin.keeps_cancelled() && self.failed.is_none();
        if !self.generation.placement.is_inline() {
            let (effe, generation) = (Arc::clone(&self.worker.effe), Arc::clone(&self.generation));
            let unwanted = Box::new(UnwantedRun { effe, generation, run, keeps_context });
            match self.worker.effe.end_on_pool(unwanted) {
                Ok(()) => return,
                Err(unwanted) => run = unwanted.run,
            }
        }
        let (context, call) = self.worker.cancel(&self.generation, run);
        let in_time = self.worker.effe.end(&call);
        self.worker.in_flight.keep(call);
        self.worker.settle(&self.generation, context, keeps_context && in_time);
    }

    /// The client is told that it takes too long; to be followed by the drop. Where the lambda blocks, the thread that
    /// ends the run is lost until the run's last poll has ended. What that means, for the log; `None` if the answer is
    /// here after all.
    pub fn overdue(&self) -> Option<String> {
        if self.blocks() {
            self.progress.is_overdue().then(|| self.worker.effe.lose_thread())
        } else {
            self.progress.refuse_answer().then(|| "it is dropped".to_owned())
        }
    }

    /// Whether a poll of the run may be under way on another thread, and last.
    fn blocks(&self) -> bool {
        matches!(self.step, Step::Running(_)) && !self.generation.placement.is_inline()
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
            Step::Running(run) => {
                // A poll may be under way on another thread: from here on it can't end the answer any more.
                self.progress.refuse_answer();
                if self.progress.is_answered() && !self.goes_on {
                    self.take_rest(run).go_on();
                } else {
                    self.cancel(run);
                }
            }
            // Start goes on, because else it would never end where clients always leave before.
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
