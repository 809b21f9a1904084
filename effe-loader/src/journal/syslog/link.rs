//! Sockets to a syslog daemon, local or remote. Every operation ends at the caller's deadline.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs, UdpSocket},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{self, Receiver};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// How long the other end may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the refusal of a first datagram is waited for.
const REFUSAL: Duration = Duration::from_millis(100);

/// Where daemons listen.
#[derive(Clone, Debug)]
pub(super) enum Places {
    /// The first of these that is there.
    Local(Vec<PathBuf>),
    /// `HOST:PORT`
    Udp(String),
    /// `HOST:PORT`
    Tcp(String),
}

/// An attempt to connect.
pub(super) type Attempt = Receiver<Result<Socket, String>>;

impl Places {
    /// Begins to connect. Names are looked up and connections are made on a thread of their own: both may
    /// take long.
    pub(super) fn connect(&self) -> Attempt {
        let (sender, attempt) = channel::bounded(1);
        if let Places::Local(places) = self {
            let _ = sender.send(local(places));
            return attempt;
        }
        let place = self.clone();
        // If there is no thread, the sender is dropped, and the attempt has failed.
        let _ = thread::Builder::new().name("journal-connect".to_owned()).spawn(move || {
            let socket = remote(&place).map_err(|err| format!("{place}: {err}"));
            let _ = sender.send(socket);
        });
        attempt
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Places::Local(places) => {
                let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
                f.write_str(&places.join(" or "))
            }
            Places::Udp(place) => write!(f, "udp://{place}"),
            Places::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

fn local(places: &[PathBuf]) -> Result<Socket, String> {
    let mut reasons = Vec::new();
    for place in places {
        match local_socket(place) {
            Ok(socket) => return Ok(Socket::Local(socket)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => reasons.push(format!("{}: {err}", place.display())),
        }
    }
    if reasons.is_empty() {
        return Err(format!("nothing at {}", Places::Local(places.to_owned())));
    }
    Err(reasons.join(", "))
}

/// Connects without ever waiting.
pub(super) fn local_socket(place: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(place)?;
    Ok(socket)
}

fn remote(place: &Places) -> io::Result<Socket> {
    let (host, is_stream) = match place {
        Places::Tcp(host) => (host, true),
        Places::Udp(host) => (host, false),
        Places::Local(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        let socket = if is_stream {
            TcpStream::connect_timeout(&address, CONNECT).and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(Socket::Stream { stream, rest: Vec::new() })
            })
        } else {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).and_then(|socket| {
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Socket::Udp { socket, fresh: true })
            })
        };
        match socket {
            Ok(socket) => return Ok(socket),
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// A connection to a daemon.
#[derive(Debug)]
pub(super) enum Socket {
    Local(UnixDatagram),
    Udp {
        socket: UdpSocket,
        /// Whether nothing has been sent yet. After the first datagram a refusal is waited for: without that,
        /// a daemon that isn't there would count as one that is back.
        fresh: bool,
    },
    Stream {
        stream: TcpStream,
        /// The rest of a message of which a part was sent.
        rest: Vec<u8>,
    },
}

impl Socket {
    /// Whether messages need a frame.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Socket::Stream { .. })
    }

    /// Sends a message, waiting for room until the deadline.
    ///
    /// # Errors
    /// `TimedOut` if the daemon doesn't read; another error if the daemon has gone. The message was not
    /// delivered.
    pub(super) fn send(&mut self, message: &[u8], deadline: Instant) -> io::Result<()> {
        match self {
            Socket::Local(socket) => datagram(&*socket, deadline, || socket.send(message)),
            Socket::Udp { socket, fresh } => {
                datagram(&*socket, deadline, || socket.send(message))?;
                if std::mem::take(fresh) {
                    wait(&*socket, PollFlags::empty(), REFUSAL);
                    return socket.take_error()?.map_or(Ok(()), Err);
                }
                Ok(())
            }
            Socket::Stream { stream, rest } => {
                is_open(stream)?;
                while !rest.is_empty() {
                    let n_written = write(stream, rest, deadline)?;
                    rest.drain(..n_written);
                }
                let n_written = write(stream, message, deadline)?;
                // The daemon has a part of it now, and must get the rest before any other message.
                rest.extend_from_slice(&message[n_written..]);
                while !rest.is_empty() {
                    let Ok(n_written) = write(stream, rest, deadline) else { break };
                    rest.drain(..n_written);
                }
                Ok(())
            }
        }
    }

    /// How many messages are known to be lost with a connection on which `send` has failed.
    pub(super) fn n_lost(&self) -> u64 {
        match self {
            Socket::Local(_) => 0,
            // The refusal is of the datagram before.
            Socket::Udp { fresh, .. } => u64::from(!fresh),
            Socket::Stream { rest, .. } => u64::from(!rest.is_empty()),
        }
    }
}

fn datagram(socket: &impl AsFd, deadline: Instant, send: impl Fn() -> io::Result<usize>) -> io::Result<()> {
    loop {
        let Err(err) = send() else { return Ok(()) };
        match Errno::from_io_error(&err) {
            Some(Errno::AGAIN) => wait_for_room(socket, deadline)?,
            Some(Errno::NOBUFS) => {
                // macOS and the BSDs: poll doesn't look at the other end of the socket and says yes at once.
                wait_for_room(socket, deadline)?;
                thread::sleep(Duration::from_millis(5));
            }
            Some(Errno::INTR) => {}
            _ => return Err(err),
        }
    }
}

/// Writes some bytes.
fn write(mut stream: &TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n_written) => return Ok(n_written),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => wait_for_room(&stream, deadline)?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// Whether the daemon has closed its end. A writer doesn't see that without reading, and would lose its first
/// message.
fn is_open(mut stream: &TcpStream) -> io::Result<()> {
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

fn wait_for_room(socket: &impl AsFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the daemon has stopped reading"));
    }
    wait(socket, PollFlags::OUT, left);
    Ok(())
}

/// Waits for an event or for an error; `poll` always reports errors.
fn wait(socket: &impl AsFd, event: PollFlags, within: Duration) {
    let timeout = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos() as _ };
    // An error can only be an interruption. The caller tries again then.
    let _ = poll(&mut [PollFd::new(socket, event)], Some(&timeout));
}
