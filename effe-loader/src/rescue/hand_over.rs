//! How a process leaves its connections to others while nothing is wrong with it: it finishes what it runs, and each
//! connection goes on elsewhere once it is at rest. The supervisor takes the connections, as after a crash.

use std::sync::atomic::Ordering;

use rustix::thread::{MembarrierCommand, membarrier};

use super::{
    entry::{DEPOSITED, state},
    escrow::{self, Kind},
    fault,
    global::{DYING, LEAVING, get},
};

/// From now on nothing is read from a connection at rest. False if the system lacks what this needs; then all is as
/// before.
pub fn begin() -> bool {
    if !get().is_some_and(|rescue| rescue.has_barrier) {
        return false;
    }
    // If the process crashes meanwhile, that is what counts.
    let _ = DYING.compare_exchange(0, LEAVING, Ordering::SeqCst, Ordering::SeqCst);
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

/// Has the supervisor take the connections that are at rest by now; how many others there are. To be called again and
/// again.
pub fn go_on() -> usize {
    let Some(rescue) = get() else { return 0 };
    fault::deposit(rescue, |state, _| state == state::CLEAN);
    let is_gone = |state, flags| match state {
        state::FREE | state::SWEPT => true,
        state::CLEAN => flags & DEPOSITED != 0,
        _ => false,
    };
    let n_left = rescue.board.entries().iter().filter(|entry| {
        let state = entry.state.load(Ordering::SeqCst);
        !is_gone(state, entry.flags.load(Ordering::SeqCst))
    });
    let n_left = n_left.count();
    // One that can't be told now is told the next time.
    let _ = escrow::send(&rescue.escrow, Kind::Quiet, &[], &[]);
    n_left
}
