//! What a process that crashes says of it to its supervisor. It is written in a handler of signals, without memory from
//! the allocator, and read from a process that may say anything.

use super::record::TEXT;

/// What tells of a crash, as bytes: signal, code, thread, flags; address, program counter, generation; the length of
/// the text, the place in the plugin, and method and path.
pub struct Note {
    pub signal: i32,
    pub code: i32,
    pub thread: i32,
    /// Whether the crash was in a run.
    pub is_in_run: bool,
    pub address: u64,
    pub counter: u64,
    /// The same in the plugin's file; 0 if it was elsewhere.
    pub place: u64,
    pub generation: u64,
    pub len: usize,
    pub text: [u8; TEXT],
}

impl Note {
    pub const SIZE: usize = 56 + TEXT;

    pub(super) fn new(thread: i32) -> Note {
        Note {
            signal: 0,
            code: 0,
            thread,
            is_in_run: false,
            address: 0,
            counter: 0,
            place: 0,
            generation: 0,
            len: 0,
            text: [0; TEXT],
        }
    }

    pub fn bytes(&self) -> [u8; Note::SIZE] {
        let mut bytes = [0; Note::SIZE];
        bytes[0..4].copy_from_slice(&self.signal.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.code.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.thread.to_ne_bytes());
        bytes[12] = self.is_in_run.into();
        bytes[16..24].copy_from_slice(&self.address.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.counter.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_ne_bytes());
        bytes[40..48].copy_from_slice(&(self.len as u64).to_ne_bytes());
        bytes[48..56].copy_from_slice(&self.place.to_ne_bytes());
        bytes[56..].copy_from_slice(&self.text);
        bytes
    }

    /// Reads the body of a message; `None` if it is none.
    pub fn read(bytes: &[u8]) -> Option<Note> {
        let word = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Note {
            signal: word(0)?,
            code: word(4)?,
            thread: word(8)?,
            is_in_run: *bytes.get(12)? != 0,
            address: long(16)?,
            counter: long(24)?,
            generation: long(32)?,
            len: usize::try_from(long(40)?).unwrap_or(TEXT).min(TEXT),
            place: long(48)?,
            text: bytes.get(56..56 + TEXT)?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let mut note = Note::new(7);
        (note.signal, note.address, note.counter, note.generation, note.len) = (11, 1 << 40, 2, 3, 6);
        note.text[..6].copy_from_slice(b"GET /a");
        note.is_in_run = true;
        let read = Note::read(&note.bytes()).unwrap();
        assert_eq!((read.signal, read.thread, read.address), (11, 7, 1 << 40));
        assert_eq!((read.counter, read.generation, read.is_in_run), (2, 3, true));
        assert_eq!(&read.text[..read.len], b"GET /a");
        assert!(Note::read(&note.bytes()[1..]).is_none());
    }
}
