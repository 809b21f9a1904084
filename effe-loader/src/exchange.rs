//! One exchange as the lambda sees it: what it asks of the loader while Run lasts.
//!
//! The request is lent from the server's own memory when Run happens on the server's thread, and from a
//! [`OwnedHead`](crate::http::head::OwnedHead) when it happens on another.
#![expect(unsafe_code, reason = "the entries of the exchange's table get their data as a pointer")]

pub mod response;
mod run;
mod spawned;

use std::{
    cell::Cell,
    net::SocketAddr,
    ptr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use abi_stable::std_types::{RSlice, RStr};
use bytes::Bytes;
use effe_abi::{
    extensions::{AsyncHost, Waker},
    raw::{self, ExchangeOps, Header, Status, attribute, status},
    waker,
};

use self::response::Answer;
pub use self::{
    run::{AsyncRun, Room},
    spawned::SPAWN_OPS,
};
use crate::{
    body::{
        pipe::{End, Left, wait},
        sender::{Outlet, Streams},
    },
    http::head::Head,
    placement::Execution,
    rt::clock::Moment,
};

/// Chunks up to this size are copied: cheaper than keeping their owner.
const COPY_LIMIT: usize = 4 * 1024;

thread_local! {
    /// The exchange whose Run this thread is in, for what the lambda says without one in its hands.
    static CURRENT: Cell<*const Exchange<'static>> = const { Cell::new(ptr::null()) };
}

/// A thread that is for one exchange; what it was for before comes back on drop, also when a panic of ours passes.
struct Inside(*const Exchange<'static>);

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

static NO_STREAMS: Streams = Streams::NONE;

/// One request and its answer, while Run lasts.
pub struct Exchange<'a> {
    head: Head<'a>,
    body: &'a [u8],
    answer: Mutex<&'a mut Answer>,
    gone: &'a AtomicBool,
    deadline: Option<Moment>,
    response_limit: usize,
    id: &'a OnceLock<String>,
    peer: OnceLock<String>,
    streams: &'a Streams,
    /// Where its run is polled; `None` if it is called instead.
    polls: Option<Arc<Execution>>,
}

impl<'a> Exchange<'a> {
    /// An exchange; `gone` tells whether the client has left, `id` keeps what the request is called, once somebody
    /// needs that.
    pub fn new(
        head: Head<'a>,
        body: &'a [u8],
        answer: &'a mut Answer,
        gone: &'a AtomicBool,
        deadline: Option<Moment>,
        response_limit: usize,
        id: &'a OnceLock<String>,
    ) -> Exchange<'a> {
        let peer = OnceLock::new();
        Exchange {
            head,
            body,
            answer: Mutex::new(answer),
            gone,
            deadline,
            response_limit,
            id,
            peer,
            streams: &NO_STREAMS,
            polls: None,
        }
    }

    /// The same exchange, with what of it goes piece by piece.
    pub fn with_streams(self, streams: &'a Streams) -> Exchange<'a> {
        Exchange { streams, ..self }
    }

    /// The same exchange, for a run that is polled.
    fn polled(self, execution: Arc<Execution>) -> Exchange<'a> {
        Exchange { polls: Some(execution), ..self }
    }

    /// Lends the exchange to a run in the form that crosses. Until the run returns, it is what this thread is for.
    pub fn lend<T>(&self, run: impl FnOnce(&raw::Exchange<'_>) -> T) -> T {
        let _inside = self.enter();
        run(&self.form())
    }

    /// Until what comes back is dropped, this exchange is what this thread is for.
    fn enter(&self) -> Inside {
        Inside(CURRENT.replace(ptr::from_ref(self).cast()))
    }

    /// The form that crosses, for as long as `self` stays where it is.
    fn form(&self) -> raw::Exchange<'_> {
        let (target, path_len) = self.head.target();
        raw::Exchange {
            method: self.head.method().into(),
            target: target.into(),
            path_len,
            body: self.body.into(),
            flags: if self.streams.inlet.is_some() { raw::MORE_BODY } else { 0 },
            version: self.head.version(),
            host: ptr::from_ref(self).cast_mut().cast(),
            ops: &OPS,
        }
    }

    /// Hands a piece of a streamed answer on; a run that is polled asks for room before, and must not wait here.
    fn hand_on(&self, outlet: &Outlet, piece: Bytes, more: bool) -> Status {
        if self.polls.is_some() { outlet.write_now(piece, more) } else { outlet.write(piece, more) }
    }

    /// When the client is told that the run takes too long; an answer whose head has gone takes its time.
    fn deadline(&self) -> Option<Moment> {
        let begun = self.streams.outlet.as_ref().is_some_and(|outlet| outlet.has_begun());
        self.deadline.filter(|_| !begun)
    }

    fn text_header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.head.header(name, 0)?).ok()
    }

    fn id(&self) -> &str {
        self.id.get_or_init(|| self.head.request_id())
    }

    fn peer(&self) -> Option<&str> {
        let peer: Option<SocketAddr> = match self.head {
            Head::Live(request) => request.peer_addr(),
            Head::Copied(copy) => copy.peer(),
        };
        peer.map(|peer| self.peer.get_or_init(|| peer.to_string()).as_str())
    }

    fn authority(&self) -> Option<&str> {
        let authority = match self.head {
            Head::Live(request) => request.uri().authority().map(|authority| authority.as_str()),
            Head::Copied(copy) => copy.authority(),
        };
        authority.or_else(|| self.text_header("host"))
    }
}

