//! A connection's entry in the scoreboard: what its thread says of it, and what a rescue does. The model in
//! `tests/model` has this file, too.

use crate::rt::sync::AtomicU32;

/// What a connection is doing. Only its thread stores it.
pub mod state {
    /// There is none.
    pub const FREE: u32 = 0;
    /// Nothing of a request has been read, and every answer has gone to the system.
    pub const CLEAN: u32 = 1;
    /// A request is being answered, and nothing of the answer has gone.
    pub const BUSY: u32 = 2;
    /// Something of an answer has gone or waits to go.
    pub const ANSWERING: u32 = 3;
    /// Part of a request's head has been read.
    pub const PARTIAL: u32 = 4;
    /// It ends by itself, or has been ended by a rescue.
    pub const OVER: u32 = 5;
    /// Another process could not go on with it: HTTP/2.
    pub const NEVER: u32 = 6;
    /// It was accepted, and a rescue has taken it before its thread could.
    pub const SWEPT: u32 = 7;
}

/// A connection, by the number of its descriptor.
#[repr(C)]
pub struct Entry {
    pub state: AtomicU32,
    /// Which connection it is that has this descriptor now.
    pub serial: AtomicU32,
    /// The index of its thread's record.
    pub owner: AtomicU32,
    /// Whether a rescue has answered it, or the supervisor has a copy.
    pub flags: AtomicU32,
    /// Which request is read or answered on it now.
    pub request: AtomicU32,
}

impl Entry {
    /// Of no connection.
    pub const fn new() -> Entry {
        Entry {
            state: AtomicU32::new(state::FREE),
            serial: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            request: AtomicU32::new(0),
        }
    }
}

/// The supervisor has, or is about to have, a copy of the descriptor.
pub const DEPOSITED: u32 = 1;
/// A rescue has decided to answer.
pub const TOLD: u32 = 2;
