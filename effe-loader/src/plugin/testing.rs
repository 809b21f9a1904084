//! The entries of a lambda that does nothing, for unit tests.
#![expect(unsafe_code, reason = "entries of the wire")]

use std::ptr;

use abi_stable::std_types::RStr;
use effe_abi::raw::{Exchange, Failure, Host, Status, status};

use super::entries::Entries;

pub const NOTHING: Entries = Entries {
    flags: 0,
    info: "{}",
    build: "",
    init: with_host,
    start,
    run,
    stop,
    retire: with_host,
    extension,
};

unsafe extern "C" fn with_host(_: &'static Host, _: &mut Failure) -> Status {
    status::OK
}

unsafe extern "C" fn start(_: &'static Host, _: &mut *mut (), _: &mut Failure) -> Status {
    status::OK
}

unsafe extern "C" fn run(_: *mut (), _: &Exchange<'_>, _: &mut Failure) -> Status {
    status::OK
}

unsafe extern "C" fn stop(_: *mut (), _: &mut Failure) -> Status {
    status::OK
}

unsafe extern "C" fn extension(_: RStr<'_>) -> *const () {
    ptr::null()
}
