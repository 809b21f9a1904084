//! A request on its way to the pool and back: the job that owns all that a run touches, and the desk of the
//! server's thread that waits for it.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use slab::Slab;
use tokio::sync::Notify;

use crate::{answer::Answer, snapshot::Snapshot};

/// Calls that a desk keeps for the next requests; a connection's buffers are larger than all of these.
const MAX_SPARE: usize = 256;

/// One request and the room for its answer. Used again for the next request, so that the steady state allocates
/// nothing.
pub struct Call {
    /// The request's head.
    pub head: Snapshot,
    /// The request's body.
    pub body: Bytes,
    /// Where the answer goes.
    pub answer: Answer,
    /// Whether the client has left.
    pub gone: Arc<AtomicBool>,
    /// When the client is told that it took too long.
    pub deadline: Option<Instant>,
    mailbox: Arc<Mailbox>,
    key: usize,
}

impl Call {
    /// Sends the call back to the desk it came from.
    pub fn send_back(self: Box<Self>) {
        let mailbox = Arc::clone(&self.mailbox);
        mailbox.calls.push(self);
        // One wake of the server's thread for all that is in the box when it comes to look.
        mailbox.arrived.notify_one();
    }
}

/// Where calls come back to.
#[derive(Default)]
struct Mailbox {
    calls: SegQueue<Box<Call>>,
    arrived: Notify,
}

/// The calls of one thread of the server.
#[derive(Default)]
pub struct Desk {
    mailbox: Arc<Mailbox>,
    waiting: RefCell<Slab<Waiting>>,
    spare: RefCell<Vec<Box<Call>>>,
}

enum Waiting {
    Asked {
        waker: Option<Waker>,
        gone: Arc<AtomicBool>,
    },
    Answered(Box<Call>),
    /// The client left first.
    Left,
}

impl Desk {
    /// A call with empty buffers.
    pub fn call(&self) -> Box<Call> {
        let mut call = self.spare.borrow_mut().pop().unwrap_or_else(|| {
            Box::new(Call {
                head: Snapshot::default(),
                body: Bytes::new(),
                answer: Answer::default(),
                gone: Arc::default(),
                deadline: None,
                mailbox: Arc::clone(&self.mailbox),
                key: usize::MAX,
            })
        });
        call.answer.clear();
        call
    }

    /// Takes a call back that is done with.
    pub fn keep(&self, mut call: Box<Call>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            call.body = Bytes::new();
            if call.gone.load(Ordering::Relaxed) {
                // A run may still look at it.
                call.gone = Arc::default();
            }
            spare.push(call);
        }
    }

    /// Sends a call away and waits until it is back. Dropping the future tells the run that the client has left.
    ///
    /// # Errors
    /// What `send` gave back.
    pub fn ask<E>(
        self: &Rc<Self>,
        mut call: Box<Call>,
        send: impl FnOnce(Box<Call>) -> Result<(), E>,
    ) -> Result<Asked, E> {
        let waiting = Waiting::Asked { waker: None, gone: Arc::clone(&call.gone) };
        let key = self.waiting.borrow_mut().insert(waiting);
        call.key = key;
        match send(call) {
            Ok(()) => Ok(Asked { desk: Rc::clone(self), key: Some(key) }),
            Err(err) => {
                self.waiting.borrow_mut().remove(key);
                Err(err)
            }
        }
    }

    /// Hands out what comes back, for as long as the thread serves.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.mailbox.arrived.notified().await;
            while let Some(call) = self.mailbox.calls.pop() {
                self.arrive(call);
            }
        }
    }

    fn arrive(&self, call: Box<Call>) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(place) = waiting.get_mut(call.key) else { return };
        match place {
            Waiting::Asked { waker, .. } => {
                let waker = waker.take();
                *place = Waiting::Answered(call);
                drop(waiting);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Waiting::Left | Waiting::Answered(_) => {
                waiting.remove(call.key);
                drop(waiting);
                self.keep(call);
            }
        }
    }
}

/// A call that is away.
pub struct Asked {
    desk: Rc<Desk>,
    /// `None` once the call is back.
    key: Option<usize>,
}

impl Future for Asked {
    type Output = Box<Call>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Box<Call>> {
        let key = self.key.expect("a future is not polled again once it is ready");
        let mut waiting = self.desk.waiting.borrow_mut();
        if let Waiting::Asked { waker, .. } = &mut waiting[key] {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let place = waiting.remove(key);
        drop(waiting);
        self.key = None;
        match place {
            Waiting::Answered(call) => Poll::Ready(call),
            Waiting::Asked { .. } | Waiting::Left => {
                unreachable!("seen above; only a drop says that it left")
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut waiting = self.desk.waiting.borrow_mut();
        if let Waiting::Asked { gone, .. } = &waiting[key] {
            gone.store(true, Ordering::Relaxed);
            waiting[key] = Waiting::Left;
        } else if let Waiting::Answered(call) = waiting.remove(key) {
            drop(waiting);
            self.desk.keep(call);
        }
    }
}
