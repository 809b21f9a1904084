//! A stream that a lambda has taken over (RFC 8441): carries its bytes between the client and the lambda's stream,
//! until both are at their end, the client resets it, nothing comes or goes for too long, or the effe stops.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::rt::time::{self, Sleep};
use bytes::{Bytes, BytesMut};
use effe_abi::raw::status;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::StatusCode;

use super::response;
use crate::{
    body::{
        outgoing::{Body, Upgrade},
        pipe::{self, CAPACITY, End},
    },
    http::{canned::plain, response::Response},
    net::connections::{ConnHandle, Registration, TunnelEnd},
    rt::inner_waker::InnerWaker,
};

/// Bytes that room is asked for at a time: more would take room from the other streams of the connection.
const PIECE: usize = 16 * 1024;

/// What h2 counts for frames of DATA that come faster than they are taken: 256 bytes for each, less what is in it.
/// Messages are often short, and past its own half a mebibyte it would end the connection. So much is for 16,000 of one
/// byte, or for a whole window of messages of 15.
pub const FRAMES_AHEAD: usize = 4 * 1024 * 1024;

/// Rounds of carrying after which other streams have their turn.
const ROUNDS: usize = 16;

/// An answer to an offer that was not taken. Its client would take any 2xx for a stream of the other protocol (RFC
/// 9110, section 9.3.6), so that one becomes what is said where a protocol isn't spoken (RFC 9220, section 3).
#[cold]
pub fn refused(response: Response) -> Response {
    if response.head.status.is_success() {
        return plain(StatusCode::NOT_IMPLEMENTED, "this protocol is not spoken here\n");
    }
    response
}

pub struct Tunnel {
    upgrade: Upgrade,
    /// Wakes the stream's task for what the lambda has done.
    inner: Option<InnerWaker>,
    outgoing: SendStream<Bytes>,
    incoming: RecvStream,
    /// The stream among the connections, which says when its time is over.
    registration: Registration,
    /// What the client has no room for yet.
    unsent: Bytes,
    /// What the lambda has no room for yet.
    arrived: BytesMut,
    /// Whether the client has closed its end.
    is_read: bool,
    /// Ends when the client has had its time to make room.
    patience: Option<Pin<Box<Sleep>>>,
    /// Whether the lambda gets nothing more: the client has closed its end, or the lambda doesn't read.
    is_in_over: bool,
    /// Whether the lambda writes nothing more.
    is_out_over: bool,
}

impl Tunnel {
    /// Answers that the stream goes on with another protocol, if that is what the response says; else it is given back
    /// as it is to be sent. `None` if the client has left.
    pub fn begin(
        response: Response,
        respond: &mut SendResponse<Bytes>,
        incoming: RecvStream,
        handle: &ConnHandle,
    ) -> Result<Option<Tunnel>, Response> {
        let Response { head, body, note } = response;
        let upgrade = match body {
            Body::Upgrade(upgrade) => *upgrade,
            body => return Err(refused(Response { head, body, note })),
        };
        let head = response::switching(&head);
        let Ok(outgoing) = respond.send_response(head, false) else { return Ok(None) };
        Ok(Some(Tunnel {
            upgrade,
            inner: None,
            outgoing,
            incoming,
            registration: handle.register_stream(),
            unsent: Bytes::new(),
            arrived: BytesMut::new(),
            is_read: false,
            patience: None,
            is_in_over: false,
            is_out_over: false,
        }))
    }

    /// Carries bytes until the stream ends. What isn't closed by then is reset when this is dropped.
    pub async fn carry(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.inner.take().filter(|inner| inner.is_for(cx)).unwrap_or_else(|| InnerWaker::new(cx));
        let entered = inner.enter();
        let over = self.poll_within(&inner, cx);
        drop(entered);
        self.inner = Some(inner);
        over
    }

