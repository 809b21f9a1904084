//! What outlives the death of a supervised process: its connections, kept open by copies of their descriptors that the
//! supervisor holds (the escrow), and what each of them was doing, in memory that both share (the scoreboard).
//!
//! A process that isn't supervised has none of this. The supervisor's side is in `supervisor/escrow.rs`.

pub mod board;
pub mod entry;
pub mod escrow;
pub mod fault;
pub mod global;
pub mod hand_over;
pub mod note;
pub mod record;
pub mod slot;
pub mod thread;
