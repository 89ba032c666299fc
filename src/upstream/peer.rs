//! The prepared peer of a version: everything that pingora asks about a connection but the address.

use std::{
    hash::Hasher,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pingora_core::{
    protocols::{ALPN, TcpKeepalive},
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
    utils::tls::{WrappedX509, parse_x509},
};
use rustls_pki_types::CertificateDer;
use twox_hash::XxHash64;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::config::model::{Function, UpstreamHttp, Version};

/// Streams at once on one h2 connection; pingora's own default is one.
const H2_STREAMS: u32 = 100;

/// What an h2 stream may send ahead of its reader. pingora's own default is 8 MiB, which a slow caller would make us hold.
const H2_STREAM_WINDOW: u32 = 256 << 10;

/// Room for every stream's window: a caller that does not read never holds up another one on the same connection.
const H2_CONNECTION_WINDOW: u32 = H2_STREAM_WINDOW * H2_STREAMS;

/// The shortest time that a connection may stay in the pool: it is closed at the timer's next turn.
pub const SHORTEST_IDLE: Duration = Duration::from_millis(1);

/// A certificate of a `ca` file that cannot be a trust anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCa {
    #[error("it holds no certificate")]
    Empty,
    #[error("certificate {number} is not usable as a certificate authority: {why}")]
    Certificate { number: usize, why: String },
}

/// The peer of `version`, at no address yet.
///
/// # Errors
///
/// Where a certificate in `ca` cannot serve as a trust anchor. pingora would find out at the first connection, or panic.
pub(super) fn template(
    version: &Version,
    function: &Function,
    ca: Option<&[CertificateDer<'static>]>,
) -> Result<HttpPeer, BadCa> {
    let tls = version.url.tls;
    // With TLS never empty: pingora verifies nothing where there is no name. Without TLS the name is not looked at, and an empty one is
    // cloned without an allocation. An address literal is verified as an IP address of the certificate (RFC 9110 §4.3.5).
    let sni = if tls { version.url.host.to_string() } else { String::new() };
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), version.url.port);
    let mut peer = HttpPeer::new(nowhere, tls, sni);

    let ca = if tls { ca } else { None };
    let timeouts = &function.timeouts;
    let options = &mut peer.options;
    options.verify_cert = true;
    options.verify_hostname = true;
    options.ca = ca.map(trust_anchors).transpose()?;
    options.alpn = alpn(tls, function.http);
    // The first bounds TCP, and then TLS anew; the second both together, as `timeouts.connect` means it.
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    // pingora knows one time for every read of an attempt, the head's and the body's, and no hook to change it between them.
    options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
    options.write_timeout = Some(timeouts.write);
    // pingora's timer subtracts one from it, and panics in a debug build.
    // One that has waited for as long as its whole age is not asked for again.
    let idle = function.pool.age.map_or(function.pool.idle, |age| function.pool.idle.min(age));
    options.idle_timeout = Some(idle.max(SHORTEST_IDLE));
    // Finds out that the other side is gone, by probes when idle and by the user timeout (RFC 5482) when something is under way. h2's own
    // pings stay off: servers that count them (gRPC's) close connections that ping more than every few minutes.
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        user_timeout: timeouts.write.max(Duration::from_secs(30)),
    });
    options.h2_ping_interval = None;
    // Hop-by-hop fields are gone already: see `ingress::forward`.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    options.max_h2_streams = H2_STREAMS as usize;
    options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
    peer.group_key = group_key(function.http, ca);
    Ok(peer)
}

fn alpn(tls: bool, http: UpstreamHttp) -> ALPN {
    match (http, tls) {
        (UpstreamHttp::Auto, true) => ALPN::H2H1,
        // Prior knowledge where there is no TLS (RFC 9113 §3.3).
        (UpstreamHttp::Http2, _) => ALPN::H2,
        (UpstreamHttp::Auto, false) | (UpstreamHttp::Http1, _) => ALPN::H1,
    }
}

/// What pingora's pool key leaves out although connections that differ in it must not be mixed up: whom we trust, and what we speak.
fn group_key(http: UpstreamHttp, ca: Option<&[CertificateDer<'static>]>) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    hash.write_u8(match http {
        UpstreamHttp::Auto => 0,
        UpstreamHttp::Http1 => 1,
        UpstreamHttp::Http2 => 2,
    });
    for certificate in ca.unwrap_or_default() {
        hash.write_usize(certificate.len());
        hash.write(certificate);
    }
    hash.finish()
}

/// The same of the whole peer but its address.
pub(super) fn group(peer: &HttpPeer) -> u64 {
    let mut hash = XxHash64::with_seed(peer.group_key);
    hash.write(peer.sni.as_bytes());
    hash.write_u8(peer.scheme.clone() as u8);
    hash.finish()
}

fn trust_anchors(ca: &[CertificateDer<'static>]) -> Result<Arc<[WrappedX509]>, BadCa> {
    if ca.is_empty() {
        return Err(BadCa::Empty);
    }
    ca.iter()
        .enumerate()
        .map(|(at, certificate)| {
            let bad = |why: String| BadCa::Certificate { number: at + 1, why };
            // As the connector will do it.
            rustls::RootCertStore::empty().add(certificate.clone()).map_err(|e| bad(e.to_string()))?;
            // As `parse_x509` does it, which panics where this fails.
            X509Certificate::from_der(certificate).map_err(|e| bad(e.to_string()))?;
            Ok(WrappedX509::new(certificate.to_vec(), parse_x509))
        })
        .collect()
}

#[cfg(test)]
mod tests;
