//! The threads of actix-server, as far as it does not look after them itself: whether all of them have begun, and
//! whether one of them has died.

use std::{
    fs,
    future::poll_fn,
    io,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
};

use actix_web::dev::Server;

use crate::{
    exchange::table::is_in_run,
    rt::panics::{panic_text, reason},
};

/// The names that actix-server gives to its threads begin like this.
const OURS: &str = "actix-";
const ACCEPTOR: &str = "actix-server acceptor";

/// Hears that a thread of the server has died, on whichever thread notices it.
pub type OnDeath = Arc<dyn Fn(&str) + Send + Sync>;

/// Notices the deaths of the server's threads: until all have begun a death fails the start, then it is told of.
pub struct Deaths {
    on_death: OnDeath,
    /// Who has died too early; `None` once all have begun.
    early: Mutex<Option<Vec<String>>>,
}

impl Deaths {
    pub fn new(on_death: OnDeath) -> Arc<Deaths> {
        Arc::new(Deaths { on_death, early: Mutex::new(Some(Vec::new())) })
    }

    fn note(&self, thread: &str) {
        if let Some(early) = &mut *lock(&self.early) {
            early.push(thread.to_owned());
            return;
        }
        (self.on_death)(thread);
    }

    fn all_have_begun(&self) -> io::Result<()> {
        match lock(&self.early).take().unwrap_or_default().first() {
            Some(thread) => Err(io::Error::other(format!("thread {thread} has died"))),
            None => Ok(()),
        }
    }
}

/// Has the server make its threads. When this returns, each of them runs, and has what it serves connections with.
///
/// actix-server panics where the system refuses a thread or a descriptor. That panic is not logged here: it becomes the
/// error. Later on, `deaths` hears of a panic of the thread that accepts, which nothing else notices; what is
/// returned is true from then on.
pub async fn start(server: &mut Server, deaths: Arc<Deaths>) -> io::Result<Arc<AtomicBool>> {
    let is_deaf = Arc::new(AtomicBool::new(false));
    let held = Arc::new(Mutex::new(Some(Vec::new())));
    let (starter, before) = (thread::current().id(), panic::take_hook());
    panic::set_hook(Box::new({
        let (held, is_deaf, deaths) = (Arc::clone(&held), Arc::clone(&is_deaf), Arc::clone(&deaths));
        move |info| {
            let thread = thread::current();
            let name = thread.name().unwrap_or_default();
            if (thread.id() == starter || name.starts_with(OURS))
                && let Some(held) = &mut *lock(&held)
            {
                held.push(panic_text(info).to_owned());
                return;
            }
            before(info);
            if name == ACCEPTOR {
                is_deaf.store(true, Ordering::Relaxed);
                deaths.note(name);
            }
        }
    }));
    // The first poll makes the threads, and waits for each.
    let begun =
        poll_fn(|cx| Poll::Ready(panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *server).poll(cx)))));
    let begun = begun.await;
    let panics = lock(&held).take().unwrap_or_default();
    match begun {
        Ok(Poll::Pending) if panics.is_empty() => deaths.all_have_begun().map(|()| is_deaf),
        Ok(Poll::Pending) | Err(_) => Err(reason(&panics)),
        Ok(Poll::Ready(Ok(()))) => Err(io::Error::other("the server has ended at once")),
        // The error of a thread that can't be made comes wrapped.
        Ok(Poll::Ready(Err(err))) => Err(err.downcast().unwrap_or_else(|err| err)),
    }
}

/// The thread that accepts, as the system sees it; and others of this name, which a lambda may have.
pub struct Acceptor(Vec<PathBuf>);

impl Acceptor {
    pub fn find() -> Acceptor {
        // The system keeps 15 bytes of a name.
        let name = &ACCEPTOR[..15];
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let files = threads.map(|thread| thread.path().join("stat"));
        let files = files.filter(|file| fs::read_to_string(file).is_ok_and(|stat| stat.contains(name)));
        Acceptor(files.collect())
    }

    /// Whether it sleeps, as it does only while it waits for something to do: then it has done what it was told before.
    /// True where the system doesn't say.
    pub fn sleeps(&self) -> bool {
        let sleeps = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'));
        // A thread that has ended is no file any more.
        self.0.iter().all(|file| fs::read_to_string(file).map_or(true, sleeps))
    }
}

/// Tells of a death when it is dropped: a thread of the server has it for as long as it lives.
pub struct Alive(pub Arc<Deaths>);

impl Drop for Alive {
    fn drop(&mut self) {
        // A lambda that calls `exit` in a run has the thread's variables dropped, too: `process/exit.rs` tells of it.
        if is_in_run() {
            return;
        }
        self.0.note(thread::current().name().unwrap_or("of the server"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
