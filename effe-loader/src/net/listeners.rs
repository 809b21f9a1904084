//! Where the loader listens: TCP and Unix sockets, bound here or inherited, and let go without losing who waits in
//! them.

use std::{
    fmt, fs, io,
    net::{Shutdown, SocketAddr, TcpListener, ToSocketAddrs},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use listenfd::ListenFd;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{FdFlags, fcntl_setfd},
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::error::Error;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where to listen, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The first of these addresses that can be bound: what a name stands for.
    Tcp(Vec<SocketAddr>),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Listen {
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = if let Listen::Tcp(addresses) = self { &addresses[..] } else { &[] };
        addresses.iter().copied()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("write it as unix:/run/foo.sock".to_owned()),
                path => Ok(Listen::Unix(path.into())),
            };
        }
        let addresses = text.to_socket_addrs().map_err(|err| match text.rsplit_once(':') {
            None => "write it as 127.0.0.1:8080, [::]:8080 or unix:/run/foo.sock".to_owned(),
            Some(_) => err.to_string(),
        })?;
        Ok(Listen::Tcp(addresses.collect()))
    }
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address of the network.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl Address {
    fn of(socket: &Socket) -> io::Result<Address> {
        let address = socket.local_addr()?;
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Ok(Address::Tcp(address)),
            (None, Some(path)) => Ok(Address::Unix(path.to_owned())),
            (None, None) => Err(io::Error::other("it has neither an address nor a path")),
        }
    }

    /// `http://127.0.0.1:8080`, `unix:/run/foo.sock`
    pub fn url(&self, scheme: &str) -> String {
        match self {
            Address::Tcp(address) => format!("{scheme}://{address}"),
            Address::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is bound and does not listen yet: a client that comes too early is refused and tries again,
/// instead of waiting for Init. One that was inherited listens already; there, a client waits.
pub struct Bound {
    socket: Socket,
    /// The real address, also if any port was asked for.
    pub address: Address,
    /// Whether others have this very socket.
    shared: bool,
    file: Option<SocketFile>,
}

impl Bound {
    /// What `wanted` says, and every socket that was inherited, which comes first. An inherited socket that listens
    /// where another was wanted stands for it.
    ///
    /// # Errors
    /// Why one of them can't be bound.
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

    /// The sockets that a supervisor hands to this process (`LISTEN_FDS`). To be called while there is one thread:
    /// it takes the variables out of the environment.
    ///
    /// # Errors
    /// One of them is no listening stream socket.
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

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// It is no listening stream socket.
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
        Err(last.unwrap_or(Error::System { what: "listen", source: io::ErrorKind::AddrNotAvailable.into() }))
    }

    fn unix(path: &Path) -> Result<Bound, Error> {
        let address = Address::Unix(path.to_owned());
        bind_unix(path).map_err(|source| Error::Bind { address: address.to_string(), source })
    }

    /// Begins to take connections.
    ///
    /// # Errors
    /// Another process has begun to listen there.
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
        // [::] is all interfaces, for both versions of IP, whatever the system's default is; but not beside an address
        // of version 4 with the same port.
        socket.set_only_v6(is_for_ipv6_alone)?;
    }
    socket.bind(&address.into())?;
    let address = Address::of(&socket)?;
    Ok(Bound { socket, address, shared: false, file: None })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(err) = socket.bind(&address) {
        if err.kind() != io::ErrorKind::AddrInUse {
            return Err(err);
        }
        remove_dead(path)?;
        socket.bind(&address)?;
    }
    let file = Some(SocketFile::of(path)?);
    Ok(Bound { socket, address: Address::Unix(path.to_owned()), shared: false, file })
}

/// Removes what a process that is no more has left behind, and nothing else.
fn remove_dead(path: &Path) -> io::Result<()> {
    let in_use = |text: &str| io::Error::new(io::ErrorKind::AddrInUse, text);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("there is a file that is no socket"));
    }
    match UnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(in_use("a process listens there")),
        Err(err) => Err(err),
    }
}

/// Takes a descriptor over that only its number is known of.
#[expect(unsafe_code, reason = "a number becomes an owner")]
fn own(raw: std::os::fd::RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: `listenfd` hands out each descriptor of LISTEN_FDS once, and by that protocol they belong to this
    // process, which has not opened any under these numbers.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// The file of a Unix socket that this process has made.
struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// Device, inode and time of birth: a successor may have put its own socket in the same place, and systems give the
/// number of a file that is no more to the next one.
#[derive(PartialEq)]
struct FileId(u64, u64, i64, i64);

impl FileId {
    fn of(file: &fs::Metadata) -> FileId {
        FileId(file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), id: FileId::of(&fs::symlink_metadata(path)?) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| FileId::of(&file) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that listens.
pub struct Listener {
    socket: Socket,
    /// Where.
    pub address: Address,
    shared: bool,
    file: Option<SocketFile>,
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

/// Raises the soft limit of open files to the hard one; how many there may be.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("effe-listeners-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn unix(path: &Path) -> io::Result<Listener> {
        bind_unix(path).map(|bound| bound.listen().unwrap())
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let tcp = |text: &str| match text.parse() {
            Ok(Listen::Tcp(addresses)) => addresses[0].to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(tcp("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(tcp("[::1]:80"), "[::1]:80");
        assert_eq!("unix:/run/a b".parse(), Ok(Listen::Unix("/run/a b".into())));
        for bad in ["", "80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "unix:", "/run/x"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn any_address_is_read_as_it_is_written_again() {
        bolero::check!().with_type::<(u128, u16, bool, Vec<u8>)>().for_each(|(bits, port, v4, noise)| {
            let ip = if *v4 {
                IpAddr::from((*bits as u32).to_be_bytes())
            } else {
                IpAddr::from(bits.to_be_bytes())
            };
            let address = Address::Tcp((ip, *port).into());
            assert_eq!(address.to_string().parse(), Ok(Listen::Tcp(vec![(ip, *port).into()])));
            let path = String::from_utf8_lossy(noise);
            let listen = format!("unix:{path}").parse::<Listen>();
            let Ok(Listen::Unix(read)) = listen else { return assert!(path.is_empty()) };
            assert_eq!(Address::Unix(read).to_string(), format!("unix:{path}"));
            // A colon would ask for a name to be looked up.
            if !path.contains(':') {
                assert!(path.parse::<Listen>().is_err(), "{path:?}");
            }
        });
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
    fn who_has_been_let_in_is_accepted_behind_the_closed_door() {
        let mut listener = bind_tcp(([127, 0, 0, 1], 0).into(), false).unwrap().listen().unwrap();
        let Address::Tcp(address) = listener.address.clone() else { unreachable!("bound above") };
        let early = std::net::TcpStream::connect(address).unwrap();
        listener.close_door();
        assert!(listener.has_visitors());
        let late = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let Stream::Tcp(socket) = listener.stream().unwrap() else { unreachable!("a TCP socket") };
        assert_eq!(socket.accept().unwrap().1, early.local_addr().unwrap());
        assert!(!listener.has_visitors());
    }
}
