//! One binary, a file per capability, named in users' words.

mod architecture;
mod refuses_a_broken_config;
