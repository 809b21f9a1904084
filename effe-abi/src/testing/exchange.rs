//! One exchange in the test's own process: its request comes from a [`Call`], and its answer goes into an [`Answer`].
//!
//! This file owns the tables that a lambda calls during a run. Calling the lambda is left to the caller.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    task,
    time::{Duration, Instant},
};

use abi_stable::std_types::{RSlice, RStr};

use super::{
    call::{Answer, Call, Interim},
    duplex::Shared,
    outcome::Outcome,
    piece::bytes,
};
use crate::{
    chunk::Chunk,
    extensions::{AsyncHost, Duplex, EarlyHost, SpawnHost, TrailersHost, UpgradeHost, Waker, aws_attribute},
    raw::{self, Exchange, ExchangeOps, Header, Status, attribute, status},
    waker,
};

/// What `host` points to in the entries below.
struct Host<'a> {
    call: &'a Call,
    begun: Instant,
    pieces: Mutex<VecDeque<Vec<u8>>>,
    answer: Mutex<Partial>,
    /// Whether the answer is to be sent once it is ended.
    ends_early: AtomicBool,
    /// When the answer was sent while the run went on.
    answered: OnceLock<Instant>,
    /// Whether the run is to be spawned.
    spawns: bool,
    /// Where the client waits for the connection that it offers; `None` if it offers none.
    offer: Option<Offer>,
    /// The connection, once the lambda has taken it over.
    taken: OnceLock<Arc<Shared>>,
    /// Whether the last poll of `poll_read`, and of `poll_ready`, was put off: every other poll is.
    put_off: [AtomicBool; 2],
}

type Head = (u16, Vec<(String, Vec<u8>)>);

/// Where the client of a call waits for the connection that it offers: the head of the 101, and what follows it.
pub(super) type Offer = Sender<(Answer, Arc<Shared>)>;

#[derive(Default)]
struct Partial {
    informational: Vec<Interim>,
    head: Option<Head>,
    pieces: Vec<Vec<u8>>,
    trailers: Vec<(String, Vec<u8>)>,
    ended: bool,
}

/// Calls `run` with the exchange of a call, and fills in the answer as a client would see it. `run` also gets what says
/// whether the answer was sent while the run goes on; it returns `None` if it dropped the lambda's future.
pub(super) fn run(
    call: &Call,
    spawns: bool,
    offer: Option<Offer>,
    answer: &mut Answer,
    run: impl FnOnce(&Exchange<'_>, &dyn Fn() -> bool) -> Option<Outcome>,
) {
    let host = Host {
        call,
        begun: Instant::now(),
        pieces: Mutex::new(call.pieces.iter().cloned().collect()),
        answer: Mutex::default(),
        ends_early: AtomicBool::new(false),
        answered: OnceLock::new(),
        spawns,
        offer,
        taken: OnceLock::new(),
        put_off: Default::default(),
    };
    let exchange = Exchange {
        method: call.method.as_str().into(),
        target: call.target.as_str().into(),
        path_len: call.target.find('?').unwrap_or(call.target.len()),
        body: call.body.as_slice().into(),
        flags: if call.pieces.is_empty() { 0 } else { raw::MORE_BODY },
        version: 11,
        host: std::ptr::from_ref(&host).cast_mut().cast(),
        ops: &OPS,
    };
    let outcome = run(&exchange, &|| host.answered.get().is_some());
    answer.early = host.answered.get().is_some();
    let partial = host.answer.into_inner().unwrap_or_else(PoisonError::into_inner);
    (answer.status, answer.headers) = partial.head.clone().unwrap_or((500, Vec::new()));
    answer.pieces = partial.pieces;
    answer.informational = partial.informational;
    if partial.head.is_some() {
        answer.trailers = partial.trailers;
    }
    answer.broken = partial.head.is_some() && !partial.ended && !matches!(outcome, Some(Outcome::Ok));
    answer.panicked = matches!(outcome, Some(Outcome::Panic(_)));
    answer.dropped = outcome.is_none();
    answer.failure = match outcome {
        None | Some(Outcome::Ok) => None,
        Some(Outcome::Error(text) | Outcome::Panic(text)) => Some(text),
    };
}

static OPS: ExchangeOps = ExchangeOps { header, headers, attribute, state, read, respond, write };

/// Contract of all functions below: `host` is the `Host` of a `run` that has not returned.
#[expect(unsafe_code, reason = "the table's `host` comes back as a pointer")]
unsafe fn host<'a>(host: *mut ()) -> &'a Host<'a> {
    // SAFETY: the contract above.
    unsafe { &*host.cast::<Host<'a>>() }
}

/// Text that lives as long as the exchange. The wire says 'static for that.
#[expect(unsafe_code, reason = "the wire can't name the exchange's lifetime")]
fn lasting(text: &str) -> RStr<'static> {
    // SAFETY: the text belongs to the call, or is static; both outlive the exchange.
    unsafe { std::mem::transmute::<RStr<'_>, RStr<'static>>(RStr::from(text)) }
}

