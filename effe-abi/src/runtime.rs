//! The tokio runtime of a lambda: each generation has one, which Init makes and Retire ends.
//!
//! Each generation is loaded as a library of its own, with its own statics, so the runtime is in a static. In a test,
//! several effes may be in one program: then they share the runtime, and the last one to retire ends it.
//!
//! What runs in it is left to `async_entries.rs` and `spawned.rs`.

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
/// How long Retire waits for tasks that are being polled, and for blocking ones.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    /// Whether this is a thread of the runtime.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// The runtime for the generation of `host`, made if there is none. It lasts until `leave`.
///
/// # Errors
/// The parameter is no number above 0, or the threads can't be started.
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

/// Keeps a value for the Contexts of a generation.
#[cfg(feature = "tower")]
pub(crate) fn keep<T: Send + 'static>(host: HostRef, value: T) {
    if let Some(user) = shared().users.iter_mut().find(|user| user.host == host.address()) {
        user.kept = Some(Box::new(value));
    }
}

/// A clone of the value that `keep` keeps.
#[cfg(feature = "tower")]
pub(crate) fn kept<T: Clone + 'static>(host: HostRef) -> Option<T> {
    let shared = shared();
    let user = shared.users.iter().find(|user| user.host == host.address())?;
    user.kept.as_ref()?.downcast_ref().cloned()
}

/// Takes the value that `keep` keeps, so that the caller can drop it inside the runtime.
pub(crate) fn take_kept(host: HostRef) -> Option<Box<dyn Any + Send>> {
    let mut shared = shared();
    shared.users.iter_mut().find(|user| user.host == host.address())?.kept.take()
}

/// Notes that the generation of `host` is over. After the last one, the runtime ends: its tasks are dropped, and its
/// threads end.
pub(crate) fn leave(host: HostRef) {
    let mut shared = shared();
    shared.users.retain(|user| user.host != host.address());
    if shared.users.is_empty() {
        let runtime = shared.runtime.take();
        drop(shared);
        match runtime {
            // An async test drops its effe inside its own runtime, where waiting isn't allowed.
            Some(runtime) if Handle::try_current().is_ok() => runtime.shutdown_background(),
            Some(runtime) => runtime.shutdown_timeout(SHUTDOWN_TIMEOUT),
            None => {}
        }
    }
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
    /// The address of its host's table.
    host: usize,
    /// What its Contexts share. It is dropped after the last of them.
    kept: Option<Box<dyn Any + Send>>,
}

fn shared() -> MutexGuard<'static, Shared> {
    static SHARED: Mutex<Shared> = Mutex::new(Shared { runtime: None, users: Vec::new() });
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Half of the CPUs: most runs are polled on the loader's threads, and the runtime's drive I/O, timers and spawned
/// tasks.
fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}
