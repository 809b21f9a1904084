//! The wire, v1: all that crosses between a loader and a plugin.
//!
//! Nothing here ever changes once it is frozen: no field, name or number. Growth goes through the two
//! `extension` doors. Three rules hold for every function below, on both sides:
//!
//! - nothing unwinds out of it;
//! - whoever allocates frees;
//! - integers with unknown values are not errors: an unknown status is a failure, an unknown flag or level is
//!   ignored, an unknown key is [`status::UNSUPPORTED`].
//!
//! Views (`RStr`, `RSlice`, a [`Chunk`] without `release`) handed *in* live as long as the call. Those that come
//! *out* of an [`Exchange`] live as long as the exchange; out of a [`Host`], for ever.
//!
//! An author never meets this module; a loader is written against it.

use std::ptr;

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    sabi_types::VersionStrings,
    std_types::{RSlice, RStr, RString},
};

/// What an entry reports: a number and not an enum, so that values unknown to one side stay defined.
pub type Status = u32;

/// Values of [`Status`].
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The author's code returned an error; the failure says which.
    pub const ERROR: u32 = 1;
    /// The author's code panicked; the failure says where. The panic hook has logged it already.
    pub const PANIC: u32 = 2;
    /// The client has gone.
    pub const GONE: u32 = 3;
    /// There is no more, or no such thing: the end of a body, an absent header or parameter.
    pub const END: u32 = 4;
    /// This side can't do that, or not here.
    pub const UNSUPPORTED: u32 = 5;
    /// A malformed status or header, or calls in the wrong order.
    pub const INVALID: u32 = 6;
    /// Past a limit of the operator's.
    pub const TOO_LARGE: u32 = 7;
    /// The deadline has passed.
    pub const TIMEOUT: u32 = 8;
    /// Only from functions that take a waker: not yet, it will be woken.
    pub const PENDING: u32 = 9;
}

/// Bits of [`Plugin::flags`].
pub mod plugin_flags {
    /// Run never waits.
    pub const NEVER_WAITS: u64 = 1;
    /// Run always waits.
    pub const WAITS: u64 = 2;
    /// Run wants the body as it arrives; without it, the exchange holds the whole body.
    pub const STREAM_REQUEST: u64 = 4;
    /// Run sends its answer piece by piece; without it, the answer is held whole.
    pub const STREAM_RESPONSE: u64 = 8;
    /// Async: a Context whose run was cancelled may be used again.
    pub const KEEP_CANCELLED: u64 = 16;
}

/// The severity below syslog's debug (7).
pub const TRACE: u32 = 8;
/// Bit of [`Exchange::flags`]: `body` is only the beginning, `read` gives the rest.
pub const MORE_BODY: u32 = 1;
/// Bit of `respond`'s and `write`'s flags: more of the answer follows.
pub const MORE: u32 = 1;

/// Keys of [`ExchangeOps::attribute`].
pub mod attribute {
    /// The request's id, made when none came with it.
    pub const REQUEST_ID: u32 = 1;
    /// `address:port` of the client.
    pub const PEER: u32 = 2;
    /// What the connection to the host is, whatever a proxy in front of it says: `https` over TLS, else `http`.
    pub const SCHEME: u32 = 3;
    /// The host the client asked for, from `:authority` or `Host`.
    pub const AUTHORITY: u32 = 4;
}

/// Keys of [`Host::attribute`].
pub mod host_attribute {
    /// The bound address, `address:port`; with several listeners the first.
    pub const ADDRESS: u32 = 1;
    /// The largest answer that is held whole, in bytes, as decimal digits.
    pub const RESPONSE_LIMIT: u32 = 2;
    /// The host's name and version, `effe-loader/0.1.0`.
    pub const SOFTWARE: u32 = 3;
}

/// Bytes. With `release` they now belong to the receiver, who calls it exactly once, on any thread, whatever
/// status it reports; without, they are a view.
#[repr(C)]
#[derive(StableAbi)]
pub struct Chunk {
    /// The first byte; may be null if `len` is 0.
    pub ptr: *const u8,
    /// Bytes, at most `isize::MAX`.
    pub len: usize,
    /// Whatever `release` needs to know.
    pub owner: *mut (),
    /// Frees the bytes. Any thread; never unwinds.
    pub release: Option<unsafe extern "C" fn(owner: *mut (), ptr: *const u8, len: usize)>,
}

impl Chunk {
    /// No bytes.
    pub const EMPTY: Chunk = Chunk { ptr: ptr::null(), len: 0, owner: ptr::null_mut(), release: None };

    /// A view of `bytes`.
    pub const fn view(bytes: &[u8]) -> Chunk {
        Chunk { ptr: bytes.as_ptr(), len: bytes.len(), owner: ptr::null_mut(), release: None }
    }
}