#[expect(unsafe_code, reason = "the wire can't name the exchange's lifetime")]
fn lasting_bytes(bytes: &[u8]) -> RSlice<'static, u8> {
    // SAFETY: the bytes belong to the call, which outlives the exchange.
    unsafe { std::mem::transmute::<RSlice<'_, u8>, RSlice<'static, u8>>(RSlice::from(bytes)) }
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn header(
    pointer: *mut (),
    name: RStr<'_>,
    nth: usize,
    out: &mut RSlice<'static, u8>,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let mut values = host.call.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_str()));
    values.nth(nth).map_or(status::END, |(_, value)| {
        *out = lasting_bytes(value);
        status::OK
    })
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn headers(
    pointer: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    // SAFETY: the caller has room for `capacity`.
    unsafe { put_fields(&host.call.headers, skip, out, capacity) }
}

/// Writes up to `capacity` fields of the call to `out`, which has room for them, and returns how many there are in all.
#[expect(unsafe_code, reason = "the wire takes fields by a pointer")]
unsafe fn put_fields(
    fields: &[(String, Vec<u8>)],
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    for (n, (name, value)) in fields.iter().skip(skip).take(capacity).enumerate() {
        let header = Header { name: lasting(name), value: lasting_bytes(value) };
        // SAFETY: `n` is below `capacity`, for which the caller has room.
        let place = unsafe { out.add(n) };
        // SAFETY: as above; a `Header` needs no drop.
        unsafe { place.write(header) };
    }
    fields.len()
}

/// Copies of the lambda's fields.
fn fields(headers: RSlice<'_, Header<'_>>) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|header| (header.name.to_string(), header.value.to_vec())).collect()
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn attribute(pointer: *mut (), key: u32, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let given = |name| {
        let (_, value) = host.call.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value).ok()
    };
    let found = match key {
        attribute::REQUEST_ID => Some(given("x-request-id").unwrap_or("test")),
        attribute::PEER => Some("127.0.0.1:9"),
        attribute::SCHEME => Some(if host.call.is_https { "https" } else { "http" }),
        attribute::AUTHORITY => given("host"),
        aws_attribute::REQUEST_ID if host.call.event.is_some() => {
            Some(given("x-request-id").unwrap_or("test"))
        }
        aws_attribute::EVENT if host.call.event.is_some() => host.call.event.as_deref(),
        _ => return status::UNSUPPORTED,
    };
    found.map_or(status::END, |text| {
        *out = lasting(text);
        status::OK
    })
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn state(pointer: *mut (), remaining: &mut u64) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let since = host.answered.get().unwrap_or(&host.begun);
    if let Some(taken) = host.taken.get() {
        *remaining = u64::MAX;
        return if taken.state() == status::OK { status::OK } else { status::GONE };
    }
    let left = host.call.deadline.map(|after| after.saturating_sub(since.elapsed()));
    *remaining = left.map_or(u64::MAX, |left| left.as_nanos().try_into().unwrap_or(u64::MAX - 1));
    match left {
        _ if host.answered.get().is_none() && host.gone(&host.lock()) => status::GONE,
        Some(Duration::ZERO) => status::TIMEOUT,
        _ => status::OK,
    }
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn read(pointer: *mut (), out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let piece = host.pieces.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    piece.map_or(status::END, |piece| {
        *out = Chunk::from(piece).into_raw();
        status::OK
    })
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn respond(
    pointer: *mut (),
    status: u32,
    headers: RSlice<'_, Header<'_>>,
    body: raw::Chunk,
    flags: u32,
) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let body = bytes(body);
    let mut answer = host.lock();
    let (None, Ok(status @ 102..=599)) = (&answer.head, u16::try_from(status)) else {
        return status::INVALID;
    };
    let headers = fields(headers);
    if status < 200 {
        answer.informational.push(Interim { status, headers });
        return status::OK;
    }
    answer.head = Some((status, headers));
    host.put(&mut answer, body, flags)
}

#[expect(unsafe_code, reason = "an entry of the exchange's table")]
unsafe extern "C" fn write(pointer: *mut (), chunk: raw::Chunk, flags: u32) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let piece = bytes(chunk);
    let mut answer = host.lock();
    if answer.head.is_none() || answer.ended {
        return status::INVALID;
    }
    host.put(&mut answer, piece, flags)
}

