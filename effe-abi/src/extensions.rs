//! What was added to the wire since v1: tables that one side asks the other for, by id, through `extension`.
//!
//! An extension is optional on both sides: null means "not supported", and whoever asked does without. Each table
//! begins with its size and its version. A table may get new fields at its end under the same id: its size then says
//! whether they are there. Its version says what its maker promises beyond that. Any other change needs another id.
//!
//! The trust, the rules and the ownership of views are those of [`raw`](crate::raw). abi_stable doesn't compare these
//! tables: their layout is asserted below, and in `tests/layout.rs`.
//!
//! Authors don't need this module; loaders are written against it.

use std::ptr;

use abi_stable::std_types::{RSlice, RStr};

use crate::raw::{Chunk, Exchange, Failure, Header, Host, Status, status};

/// Key of a fact about the host, for [`Host::attribute`]: which of the processes that serve the lambda this one is,
/// counted from 0, and how many there are: `1/4`. An older host answers UNSUPPORTED; then it is the only one.
pub const PROCESS: u32 = 64;

/// Id of the host's table [`FailHost`]: says why an entry fails.
pub const FAIL: &str = "effe.fail/1";

/// Every host has this table that loads plugins by [`Root`](crate::c_root::Root). To a plugin that finds it, a
/// [`Failure`] is opaque: the plugin doesn't read or write it. It has the room of one, whatever the host puts there.
#[repr(C)]
pub struct FailHost {
    /// `size_of::<FailHost>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// Says why the entry that was given `failure` is about to return ERROR or PANIC. The text is copied; a second call
    /// replaces the first. Any thread, one call at a time for each failure.
    pub fail: unsafe extern "C" fn(failure: *mut Failure, level: u32, text: RStr<'_>),
}

/// Id of the plugin's table [`Ready`]: whether the lambda can serve.
pub const READY: &str = "effe.ready/1";

/// Asks the lambda whether it can serve.
#[repr(C)]
pub struct Ready {
    /// `size_of::<Ready>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// OK: it can serve. Any thread, one call at a time, after `init` and before `retire`. May wait.
    pub ready: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
}

/// Keys of [`ExchangeOps::attribute`](crate::raw::ExchangeOps::attribute) that a host knows for requests that are
/// invocations of AWS Lambda's. For any other request it returns UNSUPPORTED.
pub mod aws_attribute {
    /// The id of the invocation. It is there wherever the request is an invocation.
    pub const REQUEST_ID: u32 = 0x0100;
    /// When the invocation times out, in milliseconds since 1970, as decimal digits.
    pub const DEADLINE_MS: u32 = 0x0101;
    /// The ARN under which the function was invoked.
    pub const FUNCTION_ARN: u32 = 0x0102;
    /// The tracing header of X-Ray.
    pub const TRACE_ID: u32 = 0x0103;
    /// What the caller says of itself, as JSON.
    pub const CLIENT_CONTEXT: u32 = 0x0104;
    /// The Cognito identity of the caller, as JSON.
    pub const COGNITO_IDENTITY: u32 = 0x0105;
    /// The event as it came, as JSON: that of an HTTP event too, whose request is made of it.
    pub const EVENT: u32 = 0x0106;
}

/// Id of the plugin's table [`AsyncPlugin`], entries that wait without a thread, and of the host's table [`AsyncHost`].
pub const ASYNC: &str = "effe.async/1";

/// Start, Run and Stop as futures. The entries of [`Plugin`](crate::raw::Plugin) work too: they wait on their thread.
///
/// OWNERSHIP: whatever a pointer among the arguments points to must stay valid until the future is dropped.
#[repr(C)]
pub struct AsyncPlugin {
    /// `size_of::<AsyncPlugin>()`, as its maker knows it.
    pub size: u32,
    /// 2: where the host's [`SpawnHost`] has version 2, this plugin calls [`SpawnHost::may_spawn`] before each poll of
    /// every run until it says OK, and spawns exactly those runs. 1: the plugin decides by itself which runs it
    /// asks for, so a loader can't rely on a run being spawned. A loader that knows only version 1 need not look at
    /// this.
    pub version: u32,
    /// As [`Plugin::start`](crate::raw::Plugin): when the future is done, its status and `*context` are what that entry
    /// leaves. If the future is dropped before, `*context` is null and there is nothing to stop.
    pub start: unsafe extern "C" fn(
        host: &'static Host,
        context: *mut *mut (),
        failure: *mut Failure,
        out: &mut Future,
    ),
    /// As [`Plugin::run`](crate::raw::Plugin). The host must offer [`AsyncHost`]. If the future is dropped before it is
    /// done, the run is cancelled. Then the Context may be used again if the plugin's flags have
    /// [`KEEP_CANCELLED`](crate::raw::plugin_flags::KEEP_CANCELLED); if not, nothing but `stop` may be called with it.
    pub run: unsafe extern "C" fn(
        context: *mut (),
        exchange: *const Exchange<'static>,
        failure: *mut Failure,
        out: &mut Future,
    ),
    /// As [`Plugin::stop`](crate::raw::Plugin). The future must be polled to its end: if it is dropped before, the
    /// Context is dropped without the rest of the author's Stop.
    pub stop: unsafe extern "C" fn(context: *mut (), failure: *mut Failure, out: &mut Future),
}

/// `read` and `write` that return PENDING instead of waiting. `host` is [`Exchange::host`] of an exchange that was
/// passed to [`AsyncPlugin::run`].
///
/// THREADS: as [`ExchangeOps`](crate::raw::ExchangeOps), where `poll_read` counts as `read` and `poll_ready` as
/// `write`.
#[repr(C)]
pub struct AsyncHost {
    /// `size_of::<AsyncHost>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// As `read`, or PENDING: then the waker will be woken, unless a later call passes another one.
    pub poll_read: unsafe extern "C" fn(host: *mut (), waker: *const Waker, out: &mut Chunk) -> Status,
    /// OK: the next `write` will not wait. GONE, TIMEOUT, or PENDING as above. The first `respond` with `MORE`, and one
    /// `write` after it, don't wait even if this was not called.
    pub poll_ready: unsafe extern "C" fn(host: *mut (), waker: *const Waker) -> Status,
}

/// Id of the host's table [`SpawnHost`]: a run may go on as a task of the lambda's own runtime.
pub const SPAWN: &str = "effe.spawn/1";

/// For runs that wait again and again, each time for something that the lambda's own threads bring. A run that is
/// *spawned* is polled on those threads, and the loader's thread is woken once, when the run has ended. The future that
/// [`AsyncPlugin::run`] made still stands for the run: polling it gives the run's outcome, and dropping it cancels the
/// run. `host` is [`Exchange::host`] of the run's exchange.
///
/// The loader sees every poll, so it is the loader that decides which runs are spawned. A plugin that finds no such
/// table, or one of version 1, never spawns a run: then the loader polls all of them, which always works.
#[repr(C)]
pub struct SpawnHost {
    /// `size_of::<SpawnHost>()`, as its maker knows it.
    pub size: u32,
    /// 2: the loader decides. 1 (older loaders): the plugin decides, and `may_spawn` only permits.
    pub version: u32,
    /// Whether this run is to be spawned: OK, or UNSUPPORTED. The plugin calls it before each poll of every run, on the
    /// thread of that poll, until the answer is OK.
    pub may_spawn: unsafe extern "C" fn(host: *mut ()) -> Status,
    /// This thread, one of the lambda's, begins a poll of the run. The result is for `leave`.
    pub enter: unsafe extern "C" fn(host: *mut ()) -> *const (),
    /// The poll that `enter` began has ended. Called on the same thread, with what `enter` returned.
    pub leave: unsafe extern "C" fn(host: *mut (), entered: *const ()),
    /// From now until `release`, the host notes down which of its wakers this thread uses, and wakes nobody. Not called
    /// twice in a row, nor around anything that takes long.
    pub hold: unsafe extern "C" fn(),
    /// Wakes, at once, everything that was noted down on this thread.
    pub release: unsafe extern "C" fn(),
    /// In a table of version 2: whether the next poll of a spawned run may block its thread, OK or UNSUPPORTED. Then
    /// the plugin polls it where other tasks don't wait for that thread, as tokio's `block_in_place` does.
    pub may_block: unsafe extern "C" fn(host: *mut ()) -> Status,
}

/// Bit of [`Plugin::flags`](crate::raw::Plugin) beyond those of v1: Run may end its answer before it returns, and so
/// must not be on the thread that sends the answer. An older loader ignores it, and has no [`EarlyHost`].
pub const ANSWERS_EARLY: u64 = 32;

/// Id of the host's table [`EarlyHost`]: an answer that goes out while Run goes on.
pub const EARLY: &str = "effe.early/1";

/// Without this table a held answer goes out when `run` has returned or its future is done, whenever it was ended.
#[repr(C)]
pub struct EarlyHost {
    /// `size_of::<EarlyHost>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// To be called just before the `respond` or `write` that ends an answer, which is one without
    /// [`MORE`](crate::raw::MORE). OK: that call sends the answer while the run goes on. It returns TIMEOUT if the
    /// client was told already that the run takes too long. UNSUPPORTED: the answer would only go out at the end of
    /// the run. An async run, and that of a plugin whose flags have [`ANSWERS_EARLY`] or
    /// [`STREAM_RESPONSE`](crate::raw::plugin_flags::STREAM_RESPONSE), is never told so.
    ///
    /// After an answer was sent so, the run is neither cancelled nor told GONE when its client leaves, and `state` says
    /// how much time the rest of it has. What has not come of a streamed body does not come any more.
    ///
    /// THREADS: as `respond` and `write`, of which it counts as one.
    pub end_early: unsafe extern "C" fn(host: *mut ()) -> Status,
}

/// Id of the host's table [`TrailersHost`]: fields behind the body, of a request and of an answer.
pub const TRAILERS: &str = "effe.trailers/1";

/// Without this table no trailers reach the lambda, and none that it has reach the client. `host` is
/// [`Exchange::host`].
///
/// Fields that say where a body ends, who it is for, who sends it or how its content is to be read are no trailers (RFC
/// 9110, section 6.5.1): the host leaves them out in both directions.
#[repr(C)]
pub struct TrailersHost {
    /// `size_of::<TrailersHost>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// Writes up to `capacity` trailers of the request to `out`, from number `skip` on. Returns how many there are in
    /// all, which is 0 before the end of the body was read. Any thread, at any time while the exchange lasts.
    pub request:
        unsafe extern "C" fn(host: *mut (), skip: usize, out: *mut Header<'static>, capacity: usize) -> usize,
    /// Adds trailers to the answer. To be called before the `respond` or `write` that ends the answer, of which it
    /// counts as one. OK; UNSUPPORTED: they are left out, because this client takes none. INVALID: one of them has a
    /// bad name or value, or the answer has ended. TOO_LARGE.
    pub respond: unsafe extern "C" fn(host: *mut (), trailers: RSlice<'_, Header<'_>>) -> Status,
}

/// Bit of [`Plugin::flags`](crate::raw::Plugin) beyond those of v1: Run may switch its connection to another protocol.
/// An older loader ignores it, and has no [`UpgradeHost`].
pub const UPGRADES: u64 = 128;

/// A [`Status`] beyond those of v1, from the functions of a [`Duplex`] alone: the effe stops, and the stream has as
/// long as a drain may take.
pub const GOING_AWAY: Status = 10;

/// Id of the host's table [`UpgradeHost`]: connections that a lambda takes over.
pub const UPGRADE: &str = "effe.upgrade/1";

/// For a request whose client offers to go on with another protocol on the same connection (RFC 9110, section 7.8).
/// `host` is [`Exchange::host`] of an exchange of a plugin whose flags have [`UPGRADES`]. The body of such a request is
/// whole when `run` is called, also where the plugin streams bodies.
#[repr(C)]
pub struct UpgradeHost {
    /// `size_of::<UpgradeHost>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// OK: the protocols that the client offers, separated by commas, as they came. END: it offers none that the
    /// connection can be switched to.
    pub offered: unsafe extern "C" fn(host: *mut (), out: &mut RStr<'static>) -> Status,
    /// Answers with 101 and these headers, of which `upgrade` names one of the protocols that are offered. OK: `out` is
    /// the connection from there on. INVALID: another answer has begun, or the headers are not fit. END: no protocol is
    /// offered. GONE, TIMEOUT: nobody waits for the answer any more.
    ///
    /// After OK the run is as one that has answered early, but without a limit of time; and it may end before the
    /// stream does.
    ///
    /// THREADS: as `respond` and `write`, of which it counts as one.
    pub upgrade:
        unsafe extern "C" fn(host: *mut (), headers: RSlice<'_, Header<'_>>, out: &mut Duplex) -> Status,
}

/// A stream of bytes in both directions. It may outlive its run, and keeps its generation from retiring.
///
/// OWNERSHIP: whoever gets it calls `drop` of its table once, after all other calls.
#[repr(C)]
pub struct Duplex {
    /// First argument of every function; only its maker knows what it is.
    pub data: *const (),
    /// Its functions. They live for ever.
    pub table: &'static DuplexTable,
}

/// The functions of a [`Duplex`].
///
/// THREADS: any thread may call any of them. Of `read` and `poll_read` together, one call at a time; likewise of
/// `write` and `poll_ready`.
#[repr(C)]
pub struct DuplexTable {
    /// `size_of::<DuplexTable>()`, as its maker knows it.
    pub size: u32,
    /// 1
    pub version: u32,
    /// The next bytes, which belong to the caller. May wait. OK; END: the client has closed its end; GONE: the
    /// connection is broken or closed; TIMEOUT: nothing came or went for as long as the operator allows;
    /// [`GOING_AWAY`]: told once, behind what has come, and the next call goes on.
    pub read: unsafe extern "C" fn(data: *const (), out: &mut Chunk) -> Status,
    /// As `read`, or PENDING: then the waker will be woken, unless a later call passes another one.
    pub poll_read: unsafe extern "C" fn(data: *const (), waker: *const Waker, out: &mut Chunk) -> Status,
    /// Sends bytes. May wait while the client is slow. OK, GONE.
    pub write: unsafe extern "C" fn(data: *const (), chunk: Chunk) -> Status,
    /// OK: the next `write` will not wait. GONE, or PENDING as above.
    pub poll_ready: unsafe extern "C" fn(data: *const (), waker: *const Waker) -> Status,
    /// Closes this end, behind what was written: nothing more is written. Reading goes on.
    pub shutdown: unsafe extern "C" fn(data: *const ()),
    /// OK, [`GOING_AWAY`], or GONE once the connection is closed.
    pub state: unsafe extern "C" fn(data: *const ()) -> Status,
    /// As `state`, with PENDING instead of OK: then the waker will be woken. Any number of callers at a time.
    pub poll_away: unsafe extern "C" fn(data: *const (), waker: *const Waker) -> Status,
    /// Another handle of the same stream. Each handle is dropped once.
    pub clone: unsafe extern "C" fn(data: *const ()) -> *const (),
    /// Gives a handle back. With the last one, the connection is closed behind what was written.
    pub drop: unsafe extern "C" fn(data: *const ()),
}

/// Work that waits without a thread.
///
/// OWNERSHIP: whoever asked for the future owns it, polls it, and calls `drop`, which frees it.
#[repr(C)]
pub struct Future {
    /// First argument of both functions; only its maker knows what it is.
    pub data: *mut (),
    /// Any thread, one call at a time, until it returns something other than PENDING. The waker is valid for the length
    /// of the call.
    pub poll: unsafe extern "C" fn(data: *mut (), waker: *const Waker) -> Status,
    /// Called exactly once, on any thread, after the last `poll`.
    pub drop: unsafe extern "C" fn(data: *mut ()),
}

impl Future {
    /// No work: the caller passes it in, to be overwritten.
    pub const NONE: Future = Future { data: ptr::null_mut(), poll: poll_none, drop: drop_none };
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn poll_none(_: *mut (), _: *const Waker) -> Status {
    status::INVALID
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn drop_none(_: *mut ()) {}

/// The first word of an object whose rest only its maker knows. Any thread may call any of its functions.
///
/// OWNERSHIP: it is valid for the length of the call that it is passed to. Whoever wants to keep it makes a clone.
#[repr(C)]
pub struct Waker {
    /// Its functions.
    pub table: &'static WakerTable,
}

/// The functions of a [`Waker`].
#[repr(C)]
pub struct WakerTable {
    /// Returns a clone that may be kept; never null. The caller owns it, and ends it by one `wake` or one `drop`.
    pub clone: unsafe extern "C" fn(*const Waker) -> *const Waker,
    /// Wakes, and uses up a clone.
    pub wake: unsafe extern "C" fn(*const Waker),
    /// Wakes, and uses up nothing. Works on a clone or on the waker that was passed in.
    pub wake_by_ref: unsafe extern "C" fn(*const Waker),
    /// Uses up a clone.
    pub drop: unsafe extern "C" fn(*const Waker),
}

/// The size of every type and the offset of every field: a change doesn't compile.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(
        size_of::<FailHost>() == 16 && offset_of!(FailHost, version) == 4 && offset_of!(FailHost, fail) == 8
    );
    assert!(size_of::<Ready>() == 16 && offset_of!(Ready, version) == 4 && offset_of!(Ready, ready) == 8);
    assert!(size_of::<AsyncPlugin>() == 32 && offset_of!(AsyncPlugin, version) == 4);
    assert!(offset_of!(AsyncPlugin, start) == 8 && offset_of!(AsyncPlugin, run) == 16);
    assert!(offset_of!(AsyncPlugin, stop) == 24);
    assert!(size_of::<AsyncHost>() == 24 && offset_of!(AsyncHost, version) == 4);
    assert!(offset_of!(AsyncHost, poll_read) == 8 && offset_of!(AsyncHost, poll_ready) == 16);
    assert!(size_of::<SpawnHost>() == 56 && offset_of!(SpawnHost, version) == 4);
    assert!(offset_of!(SpawnHost, may_spawn) == 8 && offset_of!(SpawnHost, enter) == 16);
    assert!(offset_of!(SpawnHost, leave) == 24 && offset_of!(SpawnHost, hold) == 32);
    assert!(offset_of!(SpawnHost, release) == 40 && offset_of!(SpawnHost, may_block) == 48);
    assert!(size_of::<EarlyHost>() == 16 && offset_of!(EarlyHost, version) == 4);
    assert!(offset_of!(EarlyHost, end_early) == 8);
    assert!(size_of::<TrailersHost>() == 24 && offset_of!(TrailersHost, version) == 4);
    assert!(offset_of!(TrailersHost, request) == 8 && offset_of!(TrailersHost, respond) == 16);
    assert!(size_of::<UpgradeHost>() == 24 && offset_of!(UpgradeHost, version) == 4);
    assert!(offset_of!(UpgradeHost, offered) == 8 && offset_of!(UpgradeHost, upgrade) == 16);
    assert!(size_of::<Duplex>() == 16 && offset_of!(Duplex, table) == 8);
    assert!(size_of::<DuplexTable>() == 80 && offset_of!(DuplexTable, version) == 4);
    assert!(offset_of!(DuplexTable, read) == 8 && offset_of!(DuplexTable, poll_read) == 16);
    assert!(offset_of!(DuplexTable, write) == 24 && offset_of!(DuplexTable, poll_ready) == 32);
    assert!(offset_of!(DuplexTable, shutdown) == 40 && offset_of!(DuplexTable, state) == 48);
    assert!(offset_of!(DuplexTable, poll_away) == 56 && offset_of!(DuplexTable, clone) == 64);
    assert!(offset_of!(DuplexTable, drop) == 72);
    assert!(size_of::<Future>() == 24 && offset_of!(Future, poll) == 8 && offset_of!(Future, drop) == 16);
    assert!(size_of::<Waker>() == 8 && size_of::<WakerTable>() == 32);
    assert!(offset_of!(WakerTable, wake) == 8 && offset_of!(WakerTable, wake_by_ref) == 16);
    assert!(offset_of!(WakerTable, drop) == 24);
};
