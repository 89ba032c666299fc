//! What each function platform does: so far, how its endpoints want calls signed. Pure: the clock is an argument.

pub mod sign;
