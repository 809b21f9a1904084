//! Safe functions over the host's tables: every call from a lambda into its host is made in this file, or in
//! `calls/upgrade.rs`.
//!
//! [`HostRef`] and [`ExchangeRef`] are made only where a host passes its tables in (`export.rs`, `async_entries/`). The
//! rest of the crate calls the host through them, in safe code. What the calls mean is said in `raw.rs` and
//! `extensions.rs`.

pub(crate) mod upgrade;

#[cfg(feature = "async")]
use std::task::{Poll, Waker};

use abi_stable::std_types::{RSlice, RStr};

use crate::{
    chunk::Chunk,
    extensions::{EARLY, EarlyHost, FAIL, FailHost, TRAILERS, TrailersHost},
    raw::{self, Failure, Status, status},
};
#[cfg(feature = "async")]
use crate::{
    extensions::{ASYNC, AsyncHost, SPAWN, SpawnHost},
    waker,
};

/// A host, which lives for ever.
#[derive(Clone, Copy)]
pub(crate) struct HostRef(&'static raw::Host);

impl HostRef {
    /// # Safety
    /// `host` keeps the wire's promises.
    #[expect(unsafe_code, reason = "its duty is the caller's")]
    pub(crate) unsafe fn new(host: &'static raw::Host) -> HostRef {
        HostRef(host)
    }

    /// The least severe level that is logged now.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn level(self) -> u32 {
        // SAFETY: a promise of the host (`new`): any thread, at any time.
        unsafe { (self.0.level)(self.0.data) }
    }

    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn log(self, level: u32, target: &str, text: &str) {
        // SAFETY: as in `level`; the views live as long as the call.
        unsafe { (self.0.log)(self.0.data, level, target.into(), text.into()) }
    }

    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn parameter(self, key: &str) -> Option<&'static str> {
        let mut out = RStr::from_str("");
        // SAFETY: as in `level`; what comes out lives for ever.
        let status = unsafe { (self.0.parameter)(self.0.data, key.into(), &mut out) };
        (status == status::OK).then(|| out.as_str())
    }

    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn attribute(self, key: u32) -> Option<&'static str> {
        let mut out = RStr::from_str("");
        // SAFETY: as in `level`; what comes out lives for ever.
        let status = unsafe { (self.0.attribute)(self.0.data, key, &mut out) };
        (status == status::OK).then(|| out.as_str())
    }

    /// The address of the host's table, which tells hosts apart.
    #[cfg(feature = "async")]
    pub(crate) fn address(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }

    /// The host's table of this id, if there is one that has all fields of `T`.
    ///
    /// # Safety
    /// Tables of this id begin with the fields of `T`, whose first field is its size.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    unsafe fn extension<T>(self, id: &str) -> Option<&'static T> {
        // SAFETY: as in `level`.
        let table = unsafe { (self.0.extension)(self.0.data, id.into()) };
        // SAFETY: the host's promise: null, or a table of this id, which lives for ever and begins with its size.
        let size = unsafe { table.cast::<u32>().as_ref() }?;
        // SAFETY: as above, and the size says that all of `T` is there.
        (*size as usize >= size_of::<T>()).then(|| unsafe { &*table.cast::<T>() })
    }
}

/// The host's table for failures, which only it can fill in then.
#[derive(Clone, Copy)]
pub(crate) struct FailHostRef(&'static FailHost);

impl FailHostRef {
    /// `None`: the host is older, and its failures are v1's.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<FailHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        unsafe { host.extension(FAIL) }.map(FailHostRef)
    }

    /// Fills in a failure that this host has handed in.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn fail(self, failure: &mut Failure, level: u32, text: &str) {
        // SAFETY: the host's promise, for a failure of its own, which `&mut` keeps to one call.
        unsafe { (self.0.fail)(failure, level, text.into()) }
    }
}

/// The host's table for answers that go out while Run goes on.
#[derive(Clone, Copy)]
pub(crate) struct EarlyHostRef(&'static EarlyHost);

impl EarlyHostRef {
    /// `None`: the host doesn't offer it.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<EarlyHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        unsafe { host.extension(EARLY) }.map(EarlyHostRef)
    }

    /// Whether the call that ends the answer of `exchange`, and comes next, sends it at once.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn end_early(self, exchange: ExchangeRef<'_>) -> bool {
        // SAFETY: as in `ExchangeRef::respond`.
        unsafe { (self.0.end_early)(exchange.0.host) == status::OK }
    }
}

