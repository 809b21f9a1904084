//! From the author's trait to the wire: one `extern "C"` entry for each step of the life cycle, and the macro that puts
//! them into the table that a library exports.
//!
//! The entries of async lambdas are in `async_entries.rs`. Catching a panic is left to `fence.rs`, Info to `info.rs`,
//! and the notes in the file to `note.rs`.

use std::{marker::PhantomData, ptr, task::Poll};

use abi_stable::{
    library::{CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::{PrefixRefTrait, WithMetadata},
    std_types::{RResult, RStr},
};

use crate::{
    c_root::{self, Root, Text},
    calls::{ExchangeRef, HostRef},
    extensions::{READY, Ready},
    fence::{fence, verdict},
    lambda::{Lambda, StartError},
    params::Params,
    raw::{self, Failure, Plugin, PluginRef, Status},
    report,
    request::Request,
    response::{Delivery, Response, Scratch, Terms},
};

/// Makes a type that implements [`Lambda`] the lambda of this crate.
///
/// | form | what it takes |
/// |---|---|
/// | `export!(Hello);` | a type that implements [`Lambda`] |
/// | `export!(async Hello);` | a type that implements `AsyncLambda`; needs the feature `async` |
/// | `export!(tower app);` | an `async fn app(Params) -> Result<impl Service>`, where the service may be an axum `Router`; needs the feature `tower` |
/// | `export!(event handler);` | an `async fn handler(T) -> Result<R>` over serde's types; needs the feature `aws` |
/// | `export!(lambda_http handler);` | a handler that was written for the crate `lambda_http`; needs the feature of this name |
/// | `export!(lambda_runtime handler);` | a handler that was written for the crate `lambda_runtime`; needs the feature of this name |
///
/// Info comes from Cargo.toml: name, version, description, authors, license and repository, without those that are
/// empty. `export!(Hello, info = "{…}");` or `info = include_str!("info.json")` gives any JSON object instead.
///
/// The macro defines `pub static LAMBDA: effe_abi::Linked`, for tests and for programs that link the lambda in, and the
/// two symbols that a cdylib exports, by either of which a loader finds it. Info and the build record also lie in an ELF
/// note, from which tools read them without opening the library. A crate can have one lambda.
#[macro_export]
macro_rules! export {
    (@define $info:expr, $table:expr) => {
        /// The lambda of this crate, for tests and for programs that link it in.
        pub static LAMBDA: $crate::Linked = {
            #[cfg(not(panic = "unwind"))]
            ::core::compile_error!(
                "a lambda must be built with panic = \"unwind\": a panic that aborts ends the server for every client"
            );
            const INFO: &str = $info;
            const BUILD: &str = $crate::__private::BUILD;
            const _: () = ::core::assert!($crate::__private::is_json_object(INFO), "info is not a JSON object");
            const ENTRIES: $crate::raw::Plugin = $table;
            static PLUGIN: $crate::__private::Table = $crate::__private::table_of(ENTRIES);

            // The root that loaders look for first.
            #[unsafe(no_mangle)]
            static effe_lambda_v1: $crate::c_root::Root = $crate::__private::root(ENTRIES, INFO, BUILD);
            // The root that older loaders look for.
            extern "C" fn root_module() -> $crate::__private::RootModuleResult {
                $crate::__private::root_module(&LAMBDA)
            }
            #[unsafe(no_mangle)]
            static _1as_0lib_1header_0root_bmodule_bloader: $crate::__private::LibHeader =
                $crate::__private::header(root_module);
            // What tools read from the file.
            #[cfg(target_os = "linux")]
            #[used]
            #[unsafe(link_section = ".note.effe")]
            static NOTES: $crate::__private::Notes<
                { $crate::__private::note_len(INFO) },
                { $crate::__private::note_len(BUILD) },
            > = $crate::__private::notes(INFO, BUILD);

            $crate::__private::linked(&PLUGIN, ::core::module_path!())
        };
    };
    (@cargo) => {{
        const FIELDS: &[$crate::__private::Field] = &[
            ("name", ::core::env!("CARGO_PKG_NAME")),
            ("version", ::core::env!("CARGO_PKG_VERSION")),
            ("description", ::core::env!("CARGO_PKG_DESCRIPTION")),
            ("authors", ::core::env!("CARGO_PKG_AUTHORS")),
            ("license", ::core::env!("CARGO_PKG_LICENSE")),
            ("repository", ::core::env!("CARGO_PKG_REPOSITORY")),
        ];
        const GIVEN: ([$crate::__private::Field; 6], usize) = $crate::__private::given(FIELDS);
        const BYTES: [u8; $crate::__private::object_len(GIVEN.0.split_at(GIVEN.1).0)] =
            $crate::__private::write_object(GIVEN.0.split_at(GIVEN.1).0);
        $crate::__private::text(&BYTES)
    }};
    (async $lambda:ty $(,)?) => {
        $crate::export!(async $lambda, info = $crate::export!(@cargo));
    };
    (async $lambda:ty, info = $info:expr $(,)?) => {
        $crate::__with_async! {
            $crate::export!(@define $info, $crate::__private::async_table::<$lambda>(INFO, BUILD));
        }
    };
    (tower $app:path $(,)?) => {
        $crate::export!(tower $app, info = $crate::export!(@cargo));
    };
    (tower $app:path, info = $info:expr $(,)?) => {
        $crate::__with_tower! {
            $crate::export!(@define $info, $crate::__private::tower_table($app, INFO, BUILD));
        }
    };
    (event $handler:path $(,)?) => {
        $crate::export!(event $handler, info = $crate::export!(@cargo));
    };
    (event $handler:path, info = $info:expr $(,)?) => {
        $crate::__with_aws! {
            $crate::export!(@define $info, $crate::__private::event_table($handler, INFO, BUILD));
        }
    };
    (lambda_http $handler:path $(,)?) => {
        $crate::export!(lambda_http $handler, info = $crate::export!(@cargo));
    };
    (lambda_http $handler:path, info = $info:expr $(,)?) => {
        $crate::__with_lambda_http! {
            $crate::export!(@define $info, $crate::__private::http_table($handler, INFO, BUILD));
        }
    };
    (lambda_runtime $handler:path $(,)?) => {
        $crate::export!(lambda_runtime $handler, info = $crate::export!(@cargo));
    };
    (lambda_runtime $handler:path, info = $info:expr $(,)?) => {
        $crate::__with_lambda_runtime! {
            $crate::export!(@define $info, $crate::__private::runtime_table($handler, INFO, BUILD));
        }
    };
    ($lambda:ty $(,)?) => {
        $crate::export!($lambda, info = $crate::export!(@cargo));
    };
    ($lambda:ty, info = $info:expr $(,)?) => {
        $crate::export!(@define $info, $crate::__private::table::<$lambda>(INFO, BUILD));
    };
}

/// What it is given, if the feature is on; whether it is, only this crate knows.
#[cfg(feature = "async")]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_async {
    ($($items:item)*) => { $($items)* };
}

