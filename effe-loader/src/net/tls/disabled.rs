//! TLS in a loader that is built without it: a certificate that can't exist, and connections that are plain sockets.

use std::{
    io,
    path::Path,
    task::{Context, Poll},
};

use crate::net::plain::Plain;

/// There is none.
#[derive(Debug)]
pub enum Tls {}

impl Tls {
    /// Fails, and says how to get a loader with TLS.
    pub fn read(_: Option<&Path>, _: Option<&Path>) -> Result<Tls, String> {
        Err("--tls-cert needs a loader built with the feature \"tls\": cargo install effe-loader --features tls"
            .to_owned())
    }

    pub fn reload(&self) -> Result<Option<[Vec<u8>; 2]>, String> {
        match *self {}
    }

    pub fn take(&self, _: [Vec<u8>; 2]) -> Result<(), String> {
        match *self {}
    }

    pub async fn accept(&self, _: Plain) -> io::Result<Io> {
        match *self {}
    }
}

pub type Io = Plain;

pub fn unencrypted(socket: Plain) -> Io {
    socket
}

pub fn socket(io: &Io) -> &Plain {
    io
}

pub fn socket_mut(io: &mut Io) -> &mut Plain {
    io
}

pub fn poll_read_into(io: &mut Io, to: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    io.poll_read_into(to, cx)
}

pub fn is_tls(_: &Io) -> bool {
    false
}

#[cfg(feature = "http2")]
pub fn is_http2(_: &Io) -> bool {
    false
}
