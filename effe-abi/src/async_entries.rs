//! From the author's async trait to the wire: Start, Run and Stop as futures, and the entries of v1, which wait for
//! them on their thread.
//!
//! A run's future lives in its Context's slot, in room that is made for it once: in the steady state a request
//! allocates nothing here.
#![expect(unsafe_code, reason = "the entries of the wire get their data as pointers")]

use std::{
    alloc::{self, Layout},
    future,
    pin::Pin,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Wake},
    thread::{self, Thread},
};

use abi_stable::{prefix_type::WithMetadata, std_types::RStr};
use tokio::runtime::Handle;

use crate::{
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    body::Source,
    calls::{AsyncHostRef, ExchangeRef, HostRef, SpawnHostRef},
    error::Result,
    export::Table,
    extensions::{ASYNC, AsyncPlugin, Future, READY, Ready, Waker},
    fence::{Verdict, fence, verdict},
    lambda::{StartError, Started},
    params::Params,
    raw::{Exchange, Failure, Host, Plugin, Status, host_attribute, status},
    report,
    request::Request,
    response::{Delivery, Response, Scratch},
    runtime,
    spawned::{self, Spawned},
    waker,
};

/// The table of `L`.
pub const fn async_table<L: AsyncLambda>(info: &'static str, build: &'static str) -> Table {
    WithMetadata::new(Plugin {
        flags: L::OPTIONS.flags(),
        info: RStr::from_str(info),
        build: RStr::from_str(build),
        init: init::<L>,
        start: start_waiting::<L>,
        run: run_waiting::<L>,
        stop: stop_waiting::<L>,
        retire: retire::<L>,
        extension: extension::<L>,
    })
}

/// The entries that wait without a thread.
struct Entries<L>(L);

impl<L: AsyncLambda> Entries<L> {
    const READY: &'static Ready = &Ready { size: size_of::<Ready>() as u32, version: 1, ready: ready::<L> };
    const TABLE: &'static AsyncPlugin = &AsyncPlugin {
        size: size_of::<AsyncPlugin>() as u32,
        version: 1,
        start: start::<L>,
        run: run::<L>,
        stop: stop::<L>,
    };
}

unsafe extern "C" fn extension<L: AsyncLambda>(id: RStr<'_>) -> *const () {
    match id.as_str() {
        ASYNC => std::ptr::from_ref(Entries::<L>::TABLE).cast(),
        READY => std::ptr::from_ref(Entries::<L>::READY).cast(),
        _ => std::ptr::null(),
    }
}

/// What a Context pointer points to. Its two halves are reached through the pointer, one or the other: a run's future
/// borrows the first while a poll uses the second.
struct Slot<L> {
    lent: Lent<L>,
    kept: Kept,
}

/// What a run's future borrows: the Context or why there is none, and the buffers that live with it.
struct Lent<L> {
    started: std::result::Result<L, StartError<L>>,
    scratch: Scratch,
}

/// What polling and dropping need.
struct Kept {
    host: HostRef,
    runtime: Handle,
    async_host: Option<AsyncHostRef>,
    spawn_host: Option<SpawnHostRef>,
    /// Bytes of a response that may be held.
    limit: usize,
    room: Room,
    /// Where the run at hand says why it failed.
    failure: *mut Failure,
    /// The run's exchange, up to its first poll, if it is the loader that polls.
    exchange: Option<ExchangeRef<'static>>,
    /// Polls of the run by the loader: one, and one for each time that it was woken.
    n_polls: u32,
    /// The run, once it goes on as a task of the runtime: then the future in the room is the task's.
    spawned: Option<Spawned>,
}

/// # Safety
/// `start` made the Context, `stop` has not been called, and no other reference to this half lives.
unsafe fn lent<'a, L>(context: *mut ()) -> &'a mut Lent<L> {
    // SAFETY: the caller's promise.
    unsafe { &mut (*context.cast::<Slot<L>>()).lent }
}

