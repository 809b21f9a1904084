//! A plugin that is written against the frozen wire itself: every table is filled and every function called by hand, as
//! an author's crate did on the day of the freeze. It must load and run for ever.

use std::{
    fmt::Write,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use abi_stable::{
    library::{CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::{PrefixRefTrait, WithMetadata},
    std_types::{RResult, RSlice, RStr},
};
use effe_abi::raw::{
    Chunk, Exchange, Failure, Header, Host, Plugin, PluginRef, Status, attribute, host_attribute, status,
};

static TABLE: WithMetadata<Plugin> = WithMetadata::new(Plugin {
    flags: 0,
    info: RStr::from_str("{\"name\":\"frozen\",\"version\":\"1.0.0\"}"),
    build: RStr::from_str("effe-abi=1.0.0; panic=unwind"),
    init,
    start,
    run,
    stop,
    retire,
    extension,
});

extern "C" fn root_module() -> RootModuleResult {
    // SAFETY: the header below says of which type it is.
    RResult::ROk(unsafe { PluginRef(TABLE.static_as_prefix()).to_prefix_ref().cast() })
}

// SAFETY: the symbol that a loader looks for, and no other crate defines it.
#[unsafe(no_mangle)]
static _1as_0lib_1header_0root_bmodule_bloader: LibHeader =
    // SAFETY: `root_module` erases a `PluginRef`.
    unsafe { LibHeader::from_constructor::<PluginRef>(root_module, CheckTypeLayout::Yes) };

static STARTED: AtomicU64 = AtomicU64::new(0);
static STOPPED: AtomicU64 = AtomicU64::new(0);

/// A Context: its number, and the host that it came from.
struct Context {
    number: u64,
    host: &'static Host,
}

fn say(host: &Host, text: &str) {
    // SAFETY: the host's promise: any thread, at any time.
    unsafe { (host.log)(host.data, 6, "frozen".into(), text.into()) }
}

unsafe extern "C" fn init(host: &'static Host, failure: &mut Failure) -> Status {
    let mut found = RStr::from_str("");
    // SAFETY: as in `say`.
    if unsafe { (host.parameter)(host.data, "fail".into(), &mut found) } == status::OK {
        failure.level = 3;
        failure.text = "told to fail".to_owned().into();
        return status::ERROR;
    }
    // SAFETY: as in `say`.
    let known = unsafe { (host.attribute)(host.data, host_attribute::SOFTWARE, &mut found) };
    say(host, &format!("init: {known} {found}"));
    status::OK
}

unsafe extern "C" fn start(host: &'static Host, context: &mut *mut (), _: &mut Failure) -> Status {
    let number = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
    *context = Box::into_raw(Box::new(Context { number, host })).cast();
    status::OK
}

unsafe extern "C" fn run(context: *mut (), exchange: &Exchange<'_>, failure: &mut Failure) -> Status {
    // SAFETY: `start` made it, and it is in one call at a time.
    let context = unsafe { &*context.cast::<Context>() };
    if exchange.target.as_str() == "/fail" {
        failure.level = 4;
        failure.text = "run fails".to_owned().into();
        return status::ERROR;
    }
    let mut value = RSlice::EMPTY;
    // SAFETY: the exchange's promise, while this call lasts; so for all below.
    let header = unsafe { (exchange.ops.header)(exchange.host, "X-Ask".into(), 0, &mut value) };
    let mut id = RStr::from_str("");
    // SAFETY: as above.
    unsafe { (exchange.ops.attribute)(exchange.host, attribute::REQUEST_ID, &mut id) };
    let mut page = [Header::EMPTY; 4];
    // SAFETY: as above; there is room for four.
    let n_headers = unsafe { (exchange.ops.headers)(exchange.host, 0, page.as_mut_ptr(), page.len()) };
    let mut left = 0;
    // SAFETY: as above.
    let state = unsafe { (exchange.ops.state)(exchange.host, &mut left) };
    let mut text = String::new();
    let _ = write!(
        text,
        "{} {} {} {} {header}:{} {n_headers} {state} {} ",
        context.number,
        exchange.method,
        exchange.target,
        exchange.path_len,
        String::from_utf8_lossy(value.as_slice()),
        id.len() > 0,
    );
    let mut body = exchange.body.to_vec();
    let mut rest = Chunk::EMPTY;
    // SAFETY: as above; the whole body is here, so there is no more.
    assert_eq!(unsafe { (exchange.ops.read)(exchange.host, &mut rest) }, status::END);
    let mut bytes = text.into_bytes();
    bytes.append(&mut body);
    let headers = [Header { name: "x-frozen".into(), value: RSlice::from_slice(b"1") }];
    // SAFETY: as above; views live as long as the call.
    let begun = unsafe {
        (exchange.ops.respond)(exchange.host, 202, headers[..].into(), Chunk::view(&bytes), effe_abi::raw::MORE)
    };
    if begun != status::OK {
        return begun;
    }
    let owned = Box::new(b"!".to_vec());
    let (ptr, len) = (owned.as_ptr(), owned.len());
    let owner = Box::into_raw(owned).cast();
    // SAFETY: as above; the owner is released by `release`, once.
    unsafe { (exchange.ops.write)(exchange.host, Chunk { ptr, len, owner, release: Some(release) }, 0) }
}

unsafe extern "C" fn release(owner: *mut (), _: *const u8, _: usize) {
    // SAFETY: `run` made it, and it is released once.
    drop(unsafe { Box::from_raw(owner.cast::<Vec<u8>>()) });
}

unsafe extern "C" fn stop(context: *mut (), _: &mut Failure) -> Status {
    // SAFETY: `start` made it, and it is stopped once.
    let context = unsafe { Box::from_raw(context.cast::<Context>()) };
    STOPPED.fetch_add(1, Ordering::Relaxed);
    say(context.host, &format!("stop: {}", context.number));
    status::OK
}

unsafe extern "C" fn retire(host: &'static Host, _: &mut Failure) -> Status {
    let (started, stopped) = (STARTED.load(Ordering::Relaxed), STOPPED.load(Ordering::Relaxed));
    say(host, &format!("retire: {started} started, {stopped} stopped"));
    status::OK
}

unsafe extern "C" fn extension(_: RStr<'_>) -> *const () {
    ptr::null()
}
