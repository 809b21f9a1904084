//! The socket of a listener that isn't the server's, such as the admin listener's: an address of the network or a
//! socket in the file system, which only the loader's user can connect to.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use rustix::fs::Mode;
use socket2::Socket;
use tokio::{net, time};

use crate::{
    error::Error,
    net::{
        activity::ClientTimeouts,
        plain::{self, Plain},
        socket_file::{self, SocketFile},
    },
};

/// Only the user that the loader runs as.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How long to wait after a connection could not be accepted: most likely no descriptor is free.
const RETRY: Duration = Duration::from_millis(100);

pub const CLIENT_TIMEOUTS: ClientTimeouts = ClientTimeouts {
    keep_alive: Some(Duration::from_secs(5)),
    read: Some(Duration::from_secs(5)),
    write: Some(Duration::from_secs(10)),
    upgrade: None,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Whether other machines can connect.
    pub fn is_public(&self) -> bool {
        matches!(self, Address::Tcp(address) if !address.ip().is_loopback())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("write unix:PATH".to_owned()),
                path => Ok(Address::Unix(path.into())),
            };
        }
        let mut addresses =
            text.to_socket_addrs().map_err(|_| "write ADDRESS:PORT or unix:PATH".to_owned())?;
        addresses.next().map(Address::Tcp).ok_or_else(|| "it has no address".to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens, before its thread runs.
pub struct Listener {
    /// The real address, also if any port was asked for.
    pub address: Address,
    pub socket: Socket,
    /// Removed when it is dropped.
    pub file: Option<SocketFile>,
}

impl Listener {
    /// Fails if the address is taken, or not ours. `flag` is the one that has named it.
    pub fn bind(flag: &'static str, address: &Address) -> Result<Listener, Error> {
        Listener::try_bind(address).map_err(|source| Error::BindPrivate {
            flag,
            address: address.to_string(),
            source,
        })
    }

    /// One that another program has bound in this process.
    pub fn handed(socket: Socket, file: Option<SocketFile>) -> io::Result<Listener> {
        let bound = socket.local_addr()?;
        let address = match (bound.as_socket(), bound.as_pathname()) {
            (Some(address), _) => Address::Tcp(address),
            (None, Some(path)) => Address::Unix(path.to_owned()),
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        Ok(Listener { address, socket, file })
    }

    fn try_bind(address: &Address) -> io::Result<Listener> {
        let (address, socket, file) = match address {
            Address::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted)?;
                (Address::Tcp(socket.local_addr()?), socket.into(), None)
            }
            Address::Unix(path) => {
                let (socket, file) = socket_file::bind(path, Some(SOCKET_MODE))?;
                socket.listen(BACKLOG)?;
                (address.clone(), socket, Some(file))
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Listener { address, socket, file })
    }
}

/// The socket on its thread.
pub enum AsyncSocket {
    Tcp(net::TcpListener),
    Unix(net::UnixListener),
}

impl AsyncSocket {
    /// Takes the socket to the runtime of this thread.
    pub fn open(socket: Socket) -> io::Result<AsyncSocket> {
        if socket.local_addr()?.is_unix() {
            net::UnixListener::from_std(socket.into()).map(AsyncSocket::Unix)
        } else {
            net::TcpListener::from_std(socket.into()).map(AsyncSocket::Tcp)
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> Plain {
        loop {
            let accepted = match self {
                AsyncSocket::Tcp(socket) => socket.accept().await.map(|(stream, _)| plain::tcp(stream)),
                AsyncSocket::Unix(socket) => socket.accept().await.map(|(stream, _)| plain::unix(stream)),
            };
            match accepted {
                Ok(socket) => return socket,
                Err(_) => time::sleep(RETRY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        let loopback: Address = "127.0.0.1:9090".parse().unwrap();
        assert_eq!((loopback.to_string().as_str(), loopback.is_public()), ("http://127.0.0.1:9090", false));
        assert!(!"[::1]:0".parse::<Address>().unwrap().is_public());
        assert!("0.0.0.0:9090".parse::<Address>().unwrap().is_public());
        assert!("[::]:9090".parse::<Address>().unwrap().is_public());
        let unix: Address = "unix:/run/effe.sock".parse().unwrap();
        assert_eq!((unix.to_string().as_str(), unix.is_public()), ("unix:/run/effe.sock", false));
        for bad in ["", "9090", "127.0.0.1", "unix:", "/run/effe.sock"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
