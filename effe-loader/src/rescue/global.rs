//! What a supervised process has for its rescue, and whether it is dying.

use std::{
    io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::thread::{MembarrierCommand, membarrier};

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
    /// A socket that nobody connects to, to be put in the place of those that accept.
    pub deaf: UnixListener,
}

pub static RESCUE: OnceLock<Rescue> = OnceLock::new();

/// 1 once this process has crashed: what runs may end, and nothing new may be read.
pub static DYING: AtomicU32 = AtomicU32::new(0);

/// Prepares the rescue of this process. To be called once, before there are threads.
pub fn set_up(memory: OwnedFd, escrow: OwnedFd, grace: Duration) -> io::Result<()> {
    let board = Board::map(&memory)?;
    let has_barrier = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
    let deaf =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("effe-deaf-{}", process::id()))?)?;
    deaf.set_nonblocking(true)?;
    let _ = RESCUE.set(Rescue { board, escrow, grace, has_barrier, deaf });
    Ok(())
}

/// What this process has, if it is supervised.
pub fn get() -> Option<&'static Rescue> {
    RESCUE.get()
}

pub fn is_supervised() -> bool {
    get().is_some()
}

pub fn is_dying() -> bool {
    DYING.load(Ordering::Relaxed) != 0
}
