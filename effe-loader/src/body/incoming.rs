//! The body of a request, whichever protocol brings it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::error::PayloadError;
use bytes::Bytes;
use futures_core::Stream;

use crate::body::trailers::Trailers;

pub enum Incoming {
    None,
    Whole(Bytes),
    /// It comes as it is asked for.
    Pieces(Pieces),
    /// The client sends nothing of it before it is asked to (RFC 9110, section 10.1.1).
    KeptBack(Pieces),
}

pub type Pieces = Pin<Box<dyn Source>>;

/// Where the pieces of a body come from.
pub trait Source: Stream<Item = Result<Bytes, PayloadError>> {
    /// The trailers behind the body, once its end has come. They are taken.
    fn trailers(self: Pin<&mut Self>) -> Trailers;

    /// From now on a piece that is taken lets the client send no more, until [`give_window`](Source::give_window) says
    /// that somebody has read it. Returns how many bytes the client may then send ahead; `None` if it can't be had so.
    fn keep_window(self: Pin<&mut Self>) -> Option<usize> {
        None
    }

    /// So many bytes have been read.
    fn give_window(self: Pin<&mut Self>, n_bytes: usize) {
        let _ = n_bytes;
    }

    /// Reads what is next into the room that `body` has, without a piece of its own; how many bytes. `None` if the next
    /// ones can't be had so, and are to be taken as a piece.
    fn poll_read(
        self: Pin<&mut Self>,
        body: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<usize, PayloadError>>> {
        let _ = (body, cx);
        Poll::Ready(None)
    }
}

/// The upload of a connection, if there is one: hands a body on to the run that reads it, in the connection's task.
#[derive(Default)]
pub struct Uploads {
    upload: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Whether it has not been polled yet.
    pub is_new: Cell<bool>,
}

impl Uploads {
    pub fn begin(&self, upload: impl Future<Output = ()> + 'static) {
        self.upload.replace(Some(Box::pin(upload)));
        self.is_new.set(true);
    }

    /// Lets it go on, as far as possible.
    pub fn poll(&self, cx: &mut Context<'_>) {
        self.is_new.set(false);
        let upload = self.upload.take();
        if let Some(mut upload) = upload
            && upload.as_mut().poll(cx) == Poll::Pending
        {
            self.upload.replace(Some(upload));
        }
    }

    /// Nobody wants the rest.
    pub fn clear(&self) {
        self.upload.take();
        self.is_new.set(false);
    }
}
