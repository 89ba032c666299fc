//! One binary, a file per capability, named in users' words.

mod architecture;
mod shipped_configs;
mod refuses_a_broken_config;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod harness_holds;
#[cfg(test)]
mod routes_by_host_and_path;
