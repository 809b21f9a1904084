//! Sockets that listen, and how they are let go without losing a client that waits in them.

use std::{
    io,
    net::{Shutdown, TcpListener},
    os::unix::net::UnixListener,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, Socket};

use crate::net::{address::Address, socket_file::SocketFile};

/// A socket that listens.
pub struct Listener {
    pub socket: Socket,
    /// Where.
    pub address: Address,
    pub shared: bool,
    pub file: Option<SocketFile>,
}

/// The same socket as the server takes it.
pub enum Stream {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// The socket for the server, which accepts on it.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn stream(&self) -> io::Result<Stream> {
        let socket = self.socket.try_clone()?;
        Ok(match self.address {
            Address::Tcp(_) => Stream::Tcp(socket.into()),
            Address::Unix(_) => Stream::Unix(socket.into()),
        })
    }

    /// Lets nobody new in, while who has been let in already can still be accepted. Where the socket is shared with
    /// another process nothing is done: it is for the other to accept.
    pub fn close_door(&mut self) {
        if self.shared {
            return;
        }
        match self.address {
            // A client whose handshake isn't answered tries again, and then meets a successor, or is refused; one
            // that the system had queued when the socket goes would be reset with its request under way.
            Address::Tcp(_) => {
                let _ = self.socket.attach_filter(&NO_SYN);
            }
            Address::Unix(_) => self.file = None,
        }
    }

    /// Refuses who comes from now on, instead of leaving them to try again and again.
    pub fn lock_door(&self) {
        if !self.shared {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether somebody waits to be accepted. One whom another process may accept doesn't count.
    pub fn has_visitors(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.shared && poll(&mut polled, Some(&now)).is_ok_and(|n| n > 0)
    }
}

/// A program for the socket's packet filter: all but what begins a connection passes. At offset 13 of a TCP header
/// are its flags, 2 is SYN.
const NO_SYN: [SockFilter; 4] = [
    // BPF_LD | BPF_B | BPF_ABS; BPF_JMP | BPF_JSET | BPF_K; BPF_RET | BPF_K
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];
