//! HTTP/1.1: a connection whose requests are answered one after the other. What a head and a body look like is
//! actix-http's business; here is when bytes are read and sent, and how a connection ends.
//!
//! actix-http's own dispatcher is not asked: it reads bodies ahead for a reader in another task, copies every piece
//! of an answer, keeps two buffers for a connection that waits, and answers what comes behind a `Connection: close`.

mod conn;

mod codec;

mod read_buf;
mod write_buf;

mod buf_pool;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    ConnectionType, Response, ServiceConfig, StatusCode, Version,
    body::{BodySize, MessageBody},
};
use actix_web::rt::time::{self, Sleep};

use self::{
    codec::{MAX_DRAIN, Message},
    conn::{Over, Pieces, Wire},
};
use crate::{
    body::{
        incoming::{Incoming, Uploads},
        outgoing::Body,
    },
    http::{
        request::Request,
        request_guard::Answering,
        service::{Answered, Arrival, Guarded, Service},
    },
    net::{activity::Traffic, connection::Connection},
};

/// How long a client that was told that the connection closes may take to close it, too.
const LINGER: Duration = Duration::from_secs(1);

/// What answers on the connections of one thread.
pub struct Http1 {
    service: Rc<dyn Service>,
    /// What actix-http has to know; it keeps the time of day for the answers.
    config: ServiceConfig,
}

impl Http1 {
    /// Connections whose requests `service` answers. To be called on their thread.
    pub fn new(service: Rc<dyn Service>) -> Rc<Http1> {
        Rc::new(Http1 { service, config: ServiceConfig::default() })
    }

    /// Answers what comes over a connection, until it ends.
    pub async fn serve(self: Rc<Self>, connection: Connection, peer: Option<SocketAddr>) {
        let (traffic, is_tls) = (Rc::clone(connection.traffic()), connection.is_tls());
        let wire = Rc::new(RefCell::new(Wire::new(connection, self.config.clone())));
        let mut exchanges = Exchanges {
            http: self,
            peer,
            is_tls,
            traffic,
            wire,
            uploads: Rc::default(),
            step: Step::Waiting,
        };
        poll_fn(|context| exchanges.poll(context)).await;
    }
}

/// The exchanges of one connection.
struct Exchanges {
    http: Rc<Http1>,
    peer: Option<SocketAddr>,
    is_tls: bool,
    traffic: Rc<Traffic>,
    wire: Rc<RefCell<Wire>>,
    /// The body of the request that is being answered, on its way to a run that reads it as it comes.
    uploads: Rc<Uploads>,
    step: Step,
}

/// How far an exchange is.
enum Step {
    /// For a request.
    Waiting,
    Answering(Guarded),
    Sending(Body),
    /// The rest of a body that nobody has read.
    Draining(u64),
    /// All that is left to say is on its way.
    Closing,
    /// All is said; what the client still says is not listened to.
    Lingering(Pin<Box<Sleep>>),
}

