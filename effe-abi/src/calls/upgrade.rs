//! The calls of the host's table for upgrades, and of the stream that a connection becomes.

#[cfg(feature = "async")]
use std::task::{Poll, Waker};

use abi_stable::std_types::RStr;

use super::{ExchangeRef, HostRef, take_piece};
#[cfg(feature = "async")]
use crate::waker;
use crate::{
    chunk::Chunk,
    extensions::{Duplex, DuplexTable, UPGRADE, UpgradeHost},
    raw::{self, Status, status},
};

/// The host's table for connections that a lambda takes over.
#[derive(Clone, Copy)]
pub(crate) struct UpgradeHostRef(&'static UpgradeHost);

impl UpgradeHostRef {
    /// `None`: the host doesn't offer it.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<UpgradeHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        unsafe { host.extension(UPGRADE) }.map(UpgradeHostRef)
    }

    /// The protocols that the client offers, separated by commas.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn offered(self, exchange: ExchangeRef<'_>) -> Option<&str> {
        let mut out = RStr::from_str("");
        // SAFETY: as in `ExchangeRef::attribute`; what comes out lives as long as the exchange.
        let status = unsafe { (self.0.offered)(exchange.0.host, &mut out) };
        (status == status::OK).then(|| out.as_str())
    }

    /// Answers with 101; the connection from there on.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn upgrade(
        self,
        exchange: ExchangeRef<'_>,
        headers: &[raw::Header<'_>],
    ) -> Result<DuplexRef, Status> {
        let mut out = Duplex { data: std::ptr::null(), table: &NONE };
        // SAFETY: as in `ExchangeRef::respond`; the views are valid for the length of the call.
        let status = unsafe { (self.0.upgrade)(exchange.0.host, headers.into(), &mut out) };
        if status == status::OK { Ok(DuplexRef(out)) } else { Err(status) }
    }
}

/// A handle of a stream, which is given back when this is dropped.
pub(crate) struct DuplexRef(Duplex);

#[expect(unsafe_code, reason = "the wire lets any thread use the handle")]
// SAFETY: the host's promise (`DuplexTable`): any thread may call any of its functions.
unsafe impl Send for DuplexRef {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above. Of calls that may not come at the same time, the later one ends the earlier one's waiting at worst.
unsafe impl Sync for DuplexRef {}

#[expect(unsafe_code, reason = "calls through the stream's table")]
impl DuplexRef {
    pub(crate) fn read(&self) -> Result<Chunk, Status> {
        let mut out = raw::Chunk::EMPTY;
        // SAFETY: the host has handed the handle over (`UpgradeHostRef::upgrade`), and `drop` has not given it back.
        let status = unsafe { (self.0.table.read)(self.0.data, &mut out) };
        take_piece(status, out)
    }

    #[cfg(feature = "async")]
    pub(crate) fn poll_read(&self, waker: &Waker) -> Poll<Result<Chunk, Status>> {
        let mut out = raw::Chunk::EMPTY;
        // SAFETY: as in `read`.
        let status =
            waker::lend(waker, |waker| unsafe { (self.0.table.poll_read)(self.0.data, waker, &mut out) });
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(take_piece(status, out)) }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Status {
        // SAFETY: as in `read`; the view is valid for the length of the call.
        unsafe { (self.0.table.write)(self.0.data, raw::Chunk::view(bytes)) }
    }

    #[cfg(feature = "async")]
    pub(crate) fn poll_ready(&self, waker: &Waker) -> Poll<Status> {
        // SAFETY: as in `read`.
        let status = waker::lend(waker, |waker| unsafe { (self.0.table.poll_ready)(self.0.data, waker) });
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(status) }
    }

    pub(crate) fn shutdown(&self) {
        // SAFETY: as in `read`.
        unsafe { (self.0.table.shutdown)(self.0.data) }
    }

    pub(crate) fn state(&self) -> Status {
        // SAFETY: as in `read`.
        unsafe { (self.0.table.state)(self.0.data) }
    }

    #[cfg(feature = "async")]
    pub(crate) fn poll_away(&self, waker: &Waker) -> Poll<()> {
        // SAFETY: as in `read`.
        let status = waker::lend(waker, |waker| unsafe { (self.0.table.poll_away)(self.0.data, waker) });
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Clone for DuplexRef {
    #[expect(unsafe_code, reason = "a call through the stream's table")]
    fn clone(&self) -> DuplexRef {
        // SAFETY: as in `read`.
        let data = unsafe { (self.0.table.clone)(self.0.data) };
        DuplexRef(Duplex { data, table: self.0.table })
    }
}

impl Drop for DuplexRef {
    #[expect(unsafe_code, reason = "a call through the stream's table")]
    fn drop(&mut self) {
        // SAFETY: as in `read`; once, and last.
        unsafe { (self.0.table.drop)(self.0.data) }
    }
}

/// What stands in for a stream before there is one. Nothing calls it.
static NONE: DuplexTable = DuplexTable {
    size: size_of::<DuplexTable>() as u32,
    version: 1,
    read: none::read,
    poll_read: none::poll_read,
    write: none::write,
    poll_ready: none::poll_away,
    shutdown: none::drop,
    state: none::state,
    poll_away: none::poll_away,
    clone: none::clone,
    drop: none::drop,
};

#[expect(unsafe_code, reason = "entries of the wire")]
mod none {
    use crate::{
        extensions::Waker,
        raw::{Chunk, Status, status},
    };

    pub(super) unsafe extern "C" fn read(_: *const (), _: &mut Chunk) -> Status {
        status::GONE
    }

    pub(super) unsafe extern "C" fn poll_read(_: *const (), _: *const Waker, _: &mut Chunk) -> Status {
        status::GONE
    }

    pub(super) unsafe extern "C" fn write(_: *const (), _: Chunk) -> Status {
        status::GONE
    }

    pub(super) unsafe extern "C" fn poll_away(_: *const (), _: *const Waker) -> Status {
        status::GONE
    }

    pub(super) unsafe extern "C" fn state(_: *const ()) -> Status {
        status::GONE
    }

    pub(super) unsafe extern "C" fn clone(data: *const ()) -> *const () {
        data
    }

    pub(super) unsafe extern "C" fn drop(_: *const ()) {}
}
