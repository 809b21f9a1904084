//! What a connection is doing, as far as others need to know, and how long its client may take over it.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use crate::rt::clock::Moment;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two requests; a look or two longer.
    pub keep_alive: Option<Duration>,
    /// For a request's head, and between the pieces of its body.
    pub read: Option<Duration>,
    /// To read something of what they are sent.
    pub write: Option<Duration>,
}

/// Hears that a client has left.
pub trait Hangup {
    /// The client has closed its end of the connection, though it may still read.
    fn leave(&self);
}

/// One connection as those see it who answer its requests.
#[derive(Default)]
pub struct Traffic {
    pub waker: RefCell<Option<Waker>>,
    /// Requests that are being answered.
    pub n_running: Cell<usize>,
    pub n_requests: Cell<u64>,
    /// Since when there have been bytes that are no request yet.
    pub head_since: Cell<Option<Moment>>,
    /// The default, if it has begun to idle since the last look.
    pub idle_since: Cell<Moment>,
    /// Whether no request is answered any more.
    pub closing: Cell<bool>,
    /// Whether something waits for the client to read.
    pub blocked: Cell<bool>,
    /// Whether the client has closed its end.
    pub has_left: Cell<bool>,
    /// The address of ours that it came to, where that matters.
    pub local_address: Cell<Option<IpAddr>>,
    /// Whether requests are answered side by side, and somebody else sees to the connection's end.
    pub is_shared: Cell<bool>,
    /// Who wants to know that.
    pub watching: RefCell<Option<Arc<dyn Hangup>>>,
}

impl Traffic {
    /// A request has come.
    pub fn begin(&self) {
        self.head_since.set(None);
        self.n_running.set(self.n_running.get() + 1);
        self.n_requests.set(self.n_requests.get() + 1);
    }

    /// What has come belonged to the last request: nothing of the next one is here.
    pub fn rest(&self) {
        self.head_since.set(None);
        self.idle_since.set(Moment::default());
    }

    /// The request that is being answered is the last.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Whether that is so.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// A request has been answered.
    pub fn end(&self) {
        self.watching.take();
        self.n_running.set(self.n_running.get() - 1);
        self.idle_since.set(Moment::default());
    }

    /// Whether one that is idle has been so for too long. A timer for each request would tell that more precisely, at
    /// a tenth of what a short request costs.
    pub fn is_late(&self, now: Moment, patience: Patience) -> bool {
        let since = self.idle_since.get();
        let is_new = self.n_requests.get() == 0 && !self.is_shared();
        let patience = if is_new { patience.read } else { patience.keep_alive };
        patience.is_some_and(|patience| since != Moment::default() && since + patience <= now)
    }

    /// Whether requests are answered side by side.
    pub fn is_shared(&self) -> bool {
        cfg!(feature = "http2") && self.is_shared.get()
    }

    pub fn is_idle(&self) -> bool {
        self.n_running.get() == 0 && self.head_since.get().is_none() && !self.blocked.get()
    }

    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub fn wait(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }
}
