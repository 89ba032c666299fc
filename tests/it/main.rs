//! One binary, a file per capability, named in users' words.

mod architecture;
mod shipped_configs;
