//! `--strict-plugin`: the entries of `table.rs` for a lambda that is watched. An exchange that is used after its run, an
//! answer that is begun twice, and a view that comes back after its run are seen, and are a line of the log, in the words
//! of `effe.h`.
//!
//! Nothing of it is on the road of a lambda that is not watched, except for the question whether it is. What is remembered
//! of runs is in `watched.rs`.
#![expect(unsafe_code, reason = "the entries get their data as a pointer")]

use std::ptr;

use abi_stable::std_types::{RSlice, RStr};
use effe_abi::{
    extensions::{AsyncHost, Duplex, EarlyHost, SpawnHost, TrailersHost, UpgradeHost, Waker},
    raw::{Chunk, ExchangeOps, Header, Status, status},
};

use super::{
    piece::bytes,
    table,
    watched::{self, breach, live, look_at, show, text_of},
};
use crate::plugin::{host::Exchanges, views};

/// Has every lambda watched from now on. To be called before the first is opened.
pub fn turn_on() {
    watched::turn_on(&OPS);
}

/// What a lambda's host needs of this layer.
pub fn exchanges() -> Exchanges {
    if watched::is_on() { EXCHANGES } else { table::FOR_HOST }
}

fn look_at_headers(headers: RSlice<'_, Header<'_>>, call: &str) {
    for (name, value) in views::headers(headers) {
        look_at(name, call);
        look_at(value, call);
    }
}

fn look_at_chunk(chunk: &Chunk, call: &str) {
    if chunk.release.is_none() && chunk.len > 0 {
        // SAFETY: the wire's promise: a view, valid for the length of the call. It is not read.
        look_at(unsafe { std::slice::from_raw_parts(chunk.ptr, chunk.len) }, call);
    }
}

/// The tables of a watched lambda.
const EXCHANGES: Exchanges = Exchanges {
    async_host: &AsyncHost { size: size_of::<AsyncHost>() as u32, version: 1, poll_read, poll_ready },
    spawn_host: &SpawnHost {
        size: size_of::<SpawnHost>() as u32,
        version: 2,
        may_spawn,
        enter,
        leave,
        hold: table::hold,
        release: table::release,
        may_block,
    },
    early_host: &EarlyHost { size: size_of::<EarlyHost>() as u32, version: 1, end_early },
    trailers_host: &TrailersHost {
        size: size_of::<TrailersHost>() as u32,
        version: 1,
        request: request_trailers,
        respond: respond_trailers,
    },
    upgrade_host: &UpgradeHost { size: size_of::<UpgradeHost>() as u32, version: 1, offered, upgrade },
    request_id: table::current_id,
    are_strict: true,
};

static OPS: ExchangeOps = ExchangeOps { header, headers, attribute, state, read, respond, write };

/// Entries that ask only whether the exchange is one, and what they return if it is none.
macro_rules! watched {
    ($($name:ident($($argument:ident: $type:ty),*) -> $out:ty = $otherwise:expr;)*) => {$(
        unsafe extern "C" fn $name(host: *mut (), $($argument: $type),*) -> $out {
            match live(host, stringify!($name)) {
                // SAFETY: the lambda's promise; its exchange is there.
                Some(host) => unsafe { table::$name(host, $($argument),*) },
                None => $otherwise,
            }
        }
    )*};
}

watched! {
    state(remaining: &mut u64) -> Status = status::GONE;
    read(out: &mut Chunk) -> Status = status::INVALID;
    poll_read(waker: *const Waker, out: &mut Chunk) -> Status = status::INVALID;
    poll_ready(waker: *const Waker) -> Status = status::GONE;
    may_spawn() -> Status = status::UNSUPPORTED;
    enter() -> *const () = ptr::null();
    leave(entered: *const ()) -> () = ();
    may_block() -> Status = status::UNSUPPORTED;
    end_early() -> Status = status::UNSUPPORTED;
    request_trailers(skip: usize, out: *mut Header<'static>, capacity: usize) -> usize = 0;
    offered(out: &mut RStr<'static>) -> Status = status::END;
}

unsafe extern "C" fn header(
    host: *mut (),
    name: RStr<'_>,
    nth: usize,
    out: &mut RSlice<'static, u8>,
) -> Status {
    look_at(views::bytes(name), "header");
    let Some(exchange) = live(host, "header") else { return status::END };
    // SAFETY: the lambda's promise; its exchange is there.
    let found = unsafe { table::header(exchange, name, nth, out) };
    if found == status::OK {
        *out = show(host, out.as_slice());
    }
    found
}

unsafe extern "C" fn headers(
    host: *mut (),
    skip: usize,
    out: *mut Header<'static>,
    capacity: usize,
) -> usize {
    let Some(exchange) = live(host, "headers") else { return 0 };
    // SAFETY: as in `header`; the caller's room.
    let total = unsafe { table::headers(exchange, skip, out, capacity) };
    for n in 0..total.saturating_sub(skip).min(capacity) {
        // SAFETY: the caller's room.
        let header = unsafe { out.add(n) };
        // SAFETY: as above, and it was written to.
        let header = unsafe { &mut *header };
        header.name = text_of(show(host, header.name.as_str().as_bytes()));
        header.value = show(host, header.value.as_slice());
    }
    total
}

unsafe extern "C" fn attribute(host: *mut (), key: u32, out: &mut RStr<'static>) -> Status {
    let Some(exchange) = live(host, "attribute") else { return status::END };
    // SAFETY: as in `header`.
    let found = unsafe { table::attribute(exchange, key, out) };
    if found == status::OK {
        *out = text_of(show(host, out.as_str().as_bytes()));
    }
    found
}

unsafe extern "C" fn respond(
    host: *mut (),
    code: u32,
    headers: RSlice<'_, Header<'_>>,
    body: Chunk,
    flags: u32,
) -> Status {
    look_at_headers(headers, "respond");
    look_at_chunk(&body, "respond");
    let Some(host) = live(host, "respond") else {
        drop(bytes(body));
        return status::INVALID;
    };
    // SAFETY: as in `header`.
    let has_begun = unsafe { table::exchange(host) }.has_begun();
    // SAFETY: as in `header`.
    let answered = unsafe { table::respond(host, code, headers, body, flags) };
    if answered == status::INVALID {
        breach(match has_begun {
            true => "respond was called twice",
            false => "respond was given a malformed status or header",
        });
    }
    answered
}

unsafe extern "C" fn write(host: *mut (), chunk: Chunk, flags: u32) -> Status {
    look_at_chunk(&chunk, "write");
    let Some(host) = live(host, "write") else {
        drop(bytes(chunk));
        return status::INVALID;
    };
    // SAFETY: as in `header`.
    let written = unsafe { table::write(host, chunk, flags) };
    if written == status::INVALID {
        breach("write was called before respond, after the end, or for more than the content-length");
    }
    written
}

unsafe extern "C" fn respond_trailers(host: *mut (), trailers: RSlice<'_, Header<'_>>) -> Status {
    look_at_headers(trailers, "respond of effe.trailers/1");
    let Some(host) = live(host, "respond of effe.trailers/1") else { return status::INVALID };
    // SAFETY: as in `header`.
    unsafe { table::respond_trailers(host, trailers) }
}

unsafe extern "C" fn upgrade(host: *mut (), headers: RSlice<'_, Header<'_>>, out: &mut Duplex) -> Status {
    look_at_headers(headers, "upgrade");
    let Some(host) = live(host, "upgrade") else { return status::INVALID };
    // SAFETY: as in `header`.
    unsafe { table::upgrade(host, headers, out) }
}
