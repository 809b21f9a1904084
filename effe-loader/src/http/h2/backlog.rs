//! Requests of one connection that wait until their client has taken more of the answers before them: answers that are
//! held whole would else fill the process's memory, whatever the client takes of them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};

use crate::net::connections::ConnHandle;

/// Of how many answers, about, the average is.
const N_AVERAGED: usize = 8;

/// The average that the last connection has seen: a new one begins with it.
static AVERAGE: AtomicUsize = AtomicUsize::new(0);

pub type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

pub struct Backlog {
    handle: ConnHandle,
    waiting: RefCell<VecDeque<Accepted>>,
    /// Bytes of answers that are being sent.
    n_unsent: Cell<usize>,
    /// Requests that have become connections of their own, and make no answer.
    n_left_out: Cell<usize>,
    /// Bytes of an answer, on average, by which the runs are judged whose answer isn't here yet.
    average: Cell<usize>,
}

impl Backlog {
    pub fn new(handle: ConnHandle) -> Rc<Backlog> {
        let average = Cell::new(AVERAGE.load(Ordering::Relaxed));
        let (waiting, n_unsent, n_left_out) = Default::default();
        Rc::new(Backlog { handle, waiting, n_unsent, n_left_out, average })
    }

    /// A request that has come, if it may be answered now, else it waits. No more wait than a client may have at once.
    pub fn admit(&self, accepted: Accepted) -> Option<Accepted> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.has_room() {
            return Some(accepted);
        }
        waiting.push_back(accepted);
        None
    }

    /// The next request of those that wait, if it may be answered now.
    pub fn next(&self) -> Option<Accepted> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() || !self.has_room() { None } else { waiting.pop_front() }
    }

    fn has_room(&self) -> bool {
        let n_running = self.handle.activity.n_running().saturating_sub(self.n_left_out.get());
        let expected = self.average.get().saturating_mul(n_running).saturating_add(self.n_unsent.get());
        expected < self.handle.held().share()
    }

    /// A request whose stream a lambda has taken over doesn't count until what is returned is dropped.
    pub fn leave_out(self: &Rc<Self>) -> LeftOut {
        self.n_left_out.set(self.n_left_out.get() + 1);
        LeftOut(Rc::clone(self))
    }

    /// Counts an answer, as being sent until what is returned is dropped.
    pub fn send(self: &Rc<Self>, n_bytes: usize) -> Unsent {
        let average = self.average.get();
        let average = average - average / N_AVERAGED + n_bytes / N_AVERAGED;
        self.average.set(average);
        AVERAGE.store(average, Ordering::Relaxed);
        self.n_unsent.set(self.n_unsent.get().saturating_add(n_bytes));
        Unsent { backlog: Rc::clone(self), n_bytes }
    }
}

/// An answer that is being sent.
pub struct Unsent {
    backlog: Rc<Backlog>,
    n_bytes: usize,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let Backlog { handle, waiting, n_unsent, .. } = &*self.backlog;
        n_unsent.set(n_unsent.get().saturating_sub(self.n_bytes));
        if !waiting.borrow().is_empty() {
            handle.activity.wake();
        }
    }
}

/// A request that makes no answer.
pub struct LeftOut(Rc<Backlog>);

impl Drop for LeftOut {
    fn drop(&mut self) {
        self.0.n_left_out.set(self.0.n_left_out.get() - 1);
    }
}
