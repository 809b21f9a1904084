//! One connection, with what the server below lacks: it sees a client that doesn't read, or dawdles over a request's
//! head, and lets go of those that idle when the effe stops.
//!
//! Nothing here costs a request a clock reading or a timer: a look per second and thread, while there are
//! connections, finds those whose time is up.

#[cfg(feature = "http2")]
mod multiplexed;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, AsRawFd},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::rt;
use rustix::net::sockopt::set_socket_linger;
use slab::Slab;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{
    body::min_rate::MIN_RATE,
    net::{
        activity::{Patience, Traffic},
        plain::Plain,
        stream::Io,
        tls::Tls,
        tracker::Lobby,
    },
    rt::clock::Moment,
};

/// How often a thread looks after its connections.
const LOOK: Duration = Duration::from_secs(1);
/// How often while the effe stops.
const QUICK_LOOK: Duration = Duration::from_millis(10);
/// How long a connection may idle while the effe stops: a client that sends its next request within this time gets
/// an answer, and with it the news that the connection closes.
const LAST_CALL: Duration = Duration::from_millis(500);

/// The connections of one thread of the server.
pub struct Connections {
    open: RefCell<Slab<Rc<Traffic>>>,
    opened: Notify,
    /// As of the last look: so exact that no time limit is shortened, and free of charge.
    now: Cell<Moment>,
    patience: Patience,
    lobby: Arc<Lobby>,
}

impl Connections {
    /// No connections yet; [`Connections::look_after`] must be spawned.
    pub fn new(patience: Patience, lobby: Arc<Lobby>) -> Connections {
        let now = Cell::new(Moment::now());
        Connections { open: RefCell::default(), opened: Notify::new(), now, patience, lobby }
    }

    /// Counts a connection that was accepted, until what comes back is dropped.
    pub fn register(self: &Rc<Self>) -> Registration {
        let mut open = self.open.borrow_mut();
        if open.is_empty() {
            self.now.set(Moment::now());
            self.opened.notify_one();
        }
        let traffic = Rc::new(Traffic { idle_since: Cell::new(self.now.get()), ..Traffic::default() });
        let key = open.insert(Rc::clone(&traffic));
        self.lobby.opened();
        Registration { shared: Shared { traffic, connections: Rc::clone(self) }, key }
    }

    /// Wakes those whose time may be up, for as long as the thread serves.
    pub async fn look_after(self: Rc<Self>) {
        loop {
            while self.open.borrow().is_empty() {
                self.opened.notified().await;
            }
            if self.lobby.is_closing() {
                rt::time::sleep(QUICK_LOOK).await;
            } else {
                tokio::select! {
                    () = rt::time::sleep(LOOK) => {}
                    () = self.lobby.closing() => {}
                }
            }
            let now = Moment::now();
            self.now.set(now);
            let closing = self.lobby.is_closing();
            // Waking only schedules the connection's task, which looks for itself.
            for (_, traffic) in &*self.open.borrow() {
                if traffic.idle_since.get() == Moment::default() {
                    traffic.idle_since.set(now);
                }
                if traffic.blocked.get()
                    || traffic.head_since.get().is_some()
                    || (closing && traffic.is_shared())
                    || (traffic.is_idle() && (closing || traffic.is_late(now, self.patience)))
                {
                    traffic.wake();
                }
            }
        }
    }
}

/// A connection as the server sees it: bytes in, bytes out.
pub struct Connection {
    io: Io,
    registration: Registration,
    stall: Option<Stall>,
}

/// A connection as its thread counts it, whatever carries its bytes.
pub struct Registration {
    shared: Shared,
    key: usize,
}

/// A connection as its thread wakes it, and as those see it who speak for it.
#[derive(Clone)]
pub struct Shared {
    traffic: Rc<Traffic>,
    connections: Rc<Connections>,
}

/// A client that doesn't read as fast as it is sent.
struct Stall {
    since: Moment,
    /// Bytes that the system has taken since then.
    n_taken: u64,
    /// What waited in the system then.
    n_waiting: u64,
    /// When the client last read something, and how much it had read by then.
    last: (Moment, u64),
    looked: Moment,
}

impl Connection {
    /// What those see of it who answer its requests.
    pub fn traffic(&self) -> &Rc<Traffic> {
        &self.registration.shared.traffic
    }

    /// A connection without TLS.
    pub fn plain(registration: Registration, socket: Plain) -> Connection {
        Connection { io: Io::Plain(socket), registration, stall: None }
    }

    /// A connection over TLS; `None` if the client doesn't complete the handshake in time. That is not logged: anybody
    /// can connect and send something else.
    pub async fn secure(registration: Registration, socket: Plain, tls: &Tls) -> Option<Connection> {
        let io = Io::Tls(registration.shared.prepare(tls.accept(socket)).await?.ok()?);
        Some(Connection { io, registration, stall: None })
    }

    /// Whether TLS carries its bytes.
    pub fn is_tls(&self) -> bool {
        self.io.is_tls()
    }

