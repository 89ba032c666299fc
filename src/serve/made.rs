//! What requests are served by, made of a config: targets, names and numbers.

use std::{collections::HashMap, sync::Arc};

use http::HeaderValue;

use super::workers::Roots;
use crate::{
    config::{self, Config, Loaded},
    ingress::live::{self, Live},
    upstream::{Resolver, Target},
};

/// The targets of every version; what is known of an endpoint goes on.
pub(super) fn targets(loaded: &Loaded, old: Option<&Live>, resolver: &Resolver) -> Result<live::Targets, String> {
    let mut known: HashMap<(&str, &str), &Arc<Target>> = HashMap::new();
    if let Some(old) = old {
        for (function, targets) in old.snapshot.config.functions.iter().zip(&*old.targets) {
            known.extend(function.versions.iter().map(|v| (&*function.name, &*v.name)).zip(targets));
        }
    }
    let functions = loaded.config.functions.iter();
    functions
        .map(|function| {
            let versions = function.versions.iter().map(|version| {
                let previous = known.get(&(&*function.name, &*version.name)).map(|t| &***t);
                let ca = version.ca.as_deref().and_then(|path| loaded.material.authority(path)).map(Arc::from);
                Target::carried(previous, version, function, ca, resolver)
                    .map(Arc::new)
                    .map_err(|e| format!("function {}: version {}: ca: {e}", function.name, version.name))
            });
            versions.collect()
        })
        .collect()
}

/// What each version is sent as Host: prepared, since every request needs it.
pub(super) fn hosts(config: &Config) -> Arc<[Box<[HeaderValue]>]> {
    let host = |v: &config::model::Version| {
        let host = v.host.as_deref().unwrap_or(&v.url.authority);
        // The config takes no other hosts than such as can be sent.
        HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    };
    config.functions.iter().map(|f| f.versions.iter().map(host).collect()).collect()
}

pub(super) fn roots_for(config: &Config) -> Roots {
    let needs = config.functions.iter().flat_map(|f| &f.versions).any(|v| v.url.tls && v.ca.is_none());
    if needs { Roots::System } else { Roots::None }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Of each worker.
pub(super) fn max_requests(config: &Config, workers: usize) -> usize {
    config.server.max_requests.map_or_else(|| max_connections(config), |max| max.get() as usize).div_ceil(workers)
}

/// (file limit − 1,024) / 2: each connection may need one to its function, and others need files too.
pub(super) fn max_connections(config: &Config) -> usize {
    if let Some(max) = config.server.max_connections {
        return max.get() as usize;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(1 << 20);
    (files.saturating_sub(1024) / 2).max(64)
}
