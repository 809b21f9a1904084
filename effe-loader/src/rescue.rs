//! What outlives the death of a supervised process: its connections, kept open by copies of their descriptors that the
//! supervisor holds (the escrow), and what each of them was doing, in memory that both share (the scoreboard).
//!
//! A process that isn't supervised has none of this. The supervisor's side is in `supervisor/escrow.rs`.
//!
//! Both are made in `rescue/global.rs`. Each server's thread deposits the connections that are new since its last look
//! (`net/connections.rs`), so connections that come and go cost nothing.
//!
//! - **States.** A connection's thread alone stores its state (`rescue/slot.rs`; `http/h1.rs` calls it): clean between
//!   two requests, busy while a request runs and nothing of its answer has gone, answering, partial (a piece of a
//!   head), over, never (HTTP/2; TLS has no place at all).
//! - **A fault** calls `rescue/fault.rs` on the thread that has it, on a stack of its own. The client of that run is
//!   told 500, or reset if its answer has begun. The supervisor is told of it, and starts another process. Then `DYING`
//!   is set, and a barrier makes sure that every thread sees it: they finish what they run, within `--fault-grace`, and
//!   read nothing new. Sockets that accept are put out of the way, and connections that were accepted and not yet
//!   served are swept up. Then the signal's own action ends the process, with its core dump.
//! - **Any death**, `kill -9` too, is settled by the supervisor when it reaps (`supervisor/escrow.rs`): clean
//!   connections go to other processes, which serve them as if they had accepted them (`server/adopt.rs`); a request
//!   that was busy is told 503; an answer that had begun is reset. In a process that faults this begins for clean
//!   connections while the others still run (`supervisor/rescues.rs`).
//! - **Who may answer.** A thread that begins an answer stores its state and then looks at `DYING`; whoever rescues
//!   stores `TOLD` and then looks at the state. Each has a full fence between once there is a rescue, so at worst there
//!   is no answer, and never two. Nothing is run twice.
//! - **A hanging inline run** is the same from outside: the monitor has `fault::end_hung` tell its client 504.
//! - **Not saved**: TLS and HTTP/2, connections younger than a second at a `kill -9`, async runs that wait on the
//!   thread that crashes (spawned ones, if the lambda's runtime has one thread), runs on the pool whose connections the
//!   thread has that crashes in a run of its own, answers that have begun. A lambda's own thread has no record: its
//!   request is told 503 after the grace.

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
