//! The body of a request, whichever protocol brings it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{RequestHead, error::PayloadError, header};
use bytes::Bytes;
use futures_core::Stream;

/// The body of a request.
pub enum Incoming {
    /// There is none.
    None,
    /// It is here.
    Whole(Bytes),
    /// It comes as it is asked for.
    Pieces(Pieces),
    /// It doesn't even begin to come before (RFC 9110, section 10.1.1).
    KeptBack(Pieces),
}

/// How long a request's head says that its body is.
pub fn announced(head: &RequestHead) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// A body that is read by whoever asks for its next piece.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

/// A body on its way to a run that reads it as it comes, in the task of the connection that brings it.
#[derive(Default)]
pub struct Uploads {
    upload: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    is_new: Cell<bool>,
}

impl Uploads {
    /// There is one.
    pub fn begin(&self, upload: impl Future<Output = ()> + 'static) {
        self.upload.replace(Some(Box::pin(upload)));
        self.is_new.set(true);
    }

    /// Whether it has not been polled yet.
    pub fn is_new(&self) -> bool {
        self.is_new.get()
    }

    /// Goes on with it, as far as possible.
    pub fn poll(&self, context: &mut Context<'_>) {
        self.is_new.set(false);
        let upload = self.upload.take();
        if let Some(mut upload) = upload
            && upload.as_mut().poll(context) == Poll::Pending
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
