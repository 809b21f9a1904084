//! A host in the test's own process, and the calls of the lambda's table.
//!
//! This file owns the life cycle: what is called in which order. The futures of an async lambda are left to
//! `polled.rs`.

use std::{
    collections::BTreeMap,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use abi_stable::std_types::RStr;

use super::{exchange, outcome::Outcome, polled};
use crate::{
    error::Level,
    export::Linked,
    extensions::{
        ASYNC, AsyncPlugin, EARLY, EarlyHost, FAIL, PROCESS, READY, Ready, SPAWN, SpawnHost, TRAILERS,
        TrailersHost, UPGRADE,
    },
    fail_host,
    raw::{self, Exchange, Failure, Host, PluginRef, Status, host_attribute, plugin_flags, status},
};

/// A lambda and its host. The host is leaked, because the wire promises that it lives for ever.
#[derive(Clone)]
pub(super) struct Hosted {
    plugin: PluginRef,
    host: &'static Host,
    data: &'static Data,
    /// The lambda's async entries, if it is async.
    entries: Option<&'static AsyncPlugin>,
}

struct Data {
    parameters: BTreeMap<String, String>,
    /// All parameters, as the text of a JSON object.
    object: String,
    log: Mutex<Vec<(Level, String)>>,
    offers: Offers,
}

/// The tables of the host that tests choose.
#[derive(Clone, Copy)]
pub(super) struct Offers {
    pub(super) spawn: &'static SpawnHost,
    /// `None`, as in an older host: answers don't go out early.
    pub(super) early: Option<&'static EarlyHost>,
    /// `None`, as in an older host: there are no trailers.
    pub(super) trailers: Option<&'static TrailersHost>,
}

impl Offers {
    /// Those of a host of today.
    pub(super) const ALL: Offers = Offers {
        spawn: &exchange::SPAWN_OPS,
        early: Some(&exchange::EARLY_OPS),
        trailers: Some(&exchange::TRAILERS_OPS),
    };
}

impl Hosted {
    pub(super) fn new(
        lambda: &'static Linked,
        parameters: BTreeMap<String, String>,
        offers: Offers,
    ) -> Hosted {
        let members = parameters.iter().map(|(key, value)| format!("{}:{}", quote(key), quote(value)));
        let object = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let data = Data { parameters, object, log: Mutex::default(), offers };
        let data: &'static Data = Box::leak(Box::new(data));
        let host = Box::leak(Box::new(Host {
            data: ptr::from_ref(data).cast(),
            level,
            log,
            parameter,
            attribute,
            extension,
        }));
        let plugin = lambda.plugin();
        Hosted { plugin, host, data, entries: polled::find(plugin) }
    }

    pub(super) fn info(&self) -> &'static str {
        self.plugin.info().as_str()
    }

    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn init(&self) -> Outcome {
        let mut failure = Failure::new();
        // SAFETY: the host above keeps the wire's promises; called once, before any start.
        let status = unsafe { (self.plugin.init())(self.host, &mut failure) };
        self.data.outcome(status, failure)
    }

    /// A Context, unless Start panicked; and the text of its error or panic.
    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn start(&self, stopped: &Arc<AtomicUsize>) -> (Option<Context>, Option<String>) {
        let (mut context, mut failure) = (ptr::null_mut(), Failure::new());
        let status = match self.entries {
            // SAFETY: as in `init`, which has been called.
            Some(entries) => unsafe { polled::start(entries, self.host, &mut context, &mut failure) },
            // SAFETY: as above.
            None => unsafe { (self.plugin.start())(self.host, &mut context, &mut failure) },
        };
        let failed = match self.data.outcome(status, failure) {
            Outcome::Ok => None,
            Outcome::Error(text) | Outcome::Panic(text) => Some(text),
        };
        let stopped = Arc::clone(stopped);
        // What is not null must be stopped, whatever the status.
        let context = (!context.is_null()).then(|| Context { hosted: self.clone(), context, stopped });
        if status == status::PANIC { (None, failed) } else { (context, failed) }
    }

    /// Asks the lambda whether it can serve.
    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn ready(&self) -> Outcome {
        // SAFETY: any thread, at any time.
        let table = unsafe { (self.plugin.extension())(READY.into()) };
        // SAFETY: the table of this id is such a one and lives for ever, or is null.
        let Some(table) = (unsafe { table.cast::<Ready>().as_ref() }) else { return Outcome::Ok };
        let mut failure = Failure::new();
        // SAFETY: as in `init`, which has been called; `retire` has not.
        let status = unsafe { (table.ready)(self.host, &mut failure) };
        self.data.outcome(status, failure)
    }

    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn retire(&self) {
        let mut failure = Failure::new();
        // SAFETY: as in `init`; the caller has stopped every Context and calls nothing after it.
        let status = unsafe { (self.plugin.retire())(self.host, &mut failure) };
        self.data.outcome(status, failure);
    }

    pub(super) fn log(&self) -> Vec<(Level, String)> {
        self.data.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Data {
    /// What an entry's status and failure mean. Logs an error, as a loader does.
    fn outcome(&self, status: Status, failure: Failure) -> Outcome {
        let text = String::from(failure.text);
        match status {
            status::OK => Outcome::Ok,
            status::PANIC => Outcome::Panic(text),
            _ => {
                self.record(failure.level, &text);
                Outcome::Error(text)
            }
        }
    }

    fn record(&self, level: u32, text: &str) {
        let level = match level {
            2 => Level::Critical,
            3 => Level::Error,
            4 => Level::Warning,
            5 => Level::Notice,
            6 => Level::Info,
            _ => Level::Debug,
        };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((level, text.to_owned()));
    }
}

/// A Context of the lambda. Dropping it calls Stop.
pub(super) struct Context {
    hosted: Hosted,
    context: *mut (),
    stopped: Arc<AtomicUsize>,
}

impl Context {
    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn run(&mut self, exchange: &Exchange<'_>) -> Outcome {
        let mut failure = Failure::new();
        // SAFETY: `start` made it, `&mut self` keeps it to one call at a time, and the caller's exchange lasts.
        let status = unsafe { (self.hosted.plugin.run())(self.context, exchange, &mut failure) };
        self.hosted.data.outcome(status, failure)
    }

    /// As `run`, but polled up to `polls` times, and once the answer was sent as often as it takes; then it is dropped,
    /// which gives `None`. If the lambda isn't async, it waits.
    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    pub(super) fn run_async(
        &mut self,
        exchange: &Exchange<'_>,
        polls: usize,
        is_answered: &dyn Fn() -> bool,
    ) -> Option<Outcome> {
        let Some(entries) = self.hosted.entries else { return Some(self.run(exchange)) };
        let mut failure = Failure::new();
        // SAFETY: as in `run`.
        let status =
            unsafe { polled::run(entries, self.context, exchange, &mut failure, polls, is_answered) };
        status.map(|status| self.hosted.data.outcome(status, failure))
    }

    /// Whether it may be used again after a cancelled run.
    pub(super) fn keeps_cancelled(&self) -> bool {
        self.hosted.plugin.flags() & plugin_flags::KEEP_CANCELLED != 0
    }
}

impl Drop for Context {
    #[expect(unsafe_code, reason = "a call through the lambda's table")]
    fn drop(&mut self) {
        let mut failure = Failure::new();
        let status = match self.hosted.entries {
            // SAFETY: `start` made it, and it is dropped once.
            Some(entries) => unsafe { polled::stop(entries, self.context, &mut failure) },
            // SAFETY: as above.
            None => unsafe { (self.hosted.plugin.stop())(self.context, &mut failure) },
        };
        self.hosted.data.outcome(status, failure);
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the wire lets a Context be used on any thread, one call at a time, which `&mut` makes sure of.
#[expect(unsafe_code, reason = "the wire's pointer says nothing of threads")]
unsafe impl Send for Context {}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Contract of all functions below: `data` is the `Data` that `Hosted::new` leaked.
#[expect(unsafe_code, reason = "the table's `data` comes back as a pointer")]
unsafe fn data(data: *const ()) -> &'static Data {
    // SAFETY: the contract above.
    unsafe { &*data.cast::<Data>() }
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn level(_: *const ()) -> u32 {
    raw::TRACE
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn log(pointer: *const (), level: u32, _: RStr<'_>, text: RStr<'_>) {
    // SAFETY: the contract of this file's entries.
    let data = unsafe { data(pointer) };
    data.record(level, text.as_str());
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn parameter(pointer: *const (), key: RStr<'_>, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let data = unsafe { data(pointer) };
    let found = if key.is_empty() { Some(&data.object) } else { data.parameters.get(key.as_str()) };
    found.map_or(status::END, |text| {
        *out = text.as_str().into();
        status::OK
    })
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn attribute(_: *const (), key: u32, out: &mut RStr<'static>) -> Status {
    match key {
        host_attribute::SOFTWARE => {
            *out = concat!("effe-abi-testing/", env!("CARGO_PKG_VERSION")).into();
            status::OK
        }
        PROCESS => {
            *out = "0/1".into();
            status::OK
        }
        host_attribute::ADDRESS | host_attribute::RESPONSE_LIMIT => status::END,
        _ => status::UNSUPPORTED,
    }
}

#[expect(unsafe_code, reason = "an entry of the host's table")]
unsafe extern "C" fn extension(pointer: *const (), id: RStr<'_>) -> *const () {
    // SAFETY: the contract of this file's entries.
    let data = unsafe { data(pointer) };
    match id.as_str() {
        ASYNC => ptr::from_ref(&exchange::ASYNC_OPS).cast(),
        FAIL => ptr::from_ref(&fail_host::TABLE).cast(),
        UPGRADE => ptr::from_ref(&exchange::UPGRADE_OPS).cast(),
        EARLY => data.offers.early.map_or(ptr::null(), |table| ptr::from_ref(table).cast()),
        SPAWN => ptr::from_ref(data.offers.spawn).cast(),
        TRAILERS => data.offers.trailers.map_or(ptr::null(), |table| ptr::from_ref(table).cast()),
        _ => ptr::null(),
    }
}
