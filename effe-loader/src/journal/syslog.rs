//! The way to the local syslog daemon: one datagram a record over a non-blocking socket, and what to do when the
//! daemon is absent, restarted or stopped. Knows when to give a record up, not where it goes then.
//!
//! The head is the `syslog` crate's RFC 3164: `<priority>time tag[pid]: `. Its time is UTC, never local time, so
//! there is nothing in it that could fail; rsyslog and journald put their own time of arrival in its place.

use std::{
    io, mem,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use syslog::{Facility, Formatter3164, LogFormat};

use super::{Record, Severity, Source, line};

/// Where daemons listen: Linux and its containers, macOS, the BSDs.
const PLACES: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// How long one record waits for room at a daemon that doesn't read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to leave an unavailable daemon alone.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes of a datagram after its head: together they fit into the 8 KiB that rsyslog takes.
const BODY_LIMIT: usize = 8 * 1024 - 128;
/// A socket that refuses this as too long takes nothing.
const SMALLEST: usize = 128;
/// Bytes of the tag.
const TAG_LIMIT: usize = 48;

/// Where syslog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// Wherever the system has it.
    Auto,
    /// It is not wanted.
    None,
    /// A datagram socket.
    Unix(PathBuf),
}

impl FromStr for SyslogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<SyslogTarget, String> {
        match text {
            "auto" => Ok(SyslogTarget::Auto),
            "none" => Ok(SyslogTarget::None),
            _ => match text.strip_prefix("unix:") {
                Some("") => Err("unix: wants the path of a socket, as in unix:/dev/log".to_owned()),
                Some(path) => Ok(SyslogTarget::Unix(path.into())),
                None => Err("write auto, none or unix:PATH, as in unix:/dev/log".to_owned()),
            },
        }
    }
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The daemon has it.
    Sent,
    /// The daemon has it, the first after an outage.
    Back,
    /// Nobody has it: an outage begins, for this reason.
    Gone(String),
    /// Nobody has it, and that is no news.
    Unavailable,
}

impl Delivery {
    pub(super) fn arrived(&self) -> bool {
        matches!(self, Delivery::Sent | Delivery::Back)
    }
}

/// The sender. Used from one thread, which it may hold up for [`PATIENCE`] once per outage.
pub(super) struct Syslog {
    places: Vec<PathBuf>,
    formatter: Formatter3164,
    link: Link,
    /// Bytes of a body that the socket takes.
    limit: usize,
}

enum Link {
    Untried,
    Up(UnixDatagram),
    Down { retry: Instant },
}

impl Syslog {
    /// `None` if it is not wanted. Connects when there is something to send.
    pub(super) fn new(target: &SyslogTarget, tag: &str) -> Option<Syslog> {
        let places = match target {
            SyslogTarget::Auto => PLACES.map(PathBuf::from).into(),
            SyslogTarget::None => return None,
            SyslogTarget::Unix(path) => vec![path.clone()],
        };
        // A server without a terminal: distributions file it with the other daemons, and user rules stay for people.
        let facility = Facility::LOG_DAEMON;
        // The local socket has no place for a host name.
        let formatter = Formatter3164 { facility, hostname: None, process: tag_of(tag), pid: process::id() };
        Some(Syslog { places, formatter, link: Link::Untried, limit: BODY_LIMIT })
    }

    /// Sends a record, waiting for room only if the daemon has been well so far.
    pub(super) fn send(&mut self, record: &Record) -> Delivery {
        let down = match &self.link {
            Link::Down { retry } if Instant::now() < *retry => return Delivery::Unavailable,
            Link::Down { .. } => true,
            _ => false,
        };
        let patience = if down { Duration::ZERO } else { PATIENCE };
        match self.try_send(record, patience) {
            Ok(()) if down => Delivery::Back,
            Ok(()) => Delivery::Sent,
            Err(_) if down => Delivery::Unavailable,
            Err(reason) => Delivery::Gone(reason),
        }
    }

    /// Sends a record if the daemon is well; whether it has it.
    pub(super) fn send_now(&mut self, record: &Record) -> bool {
        match &self.link {
            Link::Up(socket) => socket.send(&self.datagram(record.severity, &body(record))).is_ok(),
            _ => false,
        }
    }

    fn try_send(&mut self, record: &Record, patience: Duration) -> Result<(), String> {
        let body = body(record);
        let down = Link::Down { retry: Instant::now() };
        if let Link::Up(socket) = mem::replace(&mut self.link, down) {
            match self.transmit(&socket, record.severity, &body, patience) {
                Ok(()) => {
                    self.link = Link::Up(socket);
                    return Ok(());
                }
                // It is there and doesn't read: a new connection would meet the same.
                Err(err) if err.kind() == io::ErrorKind::TimedOut => return self.give_up(err.to_string()),
                // The daemon behind this socket has ended; perhaps there is a new one.
                Err(_) => {}
            }
        }
        let socket = match self.connect() {
            Ok(socket) => socket,
            Err(reason) => return self.give_up(reason),
        };
        match self.transmit(&socket, record.severity, &body, patience) {
            Ok(()) => self.link = Link::Up(socket),
            Err(err) => return self.give_up(err.to_string()),
        }
        Ok(())
    }

