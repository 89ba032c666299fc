//! Where the gatepost of a config file is to be found: its state directory and its admin address.
//!
//! `status`, `history` and `reload` are typed when something is wrong, and the file may be what is wrong. So these two
//! values are read from it alone and leniently; what can't be read is the default, and says so.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use crate::config::model::ListenAddress;

const STATE_DIR: &str = "/var/lib/gatepost";
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Where to find it, and why that might be wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) state_dir: PathBuf,
    pub(super) admin: ListenAddress,
    /// Set where the file could not be read or parsed, so that a default had to stand in.
    pub(super) doubt: Option<String>,
}

impl Place {
    /// What the main file at `config` says.
    pub(super) fn of(config: &Path) -> Self {
        match fs::read_to_string(config) {
            Ok(text) => Self::of_text(&text, config),
            Err(error) => Self {
                state_dir: PathBuf::from(STATE_DIR),
                admin: ListenAddress::Tcp(ADMIN),
                doubt: Some(format!("cannot read {}: {error}; taking the defaults", config.display())),
            },
        }
    }

    fn of_text(text: &str, config: &Path) -> Self {
        let (root, problems) = DeTable::parse_recoverable(text);
        let value = |table: &str, key: &str| -> Option<String> {
            match root.get_ref().get(table)?.get_ref() {
                DeValue::Table(table) => Some(table.get(key)?.get_ref().as_str()?.to_owned()),
                _ => None,
            }
        };
        let state_dir = value("server", "state_dir");
        let admin = value("admin", "address").and_then(|text| parse(&text));
        let doubt = (!problems.is_empty() && (state_dir.is_none() || admin.is_none())).then(|| {
            format!(
                "{} has errors (`gatepost check` shows them); taking defaults for what it does not say",
                config.display()
            )
        });
        Self {
            // A relative one starts from the folder of the file.
            state_dir: config.parent().unwrap_or_else(|| Path::new("")).join(state_dir.as_deref().unwrap_or(STATE_DIR)),
            admin: admin.unwrap_or(ListenAddress::Tcp(ADMIN)),
            doubt,
        }
    }
}

/// `ip:port` or `unix:/path`.
pub(super) fn parse(text: &str) -> Option<ListenAddress> {
    match text.strip_prefix("unix:") {
        Some(path) => Some(ListenAddress::Unix(PathBuf::from(path))),
        None => text.parse().ok().map(ListenAddress::Tcp),
    }
}

/// Where to dial what listens on `address`: an unspecified one is reached by loopback.
pub(super) fn dialled(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Place {
        Place::of_text(text, Path::new("gatepost.toml"))
    }

    #[test]
    fn a_file_that_says_nothing_means_the_defaults() {
        let place = of("[listener.web]\naddress = \"127.0.0.1:80\"\n");
        assert_eq!(place.state_dir, Path::new("/var/lib/gatepost"));
        assert_eq!(place.admin.to_string(), "127.0.0.1:9901");
        assert_eq!(place.doubt, None);
    }

    #[test]
    fn a_relative_folder_starts_from_the_files_own() {
        let place = Place::of_text("[server]\nstate_dir = \"state\"\n", Path::new("/srv/gp/gatepost.toml"));
        assert_eq!(place.state_dir, Path::new("/srv/gp/state"));
    }

    #[test]
    fn a_broken_file_still_says_where_its_gatepost_is() {
        let place =
            of("[server]\nstate_dir = \"/srv/gp\"\n[admin]\naddress = \"unix:/run/gp.sock\"\n[route.x]\npath = \n");
        assert_eq!(place.state_dir, Path::new("/srv/gp"));
        assert_eq!(place.admin.to_string(), "unix:/run/gp.sock");
        assert_eq!(place.doubt, None);
    }

    #[test]
    fn a_broken_file_that_does_not_say_it_leaves_a_doubt() {
        assert!(of("[server\n").doubt.is_some());
        assert!(Place::of(Path::new("/nonexistent/gatepost.toml")).doubt.is_some());
    }

    #[test]
    fn what_listens_everywhere_is_dialled_on_loopback() {
        assert_eq!(dialled("0.0.0.0:9901".parse().unwrap()), "127.0.0.1:9901".parse().unwrap());
        assert_eq!(dialled("[::]:9901".parse().unwrap()), "[::1]:9901".parse().unwrap());
        assert_eq!(dialled("10.0.0.1:9901".parse().unwrap()), "10.0.0.1:9901".parse().unwrap());
    }
}
