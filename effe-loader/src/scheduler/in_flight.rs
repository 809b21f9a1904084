//! A request on its way to the pool and back: the job that owns all that a run touches, and the desk of the
//! server's thread that waits for it.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::{sync::Notify, time};

use crate::{
    body::sender::Streams,
    exchange::{Room, response::Answer},
    http::head::OwnedHead,
    net::activity::Hangup,
    rt::clock::Moment,
};

/// Calls that a desk keeps for the next requests, of some hundred bytes each.
const MAX_SPARE: usize = 1024;
/// How late a timeout may be: a twentieth of itself, within these bounds.
const TICKS: u32 = 20;
const SHORTEST_TICK: Duration = Duration::from_millis(5);
const LONGEST_TICK: Duration = Duration::from_millis(250);

/// One request and the room for its answer. Used again for the next request, so that the steady state allocates
/// nothing.
pub struct Call {
    /// The request's head.
    pub head: OwnedHead,
    /// The request's body.
    pub body: Bytes,
    /// Where the answer goes.
    pub answer: Answer,
    /// What of it goes piece by piece.
    pub streams: Streams,
    /// How far it is, which both sides see.
    pub progress: Arc<Progress>,
    /// When the client is told that it took too long.
    pub deadline: Option<Moment>,
    /// Where an async run keeps what it is lent.
    pub room: Room,
    mailbox: Arc<Mailbox>,
    key: usize,
}

impl Call {
    /// Puts the call into the mailbox of the desk it came from, whose thread is not woken yet.
    pub fn send_back(self: Box<Self>) -> Arc<Mailbox> {
        let mailbox = Arc::clone(&self.mailbox);
        mailbox.calls.push(self);
        mailbox
    }
}

/// How far a call is.
#[derive(Default)]
pub struct Progress {
    /// Whether the client has left.
    pub gone: AtomicBool,
    /// An async run that wants to know.
    leaving: AtomicWaker,
    /// What the request is called, once somebody needs that.
    pub id: OnceLock<String>,
    step: AtomicU8,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
/// The client has been told that there was no thread in time.
const GIVEN_UP: u8 = 2;
/// The client has been told that the run took too long.
const OVERDUE: u8 = 3;
const DONE: u8 = 4;

impl Progress {
    /// Ready once the client has left.
    pub fn poll_left(&self, context: &mut Context<'_>) -> Poll<()> {
        self.leaving.register(context.waker());
        if self.gone.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A call begins to run that nobody else has yet.
    pub fn begin_alone(&self) {
        self.step.store(RUNNING, Ordering::Relaxed);
    }

    /// A thread takes the call up; false if nobody waits for it any more.
    pub fn begin(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && self.step(QUEUED, RUNNING)
    }

    /// The run has ended; false if that was after the client had been told that it took too long.
    pub fn end(&self) -> bool {
        self.step.swap(DONE, Ordering::AcqRel) != OVERDUE
    }

    /// There is no thread for the call, or none in time; false if one has taken it up.
    pub fn give_up(&self) -> bool {
        self.step(QUEUED, GIVEN_UP)
    }

    /// Whether no thread has taken the call up, and none will.
    pub fn is_given_up(&self) -> bool {
        self.step.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The run takes too long, as the client is told; false if it has ended.
    pub fn is_overdue(&self) -> bool {
        self.step(RUNNING, OVERDUE)
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.step.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Hangup for Progress {
    fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.leaving.wake();
    }
}

/// Where calls come back to.
#[derive(Default)]
pub struct Mailbox {
    calls: SegQueue<Box<Call>>,
    arrived: Notify,
}

impl Mailbox {
    /// Wakes the desk: once for all that is in the box when it comes to look.
    pub fn ring(&self) {
        self.arrived.notify_one();
    }

    /// Whether nothing waits to be taken out.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

/// How long a call may be away; `None` for ever.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a thread takes it up.
    pub queue: Option<Duration>,
    /// Until it is answered.
    pub run: Option<Duration>,
}

/// The calls of one thread of the server.
pub struct Desk {
    mailbox: Arc<Mailbox>,
    waiting: RefCell<Slab<Waiting>>,
    #[expect(clippy::vec_box, reason = "a call travels in its box")]
    spare: RefCell<Vec<Box<Call>>>,
    timeouts: Timeouts,
    tick: Duration,
    /// Whether the timer runs.
    ticking: Cell<bool>,
    /// Whether calls were sent away that nobody has been woken for.
    sent: Cell<bool>,
}

struct Waiting {
    sent: Moment,
    /// Whether it may be late: an answer whose head has gone out takes as long as it takes.
    is_timed: bool,
    progress: Arc<Progress>,
    state: State,
}

enum State {
    Away(Option<Waker>),
    Back(Box<Call>),
    GivenUp,
    Overdue,
    /// The client left first.
    Left,
}

/// What became of a call.
pub enum Outcome {
    /// It is back.
    Back(Box<Call>),
    /// No thread took it up in time.
    GivenUp,
    /// Its run takes too long. It goes on, and nobody waits for it.
    Overdue(Arc<Progress>),
}

impl Desk {
    /// A desk; `run` must be spawned for calls to come back.
    pub fn new(timeouts: Timeouts) -> Desk {
        let shortest = [timeouts.queue, timeouts.run].into_iter().flatten().min();
        let tick = shortest.map_or(LONGEST_TICK, |shortest| shortest / TICKS);
        Desk {
            mailbox: Arc::default(),
            waiting: RefCell::default(),
            spare: RefCell::default(),
            timeouts,
            tick: tick.clamp(SHORTEST_TICK, LONGEST_TICK),
            ticking: Cell::new(false),
            sent: Cell::new(false),
        }
    }

    /// Where its calls come back to.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// A call with empty buffers.
    pub fn call(&self) -> Box<Call> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| {
            Box::new(Call {
                head: OwnedHead::default(),
                body: Bytes::new(),
                answer: Answer::default(),
                streams: Streams::NONE,
                progress: Arc::default(),
                deadline: None,
                room: Room::default(),
                mailbox: Arc::clone(&self.mailbox),
                key: usize::MAX,
            })
        })
    }

    /// Takes a call back that is done with.
    pub fn keep(&self, mut call: Box<Call>) {
        call.streams = Streams::NONE;
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            call.body = Bytes::new();
            call.answer.clear();
            // Nobody else looks at it: a new one only where that isn't sure.
            match Arc::get_mut(&mut call.progress) {
                Some(progress) => *progress = Progress::default(),
                None => call.progress = Arc::default(),
            }
            spare.push(call);
        }
    }

