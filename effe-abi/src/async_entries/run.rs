//! Run: one future for each request, in the storage of its Context's slot. The loader's polls poll it, or, if the
//! loader says so before a poll, a task of the runtime does from then on.
//!
//! This file owns the future: who polls it and that it is dropped once. The task is left to `spawned.rs`.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::{future, pin::Pin, task};

use tokio::runtime::Handle;

use super::{
    boxed::{SendPtr, discard, poll},
    slot::{Kept, Lent, kept, lent},
};
use crate::{
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    body::source::Source,
    calls::{AsyncHostRef, ExchangeRef, HostRef},
    error::Result,
    extensions::{Future, Waker},
    fence::{fence, verdict},
    lambda::Started,
    raw::{Exchange, Failure, Status, status},
    request::Request,
    response::{Response, Scratch, Terms},
    spawned::Spawned,
    waker,
};

pub(super) unsafe extern "C" fn run<L: AsyncLambda>(
    context: *mut (),
    exchange: *const Exchange<'static>,
    failure: *mut Failure,
    out: &mut Future,
) {
    // SAFETY: the caller's duty is the callee's condition.
    unsafe { put_run::<L>(context, exchange, failure, true, out) }
}

/// Makes a run's future and puts it into its slot. With `awaited`, the future returns PENDING where it waits; without,
/// it waits on its thread.
///
/// # Safety
/// As the wire's `run`.
pub(super) unsafe fn put_run<L: AsyncLambda>(
    context: *mut (),
    exchange: *const Exchange<'static>,
    failure: *mut Failure,
    awaited: bool,
    out: &mut Future,
) {
    // SAFETY: the caller's promise: it is valid until the future is dropped, and nothing here uses it longer.
    let exchange = unsafe { &*exchange };
    // SAFETY: as above; `Request` and `Response` keep the rules about calls at the same time.
    let exchange = unsafe { ExchangeRef::new(exchange) };
    // SAFETY: the caller's promise; until the future is dropped, only the future uses this half.
    let Lent { started, scratch } = unsafe { lent::<L>(context) };
    // SAFETY: the caller's promise.
    let kept = unsafe { kept::<L>(context) };
    let async_host = kept.async_host.filter(|_| awaited);
    let terms = kept.terms;
    kept.exchange = awaited.then_some(exchange);
    kept.failure = failure;
    put::<L, _>(context, kept, || running(started.as_mut(), exchange, scratch, terms, async_host), out);
}

/// One run, from the request to the end of the answer.
async fn running<L: AsyncLambda>(
    started: Started<'static, L>,
    exchange: ExchangeRef<'static>,
    scratch: &'static mut Scratch,
    terms: Terms,
    async_host: Option<AsyncHostRef>,
) -> Result {
    // SAFETY: it is a local of this future, which is dropped before the exchange ends, and Run gets no more than a
    // reference.
    let request = unsafe { Request::awaited(exchange, Source::new(async_host)) };
    let response = Response::new(exchange, scratch, terms);
    let mut response = AsyncResponse::new(response, async_host);
    let outcome = L::run(started, &request, &mut response).await;
    if outcome.is_ok() && response.is_sending() {
        response.until_ready().await;
    }
    response.finish(outcome)
}

/// Puts a run's future into its slot.
fn put<L: AsyncLambda, F>(context: *mut (), kept: &mut Kept, future: impl FnOnce() -> F, out: &mut Future)
where
    F: future::Future<Output = Result> + Send + 'static,
{
    kept.storage.put(future);
    *out = Future { data: context, poll: poll_run::<L, F>, drop: drop_run::<L, F> };
}

