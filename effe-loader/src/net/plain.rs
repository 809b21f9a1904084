//! A connection's bytes as the system carries them: TCP or a Unix socket, without TLS.

use std::{
    cell::Cell,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

#[cfg(feature = "http2")]
use rustix::net::sockopt::set_tcp_cork;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    net::{RecvFlags, recv},
};
#[cfg(feature = "http2")]
use tokio::io::Ready;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_util::{either::Either, io::poll_read_buf};

/// Bytes that are read past tokio at a time.
const READ: usize = 64 * 1024;

/// A socket that was accepted.
pub struct Plain {
    socket: Either<TcpStream, UnixStream>,
    /// Bytes that the system has taken so far.
    pub n_written: u64,
    /// Whether tokio has been told that nothing is here to read, although there may be.
    is_hidden: bool,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has closed its end, and may still read.
    Half,
    /// The connection is broken: nothing reaches the client any more.
    Whole,
}

pub fn tcp(socket: TcpStream) -> Plain {
    Plain { socket: Either::Left(socket), n_written: 0, is_hidden: false }
}

pub fn unix(socket: UnixStream) -> Plain {
    Plain { socket: Either::Right(socket), n_written: 0, is_hidden: false }
}

pub fn descriptor(plain: &Plain) -> BorrowedFd<'_> {
    match &plain.socket {
        Either::Left(tcp) => tcp.as_fd(),
        Either::Right(unix) => unix.as_fd(),
    }
}

/// Our own address that the client has connected to; `None` for a Unix socket.
pub fn local_ip(plain: &Plain) -> Option<IpAddr> {
    match &plain.socket {
        Either::Left(tcp) => tcp.local_addr().ok().map(|address| address.ip().to_canonical()),
        Either::Right(_) => None,
    }
}

/// Has the system keep what doesn't fill a segment until this is called with false, or not any more; whether it could.
#[cfg(feature = "http2")]
pub fn cork(plain: &Plain, is_corked: bool) -> bool {
    match &plain.socket {
        Either::Left(tcp) => set_tcp_cork(tcp, is_corked).is_ok(),
        Either::Right(_) => false,
    }
}

/// Waits until there is something to read, or the client has closed its end.
#[cfg(feature = "http2")]
pub async fn readable(plain: &Plain) -> io::Result<Ready> {
    match &plain.socket {
        Either::Left(tcp) => tcp.ready(Interest::READABLE).await,
        Either::Right(unix) => unix.ready(Interest::READABLE).await,
    }
}

/// Calls `read`, which reads from this socket past tokio. If it would block, tokio waits again before the next read.
pub fn try_read<T>(plain: &Plain, read: impl Fn(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
    match &plain.socket {
        Either::Left(tcp) => tcp.try_io(Interest::READABLE, || read(tcp.as_fd())),
        Either::Right(unix) => unix.try_io(Interest::READABLE, || read(unix.as_fd())),
    }
}

/// Waits until the client leaves, and leaves in the socket what has come. tokio would be ready at once while something
/// is to be read, so it is told that nothing is; the next read goes past it.
pub fn poll_left(plain: &mut Plain, cx: &mut Context<'_>) -> Poll<Left> {
    let is_hidden = Cell::new(plain.is_hidden);
    let _ = try_read(plain, |_| {
        is_hidden.set(true);
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
    plain.is_hidden = is_hidden.get();
    let event = match &plain.socket {
        Either::Left(tcp) => tcp.poll_read_ready(cx),
        Either::Right(unix) => unix.poll_read_ready(cx),
    };
    // An error means that the thread is about to end.
    let _ = ready!(event);
    let mut polled = [PollFd::from_borrowed_fd(descriptor(plain), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = poll(&mut polled, Some(&now));
    let events = polled[0].revents();
    if events.intersects(PollFlags::HUP | PollFlags::ERR) {
        Poll::Ready(Left::Whole)
    } else if events.contains(PollFlags::RDHUP) {
        Poll::Ready(Left::Half)
    } else {
        Poll::Pending
    }
}

/// Tries again when a signal has interrupted the system call, which tokio leaves to its caller.
fn uninterrupted<T>(mut call: impl FnMut() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Poll::Ready(Err(err)) if err.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_hidden {
            let room = buffer.initialize_unfilled_to(buffer.remaining().min(READ));
            let received =
                retry_on_intr(|| recv(descriptor(this), &mut *room, RecvFlags::DONTWAIT).map(|(n, _)| n));
            match received {
                Ok(n) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(err) if err.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(err.into())),
                // tokio is right again.
                Err(_) => this.is_hidden = false,
            }
        }
        uninterrupted(|| Pin::new(&mut this.socket).poll_read(cx, buffer))
    }
}

impl Plain {
    /// Reads into the room that `to` has; how many bytes. Past tokio that room need not be cleared before.
    pub fn poll_read_into(&mut self, to: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_hidden && to.capacity() > to.len() {
            let received = retry_on_intr(|| {
                recv(descriptor(self), spare_capacity(to), RecvFlags::DONTWAIT).map(|(n, _)| n)
            });
            match received {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(err) if err.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(err.into())),
                // tokio is right again.
                Err(_) => self.is_hidden = false,
            }
        }
        uninterrupted(|| poll_read_buf(Pin::new(&mut self.socket), cx, to))
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = written {
            self.n_written += n as u64;
        }
        written
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = uninterrupted(|| Pin::new(&mut this.socket).poll_write(cx, bytes));
        this.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = uninterrupted(|| Pin::new(&mut this.socket).poll_write_vectored(cx, slices));
        this.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