#[cfg(not(feature = "async"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_async {
    ($($items:item)*) => {
        ::core::compile_error!(
            "`export!(async …)` needs the feature `async` of effe-abi: cargo add effe-abi --features async"
        );
    };
}

/// As `__with_async`.
#[cfg(feature = "tower")]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_tower {
    ($($items:item)*) => { $($items)* };
}

#[cfg(not(feature = "tower"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_tower {
    ($($items:item)*) => {
        ::core::compile_error!(
            "`export!(tower …)` needs the feature `tower` of effe-abi: cargo add effe-abi --features tower"
        );
    };
}

/// As `__with_async`.
#[cfg(feature = "aws")]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_aws {
    ($($items:item)*) => { $($items)* };
}

#[cfg(not(feature = "aws"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_aws {
    ($($items:item)*) => {
        ::core::compile_error!(
            "`export!(event …)` needs the feature `aws` of effe-abi: cargo add effe-abi --features aws"
        );
    };
}

/// As `__with_async`.
#[cfg(feature = "lambda_http")]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_lambda_http {
    ($($items:item)*) => { $($items)* };
}

#[cfg(not(feature = "lambda_http"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_lambda_http {
    ($($items:item)*) => {
        ::core::compile_error!(
            "`export!(lambda_http …)` needs the feature `lambda_http` of effe-abi: \
             cargo add effe-abi --features lambda_http"
        );
    };
}

