//! What pingora asks of a connection beside its bytes.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest,
};

use super::Io;
use crate::ingress::conn::Conn;

#[async_trait]
impl Shutdown for Io {
    async fn shutdown(&mut self) {
        // Whoever is gone already needs no goodbye.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Io {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Io {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.frames.as_ref().map(|_| ALPN::H2)
    }
}

impl GetTimingDigest for Io {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

/// How the phases of an h2 stream find their connection; those of HTTP/1 look at the [`Io`] itself.
pub struct ConnOf(pub Arc<Conn>);

impl GetProxyDigest for Io {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.frames.as_ref()?;
        let nothing = pingora_http::ResponseHeader::build(200, None).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(nothing), Some(Box::new(ConnOf(self.conn.clone()))))))
    }
}

impl GetSocketDigest for Io {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Io {}
