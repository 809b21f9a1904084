//! The entries that a lambda calls during a run, and the form in which an exchange crosses.
#![expect(unsafe_code, reason = "the entries get their data as a pointer")]

use std::{
    cell::Cell,
    ptr,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use abi_stable::std_types::{RSlice, RStr};
use bytes::Bytes;
use effe_abi::{
    extensions::{AsyncHost, Duplex, EarlyHost, SpawnHost, TrailersHost, UpgradeHost, Waker},
    raw::{self, ExchangeOps, Header, Status, attribute, status},
    waker,
};

use super::{
    Exchange, duplex,
    piece::{bytes, chunk},
    watched::{self, Watched},
};
use crate::{
    body::{
        pipe::{Closed, End},
        trailers::Trailers,
    },
    placement::{Place, spawned_poll},
    plugin::{host::Exchanges, views},
    rt::{block_on::block_until, clock::Moment, wake_batch},
};

impl Exchange<'_> {
    /// Lends the exchange to a run, in the form that crosses, and makes it this thread's current one meanwhile.
    pub fn lend<T>(&self, run: impl FnOnce(&raw::Exchange<'_>) -> T) -> T {
        let _entered = self.enter();
        match self.watched_form() {
            None => run(&self.form()),
            Some(form) => run(form),
        }
    }

    /// What crosses instead if the lambda is watched.
    #[inline]
    pub fn watched_form(&self) -> Option<&raw::Exchange<'_>> {
        let watched = || self.watched.get_or_init(|| Watched::new(&self.form())).form();
        watched::is_on().then(watched)
    }

    /// Makes this exchange the thread's current one until the guard is dropped.
    pub fn enter(&self) -> Entered {
        Entered(CURRENT.replace(ptr::from_ref(self).cast()))
    }

    /// The form that crosses, for as long as `self` stays where it is.
    #[inline]
    pub fn form(&self) -> raw::Exchange<'_> {
        raw::Exchange {
            method: self.head.method.as_str().into(),
            target: self.head.target().into(),
            path_len: self.head.path_len(),
            body: self.body.into(),
            flags: if self.streams.request.as_ref().is_some_and(|pipe| pipe.has_body()) {
                raw::MORE_BODY
            } else {
                0
            },
            version: self.head.version_number(),
            host: ptr::from_ref(self).cast_mut().cast(),
            ops: &OPS,
        }
    }
}

thread_local! {
    /// The exchange whose Run this thread is in, for calls of the lambda that don't name one, such as its log's.
    pub static CURRENT: Cell<*const Exchange<'static>> = const { Cell::new(ptr::null()) };
}

