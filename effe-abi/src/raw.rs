//! The wire, v1: everything that a loader and a plugin pass to each other.
//!
//! A plugin is trusted: it runs in the loader's process, and neither side checks the other's pointers.
//!
//! Nothing here ever changes, no field, name or number: plugins in the field were built against it. New tables are
//! asked for by id through the two `extension` functions, and are in [`extensions`](crate::extensions). Three rules
//! hold for every function below, on both sides:
//!
//! - nothing unwinds out of it;
//! - whoever allocates frees;
//! - integers with unknown values are not errors: an unknown status is a failure, an unknown flag or level is
//!   ignored, an unknown key is [`status::UNSUPPORTED`].
//!
//! OWNERSHIP of views (`RStr`, `RSlice`, a [`Chunk`] without `release`): one that is passed *in* as an argument is
//! valid for the length of the call. One that comes *out* of an [`Exchange`] is valid as long as the exchange; one out
//! of a [`Host`], for ever.
//!
//! Authors don't need this module; loaders are written against it.

use std::ptr;

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    sabi_types::VersionStrings,
    std_types::{RSlice, RStr, RString},
};

/// What a function of the wire returns. It is a number and not an enum, so that a value that one side doesn't know is
/// no undefined behaviour.
pub type Status = u32;

/// Values of [`Status`].
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The author's code returned an error, which is in the failure.
    pub const ERROR: u32 = 1;
    /// The author's code panicked; the failure says where. The plugin's panic hook has logged it already.
    pub const PANIC: u32 = 2;
    /// The client has gone.
    pub const GONE: u32 = 3;
    /// There is no more, or no such thing: the end of a body, an absent header or parameter.
    pub const END: u32 = 4;
    /// This side can't do that, or not now.
    pub const UNSUPPORTED: u32 = 5;
    /// A malformed status or header, or a call in the wrong order.
    pub const INVALID: u32 = 6;
    /// Larger than a limit that the operator has set.
    pub const TOO_LARGE: u32 = 7;
    /// The deadline has passed.
    pub const TIMEOUT: u32 = 8;
    /// Not yet: the waker will be woken. Only from functions that take a waker.
    pub const PENDING: u32 = 9;
}

/// Bits of [`Plugin::flags`].
pub mod plugin_flags {
    /// Run never waits.
    pub const NEVER_WAITS: u64 = 1;
    /// Run always waits.
    pub const WAITS: u64 = 2;
    /// Run reads the body as it arrives. Without this bit, the exchange holds the whole body.
    pub const STREAM_REQUEST: u64 = 4;
    /// Run sends its answer piece by piece. Without this bit, the answer is held whole.
    pub const STREAM_RESPONSE: u64 = 8;
    /// Of an async lambda: a Context whose run was cancelled may be used again.
    pub const KEEP_CANCELLED: u64 = 16;
}

/// A level of [`Host::log`] less severe than syslog's debug (7).
pub const TRACE: u32 = 8;
/// Bit of [`Exchange::flags`]: `body` is only the beginning of the body, and `read` gives the rest.
pub const MORE_BODY: u32 = 1;
/// Bit of the flags of `respond` and `write`: more of the answer follows.
pub const MORE: u32 = 1;

/// Keys of [`ExchangeOps::attribute`].
pub mod attribute {
    /// The request's id: the client's, or one that the host made.
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
    /// The address that is served, `address:port`. With several listeners, the first.
    pub const ADDRESS: u32 = 1;
    /// The largest answer that is held whole, in bytes, as decimal digits.
    pub const RESPONSE_LIMIT: u32 = 2;
    /// The host's name and version, `effe-loader/0.1.0`.
    pub const SOFTWARE: u32 = 3;
}

