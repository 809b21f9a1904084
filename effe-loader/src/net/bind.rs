//! Binds the sockets that the loader listens on, or takes over those of a supervisor.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    error::Error,
    net::{
        address::{Address, Listen},
        listeners::Listener,
        socket_file::{self, SocketFile},
    },
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is bound and doesn't listen yet: a client that connects before Init has ended is refused and can try
/// again. An inherited socket listens already, so such a client waits.
pub struct Bound {
    socket: Socket,
    /// The real address, also if any port was asked for.
    pub address: Address,
    /// Whether another process has this very socket, too.
    shared: bool,
    file: Option<SocketFile>,
}

impl Bound {
    /// Every inherited socket, and then a socket for each address that is wanted, unless an inherited one is bound to
    /// it. Fails with the first that can't be bound.
    pub fn all(wanted: &[Listen], inherited: Vec<Bound>) -> Result<Vec<Bound>, Error> {
        let mut all = inherited;
        let ports_of_ipv4: Vec<_> =
            wanted.iter().flat_map(Listen::addresses).filter(SocketAddr::is_ipv4).collect();
        let is_for_ipv6_alone = |address: SocketAddr| {
            let port = address.port();
            address.is_ipv6() && port != 0 && ports_of_ipv4.iter().any(|other| other.port() == port)
        };
        for listen in wanted {
            let is_there = all.iter().any(|bound| match (&bound.address, listen) {
                (Address::Tcp(address), Listen::Tcp(addresses)) => addresses.contains(address),
                (Address::Unix(path), Listen::Unix(other)) => path == other,
                _ => false,
            });
            if !is_there {
                all.push(match listen {
                    Listen::Tcp(addresses) => Bound::tcp(addresses, is_for_ipv6_alone)?,
                    Listen::Unix(path) => Bound::unix(path)?,
                });
            }
        }
        Ok(all)
    }

    /// The sockets that a supervisor hands to this process (`LISTEN_FDS`). Call it while there is one thread: it
    /// removes the variables from the environment. Fails if one of them is no listening stream socket.
    pub fn inherited() -> Result<Vec<Bound>, Error> {
        let mut given = ListenFd::from_env();
        let mut all = Vec::new();
        for n in 0..given.len() {
            let failed = |source| Error::Inherited { n, source };
            let socket = given.take_raw_fd(n).map_err(failed)?;
            let Some(raw) = socket else { continue };
            all.push(Bound::adopt(own(raw), true).map_err(failed)?);
        }
        Ok(all)
    }

    /// A socket that a supervisor has bound for this process and others, and listens on when it is ready to.
    pub fn handed(descriptor: OwnedFd) -> io::Result<Bound> {
        let socket = Socket::from(descriptor);
        let address = Address::of(&socket)?;
        Ok(Bound { socket, address, shared: true, file: None })
    }

    /// The socket, for other processes.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes over a socket that listens already; fails if it is no listening stream socket.
    pub fn adopt(descriptor: OwnedFd, shared: bool) -> io::Result<Bound> {
        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
        let socket = Socket::from(descriptor);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening stream socket"));
        }
        let address = Address::of(&socket)?;
        Ok(Bound { socket, address, shared, file: None })
    }

    fn tcp(addresses: &[SocketAddr], is_for_ipv6_alone: impl Fn(SocketAddr) -> bool) -> Result<Bound, Error> {
        let mut last = None;
        for &address in addresses {
            match bind_tcp(address, is_for_ipv6_alone(address)) {
                Ok(bound) => return Ok(bound),
                Err(source) => last = Some(Error::Bind { address: address.to_string(), source }),
            }
        }
        Err(last.unwrap_or(Error::System {
            what: "listen".into(),
            source: io::ErrorKind::AddrNotAvailable.into(),
        }))
    }

    fn unix(path: &Path) -> Result<Bound, Error> {
        let address = Address::Unix(path.to_owned());
        bind_unix(path).map_err(|source| Error::Bind { address: address.to_string(), source })
    }

    /// Begins to take connections; fails if another process has begun to listen there.
    pub fn listen(self) -> Result<Listener, Error> {
        let Bound { socket, address, shared, file } = self;
        if !shared {
            let failed = |source| Error::Bind { address: address.to_string(), source };
            socket.listen(BACKLOG).map_err(failed)?;
        }
        Ok(Listener { socket, address, shared, file })
    }
}

fn bind_tcp(address: SocketAddr, is_for_ipv6_alone: bool) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] accepts both versions of IP, whatever the system's default is; but only IPv6 if the operator has given
        // an IPv4 address with the same port, too.
        socket.set_only_v6(is_for_ipv6_alone)?;
    }
    socket.bind(&address.into())?;
    let address = Address::of(&socket)?;
    Ok(Bound { socket, address, shared: false, file: None })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let (socket, file) = socket_file::bind(path, None)?;
    Ok(Bound { socket, address: Address::Unix(path.to_owned()), shared: false, file: Some(file) })
}

/// Takes ownership of a descriptor that is given as a number.
#[expect(unsafe_code, reason = "a number becomes an owner")]
fn own(raw: std::os::fd::RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: `listenfd` hands out each descriptor of LISTEN_FDS once, and by that protocol they belong to this
    // process, which has not opened any under these numbers.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::net::listeners::Stream;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("effe-listeners-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn unix(path: &Path) -> io::Result<Listener> {
        bind_unix(path).map(|bound| bound.listen().unwrap())
    }

    #[test]
    fn a_unix_socket_is_replaced_only_if_nobody_listens_there() {
        let path = scratch("stale");
        fs::write(&path, "precious").unwrap();
        assert_eq!(unix(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let first = unix(&path).unwrap();
        assert_eq!(unix(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse, "somebody listens");
        let Listener { socket, file, .. } = first;
        drop(socket);
        let second = unix(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the first one's end leaves the second one's file alone");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_pending_connection_is_accepted_after_new_ones_are_kept_out() {
        let mut listener = bind_tcp(([127, 0, 0, 1], 0).into(), false).unwrap().listen().unwrap();
        let Address::Tcp(address) = listener.address.clone() else { unreachable!("bound above") };
        let early = std::net::TcpStream::connect(address).unwrap();
        listener.stop_accepting();
        assert!(listener.has_pending());
        let late = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let Stream::Tcp(socket) = listener.stream().unwrap() else { unreachable!("a TCP socket") };
        assert_eq!(socket.accept().unwrap().1, early.local_addr().unwrap());
        assert!(!listener.has_pending());
    }
}
