//! TLS in a loader that is built without it: types without a value, whose code the compiler leaves out.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::plain::Plain;

/// There is none.
#[derive(Debug)]
pub enum Tls {}

impl Tls {
    /// Says how to get a loader with TLS.
    ///
    /// # Errors
    /// Always.
    pub fn read(_: Option<&Path>, _: Option<&Path>) -> Result<Tls, String> {
        Err("--tls-cert needs a loader built with the feature \"tls\": cargo install effe-loader --features tls"
            .to_owned())
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn reload(&self) -> Result<bool, String> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self, _: Plain) -> io::Result<Stream> {
        match *self {}
    }
}

/// There is none.
pub enum Stream {}

#[cfg(feature = "http2")]
impl Stream {
    /// Never called.
    pub fn is_http2(&self) -> bool {
        match *self {}
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
