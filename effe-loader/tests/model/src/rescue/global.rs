//! Stands in for what a supervised process has for its rescue.

use shuttle::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use super::{board::Board, record::Record};

/// As in the loader.
pub const CRASHED: u32 = 1;
/// As in the loader.
pub const LEAVING: u32 = 2;

/// Of the process in each order of events.
pub struct Rescue {
    /// The scoreboard.
    pub board: Board,
    /// As the loader's `DYING`.
    pub dying: AtomicU32,
    /// The record of the one thread that serves.
    pub record: Record,
    /// The serials of connections whose copies need not be kept.
    pub gone: Mutex<Vec<u32>>,
}

shuttle::lazy_static! {
    static ref RESCUE: Rescue = Rescue {
        board: Board::new(),
        dying: AtomicU32::new(0),
        record: Record,
        gone: Mutex::new(Vec::new()),
    };
}

/// As in the loader.
pub fn get() -> Option<&'static Rescue> {
    Some(&RESCUE)
}

/// As in the loader.
pub fn is_dying() -> bool {
    RESCUE.dying.load(Ordering::Relaxed) != 0
}

/// As in the loader.
pub fn has_crashed() -> bool {
    RESCUE.dying.load(Ordering::Relaxed) == CRASHED
}