/// The host's table for fields behind bodies.
#[derive(Clone, Copy)]
pub(crate) struct TrailersHostRef(&'static TrailersHost);

impl TrailersHostRef {
    /// `None`: the host doesn't offer it.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<TrailersHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        unsafe { host.extension(TRAILERS) }.map(TrailersHostRef)
    }

    /// The trailers of the request; none before the end of the body was read.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn request(self, exchange: ExchangeRef<'_>) -> Vec<raw::Header<'_>> {
        let mut trailers: Vec<raw::Header<'_>> = Vec::new();
        loop {
            // SAFETY: as in `ExchangeRef::headers`.
            let total =
                unsafe { (self.0.request)(exchange.0.host, 0, trailers.as_mut_ptr().cast(), trailers.len()) };
            if total <= trailers.len() {
                return trailers;
            }
            trailers.resize(total, raw::Header::EMPTY);
        }
    }

    /// Adds trailers to the answer, whose end has not been sent.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn respond(self, exchange: ExchangeRef<'_>, trailers: &[raw::Header<'_>]) -> Status {
        // SAFETY: as in `ExchangeRef::respond`.
        unsafe { (self.0.respond)(exchange.0.host, trailers.into()) }
    }
}

/// The host's table for async runs.
#[cfg(feature = "async")]
#[derive(Clone, Copy)]
pub(crate) struct AsyncHostRef(&'static AsyncHost);

#[cfg(feature = "async")]
impl AsyncHostRef {
    /// `None`: the host doesn't offer it.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<AsyncHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        unsafe { host.extension(ASYNC) }.map(AsyncHostRef)
    }

    /// As [`ExchangeRef::read`]; `exchange` must be in an async run.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn poll_read(self, exchange: ExchangeRef<'_>, waker: &Waker) -> Poll<Result<Chunk, Status>> {
        let mut out = raw::Chunk::EMPTY;
        // SAFETY: as in `ExchangeRef::read`; `body/source.rs` has a lock, so there is one call at a time.
        let status =
            waker::lend(waker, |waker| unsafe { (self.0.poll_read)(exchange.0.host, waker, &mut out) });
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(take_piece(status, out)) }
    }

    /// OK once the next `write` will not wait; `exchange` must be in an async run.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn poll_ready(self, exchange: ExchangeRef<'_>, waker: &Waker) -> Poll<Status> {
        // SAFETY: as in `ExchangeRef::respond`.
        let status = waker::lend(waker, |waker| unsafe { (self.0.poll_ready)(exchange.0.host, waker) });
        if status == status::PENDING { Poll::Pending } else { Poll::Ready(status) }
    }
}

/// The host's table for runs that are spawned in the lambda's own runtime.
#[cfg(feature = "async")]
#[derive(Clone, Copy)]
pub(crate) struct SpawnHostRef(&'static SpawnHost);

#[cfg(feature = "async")]
impl SpawnHostRef {
    /// `None`: the host doesn't offer it, or only its version 1, which leaves the decision to the lambda.
    #[expect(unsafe_code, reason = "an extension is found by its id, and only that says what it is")]
    pub(crate) fn find(host: HostRef) -> Option<SpawnHostRef> {
        // SAFETY: the type and the id belong together (`extensions.rs`).
        let table: &SpawnHost = unsafe { host.extension(SPAWN) }?;
        (table.version >= 2).then_some(SpawnHostRef(table))
    }

    /// Whether the run of `exchange` is to be spawned; to be asked before each poll, until it is.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn may_spawn(self, exchange: ExchangeRef<'_>) -> bool {
        // SAFETY: the host's promise, for an exchange that is in an async run.
        unsafe { (self.0.may_spawn)(exchange.0.host) == status::OK }
    }

    /// Whether the next poll of the run of `exchange`, which is spawned, may block its thread.
    #[expect(unsafe_code, reason = "a call through the host's table")]
    pub(crate) fn may_block(self, exchange: ExchangeRef<'_>) -> bool {
        // SAFETY: as in `may_spawn`.
        unsafe { (self.0.may_block)(exchange.0.host) == status::OK }
    }

    /// Polls the run of `exchange` on this thread, which is the lambda's own. `poll` must not unwind.
    #[expect(unsafe_code, reason = "calls through the host's table")]
    pub(crate) fn inside<T>(self, exchange: ExchangeRef<'_>, poll: impl FnOnce() -> T) -> T {
        // SAFETY: as in `may_spawn`.
        let entered = unsafe { (self.0.enter)(exchange.0.host) };
        let value = poll();
        // SAFETY: as above; on the thread that entered.
        unsafe { (self.0.leave)(exchange.0.host, entered) };
        value
    }

    /// Wakes all of them, and each of the loader's threads only once.
    #[expect(unsafe_code, reason = "calls through the host's table")]
    pub(crate) fn wake_all(self, wakers: impl IntoIterator<Item = Waker>) {
        // SAFETY: the host's promise: any thread.
        unsafe { (self.0.hold)() };
        wakers.into_iter().for_each(Waker::wake);
        // SAFETY: as above. Wakers of the host don't unwind, so `release` follows.
        unsafe { (self.0.release)() };
    }
}

