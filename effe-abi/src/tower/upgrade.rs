//! Upgrades as hyper has them, for services that were written for hyper's server: they look for an `OnUpgrade` among
//! the request's extensions.
//!
//! Only a connection of hyper's can make one. So there is one, in memory: it is told of a request that offers an
//! upgrade, its `OnUpgrade` goes to the service, and when the service answers 101 it is told the same answer. From there
//! on it reads and writes the client's stream itself. Of what the client has said and of the answer, hyper sees nothing
//! else.
//!
//! The price: for a request that offers an upgrade, a task and about 10 KiB while it is answered.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use http::{HeaderValue, StatusCode, header};
use http_body::Frame;
use hyper::{server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
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

/// Bytes that hyper reads at a time.
const BUFFER: usize = 8 * 1024;

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
    request.fill(&mut converted, response.spare_map())?;
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
    response.add_http(answer.into_parts().0.headers);
    let stream = response.upgrade(&protocol)?;
    hyper.switch(stream, protocol.eq_ignore_ascii_case("websocket"));
    Ok(())
}

/// A connection of hyper's that has read an offer.
struct Hyper {
    stream: Arc<Mutex<Place>>,
    /// The service has answered 101.
    switch: oneshot::Sender<()>,
    connection: Task,
}

/// A task that ends when this is dropped.
struct Task(Option<JoinHandle<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Hyper {
    /// Has hyper read a request that offers an upgrade, and gives what hyper makes of the offer.
    async fn start() -> Result<(Hyper, OnUpgrade)> {
        let stream = Arc::<Mutex<Place>>::default();
        let (give, on_upgrade) = oneshot::channel();
        let (switch, is_switched) = oneshot::channel();
        let once = Mutex::new(Some((give, is_switched)));
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let first = lock(&once).take();
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
        let link = TokioIo::new(Link::new(Arc::clone(&stream)));
        let connection = http1::Builder::new().max_buf_size(BUFFER).serve_connection(link, service);
        let connection = connection.with_upgrades();
        let connection = Task(Some(tokio::spawn(async move {
            let _ = connection.await;
        })));
        let on_upgrade = on_upgrade.await.map_err(|_| "hyper takes no upgrade")?;
        Ok((Hyper { stream, switch, connection }, on_upgrade))
    }

    /// Lets hyper switch to the client's stream.
    fn switch(mut self, stream: Upgraded, is_websocket: bool) {
        let mut place = lock(&self.stream);
        place.stream = Some((stream, is_websocket));
        let waker = place.waker.take();
        drop(place);
        waker.into_iter().for_each(Waker::wake);
        // It fails if hyper has ended, and with it the stream.
        let _ = self.switch.send(());
        // It ends by itself once the service has the stream.
        self.connection.0 = None;
    }
}

/// Where the client's stream is put for hyper.
#[derive(Default)]
struct Place {
    stream: Option<(Upgraded, bool)>,
    /// Whom to wake for it.
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The request that hyper reads, and the end of the head of its answer.
const OFFER: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What hyper reads and writes, and then the service: an offer, and an answer to it that goes nowhere; behind both, the
/// client's stream.
struct Link {
    /// What hyper has not read of the offer.
    offer: &'static [u8],
    /// What of the end of the answer's head has not come yet.
    head: &'static [u8],
    place: Arc<Mutex<Place>>,
    stream: Option<Upgraded>,
    /// What the service sends, if that is a WebSocket.
    frames: Option<Frames>,
    /// Whether the effe stops, and the service was told so by the end of the connection.
    is_away: bool,
}

impl Link {
    fn new(place: Arc<Mutex<Place>>) -> Link {
        Link { offer: OFFER, head: HEAD_END, place, stream: None, frames: None, is_away: false }
    }

    fn poll_stream(&mut self, cx: &Context<'_>) -> Poll<Pin<&mut Upgraded>> {
        if self.stream.is_none() {
            let mut place = lock(&self.place);
            let Some((stream, is_websocket)) = place.stream.take() else {
                place.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            drop(place);
            self.stream = Some(stream);
            self.frames = is_websocket.then(Frames::default);
        }
        self.stream.as_mut().map_or(Poll::Pending, |stream| Poll::Ready(Pin::new(stream)))
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.offer.is_empty() {
            let (now, later) = this.offer.split_at(this.offer.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.offer = later;
            return Poll::Ready(Ok(()));
        }
        if this.is_away {
            return Poll::Ready(Ok(()));
        }
        match ready!(ready!(this.poll_stream(cx)).poll_read(cx, buffer)) {
            // The service sees the end of the connection. What it still says goes out.
            Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {
                this.is_away = true;
                Poll::Ready(Ok(()))
            }
            read => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.head.is_empty() {
            let mut n = 0;
            for byte in bytes {
                // A line end that something follows begins the end anew.
                let begins = if *byte == HEAD_END[0] { &HEAD_END[1..] } else { HEAD_END };
                this.head = if *byte == this.head[0] { &this.head[1..] } else { begins };
                n += 1;
                if this.head.is_empty() {
                    break;
                }
            }
            return Poll::Ready(Ok(n));
        }
        let written = ready!(ready!(this.poll_stream(cx)).poll_write(cx, bytes));
        if let (Ok(n), Some(frames)) = (&written, &mut this.frames) {
            frames.pass(&bytes[..*n]);
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_away();
        if let Some(stream) = &this.stream {
            stream.finish();
        }
        Poll::Ready(Ok(()))
    }
}

impl Link {
    /// Closes a WebSocket whose service has only seen the end of its connection.
    fn say_away(&mut self) {
        if let (true, Some(frames), Some(stream)) = (self.is_away, &mut self.frames, &mut self.stream)
            && frames.may_be_closed()
        {
            frames.pass(&GOING_AWAY);
            // Where the client has no room for it, it can't be waited for.
            let _ = Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), &GOING_AWAY);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.say_away();
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
