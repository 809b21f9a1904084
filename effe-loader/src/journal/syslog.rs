//! The way to a syslog daemon, here or elsewhere: one message a record over a non-blocking socket, and what
//! to do when the daemon is absent, restarted or stopped. Knows when to give a record up, not where it goes
//! then.

mod link;
mod message;

use std::{
    io,
    time::{Duration, Instant},
};

use crossbeam::channel::RecvTimeoutError;
use rustix::io::Errno;

pub use self::{link::SyslogTarget, message::SyslogFormat};
use self::{
    link::{Attempt, Socket},
    message::Formatter,
};
use super::record::Record;

/// How long one record waits for a connection, or for room at a daemon that doesn't read.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long to leave an unavailable daemon alone.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes of a message after its head. With the head it fits into the 8 KiB that rsyslog takes.
const BODY_LIMIT: usize = 8 * 1024 - 256;
/// Messages are not cut to fewer bytes than this: a socket that refuses so few takes nothing.
const SMALLEST: usize = 128;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Sent,
    /// The first that was sent after an outage.
    Back,
    /// Not sent: an outage begins, for this reason.
    Gone(String),
    /// Not sent: the outage goes on.
    Unavailable,
}

/// Sends records to a daemon. It blocks its thread for [`TIMEOUT`] at most, once per outage.
pub(super) struct Syslog {
    target: SyslogTarget,
    formatter: Formatter,
    /// A connection, perhaps to a daemon that doesn't read.
    socket: Option<Socket>,
    attempt: Option<Attempt>,
    /// While there is an outage: when to look again.
    outage: Option<Instant>,
    /// Bytes of a body that the socket takes.
    limit: usize,
    /// Messages that were sent, and are known to have been lost with their connection.
    pub(super) n_lost: u64,
}

impl Syslog {
    /// `None` if there is to be no syslog. Connects when there is something to send.
    pub(super) fn new(target: SyslogTarget, format: SyslogFormat) -> Option<Syslog> {
        let is_local = matches!(target, SyslogTarget::Auto | SyslogTarget::Unix(_));
        let formatter = Formatter::new(format, is_local, "effe-loader");
        let (socket, attempt, outage) = (None, None, None);
        let syslog = Syslog { target, formatter, socket, attempt, outage, limit: BODY_LIMIT, n_lost: 0 };
        (syslog.target != SyslogTarget::None).then_some(syslog)
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

    /// Sends a record over the connection that is there, if that can be done at once. If it can't, the next
    /// record finds out why.
    pub(super) fn send_now(&mut self, record: &Record) {
        if let Some(mut socket) = self.socket.take() {
            let _ = self.transmit(&mut socket, record, Instant::now());
            self.socket = Some(socket);
        }
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
        sent.map_err(|err| format!("{}: {err}", self.target))
    }

    fn connect(&mut self, deadline: Instant) -> Result<Socket, String> {
        self.limit = BODY_LIMIT;
        let attempt = self.attempt.take().unwrap_or_else(|| self.target.connect());
        match attempt.recv_deadline(deadline) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.attempt = Some(attempt);
                Err(format!("{} doesn't answer", self.target))
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
        Syslog::new(daemon.target(), SyslogFormat::Rfc3164).unwrap()
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