/// # Safety
/// As [`lent`].
unsafe fn kept<'a, L>(context: *mut ()) -> &'a mut Kept {
    // SAFETY: the caller's promise.
    unsafe { &mut (*context.cast::<Slot<L>>()).kept }
}

/// Memory for the future of a run, which has the same type each time.
struct Room {
    memory: NonNull<u8>,
    layout: Layout,
    /// Whether there is a future in it.
    full: bool,
}

impl Room {
    const NONE: Room = Room { memory: NonNull::dangling(), layout: Layout::new::<()>(), full: false };

    /// Moves a future in. The room must be empty.
    fn put<F>(&mut self, future: F) {
        let layout = Layout::new::<F>();
        if self.layout != layout && layout.size() > 0 {
            // SAFETY: its size is not 0.
            let memory = unsafe { alloc::alloc(layout) };
            let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
            *self = Room { memory, layout, full: false };
        }
        // SAFETY: the memory has this layout, and nothing is in it.
        unsafe { self.memory.cast::<F>().write(future) };
        self.full = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `put` got it with this layout.
            unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) }
        }
    }
}

/// # Safety
/// As the wire's `run`. Without `awaited` the future waits on its thread.
unsafe fn put_run<L: AsyncLambda>(
    context: *mut (),
    exchange: *const Exchange<'static>,
    failure: *mut Failure,
    awaited: bool,
    out: &mut Future,
) {
    // SAFETY: the caller's promise: it stays until the future is dropped, the longest that anything here uses it.
    let exchange = unsafe { &*exchange };
    // SAFETY: as above; `Request` and `Response` keep the rules about what is called at the same time.
    let exchange = unsafe { ExchangeRef::new(exchange) };
    // SAFETY: the caller's promise; until the future is dropped, only the future uses this half.
    let Lent { started, scratch } = unsafe { lent::<L>(context) };
    // SAFETY: the caller's promise.
    let kept = unsafe { kept::<L>(context) };
    let async_host = kept.async_host.filter(|_| awaited);
    let future = running(started.as_mut(), exchange, scratch, kept.limit, async_host);
    kept.exchange = awaited.then_some(exchange);
    kept.failure = failure;
    kept.n_polls = 0;
    put::<L, _>(context, kept, future, out);
}

/// One run, from the request to the end of the answer.
async fn running<L: AsyncLambda>(
    started: Started<'static, L>,
    exchange: ExchangeRef<'static>,
    scratch: &'static mut Scratch,
    limit: usize,
    async_host: Option<AsyncHostRef>,
) -> Result {
    // SAFETY: it is a local of this future, which is dropped before the exchange ends, and lent to Run alone.
    let request = unsafe { Request::new(exchange) }.awaited(Source::new(async_host));
    let delivery = if L::OPTIONS.streams_response() { Delivery::Awaited } else { Delivery::Whole };
    let response = Response::new(exchange, scratch, delivery, limit);
    let mut response = AsyncResponse::new(response, async_host);
    let outcome = L::run(started, &request, &mut response).await;
    response.finish(outcome).await
}

/// Puts a run's future into its slot.
fn put<L: AsyncLambda, F>(context: *mut (), kept: &mut Kept, future: F, out: &mut Future)
where
    F: future::Future<Output = Result> + Send + 'static,
{
    kept.room.put(future);
    *out = Future { data: context, poll: poll_run::<L, F>, drop: drop_run::<L, F> };
}