    fn poll_within(&mut self, inner: &InnerWaker, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.handle.activity.wait(cx);
        if self.look() || self.outgoing.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        for _ in 0..ROUNDS {
            self.upgrade.go_on(inner);
            let Some(has_sent) = self.send(inner, cx) else { return Poll::Ready(()) };
            let has_received = match self.is_in_over {
                true => false,
                false => match self.receive(inner, cx) {
                    Some(has_received) => has_received,
                    None => return Poll::Ready(()),
                },
            };
            if self.is_out_over && self.is_in_over {
                return Poll::Ready(());
            }
            if has_sent || has_received {
                self.registration.handle.activity.rest();
            } else if !inner.is_woken() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the stream is over, because the effe has stopped, or because nothing came or went for too long.
    fn look(&mut self) -> bool {
        let end = &self.upgrade.end;
        match self.registration.handle.tunnel_end() {
            None => return false,
            Some(TunnelEnd::Away) => {
                end.go_away();
                return false;
            }
            Some(TunnelEnd::Idle) => {
                end.end(status::TIMEOUT);
                if !self.is_out_over {
                    let _ = self.outgoing.send_data(Bytes::new(), true);
                }
            }
            Some(TunnelEnd::CutOff) => {
                end.end(status::GONE);
                self.outgoing.send_reset(Reason::CANCEL);
            }
        }
        true
    }

    /// Sends what the lambda has written, as the client has room for it; whether there was something. `None` if nothing
    /// more can be sent.
    fn send(&mut self, inner: &InnerWaker, cx: &mut Context<'_>) -> Option<bool> {
        let (mut has_sent, mut of_lambda) = (false, Context::from_waker(inner.waker()));
        loop {
            while !self.unsent.is_empty() {
                match self.poll_room(cx) {
                    Poll::Pending => return Some(has_sent),
                    Poll::Ready(room) => {
                        let piece = self.unsent.split_to(room?.min(self.unsent.len()));
                        self.outgoing.send_data(piece, false).ok()?;
                        has_sent = true;
                    }
                }
            }
            if self.is_out_over {
                return Some(has_sent);
            }
            match self.upgrade.end.0.outgoing.poll_next(&mut of_lambda) {
                Poll::Pending => return Some(has_sent),
                Poll::Ready(Ok(piece)) => self.unsent = piece,
                Poll::Ready(Err(End::Whole)) => {
                    self.outgoing.send_data(Bytes::new(), true).ok()?;
                    self.is_out_over = true;
                }
                Poll::Ready(Err(End::Broken(_))) => {
                    self.outgoing.send_reset(Reason::INTERNAL_ERROR);
                    return None;
                }
            }
        }
    }

    /// How much of what is unsent the client has room for; `None` if nothing more can be sent, because it has left or
    /// makes no room for too long.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.outgoing.reserve_capacity(self.unsent.len().min(PIECE));
        let room = match self.outgoing.capacity() {
            0 => self.outgoing.poll_capacity(cx),
            room => Poll::Ready(Some(Ok(room))),
        };
        match room {
            Poll::Ready(Some(Ok(0))) | Poll::Pending => {}
            Poll::Ready(room) => {
                self.patience = None;
                return Poll::Ready(room.and_then(Result::ok));
            }
        }
        let Some(timeout) = self.registration.handle.write_timeout() else { return Poll::Pending };
        let patience = self.patience.get_or_insert_with(|| Box::pin(time::sleep(timeout)));
        if patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.outgoing.send_reset(Reason::CANCEL);
        Poll::Ready(None)
    }

    /// Gives the lambda what has come; whether there was something. `None` if the client has left.
    fn receive(&mut self, inner: &InnerWaker, cx: &mut Context<'_>) -> Option<bool> {
        let mut of_lambda = Context::from_waker(inner.waker());
        // What the lambda has no room for waits here and not in h2, where each frame would take memory of its own. The
        // client's window opens only as the lambda reads, so that this is never more than a window.
        while !self.is_read {
            match self.incoming.poll_data(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.is_read = true,
                Poll::Ready(Some(Err(_))) => return None,
                Poll::Ready(Some(Ok(piece))) => self.arrived.extend_from_slice(&piece),
            }
        }
        let incoming = &self.upgrade.end.0.incoming;
        match incoming.poll_room(&mut of_lambda) {
            Poll::Pending => return Some(false),
            Poll::Ready(Err(pipe::Closed)) => self.is_in_over = true,
            Poll::Ready(Ok(())) if !self.arrived.is_empty() => {
                let piece = match self.arrived.len() {
                    ..=CAPACITY => mem::take(&mut self.arrived),
                    _ => self.arrived.split_to(CAPACITY),
                };
                // It fails if the stream was reset; the next poll says so.
                let _ = self.incoming.flow_control().release_capacity(piece.len());
                let _ = incoming.push(piece.freeze());
            }
            Poll::Ready(Ok(())) if self.is_read => {
                incoming.end(End::Whole);
                self.is_in_over = true;
            }
            Poll::Ready(Ok(())) => {
                // Else nobody would hear that the lambda has dropped its end.
                self.is_in_over = incoming.poll_closed(&mut of_lambda).is_ready();
                return Some(self.is_in_over);
            }
        }
        Some(true)
    }
}
