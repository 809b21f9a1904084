//! A connection's bytes as the system carries them: TCP or a Unix socket, without TLS.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A socket that was accepted.
pub enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// The same call on whichever socket it is.
macro_rules! on_each {
    ($plain:expr, $socket:ident => $call:expr) => {
        match $plain {
            Plain::Tcp($socket) => $call,
            Plain::Unix($socket) => $call,
        }
    };
}

impl Plain {
    /// Our own address that the client has connected to; `None` for a Unix socket.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Plain::Tcp(socket) => socket.local_addr().ok().map(|address| address.ip().to_canonical()),
            Plain::Unix(_) => None,
        }
    }
}

#[cfg(feature = "http2")]
impl Plain {
    /// Waits until there is something to read, or the client has closed its end.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<tokio::io::Ready> {
        on_each!(self, socket => socket.ready(tokio::io::Interest::READABLE).await)
    }

    /// Calls `read`, which reads from this socket past tokio. If it would block, [`Plain::readable`] waits again.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn try_read_with<T>(&self, read: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        on_each!(self, socket => socket.try_io(tokio::io::Interest::READABLE, || read(socket.as_fd())))
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        on_each!(self, socket => socket.as_fd())
    }
}

impl AsyncRead for Plain {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Plain {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_each!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        on_each!(self, socket => socket.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}
