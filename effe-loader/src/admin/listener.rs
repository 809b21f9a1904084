//! Where the admin listener listens: an address of the network, or a socket in the file system.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{net, time};

use crate::{error::Error, net::plain::Plain};

/// Only the user that the loader runs as.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How long the system is left alone once it can't open a connection: it has no descriptor to spare.
const BREATH: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:9090`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl Address {
    /// Whether others than the users of this machine can get there.
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

/// A socket that listens.
pub struct Listener {
    /// The real address, also if any port was asked for.
    pub address: Address,
    /// The socket.
    pub socket: ListeningSocket,
    /// Its file, if it has one.
    pub file: Option<OwnFile>,
}

/// What can be served.
pub enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or not ours.
    pub fn bind(address: &Address) -> Result<Listener, Error> {
        let failed = |source| Error::BindAdmin { address: address.to_string(), source };
        match address {
            Address::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted).map_err(failed)?;
                let address = Address::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Listener { address, socket: ListeningSocket::Tcp(socket), file: None })
            }
            Address::Unix(path) => {
                let (socket, file) = bind_unix(path).map_err(failed)?;
                let socket = ListeningSocket::Unix(socket);
                Ok(Listener { address: address.clone(), socket, file: Some(file) })
            }
        }
    }
}

/// Where connections come in.
pub enum Door {
    Tcp(net::TcpListener),
    Unix(net::UnixListener),
}

impl Door {
    /// Opens it, on the thread that will wait at it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(socket: ListeningSocket) -> io::Result<Door> {
        match socket {
            ListeningSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                net::TcpListener::from_std(socket).map(Door::Tcp)
            }
            ListeningSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                net::UnixListener::from_std(socket).map(Door::Unix)
            }
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> Plain {
        loop {
            let accepted = match self {
                Door::Tcp(socket) => socket.accept().await.map(|(stream, _)| Plain::Tcp(stream)),
                Door::Unix(socket) => socket.accept().await.map(|(stream, _)| Plain::Unix(stream)),
            };
            match accepted {
                Ok(socket) => return socket,
                Err(_) => time::sleep(BREATH).await,
            }
        }
    }
}

/// Binds a socket that nobody else can ever connect to: its mode is set before it has a name.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, OwnFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    let name = SockAddr::unix(path)?;
    if let Err(err) = socket.bind(&name) {
        if err.kind() != io::ErrorKind::AddrInUse || !is_left_over(path) {
            return Err(err);
        }
        fs::remove_file(path)?;
        socket.bind(&name)?;
    }
    let file = OwnFile::new(path)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Whether a file is the socket of a process that has gone without removing it.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused)
}

/// A file that we made: dropped, it goes, unless somebody has replaced it.
pub struct OwnFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OwnFile {
    fn new(path: &Path) -> io::Result<OwnFile> {
        Ok(OwnFile { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
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