/// Contract of `poll_run` and `drop_run`: `context` is that of a `put` with the same types, by the wire's rules about
/// futures.
unsafe extern "C" fn poll_run<L: AsyncLambda, F>(context: *mut (), waker: *const Waker) -> Status
where
    F: future::Future<Output = Result> + Send + 'static,
{
    // SAFETY: the contract above; polls come one at a time, and this half is not the future's.
    let kept = unsafe { kept::<L>(context) };
    if !kept.room.full {
        return status::INVALID;
    }
    if let Some(exchange) = kept.exchange.take()
        && spawned::is_likely()
    {
        // SAFETY: the contract above; it is not polled here after that.
        kept.spawned = unsafe { spawn::<F>(kept, exchange) };
    }
    kept.n_polls = kept.n_polls.saturating_add(1);
    let future = kept.room.memory.cast::<F>().as_ptr();
    let poll = |waker: &task::Waker| match &kept.spawned {
        Some(spawned) => spawned.poll(waker),
        // SAFETY: `put` moved it there, and whoever asked for the run keeps the failure until `drop`.
        None => unsafe { poll_in_place(future, kept.host, &kept.runtime, kept.failure, waker) },
    };
    // SAFETY: the loader's promise, by the wire's contract of `poll`.
    let status = unsafe { waker::borrow(waker, poll) };
    if status != status::PENDING {
        kept.room.full = false;
        kept.spawned = None;
        spawned::learn(kept.n_polls > 2);
    }
    status
}

/// Lets the run's future go on as a task of the runtime, if the loader agrees.
///
/// # Safety
/// The room holds an `F`, which nobody else polls or drops before the task is cancelled.
unsafe fn spawn<F>(kept: &Kept, exchange: ExchangeRef<'static>) -> Option<Spawned>
where
    F: future::Future<Output = Result> + Send + 'static,
{
    let spawn_host = kept.spawn_host.filter(|host| host.may_spawn(exchange))?;
    let (host, runtime) = (kept.host, kept.runtime.clone());
    let (future, failure) = (Carried(kept.room.memory.cast::<F>().as_ptr()), Carried(kept.failure));
    let poll = move |waker: &task::Waker| {
        let (Carried(future), Carried(failure)) = (&future, &failure);
        let poll =
            // SAFETY: the caller's promise; both stay until the task is through with the run, or cancelled.
            || unsafe { poll_in_place(*future, host, &runtime, *failure, waker) };
        spawn_host.inside(exchange, poll)
    };
    Some(Spawned::new(&kept.runtime, spawn_host, poll))
}

/// Polls a run's future. Whenever this is not PENDING, the future is gone.
///
/// # Safety
/// `future` is there, and not moved until it is dropped; nobody else uses `failure` meanwhile.
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
    let mut is_there = true;
    let status = fence(host, failure, || {
        let _entered = runtime.enter();
        // SAFETY: the caller's promise.
        let running = unsafe { &mut *future };
        // SAFETY: as above.
        let pinned = unsafe { Pin::new_unchecked(running) };
        let polled = poll(pinned, waker);
        if polled.is_ready() {
            // Here, so that the runtime need not be entered again.
            is_there = false;
            // SAFETY: nothing uses it any more.
            unsafe { future.drop_in_place() };
        }
        polled.map(verdict)
    });
    if status == status::PANIC && is_there {
        // SAFETY: as above: what is left of it after a panic.
        discard(host, runtime, || unsafe { future.drop_in_place() });
    }
    status
}

unsafe extern "C" fn drop_run<L: AsyncLambda, F>(context: *mut ()) {
    // SAFETY: the contract above; no poll comes any more.
    let Kept { host, runtime, room, spawned, exchange, .. } = unsafe { kept::<L>(context) };
    *exchange = None;
    if std::mem::take(&mut room.full) {
        let future = room.memory.cast::<F>().as_ptr();
        // SAFETY: `put` moved it there, and it was not dropped yet.
        let drop = || discard(*host, runtime, || unsafe { future.drop_in_place() });
        match spawned.take() {
            Some(spawned) => spawned.cancel(drop),
            None => drop(),
        }
    }
}

fn poll<F: future::Future>(future: Pin<&mut F>, waker: &task::Waker) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(waker))
}

/// Drops something of the author's. A panic in it is in the log, and ends here.
fn discard(host: HostRef, runtime: &Handle, drop: impl FnOnce()) {
    fence(host, &mut Failure::new(), || {
        let _entered = runtime.enter();
        drop();
        Poll::Ready(Ok(()))
    });
}

