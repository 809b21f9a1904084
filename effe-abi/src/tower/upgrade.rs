//! Upgrades as hyper has them, for services that were written for hyper's server: they look for an `OnUpgrade` among
//! the request's extensions.
//!
//! Only a connection of hyper's can make one. So there is one, in memory: it is told of a request that offers an
//! upgrade, its `OnUpgrade` goes to the service, and when the service answers 101 it is told the same answer. Its other
//! end then carries the bytes of the new protocol, which are copied to and from the client's connection. Of what the
//! client has said and of the answer, hyper sees nothing else.
//!
//! The price: for a request that offers an upgrade, a task and about 10 KiB while it is answered; for each connection
//! that was taken over, a task, a copy of every byte each way, and 16 KiB for that.

use std::{
    convert::Infallible,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderValue, StatusCode, header};
use http_body::Frame;
use hyper::{server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::oneshot,
    task::JoinHandle,
};
use tower_service::Service;

use crate::{
    async_response::AsyncResponse,
    body::Body,
    error::{Boxed, Error, Result},
    request::Request,
    upgraded::Upgraded,
};

/// Bytes that wait between hyper and the client's connection, each way.
const BETWEEN: usize = 8 * 1024;

/// As [`serve`](super::serve), for a service that is ready, and a request that offers an upgrade.
pub(super) async fn serve<S, B>(
    service: &mut S,
    request: &Request,
    response: &mut AsyncResponse<'_>,
) -> Result
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<Boxed>>,
    B: http_body::Body<Error: Into<Boxed>>,
{
    let mut converted = http::Request::new(request.body());
    request.fill(&mut converted)?;
    // An offer of HTTP/2 has the form of HTTP/1.1, and a service would look for another one where it sees that version.
    *converted.version_mut() = http::Version::HTTP_11;
    let (hyper, on_upgrade) = Hyper::start().await?;
    converted.extensions_mut().insert(on_upgrade);
    let answer = service.call(converted).await.map_err(Error::new)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response.send_http(answer).await;
    }
    let protocol = answer.headers().get(header::UPGRADE).and_then(|protocol| protocol.to_str().ok());
    let protocol =
        protocol.ok_or("the service answers 101 and doesn't say which protocol follows")?.to_owned();
    for (name, value) in answer.headers() {
        response.add_http(name, value);
    }
    let stream = response.upgrade(&protocol)?;
    let is_websocket = protocol.eq_ignore_ascii_case("websocket");
    tokio::spawn(async move {
        // Ends in an error where one of them breaks off. Whoever reads on the other side sees that.
        let _ = hyper.carry(stream, is_websocket).await;
    });
    Ok(())
}

/// A connection of hyper's whose other end is here.
struct Hyper {
    here: DuplexStream,
    /// The service has answered 101.
    switch: oneshot::Sender<()>,
    connection: Task,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hyper {
    /// Has hyper read a request that offers an upgrade, and gives what hyper makes of the offer.
    async fn start() -> Result<(Hyper, OnUpgrade)> {
        let (mut here, there) = tokio::io::duplex(BETWEEN);
        let (give, on_upgrade) = oneshot::channel();
        let (switch, is_switched) = oneshot::channel();
        let once = Mutex::new(Some((give, is_switched)));
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let first = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let on_upgrade = hyper::upgrade::on(&mut request);
            async move {
                let mut answer = http::Response::new(Nothing);
                if let Some((give, is_switched)) = first
                    && give.send(on_upgrade).is_ok()
                    && is_switched.await.is_ok()
                {
                    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("any"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection =
            http1::Builder::new().max_buf_size(BETWEEN).serve_connection(TokioIo::new(there), service);
        let connection = connection.with_upgrades();
        let connection = Task(tokio::spawn(async move {
            let _ = connection.await;
        }));
        here.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n").await?;
        let on_upgrade = on_upgrade.await.map_err(|_| "hyper takes no upgrade")?;
        Ok((Hyper { here, switch, connection }, on_upgrade))
    }

    /// Lets hyper switch, and carries bytes between it and the client until both ends are closed.
    async fn carry(self, stream: Upgraded, is_websocket: bool) -> io::Result<()> {
        let Hyper { mut here, switch, connection } = self;
        switch.send(()).map_err(|()| io::ErrorKind::BrokenPipe)?;
        // The head of hyper's own 101, which ends with an empty line.
        let mut last = [0; 4];
        while last != *b"\r\n\r\n" {
            last.rotate_left(1);
            last[3] = here.read_u8().await?;
        }
        let ((mut from_service, mut to_service), (mut from_client, mut to_client)) =
            (tokio::io::split(here), tokio::io::split(stream));
        let is_away = AtomicBool::new(false);
        let up = async {
            if let Err(err) = tokio::io::copy(&mut from_client, &mut to_service).await {
                is_away.store(err.kind() == io::ErrorKind::ConnectionAborted, Ordering::Relaxed);
            }
            // The service sees the end of the connection. What it still says goes out.
            let _ = to_service.shutdown().await;
            std::future::pending::<()>().await;
        };
        let down = async {
            let (mut frames, mut buffer) = (Frames::default(), vec![0; BETWEEN]);
            loop {
                let n = from_service.read(&mut buffer).await?;
                if n == 0 {
                    break;
                }
                if is_websocket {
                    frames.pass(&buffer[..n]);
                }
                to_client.write_all(&buffer[..n]).await?;
            }
            if is_websocket && is_away.load(Ordering::Relaxed) && frames.may_be_closed() {
                to_client.write_all(&GOING_AWAY).await?;
            }
            Ok(())
        };
        let carried = tokio::select! {
            carried = down => carried,
            () = up => Ok(()),
        };
        drop(connection);
        carried
    }
}

/// A WebSocket's close frame with the code 1001.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// Where the frames end that a service sends, so that one can be added behind them when the effe stops: the service
/// only sees that its connection ends.
#[derive(Default)]
struct Frames {
    /// The head of a frame, as far as it has come.
    head: Vec<u8>,
    /// Bytes of the payload that have not come.
    left: u64,
    /// Whether the service has closed the socket itself.
    is_closed: bool,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let n = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            // A server masks nothing (RFC 6455, section 5.1).
            let len = match *self.head {
                [_, len @ 0..=125] => u64::from(len),
                [_, 126, a, b] => u64::from(u16::from_be_bytes([a, b])),
                [_, 127, a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                _ => continue,
            };
            self.is_closed |= self.head[0] & 15 == 8;
            self.left = len;
            self.head.clear();
        }
    }

    /// Whether a close frame may follow.
    fn may_be_closed(&self) -> bool {
        self.left == 0 && self.head.is_empty() && !self.is_closed
    }
}

/// An empty body.
struct Nothing;

impl http_body::Body for Nothing {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<Frame<bytes::Bytes>, Infallible>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn a_close_frame_follows_whole_frames_alone() {
        let large = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
        let middle = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let all = [&[0x81, 1, b'a'][..], &middle, &[0x89, 0], &large].concat();
        for at_a_time in [1, 3, 1000, usize::MAX] {
            let mut frames = Frames::default();
            for bytes in all.chunks(at_a_time.min(all.len())) {
                frames.pass(bytes);
            }
            assert!(frames.may_be_closed());
            frames.pass(&[0x81]);
            assert!(!frames.may_be_closed(), "half a head");
            frames.pass(&[2, b'a']);
            assert!(!frames.may_be_closed(), "half a payload");
            frames.pass(b"b");
            assert!(frames.may_be_closed());
            frames.pass(&[0x88, 0]);
            assert!(!frames.may_be_closed(), "closed already");
        }
    }
}
