//! Syslog daemons on other machines: real UDP and TCP sockets, here on loopback.

use std::{
    io::{self, Read},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::LONG;

/// A daemon that takes datagrams.
pub struct UdpDaemon(UdpSocket);

impl UdpDaemon {
    /// A daemon that runs, at a port that the system picks or at this one.
    pub fn at(port: u16) -> UdpDaemon {
        UdpDaemon(UdpSocket::bind(("127.0.0.1", port)).unwrap())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// What `--syslog` is told.
    pub fn target(&self) -> String {
        format!("udp://127.0.0.1:{}", self.port())
    }

    /// The next message, if one comes in time.
    pub fn next_within(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let len = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).expect("what is sent is text"))
    }

    /// The next message in which `part` stands; those before it are dropped.
    #[track_caller]
    pub fn wait_for(&self, part: &str) -> String {
        std::iter::from_fn(|| self.next_within(LONG)).find(|text| text.contains(part)).expect(part)
    }
}

/// How messages are told apart on a connection, as RFC 6587 has it.
#[derive(Clone, Copy)]
pub enum Framing {
    /// A line each.
    Lines,
    /// Their length, a space, the message.
    Lengths,
}

/// A daemon that takes connections.
pub struct TcpDaemon {
    listener: TcpListener,
    framing: Framing,
    connection: Option<TcpStream>,
    received: Vec<u8>,
}

impl TcpDaemon {
    /// A daemon that runs, at a port that the system picks or at this one.
    pub fn at(port: u16, framing: Framing) -> TcpDaemon {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        TcpDaemon { listener, framing, connection: None, received: Vec::new() }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// What `--syslog` is told.
    pub fn target(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port())
    }

    /// The next message, if one comes in time; from a new connection if the one before has ended.
    pub fn next_within(&mut self, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(text) = message(&mut self.received, self.framing) {
                return Some(text);
            }
            if self.connection.is_none() {
                self.connection = self.accept(deadline);
            }
            let mut connection = self.connection.as_ref()?;
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            connection.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 64 * 1024];
            match connection.read(&mut buffer) {
                Ok(len) if len > 0 => self.received.extend_from_slice(&buffer[..len]),
                Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return None;
                }
                _ => {
                    // What it had begun to say is lost.
                    self.received.clear();
                    self.connection = None;
                }
            }
        }
    }

    /// The next message in which `part` stands; those before it are dropped.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) -> String {
        std::iter::from_fn(|| self.next_within(LONG)).find(|text| text.contains(part)).expect(part)
    }

    fn accept(&self, deadline: Instant) -> Option<TcpStream> {
        self.listener.set_nonblocking(true).unwrap();
        loop {
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(false).unwrap();
                return Some(stream);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes the first message out, if it is complete as its frame says.
fn message(received: &mut Vec<u8>, framing: Framing) -> Option<String> {
    let (end, begin, separator) = match framing {
        Framing::Lines => (received.iter().position(|byte| *byte == b'\n')?, 0, 1),
        Framing::Lengths => {
            let begin = received.iter().position(|byte| *byte == b' ')? + 1;
            let length = std::str::from_utf8(&received[..begin - 1]).ok().and_then(|text| text.parse().ok());
            let length: usize = length.expect("a length comes first");
            (begin + length, begin, 0)
        }
    };
    if received.len() < end + separator {
        return None;
    }
    let text = String::from_utf8(received[begin..end].to_vec()).expect("what is sent is text");
    received.drain(..end + separator);
    Some(text)
}
