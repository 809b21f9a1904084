//! Where a syslog daemon is, and sockets to it, local or remote. Every operation ends at the caller's deadline.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs, UdpSocket},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    str::FromStr,
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

/// Where daemons listen: Linux and its containers, macOS, the BSDs.
const USUAL_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Where syslog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// The first of the usual sockets that is there.
    Auto,
    None,
    Unix(PathBuf),
    /// `HOST:PORT`, as that of `Tcp`.
    Udp(String),
    Tcp(String),
}

impl FromStr for SyslogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<SyslogTarget, String> {
        match text {
            "auto" => return Ok(SyslogTarget::Auto),
            "none" => return Ok(SyslogTarget::None),
            "unix:" => return Err("unix: wants the path of a socket, as in unix:/dev/log".to_owned()),
            _ => {}
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(SyslogTarget::Unix(path.into()));
        }
        let place = text.split_once("://").filter(|(_, place)| is_place(place));
        match place {
            Some(("udp", place)) => Ok(SyslogTarget::Udp(place.to_owned())),
            Some(("tcp", place)) => Ok(SyslogTarget::Tcp(place.to_owned())),
            _ => Err("write auto, none, unix:PATH as in unix:/dev/log, udp://HOST:PORT or tcp://HOST:PORT"
                .to_owned()),
        }
    }
}

/// Whether a text is `HOST:PORT`. The name is looked up later, at each attempt to connect.
fn is_place(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains([':', '/', '[', ']', '@']);
        (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

pub(super) type Attempt = Receiver<Result<Socket, String>>;

impl SyslogTarget {
    /// Begins to connect. Names are looked up and connections are made on a thread of their own: both may
    /// take long.
    pub(super) fn connect(&self) -> Attempt {
        let (sender, attempt) = channel::bounded(1);
        let place = match self {
            SyslogTarget::Udp(host) | SyslogTarget::Tcp(host) => host.clone(),
            _ => {
                let _ = sender.send(self.connect_locally());
                return attempt;
            }
        };
        let (name, is_stream) = (self.to_string(), matches!(self, SyslogTarget::Tcp(_)));
        // If there is no thread, the sender is dropped, and the attempt has failed.
        let _ = thread::Builder::new().name("journal-connect".to_owned()).spawn(move || {
            let _ = sender.send(remote(&place, is_stream).map_err(|err| format!("{name}: {err}")));
        });
        attempt
    }

    fn connect_locally(&self) -> Result<Socket, String> {
        let mut reasons = Vec::new();
        for path in self.paths() {
            match local_socket(path) {
                Ok(socket) => return Ok(Socket::Local(socket)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => reasons.push(format!("{}: {err}", path.display())),
            }
        }
        Err(if reasons.is_empty() { format!("nothing at {self}") } else { reasons.join(", ") })
    }

    /// The port of another machine that is connected to.
    pub fn tcp_port(&self) -> Option<u16> {
        let SyslogTarget::Tcp(place) = self else { return None };
        place.rsplit_once(':')?.1.parse().ok()
    }

    /// The sockets in the file system that are tried, in this order.
    fn paths(&self) -> Vec<&Path> {
        match self {
            SyslogTarget::Auto => USUAL_SOCKETS.map(Path::new).into(),
            SyslogTarget::Unix(path) => vec![path],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogTarget::Udp(place) => write!(f, "udp://{place}"),
            SyslogTarget::Tcp(place) => write!(f, "tcp://{place}"),
            _ => {
                let paths: Vec<_> = self.paths().iter().map(|path| path.display().to_string()).collect();
                f.write_str(&paths.join(" or "))
            }
        }
    }
}

/// Connects without ever waiting.
pub(super) fn local_socket(place: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(place)?;
    Ok(socket)
}

fn remote(host: &str, is_stream: bool) -> io::Result<Socket> {
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
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Socket::Stream { .. })
    }

    /// Sends a message, waiting for room until the deadline. If it fails, the message was not delivered:
    /// with `TimedOut` the daemon doesn't read; with another error it has gone.
    pub(super) fn send(&mut self, message: &[u8], deadline: Instant) -> io::Result<()> {
        match self {
            Socket::Local(socket) => when_free(socket, deadline, || socket.send(message)).map(drop),
            Socket::Udp { socket, fresh } => {
                when_free(socket, deadline, || socket.send(message))?;
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

/// Calls `send`, when there is room for it; how many bytes it took.
fn when_free(
    socket: &impl AsFd,
    deadline: Instant,
    mut send: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let err = match send() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n_sent) => return Ok(n_sent),
            Err(err) => err,
        };
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

fn write(mut stream: &TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<usize> {
    when_free(stream, deadline, || stream.write(bytes))
}

/// Fails if the daemon has closed its end. A writer doesn't see that without reading, and would lose its first
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_from_flags() {
        assert_eq!("auto".parse(), Ok(SyslogTarget::Auto));
        assert_eq!("none".parse(), Ok(SyslogTarget::None));
        assert_eq!("unix:/a b".parse(), Ok(SyslogTarget::Unix("/a b".into())));
        assert_eq!("udp://log.example:514".parse(), Ok(SyslogTarget::Udp("log.example:514".into())));
        assert_eq!("tcp://[::1]:601".parse(), Ok(SyslogTarget::Tcp("[::1]:601".into())));
        for bad in [
            "",
            "unix:",
            "/dev/log",
            "udp:localhost",
            "udp://localhost",
            "udp://:514",
            "tcp://a:0",
            "tcp://a:x",
            "tcp://::1:514",
            "tls://a:1",
            "tcp://a/b:1",
        ] {
            assert!(bad.parse::<SyslogTarget>().unwrap_err().contains("unix:/dev/log"), "{bad}");
        }
    }
}
