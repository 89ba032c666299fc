//! Whether this machine has the addresses that it listens on: a floating one comes and goes, and a mistyped one never comes.

use std::{net::IpAddr, sync::Arc};

use crate::{
    config::model::{ListenAddress, Name},
    egress::here,
    observe::metrics::ListenerCounts,
};

/// A listener as the status page has it.
pub type Shown = (Name, ListenAddress, bool, Arc<ListenerCounts>);

/// The one address that must be there; `None`: a listener on all addresses, or on a path.
pub fn only(address: &ListenAddress) -> Option<IpAddr> {
    match address {
        ListenAddress::Tcp(address) => Some(address.ip()).filter(|ip| !ip.is_unspecified()),
        ListenAddress::Unix(_) => None,
    }
}

pub fn is_here(address: &ListenAddress) -> bool {
    only(address).is_none_or(here::has)
}

/// Looks, and tells what changed; `anew`: what is absent is told in any case, for the config is new.
pub fn look(listeners: &[Shown], anew: bool) {
    for (name, address, _, counts) in listeners {
        let present = is_here(address);
        let is_news = counts.set_present(present);
        if !present && (is_news || anew) {
            tracing::warn!(
                listener = %name, %address,
                "standby: this machine does not have the listener's address; it listens, and is reached once the address comes"
            );
        } else if present && is_news {
            tracing::info!(listener = %name, %address, "the listener's address is here");
        }
    }
}