/// Bytes.
///
/// OWNERSHIP: with `release` they belong to the receiver, who calls it exactly once, on any thread, whatever status the
/// receiver returns. Without, they are a view.
#[repr(C)]
#[derive(StableAbi)]
pub struct Chunk {
    /// The first byte. It may be null if `len` is 0.
    pub ptr: *const u8,
    /// Number of bytes, at most `isize::MAX`.
    pub len: usize,
    /// First argument of `release`; only its maker knows what it is.
    pub owner: *mut (),
    /// Frees the bytes. Any thread may call it.
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
    /// Bytes, which need not be UTF-8.
    pub value: RSlice<'a, u8>,
}

impl Header<'_> {
    /// No name and no value, to fill a buffer of headers with before it is written to.
    pub const EMPTY: Header<'static> = Header { name: RStr::from_str(""), value: RSlice::EMPTY };
}

/// Why an entry did not return OK. The caller passes in an empty one.
#[repr(C)]
#[derive(StableAbi)]
pub struct Failure {
    /// A syslog severity, 2 (critical) to 7 (debug).
    pub level: u32,
    /// One or more lines for the operator, never for the client.
    pub text: RString,
}

impl Failure {
    /// An empty one. Allocates nothing.
    pub const fn new() -> Failure {
        Failure { level: 3, text: RString::new() }
    }
}

impl Default for Failure {
    fn default() -> Self {
        Failure::new()
    }
}

