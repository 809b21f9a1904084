//! An `exit` that nobody has ordered: a lambda, or a library of its, ends the process while it serves. It raises no
//! signal, and would end the effe without a word, and with an exit code that says that all is well.
#![expect(unsafe_code, reason = "a function for the C library to call")]

use std::{
    io, process,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

type OnExit = Box<dyn Fn() + Send + Sync>;

static ON_EXIT: OnceLock<(u32, OnExit)> = OnceLock::new();
static IS_EXPECTED: AtomicBool = AtomicBool::new(false);

/// Has `on_exit` called on the thread that calls `exit`, in this process and not in a child that it forks, unless the
/// exit is [expected](expect). To be called once. Fails if the C library has no room for a function to be called.
pub fn watch(on_exit: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let _ = ON_EXIT.set((process::id(), Box::new(on_exit)));
    // SAFETY: `at_exit` is a function without conditions.
    if unsafe { libc::atexit(at_exit) } != 0 {
        return Err(io::Error::other("no room for a function to be called at exit"));
    }
    Ok(())
}

/// The process ends as it should: an `exit` is no fault any more.
pub fn expect() {
    IS_EXPECTED.store(true, Ordering::Relaxed);
}

extern "C" fn at_exit() {
    if let Some((process, on_exit)) = ON_EXIT.get()
        && !IS_EXPECTED.load(Ordering::Relaxed)
        && *process == process::id()
    {
        on_exit();
    }
}
