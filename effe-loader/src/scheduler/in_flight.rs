//! The calls of a thread of the server: those that it has sent to the pool and waits for, and those that it keeps for
//! the next requests. If none were kept, an axum Router inline would take 18 % more instructions per request, and hello
//! on the pool 27 % more.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use slab::Slab;
use tokio::time;

use crate::{
    body::{held::HeldBytes, sender::Streams},
    exchange::{
        call::{Call, Completions, Progress},
        response::ResponseBuilder,
    },
    message::request::Request,
    rt::clock::Moment,
};

/// Calls that are kept for the next requests, of some hundred bytes each.
const MAX_SPARE: usize = 1024;
/// How late a timeout may be noticed: a twentieth of itself, within these bounds.
const TICKS: u32 = 20;
const SHORTEST_TICK: Duration = Duration::from_millis(5);
const LONGEST_TICK: Duration = Duration::from_millis(250);

/// How long a call may take; `None` for ever.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a thread begins to run it.
    pub queue: Option<Duration>,
    /// Until it is answered.
    pub run: Option<Duration>,
}

/// The calls of one thread of the server.
pub struct InFlight {
    completions: Arc<Completions>,
    waiting: RefCell<Slab<Waiting>>,
    #[expect(clippy::vec_box, reason = "a call travels in its box")]
    spare: RefCell<Vec<Box<Call>>>,
    timeouts: Timeouts,
    held: Arc<HeldBytes>,
    tick: Duration,
    /// Whether the timer runs.
    ticking: Cell<bool>,
    /// Whether calls were sent to the pool for which no thread has been woken yet.
    sent: Cell<bool>,
}

struct Waiting {
    sent: Moment,
    timing: Timing,
    progress: Arc<Progress>,
    state: State,
    /// Whether the call itself has come back after it was late.
    is_back: bool,
}

/// Which timeouts count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// Those of the answer.
    Answer,
    /// None, because the head of the answer has gone out.
    Nothing,
    /// That of a run, for what it does after its answer.
    Rest,
}

enum State {
    Away(Option<Waker>),
    Back(Box<Call>),
    GivenUp,
    Overdue,
    /// Nobody waits for it any more.
    Left,
}

/// What became of a call.
pub enum Outcome {
    Back(Box<Call>),
    /// No thread has begun to run it in time.
    GivenUp,
    /// Its run takes too long. It goes on, and nobody waits for it.
    Overdue(Arc<Progress>),
}

impl InFlight {
    /// [`run`](InFlight::run) must be spawned for calls to come back.
    pub fn new(timeouts: Timeouts, held: &Arc<HeldBytes>) -> InFlight {
        let shortest = timeouts.queue.into_iter().chain(timeouts.run).min();
        let tick = shortest.map_or(LONGEST_TICK, |shortest| shortest / TICKS);
        InFlight {
            completions: Arc::default(),
            waiting: RefCell::default(),
            spare: RefCell::default(),
            timeouts,
            held: Arc::clone(held),
            tick: tick.clamp(SHORTEST_TICK, LONGEST_TICK),
            ticking: Cell::new(false),
            sent: Cell::new(false),
        }
    }

    pub fn completions(&self) -> &Arc<Completions> {
        &self.completions
    }

    /// A call with empty buffers.
    pub fn call(&self) -> Box<Call> {
        let new = || {
            let response = ResponseBuilder::new(&self.held);
            Box::new(Call::new(Arc::clone(&self.completions), response, self.timeouts.run))
        };
        self.spare.borrow_mut().pop().unwrap_or_else(new)
    }

