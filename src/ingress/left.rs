//! What a dropped request leaves with pingora: an h2 connection to its function that stays among those in use.
//!
//! pingora puts such a connection back when a request of it comes to its own end, and nowhere else. A request that was dropped never
//! does; where no other one comes that way, the connection would stay open for as long as the function likes. So another one is
//! made up, which takes a stream of it and gives it back before a byte is sent.

use std::{cell::RefCell, io::Cursor, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    apps::HttpServerApp,
    connectors::L4Connect,
    protocols::{ALPN, http::ServerSession, l4::socket::SocketAddr, l4::stream::Stream},
    server::ShutdownWatch,
    upstreams::peer::HttpPeer,
};
use pingora_error::{Error, ErrorType, Result};

use super::proxy::Proxy;
use crate::upstream::Target;

/// Enough for pingora to make a session of.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: left\r\n\r\n";

thread_local! {
    static LEFT: RefCell<Vec<HttpPeer>> = const { RefCell::new(Vec::new()) };
    /// For the next request's context.
    static NEXT: RefCell<Option<Box<HttpPeer>>> = const { RefCell::new(None) };
}

/// Makes no connection: where there is none to give back, none is wanted.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl L4Connect for Nowhere {
    async fn connect(&self, _address: &SocketAddr) -> Result<Stream> {
        Error::e_explain(ErrorType::ConnectRefused, "nothing was left")
    }
}

/// A request to `address` was dropped while its connection was under `group_key`.
pub(super) fn leave(target: &Target, address: std::net::SocketAddr, group_key: u64) {
    let mut peer = target.peer(address);
    if matches!(peer.options.alpn, ALPN::H1) {
        return;
    }
    peer.group_key = group_key;
    peer.options.custom_l4 = Some(Arc::new(Nowhere));
    LEFT.with_borrow_mut(|left| left.push(*peer));
}

/// Of a made-up request: whose connection it gives back.
pub(super) fn next() -> Option<Box<HttpPeer>> {
    NEXT.with_borrow_mut(Option::take)
}

/// Gives back what was left on this thread.
pub async fn give_back(proxy: &Arc<Proxy>, shutdown: &ShutdownWatch) {
    while let Some(peer) = LEFT.with_borrow_mut(Vec::pop) {
        NEXT.with_borrow_mut(|next| *next = Some(Box::new(peer)));
        let session = ServerSession::new_http1(Box::new(Cursor::new(REQUEST.to_vec())));
        let _ = proxy.process_new_http(session, shutdown).await;
        // Where pingora came to no context, nobody else is to find it.
        next();
    }
}
