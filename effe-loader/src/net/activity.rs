//! What one connection is doing: its requests under way, since when it idles, and whether its client has left. The
//! connection, its thread's table and the guards of its requests share it. `net/connections` decides from it when the
//! connection closes.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use crate::{message::response::ResponseHead, rescue::slot::Slot, rt::clock::Moment};

/// How long clients may take; `None` for ever. Each may become a second or two longer: connections are looked at once
/// a second.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// Between two requests.
    pub keep_alive: Option<Duration>,
    /// For a request's head, and between the pieces of its body.
    pub read: Option<Duration>,
    /// Until they read some of what they are sent.
    pub write: Option<Duration>,
    /// While neither side sends anything on a connection that a lambda has taken over.
    pub upgrade: Option<Duration>,
}

/// Is told that a client has left.
pub trait Hangup {
    /// The client has closed its end of the connection, though it may still read.
    fn leave(&self);
}

/// What one connection is doing. It belongs to one thread.
#[derive(Default)]
pub struct ConnActivity {
    waker: RefCell<Option<Waker>>,
    /// Requests that are being answered.
    n_running: Cell<usize>,
    /// Requests so far.
    n_requests: Cell<u64>,
    /// Since when something must come within the time for a request's head: a handshake, or the rest of a head.
    pub head_since: Cell<Option<Moment>>,
    /// Since when nothing has come; the default until the next look sets it, so that a request needs no clock.
    idle_since: Cell<Moment>,
    /// Whether the request that is being answered is the connection's last.
    pub is_closing: Cell<bool>,
    /// Whether the request that is being answered gets no answer, because its client seems to have gone.
    pub has_no_answer: Cell<bool>,
    /// What the answer's future has found to be sent before the answer. Whoever has polled the future takes it.
    pub interims: RefCell<Vec<ResponseHead>>,
    /// Whether bytes wait because the client doesn't read.
    pub is_blocked: Cell<bool>,
    /// Whether the client has closed its end.
    has_left: Cell<bool>,
    /// Our own address that the client has connected to; `None` where nobody needs it.
    pub local_ip: Cell<Option<IpAddr>>,
    /// Whether requests are answered side by side, as in HTTP/2, whose code then decides when to close.
    is_shared: Cell<bool>,
    /// `None` unless a lambda has taken the connection over; then whether it has been told that the effe stops.
    pub tunnel: Cell<Option<bool>>,
    /// Its place in the scoreboard.
    pub slot: Slot,
    /// Is told when the client closes its end.
    watching: RefCell<Option<Arc<dyn Hangup>>>,
}

impl ConnActivity {
    /// Nothing has come since `now`.
    pub fn new(now: Moment) -> ConnActivity {
        ConnActivity { idle_since: Cell::new(now), ..ConnActivity::default() }
    }

    /// A request has come whose answer begins.
    pub fn begin(&self) {
        self.head_since.set(None);
        self.n_running.set(self.n_running.get() + 1);
        self.n_requests.set(self.n_requests.get() + 1);
    }

    /// A request has been answered.
    pub fn end(&self) {
        self.watching.take();
        self.n_running.set(self.n_running.get() - 1);
        self.idle_since.set(Moment::default());
    }

    /// All bytes that have come belonged to the last request; none of the next one is here.
    pub fn rest(&self) {
        self.head_since.set(None);
        self.idle_since.set(Moment::default());
    }

    /// Bytes have come. While no request is being answered, they are the next one's head.
    pub fn received(&self, now: Moment) {
        if self.n_running.get() == 0 && !self.is_shared() {
            self.idle_since.set(now);
            if self.head_since.get().is_none() {
                self.head_since.set(Some(now));
            }
        }
    }

    /// The client has closed its end; it may still read.
    pub fn leave(&self) {
        // Told once: whoever is told may wake the task that looks again.
        if !self.has_left.replace(true)
            && let Some(watching) = &*self.watching.borrow()
        {
            watching.leave();
        }
    }

    /// Tells `run` when the client closes its end, or that it has.
    pub fn watch(&self, run: Arc<dyn Hangup>) {
        if self.has_left.get() {
            run.leave();
        }
        self.watching.replace(Some(run));
    }

    /// From now on requests are answered side by side, and the caller decides when the connection closes.
    #[cfg(feature = "http2")]
    pub fn share(&self) {
        self.is_shared.set(true);
    }

    pub fn is_shared(&self) -> bool {
        cfg!(feature = "http2") && self.is_shared.get()
    }

    pub fn n_running(&self) -> usize {
        self.n_running.get()
    }

    pub fn n_requests(&self) -> u64 {
        self.n_requests.get()
    }

    /// Whether nothing comes, goes or runs.
    pub fn is_idle(&self) -> bool {
        self.n_running.get() == 0 && self.head_since.get().is_none() && !self.is_blocked.get()
    }

    /// Notes the time of a look, for a connection that has begun to idle since the one before.
    pub fn look(&self, now: Moment) {
        if self.idle_since.get() == Moment::default() {
            self.idle_since.set(now);
        }
    }

    /// Whether nothing has come or gone for too long on a connection that a lambda has taken over.
    pub fn is_unused(&self, now: Moment, timeouts: ClientTimeouts) -> bool {
        let since = self.idle_since.get();
        timeouts.upgrade.is_some_and(|timeout| since != Moment::default() && since + timeout <= now)
    }

    pub fn idle_since(&self) -> Moment {
        self.idle_since.get()
    }

    /// Whether an idle connection has idled for too long. A timer for each request would be more precise, at a tenth
    /// of what a short request costs.
    #[inline]
    pub fn is_late(&self, now: Moment, timeouts: ClientTimeouts) -> bool {
        let since = self.idle_since.get();
        if self.n_requests.get() == 0 && !self.is_shared() {
            // It was opened after the look that `since` is the time of.
            return timeouts.read.is_some_and(|read| since + read < now);
        }
        timeouts.keep_alive.is_some_and(|timeout| since != Moment::default() && since + timeout <= now)
    }

    /// Wakes the task that waits for the connection, if one does.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Notes that the task of `cx` waits for the connection.
    pub fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}
