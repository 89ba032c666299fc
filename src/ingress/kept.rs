//! The beginning of a request's body, kept for another attempt.

use bytes::{Bytes, BytesMut};

/// What is kept at most.
const MOST: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    is_cut: bool,
}

impl Kept {
    pub fn keep(&mut self, piece: &Bytes) {
        if self.is_cut || piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        if self.bytes > MOST {
            *self = Self { is_cut: true, ..Self::default() };
        } else {
            self.pieces.push(piece.clone());
        }
    }

    /// All that has come, unless it was too much.
    pub fn whole(&self) -> Option<Bytes> {
        match &*self.pieces {
            [] => None,
            [one] => Some(one.clone()),
            many => {
                let mut whole = BytesMut::with_capacity(self.bytes);
                many.iter().for_each(|piece| whole.extend_from_slice(piece));
                Some(whole.freeze())
            }
        }
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}
