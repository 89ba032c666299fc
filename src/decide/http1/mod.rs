//! Bytes of HTTP/1 → heads and chunks, strictly: what could be read in two ways is refused before any other parser sees it. Pure. For what
//! callers send to listeners and to egress, and for what egress is answered.

pub mod answer;
pub mod chunk;
pub mod head;
