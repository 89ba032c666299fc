//! Whether a caller may speak of https (RFC 9110 §7.4): a request for an https resource that came in plain was read, and may have been made, by anybody on
//! the way, and must not be answered as if it had not.

use super::{conn::Conn, head::BadHead, live};
use crate::decide::Reason;

pub(super) const IS_NOT: BadHead =
    BadHead { reason: Reason::BadRequest, detail: "the target is an https one, and the connection is plain" };

/// By TLS here, or at a gateway that is trusted: one that sends PROXY headers, one of `trusted_proxies`, one on this machine's own socket.
#[cold]
pub(super) fn may_be(conn: &Conn) -> bool {
    let is_trusted = || {
        live::current().is_some_and(|(_, live)| live.snapshot.config.server.trusted_proxies.contains(conn.info.ip()))
    };
    conn.info.tls || conn.info.is_told || conn.info.peer.is_none() || is_trusted()
}
