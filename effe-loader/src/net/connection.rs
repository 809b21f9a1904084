//! One connection as bytes: reading and writing, and a client that doesn't read what it is sent. `net/connections`
//! decides whether a connection must close because nothing comes.

use std::{
    io,
    os::fd::AsRawFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    body::min_rate::MIN_RATE,
    net::{
        activity::ConnActivity,
        connections::{ConnHandle, Registration},
        plain::{self, Left, Plain},
        tls::{self, Io, Tls},
    },
    rt::clock::Moment,
};

pub struct Connection {
    pub io: Io,
    registration: Registration,
    stall: Option<Stall>,
}

impl Connection {
    pub fn plain(registration: Registration, socket: Plain) -> Connection {
        Connection { io: tls::unencrypted(socket), registration, stall: None }
    }

    /// A connection over TLS; `None` if the client doesn't complete the handshake in time. This is not logged: anybody
    /// can connect and send something else.
    pub async fn secure(registration: Registration, socket: Plain, tls: &Tls) -> Option<Connection> {
        // Boxed: else the task of each connection had room for it, also without TLS.
        let handshake = Box::pin(tls.accept(socket));
        let io = registration.handle.prepare(handshake).await?.ok()?;
        registration.handle.activity.slot.open_nowhere();
        Some(Connection { io, registration, stall: None })
    }

    pub fn activity(&self) -> &Rc<ConnActivity> {
        &self.handle().activity
    }

    pub fn is_tls(&self) -> bool {
        tls::is_tls(&self.io)
    }

    /// Takes a place in the scoreboard, from which the connection is rescued if the process crashes. False if a rescue
    /// has taken the connection already: then it is to be left alone.
    pub fn can_be_served(&self) -> bool {
        self.activity().slot.open(plain::descriptor(tls::socket(&self.io)))
    }

    /// Resets the connection when this is dropped, so that the client sees that what it has got is not all.
    pub fn reset(&self) {
        self.activity().slot.reset();
        let _ = set_socket_linger(plain::descriptor(tls::socket(&self.io)), Some(Duration::ZERO));
    }

    /// Has the system keep what doesn't fill a segment until this is called with false; whether it does.
    #[cfg(feature = "http2")]
    pub fn cork(&self, is_corked: bool) -> bool {
        plain::cork(tls::socket(&self.io), is_corked)
    }

    /// Notes our own address that the client has connected to, for the guards of its requests.
    pub fn note_local_ip(&self) {
        self.activity().local_ip.set(plain::local_ip(tls::socket(&self.io)));
    }

    pub fn handle(&self) -> &ConnHandle {
        &self.registration.handle
    }

    /// Looks whether the client leaves while nothing is read; ready once the connection is broken.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(plain::poll_left(tls::socket_mut(&mut self.io), cx)) {
            Left::Whole => Poll::Ready(()),
            Left::Half => {
                self.activity().leave();
                Poll::Pending
            }
        }
    }

    /// Whether the client reads too slowly; asked when the system takes no more bytes for it.
    fn is_too_slow(&mut self) -> bool {
        let Some(write) = self.handle().write_timeout() else { return false };
        let now = self.handle().now();
        let n_taken = tls::socket(&self.io).n_written;
        let Some(stall) = &mut self.stall else {
            self.activity().is_blocked.set(true);
            self.stall = Some(Stall::new(self.handle().exact_now(), n_taken, n_waiting(&self.io)));
            return false;
        };
        if stall.looked >= now {
            return false;
        }
        stall.is_too_slow(n_taken, n_waiting(&self.io), write, now)
    }

    /// Reads into the room that `to` has; how many bytes.
    pub fn poll_read_into(&mut self, to: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = tls::poll_read_into(&mut self.io, to, cx);
        match read {
            Poll::Pending => self.activity().wait(cx),
            Poll::Ready(Ok(1..)) => self.activity().received(self.handle().now()),
            Poll::Ready(_) => self.activity().leave(),
        }
        read
    }

    /// What came of giving the client bytes, of which some may wait in TLS; an error if it reads too slowly.
    #[inline]
    fn checked<T>(&mut self, cx: &Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            return sent;
        }
        self.activity().wait(cx);
        if !self.is_too_slow() {
            return Poll::Pending;
        }
        // Without the reset the system would keep offering what the client doesn't take.
        self.reset();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.activity().slot.close(plain::descriptor(tls::socket(&self.io)));
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buffer);
        let activity = this.activity();
        if read.is_pending() {
            activity.wait(cx);
            return Poll::Pending;
        }
        if buffer.filled().len() == before && buffer.capacity() > before {
            activity.leave();
        } else {
            activity.received(this.handle().now());
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.checked(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.checked(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if this.stall.is_some() && flushed.is_ready() {
            this.stall = None;
            this.activity().is_blocked.set(false);
        }
        this.checked(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.checked(cx, shut)
    }
}

/// A client that doesn't read as fast as it is sent.
struct Stall {
    since: Moment,
    /// Bytes that it had read by then, of all.
    n_read: u64,
    /// When the client last read something, and how much it had read by then.
    last: (Moment, u64),
    looked: Moment,
}

impl Stall {
    /// From `now` on, when the system has taken `n_taken` bytes and `n_waiting` of them wait for the client.
    fn new(now: Moment, n_taken: u64, n_waiting: u64) -> Stall {
        Stall { since: now, n_read: n_taken.saturating_sub(n_waiting), last: (now, 0), looked: now }
    }

    /// Whether the client has read nothing for as long as `write`, or less than [`MIN_RATE`] since then.
    fn is_too_slow(&mut self, n_taken: u64, n_waiting: u64, write: Duration, now: Moment) -> bool {
        self.looked = now;
        let n_read = n_taken.saturating_sub(n_waiting).saturating_sub(self.n_read);
        if n_read > self.last.1 {
            self.last = (now, n_read);
        }
        let least = now.since(self.since + write).as_secs().saturating_mul(MIN_RATE);
        n_read < least || self.last.0 + write < now
    }
}

/// Bytes that the system has taken and the client has not.
#[expect(unsafe_code, reason = "no safe crate here asks for it")]
fn n_waiting(io: &Io) -> u64 {
    let (socket, mut n) = (plain::descriptor(tls::socket(io)), 0 as libc::c_int);
    // SAFETY: TIOCOUTQ writes one int through its argument, and `n` is one.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut n) };
    if asked == 0 { u64::try_from(n).unwrap_or(0) } else { 0 }
}
