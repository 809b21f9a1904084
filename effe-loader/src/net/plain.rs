//! A connection's bytes as the system carries them: TCP or a Unix socket, without TLS.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
#[cfg(feature = "http2")]
use {
    std::io,
    tokio::io::{Interest, Ready},
};

/// A socket that was accepted.
pub type Plain = Either<TcpStream, UnixStream>;

pub fn tcp(socket: TcpStream) -> Plain {
    Plain::Left(socket)
}

pub fn unix(socket: UnixStream) -> Plain {
    Plain::Right(socket)
}

pub fn descriptor(socket: &Plain) -> BorrowedFd<'_> {
    match socket {
        Plain::Left(tcp) => tcp.as_fd(),
        Plain::Right(unix) => unix.as_fd(),
    }
}

/// Our own address that the client has connected to; `None` for a Unix socket.
pub fn local_ip(socket: &Plain) -> Option<IpAddr> {
    match socket {
        Plain::Left(tcp) => tcp.local_addr().ok().map(|address| address.ip().to_canonical()),
        Plain::Right(_) => None,
    }
}

/// Waits until there is something to read, or the client has closed its end.
#[cfg(feature = "http2")]
pub async fn readable(socket: &Plain) -> io::Result<Ready> {
    match socket {
        Plain::Left(tcp) => tcp.ready(Interest::READABLE).await,
        Plain::Right(unix) => unix.ready(Interest::READABLE).await,
    }
}

/// Calls `read`, which reads from this socket past tokio. If it would block, [`readable`] waits again.
#[cfg(feature = "http2")]
pub fn try_read<T>(socket: &Plain, read: impl Fn(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
    match socket {
        Plain::Left(tcp) => tcp.try_io(Interest::READABLE, || read(tcp.as_fd())),
        Plain::Right(unix) => unix.try_io(Interest::READABLE, || read(unix.as_fd())),
    }
}
