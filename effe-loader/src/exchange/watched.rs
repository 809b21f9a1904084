//! What `--strict-plugin` remembers: for each run a stand, which the lambda is shown in place of its exchange, with copies
//! of the views that it gets. It stays for a while after the run, so that a call by its name, or a view of it that comes
//! back, is seen and does no harm.
//!
//! The entries that ask here are in `strict.rs`.
#![expect(unsafe_code, reason = "what a lambda is shown are pointers")]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem, ptr,
    sync::{
        LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use abi_stable::std_types::{RSlice, RStr};
use effe_abi::raw::{self, Chunk, ExchangeOps};

use crate::journal::Journal;

/// So many exchanges whose runs have ended are remembered, with what the lambda was shown of them.
const REMEMBERED: usize = 16 * 1024;
/// Bytes that are remembered at most.
const MAX_BYTES: usize = 64 << 20;
/// What is written over a view when its run has ended.
const GONE: u8 = b'#';

/// The functions that a watched lambda gets; none are set where nobody is watched.
static OPS: OnceLock<&ExchangeOps> = OnceLock::new();
static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// Has lambdas watched, by these functions.
pub(super) fn turn_on(ops: &'static ExchangeOps) {
    let _ = OPS.set(ops);
}

/// Where breaches are told. Those from before are not.
pub fn log_to(journal: &Journal) {
    let _ = JOURNAL.set(journal.clone());
}

#[inline]
pub fn is_on() -> bool {
    OPS.get().is_some()
}

pub(super) fn breach(what: &str) {
    if let Some(journal) = JOURNAL.get() {
        journal.error(format!("the lambda breaks its contract: {what}"));
    }
}

/// An exchange as a watched lambda knows it, until this is dropped.
pub struct Watched(usize);

/// What stands for an exchange, at an address of its own for as long as it is remembered.
struct Stand {
    /// Null once the run has ended.
    exchange: *mut (),
    form: raw::Exchange<'static>,
    /// What the lambda was shown.
    views: Vec<Box<[u8]>>,
}

// SAFETY: what it points to is itself, and an exchange, which any thread may use.
unsafe impl Send for Stand {}

#[derive(Default)]
struct Stands {
    by_address: HashMap<usize, Box<Stand>>,
    ended: VecDeque<usize>,
    /// Views whose runs have ended, by where they begin: where they end.
    gone: BTreeMap<usize, usize>,
    n_bytes: usize,
}

static STANDS: LazyLock<Mutex<Stands>> = LazyLock::new(Mutex::default);

fn stands() -> MutexGuard<'static, Stands> {
    STANDS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    /// Shows the lambda a copy of this exchange.
    pub fn new(form: &raw::Exchange<'_>) -> Watched {
        let mut views = Vec::new();
        let empty = raw::Exchange {
            method: RStr::from_str(""),
            target: RStr::from_str(""),
            body: RSlice::EMPTY,
            host: ptr::null_mut(),
            ops: OPS.get().unwrap_or(&form.ops),
            ..*form
        };
        // SAFETY: without the views, nothing of it has a lifetime.
        let form_of_stand = unsafe { mem::transmute::<raw::Exchange<'_>, raw::Exchange<'static>>(empty) };
        let mut stand = Box::new(Stand { exchange: form.host, form: form_of_stand, views: Vec::new() });
        stand.form.method = text_of(shown(&mut views, form.method.as_str().as_bytes()));
        stand.form.target = text_of(shown(&mut views, form.target.as_str().as_bytes()));
        stand.form.body = shown(&mut views, form.body.as_slice());
        stand.views = views;
        let address = ptr::from_ref(&*stand).addr();
        stand.form.host = ptr::from_ref(&*stand).cast_mut().cast();
        stands().by_address.insert(address, stand);
        Watched(address)
    }

    /// What the lambda gets.
    pub fn form(&self) -> &raw::Exchange<'_> {
        let form = stands().by_address.get(&self.0).map(|stand| ptr::from_ref(&stand.form));
        // SAFETY: the stand is at its place for longer than `self`, which `drop` only counts as ended.
        unsafe { &*form.expect("it stays while this does") }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut stands = stands();
        let stands = &mut *stands;
        let Some(stand) = stands.by_address.get_mut(&self.0) else { return };
        stand.exchange = ptr::null_mut();
        for view in &mut stand.views {
            view.fill(GONE);
            let range = view.as_ptr_range();
            stands.gone.insert(range.start.addr(), range.end.addr());
            stands.n_bytes += view.len();
        }
        stands.ended.push_back(self.0);
        while stands.ended.len() > REMEMBERED || (stands.n_bytes > MAX_BYTES && stands.ended.len() > 1) {
            let oldest = stands.ended.pop_front().and_then(|address| stands.by_address.remove(&address));
            for view in oldest.iter().flat_map(|stand| &stand.views) {
                stands.gone.remove(&view.as_ptr().addr());
                stands.n_bytes -= view.len();
            }
        }
    }
}