/// One exchange, for as long as its call lasts.
#[derive(Clone, Copy)]
pub(crate) struct ExchangeRef<'a>(&'a raw::Exchange<'a>);

impl<'a> ExchangeRef<'a> {
    /// # Safety
    /// `exchange` keeps the wire's promises. Whoever uses the result keeps the rules of `ExchangeOps` about calls at
    /// the same time: one `read` at a time, and one `respond` or `write` at a time.
    #[expect(unsafe_code, reason = "its duty is the caller's")]
    pub(crate) unsafe fn new(exchange: &'a raw::Exchange<'a>) -> ExchangeRef<'a> {
        ExchangeRef(exchange)
    }

    pub(crate) fn method(self) -> &'a str {
        self.0.method.as_str()
    }

    pub(crate) fn target(self) -> &'a str {
        self.0.target.as_str()
    }

    pub(crate) fn path_len(self) -> usize {
        self.0.path_len
    }

    pub(crate) fn version(self) -> u32 {
        self.0.version
    }

    /// The part of the body that is here already.
    pub(crate) fn body(self) -> &'a [u8] {
        self.0.body.as_slice()
    }

    /// Whether `read` has more of the body.
    pub(crate) fn more_body(self) -> bool {
        self.0.flags & raw::MORE_BODY != 0
    }

    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn header(self, name: &str, nth: usize) -> Option<&'a [u8]> {
        let mut out = RSlice::EMPTY;
        // SAFETY: a promise of the host (`new`): any thread, while the exchange lasts; what comes out lives as long.
        let status = unsafe { (self.0.ops.header)(self.0.host, name.into(), nth, &mut out) };
        (status == status::OK).then(|| out.as_slice())
    }

    /// Fills `page` with the headers from number `skip` on. Returns how many there are in all.
    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn headers(self, skip: usize, page: &mut [raw::Header<'a>]) -> usize {
        // SAFETY: as in `header`; `page` is writable for its length, and the host says 'static only because the
        // wire can't name the exchange's lifetime, which is what `page` keeps.
        unsafe { (self.0.ops.headers)(self.0.host, skip, page.as_mut_ptr().cast(), page.len()) }
    }

    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn attribute(self, key: u32) -> Option<&'a str> {
        let mut out = RStr::from_str("");
        // SAFETY: as in `header`.
        let status = unsafe { (self.0.ops.attribute)(self.0.host, key, &mut out) };
        (status == status::OK).then(|| out.as_str())
    }

    /// OK, GONE or TIMEOUT, and the nanoseconds that are left.
    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn state(self) -> (Status, u64) {
        let mut remaining = u64::MAX;
        // SAFETY: as in `header`.
        let status = unsafe { (self.0.ops.state)(self.0.host, &mut remaining) };
        (status, remaining)
    }

    /// The next piece of the body, or why there is none.
    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn read(self) -> Result<Chunk, Status> {
        let mut out = raw::Chunk::EMPTY;
        // SAFETY: one call at a time is `new`'s condition; `Request::reader` gives the stream to one reader only.
        let status = unsafe { (self.0.ops.read)(self.0.host, &mut out) };
        take_piece(status, out)
    }

    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn respond(
        self,
        status: u16,
        headers: &[raw::Header<'_>],
        body: raw::Chunk,
        flags: u32,
    ) -> Status {
        // SAFETY: one call at a time is `new`'s condition; only `Response` calls it, behind `&mut`. The views are valid
        // for the length of the call, and an owned chunk is given away.
        unsafe { (self.0.ops.respond)(self.0.host, status.into(), headers.into(), body, flags) }
    }

    #[expect(unsafe_code, reason = "a call through the exchange's table")]
    pub(crate) fn write(self, chunk: raw::Chunk, flags: u32) -> Status {
        // SAFETY: as in `respond`.
        unsafe { (self.0.ops.write)(self.0.host, chunk, flags) }
    }
}

/// Takes over the piece that a read has returned.
#[expect(unsafe_code, reason = "takes bytes over from the host")]
fn take_piece(status: Status, out: raw::Chunk) -> Result<Chunk, Status> {
    if status != status::OK {
        return Err(status);
    }
    let view = (out.ptr, out.len);
    // SAFETY: the host has just handed it over.
    if let Some(chunk) = unsafe { Chunk::from_raw(out) } {
        return Ok(chunk);
    }
    if view.1 == 0 {
        return Ok(Chunk::from_static(b""));
    }
    // SAFETY: a view that is valid until the next read, which can't happen before this copy is made.
    Ok(unsafe { std::slice::from_raw_parts(view.0, view.1) }.to_vec().into())
}
