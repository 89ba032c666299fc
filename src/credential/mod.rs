//! Tokens that are fetched: what is asked, what an answer must be, when to ask again. Pure: clock and dice are arguments, and `serve` asks.

pub mod gcp;
pub mod pace;