    /// Takes back a call that is over.
    pub fn keep(&self, mut call: Box<Call>) {
        call.streams = Streams::NONE;
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            (call.head, call.body) = (Request::default(), Bytes::new());
            call.response.clear();
            // Used again if nobody else has it.
            match Arc::get_mut(&mut call.progress) {
                Some(progress) => *progress = Progress::default(),
                None => call.progress = Arc::default(),
            }
            spare.push(call);
        }
    }

    /// Sends a call to the pool and waits until it is back or late. Dropping the future tells the run that the client
    /// has left.
    pub fn ask(self: &Rc<Self>, mut call: Box<Call>, send: impl FnOnce(Box<Call>)) -> PendingCall {
        let sent = Moment::now();
        call.deadline = call.head.invoked.deadline(self.timeouts.run.map(|timeout| sent + timeout));
        let (progress, state) = (Arc::clone(&call.progress), State::Away(None));
        let waiting = Waiting { sent, timing: Timing::Answer, progress, state, is_back: false };
        let key = self.waiting.borrow_mut().insert(waiting);
        call.key = key;
        let may_be_late = self.timeouts.queue.is_some() || self.timeouts.run.is_some();
        self.ticking.set(self.ticking.get() || may_be_late);
        if !self.sent.replace(true) {
            // `run` is polled after the connections that are ready now, and wakes the pool once for all their calls.
            self.completions.ring();
        }
        send(call);
        PendingCall { in_flight: Rc::clone(self), key: Some(key) }
    }

    /// Hands out the calls that come back, and tells those who wait for late ones, for as long as the thread serves;
    /// `wake` wakes the pool.
    pub async fn run(self: Rc<Self>, wake: impl Fn()) {
        let mut timer = std::pin::pin!(time::sleep(self.tick));
        loop {
            let mut arrived = std::pin::pin!(self.completions.arrived.notified());
            loop {
                let has_arrived = poll_fn(|cx| match arrived.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if self.ticking.get() => timer.as_mut().poll(cx).map(|()| false),
                    Poll::Pending => Poll::Pending,
                });
                if has_arrived.await {
                    break;
                }
                self.expire();
                self.ticking.set(!self.waiting.borrow().is_empty());
                timer.as_mut().reset(time::Instant::now() + self.tick);
            }
            if self.sent.take() {
                wake();
            }
            while let Some(call) = self.completions.calls.pop() {
                self.arrive(call);
            }
        }
    }

    fn arrive(&self, call: Box<Call>) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(place) = waiting.get_mut(call.key) else { return };
        match &mut place.state {
            State::Away(waker) => {
                let waker = waker.take();
                place.state = State::Back(call);
                drop(waiting);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
            // The task that waits for it has been woken, and frees the place.
            State::GivenUp | State::Overdue => place.is_back = true,
            State::Back(_) | State::Left => drop(waiting.remove(call.key)),
        }
        drop(waiting);
        self.keep(call);
    }

    /// Wakes the tasks whose call is late by now. To look at all calls costs less than a timer for each.
    fn expire(&self) {
        for (_, place) in &mut *self.waiting.borrow_mut() {
            let State::Away(waker) = &mut place.state else { continue };
            let late =
                |timeout: Option<Duration>| timeout.is_some_and(|timeout| place.sent.elapsed() >= timeout);
            let is_overdue = match place.timing {
                Timing::Answer => late(self.timeouts.run) && place.progress.is_overdue(),
                Timing::Nothing => continue,
                Timing::Rest => late(self.timeouts.run) && place.progress.rest_is_overdue(),
            };
            let verdict = if is_overdue {
                State::Overdue
            } else if (late(self.timeouts.queue) || late(self.timeouts.run)) && place.progress.give_up() {
                State::GivenUp
            } else {
                continue;
            };
            // It only schedules the task, which looks at the state later.
            if let Some(waker) = waker.take() {
                waker.wake();
            }
            place.state = verdict;
        }
    }
}

/// A call that is on the pool.
pub struct PendingCall {
    in_flight: Rc<InFlight>,
    /// `None` once the outcome is known.
    key: Option<usize>,
}

impl PendingCall {
    pub fn progress(&self) -> Option<Arc<Progress>> {
        let waiting = self.in_flight.waiting.borrow();
        self.key.and_then(|key| waiting.get(key)).map(|place| Arc::clone(&place.progress))
    }

    /// The timeouts don't count any more.
    pub fn take_your_time(&self) {
        let mut waiting = self.in_flight.waiting.borrow_mut();
        if let Some(place) = self.key.and_then(|key| waiting.get_mut(key)) {
            place.timing = Timing::Nothing;
        }
    }

    /// From now on a run has its time for what it does after its answer.
    pub fn begin_rest(&self) {
        let mut waiting = self.in_flight.waiting.borrow_mut();
        if let Some(place) = self.key.and_then(|key| waiting.get_mut(key)) {
            (place.timing, place.sent) = (Timing::Rest, Moment::now());
        }
    }
}

