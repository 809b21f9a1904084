//! Where the bodies of a request read from: its exchange, for as long as the run lasts.
//!
//! A body may outlive its run, and the exchange doesn't. So a body has the exchange only through a [`Link`], and the
//! request cuts the link when it is dropped.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Poll, Waker, ready},
};

use bytes::Bytes;

#[cfg(feature = "http")]
use crate::calls::TrailersHostRef;
use crate::{
    calls::{AsyncHostRef, ExchangeRef},
    error::failure,
    raw::status,
};

/// What a request keeps for its bodies. Dropping it cuts the link.
#[derive(Default)]
pub(crate) struct Source {
    /// Whether the lambda is async: then reading must not wait on its thread.
    pub(crate) awaited: bool,
    pub(super) host: Option<AsyncHostRef>,
    pub(super) link: OnceLock<Arc<Link>>,
}

impl Source {
    /// For a run of an async lambda. Without a host's table, reading waits on its thread.
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

/// What a body reads from. `exchange` is `None` once the run has ended.
pub(crate) struct Link {
    pub(super) exchange: Mutex<Option<ExchangeRef<'static>>>,
    /// `None`: reading waits on its thread.
    pub(super) async_host: Option<AsyncHostRef>,
    #[cfg(feature = "http")]
    pub(super) host: Option<crate::calls::HostRef>,
}

impl Link {
    fn exchange(&self) -> MutexGuard<'_, Option<ExchangeRef<'static>>> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_read(&self, waker: &Waker) -> Poll<Option<io::Result<Bytes>>> {
        // The lock is held while the host is asked: so the run can't end meanwhile, and there is one call at a time.
        let exchange = self.exchange();
        let Some(exchange) = *exchange else {
            return Poll::Ready(Some(Err(io::Error::other("the request is over"))));
        };
        let piece = match self.async_host {
            Some(host) => ready!(host.poll_read(exchange, waker)),
            None => exchange.read(),
        };
        Poll::Ready(match piece {
            Ok(piece) => Some(Ok(piece.into())),
            Err(status::END) => None,
            Err(status) => Some(Err(failure(status))),
        })
    }

    /// Calls `each` with every trailer of the request. There are none once the run has ended.
    #[cfg(feature = "http")]
    pub(crate) fn trailers(&self, mut each: impl FnMut(&str, &[u8])) {
        let exchange = self.exchange();
        let host = self.host.and_then(TrailersHostRef::find);
        if let (Some(exchange), Some(host)) = (*exchange, host) {
            for trailer in host.request(exchange) {
                each(trailer.name.as_str(), &trailer.value);
            }
        }
    }
}
