//! One connection to a server: sends requests over it, one after the other, and hands on each answer while it comes.
//! The body of a request is sent while the answer is read: a lambda may answer piece by piece, and reads no further
//! while nobody takes what it has answered.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime, time};

use super::request::Server;

/// A body is handed to the connection in pieces of this size, so that it is seen to move.
const PIECE_LEN: usize = 64 * 1024;

/// Takes an answer while it comes.
pub(super) trait Receiver {
    /// Takes the head.
    fn head(&mut self, head: Response<()>) -> Result<()>;
    /// Takes the next bytes of the body.
    fn piece(&mut self, piece: &[u8]) -> Result<()>;
}

/// A connection, made when it is needed first, and again if the server has closed it.
pub(super) struct Client {
    runtime: runtime::Runtime,
    server: Server,
    /// How long nothing may move.
    timeout: Duration,
    sender: Option<http1::SendRequest<Outgoing>>,
    moved: Moved,
}

impl Client {
    /// # Errors
    /// The system's own.
    pub(super) fn new(server: Server, timeout: Duration) -> Result<Client> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot wait for sockets")?;
        Ok(Client { runtime, server, timeout, sender: None, moved: Moved::now() })
    }

    /// Sends a request, and gives the answer to `to` while it comes.
    ///
    /// # Errors
    /// There is no answer, or not all of it, or `to` fails.
    pub(super) fn call(&mut self, request: &Request<Bytes>, to: &mut impl Receiver) -> Result<()> {
        let Client { runtime, server, timeout, sender, moved } = self;
        let quiet = Quiet { timeout: *timeout, moved: moved.clone() };
        runtime.block_on(async {
            moved.note();
            let answer = quiet.unless(send(server, sender, request, moved)).await;
            let answer = answer.and_then(|answer| answer);
            let answer = answer
                .with_context(|| format!("no answer from http://{}{}", server.authority, request.uri()))?;
            let (head, mut body) = answer.into_parts();
            to.head(Response::from_parts(head, ()))?;
            let mut n_bytes = 0;
            loop {
                // What was done with the last piece, such as printing it to a slow reader, is no wait for the server.
                moved.note();
                let frame = quiet.unless(body.frame()).await;
                let frame = frame.map(Option::transpose).and_then(|frame| Ok(frame?));
                let frame = frame.with_context(|| format!("the answer breaks off after {n_bytes} bytes"))?;
                let Some(frame) = frame else { return Ok(()) };
                if let Ok(piece) = frame.into_data() {
                    n_bytes += piece.len();
                    to.piece(&piece)?;
                }
            }
        })
    }
}

/// Sends over the connection that is there, or over a new one.
async fn send(
    server: &Server,
    sender: &mut Option<http1::SendRequest<Outgoing>>,
    request: &Request<Bytes>,
    moved: &Moved,
) -> Result<Response<Incoming>> {
    if let Some(kept) = sender
        && kept.ready().await.is_ok()
    {
        match kept.try_send_request(outgoing(request, moved)).await {
            Ok(answer) => return Ok(answer),
            // The server has closed the connection before it saw anything of the request.
            Err(err) if err.message().is_some() => {}
            Err(err) => return Err(err.into_error().into()),
        }
    }
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let (new, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is that of the request, too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.insert(new).send_request(outgoing(request, moved)).await?)
}

fn outgoing(request: &Request<Bytes>, moved: &Moved) -> Request<Outgoing> {
    request.clone().map(|body| Outgoing { rest: body, moved: moved.clone() })
}

/// When the last byte moved, or the last step was done.
#[derive(Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn now() -> Moved {
        Moved(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a wait once nothing has moved for a time.
struct Quiet {
    timeout: Duration,
    moved: Moved,
}

impl Quiet {
    async fn unless<T>(&self, wait: impl Future<Output = T>) -> Result<T> {
        let mut wait = pin!(wait);
        loop {
            let end = self.moved.at() + self.timeout;
            if let Ok(done) = time::timeout_at(end.into(), &mut wait).await {
                return Ok(done);
            }
            if self.moved.at() + self.timeout <= Instant::now() {
                bail!("no byte has moved for {} s; --timeout allows for more", self.timeout.as_secs());
            }
        }
    }
}

/// The body of a request, which notes that it moves.
struct Outgoing {
    rest: Bytes,
    moved: Moved,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.moved.note();
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(PIECE_LEN);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
