//! The steps other than Run. Start and Stop are futures; Init, Retire and Ready wait on their thread.
//!
//! This file owns what each step does for the wire. The futures themselves are left to `boxed.rs`.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::task::Poll;

use tokio::runtime::Handle;

use super::{
    block_on::block_on,
    boxed::{Boxed, SendPtr, discard},
    slot::{FutureStorage, Kept, Lent, Slot},
};
use crate::{
    async_lambda::AsyncLambda,
    calls::{AsyncHostRef, HostRef, SpawnHostRef},
    extensions::{Future, Waker},
    fence::{Verdict, fence, fence_alone, report_failure, verdict},
    lambda::StartError,
    params::Params,
    raw::{Failure, Host, Status, status},
    report,
    response::{Delivery, Scratch, Terms},
    runtime,
};

pub(super) unsafe extern "C" fn init<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `init`.
    let host = unsafe { HostRef::new(host) };
    report::install(host);
    let mut joined = None;
    let status =
        fence(host, failure, || Poll::Ready(verdict(runtime::join(host).map(|it| joined = Some(it)))));
    let Some(runtime) = joined else { return status };
    let mut future = Future::NONE;
    let init = async move { verdict(L::init(Params::new(host)).await) };
    Boxed::put(host, runtime, failure, init, &mut future);
    let status = block_on(future);
    if status != status::OK {
        // No Retire follows a failed Init.
        runtime::leave(host);
    }
    status
}

pub(super) unsafe extern "C" fn start<L: AsyncLambda>(
    host: &'static Host,
    context: *mut *mut (),
    failure: *mut Failure,
    out: &mut Future,
) {
    // SAFETY: the loader's promise, by the wire's contract of `start`.
    let host = unsafe { HostRef::new(host) };
    let runtime = match runtime::join(host) {
        Ok(runtime) => runtime,
        Err(err) => return put_failed(host, &err, failure, out),
    };
    let (context, in_slot) = (SendPtr(context), runtime.clone());
    let starting = async move {
        let started = L::start(Params::new(host)).await;
        store(host, in_slot, started, context)
    };
    Boxed::put(host, runtime, failure, starting, out);
}

pub(super) unsafe extern "C" fn stop<L: AsyncLambda>(
    context: *mut (),
    failure: *mut Failure,
    out: &mut Future,
) {
    // SAFETY: `start` made it, and the loader stops a Context once.
    let slot = unsafe { Box::from_raw(context.cast::<Slot<L>>()) };
    let Slot { lent: Lent { started, .. }, kept: Kept { host, runtime, .. } } = *slot;
    let stopping = async move {
        let context = match started {
            Ok(context) => Some(context),
            Err(failed) => failed.into_context(),
        };
        match context {
            Some(context) => verdict(L::stop(context).await),
            None => Ok(()),
        }
    };
    Boxed::put(host, runtime, failure, stopping, out);
}

pub(super) unsafe extern "C" fn retire<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `retire`.
    let host = unsafe { HostRef::new(host) };
    let mut status = status::OK;
    if let Ok(runtime) = runtime::join(host) {
        let mut future = Future::NONE;
        Boxed::put(host, runtime.clone(), failure, async { verdict(L::retire().await) }, &mut future);
        status = block_on(future);
        discard(host, &runtime, || drop(runtime::take_kept(host)));
    }
    fence_alone(host, || runtime::leave(host));
    status
}

pub(super) unsafe extern "C" fn ready<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the contract of `Ready::ready`.
    let host = unsafe { HostRef::new(host) };
    // Between Init and Retire, this finds the runtime.
    let Ok(runtime) = runtime::join(host) else { return status::UNSUPPORTED };
    let mut future = Future::NONE;
    Boxed::put(host, runtime, failure, async { verdict(L::ready().await) }, &mut future);
    block_on(future)
}

/// Puts what Start made into a new slot, and the slot's address into `context`.
fn store<L: AsyncLambda>(
    host: HostRef,
    runtime: Handle,
    started: std::result::Result<L, StartError<L>>,
    context: SendPtr<*mut ()>,
) -> Verdict {
    let level = started.as_ref().err().map(StartError::level);
    let delivery = if L::OPTIONS.streams_response() { Delivery::Awaited } else { Delivery::Whole };
    let kept = Kept {
        host,
        runtime,
        async_host: AsyncHostRef::find(host),
        spawn_host: SpawnHostRef::find(host),
        terms: Terms::of(host, delivery, true),
        storage: FutureStorage::NONE,
        failure: std::ptr::null_mut(),
        exchange: None,
        spawned: None,
    };
    let scratch = Scratch::new(host, L::OPTIONS.may_upgrade());
    let slot = Box::into_raw(Box::new(Slot { lent: Lent { started, scratch }, kept }));
    // Stored before the author's `Display` is called, which may panic: the loader stops a Context that is not null.
    // SAFETY: by the contract of `start`, it is valid until the future is dropped.
    unsafe { *context.0 = slot.cast() };
    // SAFETY: just made; the loader doesn't use it before the future is done.
    let started = unsafe { &(*slot).lent.started };
    match (started, level) {
        (Err(failed), Some(level)) => Err((level, failed.to_string())),
        _ => Ok(()),
    }
}

/// The future of a Start that has failed already.
fn put_failed(host: HostRef, err: &crate::Error, failure: *mut Failure, out: &mut Future) {
    // SAFETY: by the contract of `start`, it is valid until the future is dropped.
    let failure = unsafe { &mut *failure };
    report_failure(host, failure, err.level(), err.to_string());
    unsafe extern "C" fn poll(_: *mut (), _: *const Waker) -> Status {
        status::ERROR
    }
    *out = Future { poll, ..Future::NONE };
}
