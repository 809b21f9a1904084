//! Streams of HTTP/2 that are taken over (RFC 8441), by h2's own client, as something that a test reads and writes.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{LONG, Server};

/// Waits for a future on this thread; it must come to its end in time.
#[track_caller]
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, deadline) = (pin!(future), Instant::now() + LONG);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it never came to an end");
        thread::park_timeout(left);
    }
}

/// A connection, which a thread of its own carries on until it ends.
#[derive(Clone)]
pub struct Http2(SendRequest<Bytes>);

impl Http2 {
    /// In clear, to a server that has said what it takes by the time this returns.
    #[track_caller]
    pub fn connect(server: &Server) -> Http2 {
        let address = server.address;
        Http2::over(async move { tokio::net::TcpStream::connect(address).await })
    }

    /// Over TLS.
    #[cfg(feature = "tls")]
    #[track_caller]
    pub fn over_tls(server: &Server, client: &Arc<rustls::ClientConfig>) -> Http2 {
        let (address, connector) = (server.address, tokio_rustls::TlsConnector::from(Arc::clone(client)));
        Http2::over(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Ok(stream)
        })
    }

    #[track_caller]
    fn over<S>(connect: impl Future<Output = io::Result<S>> + Send + 'static) -> Http2
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let stream = connect.await.expect("the loader takes connections");
                let mut builder = h2::client::Builder::new();
                // Streams that nobody reads leave room for the others.
                builder.initial_connection_window_size(16 << 20);
                let (client, connection) = builder.handshake(stream).await.unwrap();
                let _ = tell.send(client);
                let _ = connection.await;
            });
        });
        let client = Http2(told.recv_timeout(LONG).expect("there is a connection"));
        // Its settings come before any answer.
        let _ = client.ask(Request::get("http://test/version").body(()).unwrap());
        client
    }

    /// Whether the server takes streams over.
    pub fn is_offered(&self) -> bool {
        self.0.is_extended_connect_protocol_enabled()
    }

    /// Status, headers and body of an answer.
    #[track_caller]
    pub fn ask(&self, request: Request<()>) -> Result<(u16, HeaderMap, Vec<u8>), h2::Error> {
        let mut client = wait(self.0.clone().ready())?;
        let (answer, _sender) = client.send_request(request, true)?;
        let (head, body) = wait(answer)?.into_parts();
        let mut stream = Tunnel { sender: None, body, piece: Bytes::new() };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut stream, &mut text).map_err(|_| Reason::INTERNAL_ERROR)?;
        Ok((head.status.as_u16(), head.headers, text))
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) =
            self.ask(Request::get(format!("http://test{path}")).body(()).unwrap()).unwrap();
        (status, body)
    }

    /// Asks for a stream of another protocol: status, headers, and the stream, whatever the status is.
    #[track_caller]
    pub fn offer(
        &self,
        protocol: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<(u16, HeaderMap, Tunnel), h2::Error> {
        let mut request = Request::builder().method("CONNECT").uri(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.extension(Protocol::from(protocol)).body(()).unwrap();
        let mut client = wait(self.0.clone().ready())?;
        let (answer, sender) = client.send_request(request, false)?;
        let (head, body) = wait(answer)?.into_parts();
        Ok((head.status.as_u16(), head.headers, Tunnel { sender: Some(sender), body, piece: Bytes::new() }))
    }

    /// A stream of another protocol, which must be taken over.
    #[track_caller]
    pub fn open(&self, protocol: &str, path: &str) -> Tunnel {
        let version = [("sec-websocket-version", "13")];
        let (status, _, tunnel) = self.offer(protocol, path, &version).expect("an answer comes");
        assert_eq!(status, 200);
        tunnel
    }
}

/// The client's end of a stream.
pub struct Tunnel {
    sender: Option<SendStream<Bytes>>,
    body: RecvStream,
    piece: Bytes,
}

impl Tunnel {
    /// Closes this end; what the other one says is still read.
    pub fn end(&mut self) {
        self.sender().send_data(Bytes::new(), true).unwrap();
    }

    /// Takes the whole stream back.
    pub fn reset(mut self) {
        self.sender().send_reset(Reason::CANCEL);
    }

    /// How many bytes the server takes now.
    pub fn room(&mut self) -> usize {
        self.sender().reserve_capacity(1 << 20);
        self.sender().capacity()
    }

    /// Waits until the server takes the stream back; why.
    #[track_caller]
    pub fn is_reset(&mut self) -> Option<Reason> {
        let sender = self.sender.as_mut().unwrap();
        wait(poll_fn(|cx| sender.poll_reset(cx))).ok()
    }

    fn sender(&mut self) -> &mut SendStream<Bytes> {
        self.sender.as_mut().expect("the request had no end")
    }
}

impl io::Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match wait(self.body.data()) {
                None => return Ok(0),
                Some(piece) => {
                    self.piece = piece.map_err(|err| io::Error::new(io::ErrorKind::ConnectionReset, err))?
                }
            }
            let _ = self.body.flow_control().release_capacity(self.piece.len());
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

impl io::Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sender = self.sender();
        sender.reserve_capacity(bytes.len());
        while sender.capacity() == 0 && !bytes.is_empty() {
            match wait(poll_fn(|cx| sender.poll_capacity(cx))) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            };
        }
        let n = sender.capacity().min(bytes.len());
        sender.send_data(Bytes::copy_from_slice(&bytes[..n]), false).map_err(io::Error::other)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