/// Sets the thread's current exchange back when it is dropped, also while a panic of ours unwinds.
pub struct Entered(*const Exchange<'static>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// What a lambda's host needs of this layer, if the lambda isn't watched.
pub const FOR_HOST: Exchanges = Exchanges {
    async_host: &ASYNC_OPS,
    spawn_host: &SPAWN_OPS,
    early_host: &EARLY_OPS,
    trailers_host: &TRAILERS_OPS,
    upgrade_host: &UPGRADE_OPS,
    request_id: current_id,
    are_strict: false,
};

/// Whether this thread is in a Run.
pub fn is_in_run() -> bool {
    !CURRENT.get().is_null()
}

/// The id of the request whose Run this thread is in.
pub fn current_id() -> Option<String> {
    // SAFETY: `enter` sets it to an exchange that stays until it is set back, and this thread is inside of it.
    let exchange = unsafe { CURRENT.get().as_ref() }?;
    Some(exchange.id().to_owned())
}

/// Copies the id of the request whose Run this thread is in, if it has one by now, as far as it fits; how many bytes
/// that are. It may be called in a handler of signals: it takes no memory and no lock.
pub fn copy_current_id(to: &mut [u8]) -> usize {
    // SAFETY: as in `current_id`.
    let Some(exchange) = (unsafe { CURRENT.get().as_ref() }) else { return 0 };
    let id = exchange.id.get().map(String::as_str).or_else(|| exchange.head.given_request_id());
    let id = id.unwrap_or_default().as_bytes();
    let n = id.len().min(to.len());
    to[..n].copy_from_slice(&id[..n]);
    n
}

static OPS: ExchangeOps = ExchangeOps { header, headers, attribute, state, read, respond, write };

/// Contract of all below: `host` is the `Exchange` of a `lend` that has not returned, or of an `AsyncRun`.
pub unsafe fn exchange<'a>(host: *mut ()) -> &'a Exchange<'a> {
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

pub(super) unsafe extern "C" fn header(
    host: *mut (),
    name: RStr<'_>,
    nth: usize,
    out: &mut RSlice<'static, u8>,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let value = views::text(name).and_then(|name| exchange.head.header(name, nth));
    value.map_or(status::END, |value| {
        *out = lasting_bytes(value);
        status::OK
    })
}

pub(super) unsafe extern "C" fn headers(
    host: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let fields = &exchange.head.fields;
    // SAFETY: the caller's room.
    unsafe { put(fields.iter().skip(skip).take(capacity), out) };
    fields.len()
}

/// Writes fields to `out`, which has room for them.
unsafe fn put<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>, out: *mut Header<'static>) {
    for (n, (name, value)) in fields.enumerate() {
        let header = Header { name: lasting(name), value: lasting_bytes(value) };
        // SAFETY: the caller's promise.
        let place = unsafe { out.add(n) };
        // SAFETY: as above; a `Header` needs no drop.
        unsafe { place.write(header) };
    }
}

pub(super) unsafe extern "C" fn attribute(host: *mut (), key: u32, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let found = match key {
        attribute::REQUEST_ID => Some(exchange.id()),
        attribute::PEER => exchange.peer(),
        attribute::SCHEME => Some(exchange.head.scheme()),
        attribute::AUTHORITY => exchange.authority(),
        _ => match exchange.head.invocation() {
            Some(invocation) => invocation.attribute(key),
            None => return status::UNSUPPORTED,
        },
    };
    found.map_or(status::END, |text| {
        *out = lasting(text);
        status::OK
    })
}

pub(super) unsafe extern "C" fn state(host: *mut (), remaining: &mut u64) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let left = exchange.deadline().map(Moment::remaining);
    *remaining = left.map_or(u64::MAX, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX - 1));
    if exchange.is_gone() {
        return status::GONE;
    }
    if left.is_some_and(|left| left.is_zero()) { status::TIMEOUT } else { status::OK }
}

pub(super) unsafe extern "C" fn read(host: *mut (), out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    // A body that is not streamed is in the exchange.
    let Some(request) = &exchange.streams.request else { return status::END };
    let next = block_until(exchange.deadline(), |cx| request.poll_next(cx));
    next.map_or(status::TIMEOUT, |next| give(next, out))
}

fn give(next: Result<Bytes, End>, out: &mut raw::Chunk) -> Status {
    match next {
        Ok(piece) => {
            *out = chunk(piece);
            status::OK
        }
        Err(End::Whole) => status::END,
        Err(End::Broken(status)) => status,
    }
}

/// What an async lambda finds under the id `ASYNC`.
static ASYNC_OPS: AsyncHost =
    AsyncHost { size: size_of::<AsyncHost>() as u32, version: 1, poll_read, poll_ready };

pub(super) unsafe extern "C" fn poll_read(
    host: *mut (),
    waker: *const Waker,
    out: &mut raw::Chunk,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let Some(request) = &exchange.streams.request else { return status::END };
    // SAFETY: the lambda's promise.
    let next = unsafe { waker::borrow(waker, |waker| request.poll_next(&mut Context::from_waker(waker))) };
    if let Poll::Ready(next) = next { give(next, out) } else { status::PENDING }
}

