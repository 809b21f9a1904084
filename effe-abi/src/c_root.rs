//! The second root of a plugin, which needs no abi_stable: the data symbol `effe_lambda_v1`, a plain struct that any
//! language can write. `include/effe.h` is the same for C, and says what everything means.
//!
//! Its entries are those of [`raw::Plugin`](crate::raw::Plugin), with the same signatures. A loader looks for this root
//! first, and offers [`FailHost`](crate::extensions::FailHost) to whoever has it: to a plugin that was found here, a
//! [`Failure`] is opaque, so that a loader may put there what it likes.
//!
//! Nothing here ever changes, as in [`raw`](crate::raw). Authors don't need this module; loaders are written against it.

use abi_stable::std_types::RStr;

use crate::raw::{Exchange, Failure, Host, Status};

/// The name of the symbol that holds the [`Root`].
pub const SYMBOL: &str = "effe_lambda_v1";

/// [`Root::version`].
pub const VERSION: u32 = 1;

/// Bits of [`Root::flags`] that a loader may ignore if it doesn't know them. For any other, it refuses the plugin.
pub const OPTIONAL_FLAGS: u64 = 0xffff_ffff;

/// The name of the ELF notes in the section `.note.effe`, with its NUL. Their descriptions are texts that end with a
/// NUL, which is counted.
pub const NOTE_NAME: [u8; 5] = *b"effe\0";
/// The type of the note whose text is Info.
pub const NOTE_INFO: u32 = 1;
/// The type of the note whose text is the build record.
pub const NOTE_BUILD: u32 = 2;

/// A text in UTF-8, as C has it: nothing has checked it yet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    /// The first byte. It may be null if `len` is 0.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

impl Text {
    /// A view of `text`.
    pub const fn new(text: &'static str) -> Text {
        Text { ptr: text.as_ptr(), len: text.len() }
    }
}

/// An entry of [`Plugin`](crate::raw::Plugin) that gets the host: `init`, `retire`.
pub type HostEntry = unsafe extern "C" fn(host: &'static Host, failure: &mut Failure) -> Status;
/// `start` of [`Plugin`](crate::raw::Plugin).
pub type StartEntry =
    unsafe extern "C" fn(host: &'static Host, context: &mut *mut (), failure: &mut Failure) -> Status;
/// `run` of [`Plugin`](crate::raw::Plugin).
pub type RunEntry =
    unsafe extern "C" fn(context: *mut (), exchange: &Exchange<'_>, failure: &mut Failure) -> Status;
/// `stop` of [`Plugin`](crate::raw::Plugin).
pub type StopEntry = unsafe extern "C" fn(context: *mut (), failure: &mut Failure) -> Status;
/// `extension` of [`Plugin`](crate::raw::Plugin).
pub type ExtensionEntry = unsafe extern "C" fn(id: RStr<'_>) -> *const ();

/// What a plugin exports as [`SYMBOL`]. From `flags` on it is laid out as [`Plugin`](crate::raw::Plugin) is.
#[repr(C)]
pub struct Root {
    /// `size_of::<Root>()`, as its maker knows it.
    pub size: u32,
    /// [`VERSION`]
    pub version: u32,
    /// As [`Plugin::flags`](crate::raw::Plugin).
    pub flags: u64,
    /// A JSON object.
    pub info: Text,
    /// As [`Plugin::build`](crate::raw::Plugin), with `panic=none` in a language that has no panics.
    pub build: Text,
    /// None of the entries is null in a plugin that keeps the contract.
    pub init: Option<HostEntry>,
    /// As above; so are all that follow.
    pub start: Option<StartEntry>,
    /// As above.
    pub run: Option<RunEntry>,
    /// As above.
    pub stop: Option<StopEntry>,
    /// As above.
    pub retire: Option<HostEntry>,
    /// As above.
    pub extension: Option<ExtensionEntry>,
}

// SAFETY: texts that live for ever and never change, and functions that `Plugin` lets any thread call.
#[expect(unsafe_code, reason = "the root is a static of the plugin")]
unsafe impl Sync for Root {}

/// The size of every type and the offset of every field: a change doesn't compile.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;

    use crate::raw::Plugin;

    assert!(size_of::<Text>() == 16 && offset_of!(Text, len) == 8);
    assert!(size_of::<Root>() == 8 + size_of::<Plugin>() && offset_of!(Root, version) == 4);
    assert!(offset_of!(Root, flags) == 8 && offset_of!(Root, info) == 8 + offset_of!(Plugin, info));
    assert!(offset_of!(Root, build) == 8 + offset_of!(Plugin, build));
    assert!(offset_of!(Root, init) == 8 + offset_of!(Plugin, init));
    assert!(offset_of!(Root, start) == 8 + offset_of!(Plugin, start));
    assert!(offset_of!(Root, run) == 8 + offset_of!(Plugin, run));
    assert!(offset_of!(Root, stop) == 8 + offset_of!(Plugin, stop));
    assert!(offset_of!(Root, retire) == 8 + offset_of!(Plugin, retire));
    assert!(offset_of!(Root, extension) == 8 + offset_of!(Plugin, extension));
};
