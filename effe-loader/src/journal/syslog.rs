//! The way to a syslog daemon, here or elsewhere: one message a record over a non-blocking socket, and what
//! to do when the daemon is absent, restarted or stopped. Knows when to give a record up, not where it goes
//! then.

mod link;
mod message;

use std::{
    io,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use crossbeam::channel::RecvTimeoutError;
use rustix::io::Errno;

pub use self::message::SyslogFormat;
use self::{
    link::{Attempt, Places, Socket},
    message::Formatter,
};
use super::record::Record;

/// Where daemons listen: Linux and its containers, macOS, the BSDs.
const PLACES: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// How long one record waits for a connection, or for room at a daemon that doesn't read.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long to leave an unavailable daemon alone.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes of a message after its head. With the head it fits into the 8 KiB that rsyslog takes.
const BODY_LIMIT: usize = 8 * 1024 - 256;
/// Messages are not cut to fewer bytes than this: a socket that refuses so few takes nothing.
const SMALLEST: usize = 128;

/// Where syslog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// The first of the usual sockets that is there.
    Auto,
    /// No syslog.
    None,
    /// A datagram socket.
    Unix(PathBuf),
    /// UDP to `HOST:PORT`.
    Udp(String),
    /// TCP to `HOST:PORT`.
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

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The daemon has it.
    Sent,
    /// The daemon has it, the first after an outage.
    Back,
    /// It was not delivered: an outage begins, for this reason.
    Gone(String),
    /// It was not delivered: the outage goes on.
    Unavailable,
}

impl Delivery {
    pub(super) fn arrived(&self) -> bool {
        matches!(self, Delivery::Sent | Delivery::Back)
    }
}

/// Sends records to a daemon. It blocks its thread for [`TIMEOUT`] at most, once per outage.
pub(super) struct Syslog {
    places: Places,
    formatter: Formatter,
    /// A connection, perhaps to a daemon that doesn't read.
    socket: Option<Socket>,
    attempt: Option<Attempt>,
    /// While there is an outage: when to look again.
    outage: Option<Instant>,
    /// Bytes of a body that the socket takes.
    limit: usize,
    /// Messages that were sent, and were lost with their connection.
    n_lost: u64,
}

impl Syslog {
    /// `None` if there is to be no syslog. Connects when there is something to send.
    pub(super) fn new(target: &SyslogTarget, format: SyslogFormat, tag: &str) -> Option<Syslog> {
        let places = match target {
            SyslogTarget::Auto => Places::Local(PLACES.map(PathBuf::from).into()),
            SyslogTarget::None => return None,
            SyslogTarget::Unix(path) => Places::Local(vec![path.clone()]),
            SyslogTarget::Udp(place) => Places::Udp(place.clone()),
            SyslogTarget::Tcp(place) => Places::Tcp(place.clone()),
        };
        let formatter = Formatter::new(format, matches!(places, Places::Local(_)), tag);
        let (socket, attempt, outage) = (None, None, None);
        Some(Syslog { places, formatter, socket, attempt, outage, limit: BODY_LIMIT, n_lost: 0 })
    }

    /// Sends a record. Waits only if there is no outage.
    pub(super) fn send(&mut self, record: &Record) -> Delivery {
        let now = Instant::now();
        let (down, timeout) = match self.outage {
            Some(retry) if now < retry => return Delivery::Unavailable,
            Some(_) => (true, Duration::ZERO),
            None => (false, TIMEOUT),
        };
        match self.try_send(record, now + timeout) {
            Ok(()) => {
                self.outage = None;
                if down { Delivery::Back } else { Delivery::Sent }
            }
            Err(reason) => {
                self.outage = Some(Instant::now() + RETRY);
                if down { Delivery::Unavailable } else { Delivery::Gone(reason) }
            }
        }
    }

    /// Sends a record if that can be done at once; whether it was sent.
    pub(super) fn send_now(&mut self, record: &Record) -> bool {
        let Some(mut socket) = self.socket.take().filter(|_| self.outage.is_none()) else { return false };
        let sent = self.transmit(&mut socket, record, Instant::now()).is_ok();
        // The next record finds out if it has gone again.
        self.socket = Some(socket);
        sent
    }