pub(super) unsafe extern "C" fn poll_ready(host: *mut (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    // What is not streamed is held: there is nothing to wait for.
    let Some(sender) = &exchange.streams.response else { return status::OK };
    // SAFETY: the lambda's promise.
    let room =
        unsafe { waker::borrow(waker, |waker| sender.pipe.poll_room(&mut Context::from_waker(waker))) };
    match room {
        Poll::Ready(Ok(())) => status::OK,
        Poll::Ready(Err(Closed)) => status::GONE,
        Poll::Pending => status::PENDING,
    }
}

/// What an async lambda finds under the id `SPAWN`, for runs that go on as tasks of its own runtime.
static SPAWN_OPS: SpawnHost = SpawnHost {
    size: size_of::<SpawnHost>() as u32,
    version: 2,
    may_spawn,
    enter,
    leave,
    hold,
    release,
    may_block,
};

pub(super) unsafe extern "C" fn may_spawn(host: *mut ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let wants_spawn = exchange.polls.as_ref().is_some_and(|placement| match exchange.duplex.get() {
        None => placement.wants_spawn(),
        // Its connection is served on this thread, for which it waits again and again.
        Some(_) => placement.current() == Place::Runtime && exchange.has_overstayed(),
    });
    if wants_spawn { status::OK } else { status::UNSUPPORTED }
}

pub(super) unsafe extern "C" fn enter(host: *mut ()) -> *const () {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    spawned_poll::begin(exchange.polls.as_deref());
    CURRENT.replace(host.cast_const().cast()).cast()
}

pub(super) unsafe extern "C" fn leave(host: *mut (), entered: *const ()) {
    CURRENT.set(entered.cast());
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    spawned_poll::end(exchange.polls.as_deref(), || (exchange.head.method.as_str(), exchange.head.path()));
}

pub(super) unsafe extern "C" fn may_block(host: *mut ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let blocks = exchange.polls.as_ref().is_some_and(|placement| placement.blocks());
    if blocks { status::OK } else { status::UNSUPPORTED }
}

pub(super) unsafe extern "C" fn hold() {
    wake_batch::hold();
}

pub(super) unsafe extern "C" fn release() {
    wake_batch::release();
}

/// What a lambda finds under the id `EARLY`.
static EARLY_OPS: EarlyHost = EarlyHost { size: size_of::<EarlyHost>() as u32, version: 1, end_early };

pub(super) unsafe extern "C" fn end_early(host: *mut ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let Some(early) = &exchange.early else { return status::UNSUPPORTED };
    early.is_wanted.store(true, Ordering::Relaxed);
    status::OK
}

/// What a lambda finds under the id `TRAILERS`.
static TRAILERS_OPS: TrailersHost = TrailersHost {
    size: size_of::<TrailersHost>() as u32,
    version: 1,
    request: request_trailers,
    respond: respond_trailers,
};

pub(super) unsafe extern "C" fn request_trailers(
    host: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let Some(trailers) = exchange.request_trailers() else { return 0 };
    // SAFETY: the caller has room for `capacity`. They are set once and stay as long as the exchange.
    unsafe { put(trailers.iter().skip(skip).take(capacity), out) };
    trailers.iter().len()
}

pub(super) unsafe extern "C" fn respond_trailers(host: *mut (), trailers: RSlice<'_, Header<'_>>) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let mut added = Trailers::NONE;
    for (name, value) in views::headers(trailers) {
        if !added.add(name, value) {
            return status::INVALID;
        }
    }
    if exchange.takes_trailers() { exchange.add_trailers(added) } else { status::UNSUPPORTED }
}

/// What a lambda finds under the id `UPGRADE`.
static UPGRADE_OPS: UpgradeHost =
    UpgradeHost { size: size_of::<UpgradeHost>() as u32, version: 1, offered, upgrade };

pub(super) unsafe extern "C" fn offered(host: *mut (), out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    exchange.streams.upgrade.as_ref().map_or(status::END, |offer| {
        *out = lasting(&offer.protocols);
        status::OK
    })
}

pub(super) unsafe extern "C" fn upgrade(
    host: *mut (),
    headers: RSlice<'_, Header<'_>>,
    out: &mut Duplex,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    match exchange.upgrade(views::headers(headers)) {
        Ok(stream) => {
            *out = duplex::handle(stream);
            status::OK
        }
        Err(status) => status,
    }
}

