//! One binary, a file per capability, named in users' words.

mod refuses_a_broken_config;
