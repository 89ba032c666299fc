//! (being built)

pub mod generations;
pub mod notify;
pub mod receipt;
pub mod requests;
pub mod watch;
