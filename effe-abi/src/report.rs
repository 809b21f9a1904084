//! What a lambda says outside its return values, on its way to the host: panics and `log` records.
//!
//! A plugin's std, its panic hook and its `log` are copies of its own, so Init installs ours there. In a program
//! that lambda and host share (a test, a linked-in lambda) they are the program's: then only what happens inside a
//! call of the lambda is the lambda's.

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
    /// The call that this thread is in.
    static CURRENT: Cell<Call> = const { Cell::new(Call { host: None, panicked: false }) };
    /// What the hook said of the panic that this thread is unwinding from.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A call of the lambda's.
#[derive(Clone, Copy)]
struct Call {
    host: Option<HostRef>,
    /// Whether `LAST_PANIC` is to be looked at.
    panicked: bool,
}

/// Whether this image was opened as a plugin, so that all of its threads are the lambda's.
static PLUGIN: AtomicBool = AtomicBool::new(false);
/// The host of a plugin, for threads outside any call.
static HOST: OnceLock<HostRef> = OnceLock::new();

/// Says that this image is a plugin.
pub(crate) fn is_plugin() {
    PLUGIN.store(true, Ordering::Relaxed);
}

/// Makes panics and `log` records of this image reach the host. The first call counts.
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
        // Fails where the program has a logger of its own, which then serves the lambda too.
        if log::set_logger(&Forward).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
}

/// Marks this thread as being inside a call of the lambda, until dropped.
pub(crate) struct Inside {
    outer: Call,
}

impl Inside {
    pub(crate) fn enter(host: HostRef) -> Inside {
        Inside { outer: CURRENT.replace(Call { host: Some(host), panicked: false }) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if CURRENT.replace(self.outer).panicked {
            // A panic that the author caught is not to be blamed for a later one that no hook sees.
            let _ = last_panic();
        }
    }
}

/// What a caught panic said. If no hook of ours has logged it (the author's own hook, `resume_unwind`), this does.
pub(crate) fn describe_panic(host: HostRef, payload: &(dyn Any + Send)) -> String {
    if let Some(text) = last_panic() {
        return text;
    }
    let text = format!("panicked: {}", message(payload));
    host.log(Level::Critical as u32, "panic", &text);
    text
}

/// What the hook said; nothing where the thread is so near to its end that its variables are gone.
fn last_panic() -> Option<String> {
    LAST_PANIC.try_with(RefCell::take).ok().flatten()
}

fn current() -> Option<HostRef> {
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

struct Forward;

impl log::Log for Forward {
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
