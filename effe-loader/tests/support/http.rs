//! HTTP as bytes on a socket: what is sent is what the test says, what comes back is what the loader sent.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::LONG;

/// What carries bytes both ways.
pub trait Carrier: Read + Write + Send {}

impl<T: Read + Write + Send> Carrier for T {}

/// One connection, kept alive as long as the server keeps it.
pub struct Connection(BufReader<Box<dyn Carrier>>, TcpStream);

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 200, …
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("the loader takes connections")
    }

    /// Connects, or says why not.
    pub fn try_open(address: SocketAddr) -> io::Result<Connection> {
        Connection::over(address, |stream| Box::new(stream))
    }

    /// Connects, with something between the socket and HTTP.
    pub fn over(
        address: SocketAddr,
        wrap: impl FnOnce(TcpStream) -> Box<dyn Carrier>,
    ) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        stream.set_nodelay(true)?;
        let socket = stream.try_clone()?;
        Ok(Connection(BufReader::new(wrap(stream)), socket))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the loader reads");
        self
    }

    /// Sends bytes as they are, or says why not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// GET, and the answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).reply()
    }

    /// POST, and the answer.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: &[u8]) -> Reply {
        let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat()).reply()
    }

    /// The next answer.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).expect("an answer comes")
    }

    /// The next answer, to a HEAD.
    #[track_caller]
    pub fn reply_to_head(&mut self) -> Reply {
        self.try_reply(true).expect("an answer comes")
    }

    /// The next byte, whatever it belongs to.
    #[track_caller]
    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("another byte comes");
        byte[0]
    }

    /// All that comes until the server closes the connection.
    #[track_caller]
    pub fn read_to_end(&mut self, bytes: &mut Vec<u8>) {
        self.0.read_to_end(bytes).expect("the server closes the connection");
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(err) => err.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// The socket, to write to it from another thread.
    pub fn writer(&self) -> TcpStream {
        self.1.try_clone().unwrap()
    }

    /// Sends nothing more, and says so; it still reads.
    pub fn end(&self) {
        // An error means that the server has closed the connection already.
        let _ = self.1.shutdown(std::net::Shutdown::Write);
    }

    /// Leaves in the rudest way: with a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.1, Some(Duration::ZERO)).unwrap();
    }

    /// The next answer, or why there is none.
    pub fn try_reply(&mut self, to_head: bool) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line_bytes()?;
            let Some(at) = line.iter().position(|byte| *byte == b':') else { break };
            let name = String::from_utf8_lossy(&line[..at]).to_ascii_lowercase();
            headers.push((name, line[at + 1..].trim_ascii().to_vec()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if to_head || status == 204 || status == 304 {
            return Ok(reply);
        }
        if reply.text_header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                reply.body.extend(self.exactly(size)?);
                self.line()?;
                if size == 0 {
                    return Ok(reply);
                }
            }
        }
        let length = reply.text_header("content-length").and_then(|text| text.parse().ok());
        reply.body = match length {
            Some(length) => self.exactly(length)?,
            None => return Err(io::Error::other("an answer of no known length")),
        };
        Ok(reply)
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        String::from_utf8(self.line_bytes()?).map_err(io::Error::other)
    }

    fn line_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Reply {
    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The first header of a name, if it is text.
    pub fn text_header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// Sends `n` GETs from `clients` threads, each over a connection of its own; how many were answered with 200.
pub fn load(address: SocketAddr, target: &str, n: usize, clients: usize) -> usize {
    let (sent, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut connection = Connection::open(address);
                while sent.fetch_add(1, Ordering::Relaxed) < n {
                    if connection.get(target).status == 200 {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    good.into_inner()
}
