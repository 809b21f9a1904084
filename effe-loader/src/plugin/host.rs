//! The loader as a lambda sees it outside of a request: its log, the operator's parameters, the bound
//! address. What a lambda calls during a request is the exchange's; its tables are handed in, so that this
//! file doesn't know it.
#![expect(unsafe_code, reason = "the entries of the host's table get their data as a pointer")]

use std::{ptr, sync::OnceLock};

use abi_stable::std_types::RStr;
use effe_abi::{
    extensions::{
        ASYNC, AsyncHost, EARLY, EarlyHost, FAIL, PROCESS, SPAWN, SpawnHost, TRAILERS, TrailersHost, UPGRADE,
        UpgradeHost,
    },
    fail_host,
    raw::{self, Status, host_attribute, status},
};

use super::{parameters::Parameters, views};
use crate::journal::{Journal, Record, Severity};

/// The loader's side of exchanges, which the layer above hands in.
#[derive(Clone, Copy)]
pub struct Exchanges {
    /// Calls of an async run.
    pub async_host: &'static AsyncHost,
    /// Calls of a run that goes on as a task of the lambda's own runtime.
    pub spawn_host: &'static SpawnHost,
    /// Calls of a run whose answer goes out before its end.
    pub early_host: &'static EarlyHost,
    /// What comes behind bodies.
    pub trailers_host: &'static TrailersHost,
    /// Calls of a run that takes its connection over.
    pub upgrade_host: &'static UpgradeHost,
    /// The id of the request whose Run this thread is in.
    pub request_id: fn() -> Option<String>,
    /// Whether they look for breaches of the contract.
    pub are_strict: bool,
}

/// The data of one generation's table of host functions. It is never freed.
pub struct Host {
    /// Gets the lambda's lines, which are dropped before it is set: a plugin may be opened before any thread is
    /// started, the journal's among them.
    pub journal: OnceLock<Journal>,
    pub parameters: Parameters,
    /// All parameters as a JSON object.
    object: String,
    /// What the loader listens on, once it does.
    pub address: OnceLock<String>,
    /// Which of the effe's processes this one is, as `1/4`, if there are several.
    pub process: OnceLock<String>,
    response_limit: String,
    exchanges: Exchanges,
}

impl Host {
    pub fn new(parameters: Parameters, response_limit: usize, exchanges: Exchanges) -> &'static Host {
        let object = parameters.object();
        let response_limit = response_limit.to_string();
        let (journal, address, process) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let host = Host { journal, parameters, object, address, process, response_limit, exchanges };
        Box::leak(Box::new(host))
    }

    /// Whether the lambda is watched for breaches of its contract.
    pub fn is_strict(&self) -> bool {
        self.exchanges.are_strict
    }

    /// The table that the lambda gets.
    pub fn table(&'static self) -> &'static raw::Host {
        let data = ptr::from_ref(self).cast();
        Box::leak(Box::new(raw::Host { data, level, log, parameter, attribute, extension }))
    }
}

/// Contract of all below: `data` is the `Host` of `table`, which lives for ever.
unsafe fn host(data: *const ()) -> &'static Host {
    // SAFETY: the contract above.
    unsafe { &*data.cast::<Host>() }
}

unsafe extern "C" fn level(data: *const ()) -> u32 {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(data) };
    host.journal.get().map_or(0, |journal| journal.level() as u32)
}

unsafe extern "C" fn log(data: *const (), level: u32, target: RStr<'_>, text: RStr<'_>) {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(data) };
    let severity = Severity::from(level);
    if let Some(journal) = host.journal.get().filter(|journal| journal.wants(severity)) {
        let request_id = (host.exchanges.request_id)();
        let (target, text) = (views::lossy(target), views::lossy(text));
        journal.log(Record::of_lambda(severity, &target, text.into_owned(), request_id));
    }
}

unsafe extern "C" fn parameter(data: *const (), key: RStr<'_>, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(data) };
    let of_key = |key| host.parameters.get(key);
    give(if key.is_empty() { Some(&host.object) } else { views::text(key).and_then(of_key) }, out)
}

unsafe extern "C" fn attribute(data: *const (), key: u32, out: &mut RStr<'static>) -> Status {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(data) };
    match key {
        host_attribute::ADDRESS => give(host.address.get().map(String::as_str), out),
        PROCESS => give(Some(host.process.get().map_or("0/1", String::as_str)), out),
        host_attribute::RESPONSE_LIMIT => give(Some(&host.response_limit), out),
        host_attribute::SOFTWARE => give(Some(concat!("effe-loader/", env!("CARGO_PKG_VERSION"))), out),
        _ => status::UNSUPPORTED,
    }
}

unsafe extern "C" fn extension(data: *const (), id: RStr<'_>) -> *const () {
    // SAFETY: the contract of this file's entries.
    let host = unsafe { host(data) };
    match views::text(id).unwrap_or_default() {
        ASYNC => ptr::from_ref(host.exchanges.async_host).cast(),
        EARLY => ptr::from_ref(host.exchanges.early_host).cast(),
        FAIL => ptr::from_ref(&fail_host::TABLE).cast(),
        SPAWN => ptr::from_ref(host.exchanges.spawn_host).cast(),
        TRAILERS => ptr::from_ref(host.exchanges.trailers_host).cast(),
        UPGRADE => ptr::from_ref(host.exchanges.upgrade_host).cast(),
        _ => ptr::null(),
    }
}

fn give(text: Option<&'static str>, out: &mut RStr<'static>) -> Status {
    text.map_or(status::END, |text| {
        *out = text.into();
        status::OK
    })
}
