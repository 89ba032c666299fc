//! flate2 names the functions and types of zlib's C interface in `libz_ng_sys`; they come from libz-sys here.

pub use libz_sys::*;