/// The host's table for async runs.
pub(super) static ASYNC_OPS: AsyncHost =
    AsyncHost { size: size_of::<AsyncHost>() as u32, version: 1, poll_read, poll_ready };

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn poll_read(pointer: *mut (), waker: *const Waker, out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    if host.puts_off(0) {
        // SAFETY: the lambda's promise.
        unsafe { waker::borrow(waker, task::Waker::wake_by_ref) };
        return status::PENDING;
    }
    // SAFETY: as above.
    unsafe { read(pointer, out) }
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn poll_ready(pointer: *mut (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    if host.gone(&host.lock()) {
        return status::GONE;
    }
    if host.puts_off(1) {
        // SAFETY: the lambda's promise.
        unsafe { waker::borrow(waker, task::Waker::wake_by_ref) };
        return status::PENDING;
    }
    status::OK
}

/// The host's table for answers that are sent while the run goes on.
pub(super) static EARLY_OPS: EarlyHost =
    EarlyHost { size: size_of::<EarlyHost>() as u32, version: 1, end_early };

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn end_early(pointer: *mut ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    host.ends_early.store(true, Ordering::Relaxed);
    status::OK
}

/// The host's table for fields behind bodies.
pub(super) static TRAILERS_OPS: TrailersHost = TrailersHost {
    size: size_of::<TrailersHost>() as u32,
    version: 1,
    request: request_trailers,
    respond: respond_trailers,
};

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn request_trailers(
    pointer: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    if !host.pieces.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return 0;
    }
    // SAFETY: the caller has room for `capacity`.
    unsafe { put_fields(&host.call.trailers, skip, out, capacity) }
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn respond_trailers(pointer: *mut (), trailers: RSlice<'_, Header<'_>>) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let mut answer = host.lock();
    if answer.ended {
        return status::INVALID;
    }
    answer.trailers.extend(fields(trailers));
    status::OK
}

/// The host's table for upgrades.
pub(super) static UPGRADE_OPS: UpgradeHost =
    UpgradeHost { size: size_of::<UpgradeHost>() as u32, version: 1, offered, upgrade };

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn offered(pointer: *mut (), out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    host.protocols().map_or(status::END, |protocols| {
        *out = lasting(protocols);
        status::OK
    })
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn upgrade(pointer: *mut (), headers: RSlice<'_, Header<'_>>, out: &mut Duplex) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    let (Some(offer), Some(protocols)) = (&host.offer, host.protocols()) else { return status::END };
    let headers = fields(headers);
    let chosen = headers.iter().find(|(name, _)| name == "upgrade");
    let is_offered = |protocol: &[u8]| {
        let mut protocols = protocols.split(',').map(str::trim);
        protocols.any(|one| one.as_bytes().eq_ignore_ascii_case(protocol))
    };
    let mut answer = host.lock();
    if answer.head.is_some() || !chosen.is_some_and(|(_, protocol)| is_offered(protocol)) {
        return status::INVALID;
    }
    answer.head = Some((101, headers.clone()));
    answer.ended = true;
    let informational = answer.informational.clone();
    drop(answer);
    let shared = Arc::<Shared>::default();
    *out = shared.lend();
    let _ = host.taken.set(Arc::clone(&shared));
    let _ = host.answered.set(Instant::now());
    let head = Answer { status: 101, headers, informational, ..Answer::default() };
    // The client waits for this.
    let _ = offer.send((head, shared));
    status::OK
}

/// The host's table for spawned runs.
pub(super) static SPAWN_OPS: SpawnHost = SpawnHost {
    size: size_of::<SpawnHost>() as u32,
    version: 2,
    may_spawn,
    enter,
    leave,
    hold,
    release,
    may_block,
};

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn may_spawn(pointer: *mut ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(pointer) };
    if host.spawns { status::OK } else { status::UNSUPPORTED }
}

// In these a loader measures polls and gathers wake-ups. A test has no use for either.

#[expect(unsafe_code, reason = "an entry of the host's table")]
pub(super) unsafe extern "C" fn may_block(_: *mut ()) -> Status {
    status::UNSUPPORTED
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
pub(super) unsafe extern "C" fn enter(_: *mut ()) -> *const () {
    std::ptr::null()
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
pub(super) unsafe extern "C" fn leave(_: *mut (), _: *const ()) {}

#[expect(unsafe_code, reason = "an entry of the host's table")]
pub(super) unsafe extern "C" fn hold() {}

#[expect(unsafe_code, reason = "an entry of the host's table")]
pub(super) unsafe extern "C" fn release() {}

impl Host<'_> {
    /// What the client offers, if the test waits for the connection.
    fn protocols(&self) -> Option<&str> {
        self.offer.as_ref()?;
        let (_, value) = self.call.headers.iter().find(|(name, _)| name == "upgrade")?;
        std::str::from_utf8(value).ok()
    }

    /// Whether this poll is to return PENDING. Every other one does, so that a test stops at every place that may wait.
    fn puts_off(&self, which: usize) -> bool {
        !self.put_off[which].fetch_xor(true, Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Partial> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self, answer: &Partial) -> bool {
        self.call.gone_after.is_some_and(|limit| answer.pieces.len() >= limit)
    }

    fn put(&self, answer: &mut Partial, piece: Vec<u8>, flags: u32) -> Status {
        if self.gone(answer) {
            return status::GONE;
        }
        if !piece.is_empty() {
            answer.pieces.push(piece);
        }
        answer.ended |= flags & raw::MORE == 0;
        if answer.ended && self.ends_early.load(Ordering::Relaxed) {
            let _ = self.answered.set(Instant::now());
        }
        status::OK
    }
}
