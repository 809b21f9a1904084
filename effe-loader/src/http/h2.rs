//! HTTP/2: a connection whose requests are answered side by side. This file decides when requests are taken and how a
//! connection ends. h2 reads and writes frames; `h2/request` and `h2/response` translate between h2 and a `Service`,
//! and `h2/upgrade` carries the bytes of a stream that a lambda has taken over.
//!
//! h2 is used directly: actix-http uses an old version with an open advisory, and can't end a connection gracefully.

mod backlog;
mod batched;
mod frame_budget;
mod preface;
mod request;
mod response;
mod upgrade;

use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::rt;
use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection as Frames, SendResponse},
};
use http::Method;

use self::{
    backlog::{Accepted, Backlog},
    batched::Batched,
    frame_budget::{Counted, FrameBudget},
    request::{Translated, WINDOW},
};
use crate::{
    body::outgoing::Body,
    http::{
        response::Response,
        service::{Answered, IncomingRequest, RequestGuard, Service},
        validate::MAX_HEAD,
    },
    net::{connection::Connection, connections::ConnHandle},
};

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 100;
/// Bytes of all bodies that a client may send before somebody has read them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests of which none is answered before all are taken.
const MOST_TOGETHER: usize = 16;
/// Requests that a client may reset before they are answered. One that resets more, and more than half of all, is
/// disconnected.
const MAX_RESETS: u64 = 500;

/// Answers the requests of a connection until it ends, if the client speaks HTTP/2. If it speaks HTTP/1.1, the
/// connection is given back. If it sends nothing in time, the connection is closed.
pub async fn take(
    connection: Connection,
    service: &Rc<dyn Service>,
    peer: Option<SocketAddr>,
) -> Option<Connection> {
    if !connection.handle().prepare(preface::is_http2(&connection.io)).await?.ok()? {
        return Some(connection);
    }
    // Boxed: else the task of each connection had room for it, whatever its client speaks.
    Box::pin(serve(connection, service, peer)).await;
    None
}

/// Answers the requests of a connection of HTTP/2 until it ends; `None` if it ends before the first one.
async fn serve(connection: Connection, service: &Rc<dyn Service>, peer: Option<SocketAddr>) -> Option<()> {
    let (handle, is_tls) = (connection.handle().clone(), connection.is_tls());
    if !handle.activity.slot.never() {
        // Its descriptor must stay open until this process has ended.
        pending::<()>().await;
    }
    handle.activity.share();
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    if service.takes_offers() {
        builder.enable_connect_protocol().data_frame_budget(upgrade::FRAMES_AHEAD);
    }
    let frame_budget = Rc::<FrameBudget>::default();
    let connection = Batched::new(connection);
    let counted = Counted::new(connection.clone(), handle.clone(), &frame_budget);
    let frames = handle.prepare(builder.handshake(counted)).await?.ok()?;
    let (n_resets, backlog) = (Cell::new(0), Backlog::new(handle.clone()));
    let client = Rc::new(Client {
        service: Rc::clone(service),
        peer,
        is_tls,
        handle,
        n_resets,
        frame_budget,
        backlog,
        connection,
    });
    client.serve(frames).await;
    Some(())
}

/// One connection and its client.
struct Client {
    service: Rc<dyn Service>,
    peer: Option<SocketAddr>,
    is_tls: bool,
    handle: ConnHandle,
    /// Requests that the client has reset before they were answered.
    n_resets: Cell<u64>,
    frame_budget: Rc<FrameBudget>,
    backlog: Rc<Backlog>,
    connection: Batched,
}

impl Client {
    /// Answers requests until the client leaves, or has been told to leave and has had its time.
    async fn serve(self: Rc<Self>, mut frames: Frames<Counted, Bytes>) {
        let (mut asked_to_leave, mut accepted) = (None, Vec::new());
        poll_fn(|cx| {
            self.handle.activity.wait(cx);
            match asked_to_leave {
                // The client learns that no further requests are taken, and closes when its last one is answered.
                None if self.handle.is_over() => {
                    frames.graceful_shutdown();
                    asked_to_leave = Some(self.handle.now());
                }
                Some(since) if self.handle.has_overstayed(since, frames.has_streams()) => {
                    return Poll::Ready(());
                }
                _ => {}
            }
            let polled = self.poll(&mut frames, &mut accepted, cx);
            self.connection.end_turn();
            polled
        })
        .await;
    }

