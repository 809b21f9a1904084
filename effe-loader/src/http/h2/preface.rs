//! Whether a client speaks HTTP/2, which is told before anything is taken from its connection.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    io::retry_on_intr,
    net::{RecvFlags, recv},
};

use crate::net::{
    plain,
    tls::{self, Io},
};

/// The first bytes of a client that speaks HTTP/2 (RFC 9113, section 3.4). What only begins like them is HTTP/1.1.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Whether a client speaks HTTP/2: over TLS the handshake says so, else the first bytes.
pub async fn is_http2(io: &Io) -> io::Result<bool> {
    if tls::is_tls(io) {
        return Ok(tls::is_http2(io));
    }
    let socket = tls::socket(io);
    loop {
        let ready = plain::readable(socket).await?;
        match plain::try_read(socket, begins_with_preface) {
            // Nothing more comes, and what has come is too short for a preface.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Ok(false);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            begins => return begins,
        }
    }
}

/// Looks at the first bytes and leaves them in the socket. If they are too few to tell, the error says that reading
/// would block, and the caller waits for more.
fn begins_with_preface(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut head = [0; PREFACE.len()];
    let (n, _) = retry_on_intr(|| recv(socket, &mut head[..], RecvFlags::PEEK))?;
    if (1..PREFACE.len()).contains(&n) && PREFACE.starts_with(&head[..n]) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(head[..n] == *PREFACE)
}
