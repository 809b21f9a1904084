//! Where the bodies of a request read from: the exchange, for as long as the run lasts.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Poll, Waker, ready},
};

use bytes::Bytes;

use crate::{
    calls::{AsyncHostRef, ExchangeRef},
    error::failure,
    raw::status,
};

/// The request's side of its bodies.
#[derive(Default)]
pub(crate) struct Source {
    /// Whether the lambda is async: then nothing may wait on its thread.
    pub(crate) awaited: bool,
    pub(super) host: Option<AsyncHostRef>,
    pub(super) link: OnceLock<Arc<Link>>,
}

impl Source {
    /// For a run of an async lambda; without a host's table, reading waits on its thread.
    pub(crate) fn new(host: Option<AsyncHostRef>) -> Source {
        Source { awaited: true, host, link: OnceLock::new() }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(link) = self.link.get() {
            *link.exchange() = None;
        }
    }
}

/// What a body reads from. The exchange is taken out when the run ends.
pub(super) struct Link {
    pub(super) exchange: Mutex<Option<ExchangeRef<'static>>>,
    /// `None`: reading waits on its thread.
    pub(super) host: Option<AsyncHostRef>,
}

impl Link {
    fn exchange(&self) -> MutexGuard<'_, Option<ExchangeRef<'static>>> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_read(&self, waker: &Waker) -> Poll<Option<io::Result<Bytes>>> {
        // Held while the host is asked: the run can't end meanwhile, and there is one call at a time.
        let exchange = self.exchange();
        let Some(exchange) = *exchange else {
            return Poll::Ready(Some(Err(io::Error::other("the request is over"))));
        };
        let piece = match self.host {
            Some(host) => ready!(host.poll_read(exchange, waker)),
            None => exchange.read(),
        };
        Poll::Ready(match piece {
            Ok(piece) => Some(Ok(piece.into())),
            Err(status::END) => None,
            Err(status) => Some(Err(failure(status))),
        })
    }
}