    /// The client sees that what it has got is not all.
    pub fn reset(&self) {
        let _ = set_socket_linger(&self.io, Some(Duration::ZERO));
    }

    /// Lets those who answer know the address of ours that the client has connected to, if it came over the network.
    pub fn note_local_address(&self) {
        if let Io::Plain(socket) = &self.io {
            self.registration.shared.traffic.local_address.set(socket.local_ip());
        }
    }

    /// What is to be done when nothing has come in.
    fn verdict(&self) -> Option<io::Result<()>> {
        let Shared { traffic, connections } = &self.registration.shared;
        let Traffic { n_running, head_since, idle_since, .. } = &**traffic;
        let (now, patience) = (connections.now.get(), connections.patience);
        if n_running.get() > 0 || traffic.is_shared() {
            return None;
        }
        if let Some(since) = head_since.get() {
            let late = patience.read.is_some_and(|read| since + read < now);
            return late.then(|| Err(io::ErrorKind::TimedOut.into()));
        }
        // As if the client had closed: what is on its way to it still goes out.
        if traffic.is_late(now, patience) {
            return Some(Ok(()));
        }
        if !connections.lobby.is_closing() {
            return None;
        }
        let last_call = idle_since.get().max(connections.lobby.closing_since()) + LAST_CALL;
        (last_call <= now).then_some(Ok(()))
    }

    /// The system takes no more; whether the client reads too slowly.
    fn stalls(&mut self) -> bool {
        let Some(write) = self.registration.shared.connections.patience.write else { return false };
        let now = self.registration.shared.connections.now.get();
        let Some(stall) = &mut self.stall else {
            self.registration.shared.traffic.blocked.set(true);
            let n_waiting = n_waiting(&self.io);
            let now = Moment::now();
            self.stall = Some(Stall { since: now, n_taken: 0, n_waiting, last: (now, 0), looked: now });
            return false;
        };
        if stall.looked >= now {
            return false;
        }
        stall.looked = now;
        let n_read = (stall.n_waiting + stall.n_taken).saturating_sub(n_waiting(&self.io));
        if n_read > stall.last.1 {
            stall.last = (now, n_read);
        }
        let slow = n_read < now.since(stall.since + write).as_secs().saturating_mul(MIN_RATE);
        slow || stall.last.0 + write < now
    }
}

impl Shared {
    /// Waits for what comes before the first request; `None` if that takes longer than a request's head may, or the
    /// effe stops meanwhile.
    pub async fn prepare<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let Connections { now, patience, lobby, .. } = &*self.connections;
        let since = now.get();
        // So that each look wakes it.
        self.traffic.head_since.set(Some(since));
        let mut what = pin!(what);
        let done = poll_fn(|context| {
            if let Poll::Ready(done) = what.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            self.traffic.wait(context);
            let is_late = patience.read.is_some_and(|read| since + read < now.get());
            let is_over = lobby.is_closing() && since.max(lobby.closing_since()) + LAST_CALL <= now.get();
            if is_late || is_over { Poll::Ready(None) } else { Poll::Pending }
        });
        let done = done.await;
        self.traffic.head_since.set(None);
        done
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.connections.open.borrow_mut().remove(self.key);
        self.shared.connections.lobby.closed();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        let Shared { traffic, connections } = &this.registration.shared;
        if read.is_pending() {
            traffic.wait(context);
            return this.verdict().map_or(Poll::Pending, Poll::Ready);
        }
        let n = buffer.filled().len() - before;
        if n == 0 && buffer.capacity() > before {
            traffic.has_left.set(true);
            if let Some(watching) = &*traffic.watching.borrow() {
                watching.leave();
            }
        } else if traffic.n_running.get() == 0 && !traffic.is_shared() {
            let now = connections.now.get();
            traffic.idle_since.set(now);
            if traffic.head_since.get().is_none() {
                traffic.head_since.set(Some(now));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(context, |io, context| io.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        if this.stall.is_some() && flushed.is_ready() {
            this.stall = None;
            this.registration.shared.traffic.blocked.set(false);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl Connection {
    fn written(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Io>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = write(Pin::new(&mut this.io), context);
        if written.is_pending() {
            this.registration.shared.traffic.wait(context);
            if !this.stalls() {
                return Poll::Pending;
            }
            // Else the system would go on offering what the client doesn't take.
            this.reset();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let n = ready!(written)?;
        if let Some(stall) = &mut this.stall {
            stall.n_taken += n as u64;
        }
        Poll::Ready(Ok(n))
    }
}

/// Bytes that the system has taken and the client has not.
#[expect(unsafe_code, reason = "no safe crate here asks for it")]
fn n_waiting(io: &Io) -> u64 {
    let mut n: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int through its argument, and `n` is one.
    let asked = unsafe { libc::ioctl(io.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut n) };
    if asked == 0 { u64::try_from(n).unwrap_or(0) } else { 0 }
}
