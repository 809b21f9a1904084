//! A connection's bytes, with TLS or without.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{plain::Plain, tls};

/// What carries the bytes.
pub enum Io {
    /// A socket as it is.
    Plain(Plain),
    /// TLS over a socket. In a loader without the feature there is no such value, and no code for it.
    Tls(tls::Stream),
}

/// The same call on whatever it is.
macro_rules! on_each {
    ($io:expr, $name:ident($($arg:expr),*)) => {
        match $io {
            Io::Plain(io) => Pin::new(io).$name($($arg),*),
            Io::Tls(io) => Pin::new(io).$name($($arg),*),
        }
    };
}

impl Io {
    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Io::Tls(_))
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Io::Plain(io) => io.as_fd(),
            Io::Tls(io) => io.as_fd(),
        }
    }
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_each!(self.get_mut(), poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self.get_mut(), poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self.get_mut(), poll_shutdown(cx))
    }
}
