//! Panics and `log` records of a lambda, on their way to the host's log.
//!
//! A plugin has its own copies of std, its panic hook and the `log` crate, so Init installs a hook and a logger there.
//! In a program that has both the lambda and the host in it (a test, a program with a linked-in lambda), they are the
//! program's: there, only what happens inside a call of the lambda counts as the lambda's.
//!
//! Catching a panic is left to `fence.rs`, and finding the calls that led to it to `backtrace.rs`.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, PanicHookInfo},
    sync::{
        Once, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{backtrace, calls::HostRef, error::Level, raw};

thread_local! {
    /// The call of the lambda that this thread is in.
    static CURRENT: Cell<Call> = const { Cell::new(Call { host: None, panicked: false }) };
    /// The hook's text for the panic that this thread is unwinding from.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A call of the lambda; `host` is `None` outside of any.
#[derive(Clone, Copy)]
struct Call {
    host: Option<HostRef>,
    /// Whether `LAST_PANIC` was written during this call.
    panicked: bool,
}

/// Whether this image was opened as a plugin. Then all panics and records in it are the lambda's, on any thread.
static PLUGIN: AtomicBool = AtomicBool::new(false);
/// The host of a plugin, for threads that are in no call.
static HOST: OnceLock<HostRef> = OnceLock::new();

/// Notes that this image was opened as a plugin.
pub(crate) fn is_plugin() {
    PLUGIN.store(true, Ordering::Relaxed);
}

/// Installs the panic hook and the logger. Only the first call does something.
pub(crate) fn install(host: HostRef) {
    static INSTALLED: Once = Once::new();
    if PLUGIN.load(Ordering::Relaxed) {
        HOST.get_or_init(|| host);
    }
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| match current() {
            Some(host) => hook(host, info),
            None => previous(info),
        }));
        // Fails if the program has a logger of its own, which then serves the lambda, too.
        if log::set_logger(&HostLogger).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
}

/// Makes a call of the lambda, and marks this thread as being inside it. `call` must not unwind.
#[inline]
pub(crate) fn in_call<T>(host: HostRef, call: impl FnOnce() -> T) -> T {
    CURRENT.with(|current| {
        let previous = current.replace(Call { host: Some(host), panicked: false });
        let value = call();
        if current.replace(previous).panicked {
            // The author may have caught that panic. Its text must not be taken for that of a later panic that no hook
            // of this crate sees.
            let _ = last_panic();
        }
        value
    })
}

/// The text of a panic that the fence has caught. Logs it if this crate's hook has not: if the author has installed
/// another hook, or has called `resume_unwind`.
pub(crate) fn describe_panic(host: HostRef, payload: &(dyn Any + Send)) -> String {
    if let Some(text) = last_panic() {
        return text;
    }
    let text = format!("panicked: {}", message(payload));
    host.log(Level::Critical as u32, "panic", &text);
    text
}

/// Takes the hook's text. There is none if the thread is ending and its thread-local variables are gone.
fn last_panic() -> Option<String> {
    LAST_PANIC.try_with(RefCell::take).ok().flatten()
}

/// The host of the call that this thread is in, or of the plugin.
pub(crate) fn current() -> Option<HostRef> {
    CURRENT.try_with(Cell::get).ok().and_then(|call| call.host).or_else(|| HOST.get().copied())
}

fn hook(host: HostRef, info: &PanicHookInfo<'_>) {
    let mut text = match info.location() {
        Some(place) => format!("panicked at {place}: {}", message(info.payload())),
        None => format!("panicked: {}", message(info.payload())),
    };
    let call = CURRENT.try_with(Cell::get).ok().filter(|call| call.host.is_some());
    if let Some(call) = call {
        let _ = CURRENT.try_with(|current| current.set(Call { panicked: true, ..call }));
        let _ = LAST_PANIC.try_with(|last| last.replace(Some(text.clone())));
    } else if let Some(name) = thread::current().name() {
        text = format!("thread {name} {text}");
    }
    if let Some(calls) = backtrace::of_panic() {
        text = format!("{text}\n{calls}");
    }
    host.log(Level::Critical as u32, "panic", &text);
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

/// The logger that `install` sets.
struct HostLogger;

impl log::Log for HostLogger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        current().is_some_and(|host| severity(metadata.level()) <= host.level())
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(host) = current() else { return };
        let level = severity(record.level());
        if level > host.level() {
            return;
        }
        match record.args().as_str() {
            Some(text) => host.log(level, record.target(), text),
            None => host.log(level, record.target(), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

fn severity(level: log::Level) -> u32 {
    match level {
        log::Level::Error => Level::Error as u32,
        log::Level::Warn => Level::Warning as u32,
        log::Level::Info => Level::Info as u32,
        log::Level::Debug => Level::Debug as u32,
        log::Level::Trace => raw::TRACE,
    }
}