/// One header of a request or of an answer.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Header<'a> {
    /// In lower case.
    pub name: RStr<'a>,
    /// Bytes: header values need not be UTF-8.
    pub value: RSlice<'a, u8>,
}

impl Header<'_> {
    /// No name, no value: what a buffer of headers is filled with before it is written.
    pub const EMPTY: Header<'static> = Header { name: RStr::from_str(""), value: RSlice::EMPTY };
}

/// Why an entry did not report OK. The caller hands in an empty one.
#[repr(C)]
#[derive(StableAbi)]
pub struct Failure {
    /// A syslog severity, 2 (critical) to 7 (debug).
    pub level: u32,
    /// One or more lines for the operator, never for the client.
    pub text: RString,
}

impl Failure {
    /// What a caller hands in; allocates nothing.
    pub const fn new() -> Failure {
        Failure { level: 3, text: RString::new() }
    }
}

impl Default for Failure {
    fn default() -> Self {
        Failure::new()
    }
}

/// What the loader gives a generation of a plugin; it lives for ever. Any thread may call any of it.
#[repr(C)]
#[derive(StableAbi)]
pub struct Host {
    /// First argument of every function.
    pub data: *const (),
    /// The least severe level that is wanted now.
    pub level: unsafe extern "C" fn(data: *const ()) -> u32,
    /// A line, or lines, for the log. Levels are syslog's (2 critical … 7 debug) and [`TRACE`].
    pub log: unsafe extern "C" fn(data: *const (), level: u32, target: RStr<'_>, text: RStr<'_>),
    /// One of the operator's parameters: a JSON string without its quotes, anything else as JSON text.
    /// The empty key is the JSON object of all. OK or END.
    pub parameter: unsafe extern "C" fn(data: *const (), key: RStr<'_>, out: &mut RStr<'static>) -> Status,
    /// A fact about the host, by a key of [`host_attribute`]. OK, END, UNSUPPORTED.
    pub attribute: unsafe extern "C" fn(data: *const (), key: u32, out: &mut RStr<'static>) -> Status,
    /// A table, for ever, or null.
    pub extension: unsafe extern "C" fn(data: *const (), id: RStr<'_>) -> *const (),
}

/// One request and the way to answer it. Valid until the call it was given to returns; for an async run, until
/// the future is dropped. Extensions of the host name an exchange by its `host`.
#[repr(C)]
#[derive(StableAbi)]
pub struct Exchange<'a> {
    /// As it came, `GET`.
    pub method: RStr<'a>,
    /// Path and query as they came.
    pub target: RStr<'a>,
    /// `target[..path_len]` is the path; what follows is nothing, or `?` and the query.
    pub path_len: usize,
    /// The whole body, or with [`MORE_BODY`] its beginning.
    pub body: RSlice<'a, u8>,
    /// [`MORE_BODY`]
    pub flags: u32,
    /// 10, 11, 20, 30
    pub version: u32,
    /// First argument of every function in `ops`.
    pub host: *mut (),
    /// What can be asked and done.
    pub ops: &'a ExchangeOps,
}

/// `header`, `headers`, `attribute`, `state`: from any thread, also at the same time. `read`: from any thread, one
/// call at a time. `respond` and `write`: from any thread, one call at a time, also while a `read` waits.
#[repr(C)]
#[derive(StableAbi)]
pub struct ExchangeOps {
    /// The nth value of a header; names match in any case. OK or END.
    pub header: unsafe extern "C" fn(
        host: *mut (),
        name: RStr<'_>,
        nth: usize,
        out: &mut RSlice<'static, u8>,
    ) -> Status,
    /// Writes up to `capacity` headers from number `skip` on; reports how many there are in all.
    pub headers:
        unsafe extern "C" fn(host: *mut (), skip: usize, out: *mut Header<'static>, capacity: usize) -> usize,
    /// A fact about the request, by a key of [`attribute`]. OK, END, UNSUPPORTED.
    pub attribute: unsafe extern "C" fn(host: *mut (), key: u32, out: &mut RStr<'static>) -> Status,
    /// OK, GONE or TIMEOUT, and the nanoseconds that are left (`u64::MAX`: there is no deadline).
    pub state: unsafe extern "C" fn(host: *mut (), remaining: &mut u64) -> Status,
    /// The next piece of the body; a view lives until the next `read`. May wait. OK, END, GONE, TOO_LARGE, TIMEOUT.
    pub read: unsafe extern "C" fn(host: *mut (), out: &mut Chunk) -> Status,
    /// The head, once, and the body: all of it, or with [`MORE`] its beginning. Heads with a 1xx status and
    /// `MORE` may precede. OK, GONE, INVALID, TOO_LARGE, TIMEOUT.
    pub respond: unsafe extern "C" fn(
        host: *mut (),
        status: u32,
        headers: RSlice<'_, Header<'_>>,
        body: Chunk,
        flags: u32,
    ) -> Status,
    /// The next piece of the body, to be sent without delay; without [`MORE`], the last. May wait while the
    /// client is slow. OK, GONE, INVALID, TOO_LARGE, TIMEOUT.
    pub write: unsafe extern "C" fn(host: *mut (), chunk: Chunk, flags: u32) -> Status,
}

/// What a plugin exports as its root module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef, prefix_fields = PluginPrefix)))]
#[sabi(missing_field(panic))]
pub struct Plugin {
    /// Bits of [`plugin_flags`].
    pub flags: u64,
    /// A JSON object.
    pub info: RStr<'static>,
    /// `key=value; …` for people and refusals; contains `panic=unwind` or `panic=abort`.
    pub build: RStr<'static>,
    /// Once, before any `start`.
    pub init: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
    /// `*context` comes in null. OK: it holds a Context. ERROR: it holds an error, and perhaps a Context; it
    /// wants one `run`. PANIC: no `run`. If it is not null now, it wants exactly one `stop`.
    pub start:
        unsafe extern "C" fn(host: &'static Host, context: &mut *mut (), failure: &mut Failure) -> Status,
    /// One at a time per Context, on any thread. Not OK and nothing responded: the client gets 500. Not OK in
    /// the midst of an answer: the connection is broken off. OK ends an answer that was not ended. After PANIC
    /// the Context is only for `stop`.
    pub run: unsafe extern "C" fn(context: *mut (), exchange: &Exchange<'_>, failure: &mut Failure) -> Status,
    /// Whatever it reports, the Context is gone.
    pub stop: unsafe extern "C" fn(context: *mut (), failure: &mut Failure) -> Status,
    /// Once, after the last `stop`; nothing is called after it.
    pub retire: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
    /// A table, for ever, or null. Any thread.
    #[sabi(last_prefix_field)]
    pub extension: unsafe extern "C" fn(id: RStr<'_>) -> *const (),
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "effe";
    const NAME: &'static str = "effe lambda";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

// SAFETY: the contract of `Host`: any thread may call any of it.
#[expect(unsafe_code, reason = "the table holds a pointer that its functions share between threads")]
unsafe impl Send for Host {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Host {}
// SAFETY: views, and functions that `ExchangeOps` lets any thread call.
#[expect(unsafe_code, reason = "an exchange may be used by any thread of a lambda")]
unsafe impl Send for Exchange<'_> {}
// SAFETY: as above; calling the functions is unsafe, and what may be called at the same time is said there.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Exchange<'_> {}

/// The size of every type and the place of every field: a change to v1 does not compile.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Chunk>() == 32 && offset_of!(Chunk, len) == 8);
    assert!(offset_of!(Chunk, owner) == 16 && offset_of!(Chunk, release) == 24);
    assert!(size_of::<Header<'_>>() == 32 && offset_of!(Header<'_>, value) == 16);
    assert!(size_of::<Failure>() == 40 && offset_of!(Failure, text) == 8);
    assert!(size_of::<Host>() == 48 && offset_of!(Host, level) == 8 && offset_of!(Host, log) == 16);
    assert!(offset_of!(Host, parameter) == 24 && offset_of!(Host, attribute) == 32);
    assert!(offset_of!(Host, extension) == 40);
    assert!(size_of::<Exchange<'_>>() == 80 && offset_of!(Exchange<'_>, target) == 16);
    assert!(offset_of!(Exchange<'_>, path_len) == 32 && offset_of!(Exchange<'_>, body) == 40);
    assert!(offset_of!(Exchange<'_>, flags) == 56 && offset_of!(Exchange<'_>, version) == 60);
    assert!(offset_of!(Exchange<'_>, host) == 64 && offset_of!(Exchange<'_>, ops) == 72);
    assert!(size_of::<ExchangeOps>() == 56 && offset_of!(ExchangeOps, headers) == 8);
    assert!(offset_of!(ExchangeOps, attribute) == 16 && offset_of!(ExchangeOps, state) == 24);
    assert!(offset_of!(ExchangeOps, read) == 32 && offset_of!(ExchangeOps, respond) == 40);
    assert!(offset_of!(ExchangeOps, write) == 48);
    assert!(size_of::<Plugin>() == 88 && offset_of!(Plugin, info) == 8 && offset_of!(Plugin, build) == 24);
    assert!(offset_of!(Plugin, init) == 40 && offset_of!(Plugin, start) == 48);
    assert!(offset_of!(Plugin, run) == 56 && offset_of!(Plugin, stop) == 64);
    assert!(offset_of!(Plugin, retire) == 72 && offset_of!(Plugin, extension) == 80);
};
