//! One request of an h2 connection, as pingora sees it: a session of ours over h2's streams, with the sweeper's deadlines.
//!
//! pingora's own sets no time for a request's body, and a timer of its own for each write. Here whatever waits for the caller
//! ends when the sweeper says so, and pingora is told by an error: it can still answer (408, 504) then. And an answer's head
//! goes to the caller as it is, not as a copy.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream as MessageStream;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, Request, Response, header};
use pingora_core::protocols::{
    Digest,
    http::{
        HttpTask, ServerSession,
        custom::{CustomMessageWrite, server::Session},
        date::get_cached_date,
    },
    l4::socket::SocketAddr,
};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    conn::{self, Conn, Ended, Phase},
    kept::Kept,
    pace::Pace,
    stall,
};

/// See the module.
pub struct H2Stream {
    request: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    /// The final answer's head, without its fields: those are gone.
    written: Option<Box<ResponseHeader>>,
    kept: Option<Kept>,
    bytes_in: usize,
    bytes_out: usize,
    digest: Arc<Digest>,
    bounds: Arc<Conn>,
    pace: Pace,
    /// What pingora was told already: it may answer now.
    told: Option<Ended>,
    is_answered: bool,
}

/// An error of the caller's side.
fn down(etype: ErrorType, what: impl fmt::Display) -> Box<Error> {
    let mut error = Error::explain(etype, what.to_string());
    error.as_down();
    error
}

impl H2Stream {
    pub fn new(
        (request, respond): (Request<RecvStream>, SendResponse<Bytes>),
        digest: Arc<Digest>,
        bounds: Arc<Conn>,
    ) -> Box<Self> {
        let (request, body) = request.into_parts();
        let pace = Pace::new(bounds.timeouts.min_body_rate, bounds.timeouts.body);
        Box::new(Self {
            request: request.into(),
            body,
            respond,
            writer: None,
            written: None,
            kept: None,
            bytes_in: 0,
            bytes_out: 0,
            digest,
            bounds,
            pace,
            told: None,
            is_answered: false,
        })
    }

    pub fn bounds(&self) -> &Arc<Conn> {
        &self.bounds
    }

    /// What pingora has not been told yet of why this request is to end.
    fn news(bounds: &Conn, told: &mut Option<Ended>) -> Option<Box<Error>> {
        let ended = bounds.ended().filter(|ended| Some(*ended) != *told)?;
        *told = Some(ended);
        Some(down(ErrorType::ReadTimedout, format_args!("{ended:?}")))
    }

    /// The caller is who is waited for.
    fn waits(&mut self, phase: Phase, cx: &Context<'_>) -> Poll<Box<Error>> {
        self.bounds.register(cx.waker());
        let (pace, moved) = (&mut self.pace, (self.bytes_in + self.bytes_out) as u64);
        let is_paced = phase == Phase::Write || self.bytes_in > 0;
        self.bounds.waits(phase, |now| if is_paced { pace.waits(now, moved) } else { None });
        self.bounds.caller_is_slow();
        Self::news(&self.bounds, &mut self.told).map_or(Poll::Pending, Poll::Ready)
    }

    fn goes_on(&mut self, phase: Phase) {
        if self.bounds.goes_on(phase) {
            self.pace.goes_on(conn::coarse_ms());
        }
    }

    /// Writes as much of `data` as the caller has room for; what is left is waited for.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes, end: bool) -> Poll<Result<()>> {
        let cut = |e: h2::Error| down(ErrorType::WriteError, e);
        loop {
            let Some(writer) = &mut self.writer else {
                return Poll::Ready(Err(Error::explain(ErrorType::H2Error, "a body before its head")));
            };
            if data.is_empty() {
                return Poll::Ready(writer.send_data(Bytes::new(), end).map_err(cut));
            }
            writer.reserve_capacity(data.len());
            let mut room = writer.poll_capacity(cx);
            if room.is_pending() && self.body.is_end_stream() {
                room = stall::is_full(&self.bounds, cx, |cx| writer.poll_capacity(cx));
            }
            let room = match room {
                Poll::Ready(Some(Ok(room))) => room.min(data.len()),
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(cut(e))),
                Poll::Ready(None) => return Poll::Ready(Err(down(ErrorType::H2Error, "the stream is closed"))),
                Poll::Pending => return self.waits(Phase::Write, cx).map(Err),
            };
            if room > 0 {
                let piece = data.split_to(room);
                let is_end = end && data.is_empty();
                if let Err(e) = writer.send_data(piece, is_end) {
                    return Poll::Ready(Err(cut(e)));
                }
                self.bytes_out += room;
                self.goes_on(Phase::Write);
                if data.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let piece = match ready!(self.body.poll_data(cx)) {
            Some(Ok(piece)) => piece,
            Some(Err(e)) => return Poll::Ready(Err(down(ErrorType::ReadError, e))),
            None => return Poll::Ready(Ok(None)),
        };
        self.bytes_in += piece.len();
        if let Some(kept) = &mut self.kept {
            kept.keep(&piece);
        }
        // Only fails where it is more than was received.
        let _ = self.body.flow_control().release_capacity(piece.len());
        Poll::Ready(Ok(Some(piece)))
    }

