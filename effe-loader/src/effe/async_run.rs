//! Async runs: each is polled on the server's thread that its request came to, or, if the lambda has been seen to
//! block there, on the pool. The lambda may poll it on a thread of its own behind that. Whoever drops it cancels it.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::{
    body::sender::Outlet,
    effe::{Effe, count, generation::Generation},
    exchange::{
        call::{Call, Progress},
        run::AsyncRun,
    },
    plugin::{Context, Fault, Started, Starting},
    rt::{
        clock::Moment,
        wake_batch::{Alarm, Wakeups},
    },
    scheduler::{
        background::Errands,
        in_flight::Desk,
        worker_status::{Ended, Seat},
    },
};

/// What async runs of one thread of the server share.
pub struct Thread {
    /// The effe.
    pub effe: Arc<Effe>,
    /// Where others see what this thread does.
    pub seat: Arc<Seat>,
    /// Where calls come from and go to.
    pub desk: Rc<Desk>,
    /// What must be brought to its end.
    pub errands: Rc<Errands>,
    /// Tasks of this thread that others wake.
    pub wakeups: Arc<Wakeups>,
}

impl Thread {
    /// Runs a request, as far as one poll gets. Most are over then: the call with its answer; those that are not have
    /// to be polled once more at once, for nobody is woken by this poll. Where runs are not over then, that is left out.
    pub fn run(
        self: &Rc<Thread>,
        generation: &Arc<Generation>,
        call: Box<Call>,
        now: Moment,
    ) -> Result<Box<Call>, Box<Waiting>> {
        let (is_inline, waits) = (generation.execution.is_inline(), generation.execution.waits());
        let Some(context) = (is_inline && !waits).then(|| generation.contexts.take()).flatten() else {
            let mut waiting = Waiting::new(self, Arc::clone(generation), call, now);
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
        let since = self.seat.meter.is_some().then_some(now);
        let mut run = self.begin(generation, context, call);
        match self.poll(generation, &mut run, Waker::noop(), Some(now)) {
            Poll::Ready(outcome) => Ok(self.finish(generation, run, outcome, since, None)),
            Poll::Pending => Err(Box::new(Waiting {
                thread: Rc::clone(self),
                generation: Arc::clone(generation),
                failed: None,
                alarm: None,
                bell: None,
                has_waited: true,
                deadline,
                progress: Arc::clone(run.progress()),
                outlet: run.outlet().cloned(),
                since,
                now: None,
                place: Place::Here(run),
            })),
        }
    }

    fn begin(&self, generation: &Generation, context: Box<Context>, call: Box<Call>) -> AsyncRun {
        AsyncRun::new(context, call, self.effe.response_limit(), Arc::clone(&generation.execution))
    }

    /// A poll on this thread.
    fn poll(
        &self,
        generation: &Generation,
        run: &mut AsyncRun,
        waker: &Waker,
        now: Option<Moment>,
    ) -> Polled {
        let begun = self.seat.begin(run.head().method(), run.head().path(), generation.number, now);
        let polled = run.poll(waker);
        let Ended { took, excused } = self.seat.end(begun);
        if !excused {
            generation.execution.ran_inline(took, || (run.head().method(), run.head().path()));
        }
        polled
    }

    /// Drops a run, which runs code of the lambda's, and waits for a poll on another thread: others see that this one
    /// is in there, as in a poll.
    fn cancel(&self, generation: &Generation, run: AsyncRun) -> (Box<Context>, Box<Call>) {
        let head = run.head();
        let begun = self.seat.begin(head.method(), head.path(), generation.number, None);
        let parts = run.take_apart();
        let Ended { took, excused } = self.seat.end(begun);
        if !excused {
            let head = &parts.1.head;
            generation.execution.ran_inline(took, || (head.method(), head.path()));
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
        if let (Some(meter), Some(since)) = (&self.seat.meter, since) {
            count(meter, generation, since.elapsed(), failed.is_some() || outcome.is_err());
        }
        let reusable = self.effe.conclude(&mut call, outcome, failed);
        self.settle(generation, context, reusable);
        call
    }

    /// Keeps a Context, or stops it.
    fn settle(&self, generation: &Generation, context: Box<Context>, reusable: bool) {
        let unwanted = if reusable { generation.contexts.give(context) } else { Some(context) };
        if let Some(context) = unwanted {
            self.errands.add(&self.seat, context.stop_polled());
        }
    }
}

/// What came of a poll, wherever it was.
pub type Polled = Poll<Result<(), Fault>>;

/// A request and its run, from Start to the end of the answer. Dropped before that, the run is cancelled.
pub struct Waiting {
    thread: Rc<Thread>,
    generation: Arc<Generation>,
    place: Place,
    /// What Start said, if it failed: then this run is its Context's only one.
    failed: Option<Fault>,
    /// Whom a run wakes that is polled on this thread, once it was not ready at once.
    alarm: Option<(Arc<Alarm>, Waker)>,
    /// Who is woken by a run that is polled on the pool.
    bell: Option<Arc<Bell>>,
    /// Whether it was not ready at its first poll.
    has_waited: bool,
    deadline: Option<Moment>,
    progress: Arc<Progress>,
    /// The answer's way out, if it may go piece by piece.
    outlet: Option<Arc<Outlet>>,
    /// When Start or Run began, if somebody wants to know.
    since: Option<Moment>,
    /// What the clock said just before the first poll of a run: it needs no second look.
    now: Option<Moment>,
}

enum Place {
    /// There was no idle Context.
    Starting(Starting, Box<Call>),
    Here(AsyncRun),
    /// On the pool, for one poll.
    Away(oneshot::Receiver<(AsyncRun, Polled)>),
    Over,
}

impl Waiting {
    /// Begins a run; nothing happens before it is polled, which is to be at once.
    pub fn new(thread: &Rc<Thread>, generation: Arc<Generation>, call: Box<Call>, now: Moment) -> Waiting {
        call.progress.begin_alone();
        let thread = Rc::clone(thread);
        let (place, deadline, progress) = (Place::Over, call.deadline, Arc::clone(&call.progress));
        let outlet = call.streams.outlet.clone();
        let since = thread.seat.meter.is_some().then_some(now);
        let mut waiting = Waiting {
            thread,
            generation,
            place,
            failed: None,
            alarm: None,
            bell: None,
            has_waited: false,
            deadline,
            progress,
            outlet,
            since,
            now: None,
        };
        waiting.place = match waiting.generation.contexts.take() {
            Some(context) => {
                waiting.now = Some(now);
                Place::Here(waiting.thread.begin(&waiting.generation, context, call))
            }
            None => Place::Starting(waiting.generation.plugin.start_polled(), call),
        };
        waiting
    }

    /// The answer's way out, if it may go piece by piece.
    pub fn outlet(&self) -> Option<&Arc<Outlet>> {
        self.outlet.as_ref()
    }

    /// Lets a run go on whose answer has gone: nobody waits for it any more.
    pub fn go_on(self) {
        let thread = Rc::clone(&self.thread);
        let desk = Rc::clone(&thread.desk);
        thread.errands.add(&thread.seat, Box::pin(async move { desk.keep(self.await) }));
    }

    /// Takes back a call whose answer has gone, or whose client has.
    pub fn keep(&self, call: Box<Call>) {
        self.thread.desk.keep(call);
    }

    /// How far its call is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What the request is called, once somebody has asked.
    pub fn id(&self) -> &OnceLock<String> {
        &self.progress.id
    }

    /// When the client is told that it takes too long.
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    /// Start has ended: the run, or the call back if there is none.
    fn started(&mut self, started: Started, call: Box<Call>) -> Result<AsyncRun, Box<Call>> {
        let meter = self.thread.seat.meter.as_ref().zip(self.since);
        if let Some((meter, since)) = meter {
            meter.started(since.elapsed());
            self.since = Some(Moment::now());
        }
        match started {
            Started::Ready(context) => Ok(self.thread.begin(&self.generation, Box::new(context), call)),
            Started::Failed(context, fault) => {
                self.thread.effe.log_call("start", &call, &fault);
                self.failed = Some(fault);
                Ok(self.thread.begin(&self.generation, Box::new(context), call))
            }
            Started::Panicked(fault) => {
                self.thread.effe.log_call("start", &call, &fault);
                if let Some((meter, _)) = meter {
                    meter.failed();
                }
                call.progress.end();
                Err(call)
            }
        }
    }

    fn poll_anywhere(&mut self, run: AsyncRun, waker: &Waker) -> Poll<Box<Call>> {
        let now = self.now.take();
        if self.generation.execution.is_inline() {
            self.poll_here(run, waker, now)
        } else {
            self.poll_there(run, waker)
        }
    }

    /// A poll on this thread.
    fn poll_here(&mut self, mut run: AsyncRun, waker: &Waker, now: Option<Moment>) -> Poll<Box<Call>> {
        self.set_alarm(waker);
        let waker = self.alarm.as_ref().map_or(waker, |(_, alarm)| alarm);
        let polled = self.thread.poll(&self.generation, &mut run, waker, now);
        if let Some(bell) = &self.bell {
            // It has another waker now: when this thread hears it, the bell has to have rung.
            bell.rung.store(true, Ordering::Release);
        }
        self.polled(run, polled)
    }

    /// Sets the alarm for the task that `waker` wakes. The first poll is not worth one: nobody is woken by it.
    fn set_alarm(&mut self, waker: &Waker) {
        if !waker.will_wake(Waker::noop())
            && !self.alarm.as_ref().is_some_and(|(alarm, _)| alarm.is_of(waker))
        {
            let alarm = Arc::new(Alarm::new(waker.clone(), &self.thread.wakeups));
            self.alarm = Some((Arc::clone(&alarm), alarm.into()));
        }
    }

    /// A poll on the pool, if the run was woken.
    fn poll_there(&mut self, run: AsyncRun, waker: &Waker) -> Poll<Box<Call>> {
        let bell = self.bell.get_or_insert_default();
        bell.waker.register(waker);
        if !bell.rung.swap(false, Ordering::AcqRel) {
            self.place = Place::Here(run);
            return Poll::Pending;
        }
        let (reply, back) = oneshot::channel();
        let (effe, generation) = (Arc::clone(&self.thread.effe), Arc::clone(&self.generation));
        let failed = self.failed.is_some();
        let away = Away { effe, generation, run, failed, waker: Arc::clone(bell).into(), reply };
        match self.thread.effe.poll_on_pool(Box::new(away)) {
            Ok(()) => {
                self.place = Place::Away(back);
                self.poll_back(waker)
            }
            // There is no room, and the run has to go on somewhere.
            Err(away) => self.poll_here(away.run, waker, None),
        }
    }

    /// Looks whether the run is back from the pool.
    fn poll_back(&mut self, waker: &Waker) -> Poll<Box<Call>> {
        let Place::Away(back) = &mut self.place else { return Poll::Pending };
        match task::ready!(Pin::new(back).poll(&mut task::Context::from_waker(waker))) {
            Ok((run, Poll::Pending)) => self.poll_there(run, waker),
            Ok((run, polled)) => self.polled(run, polled),
            // Something of ours has panicked there: there is no answer.
            Err(_) => {
                self.place = Place::Over;
                Poll::Ready(self.thread.desk.call())
            }
        }
    }

    fn polled(&mut self, run: AsyncRun, polled: Polled) -> Poll<Box<Call>> {
        match polled {
            Poll::Ready(outcome) => {
                let (since, failed) = (self.since, self.failed.as_ref());
                self.generation.execution.waited(self.has_waited);
                Poll::Ready(self.thread.finish(&self.generation, run, outcome, since, failed))
            }
            Poll::Pending => {
                self.has_waited = true;
                self.place = Place::Here(run);
                Poll::Pending
            }
        }
    }

    /// The client is told that it takes too long; to be followed by the drop. If it is on the pool at this moment, its
    /// thread is lost until it gives it back: how many are.
    pub fn overdue(&self) -> Option<usize> {
        let Place::Away(_) = &self.place else { return None };
        self.progress.is_overdue().then(|| self.thread.effe.lose_thread())
    }
}

impl Future for Waiting {
    type Output = Box<Call>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Box<Call>> {
        let waker = cx.waker();
        match std::mem::replace(&mut self.place, Place::Over) {
            Place::Starting(mut starting, call) => match Pin::new(&mut starting).poll(cx) {
                Poll::Pending => {
                    self.place = Place::Starting(starting, call);
                    Poll::Pending
                }
                Poll::Ready(started) => match self.started(started, call) {
                    Ok(run) => self.poll_anywhere(run, waker),
                    Err(call) => Poll::Ready(call),
                },
            },
            Place::Here(run) => self.poll_anywhere(run, waker),
            away @ Place::Away(..) => {
                self.place = away;
                self.poll_back(waker)
            }
            Place::Over => unreachable!("a future is not polled again once it is ready"),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.place, Place::Over) {
            Place::Over => {}
            Place::Here(run) => {
                let (context, call) = self.thread.cancel(&self.generation, run);
                self.thread.desk.keep(call);
                let reusable = self.generation.plugin.keeps_cancelled() && self.failed.is_none();
                self.thread.settle(&self.generation, context, reusable);
            }
            // Clients that are less patient than Start must not keep it from ever ending.
            Place::Starting(starting, call) => {
                self.thread.desk.keep(call);
                let generation = Arc::clone(&self.generation);
                let errand = async move {
                    let unwanted = match starting.await {
                        Started::Ready(context) => generation.contexts.give(Box::new(context)),
                        Started::Failed(context, _) => Some(Box::new(context)),
                        Started::Panicked(_) => None,
                    };
                    if let Some(context) = unwanted {
                        context.stop_polled().await;
                    }
                };
                self.thread.errands.add(&self.thread.seat, Box::pin(errand));
            }
            // It is taken apart there.
            Place::Away(_) => self.progress.gone.store(true, Ordering::Relaxed),
        }
    }
}

/// One poll of a run, on the pool.
pub struct Away {
    effe: Arc<Effe>,
    generation: Arc<Generation>,
    run: AsyncRun,
    /// Whether the Context's Start failed.
    failed: bool,
    waker: Waker,
    reply: oneshot::Sender<(AsyncRun, Polled)>,
}

impl Away {
    /// Polls, and sends the run back; if nobody waits for it any more, that is its end.
    pub fn poll(self) {
        let Away { effe, generation, mut run, failed, waker, reply } = self;
        let (polled, _) = generation.execution.learn(|| run.poll(&waker));
        let Err((run, polled)) = reply.send((run, polled)) else { return };
        let (context, call) = run.take_apart();
        let in_time = effe.end(&call);
        let fit = match polled {
            Poll::Pending => generation.plugin.keeps_cancelled(),
            Poll::Ready(outcome) => !matches!(outcome, Err(Fault::Panic(_))),
        };
        let reusable = fit && in_time && !failed;
        // On this thread a Stop may wait.
        drop(if reusable { generation.contexts.give(context) } else { Some(context) });
    }

    /// Whether polls of this lambda are short.
    pub fn is_short(&self) -> bool {
        self.generation.execution.is_short()
    }
}

/// Wakes a server's thread for a run that was polled elsewhere, and says that it was this run.
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Bell {
    /// It has rung: a run is polled once without being woken.
    fn default() -> Bell {
        Bell { rung: AtomicBool::new(true), waker: AtomicWaker::new() }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }
}
