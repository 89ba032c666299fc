//! The id of a request, in every answer, log line and call of a function.

use http::HeaderValue;

use super::live;

/// Longest id that is taken over from a trusted proxy.
const LONGEST: usize = 128;

/// A new id: 32 hex digits.
pub fn fresh() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let dice = live::roll_128().to_be_bytes();
    let mut id = [0; 32];
    for (i, byte) in dice.into_iter().enumerate() {
        id[2 * i] = HEX[usize::from(byte >> 4)];
        id[2 * i + 1] = HEX[usize::from(byte & 15)];
    }
    // Hex digits always are a valid value.
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Whether an id that a trusted proxy sent can be used: short, and without anything that a log would have to escape.
pub fn is_good(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
}