    fn give_up(&mut self, reason: String) -> Result<(), String> {
        self.link = Link::Down { retry: Instant::now() + RETRY };
        Err(reason)
    }

    fn connect(&mut self) -> Result<UnixDatagram, String> {
        self.limit = BODY_LIMIT;
        let mut reasons = Vec::new();
        for place in &self.places {
            match connect(place) {
                Ok(socket) => return Ok(socket),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => reasons.push(format!("{}: {err}", place.display())),
            }
        }
        if reasons.is_empty() {
            let places: Vec<_> = self.places.iter().map(|place| place.display().to_string()).collect();
            return Err(format!("nothing at {}", places.join(" or ")));
        }
        Err(reasons.join(", "))
    }

    /// Sends one datagram, shortened to what the socket takes.
    fn transmit(
        &mut self,
        socket: &UnixDatagram,
        severity: Severity,
        body: &str,
        patience: Duration,
    ) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let mut datagram = self.datagram(severity, body);
        loop {
            let Err(err) = socket.send(&datagram) else { return Ok(()) };
            match Errno::from_io_error(&err) {
                Some(Errno::MSGSIZE) if self.limit > SMALLEST => {
                    self.limit /= 2;
                    datagram = self.datagram(severity, body);
                }
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

    fn datagram(&self, severity: Severity, body: &str) -> Vec<u8> {
        let cut = line::boundary(body, self.limit);
        let mark = if cut < body.len() { "…" } else { "" };
        let severity = match severity {
            Severity::Critical => syslog::Severity::LOG_CRIT,
            Severity::Error => syslog::Severity::LOG_ERR,
            Severity::Warning => syslog::Severity::LOG_WARNING,
            Severity::Notice => syslog::Severity::LOG_NOTICE,
            Severity::Info => syslog::Severity::LOG_INFO,
            Severity::Debug | Severity::Trace => syslog::Severity::LOG_DEBUG,
        };
        let mut datagram = Vec::new();
        // Fails only if the buffer does, and a Vec doesn't.
        let _ = self.formatter.format(&mut datagram, severity, format_args!("{}{mark}", &body[..cut]));
        datagram
    }
}

/// Connects without ever waiting.
fn connect(place: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(place)?;
    Ok(socket)
}

fn wait_for_room(socket: &UnixDatagram, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the daemon has stopped reading"));
    }
    let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
    // An error can only be an interruption: then the next attempt finds out.
    let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout));
    Ok(())
}

/// The part of a datagram that is ours, on one line.
fn body(record: &Record) -> String {
    let mut text = String::new();
    if record.source == Source::Lambda {
        text.push_str("lambda: ");
    }
    if !record.target.is_empty() {
        text.push_str(&record.target);
        text.push_str(": ");
    }
    text.push_str(&record.text);
    if !record.is_bare() {
        line::push_fields(&mut text, record);
    }
    let mut body = String::with_capacity(text.len());
    line::escape(&mut body, &text, line::octal);
    body
}

/// A tag that no daemon takes for something else: RFC 3164 wants letters and digits, and common use allows more.
fn tag_of(name: &str) -> String {
    let plain = |ch: char| if ch.is_ascii_alphanumeric() || "-_./".contains(ch) { ch } else { '_' };
    name.chars().take(TAG_LIMIT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::set_socket_send_buffer_size;

    use super::*;
    use crate::journal::testing::{Daemon, lambda};

    fn syslog(daemon: &Daemon) -> Syslog {
        Syslog::new(&daemon.target(), "effe-loader").unwrap()
    }

    #[test]
    fn targets_are_read_from_flags() {
        assert_eq!("auto".parse(), Ok(SyslogTarget::Auto));
        assert_eq!("none".parse(), Ok(SyslogTarget::None));
        assert_eq!("unix:/a b".parse(), Ok(SyslogTarget::Unix("/a b".into())));
        for bad in ["", "unix:", "/dev/log", "udp:localhost"] {
            assert!(bad.parse::<SyslogTarget>().unwrap_err().contains("unix:/dev/log"), "{bad}");
        }
    }

    #[test]
    fn a_message_that_the_socket_refuses_as_too_long_is_cut() {
        let daemon = Daemon::new();
        let mut syslog = syslog(&daemon);
        let socket = connect(&daemon.path()).unwrap();
        // The smallest that the kernel grants is some 4 KiB.
        set_socket_send_buffer_size(&socket, 1).unwrap();
        syslog.link = Link::Up(socket);
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
        assert!(since.elapsed() >= PATIENCE);
        let since = Instant::now();
        syslog.link = Link::Down { retry: since };
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
        assert!(since.elapsed() < PATIENCE / 2);
        for _ in 0..n_sent {
            daemon.receive();
        }
        syslog.link = Link::Down { retry: Instant::now() };
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
        assert!(matches!(syslog.link, Link::Down { retry } if retry > Instant::now()));
        daemon.revive();
        assert_eq!(syslog.send(&record), Delivery::Unavailable);
    }

    #[test]
    fn tags_are_plain() {
        assert_eq!(tag_of("effe-loader"), "effe-loader");
        assert_eq!(tag_of("a b[1]: \n"), "a_b_1____");
        assert_eq!(tag_of(&"x".repeat(100)).len(), TAG_LIMIT);
    }
}