    /// How many messages are known to have been lost after they were sent, since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.n_lost)
    }

    fn try_send(&mut self, record: &Record, deadline: Instant) -> Result<(), String> {
        if let Some(mut socket) = self.socket.take() {
            let sent = self.transmit(&mut socket, record, deadline);
            match sent {
                // The daemon behind this socket has ended; perhaps there is a new one.
                Err(err) if err.kind() != io::ErrorKind::TimedOut => self.n_lost += socket.n_lost(),
                // If the daemon doesn't read, a new connection would not help.
                sent => {
                    self.socket = Some(socket);
                    return sent.map_err(|err| err.to_string());
                }
            }
        }
        let mut socket = self.connect(deadline)?;
        let sent = self.transmit(&mut socket, record, deadline);
        if sent.as_ref().err().is_none_or(|err| err.kind() == io::ErrorKind::TimedOut) {
            self.socket = Some(socket);
        }
        sent.map_err(|err| format!("{}: {err}", self.places))
    }

    fn connect(&mut self, deadline: Instant) -> Result<Socket, String> {
        self.limit = BODY_LIMIT;
        let attempt = self.attempt.take().unwrap_or_else(|| self.places.connect());
        match attempt.recv_deadline(deadline) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.attempt = Some(attempt);
                Err(format!("{} doesn't answer", self.places))
            }
            Err(RecvTimeoutError::Disconnected) => Err("there is no thread to connect on".to_owned()),
        }
    }

    /// Sends one message, cut to the size that the socket takes.
    fn transmit(&mut self, socket: &mut Socket, record: &Record, deadline: Instant) -> io::Result<()> {
        loop {
            let message = self.formatter.message(record, self.limit);
            let message = if socket.is_stream() { self.formatter.framed(message) } else { message };
            match socket.send(&message, deadline) {
                Err(err) if Errno::from_io_error(&err) == Some(Errno::MSGSIZE) && self.limit > SMALLEST => {
                    self.limit /= 2;
                }
                sent => return sent,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::set_socket_send_buffer_size;

    use super::*;
    use crate::journal::{
        Severity,
        testing::{Daemon, lambda},
    };

    fn syslog(daemon: &Daemon) -> Syslog {
        Syslog::new(&daemon.target(), SyslogFormat::Rfc3164, "effe-loader").unwrap()
    }

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

    #[test]
    fn a_message_that_the_socket_refuses_as_too_long_is_cut() {
        let daemon = Daemon::new();
        let mut syslog = syslog(&daemon);
        let socket = link::local_socket(&daemon.path()).unwrap();
        // The smallest that the kernel grants is some 4 KiB.
        set_socket_send_buffer_size(&socket, 1).unwrap();
        syslog.socket = Some(Socket::Local(socket));
        assert_eq!(syslog.send(&lambda(Severity::Error, &"ü".repeat(3_000))), Delivery::Sent);
        let datagram = daemon.receive();
        assert!(datagram.ends_with("ü…"), "{datagram}");
        assert!(datagram.len() > 1_000);
    }

    #[test]
    fn a_stopped_daemon_is_waited_for_once() {
        let daemon = Daemon::new();
        let mut syslog = syslog(&daemon);
        let record = lambda(Severity::Error, "said");
        let since = Instant::now();
        let mut n_sent = 0;
        let reason = loop {
            match syslog.send(&record) {
                Delivery::Sent => n_sent += 1,
                Delivery::Gone(reason) => break reason,
                other => panic!("{other:?} after {n_sent}"),
            }
        };
        assert_eq!(reason, "the daemon has stopped reading");
        assert!(since.elapsed() >= TIMEOUT);
        let since = Instant::now();
        syslog.outage = Some(since);
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
        assert!(since.elapsed() < TIMEOUT / 2);
        for _ in 0..n_sent {
            daemon.receive();
        }
        syslog.outage = Some(Instant::now());
        assert_eq!(syslog.send(&record), Delivery::Back);
    }

    #[test]
    fn an_absent_daemon_is_left_alone_for_a_while() {
        let mut daemon = Daemon::new();
        daemon.kill();
        let mut syslog = syslog(&daemon);
        let record = lambda(Severity::Error, "said");
        let Delivery::Gone(reason) = syslog.send(&record) else { panic!("it is there") };
        assert!(reason.starts_with("nothing at /"), "{reason}");
        assert!(syslog.outage.is_some_and(|retry| retry > Instant::now()));
        daemon.revive();
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
    }
}