/// What the loader gives to a generation of a plugin. It lives for ever, and any thread may call any of its functions
/// at any time.
#[repr(C)]
#[derive(StableAbi)]
pub struct Host {
    /// First argument of every function.
    pub data: *const (),
    /// The least severe level that is wanted now.
    pub level: unsafe extern "C" fn(data: *const ()) -> u32,
    /// Writes one or more lines to the log. Levels are syslog's, 2 (critical) to 7 (debug), and [`TRACE`].
    pub log: unsafe extern "C" fn(data: *const (), level: u32, target: RStr<'_>, text: RStr<'_>),
    /// One of the operator's parameters: the text of a JSON string, or anything else as JSON text. The empty key gives
    /// the JSON object of all parameters. OK or END.
    pub parameter: unsafe extern "C" fn(data: *const (), key: RStr<'_>, out: &mut RStr<'static>) -> Status,
    /// A fact about the host, by a key of [`host_attribute`]. OK, END, UNSUPPORTED.
    pub attribute: unsafe extern "C" fn(data: *const (), key: u32, out: &mut RStr<'static>) -> Status,
    /// The table of this id, which lives for ever, or null.
    pub extension: unsafe extern "C" fn(data: *const (), id: RStr<'_>) -> *const (),
}

/// One request and the functions to answer it. It is valid until the call that it was passed to returns; in an async
/// run, until the future is dropped. Extensions of the host name an exchange by its `host`.
#[repr(C)]
#[derive(StableAbi)]
pub struct Exchange<'a> {
    /// The method as it came, `GET`.
    pub method: RStr<'a>,
    /// Path and query as they came.
    pub target: RStr<'a>,
    /// `target[..path_len]` is the path. After it comes nothing, or `?` and the query.
    pub path_len: usize,
    /// The whole body, or its beginning if `flags` has [`MORE_BODY`].
    pub body: RSlice<'a, u8>,
    /// [`MORE_BODY`] or 0.
    pub flags: u32,
    /// The version of HTTP: 10, 11, 20, 30.
    pub version: u32,
    /// First argument of every function in `ops`.
    pub host: *mut (),
    /// The functions.
    pub ops: &'a ExchangeOps,
}

/// The functions of an [`Exchange`].
///
/// THREADS: any thread may call any of them. `header`, `headers`, `attribute` and `state` may be called at the same
/// time. Of `read`, one call at a time. Of `respond` and `write` together, one call at a time, also while a `read`
/// waits.
#[repr(C)]
#[derive(StableAbi)]
pub struct ExchangeOps {
    /// The nth value of a header; case doesn't matter in the name. OK or END.
    pub header: unsafe extern "C" fn(
        host: *mut (),
        name: RStr<'_>,
        nth: usize,
        out: &mut RSlice<'static, u8>,
    ) -> Status,
    /// Writes up to `capacity` headers to `out`, from number `skip` on. Returns how many there are in all.
    pub headers:
        unsafe extern "C" fn(host: *mut (), skip: usize, out: *mut Header<'static>, capacity: usize) -> usize,
    /// A fact about the request, by a key of [`attribute`]. OK, END, UNSUPPORTED.
    pub attribute: unsafe extern "C" fn(host: *mut (), key: u32, out: &mut RStr<'static>) -> Status,
    /// OK, GONE or TIMEOUT, and the nanoseconds until the deadline (`u64::MAX`: there is none).
    pub state: unsafe extern "C" fn(host: *mut (), remaining: &mut u64) -> Status,
    /// The next piece of the body. A view is valid until the next `read`. May wait. OK, END, GONE, TOO_LARGE, TIMEOUT.
    pub read: unsafe extern "C" fn(host: *mut (), out: &mut Chunk) -> Status,
    /// Sends the head and the body: all of the body, or its beginning with [`MORE`]. Called once; only heads with a 1xx
    /// status, sent with `MORE`, may precede it. OK, GONE, INVALID, TOO_LARGE, TIMEOUT.
    pub respond: unsafe extern "C" fn(
        host: *mut (),
        status: u32,
        headers: RSlice<'_, Header<'_>>,
        body: Chunk,
        flags: u32,
    ) -> Status,
    /// Sends the next piece of the body without delay. Without [`MORE`], it is the last. May wait while the client is
    /// slow. OK, GONE, INVALID, TOO_LARGE, TIMEOUT.
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
    /// `key=value; …`, for people and for the message of a loader that refuses the plugin. Contains `panic=unwind` or
    /// `panic=abort`.
    pub build: RStr<'static>,
    /// Called once, before any `start`.
    pub init: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
    /// The caller sets `*context` to null. OK: `*context` is a Context. ERROR: `*context` has the error and perhaps a
    /// Context, and one `run` must follow. PANIC: no `run` may follow. If `*context` is not null afterwards, whatever
    /// the status, exactly one `stop` must follow.
    pub start:
        unsafe extern "C" fn(host: &'static Host, context: &mut *mut (), failure: &mut Failure) -> Status,
    /// Any thread, one call at a time for each Context. OK ends an answer that was not ended. Not OK before `respond`
    /// was called: the client gets 500. Not OK in the middle of an answer: the connection is broken off. After PANIC
    /// nothing but `stop` may be called with the Context.
    pub run: unsafe extern "C" fn(context: *mut (), exchange: &Exchange<'_>, failure: &mut Failure) -> Status,
    /// Destroys the Context, whatever it returns.
    pub stop: unsafe extern "C" fn(context: *mut (), failure: &mut Failure) -> Status,
    /// Called once, after the last `stop`, and nothing after it.
    pub retire: unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status,
    /// The table of this id, which lives for ever, or null. Any thread, at any time.
    #[sabi(last_prefix_field)]
    pub extension: unsafe extern "C" fn(id: RStr<'_>) -> *const (),
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "effe";
    const NAME: &'static str = "effe lambda";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

// SAFETY: the contract of `Host`: any thread may call any of its functions.
#[expect(unsafe_code, reason = "the table holds a pointer that its functions share between threads")]
unsafe impl Send for Host {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Host {}
// SAFETY: views, and functions that `ExchangeOps` lets any thread call.
#[expect(unsafe_code, reason = "an exchange may be used by any thread of a lambda")]
unsafe impl Send for Exchange<'_> {}
// SAFETY: as above. Calling the functions is unsafe, and `ExchangeOps` says which may be called at the same time.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Exchange<'_> {}

/// The size of every type and the offset of every field: a change to v1 doesn't compile.
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