    /// Sends a call away and waits until it is back or late. Dropping the future tells the run that the client has
    /// left.
    pub fn ask(self: &Rc<Self>, mut call: Box<Call>, send: impl FnOnce(Box<Call>)) -> Asked {
        let sent = Moment::now();
        call.deadline = self.timeouts.run.map(|timeout| sent + timeout);
        let waiting =
            Waiting { sent, is_timed: true, progress: Arc::clone(&call.progress), state: State::Away(None) };
        let key = self.waiting.borrow_mut().insert(waiting);
        call.key = key;
        let may_be_late = self.timeouts.queue.is_some() || self.timeouts.run.is_some();
        self.ticking.set(self.ticking.get() || may_be_late);
        if !self.sent.replace(true) {
            // `run` comes to its turn after the connections that are ready now.
            self.mailbox.ring();
        }
        send(call);
        Asked { desk: Rc::clone(self), key: Some(key) }
    }

    /// Hands out what comes back, and what is late, for as long as the thread serves; `wake` wakes whoever takes up
    /// what was sent away.
    pub async fn run(self: Rc<Self>, wake: impl Fn()) {
        let mut timer = std::pin::pin!(time::sleep(self.tick));
        loop {
            let mut arrived = std::pin::pin!(self.mailbox.arrived.notified());
            loop {
                let arrival = poll_fn(|context| {
                    if arrived.as_mut().poll(context).is_ready() {
                        return Poll::Ready(true);
                    }
                    if self.ticking.get() {
                        timer.as_mut().poll(context).map(|()| false)
                    } else {
                        Poll::Pending
                    }
                });
                if arrival.await {
                    break;
                }
                self.strike();
                self.ticking.set(!self.waiting.borrow().is_empty());
                timer.as_mut().reset(time::Instant::now() + self.tick);
            }
            if self.sent.take() {
                wake();
            }
            while let Some(call) = self.mailbox.calls.pop() {
                self.arrive(call);
            }
        }
    }

    fn arrive(&self, call: Box<Call>) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(place) = waiting.get_mut(call.key) else { return };
        if let State::Away(waker) = &mut place.state {
            let waker = waker.take();
            place.state = State::Back(call);
            drop(waiting);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else {
            waiting.remove(call.key);
            drop(waiting);
            self.keep(call);
        }
    }

    /// Tells whoever waits for a call that is late by now. One look at all that is away costs less than a timer for
    /// each of them.
    fn strike(&self) {
        for (_, place) in &mut *self.waiting.borrow_mut() {
            let State::Away(waker) = &mut place.state else { continue };
            if !place.is_timed {
                continue;
            }
            let late =
                |timeout: Option<Duration>| timeout.is_some_and(|timeout| place.sent.elapsed() >= timeout);
            let verdict = if late(self.timeouts.run) && place.progress.is_overdue() {
                State::Overdue
            } else if (late(self.timeouts.queue) || late(self.timeouts.run)) && place.progress.give_up() {
                State::GivenUp
            } else {
                continue;
            };
            if let Some(waker) = waker.take() {
                // It only schedules the task that waits.
                waker.wake();
            }
            place.state = verdict;
        }
    }
}

/// A call that is away.
pub struct Asked {
    desk: Rc<Desk>,
    /// `None` once the outcome is known.
    key: Option<usize>,
}

impl Asked {
    /// How far the call is.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        let waiting = self.desk.waiting.borrow();
        self.key.and_then(|key| waiting.get(key)).map(|place| Arc::clone(&place.progress))
    }

