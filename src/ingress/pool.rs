//! Buffers that a connection holds only while bytes move: per thread, so that no lock is needed.

use std::cell::RefCell;

use bytes::BytesMut;

/// What a buffer holds.
pub const SIZE: usize = 16 * 1024;
/// Free ones that a thread keeps: 1 MiB.
const KEEP: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of [`SIZE`].
pub fn take() -> BytesMut {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives a buffer back and leaves one without memory in its place.
pub fn give(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    // Reading moved its start: its memory is whole again now. One that was grown does not go back.
    if buffer.capacity() <= SIZE && buffer.try_reclaim(SIZE) {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEEP {
                free.push(buffer);
            }
        });
    }
}