    /// Answers what has come. Each poll of h2 sends what is ready: so several requests are taken before the first of
    /// them is answered, and their answers go out together. `accepted` is where they are meanwhile.
    fn poll(
        self: &Rc<Self>,
        frames: &mut Frames<Counted, Bytes>,
        accepted: &mut Vec<Accepted>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if self.is_abusive() {
                frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            while let Some((request, mut respond)) = self.backlog.next() {
                if respond.poll_reset(cx).is_pending() {
                    self.answer(request, respond);
                }
            }
            while accepted.len() < MOST_TOGETHER {
                match frames.poll_accept(cx) {
                    Poll::Ready(Some(Ok(request))) => accepted.push(request),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            if accepted.is_empty() {
                return Poll::Pending;
            }
            for accepted in accepted.drain(..) {
                if let Some((request, respond)) = self.backlog.admit(accepted) {
                    self.answer(request, respond);
                }
            }
        }
    }

    fn is_abusive(&self) -> bool {
        let n_resets = self.n_resets.get();
        self.frame_budget.is_exceeded()
            || (n_resets > self.handle.activity.n_requests() / 2 && n_resets > MAX_RESETS)
    }

    /// Begins to answer a request: at once, or in a task of its own.
    fn answer(self: &Rc<Self>, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let is_head = request.method() == Method::HEAD;
        let Some(translated) = request::translate(request, self.is_tls, self.peer) else {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        };
        let Translated { request, incoming, mut kept_back, offered } = translated;
        let guard = RequestGuard::begin(&self.handle.activity, &request, None);
        match self.service.call(IncomingRequest { request, n_head: None, incoming, guard }) {
            Answered::Now(response) => {
                let response = if offered.is_some() { upgrade::refused(response) } else { response };
                if response::is_short(&response) {
                    response::send_short(response, respond, is_head);
                } else {
                    rt::spawn(self.send(response, respond, is_head));
                }
            }
            Answered::Later(mut answered) => {
                let client = Rc::clone(self);
                rt::spawn(async move {
                    let response = poll_fn(|cx| {
                        // For this request, a client that resets the stream has left.
                        if respond.poll_reset(cx).is_ready() {
                            return Poll::Ready(None);
                        }
                        let answered = Pin::new(&mut answered).poll(cx).map(Some);
                        let interims = client.handle.activity.interims.take();
                        if !interims.is_empty() {
                            response::inform(&mut respond, &interims);
                        }
                        if answered.is_pending()
                            && kept_back
                                .as_ref()
                                .is_some_and(|kept_back| kept_back.poll_wanted(cx).is_ready())
                        {
                            kept_back = None;
                            response::go_on(&mut respond);
                        }
                        answered
                    });
                    match response.await {
                        Some(response) => {
                            if let Some(response) = client.switch(response, &mut respond, offered) {
                                client.send(response, respond, is_head).await;
                            }
                        }
                        None => client.n_resets.set(client.n_resets.get() + 1),
                    }
                });
            }
        }
    }

    /// Goes on with another protocol, if the client offers that and the lambda takes it. What is to be answered else.
    fn switch(
        &self,
        response: Response,
        respond: &mut SendResponse<Bytes>,
        offered: Option<Box<RecvStream>>,
    ) -> Option<Response> {
        let Some(offered) = offered else { return Some(response) };
        match upgrade::Tunnel::begin(response, respond, *offered, &self.handle) {
            Ok(None) => {}
            Ok(Some(tunnel)) => {
                let lasts = self.backlog.leave_out();
                rt::spawn(async move {
                    tunnel.carry().await;
                    drop(lasts);
                });
            }
            Err(response) => return Some(response),
        }
        None
    }

    /// Sends an answer, which counts as unsent from now on, not only once the future is polled.
    fn send(
        self: &Rc<Self>,
        response: Response,
        respond: SendResponse<Bytes>,
        is_head: bool,
    ) -> impl Future<Output = ()> + use<> {
        let n_bytes = if let Body::Whole(bytes) = &response.body { bytes.len() } else { 0 };
        let (unsent, handle) = (self.backlog.send(n_bytes), self.handle.clone());
        async move {
            response::send(response, respond, is_head, &handle).await;
            drop(unsent);
        }
    }
}
