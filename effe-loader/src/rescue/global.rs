//! What a supervised process has for its rescue, and whether it is dying.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
    thread::{MembarrierCommand, membarrier},
};

use super::board::Board;

/// What a supervised process has for its rescue. It is made once, before there are threads, and never freed.
pub struct Rescue {
    pub board: Board,
    /// Descriptors go out, and those of other processes come in.
    pub escrow: OwnedFd,
    /// How long what runs may take to end after a fault.
    pub grace: Duration,
    /// Whether the system has the barrier that lets a thread be told without a barrier of its own.
    pub has_barrier: bool,
    /// The process that this is of. A child that the lambda forks has the rest, too, and is not to use it.
    pub pid: i32,
    /// A socket that nobody connects to, to be put in the place of those that accept.
    pub deaf: UnixListener,
}

pub static RESCUE: OnceLock<Rescue> = OnceLock::new();

/// [`CRASHED`] or [`LEAVING`] once what runs may end, and nothing may be read from a connection at rest; 0 before.
pub static DYING: AtomicU32 = AtomicU32::new(0);
/// This process has crashed: nothing new may be read at all.
pub const CRASHED: u32 = 1;
/// This process leaves its connections to others, and has time for it: what has come in part may come as a whole.
pub const LEAVING: u32 = 2;

/// Prepares the rescue of this process. To be called once, before there are threads.
pub fn set_up(memory: OwnedFd, escrow: OwnedFd, grace: Duration) -> io::Result<()> {
    let board = Board::map(&memory)?;
    let has_barrier = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let deaf = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The system picks a name (unix(7)): two containers may share a network, and have processes of the same number.
    bind(&deaf, &SocketAddrUnix::new_unnamed())?;
    listen(&deaf, 1)?;
    let deaf = UnixListener::from(deaf);
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let _ = RESCUE.set(Rescue { board, escrow, grace, has_barrier, pid, deaf });
    Ok(())
}

/// Copies the id of the request whose run this thread is in to where it is told, as far as it fits; how many bytes that
/// are. It is called in a handler of signals.
pub static REQUEST_ID: OnceLock<fn(&mut [u8]) -> usize> = OnceLock::new();

/// Where the plugin is mapped: its begin and its end.
pub static IMAGE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Notes where the plugin is mapped, whose file has this name in `/proc/self/maps`; then a crash can be told by its
/// place in the file.
pub fn note_image(name: &str) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let lines = maps.lines().filter(|line| line.split('/').any(|part| part.starts_with(name)));
    let ends = lines.filter_map(|line| {
        let (begin, end) = line.split(' ').next()?.split_once('-')?;
        Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    let ends: Vec<_> = ends.collect();
    if let (Some((begin, _)), Some((_, end))) = (ends.first(), ends.last()) {
        IMAGE[0].store(*begin, Ordering::Relaxed);
        IMAGE[1].store(*end, Ordering::Relaxed);
    }
}

/// What this process has, if it is supervised.
pub fn get() -> Option<&'static Rescue> {
    // So that the compiler drops what nobody can reach.
    if cfg!(feature = "processes") { RESCUE.get() } else { None }
}

pub fn is_supervised() -> bool {
    get().is_some()
}

pub fn is_dying() -> bool {
    cfg!(feature = "processes") && DYING.load(Ordering::Relaxed) != 0
}

pub fn has_crashed() -> bool {
    cfg!(feature = "processes") && DYING.load(Ordering::Relaxed) == CRASHED
}