impl Exchanges {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.advance(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Over)) => return Poll::Ready(()),
            }
        }
    }

    /// Goes on by a step, if that is possible now.
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        self.uploads.poll(context);
        match &mut self.step {
            Step::Waiting => self.take_up(context),
            Step::Answering(answer) => match Pin::new(answer).poll(context) {
                Poll::Ready(Ok(response)) => Poll::Ready(self.begin(response)),
                Poll::Pending => self.meanwhile(context),
            },
            Step::Sending(body) => {
                if !self.wire.borrow().output.has_room() {
                    ready!(self.wire.borrow_mut().poll_flush(context))?;
                }
                match Pin::new(body).poll_next(context) {
                    Poll::Ready(Some(Ok(piece))) => {
                        Poll::Ready(Ok(self.wire.borrow_mut().output.piece(piece)?))
                    }
                    Poll::Ready(None) => {
                        self.wire.borrow_mut().output.end()?;
                        self.end();
                        Poll::Ready(Ok(()))
                    }
                    // The end of a body that is not whole must not look like one.
                    Poll::Ready(Some(Err(_))) => {
                        self.wire.borrow().abort();
                        Poll::Ready(Err(Over))
                    }
                    Poll::Pending => self.meanwhile(context),
                }
            }
            Step::Draining(left) => {
                let mut wire = self.wire.borrow_mut();
                if let Poll::Ready(Err(over)) = wire.poll_flush(context) {
                    return Poll::Ready(Err(over));
                }
                let piece = ready!(wire.poll_piece(context));
                self.step = match piece {
                    None => {
                        self.traffic.rest();
                        Step::Waiting
                    }
                    Some(Ok(piece)) => match left.checked_sub(piece.len() as u64) {
                        Some(left) => Step::Draining(left),
                        None => Step::Closing,
                    },
                    Some(Err(_)) => Step::Closing,
                };
                Poll::Ready(Ok(()))
            }
            Step::Closing => {
                let mut wire = self.wire.borrow_mut();
                ready!(wire.poll_flush(context))?;
                ready!(wire.poll_shutdown(context))?;
                if wire.is_silent() {
                    return Poll::Ready(Err(Over));
                }
                self.step = Step::Lingering(Box::pin(time::sleep(LINGER)));
                Poll::Ready(Ok(()))
            }
            // Who is sending when a connection closes may lose what was sent to him.
            Step::Lingering(end) => match self.wire.borrow_mut().poll_discard(context) {
                Poll::Ready(()) => Poll::Ready(Err(Over)),
                Poll::Pending => end.as_mut().poll(context).map(|()| Err(Over)),
            },
        }
    }

    /// Takes up the next request, once there is one. What was answered goes out before anything is waited for.
    fn take_up(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        let mut wire = self.wire.borrow_mut();
        if !wire.output.has_room() {
            ready!(wire.poll_flush(context))?;
        }
        let message = match wire.message(&self.traffic) {
            Some(message) => message,
            None => {
                ready!(wire.poll_flush(context))?;
                match ready!(wire.poll_more(context))? {
                    None => return Poll::Ready(Ok(())),
                    Some(message) => message,
                }
            }
        };
        match message {
            Message::Request { mut request, n_head, body } => {
                let (is_read, is_kept_back) = (wire.codec.is_read(), wire.codec.is_kept_back());
                drop(wire);
                request.head_mut().peer_addr = self.peer;
                let incoming = match body {
                    Some(bytes) => Incoming::Whole(bytes),
                    None if is_read => Incoming::None,
                    None if is_kept_back => Incoming::KeptBack(Box::pin(Pieces::of(&self.wire))),
                    None => Incoming::Pieces(Box::pin(Pieces::of(&self.wire))),
                };
                let answering = Answering::begin(&self.traffic, request.head(), Some(&self.uploads));
                let request = Request::new(request, self.is_tls);
                match self.http.service.call(Arrival { request, n_head: Some(n_head), incoming, answering }) {
                    Answered::Now(response) => return Poll::Ready(self.begin(response)),
                    Answered::Later(answer) => self.step = Step::Answering(answer),
                }
            }
            Message::Refused(status) => {
                let mut response = Response::with_body(status, ());
                response.head_mut().set_connection_type(ConnectionType::Close);
                wire.begin(response, BodySize::Sized(0))?;
                self.step = Step::Closing;
            }
            Message::End => self.step = Step::Closing,
        }
        Poll::Ready(Ok(()))
    }

    /// While an answer isn't ready: what is ready goes out, and the client may say that it leaves.
    fn meanwhile(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if self.uploads.is_new() {
            return Poll::Ready(Ok(()));
        }
        let mut wire = self.wire.borrow_mut();
        // Who doesn't read may still be heard.
        if let Poll::Ready(Err(over)) = wire.poll_flush(context) {
            return Poll::Ready(Err(over));
        }
        wire.poll_look_ahead(context).map(Err)
    }

    /// The answer begins.
    fn begin(&mut self, response: Response<Body>) -> Result<(), Over> {
        let (mut response, body) = response.into_parts();
        let mut wire = self.wire.borrow_mut();
        let (size, head) = (body.size(), response.head_mut());
        if self.traffic.is_closing() || !wire.codec.can_skip() {
            head.set_connection_type(ConnectionType::Close);
        }
        if size == BodySize::Stream && wire.codec.version() < Version::HTTP_11 {
            // The end of the connection is the end of the body.
            head.no_chunking(true);
            head.set_connection_type(ConnectionType::Close);
        }
        let has_body = !wire.codec.is_head()
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        wire.begin(response, size)?;
        match body {
            Body::Stream(_) if has_body => {
                let version = wire.codec.version();
                wire.output.frame(size, version);
                drop(wire);
                self.step = Step::Sending(body);
                return Ok(());
            }
            Body::Whole(bytes) if has_body => wire.output.whole(bytes),
            _ => {}
        }
        drop(wire);
        self.end();
        Ok(())
    }

    /// The answer is there as a whole.
    fn end(&mut self) {
        // Whoever may still have the request's body lets go of it.
        self.uploads.clear();
        self.step = Step::Waiting;
        let mut wire = self.wire.borrow_mut();
        wire.end();
        self.step = match () {
            () if !wire.codec.is_kept() || !wire.codec.can_skip() => Step::Closing,
            () if wire.codec.is_read() => Step::Waiting,
            () => Step::Draining(MAX_DRAIN),
        };
    }
}
