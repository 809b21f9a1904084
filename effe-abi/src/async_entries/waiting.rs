//! The entries of v1, for a loader that doesn't poll: each waits on its thread for the future of the same step, which
//! it leaves to `run.rs` and `steps.rs`.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use super::{
    block_on::block_on,
    run::put_run,
    steps::{start, stop},
};
use crate::{
    async_lambda::AsyncLambda,
    extensions::Future,
    raw::{Exchange, Failure, Host, Status},
};

pub(super) unsafe extern "C" fn start_waiting<L: AsyncLambda>(
    host: &'static Host,
    context: &mut *mut (),
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; both pointers are valid until `block_on` returns.
    unsafe { start::<L>(host, context, failure, &mut future) };
    block_on(future)
}

pub(super) unsafe extern "C" fn run_waiting<L: AsyncLambda>(
    context: *mut (),
    exchange: &Exchange<'_>,
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; all of it is valid until `block_on` returns.
    unsafe { put_run::<L>(context, std::ptr::from_ref(exchange).cast(), failure, false, &mut future) };
    block_on(future)
}

pub(super) unsafe extern "C" fn stop_waiting<L: AsyncLambda>(
    context: *mut (),
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; `failure` is valid until `block_on` returns.
    unsafe { stop::<L>(context, failure, &mut future) };
    block_on(future)
}
