//! One request of an h2 connection, as pingora sees it: pingora's own session of it, with the sweeper's deadlines.
//!
//! pingora sets no time for an h2 request's body, and a timer of its own for each write. Here whatever waits for the caller
//! ends when the sweeper says so, and pingora is told by an error: it can still answer (408, 504) then.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream as MessageStream;
use h2::Reason;
use http::HeaderMap;
use pingora_core::protocols::{
    Digest,
    http::{
        HttpTask, ServerSession,
        custom::{CustomMessageWrite, server::Session},
        v2::server::HttpSession,
    },
    l4::socket::SocketAddr,
};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::conn::{Conn, Ended, Phase};

/// See the module.
pub struct H2Stream {
    inner: HttpSession,
    bounds: Arc<Conn>,
    /// What pingora was told already: it may answer now.
    told: Option<Ended>,
    is_answered: bool,
}

impl H2Stream {
    pub fn new(inner: HttpSession, bounds: Arc<Conn>) -> Box<Self> {
        Box::new(Self { inner, bounds, told: None, is_answered: false })
    }

    pub fn bounds(&self) -> &Arc<Conn> {
        &self.bounds
    }

    /// What pingora has not been told yet of why this request is to end.
    fn news(bounds: &Conn, told: &mut Option<Ended>) -> Option<Box<Error>> {
        let ended = bounds.ended().filter(|ended| Some(*ended) != *told)?;
        *told = Some(ended);
        Some(Error::explain(ErrorType::ReadTimedout, format!("{ended:?}")))
    }

    /// Waits for the caller to take what `write` writes, no longer than it may.
    async fn bounded<T>(bounds: &Conn, told: &mut Option<Ended>, write: impl Future<Output = Result<T>>) -> Result<T> {
        let mut write = pin!(write);
        poll_fn(|cx| {
            if let Poll::Ready(done) = write.as_mut().poll(cx) {
                bounds.goes_on(Phase::Write);
                return Poll::Ready(done);
            }
            Self::waits(bounds, told, Phase::Write, cx).map(Err)
        })
        .await
    }

    /// The caller is who is waited for.
    fn waits(bounds: &Conn, told: &mut Option<Ended>, phase: Phase, cx: &Context<'_>) -> Poll<Box<Error>> {
        bounds.register(cx.waker());
        match Self::news(bounds, told) {
            Some(mut error) => {
                error.as_down();
                Poll::Ready(error)
            }
            None => {
                bounds.waits(phase, |_| None);
                bounds.caller_is_slow();
                Poll::Pending
            }
        }
    }

    async fn read(&mut self, or_idle: bool, no_body_expected: bool) -> Result<Option<Bytes>> {
        let Self { inner, bounds, told, .. } = self;
        // RFC 9113 §8.1: a function may answer before it has read all. From then on it says how long this goes on: a gRPC caller
        // may have nothing to say for hours.
        let is_over = no_body_expected || inner.is_body_done() || inner.response_written().is_some();
        let read = async {
            if or_idle { inner.read_body_or_idle(no_body_expected).await } else { inner.read_body_bytes().await }
        };
        let piece = {
            let mut read = pin!(read);
            poll_fn(|cx| {
                if let Poll::Ready(piece) = read.as_mut().poll(cx) {
                    return Poll::Ready(piece);
                }
                if !is_over {
                    return Self::waits(bounds, told, Phase::Body, cx).map(Err);
                }
                // The function is who is waited for.
                bounds.register(cx.waker());
                match Self::news(bounds, told) {
                    Some(mut error) => {
                        error.as_down();
                        Poll::Ready(Err(error))
                    }
                    None => Poll::Pending,
                }
            })
            .await?
        };
        bounds.goes_on(Phase::Body);
        if piece.is_none() || inner.is_body_done() {
            bounds.upload_ends();
        } else {
            bounds.moved();
        }
        Ok(piece)
    }

    fn ends(&mut self, is_end: bool) {
        if is_end && !self.is_answered {
            self.is_answered = true;
            if let Some(conn) = &self.bounds.of {
                conn.h2.request_is_answered();
            }
        }
    }
}

impl From<Box<H2Stream>> for ServerSession {
    fn from(stream: Box<H2Stream>) -> Self {
        Self::new_custom(stream)
    }
}

impl Drop for H2Stream {
    /// Without an answer's end the caller must not take what it got for the whole (RFC 9113 §8.1).
    fn drop(&mut self) {
        if !self.is_answered {
            self.inner.shutdown_with_reason(match self.bounds.ended() {
                // It is the caller that let us wait.
                Some(Ended::Overdue(_)) => Reason::CANCEL,
                _ => Reason::INTERNAL_ERROR,
            });
        }
    }
}

#[async_trait]
impl Session for H2Stream {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read(false, false).await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.read(true, no_body_expected).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while !self.inner.is_body_done() && self.read(false, false).await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, response: Box<ResponseHeader>, end: bool) -> Result<()> {
        let is_final = !response.status.is_informational();
        self.inner.write_response_header(response, end)?;
        if is_final {
            self.bounds.goes_on(Phase::Body);
        }
        self.ends(end && is_final);
        Ok(())
    }

    async fn write_response_header_ref(&mut self, response: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(response.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if let Some(conn) = &self.bounds.of {
            conn.h2.piece_is_sent(data.len());
        }
        let Self { inner, bounds, told, .. } = self;
        Self::bounded(bounds, told, inner.write_body(data, end)).await?;
        self.ends(end);
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)?;
        self.ends(true);
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut is_end = false;
        for task in tasks {
            is_end |= match task {
                HttpTask::Header(header, end) => {
                    self.write_response_header(header, end).await?;
                    end
                }
                HttpTask::Body(data, end) => {
                    // An end of its own is left to `finish`.
                    if let Some(data) = data.filter(|data| !data.is_empty()) {
                        self.write_body(data, end).await?;
                    }
                    end
                }
                HttpTask::Trailer(trailers) => {
                    if let Some(trailers) = trailers {
                        self.write_trailers(*trailers).await?;
                    }
                    true
                }
                HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "h2 knows no upgrade");
                }
            };
        }
        if is_end {
            self.finish().await?;
        }
        Ok(is_end)
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()?;
        self.ends(self.inner.response_written().is_some());
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        if !self.is_answered {
            self.inner.shutdown();
        }
    }

    // The sweeper has the deadlines: pingora's are not used.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}
    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }
    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}
    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }
    fn set_total_drain_timeout(&mut self, _timeout: Option<Duration>) {}
    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    // There are no messages beside the request and its answer.
    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn MessageStream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn MessageStream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