/// What the request is called whose Run this thread is in.
pub fn current_id() -> Option<String> {
    let current = CURRENT.get();
    // SAFETY: `enter` sets it to an exchange that stays until it is set back, and this thread is inside of it.
    let exchange = unsafe { current.as_ref() }?;
    Some(exchange.id().to_owned())
}

static OPS: ExchangeOps = ExchangeOps { header, headers, attribute, state, read, respond, write };

/// Contract of all below: `host` is the `Exchange` of a `lend` that has not returned, or of an `AsyncRun`.
unsafe fn exchange<'a>(host: *mut ()) -> &'a Exchange<'a> {
    // SAFETY: the contract above; all that is changed behind the reference has a lock of its own.
    unsafe { &*host.cast::<Exchange<'a>>() }
}

/// What the wire calls 'static lives as long as the exchange.
fn lasting(text: &str) -> RStr<'static> {
    // SAFETY: the text is the request's or the exchange's, which last as long as Run.
    unsafe { std::mem::transmute::<RStr<'_>, RStr<'static>>(RStr::from(text)) }
}

fn lasting_bytes(bytes: &[u8]) -> RSlice<'static, u8> {
    // SAFETY: as in `lasting`.
    unsafe { std::mem::transmute::<RSlice<'_, u8>, RSlice<'static, u8>>(RSlice::from(bytes)) }
}

unsafe extern "C" fn header(
    host: *mut (),
    name: RStr<'_>,
    nth: usize,
    out: &mut RSlice<'static, u8>,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    exchange.head.header(name.as_str(), nth).map_or(status::END, |value| {
        *out = lasting_bytes(value);
        status::OK
    })
}

unsafe extern "C" fn headers(
    host: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let put = |n: usize, name: &str, value: &[u8]| {
        let header = Header { name: lasting(name), value: lasting_bytes(value) };
        // SAFETY: `n` is below `capacity`, for which the caller has room.
        let place = unsafe { out.add(n) };
        // SAFETY: as above; a `Header` needs no drop.
        unsafe { place.write(header) };
    };
    match exchange.head {
        Head::Live(request) => {
            let headers = &request.head().headers;
            for (n, (name, value)) in headers.iter().skip(skip).take(capacity).enumerate() {
                put(n, name.as_str(), value.as_bytes());
            }
            headers.len()
        }
        Head::Copied(copy) => {
            for (n, (name, value)) in copy.headers().skip(skip).take(capacity).enumerate() {
                put(n, name, value);
            }
            copy.headers().len()
        }
    }
}

unsafe extern "C" fn attribute(host: *mut (), key: u32, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let found = match key {
        attribute::REQUEST_ID => Some(exchange.id()),
        attribute::PEER => exchange.peer(),
        attribute::SCHEME => Some(exchange.head.scheme()),
        attribute::AUTHORITY => exchange.authority(),
        _ => return status::UNSUPPORTED,
    };
    found.map_or(status::END, |text| {
        *out = lasting(text);
        status::OK
    })
}

unsafe extern "C" fn state(host: *mut (), remaining: &mut u64) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let left = exchange.deadline().map(Moment::remaining);
    *remaining = left.map_or(u64::MAX, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX - 1));
    if exchange.gone.load(Ordering::Relaxed) {
        return status::GONE;
    }
    if left.is_some_and(|left| left.is_zero()) { status::TIMEOUT } else { status::OK }
}

