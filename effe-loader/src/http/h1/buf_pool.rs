//! Buffers that no connection needs now. One that waits has none: there may be thousands of those.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a buffer that nothing was asked of yet.
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

/// Takes one back.
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
