//! The threads of actix-server, as far as it does not look after them itself: whether all of them have begun, and
//! whether one of them has died.

use std::{
    future::poll_fn,
    io,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
};

use actix_web::dev::Server;

use crate::journal::panic_text;

/// The names that actix-server gives to its threads begin like this.
const OURS: &str = "actix-";
const ACCEPTOR: &str = "actix-server acceptor";

/// Hears that a thread of the server has died, on whichever thread notices it.
pub type OnDeath = Arc<dyn Fn(&str) + Send + Sync>;

/// Has the server make its threads. When this returns, each of them runs, and has what it serves connections with.
///
/// actix-server panics where the system refuses a thread or a descriptor. That panic is not logged here: it becomes the
/// error. Later on, `on_death` hears of a panic of the thread that accepts, which nothing else notices; what is
/// returned is true from then on.
pub async fn start(server: &mut Server, on_death: OnDeath) -> io::Result<Arc<AtomicBool>> {
    let is_deaf = Arc::new(AtomicBool::new(false));
    let held = Arc::new(Mutex::new(Some(Vec::new())));
    let (starter, before) = (thread::current().id(), panic::take_hook());
    panic::set_hook(Box::new({
        let (held, is_deaf) = (Arc::clone(&held), Arc::clone(&is_deaf));
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
                on_death(name);
            }
        }
    }));
    // The first poll makes the threads, and waits for each.
    let begun =
        poll_fn(|cx| Poll::Ready(panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *server).poll(cx)))));
    let begun = begun.await;
    let panics = lock(&held).take().unwrap_or_default();
    match begun {
        Ok(Poll::Pending) => Ok(is_deaf),
        Ok(Poll::Ready(Ok(()))) => Err(io::Error::other("the server has ended at once")),
        // The error of a thread that can't be made comes wrapped.
        Ok(Poll::Ready(Err(err))) => Err(match err.into_inner().map(|inner| inner.downcast::<io::Error>()) {
            Some(Ok(inner)) => *inner,
            Some(Err(other)) => io::Error::other(other),
            None => io::ErrorKind::Other.into(),
        }),
        Err(_) => Err(reason(&panics)),
    }
}

/// The error of the system's that the first of some panics tells of, if one does.
fn reason(panics: &[String]) -> io::Error {
    let code = |text: &String| {
        let (_, code) = text.split_once("Os { code: ")?;
        code.split(',').next()?.parse().ok()
    };
    match panics.iter().find_map(code) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(panics.join("; ")),
    }
}

/// Tells `on_death` when it is dropped: a thread of the server has it for as long as it lives.
pub struct Alive(pub OnDeath);

impl Drop for Alive {
    fn drop(&mut self) {
        (self.0)(thread::current().name().unwrap_or("of the server"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_dependency_tells_the_systems_error() {
        let said = |texts: &[&str]| reason(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let texts = [
            "called `Result::unwrap()` on an `Err` value: Os { code: 24, kind: Uncategorized, message: \"Too many\" }",
            "called `Result::unwrap()` on an `Err` value: RecvError",
        ];
        assert_eq!(said(&texts).raw_os_error(), Some(24));
        assert_eq!(said(&["one", "two"]).to_string(), "one; two");
    }
}
