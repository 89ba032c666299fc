//! A call to a version that no caller made: `gatepost doctor`'s, and the checks' of `health`. On tokio, not on pingora, and with a connection of
//! its own each: what it finds out is that the whole way works.

pub mod call;
pub mod dial;

use std::sync::Arc;

use rustls::RootCertStore;

use crate::config::model::{Config, Function, HostPattern, UpstreamHttp, Version};

/// This machine's trusted certificates.
///
/// # Errors
///
/// What the system says.
pub async fn system_roots() -> Result<Arc<RootCertStore>, String> {
    // It reads a few hundred files.
    let native = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let native = native.map_err(|error| error.to_string()).and_then(|n| n.map_err(|error| error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native);
    Ok(Arc::new(roots))
}

/// What is offered to a function that is spoken to so.
pub fn alpn(http: UpstreamHttp) -> &'static [&'static [u8]] {
    match http {
        UpstreamHttp::Auto => &[b"h2", b"http/1.1"],
        UpstreamHttp::Http1 => &[b"http/1.1"],
        UpstreamHttp::Http2 => &[b"h2"],
    }
}

/// The Host that gatepost sends; with `preserve_host` the first that a route to the function has. `id`: the function's number.
pub fn host(config: &Config, function: &Function, version: &Version, id: usize) -> String {
    let asked = config.routes.iter().filter(|route| route.function().is_some_and(|f| f.index() == id));
    let asked = asked.flat_map(|route| &route.hosts).find_map(|host| match host {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Wildcard(_) => None,
    });
    let own = || version.host.clone().unwrap_or_else(|| version.url.authority.clone());
    asked.filter(|_| function.preserve_host).unwrap_or_else(own)
}