unsafe extern "C" fn read(host: *mut (), out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    // Else the whole body is in the exchange.
    let Some(inlet) = &exchange.streams.inlet else { return status::END };
    match wait(exchange.deadline(), |context| inlet.poll_next(context)) {
        Some(Ok(piece)) => {
            *out = chunk(piece);
            status::OK
        }
        Some(Err(End::Whole)) => status::END,
        Some(Err(End::Broken(status))) => status,
        None => status::TIMEOUT,
    }
}

/// What an async lambda finds under the id of the extension.
pub static ASYNC_OPS: AsyncHost =
    AsyncHost { size: size_of::<AsyncHost>() as u32, version: 1, poll_read, poll_ready };

unsafe extern "C" fn poll_read(host: *mut (), waker: *const Waker, out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let Some(inlet) = &exchange.streams.inlet else { return status::END };
    // SAFETY: the lambda's promise.
    let next = unsafe { waker::borrow(waker, |waker| inlet.poll_next(&mut Context::from_waker(waker))) };
    match next {
        Poll::Ready(Ok(piece)) => {
            *out = chunk(piece);
            status::OK
        }
        Poll::Ready(Err(End::Whole)) => status::END,
        Poll::Ready(Err(End::Broken(status))) => status,
        Poll::Pending => status::PENDING,
    }
}

unsafe extern "C" fn poll_ready(host: *mut (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    // What is not streamed is held: there is nothing to wait for.
    let Some(outlet) = &exchange.streams.outlet else { return status::OK };
    // SAFETY: the lambda's promise.
    let room =
        unsafe { waker::borrow(waker, |waker| outlet.pipe.poll_room(&mut Context::from_waker(waker))) };
    match room {
        Poll::Ready(Ok(())) => status::OK,
        Poll::Ready(Err(Left)) => status::GONE,
        Poll::Pending => status::PENDING,
    }
}

unsafe extern "C" fn respond(
    host: *mut (),
    code: u32,
    headers: RSlice<'_, Header<'_>>,
    body: raw::Chunk,
    flags: u32,
) -> Status {
    let body = bytes(body);
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let headers = headers.as_slice().iter().map(|header| (header.name.as_str(), header.value.as_slice()));
    let more = flags & raw::MORE != 0;
    let mut answer = exchange.answer.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(outlet) = exchange.streams.outlet.as_ref().filter(|_| more) else {
        return answer.respond(code, headers, body, more, exchange.response_limit);
    };
    let begun = answer.respond(code, headers, Bytes::new(), more, exchange.response_limit);
    let Some(head) = answer.head().filter(|_| begun == status::OK) else { return begun };
    outlet.begin(head);
    drop(answer);
    exchange.hand_on(outlet, body, more)
}

unsafe extern "C" fn write(host: *mut (), chunk: raw::Chunk, flags: u32) -> Status {
    let piece = bytes(chunk);
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let more = flags & raw::MORE != 0;
    if let Some(outlet) = exchange.streams.outlet.as_ref().filter(|outlet| outlet.has_begun()) {
        return exchange.hand_on(outlet, piece, more);
    }
    let mut answer = exchange.answer.lock().unwrap_or_else(PoisonError::into_inner);
    answer.write(&piece, more, exchange.response_limit)
}

/// Takes over what the lambda hands in: a view is copied, owned bytes move and are released when they have been sent.
fn bytes(chunk: raw::Chunk) -> Bytes {
    let owned = Owned(chunk);
    if owned.0.release.is_none() || owned.0.len <= COPY_LIMIT {
        return Bytes::copy_from_slice(owned.as_ref());
    }
    Bytes::from_owner(owned)
}

/// Gives bytes to the lambda, together with their owner.
fn chunk(bytes: Bytes) -> raw::Chunk {
    unsafe extern "C" fn release(owner: *mut (), _: *const u8, _: usize) {
        // SAFETY: made below, and released once: the wire's promise.
        drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
    }
    let (ptr, len) = (bytes.as_ptr(), bytes.len());
    let owner = Box::into_raw(Box::new(bytes)).cast();
    raw::Chunk { ptr, len, owner, release: Some(release) }
}

/// A chunk that is released when it is dropped.
struct Owned(raw::Chunk);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: the wire's promise: the bytes are there until they are released, a view as long as the call,
        // which `bytes` does not outlast with one.
        unsafe { std::slice::from_raw_parts(self.0.ptr, self.0.len) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the wire's promise; once, as nothing else has the chunk.
            unsafe { release(self.0.owner, self.0.ptr, self.0.len) }
        }
    }
}

// SAFETY: the wire's promise: `release` may be called on any thread, and so the bytes be read.
unsafe impl Send for Owned {}
// SAFETY: shared, it only lends bytes that nobody changes.
unsafe impl Sync for Owned {}
