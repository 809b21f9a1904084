//! Sockets that listen, and how they are closed without losing a client whose connection waits to be accepted.

use std::{
    io,
    net::{Shutdown, TcpListener},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixListener,
    },
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, Socket};

use crate::net::{address::Address, socket_file::SocketFile};

pub struct Listener {
    pub socket: Socket,
    pub address: Address,
    /// Whether another process has this very socket, too.
    pub shared: bool,
    /// The file of a Unix socket that this process has made.
    pub file: Option<SocketFile>,
}

/// The same socket as the server takes it.
pub enum Stream {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(socket) => socket.as_raw_fd(),
            Stream::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Listener {
    /// The socket for the server, which accepts on it. Fails if the system has no descriptor left.
    pub fn stream(&self) -> io::Result<Stream> {
        let socket = self.socket.try_clone()?;
        Ok(match self.address {
            Address::Tcp(_) => Stream::Tcp(socket.into()),
            Address::Unix(_) => Stream::Unix(socket.into()),
        })
    }

    /// Lets no new client connect; connections that wait can still be accepted. A socket that another process has, too,
    /// is left as it is: that process may go on accepting.
    pub fn stop_accepting(&mut self) {
        if self.shared {
            return;
        }
        match self.address {
            // A client whose handshake isn't answered tries again, and then reaches a successor, or is refused. If the
            // socket were closed, the connections that wait in it would be reset, with their requests under way.
            Address::Tcp(_) => {
                let _ = self.socket.attach_filter(&NO_SYN);
            }
            Address::Unix(_) => self.file = None,
        }
    }

    /// Refuses clients from now on; until then they try again and again.
    pub fn shut_down(&self) {
        if !self.shared {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether a connection waits to be accepted; never for a socket that another process has, too.
    pub fn has_pending(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.shared && poll(&mut polled, Some(&now)).is_ok_and(|n| n > 0)
    }
}

/// A program for the socket's packet filter. It drops what begins a connection and lets everything else pass. The flags
/// of a TCP header are at offset 13; 2 is SYN.
const NO_SYN: [SockFilter; 4] = [
    // BPF_LD | BPF_B | BPF_ABS; BPF_JMP | BPF_JSET | BPF_K; BPF_RET | BPF_K
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];