/// As `__with_async`.
#[cfg(feature = "lambda_runtime")]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_lambda_runtime {
    ($($items:item)*) => { $($items)* };
}

#[cfg(not(feature = "lambda_runtime"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __with_lambda_runtime {
    ($($items:item)*) => {
        ::core::compile_error!(
            "`export!(lambda_runtime …)` needs the feature `lambda_runtime` of effe-abi: \
             cargo add effe-abi --features lambda_runtime"
        );
    };
}

/// A lambda as a Rust item; `export!` defines it as `LAMBDA`.
pub struct Linked {
    plugin: PluginRef,
    module: &'static str,
}

impl Linked {
    /// The table that a host calls.
    pub fn plugin(&'static self) -> PluginRef {
        self.plugin
    }

    /// The name of its crate, as it stands in the target of the crate's `log` records.
    pub fn crate_name(&self) -> &'static str {
        self.module.split("::").next().unwrap_or(self.module)
    }
}

/// A plugin's table, as a static holds it.
pub type Table = WithMetadata<Plugin>;

/// The build record: what a loader that refuses the plugin can name.
pub const BUILD: &str = concat!(
    "effe-abi=",
    env!("CARGO_PKG_VERSION"),
    "; rustc=",
    env!("EFFE_RUSTC"),
    "; target=",
    env!("EFFE_TARGET"),
    "; panic=unwind"
);

/// Moves the fields that are not empty to the front, and says how many they are.
pub const fn given(fields: &[crate::info::Field]) -> ([crate::info::Field; 6], usize) {
    let mut out = [("", ""); 6];
    let mut n = 0;
    let mut at = 0;
    while at < fields.len() {
        if !fields[at].1.is_empty() {
            out[n] = fields[at];
            n += 1;
        }
        at += 1;
    }
    (out, n)
}

/// The table of `L`.
pub const fn table<L: Lambda>(info: &'static str, build: &'static str) -> Plugin {
    Plugin {
        flags: L::OPTIONS.flags(),
        info: RStr::from_str(info),
        build: RStr::from_str(build),
        init: init::<L>,
        start: start::<L>,
        run: run::<L>,
        stop: stop::<L>,
        retire: retire::<L>,
        extension: extension::<L>,
    }
}

/// The table in the form that abi_stable finds.
pub const fn table_of(plugin: Plugin) -> Table {
    WithMetadata::new(plugin)
}

/// The table in the form that needs no abi_stable. `info` and `build` are those of the table.
pub const fn root(plugin: Plugin, info: &'static str, build: &'static str) -> Root {
    Root {
        size: size_of::<Root>() as u32,
        version: c_root::VERSION,
        flags: plugin.flags,
        info: Text::new(info),
        build: Text::new(build),
        init: Some(plugin.init),
        start: Some(plugin.start),
        run: Some(plugin.run),
        stop: Some(plugin.stop),
        retire: Some(plugin.retire),
        extension: Some(plugin.extension),
    }
}

/// The Rust item for a table that is in `module`.
pub const fn linked(table: &'static Table, module: &'static str) -> Linked {
    Linked { plugin: PluginRef(table.static_as_prefix()), module }
}

/// Gives the table to a loader that has opened the library.
#[expect(unsafe_code, reason = "the type of the root module is erased on the wire")]
pub fn root_module(linked: &'static Linked) -> RootModuleResult {
    report::is_plugin();
    // SAFETY: `header` says which type it has, and `LibHeader` casts it back to that.
    RResult::ROk(unsafe { linked.plugin.to_prefix_ref().cast() })
}

/// The header by which a loader finds the table.
#[expect(unsafe_code, reason = "abi_stable can't see what the constructor erases")]
pub const fn header(constructor: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: the only constructor is `root_module` above, which erases a `PluginRef`.
    unsafe { LibHeader::from_constructor::<PluginRef>(constructor, CheckTypeLayout::Yes) }
}