/// Contract of `poll_run` and `drop_run`: `context` was passed to `put` with the same types, and the calls keep the
/// wire's rules about futures.
unsafe extern "C" fn poll_run<L: AsyncLambda, F>(context: *mut (), waker: *const Waker) -> Status
where
    F: future::Future<Output = Result> + Send + 'static,
{
    // SAFETY: the contract above; polls come one at a time, and this half is not the future's.
    let kept = unsafe { kept::<L>(context) };
    if !kept.storage.full {
        return status::INVALID;
    }
    if kept.spawned.is_none()
        && let Some(exchange) = kept.exchange
    {
        // SAFETY: the contract above. If there is a task now, nothing here polls the future.
        kept.spawned = unsafe { spawn::<F>(kept, exchange) };
    }
    let future = kept.storage.memory.cast::<F>().as_ptr();
    let poll = |waker: &task::Waker| match &kept.spawned {
        Some(spawned) => spawned.poll(waker),
        // SAFETY: `put` moved it there, and the failure is valid until `drop`.
        None => unsafe { poll_in_place(future, kept.host, &kept.runtime, kept.failure, waker) },
    };
    // SAFETY: the loader's promise, by the wire's contract of `poll`.
    let status = unsafe { waker::borrow(waker, poll) };
    if status != status::PENDING {
        kept.storage.full = false;
        kept.spawned = None;
    }
    status
}

/// Lets the run's future go on as a task of the runtime, if the loader says so.
///
/// # Safety
/// There is an `F` in the storage, and nobody else polls or drops it before the task is cancelled.
unsafe fn spawn<F>(kept: &Kept, exchange: ExchangeRef<'static>) -> Option<Spawned>
where
    F: future::Future<Output = Result> + Send + 'static,
{
    let spawn_host = kept.spawn_host.filter(|host| host.may_spawn(exchange))?;
    let (host, runtime) = (kept.host, kept.runtime.clone());
    let (future, failure) = (SendPtr(kept.storage.memory.cast::<F>().as_ptr()), SendPtr(kept.failure));
    let poll = move |waker: &task::Waker| {
        let (SendPtr(future), SendPtr(failure)) = (&future, &failure);
        let poll =
            // SAFETY: the caller's promise; both are valid until the run has ended or the task is cancelled.
            || unsafe { poll_in_place(*future, host, &runtime, *failure, waker) };
        if spawn_host.may_block(exchange) {
            // Other tasks go on, on another thread.
            tokio::task::block_in_place(|| spawn_host.inside(exchange, poll))
        } else {
            spawn_host.inside(exchange, poll)
        }
    };
    Some(Spawned::new(&kept.runtime, spawn_host, poll))
}

/// Polls a run's future. If this returns anything but PENDING, it has dropped the future.
///
/// # Safety
/// `future` was not dropped and won't be moved; nobody else uses it or `failure` during the call.
unsafe fn poll_in_place<F>(
    future: *mut F,
    host: HostRef,
    runtime: &Handle,
    failure: *mut Failure,
    waker: &task::Waker,
) -> Status
where
    F: future::Future<Output = Result>,
{
    // SAFETY: the caller's promise.
    let failure = unsafe { &mut *failure };
    let mut is_alive = true;
    let status = fence(host, failure, || {
        let _entered = runtime.enter();
        // SAFETY: the caller's promise.
        let running = unsafe { &mut *future };
        // SAFETY: as above.
        let pinned = unsafe { Pin::new_unchecked(running) };
        let polled = poll(pinned, waker);
        if polled.is_ready() {
            // Dropped here, where the runtime is entered already.
            is_alive = false;
            // SAFETY: it was not dropped before, and nothing uses it any more.
            unsafe { future.drop_in_place() };
        }
        polled.map(verdict)
    });
    if status == status::PANIC && is_alive {
        // SAFETY: as above. It is what a panic has left of it.
        discard(host, runtime, || unsafe { future.drop_in_place() });
    }
    status
}

unsafe extern "C" fn drop_run<L: AsyncLambda, F>(context: *mut ()) {
    // SAFETY: the contract above; the loader polls it no more.
    let Kept { host, runtime, storage, spawned, exchange, .. } = unsafe { kept::<L>(context) };
    *exchange = None;
    if std::mem::take(&mut storage.full) {
        let future = storage.memory.cast::<F>().as_ptr();
        // SAFETY: `put` moved it there, and it was not dropped yet.
        let drop = || discard(*host, runtime, || unsafe { future.drop_in_place() });
        match spawned.take() {
            Some(spawned) => spawned.cancel(drop),
            None => drop(),
        }
    }
}
