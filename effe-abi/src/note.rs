//! Info and the build record as ELF notes: `effe-loader --info` and `effe-tool inspect` read them from the file of a
//! plugin and run nothing of it.
//!
//! What they say is left to `info.rs` and `export.rs`; their name and types are the wire's (`c_root.rs`).

use crate::c_root::{NOTE_BUILD, NOTE_INFO, NOTE_NAME};

/// The section `.note.effe`: a note for Info, and one for the build record. The lengths are those of [`note_len`].
#[repr(C)]
pub struct Notes<const INFO: usize, const BUILD: usize> {
    info: Note<INFO>,
    build: Note<BUILD>,
}

/// One note, as ELF lays it out: the lengths of its name and of its description, its type, and both, each padded to 4
/// bytes.
#[repr(C, align(4))]
struct Note<const LEN: usize> {
    name_len: u32,
    text_len: u32,
    kind: u32,
    name: [u8; 8],
    text: [u8; LEN],
}

/// Number of bytes that `text` takes in a note, with its NUL and padded.
pub const fn note_len(text: &str) -> usize {
    (text.len() + 1).next_multiple_of(4)
}

/// Both notes.
pub const fn notes<const INFO: usize, const BUILD: usize>(info: &str, build: &str) -> Notes<INFO, BUILD> {
    Notes { info: note(NOTE_INFO, info), build: note(NOTE_BUILD, build) }
}

const fn note<const LEN: usize>(kind: u32, text: &str) -> Note<LEN> {
    assert!(LEN == note_len(text));
    let mut name = [0; 8];
    copy(&NOTE_NAME, &mut name);
    let mut padded = [0; LEN];
    copy(text.as_bytes(), &mut padded);
    let (name_len, text_len) = (NOTE_NAME.len() as u32, text.len() as u32 + 1);
    Note { name_len, text_len, kind, name, text: padded }
}

const fn copy(from: &[u8], to: &mut [u8]) {
    let mut n = 0;
    while n < from.len() {
        to[n] = from[n];
        n += 1;
    }
}