pub(super) unsafe extern "C" fn respond(
    host: *mut (),
    code: u32,
    headers: RSlice<'_, Header<'_>>,
    body: raw::Chunk,
    flags: u32,
) -> Status {
    let body = bytes(body);
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let headers = views::headers(headers);
    let more = flags & raw::MORE != 0;
    if exchange.is_answered() {
        return status::INVALID;
    }
    let mut response = exchange.response();
    let Some(sender) = exchange.streams.response.as_ref().filter(|_| more) else {
        let begun = response.respond(code, headers, body, more, exchange.response_limit);
        return if begun == status::OK { exchange.ended(response, more) } else { begun };
    };
    let begun = response.respond(code, headers, Bytes::new(), more, exchange.response_limit);
    let announced = || exchange.takes_trailers();
    let Some(head) = response.head(announced).filter(|_| begun == status::OK) else {
        if begun == status::OK {
            sender.inform(response.take_interims());
        }
        return begun;
    };
    if let Some(extras) = response.take_extras() {
        sender.add_trailers(extras.trailers);
    }
    sender.begin(head);
    drop(response);
    exchange.hand_on(sender, body, more)
}

pub(super) unsafe extern "C" fn write(host: *mut (), chunk: raw::Chunk, flags: u32) -> Status {
    let piece = bytes(chunk);
    // SAFETY: the contract of this file's entries.
    let exchange = unsafe { exchange(host) };
    let more = flags & raw::MORE != 0;
    if let Some(sender) = exchange.streams.response.as_ref().filter(|sender| sender.has_begun()) {
        return exchange.hand_on(sender, piece, more);
    }
    let mut response = exchange.response();
    let written = response.write(&piece, more, exchange.response_limit);
    if written == status::OK { exchange.ended(response, more) } else { written }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, OnceLock, atomic::AtomicBool},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{
        exchange::response::ResponseBuilder,
        journal::{Format, Journal, Settings, SyslogTarget},
        message::request::Request,
        placement::{Mode, Placement, policy::OVERSTAY},
    };

    /// A poll of a lambda's own thread, as long as `lasts`, and what its log line would be for.
    fn poll(exchange: &Exchange<'_>, lasts: Duration) -> Option<String> {
        let host = ptr::from_ref(exchange).cast_mut().cast();
        // SAFETY: it is borrowed for longer than this.
        let entered = unsafe { enter(host) };
        thread::sleep(lasts);
        let id = current_id();
        // SAFETY: as above.
        unsafe { leave(host, entered) };
        id
    }

    #[test]
    fn a_lambda_whose_polls_overstay_is_spawned_until_they_are_short() {
        let journal = Journal::start(Settings::new(SyslogTarget::None, Format::Text)).unwrap();
        let placement = Arc::new(Placement::new(Mode::Auto, 0, true, true, journal));
        let (head, mut response) = (Request::default(), ResponseBuilder::default());
        let (gone, id) = (AtomicBool::new(false), OnceLock::from("a-b-c".to_owned()));
        let exchange = Exchange::new(&head, &[], &mut response, &gone, None, 0, &id);
        let exchange = Exchange { polls: Some(Arc::clone(&placement)), ..exchange };
        let host = ptr::from_ref(&exchange).cast_mut().cast();
        // SAFETY: it stays for longer than the call.
        let may_spawn = || unsafe { may_spawn(host) };
        assert_eq!(may_spawn(), status::UNSUPPORTED, "nothing speaks for it yet");
        // On a busy machine a poll may be preempted, and doesn't count.
        while may_spawn() != status::OK {
            assert_eq!(poll(&exchange, 3 * OVERSTAY).as_deref(), Some("a-b-c"));
        }
        assert_eq!((placement.current(), current_id()), (Place::Runtime, None));
        while may_spawn() == status::OK {
            poll(&exchange, Duration::ZERO);
        }
        assert_eq!(placement.current(), Place::Inline, "short polls win the trust back");
    }
}
