//! How many files, sockets among them, this process may have open.

use std::fs;

use rlimit::{Resource, getrlimit, setrlimit};

/// What a thread of the server has for itself: epoll, a second descriptor of it, eventfd, the pipe of signals.
const PER_WORKER: u64 = 4;
/// The socket, and a second descriptor of it for the thread that accepts.
const PER_LISTENER: u64 = 2;
/// The admin listener's socket, and the runtime of its thread.
const ADMIN: u64 = 5;
/// The lambda's copy, signals, the runtimes of the main thread and of the one that accepts, the log's socket.
const BASE: u64 = 14;
/// For the first connections, and for what the lambda or a trial opens meanwhile.
const SPARE: u64 = 8;

/// How many descriptors this process has with all threads of its server, those included that are open now.
pub fn needed(workers: usize, listeners: usize, admin: bool) -> u64 {
    // The last one is of the directory that is being read. Where it can't be read, there are the three of a program.
    let open = fs::read_dir("/proc/self/fd").map_or(3, |open| open.count().saturating_sub(1) as u64);
    let (workers, listeners) = (workers as u64, listeners as u64);
    open + BASE + SPARE + PER_WORKER * workers + PER_LISTENER * listeners + if admin { ADMIN } else { 0 }
}

/// Raises the soft limit of open files to the hard one; how many there may be, as far as the system says.
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::NOFILE) else { return u64::MAX };
    if setrlimit(Resource::NOFILE, hard, hard).is_ok() { hard } else { soft }
}
