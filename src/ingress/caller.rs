//! Who asked, for the phases: over HTTP/1.1 our own [`Http1`]; else a session of pingora's. It has h2's callers ([`stream`](super::stream)), and
//! those of HTTP/1.1 whose function speaks h2, or who ask for a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use pingora_core::protocols::http::HttpTask;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{
    conn::Conn,
    http1::Http1,
    io::{ConnOf, Io},
    kept::Kept,
};

/// See the module.
pub(super) enum Caller<'s> {
    Own(&'s mut Http1),
    Pingora(&'s mut Session),
}

impl Caller<'_> {
    pub(super) fn req_header(&self) -> &RequestHeader {
        match self {
            Self::Own(own) => own.request(),
            Self::Pingora(session) => session.req_header(),
        }
    }

    pub(super) fn req_header_mut(&mut self) -> &mut RequestHeader {
        match self {
            Self::Own(own) => own.request_mut(),
            Self::Pingora(session) => session.req_header_mut(),
        }
    }

    /// The gate's side of an HTTP/1 connection.
    pub(super) fn io(&self) -> Option<&Io> {
        match self {
            Self::Own(own) => Some(&own.io),
            Self::Pingora(session) => session.stream().and_then(|s| s.as_any().downcast_ref()),
        }
    }

    pub(super) fn conn(&self) -> Option<Arc<Conn>> {
        if let Some(io) = self.io() {
            return Some(io.conn.clone());
        }
        let Self::Pingora(session) = self else { return None };
        let digest = session.digest()?.proxy_digest.as_ref()?;
        digest.user_data.as_ref()?.downcast_ref::<ConnOf>().map(|c| c.0.clone())
    }

    /// The connection is to end behind this request's answer. Of h2 that says nothing.
    pub(super) fn is_last(&mut self) {
        match self {
            Self::Own(own) => own.is_last(),
            Self::Pingora(session) => session.set_keepalive(None),
        }
    }

    /// An HTTP/1.0 caller knows no 1xx (RFC 9110 §15.2).
    pub(super) fn knows_no_interim(&mut self) {
        if let Self::Pingora(session) = self {
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
    }

    /// Whether one that closes its side is taken for one that is gone.
    pub(super) fn aborts_on_close(&mut self, aborts: bool) {
        match self {
            Self::Own(own) => own.aborts(aborts),
            Self::Pingora(session) => session.as_downstream_mut().set_abort_on_close(aborts),
        }
    }

    pub(super) fn is_body_empty(&mut self) -> bool {
        match self {
            Self::Own(own) => own.is_body_empty(),
            Self::Pingora(session) => session.as_downstream_mut().is_body_empty(),
        }
    }

    pub(super) fn is_body_done(&mut self) -> bool {
        match self {
            Self::Own(own) => own.is_body_done(),
            Self::Pingora(session) => session.as_downstream_mut().is_body_done(),
        }
    }

    /// The next piece of the body; `None`: it is over.
    pub(super) async fn read_body(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Own(own) => std::future::poll_fn(|cx| own.poll_piece(cx)).await,
            Self::Pingora(session) => session.as_downstream_mut().read_request_body().await,
        }
    }

    /// The same; but behind the body's end, or where it `is_over`, only the caller's end is waited for.
    pub(super) async fn read_body_or_idle(&mut self, is_over: bool) -> Result<Option<Bytes>> {
        match self {
            Self::Own(own) => {
                let is_over = is_over || own.is_body_done();
                std::future::poll_fn(|cx| if is_over { own.poll_gone(cx) } else { own.poll_piece(cx) }).await
            }
            Self::Pingora(session) => session.as_downstream_mut().read_body_or_idle(is_over).await,
        }
    }

    pub(super) async fn drain_body(&mut self) -> Result<()> {
        match self {
            Self::Own(own) => own.drain().await,
            Self::Pingora(session) => session.as_downstream_mut().drain_request_body().await,
        }
    }

    /// What is read of the body from now on is kept for another attempt, up to a bound.
    pub(super) fn keeps_body(&mut self) {
        match self {
            Self::Own(own) => own.keeps_body(),
            Self::Pingora(session) => session.as_downstream_mut().enable_retry_buffering(),
        }
    }

    pub(super) fn kept_body(&self) -> Option<Bytes> {
        match self {
            Self::Own(own) => own.kept().and_then(Kept::whole),
            Self::Pingora(session) => session.as_ref().get_retry_buffer(),
        }
    }

    /// More was read than is kept.
    pub(super) fn is_kept_cut(&self) -> bool {
        match self {
            Self::Own(own) => own.kept().is_some_and(Kept::is_cut),
            Self::Pingora(session) => session.as_ref().retry_buffer_truncated(),
        }
    }

    /// The status of the last head that went out, be it an interim one.
    pub(super) fn written(&self) -> Option<StatusCode> {
        match self {
            Self::Own(own) => own.written(),
            Self::Pingora(session) => session.response_written().map(|head| head.status),
        }
    }

    /// Bytes of the bodies: what came, and what went.
    pub(super) fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Own(own) => own.bytes(),
            Self::Pingora(session) => (session.body_bytes_read() as u64, session.body_bytes_sent() as u64),
        }
    }

    /// RFC 9110 §10.1.1.
    pub(super) async fn write_continue(&mut self) -> Result<()> {
        match self {
            Self::Own(own) => own.write_head(&mut ResponseHeader::build(100, Some(0))?).await,
            Self::Pingora(session) => session.as_downstream_mut().write_continue_response().await,
        }
    }

    pub(super) async fn write_head(&mut self, mut head: Box<ResponseHeader>) -> Result<()> {
        match self {
            Self::Own(own) => own.write_head(&mut head).await,
            Self::Pingora(session) => session.as_downstream_mut().write_response_header(head).await,
        }
    }

    /// Writes an answer that is only a head. Over h2 its end is told with it: what says a length may have no body (RFC 9113 §8.1.1).
    pub(super) async fn write_whole(&mut self, mut head: Box<ResponseHeader>) -> Result<()> {
        match self {
            Self::Own(own) => {
                own.write_head(&mut head).await?;
                own.finish_body().await
            }
            Self::Pingora(session) => {
                let tasks = vec![HttpTask::Header(head, true)];
                session.as_downstream_mut().response_duplex_vec(tasks).await.map(drop)
            }
        }
    }

    pub(super) async fn write_body(&mut self, data: Bytes, is_end: bool) -> Result<()> {
        match self {
            Self::Own(own) => own.write_body(data, is_end).await,
            Self::Pingora(session) => session.as_downstream_mut().write_response_body(data, is_end).await,
        }
    }

    /// Sends on what somebody may wait for. pingora's sessions have sent it.
    pub(super) async fn flush_urgent(&mut self) -> Result<()> {
        match self {
            Self::Own(own) if own.is_urgent() => own.flush().await,
            _ => Ok(()),
        }
    }

    pub(super) async fn finish_body(&mut self) -> Result<()> {
        match self {
            Self::Own(own) => own.finish_body().await,
            Self::Pingora(session) => session.as_downstream_mut().finish_body().await,
        }
    }
}