    /// Ready when the caller takes its request back.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let reset = match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|reset| match reset {
            Ok(reason) => down(ErrorType::H2Error, reason),
            Err(e) => down(ErrorType::H2Error, e),
        })
    }

    /// Reads on, or, past the end, waits for the caller to take its request back.
    async fn read(&mut self, is_over: bool) -> Result<Option<Bytes>> {
        // RFC 9113 §8.1: a function may answer before it has read all. From then on it says how long this goes on: a gRPC caller
        // may have nothing to say for hours.
        let is_bounded = !is_over && self.written.is_none();
        let piece = poll_fn(|cx| {
            let polled = if is_over { self.poll_reset(cx).map(Err) } else { self.poll_piece(cx) };
            if polled.is_ready() {
                return polled;
            }
            if is_bounded {
                return self.waits(Phase::Body, cx).map(Err);
            }
            self.bounds.register(cx.waker());
            Self::news(&self.bounds, &mut self.told).map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
        })
        .await?;
        self.goes_on(Phase::Body);
        if piece.is_none() || self.body.is_end_stream() {
            self.bounds.upload_ends();
        } else {
            self.bounds.moved();
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

    fn writer(&mut self) -> Result<&mut SendStream<Bytes>> {
        self.writer.as_mut().ok_or_else(|| Error::explain(ErrorType::H2Error, "a body before its head"))
    }
}

/// RFC 9113 §8.2.2: fields that h2 does not have.
fn strip(headers: &mut HeaderMap) {
    const GONE: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let mut found = [false; 5];
    for name in headers.keys() {
        match name.as_str() {
            "connection" => found[0] = true,
            "transfer-encoding" => found[1] = true,
            "upgrade" => found[2] = true,
            "keep-alive" => found[3] = true,
            "proxy-connection" => found[4] = true,
            _ => {}
        }
    }
    for (name, _) in GONE.iter().zip(found).filter(|(_, is_found)| *is_found) {
        headers.remove(name);
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
            self.respond.send_reset(match self.bounds.ended() {
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
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read(false).await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let is_over = no_body_expected || self.is_body_done();
        self.read(is_over).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while !self.is_body_done() && self.read(false).await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, response: Box<ResponseHeader>, end: bool) -> Result<()> {
        let mut head = http::response::Parts::from(*response);
        if head.status.is_informational() {
            // What can't be said any more need not be.
            let _ = self.respond.send_informational(Response::from_parts(head, ()));
            return Ok(());
        }
        if self.written.is_some() {
            return Ok(());
        }
        strip(&mut head.headers);
        // RFC 9110 §6.6.1.
        head.headers.entry(header::DATE).or_insert_with(get_cached_date);
        self.written = Some(Box::new(ResponseHeader::build(head.status, None)?));
        self.goes_on(Phase::Body);
        let sent = self.respond.send_response(Response::from_parts(head, ()), end);
        self.writer = Some(sent.or_err(ErrorType::WriteError, "an answer's head").map_err(|e| e.into_down())?);
        self.ends(end);
        Ok(())
    }

    async fn write_response_header_ref(&mut self, response: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(response.clone()), end).await
    }

    async fn write_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.is_answered {
            return Ok(());
        }
        if let Some(conn) = &self.bounds.of {
            conn.h2.piece_is_sent(data.len());
        }
        self.bounds.stall.goes_out(self.bytes_out as u64, data.len());
        poll_fn(|cx| self.poll_write(cx, &mut data, end)).await?;
        self.ends(end);
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.is_answered {
            return Ok(());
        }
        let sent = self.writer()?.send_trailers(trailers);
        sent.or_err(ErrorType::WriteError, "trailers").map_err(|e| e.into_down())?;
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
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.is_answered) {
            let sent = writer.send_data(Bytes::new(), true);
            sent.or_err(ErrorType::WriteError, "an answer's end").map_err(|e| e.into_down())?;
            self.ends(true);
        }
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        if !self.is_answered {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
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
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    fn is_body_done(&mut self) -> bool {
        self.body.is_end_stream() || self.is_body_empty()
    }

    fn is_body_empty(&mut self) -> bool {
        let says_none = || self.request.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
        self.bytes_in == 0 && (self.body.is_end_stream() || says_none())
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_out
    }

    fn body_bytes_read(&self) -> usize {
        self.bytes_in
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        // Of subrequests, of which there are none.
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        if !self.is_body_empty() {
            self.kept.get_or_insert_default();
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(Kept::is_cut)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.kept.as_ref().and_then(Kept::whole)
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