/// A future of a step that is rare enough for a box of its own.
struct Boxed<F> {
    host: HostRef,
    runtime: Handle,
    failure: *mut Failure,
    /// `None` once it is done.
    future: Option<F>,
}

impl<F: future::Future<Output = Verdict> + Send> Boxed<F> {
    fn put(host: HostRef, runtime: Handle, failure: *mut Failure, future: F, out: &mut Future) {
        let boxed = Box::new(Boxed { host, runtime, failure, future: Some(future) });
        *out = Future { data: Box::into_raw(boxed).cast(), poll: Self::poll, drop: Self::drop };
    }

    unsafe extern "C" fn poll(data: *mut (), waker: *const Waker) -> Status {
        // SAFETY: `put` made it; polls come one at a time, before `drop`.
        let Boxed { host, runtime, failure, future } = unsafe { &mut *data.cast::<Self>() };
        if future.is_none() {
            return status::INVALID;
        }
        // SAFETY: whoever asked for the future keeps it until `drop`.
        let failure = unsafe { &mut **failure };
        let status = fence(*host, failure, || {
            let _entered = runtime.enter();
            let Some(running) = future else { return Poll::Pending };
            // SAFETY: it is in a box, and not moved until it is dropped.
            let pinned = unsafe { Pin::new_unchecked(running) };
            // SAFETY: the loader's promise, by the wire's contract of `poll`.
            let polled = unsafe { waker::borrow(waker, |waker| poll(pinned, waker)) };
            if polled.is_ready() {
                *future = None;
            }
            polled
        });
        if status == status::PANIC {
            discard(*host, runtime, || *future = None);
        }
        status
    }

    unsafe extern "C" fn drop(data: *mut ()) {
        // SAFETY: `put` made it, and this comes once.
        let Boxed { host, runtime, future, .. } = *unsafe { Box::from_raw(data.cast::<Self>()) };
        if future.is_some() {
            discard(host, &runtime, || drop(future));
        }
    }
}

/// A pointer that a future of ours carries: whoever handed it in keeps it until the future is dropped.
struct Carried<T>(*mut T);

// SAFETY: the wire lets any thread poll, one at a time; what is behind the pointer is used in polls alone.
unsafe impl<T> Send for Carried<T> {}

unsafe extern "C" fn start<L: AsyncLambda>(
    host: &'static Host,
    context: *mut *mut (),
    failure: *mut Failure,
    out: &mut Future,
) {
    // SAFETY: the loader's promise, by the wire's contract of `start`.
    let host = unsafe { HostRef::new(host) };
    let runtime = match runtime::join(host) {
        Ok(runtime) => runtime,
        Err(err) => return put_failed(err, failure, out),
    };
    let (context, in_slot) = (Carried(context), runtime.clone());
    let starting = async move {
        let started = L::start(Params::new(host)).await;
        store(host, in_slot, started, context)
    };
    Boxed::put(host, runtime, failure, starting, out);
}

/// Makes a Context's slot of what Start made.
fn store<L>(
    host: HostRef,
    runtime: Handle,
    started: std::result::Result<L, StartError<L>>,
    context: Carried<*mut ()>,
) -> Verdict {
    let level = started.as_ref().err().map(StartError::level);
    let limit = host.attribute(host_attribute::RESPONSE_LIMIT).and_then(|text| text.parse().ok());
    let kept = Kept {
        host,
        runtime,
        async_host: AsyncHostRef::find(host),
        spawn_host: SpawnHostRef::find(host),
        limit: limit.unwrap_or(usize::MAX),
        room: Room::NONE,
        failure: std::ptr::null_mut(),
        exchange: None,
        n_polls: 0,
        spawned: None,
    };
    let slot = Box::into_raw(Box::new(Slot { lent: Lent { started, scratch: Scratch::default() }, kept }));
    // Stored before the author's `Display` runs, which may panic: the loader stops what is not null.
    // SAFETY: by the contract of `start`, it stays until its future is dropped.
    unsafe { *context.0 = slot.cast() };
    // SAFETY: just made; the loader doesn't use it before the future is done.
    let started = unsafe { &(*slot).lent.started };
    match (started, level) {
        (Err(failed), Some(level)) => Err((level, failed.to_string())),
        _ => Ok(()),
    }
}

