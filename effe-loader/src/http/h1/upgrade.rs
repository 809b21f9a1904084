//! A connection that a lambda has taken over: carries its bytes between the socket and the lambda's stream, until both
//! are at their end, something breaks, nothing comes or goes for too long, or the effe stops.

use std::task::{Context, Poll};

use bytes::Bytes;
use effe_abi::raw::status;

use super::{
    conn::{Closed, Conn},
    read_buf::Fill,
};
use crate::{
    body::{
        outgoing::Upgrade,
        pipe::{self, CAPACITY, End},
    },
    net::connections::TunnelEnd,
    rt::inner_waker::InnerWaker,
};

/// Bytes that are copied, so that the connection's buffer can be used again.
const SHORT: usize = 4 * 1024;

/// Rounds of carrying after which other connections of the thread have their turn.
const ROUNDS: usize = 16;

pub struct Tunnel {
    upgrade: Upgrade,
    /// Wakes the connection's task for what the lambda has done.
    inner: Option<InnerWaker>,
    /// Whether the lambda gets nothing more: the client has closed its end, or the lambda doesn't read.
    is_in_over: bool,
    /// Whether the lambda writes nothing more.
    is_out_over: bool,
    /// Whether our end of the connection is closed.
    is_shut: bool,
}

impl Tunnel {
    pub fn new(upgrade: Upgrade) -> Tunnel {
        Tunnel { upgrade, inner: None, is_in_over: false, is_out_over: false, is_shut: false }
    }

    /// Carries what can be carried now. Ready once the connection is to be closed in order, or is broken.
    pub fn poll(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let inner = self.inner.take().filter(|inner| inner.is_for(cx)).unwrap_or_else(|| InnerWaker::new(cx));
        let entered = inner.enter();
        let carried = self.carry(conn, &inner, cx);
        drop(entered);
        self.inner = Some(inner);
        carried
    }

    fn carry(
        &mut self,
        conn: &mut Conn,
        inner: &InnerWaker,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Closed>> {
        if let Some(over) = self.look(conn) {
            return Poll::Ready(over);
        }
        for _ in 0..ROUNDS {
            self.upgrade.go_on(inner);
            let mut moved = self.send(conn, inner, cx)?;
            if !self.is_in_over {
                moved |= self.receive(conn, inner, cx)?;
            }
            if self.is_shut && self.is_in_over {
                return Poll::Ready(Ok(()));
            }
            if moved {
                conn.activity().rest();
            } else if !inner.is_woken() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the effe stops, or the time is over.
    fn look(&self, conn: &mut Conn) -> Option<Result<(), Closed>> {
        let end = &self.upgrade.end;
        match conn.handle().tunnel_end()? {
            TunnelEnd::Away => end.go_away(),
            TunnelEnd::Idle => {
                end.end(status::TIMEOUT);
                return Some(Ok(()));
            }
            TunnelEnd::CutOff => {
                end.end(status::GONE);
                return Some(Err(Closed));
            }
        }
        None
    }

    /// Sends what the lambda has written; whether there was something.
    fn send(&mut self, conn: &mut Conn, inner: &InnerWaker, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let (mut moved, mut of_lambda) = (false, Context::from_waker(inner.waker()));
        while !self.is_out_over && conn.output.has_room() {
            match self.upgrade.end.0.outgoing.poll_next(&mut of_lambda) {
                Poll::Ready(Ok(piece)) => {
                    conn.output.whole(piece);
                    moved = true;
                }
                Poll::Ready(Err(End::Whole)) => self.is_out_over = true,
                Poll::Ready(Err(End::Broken(_))) => return Err(Closed),
                Poll::Pending => break,
            }
        }
        let is_sent = match conn.poll_flush(cx) {
            Poll::Ready(sent) => {
                sent?;
                true
            }
            Poll::Pending => false,
        };
        if self.is_out_over && is_sent && !self.is_shut {
            match conn.poll_shutdown(cx) {
                Poll::Ready(shut) => {
                    shut?;
                    self.is_shut = true;
                }
                Poll::Pending => {}
            }
        }
        // What did not fit waits for room in the system, and that wakes.
        Ok(moved && is_sent)
    }

    /// Gives the lambda what has come; whether there was something.
    fn receive(&mut self, conn: &mut Conn, inner: &InnerWaker, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let incoming = &self.upgrade.end.0.incoming;
        let mut of_lambda = Context::from_waker(inner.waker());
        match incoming.poll_room(&mut of_lambda) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(pipe::Closed)) => {
                self.is_in_over = true;
                return Ok(true);
            }
            // The client is not to send faster than the lambda reads. It may still leave, which can't be told from
            // closing its end where ours is closed.
            Poll::Pending if self.is_shut => return Ok(false),
            Poll::Pending => return if conn.poll_left(cx).is_ready() { Err(Closed) } else { Ok(false) },
        }
        if conn.input.bytes.is_empty() {
            match conn.poll_fill(cx) {
                Poll::Pending | Poll::Ready(Fill::Overdue(_)) => {
                    // Else nobody would hear that the lambda has dropped its end.
                    self.is_in_over = incoming.poll_closed(&mut of_lambda).is_ready();
                    return Ok(self.is_in_over);
                }
                Poll::Ready(Fill::Failed) => return Err(Closed),
                Poll::Ready(Fill::End) => {
                    incoming.end(End::Whole);
                    self.is_in_over = true;
                    return Ok(true);
                }
                Poll::Ready(Fill::Bytes) => {}
            }
        }
        let input = &mut conn.input.bytes;
        let piece = if input.len() <= SHORT {
            let piece = Bytes::copy_from_slice(input);
            input.clear();
            piece
        } else {
            input.split_to(input.len().min(CAPACITY)).freeze()
        };
        let _ = incoming.push(piece);
        Ok(true)
    }
}