/// A copy of some bytes, for the lambda to see.
fn shown(views: &mut Vec<Box<[u8]>>, bytes: &[u8]) -> RSlice<'static, u8> {
    let copy: Box<[u8]> = bytes.into();
    let view = RSlice::from_slice(&copy);
    // SAFETY: the copy stays at its place until the stand is forgotten, which is after the run.
    let view = unsafe { mem::transmute::<RSlice<'_, u8>, RSlice<'static, u8>>(view) };
    if !copy.is_empty() {
        views.push(copy);
    }
    view
}

pub(super) fn text_of(view: RSlice<'static, u8>) -> RStr<'static> {
    // SAFETY: a copy of a text.
    unsafe { RStr::from_raw_parts(view.as_ptr(), view.len()) }
}

/// The same for the exchange that a lambda names.
pub(super) fn show(host: *mut (), bytes: &[u8]) -> RSlice<'static, u8> {
    let mut stands = stands();
    match stands.by_address.get_mut(&host.addr()) {
        Some(stand) => shown(&mut stand.views, bytes),
        None => RSlice::EMPTY,
    }
}

/// The exchange that a lambda names; `None`, and a line of the log, if it has none of this name or its run has ended.
pub(super) fn live(host: *mut (), call: &str) -> Option<*mut ()> {
    let exchange = stands().by_address.get(&host.addr()).map(|stand| stand.exchange);
    match exchange {
        Some(exchange) if !exchange.is_null() => return Some(exchange),
        Some(_) => breach(&format!("{call} was called with an exchange whose run has ended")),
        None => breach(&format!("{call} was called with a host that is no exchange's")),
    }
    None
}

/// Tells of a view that comes back after its run.
pub(super) fn look_at(view: &[u8], call: &str) {
    let stands = stands();
    let at = view.as_ptr().addr();
    let is_gone = stands.gone.range(..=at).next_back().is_some_and(|(_, end)| at < *end);
    drop(stands);
    if is_gone && !view.is_empty() {
        breach(&format!("{call} was given a view that was kept after its run"));
    }
}

/// A chunk of ours, whose release is watched. What it takes is never freed, so that a second release finds it.
pub fn watched_chunk(chunk: Chunk) -> Chunk {
    let Some(release) = chunk.release else { return chunk };
    let once = Box::new(Once { owner: chunk.owner, release, is_released: AtomicBool::new(false) });
    Chunk { owner: Box::into_raw(once).cast(), release: Some(release_once), ..chunk }
}

struct Once {
    owner: *mut (),
    release: unsafe extern "C" fn(*mut (), *const u8, usize),
    is_released: AtomicBool,
}

unsafe extern "C" fn release_once(owner: *mut (), bytes: *const u8, len: usize) {
    // SAFETY: made above, and never freed.
    let once = unsafe { &*owner.cast::<Once>() };
    if once.is_released.swap(true, Ordering::AcqRel) {
        return breach("a chunk was released twice");
    }
    // SAFETY: once, by the line above; the chunk's own.
    unsafe { (once.release)(once.owner, bytes, len) }
}