/// A Start that has failed already.
fn put_failed(err: crate::Error, failure: *mut Failure, out: &mut Future) {
    // SAFETY: by the contract of `start`, it stays until the future is dropped.
    let failure = unsafe { &mut *failure };
    failure.level = err.level() as u32;
    failure.text = err.to_string().into();
    unsafe extern "C" fn poll(_: *mut (), _: *const Waker) -> Status {
        status::ERROR
    }
    *out = Future { poll, ..Future::NONE };
}

unsafe extern "C" fn run<L: AsyncLambda>(
    context: *mut (),
    exchange: *const Exchange<'static>,
    failure: *mut Failure,
    out: &mut Future,
) {
    // SAFETY: the caller's duty is the callee's condition.
    unsafe { put_run::<L>(context, exchange, failure, true, out) }
}

unsafe extern "C" fn stop<L: AsyncLambda>(context: *mut (), failure: *mut Failure, out: &mut Future) {
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

unsafe extern "C" fn init<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
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
    let status = wait(future);
    if status != status::OK {
        // There will be no Retire.
        runtime::leave(host);
    }
    status
}

unsafe extern "C" fn retire<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the wire's contract of `retire`.
    let host = unsafe { HostRef::new(host) };
    let mut status = status::OK;
    if let Ok(runtime) = runtime::join(host) {
        let mut future = Future::NONE;
        Boxed::put(host, runtime.clone(), failure, async { verdict(L::retire().await) }, &mut future);
        status = wait(future);
        discard(host, &runtime, || drop(runtime::take_kept(host)));
    }
    fence(host, &mut Failure::new(), || {
        runtime::leave(host);
        Poll::Ready(Ok(()))
    });
    status
}

unsafe extern "C" fn ready<L: AsyncLambda>(host: &'static Host, failure: &mut Failure) -> Status {
    // SAFETY: the loader's promise, by the contract of `Ready::ready`.
    let host = unsafe { HostRef::new(host) };
    // The generation has joined, and has not left.
    let Ok(runtime) = runtime::join(host) else { return status::UNSUPPORTED };
    let mut future = Future::NONE;
    Boxed::put(host, runtime, failure, async { verdict(L::ready().await) }, &mut future);
    wait(future)
}

unsafe extern "C" fn start_waiting<L: AsyncLambda>(
    host: &'static Host,
    context: &mut *mut (),
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; both pointers stay until `wait` returns.
    unsafe { start::<L>(host, context, failure, &mut future) };
    wait(future)
}

unsafe extern "C" fn run_waiting<L: AsyncLambda>(
    context: *mut (),
    exchange: &Exchange<'_>,
    failure: &mut Failure,
) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; all of it stays until `wait` returns.
    unsafe { put_run::<L>(context, std::ptr::from_ref(exchange).cast(), failure, false, &mut future) };
    wait(future)
}

unsafe extern "C" fn stop_waiting<L: AsyncLambda>(context: *mut (), failure: &mut Failure) -> Status {
    let mut future = Future::NONE;
    // SAFETY: the caller's duty is the callee's condition; `failure` stays until `wait` returns.
    unsafe { stop::<L>(context, failure, &mut future) };
    wait(future)
}

/// Polls a future of ours to its end on this thread. It is no `Runtime::block_on`, which panics where a program's
/// thread is inside the same tokio already.
fn wait(future: Future) -> Status {
    let woken = Arc::new(Sleeper { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = task::Waker::from(Arc::clone(&woken));
    loop {
        // SAFETY: made in this file, and polled by nobody else.
        let status = waker::lend(&waker, |waker| unsafe { (future.poll)(future.data, waker) });
        if status != status::PENDING {
            // SAFETY: as above, once.
            unsafe { (future.drop)(future.data) };
            return status;
        }
        while !woken.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// A thread that waits for a future.
struct Sleeper {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