/// What a Context pointer points to.
struct Slot<L> {
    host: HostRef,
    started: std::result::Result<L, StartError<L>>,
    scratch: Scratch,
    terms: Terms,
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn init<L: Lambda>(host: &'static raw::Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `init`.
    let host = unsafe { HostRef::new(host) };
    report::install(host);
    fence(host, failure, || Poll::Ready(verdict(L::init(Params::new(host)))))
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn start<L: Lambda>(
    host: &'static raw::Host,
    context: &mut *mut (),
    failure: &mut Failure,
) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `start`.
    let host = unsafe { HostRef::new(host) };
    fence(host, failure, || {
        let started = L::start(Params::new(host));
        let level = started.as_ref().err().map(StartError::level);
        let delivery = if L::OPTIONS.streams_response() { Delivery::Waiting } else { Delivery::Whole };
        let terms = Terms::of(host, delivery, L::OPTIONS.may_answer_early());
        let slot = Slot { host, started, scratch: Scratch::new(host, L::OPTIONS.may_upgrade()), terms };
        // Stored before the author's `Display` is called, which may panic: the loader stops a Context that is not null.
        let slot = Box::into_raw(Box::new(slot));
        *context = slot.cast();
        // SAFETY: just made, and the loader doesn't use it before this entry returns.
        let started = unsafe { &(*slot).started };
        Poll::Ready(match (started, level) {
            (Err(failed), Some(level)) => Err((level, failed.to_string())),
            _ => Ok(()),
        })
    })
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn run<L: Lambda>(
    context: *mut (),
    exchange: &raw::Exchange<'_>,
    failure: &mut Failure,
) -> Status {
    // SAFETY: `start` made it, and the loader uses a Context in one call at a time.
    let slot = unsafe { &mut *context.cast::<Slot<L>>() };
    fence(slot.host, failure, || {
        // SAFETY: the loader's promise, by the wire's contract of `run`; `Request` and `Response` keep the rules about
        // calls at the same time.
        let exchange = unsafe { ExchangeRef::new(exchange) };
        // SAFETY: it only goes to `Request::new`, whose condition holds: the request is dropped in this function, and
        // Run gets no more than a reference.
        let lent = unsafe { std::mem::transmute::<ExchangeRef<'_>, ExchangeRef<'static>>(exchange) };
        // SAFETY: as above.
        let request = unsafe { Request::new(lent) };
        let mut response = Response::new(exchange, &mut slot.scratch, slot.terms);
        let outcome = L::run(slot.started.as_mut(), &request, &mut response);
        Poll::Ready(verdict(response.finish(outcome)))
    })
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn stop<L: Lambda>(context: *mut (), failure: &mut Failure) -> Status {
    // SAFETY: `start` made it, and the loader stops a Context once.
    let slot = unsafe { Box::from_raw(context.cast::<Slot<L>>()) };
    fence(slot.host, failure, || {
        let context = match slot.started {
            Ok(context) => Some(context),
            Err(failed) => failed.into_context(),
        };
        Poll::Ready(verdict(context.map_or(Ok(()), L::stop)))
    })
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn retire<L: Lambda>(host: &'static raw::Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `retire`.
    let host = unsafe { HostRef::new(host) };
    fence(host, failure, || Poll::Ready(verdict(L::retire())))
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn ready<L: Lambda>(host: &'static raw::Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the contract of `Ready::ready`.
    let host = unsafe { HostRef::new(host) };
    fence(host, failure, || Poll::Ready(verdict(L::ready())))
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn extension<L: Lambda>(id: RStr<'_>) -> *const () {
    match id.as_str() {
        READY => ptr::from_ref(Extensions::<L>::READY).cast(),
        _ => ptr::null(),
    }
}

/// The lambda's tables beyond v1.
struct Extensions<L>(PhantomData<L>);

impl<L: Lambda> Extensions<L> {
    const READY: &'static Ready = &Ready { size: size_of::<Ready>() as u32, version: 1, ready: ready::<L> };
}
