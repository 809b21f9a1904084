//! The tokio runtime of a lambda: one for each generation, made by Init, ended by Retire.
//!
//! A generation is an image of its own, and so are its statics. In a test, several effes share the image: then they
//! share the runtime too, and the last to retire ends it.

use std::{
    any::Any,
    cell::Cell,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{calls::HostRef, error::Result, params::Params};

/// The operator's parameter for the number of threads.
const THREADS: &str = "runtime-threads";
/// How long Retire waits for tasks that are in the midst of a poll, and for blocking ones.
const PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one of the runtime's.
#[cfg(feature = "http")]
pub(crate) fn is_own_thread() -> bool {
    OWN.get()
}

struct Shared {
    runtime: Option<Runtime>,
    users: Vec<User>,
}

/// A generation that needs the runtime.
struct User {
    /// Its host's address.
    host: usize,
    /// What its Contexts share; dropped after the last of them.
    kept: Option<Box<dyn Any + Send>>,
}

fn shared() -> MutexGuard<'static, Shared> {
    static SHARED: Mutex<Shared> = Mutex::new(Shared { runtime: None, users: Vec::new() });
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime, for as long as the generation of `host` lasts.
///
/// # Errors
/// The parameter is no number above 0, or the system has no room for the threads.
pub(crate) fn join(host: HostRef) -> Result<Handle> {
    let mut shared = shared();
    let handle = match &shared.runtime {
        Some(runtime) => runtime.handle().clone(),
        None => {
            let threads = match Params::new(host).parse::<usize>(THREADS)? {
                Some(0) => return Err(format!("the parameter `{THREADS}` is 0; give it 1 or more").into()),
                Some(threads) => threads,
                None => default_threads(),
            };
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name("effe-lambda").on_thread_start(|| OWN.set(true));
            let runtime = builder.enable_all().build();
            let runtime = runtime.map_err(|err| format!("the runtime's threads can't be started: {err}"))?;
            shared.runtime.insert(runtime).handle().clone()
        }
    };
    if !shared.users.iter().any(|user| user.host == host.address()) {
        shared.users.push(User { host: host.address(), kept: None });
    }
    Ok(handle)
}

/// Keeps something for the Contexts of a generation.
#[cfg(feature = "tower")]
pub(crate) fn keep<T: Send + 'static>(host: HostRef, value: T) {
    if let Some(user) = shared().users.iter_mut().find(|user| user.host == host.address()) {
        user.kept = Some(Box::new(value));
    }
}

/// A clone of what is kept.
#[cfg(feature = "tower")]
pub(crate) fn kept<T: Clone + 'static>(host: HostRef) -> Option<T> {
    let shared = shared();
    let user = shared.users.iter().find(|user| user.host == host.address())?;
    user.kept.as_ref()?.downcast_ref().cloned()
}

/// What was kept for the generation of `host`, for the caller to drop inside the runtime.
pub(crate) fn take_kept(host: HostRef) -> Option<Box<dyn Any + Send>> {
    let mut shared = shared();
    shared.users.iter_mut().find(|user| user.host == host.address())?.kept.take()
}

/// The generation of `host` is over. The last one ends the runtime: its tasks are dropped, its threads end.
pub(crate) fn leave(host: HostRef) {
    let mut shared = shared();
    shared.users.retain(|user| user.host != host.address());
    if shared.users.is_empty() {
        let runtime = shared.runtime.take();
        drop(shared);
        match runtime {
            // A test that is async itself: waiting is not allowed here.
            Some(runtime) if Handle::try_current().is_ok() => runtime.shutdown_background(),
            Some(runtime) => runtime.shutdown_timeout(PATIENCE),
            None => {}
        }
    }
}

/// Runs are polled on the loader's threads; these only drive I/O, timers and what the lambda spawns.
fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}
