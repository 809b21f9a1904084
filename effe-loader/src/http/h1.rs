//! HTTP/1.1: a connection whose requests are answered one after the other. This file decides when bytes are read and
//! sent, and how a connection ends; `h1/conn` reads and sends them, and a `Service` answers.
//!
//! The dispatcher of actix-http is not used: it reads bodies ahead for a reader in another task, copies every piece of an
//! answer, keeps two buffers for a connection that waits, and answers what comes after a `Connection: close`. Neither is
//! its parser: it clears 3 KiB for each head, and makes a hash map of the fields.

mod buf_pool;
mod chunks;
mod codec;
mod conn;
mod encode;
mod parse;
mod read_buf;
mod upgrade;
mod write_buf;

use std::{
    cell::RefCell,
    future::{Future, pending, poll_fn},
    mem,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::body::{BodySize, MessageBody};
use actix_web::rt::time::{self, Instant, Sleep};
use http::{StatusCode, Version};

use self::{
    codec::{MAX_DRAIN, Message},
    conn::{Closed, Conn, Pieces},
    upgrade::Tunnel,
};
use crate::{
    body::{
        incoming::{Incoming, Uploads},
        outgoing::{Body, Upgrade},
    },
    http::{
        response::Response,
        service::{Answered, Guarded, IncomingRequest, RequestGuard, Service},
    },
    message::response::ResponseHead,
    net::{activity::ConnActivity, connection::Connection},
};

/// How long we read on after we have closed our end, until the client closes its own: at most, and while nothing comes.
/// It is as long as nginx does.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(5);

/// HTTP/1.1 on the connections of one thread.
pub struct Http1 {
    service: Rc<dyn Service>,
    /// Bytes of a body that a chunk may not exceed.
    body_limit: u64,
}

impl Http1 {
    pub fn new(service: Rc<dyn Service>, body_limit: usize) -> Rc<Http1> {
        Rc::new(Http1 { service, body_limit: body_limit as u64 })
    }

    /// Answers the requests of a connection until it ends, on the thread of the connections.
    pub async fn serve(self: Rc<Self>, connection: Connection, peer: Option<SocketAddr>) {
        let activity = Rc::clone(connection.activity());
        let conn = Rc::new(RefCell::new(Conn::new(connection, peer, self.body_limit)));
        let mut dispatcher =
            Dispatcher { http: self, activity, conn, uploads: Rc::default(), state: State::Waiting };
        poll_fn(|cx| dispatcher.poll(cx)).await;
    }
}

/// One connection: its requests, one after the other.
struct Dispatcher {
    http: Rc<Http1>,
    activity: Rc<ConnActivity>,
    conn: Rc<RefCell<Conn>>,
    /// Carries the request's body to a run that reads it as it comes.
    uploads: Rc<Uploads>,
    state: State,
}

/// What the connection is doing.
enum State {
    /// Waits for a request.
    Waiting,
    /// Waits for the answer.
    Handling(Guarded),
    /// Sends the body of the answer.
    Sending(Body),
    /// Reads the rest of a request's body that nobody wants, at most so many bytes.
    Draining(u64),
    /// Carries the bytes of another protocol.
    Tunnel(Tunnel),
    /// Sends what is left, then closes our end.
    Closing,
    /// Our end is closed. What still comes is read and dropped, until this timer ends. The moment is the latest.
    Lingering(Pin<Box<Sleep>>, Instant),
}

impl Dispatcher {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.advance(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Closed)) => return Poll::Ready(()),
            }
        }
    }

    /// Does one step, if that is possible now.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.uploads.poll(cx);
        match &mut self.state {
            State::Waiting => self.next_request(cx),
            State::Handling(answer) => {
                let answered = Pin::new(answer).poll(cx);
                let interims = self.activity.interims.take();
                if !interims.is_empty() {
                    self.inform(&interims);
                }
                match answered {
                    Poll::Ready(response) => Poll::Ready(self.begin(response)),
                    Poll::Pending => self.while_pending(cx),
                }
            }
            State::Sending(body) => {
                if !self.conn.borrow().output.has_room() {
                    ready!(self.conn.borrow_mut().poll_flush(cx))?;
                }
                match Pin::new(&mut *body).poll_next(cx) {
                    Poll::Ready(Some(Ok(piece))) => {
                        Poll::Ready(Ok(self.conn.borrow_mut().output.piece(piece).ok_or(Closed)?))
                    }
                    Poll::Ready(None) => {
                        self.conn.borrow_mut().output.end(body.trailers()).ok_or(Closed)?;
                        self.end();
                        Poll::Ready(Ok(()))
                    }
                    // A body that breaks off must not look whole.
                    Poll::Ready(Some(Err(_))) => {
                        self.conn.borrow().abort();
                        Poll::Ready(Err(Closed))
                    }
                    Poll::Pending => self.while_pending(cx),
                }
            }
            State::Draining(left) => {
                let mut conn = self.conn.borrow_mut();
                if conn.poll_flush(cx)?.is_ready() {
                    // Nothing is left to wait for after a crash, and nothing that another process could go on with.
                    self.activity.slot.end();
                }
                let piece = ready!(conn.poll_piece(cx));
                self.state = match piece {
                    None => {
                        self.activity.rest();
                        State::Waiting
                    }
                    Some(Ok(piece)) => match left.checked_sub(piece.len() as u64) {
                        Some(left) => State::Draining(left),
                        None => State::Closing,
                    },
                    Some(Err(_)) => State::Closing,
                };
                Poll::Ready(Ok(()))
            }
            State::Tunnel(tunnel) => {
                ready!(tunnel.poll(&mut self.conn.borrow_mut(), cx))?;
                self.state = State::Closing;
                Poll::Ready(Ok(()))
            }
            State::Closing => {
                let mut conn = self.conn.borrow_mut();
                ready!(conn.poll_flush(cx))?;
                ready!(conn.poll_shutdown(cx))?;
                if conn.is_silent() {
                    return Poll::Ready(Err(Closed));
                }
                self.activity.slot.end();
                // So that a drain takes the connection for one that idles.
                self.activity.rest();
                let now = Instant::now();
                self.state = State::Lingering(Box::pin(time::sleep(LINGER_PAUSE)), now + LINGER);
                Poll::Ready(Ok(()))
            }
            // If we closed while the client still sends, the system would reset the connection, and the client could
            // lose the answer.
            State::Lingering(end, latest) => match self.conn.borrow_mut().poll_discard(cx) {
                Poll::Ready(None) => Poll::Ready(Err(Closed)),
                Poll::Ready(Some(())) => {
                    end.as_mut().reset((*latest).min(Instant::now() + LINGER_PAUSE));
                    // At once, if that has passed: a client that always sends is never waited for.
                    if *latest <= Instant::now() { Poll::Ready(Err(Closed)) } else { Poll::Ready(Ok(())) }
                }
                Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Closed)),
            },
        }
    }

    /// Takes the next request, once there is one. Answers are sent before anything is waited for.
    fn next_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut conn = self.conn.borrow_mut();
        let slot = &self.activity.slot;
        let is_watched = slot.is_open();
        // Of answers that wait, a crash in the next run would lose all.
        if !conn.output.has_room() || (is_watched && !conn.output.is_empty()) {
            ready!(conn.poll_flush(cx))?;
        }
        let message = match conn.message() {
            Some(message) => message,
            None => {
                ready!(conn.poll_flush(cx))?;
                if is_watched && !slot.may_read(conn.input.bytes.is_empty()) {
                    return Poll::Pending;
                }
                let Poll::Ready(more) = conn.poll_more(cx) else {
                    if is_watched {
                        slot.rest(conn.input.bytes.is_empty());
                    }
                    return Poll::Pending;
                };
                match more? {
                    None => return Poll::Ready(Ok(())),
                    Some(message) => message,
                }
            }
        };
        match message {
            Message::Request { request, n_head, body } => {
                let (is_read, is_kept_back) = (conn.codec.is_read(), conn.codec.request.is_kept_back);
                drop(conn);
                let incoming = match body {
                    Some(bytes) => Incoming::Whole(bytes),
                    None if is_read => Incoming::None,
                    None if is_kept_back => Incoming::KeptBack(Box::pin(Pieces::of(&self.conn))),
                    None => Incoming::Pieces(Box::pin(Pieces::of(&self.conn))),
                };
                let guard = RequestGuard::begin(&self.activity, &request, Some(&self.uploads));
                let request = IncomingRequest { request, n_head: Some(n_head), incoming, guard };
                match self.http.service.call(request) {
                    Answered::Now(response) => return Poll::Ready(self.begin(response)),
                    Answered::Later(answer) => self.state = State::Handling(answer),
                }
            }
            Message::Refused(status) => {
                slot.answer();
                let head = ResponseHead { status, fields: Arc::default(), is_last: true };
                conn.begin(&head, BodySize::Sized(0));
                self.state = State::Closing;
            }
            Message::End => {
                slot.end();
                self.state = State::Closing;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// While an answer isn't ready: sends what is ready, and looks whether the client leaves.
    fn while_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.uploads.is_new.get() {
            return Poll::Ready(Ok(()));
        }
        if self.activity.has_no_answer.get() {
            return Poll::Ready(Err(Closed));
        }
        let mut conn = self.conn.borrow_mut();
        // A client that doesn't read may still leave.
        if let Poll::Ready(Err(closed)) = conn.poll_flush(cx) {
            return Poll::Ready(Err(closed));
        }
        if self.activity.slot.is_dying() {
            return Poll::Pending;
        }
        conn.poll_look_ahead(cx).map(Err)
    }

    #[cold]
    fn inform(&self, interims: &[ResponseHead]) {
        if !self.activity.slot.is_dying() {
            self.conn.borrow_mut().inform(interims);
        }
    }

    fn begin(&mut self, response: Response) -> Result<(), Closed> {
        if !self.activity.slot.may_answer() {
            self.hold();
            return Ok(());
        }
        let Response { mut head, mut body, .. } = response;
        if let Body::Stream(stream) = &mut body
            && !stream.interims.is_empty()
        {
            self.inform(&mem::take(&mut stream.interims));
        }
        let size = match body {
            Body::Upgrade(upgrade) => return self.switch(&head, *upgrade),
            ref body => body.size(),
        };
        let mut conn = self.conn.borrow_mut();
        // In HTTP/1.0 the end of the connection is the end of a body whose length isn't known.
        head.is_last |= self.activity.is_closing.get()
            || !conn.codec.can_skip()
            || (size == BodySize::Stream && conn.codec.request.version < Version::HTTP_11);
        let has_body = !conn.codec.request.is_head
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        conn.begin(&head, size);
        match body {
            Body::Stream(_) if has_body => {
                let version = conn.codec.request.version;
                conn.output.frame(size, version);
                drop(conn);
                self.state = State::Sending(body);
                return Ok(());
            }
            Body::Whole(bytes) if has_body => conn.output.whole(bytes),
            _ => {}
        }
        drop(conn);
        self.end();
        Ok(())
    }

    /// Answers that the connection goes on with another protocol.
    #[cold]
    fn switch(&mut self, head: &ResponseHead, upgrade: Upgrade) -> Result<(), Closed> {
        self.uploads.clear();
        let mut conn = self.conn.borrow_mut();
        conn.begin(head, BodySize::None);
        conn.input.reset_read_size();
        self.activity.rest();
        self.activity.tunnel.set(Some(false));
        drop(conn);
        self.state = State::Tunnel(Tunnel::new(upgrade));
        Ok(())
    }

    /// The client has been told something else, and this process is about to end.
    #[cold]
    fn hold(&mut self) {
        self.state = State::Handling(Guarded(Box::pin(pending())));
    }

    /// The answer is complete, though not all of it may be sent yet.
    fn end(&mut self) {
        // Both drop readers of the request's body, and these borrow `conn`.
        self.uploads.clear();
        self.state = State::Waiting;
        let mut conn = self.conn.borrow_mut();
        conn.input.reset_read_size();
        self.state = match () {
            () if !conn.codec.is_kept() || !conn.codec.can_skip() => State::Closing,
            () if conn.codec.is_read() => State::Waiting,
            () => State::Draining(MAX_DRAIN),
        };
    }
}