    /// The call isn't late any more, whatever it takes.
    pub fn take_your_time(&self) {
        let mut waiting = self.desk.waiting.borrow_mut();
        if let Some(place) = self.key.and_then(|key| waiting.get_mut(key)) {
            place.is_timed = false;
        }
    }
}

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key.expect("a future is not polled again once it is ready");
        let mut waiting = self.desk.waiting.borrow_mut();
        if let State::Away(waker) = &mut waiting[key].state {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Until the call itself arrives, its place stays taken.
        let outcome = match std::mem::replace(&mut waiting[key].state, State::Left) {
            State::Back(call) => {
                waiting.remove(key);
                Outcome::Back(call)
            }
            State::GivenUp => Outcome::GivenUp,
            State::Overdue => Outcome::Overdue(Arc::clone(&waiting[key].progress)),
            State::Away(_) | State::Left => unreachable!("seen above; only a drop says that it left"),
        };
        drop(waiting);
        self.key = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut waiting = self.desk.waiting.borrow_mut();
        let place = &mut waiting[key];
        if let State::Back(_) = place.state {
            if let State::Back(call) = waiting.remove(key).state {
                drop(waiting);
                self.desk.keep(call);
            }
        } else {
            place.progress.gone.store(true, Ordering::Relaxed);
            place.state = State::Left;
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::rt;

    use super::*;

    const NONE: Timeouts = Timeouts { queue: None, run: None };

    fn served<T>(timeouts: Timeouts, test: impl AsyncFnOnce(Rc<Desk>) -> T) -> T {
        rt::System::new().block_on(async {
            let desk = Rc::new(Desk::new(timeouts));
            rt::spawn(Rc::clone(&desk).run(|| ()));
            test(desk).await
        })
    }

    fn away(desk: &Rc<Desk>) -> (Asked, Box<Call>) {
        let mut sent = None;
        let asked = desk.ask(desk.call(), |call| sent = Some(call));
        (asked, sent.unwrap())
    }

    #[test]
    fn a_call_comes_back_to_whoever_waits_for_it() {
        served(NONE, async |desk| {
            let (first, mut call) = away(&desk);
            let (second, other) = away(&desk);
            call.body = Bytes::from_static(b"first");
            std::thread::spawn(move || {
                other.send_back().ring();
                call.send_back().ring();
            });
            assert!(matches!(first.await, Outcome::Back(call) if &call.body[..] == b"first"));
            assert!(matches!(second.await, Outcome::Back(call) if call.body.is_empty()));
            assert!(desk.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn a_client_that_leaves_is_seen_by_the_run_and_its_call_is_kept() {
        served(NONE, async |desk| {
            let (asked, call) = away(&desk);
            assert!(call.progress.begin());
            drop(asked);
            assert!(call.progress.gone.load(Ordering::Relaxed));
            call.send_back().ring();
            let (next, call) = away(&desk);
            call.send_back().ring();
            assert!(matches!(next.await, Outcome::Back(_)));
            assert!(desk.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn what_no_thread_takes_up_in_time_is_given_up() {
        let timeouts = Timeouts { queue: Some(Duration::from_millis(20)), run: None };
        served(timeouts, async |desk| {
            let (asked, call) = away(&desk);
            assert!(matches!(asked.await, Outcome::GivenUp));
            assert!(!call.progress.begin(), "nobody waits for it");
            call.send_back().ring();
            let (_running, call) = away(&desk);
            assert!(call.progress.begin());
            rt::time::sleep(Duration::from_millis(60)).await;
            assert!(call.progress.end(), "a run has its own timeout");
        });
    }

    #[test]
    fn what_runs_too_long_is_overdue_once() {
        let timeouts = Timeouts { queue: None, run: Some(Duration::from_millis(20)) };
        served(timeouts, async |desk| {
            let (asked, call) = away(&desk);
            assert!(call.progress.begin());
            assert!(call.deadline.is_some());
            assert!(matches!(asked.await, Outcome::Overdue(_)));
            assert_eq!(desk.waiting.borrow().len(), 1, "its place is taken until it is back");
            assert!(!call.progress.end());
            call.send_back().ring();
            rt::task::yield_now().await;
            rt::task::yield_now().await;
            assert!(desk.waiting.borrow().is_empty());
        });
    }
}
