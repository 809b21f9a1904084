//! The connections of one thread: all that are open, and which of them must close, because their client takes too
//! long or because the effe stops. Bytes are read and written in `net/connection`.
//!
//! A request costs neither a reading of the clock nor a timer: once a second each thread looks at its connections and
//! wakes those whose time may be up.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use actix_web::rt;
use slab::Slab;
use tokio::sync::Notify;

use crate::{
    body::held::HeldBytes,
    net::{
        activity::{ClientTimeouts, ConnActivity},
        tracker::ConnectionTracker,
    },
    rescue::{self, escrow},
    rt::clock::Moment,
};

/// How often a thread looks at its connections.
const LOOK: Duration = Duration::from_secs(1);
/// How often while the effe stops.
const QUICK_LOOK: Duration = Duration::from_millis(10);
/// How long a connection may idle while the effe stops: a client that sends its next request within this time gets
/// an answer, which also says that the connection closes.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

pub struct Connections {
    open: RefCell<Slab<Rc<ConnActivity>>>,
    /// The first connection has been opened.
    opened: Notify,
    /// The time of the last look, by a clock of the thread's own, which stands still while something else keeps the
    /// thread from looking: clients are not to pay for that. Reading it is free.
    now: Cell<Moment>,
    /// When the last look was, by the system's clock.
    looked: Cell<Moment>,
    /// The time of the first look after the effe began to stop.
    closing_since: Cell<Option<Moment>>,
    timeouts: ClientTimeouts,
    held: Arc<HeldBytes>,
    tracker: Arc<ConnectionTracker>,
}

impl Connections {
    /// No connections yet; [`Connections::look_after`] must be spawned.
    pub fn new(
        timeouts: ClientTimeouts,
        held: Arc<HeldBytes>,
        tracker: Arc<ConnectionTracker>,
    ) -> Connections {
        let now = Moment::now();
        Connections {
            open: RefCell::default(),
            opened: Notify::new(),
            now: Cell::new(now),
            looked: Cell::new(now),
            closing_since: Cell::default(),
            timeouts,
            held,
            tracker,
        }
    }

    /// Counts a connection that was accepted, until the registration is dropped.
    pub fn register(self: &Rc<Self>) -> Registration {
        let mut open = self.open.borrow_mut();
        if open.is_empty() {
            self.looked.set(Moment::now());
            self.opened.notify_one();
        }
        let activity = Rc::new(ConnActivity::new(self.now.get()));
        let key = open.insert(Rc::clone(&activity));
        self.tracker.opened();
        Registration { handle: ConnHandle { activity, connections: Rc::clone(self) }, key, is_stream: false }
    }

    /// Wakes the connections whose time may be up, for as long as the thread serves.
    pub async fn look_after(self: Rc<Self>) {
        loop {
            while self.open.borrow().is_empty() {
                self.opened.notified().await;
            }
            if self.tracker.is_closing() {
                rt::time::sleep(QUICK_LOOK).await;
            } else {
                tokio::select! {
                    () = rt::time::sleep(LOOK) => {}
                    () = self.tracker.closing() => {}
                }
            }
            self.look();
        }
    }

    fn look(&self) {
        let closing = self.tracker.is_closing();
        let most = if closing { 10 * QUICK_LOOK } else { LOOK };
        let looked = Moment::now();
        let now = self.now.get() + looked.since(self.looked.replace(looked)).min(most);
        self.now.set(now);
        if closing && self.closing_since.get().is_none() {
            self.closing_since.set(Some(now));
        }
        self.deposit();
        // Waking only schedules a connection's task, which then decides.
        for (_, activity) in &*self.open.borrow() {
            activity.look(now);
            if activity.is_blocked.get()
                || activity.head_since.get().is_some()
                || (closing && activity.is_shared())
                || (activity.is_idle() && (closing || activity.is_late(now, self.timeouts)))
                || self.tunnel_end(activity).is_some()
            {
                activity.wake();
            }
        }
    }

    /// Why a connection that a lambda has taken over needs attention.
    fn tunnel_end(&self, activity: &ConnActivity) -> Option<TunnelEnd> {
        match activity.tunnel.get()? {
            _ if self.tracker.is_cut_off() => Some(TunnelEnd::CutOff),
            _ if activity.is_unused(self.now.get(), self.timeouts) => Some(TunnelEnd::Idle),
            false if self.tracker.is_closing() => Some(TunnelEnd::Away),
            _ => None,
        }
    }

    /// Leaves copies of new connections with the supervisor, if there is one. It costs nothing for a connection that
    /// doesn't live from one look to the next.
    fn deposit(&self) {
        if !rescue::global::is_supervised() {
            return;
        }
        let open = self.open.borrow();
        let mut new =
            open.iter().filter_map(|(key, activity)| Some((key, activity.slot.deposit()?))).peekable();
        loop {
            let (keys, pairs): (Vec<_>, Vec<_>) = new.by_ref().take(escrow::MOST).unzip();
            for n in escrow::exchange(&pairs) {
                // The next look tries again.
                open[keys[n]].slot.take_back();
            }
            if new.peek().is_none() {
                return;
            }
        }
    }
}

/// A connection that is counted as open.
pub struct Registration {
    pub handle: ConnHandle,
    key: usize,
    /// Whether it is a stream of a connection, which is counted itself.
    is_stream: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.handle.connections.open.borrow_mut().remove(self.key);
        if !self.is_stream {
            self.handle.connections.tracker.closed();
        }
    }
}

