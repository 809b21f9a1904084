//! One connection of a supervised process: its slot and its entry, word for word, and what stands in for the rest.

pub mod board;
pub mod escrow;
pub mod global;
pub mod record;
pub mod thread;

#[expect(missing_docs, clippy::new_without_default, reason = "it is private in the loader")]
#[path = "../../../src/rescue/entry.rs"]
pub mod entry;
#[expect(missing_docs, reason = "it is private in the loader")]
#[path = "../../../src/rescue/slot.rs"]
pub mod slot;