impl Future for PendingCall {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key.expect("a future is not polled again once it is ready");
        let mut waiting = self.in_flight.waiting.borrow_mut();
        if let State::Away(waker) = &mut waiting[key].state {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // The place is taken until the call itself is back.
        let outcome = match std::mem::replace(&mut waiting[key].state, State::Left) {
            State::Back(call) => {
                waiting.remove(key);
                Outcome::Back(call)
            }
            State::GivenUp => Outcome::GivenUp,
            State::Overdue => Outcome::Overdue(Arc::clone(&waiting[key].progress)),
            State::Away(_) | State::Left => unreachable!("seen above; only a drop says that it left"),
        };
        if waiting.get(key).is_some_and(|place| place.is_back) {
            waiting.remove(key);
        }
        drop(waiting);
        self.key = None;
        Poll::Ready(outcome)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut waiting = self.in_flight.waiting.borrow_mut();
        let place = &mut waiting[key];
        if !matches!(place.state, State::Back(_)) {
            place.progress.abandon();
        }
        match std::mem::replace(&mut place.state, State::Left) {
            State::Back(call) => {
                waiting.remove(key);
                drop(waiting);
                self.in_flight.keep(call);
            }
            _ if place.is_back => drop(waiting.remove(key)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use actix_web::rt;

    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_millis(20));

    fn served<T>(
        queue: Option<Duration>,
        run: Option<Duration>,
        test: impl AsyncFnOnce(Rc<InFlight>) -> T,
    ) -> T {
        rt::System::new().block_on(async {
            let in_flight = Rc::new(InFlight::new(Timeouts { queue, run }, &HeldBytes::unlimited()));
            rt::spawn(Rc::clone(&in_flight).run(|| ()));
            test(in_flight).await
        })
    }

    fn away(in_flight: &Rc<InFlight>) -> (PendingCall, Box<Call>) {
        let mut sent = None;
        let pending = in_flight.ask(in_flight.call(), |call| sent = Some(call));
        (pending, sent.unwrap())
    }

    /// The call comes back late, and has arrived once this returns.
    async fn returns_late(call: Box<Call>) {
        assert!(!call.progress.end());
        call.send_back().ring();
        rt::task::yield_now().await;
        rt::task::yield_now().await;
    }

    #[test]
    fn a_call_comes_back_to_whoever_waits_for_it() {
        served(None, None, async |in_flight| {
            let (first, mut call) = away(&in_flight);
            let (second, other) = away(&in_flight);
            call.body = Bytes::from_static(b"first");
            std::thread::spawn(move || {
                other.send_back().ring();
                call.send_back().ring();
            });
            assert!(matches!(first.await, Outcome::Back(call) if &call.body[..] == b"first"));
            assert!(matches!(second.await, Outcome::Back(call) if call.body.is_empty()));
            assert!(in_flight.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn a_client_that_leaves_is_seen_by_the_run_and_its_call_is_kept() {
        served(None, None, async |in_flight| {
            let (pending, call) = away(&in_flight);
            assert!(call.progress.begin());
            drop(pending);
            assert!(call.progress.gone.load(Ordering::Relaxed));
            call.send_back().ring();
            let (next, call) = away(&in_flight);
            call.send_back().ring();
            assert!(matches!(next.await, Outcome::Back(_)));
            assert!(in_flight.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn what_no_thread_takes_up_in_time_is_given_up() {
        served(SHORT, None, async |in_flight| {
            let (pending, call) = away(&in_flight);
            assert!(matches!(pending.await, Outcome::GivenUp));
            assert!(!call.progress.begin(), "nobody waits for it");
            call.send_back().ring();
            let (_running, call) = away(&in_flight);
            assert!(call.progress.begin());
            rt::time::sleep(Duration::from_millis(60)).await;
            assert!(call.progress.end(), "a run has its own timeout");
        });
    }

    #[test]
    fn a_call_that_is_late_and_back_before_anybody_looks_is_overdue_all_the_same() {
        served(None, SHORT, async |in_flight| {
            let (mut pending, call) = away(&in_flight);
            assert!(call.progress.begin());
            assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut pending).poll(cx))).await.is_pending());
            // `pending` is not polled until the call is back.
            poll_fn(|cx| call.progress.poll_unwanted(cx)).await;
            returns_late(call).await;
            assert!(matches!(pending.await, Outcome::Overdue(_)));
            assert!(in_flight.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn what_runs_too_long_is_overdue_once() {
        served(None, SHORT, async |in_flight| {
            let (pending, call) = away(&in_flight);
            assert!(call.progress.begin());
            assert!(call.deadline.is_some());
            assert!(matches!(pending.await, Outcome::Overdue(_)));
            assert_eq!(in_flight.waiting.borrow().len(), 1, "its place is taken until it is back");
            returns_late(call).await;
            assert!(in_flight.waiting.borrow().is_empty());
        });
    }
}