/// Why a connection must close now.
pub enum CloseReason {
    /// It has idled for too long, or the effe stops. What is on its way to the client still goes out.
    Idle,
    /// A request's head takes too long.
    Late,
}

/// Why a connection that a lambda has taken over ends, or is about to.
pub enum TunnelEnd {
    /// The effe stops; to be told once.
    Away,
    /// Nothing has come or gone for too long.
    Idle,
    /// The time to stop is over.
    CutOff,
}

/// What a connection is doing, and its thread's limits.
#[derive(Clone)]
pub struct ConnHandle {
    pub activity: Rc<ConnActivity>,
    connections: Rc<Connections>,
}

impl ConnHandle {
    /// The time of the last look.
    pub fn now(&self) -> Moment {
        self.connections.now.get()
    }

    /// The time now, by the same clock; reads the system's.
    pub fn exact_now(&self) -> Moment {
        let Connections { now, looked, .. } = &*self.connections;
        now.get() + looked.get().elapsed().min(LOOK)
    }

    /// How long the client may not read anything of what it is sent: less where much is held for clients.
    pub fn write_timeout(&self) -> Option<Duration> {
        let timeout = self.connections.timeouts.write;
        if self.connections.held.is_scarce() {
            Some(timeout.map_or(LOOK, |timeout| timeout.min(LOOK)))
        } else {
            timeout
        }
    }

    /// Ready when a client that has taken nothing since this began has had its time, because much is held for clients.
    #[cfg(feature = "http2")]
    pub async fn scarce(&self) {
        loop {
            rt::time::sleep(LOOK).await;
            if self.connections.held.is_scarce() {
                return;
            }
        }
    }

    /// The bytes that are held for all clients.
    #[cfg(feature = "http2")]
    pub fn held(&self) -> &HeldBytes {
        &self.connections.held
    }

    /// Whether the connection must close, though its client has neither sent anything nor left. To be asked when
    /// nothing can be read; each look asks again.
    pub fn close_reason(&self) -> Option<CloseReason> {
        let ConnHandle { activity, connections } = self;
        let Connections { now, timeouts, .. } = &**connections;
        if activity.n_running() > 0 || activity.is_shared() {
            return None;
        }
        if let Some(since) = activity.head_since.get() {
            let is_late = timeouts.read.is_some_and(|read| since + read < now.get());
            return is_late.then_some(CloseReason::Late);
        }
        let is_over = self.has_had_grace(activity.idle_since());
        (is_over || activity.is_late(now.get(), *timeouts)).then_some(CloseReason::Idle)
    }

    /// Why a connection that a lambda has taken over ends, or is about to; `Away` once.
    pub fn tunnel_end(&self) -> Option<TunnelEnd> {
        let end = self.connections.tunnel_end(&self.activity)?;
        if let TunnelEnd::Away = end {
            self.activity.tunnel.set(Some(true));
        }
        Some(end)
    }

    /// Has a stream of this connection, which a lambda has taken over, looked after as a connection is, until what is
    /// returned is dropped.
    #[cfg(feature = "http2")]
    pub fn register_stream(&self) -> Registration {
        let connections = Rc::clone(&self.connections);
        let activity = Rc::new(ConnActivity::new(connections.now.get()));
        activity.tunnel.set(Some(false));
        // It never counts as idle.
        activity.begin();
        let key = connections.open.borrow_mut().insert(Rc::clone(&activity));
        Registration { handle: ConnHandle { activity, connections }, key, is_stream: true }
    }

    /// Waits for what comes before the first request; `None` if that takes longer than a request's head may, or the
    /// effe stops meanwhile.
    pub async fn prepare<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let Connections { now, timeouts, .. } = &*self.connections;
        let since = now.get();
        // With this set, each look wakes this task.
        self.activity.head_since.set(Some(since));
        let mut what = pin!(what);
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = what.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.activity.wait(cx);
            let is_late = timeouts.read.is_some_and(|read| since + read < now.get());
            if is_late || self.has_had_grace(since) { Poll::Ready(None) } else { Poll::Pending }
        });
        let done = done.await;
        self.activity.head_since.set(None);
        done
    }

    /// Whether the effe stops, and a connection that has idled since `idle_since` has had its grace.
    fn has_had_grace(&self, idle_since: Moment) -> bool {
        let Connections { now, closing_since, .. } = &*self.connections;
        closing_since.get().is_some_and(|closing| idle_since.max(closing) + DRAIN_GRACE <= now.get())
    }

    /// Whether the client of an HTTP/2 connection is to be told to leave, because the effe stops or the client has
    /// asked for nothing for too long.
    #[cfg(feature = "http2")]
    pub fn is_over(&self) -> bool {
        let Connections { now, timeouts, tracker, .. } = &*self.connections;
        tracker.is_closing() || (self.activity.is_idle() && self.activity.is_late(now.get(), *timeouts))
    }

    /// Whether a client that was told to leave at `since` has had its time. What is still on its way to it may take as
    /// long as a client may not read.
    #[cfg(feature = "http2")]
    pub fn has_overstayed(&self, since: Moment, is_sent_something: bool) -> bool {
        let Connections { now, timeouts, .. } = &*self.connections;
        let time = if is_sent_something { timeouts.write } else { Some(DRAIN_GRACE) };
        self.activity.n_running() == 0 && time.is_some_and(|time| since + time <= now.get())
    }
}
