//! The lines of an access log (JSON), one after the other.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::Context;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Outcome;

/// No line that gatepost writes is longer: what is, is no log.
const LONGEST: usize = 1 << 20;

/// Gives each line with its time (milliseconds since 1970) to `take`; says how many lines were none of an access log.
pub(super) fn each<T: DeserializeOwned>(path: &Path, mut take: impl FnMut(u64, T)) -> Outcome<u64> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut skipped = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        if next(&mut reader, &mut text).with_context(cannot)? == 0 {
            return Ok(skipped);
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match line(&text) {
            Some((at, line)) => take(at, line),
            // A copy of a request that has its own line.
            None if memchr::memmem::find(&text, b"\"kind\":\"mirror\"").is_some() => {}
            None => skipped += 1,
        }
    }
}

fn line<T: DeserializeOwned>(text: &[u8]) -> Option<(u64, T)> {
    // Those of egress have a kind.
    let value = serde_json::from_slice::<Value>(text).ok().filter(|line| line.get("kind").is_none())?;
    let at: Timestamp = value.get("ts")?.as_str()?.parse().ok()?;
    Some((u64::try_from(at.as_millisecond()).ok()?, serde_json::from_value(value).ok()?))
}

/// Reads a line, of which no more than [`LONGEST`] is kept; says how much was read.
fn next(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(read);
        }
        let end = memchr::memchr(b'\n', piece);
        let length = end.map_or(piece.len(), |end| end + 1);
        if text.len() < LONGEST {
            text.extend_from_slice(&piece[..length]);
        }
        read += length;
        reader.consume(length);
        if end.is_some() {
            return Ok(read);
        }
    }
}
