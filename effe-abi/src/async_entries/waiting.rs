//! The entries of v1: each waits on its thread for the future of the same step.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use super::{
    block_on::wait,
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
    // SAFETY: the caller's duty is the callee's condition; both pointers stay until `wait` returns.
    unsafe { start::<L>(host, context, failure, &mut future) };
    wait(future)
}

pub(super) unsafe extern "C" fn run_waiting<L: AsyncLambda>(
    context: *mut (),
    exchange: &Exchange<'_>,
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; all of it stays until `wait` returns.
    unsafe { put_run::<L>(context, std::ptr::from_ref(exchange).cast(), failure, false, &mut future) };
    wait(future)
}

pub(super) unsafe extern "C" fn stop_waiting<L: AsyncLambda>(
    context: *mut (),
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; `failure` stays until `wait` returns.
    unsafe { stop::<L>(context, failure, &mut future) };
    wait(future)
}
