//! What a function platform does, and what gatepost does about it: how an answer's outcome is told ([`outcome`]), what is
//! refused before a call is made that is billed ([`sizes`]), what of headers is nobody's business ([`headers`]), how its
//! endpoints want calls signed ([`sign`]).
//!
//! Pure: the clock is an argument. All but the signatures is by data: the presets in `presets/`, which the config room
//! reads with the functions, for a preset is nothing but what the keys of a function are where they are left out.

pub mod headers;
pub mod outcome;
pub mod sign;
pub mod sizes;
