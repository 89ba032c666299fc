//! One safe request, with the gate's signature or without.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper::{
    Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::dial::Line;
use crate::platform::sign::{Call, Payload, Signer, Unsignable};

/// What is asked.
pub struct Question<'q> {
    pub method: &'q Method,
    /// Path and query.
    pub target: &'q str,
    pub host: &'q str,
    /// Who asks: its User-Agent.
    pub agent: &'static str,
}

/// What came.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub took: Duration,
    /// How far the function's clock is ahead of ours, in seconds; `None`: it gave no Date.
    pub ahead: Option<f64>,
}

impl Question<'_> {
    /// The fields of the request, Host left out.
    ///
    /// # Errors
    ///
    /// Why it cannot be signed.
    pub fn fields(&self, signer: Option<&Signer>) -> Result<Vec<(HeaderName, HeaderValue)>, Unsignable> {
        let mut fields = vec![
            (header::USER_AGENT, HeaderValue::from_static(self.agent)),
            (header::ACCEPT, HeaderValue::from_static("*/*")),
        ];
        if let Some(signer) = signer {
            let (path, query) = match self.target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (self.target, None),
            };
            let (method, host) = (self.method.as_str(), self.host);
            let call = Call { method, path, query, host, content_type: None, payload: Payload::Empty };
            let now = SystemTime::UNIX_EPOCH.elapsed().map_or(u64::MAX, |time| time.as_secs());
            fields.extend(signer.sign(&call, now)?);
        }
        Ok(fields)
    }

    /// # Errors
    ///
    /// Why no answer came.
    pub async fn ask(
        &self,
        line: Line,
        fields: Vec<(HeaderName, HeaderValue)>,
        within: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = self.method.clone();
        let host = HeaderValue::from_str(self.host).map_err(|error| error.to_string())?;
        let target: Uri = self.target.parse().map_err(|error| format!("{}: {error}", self.target))?;
        *request.uri_mut() = match line.speaks_h2 {
            // RFC 9113 §8.3.1: the host is the URI's.
            true => {
                let scheme = if line.tls.is_some() { "https" } else { "http" };
                let uri = Uri::builder().scheme(scheme).authority(self.host).path_and_query(self.target).build();
                uri.map_err(|error| error.to_string())?
            }
            false => {
                request.headers_mut().insert(header::HOST, host);
                target
            }
        };
        request.headers_mut().extend(fields);
        let asked = async {
            let io = TokioIo::new(line.stream);
            if line.speaks_h2 {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                driven(connection, sender.send_request(request)).await
            } else {
                let (mut sender, connection) = http1::handshake(io).await?;
                driven(connection, sender.send_request(request)).await
            }
        };
        let before = SystemTime::now();
        let answer = timeout(within, asked).await.map_err(|_| format!("no answer within {within:?}"))?;
        let took = before.elapsed().unwrap_or_default();
        let answer = answer.map_err(|error| error.to_string())?;
        let (parts, _) = answer.into_parts();
        let ahead = date(&parts.headers).map(|date| {
            let asked = before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            // Its seconds are whole ones, and it was said somewhere between the question and now.
            date as f64 + 0.5 - (asked + took.as_secs_f64() / 2.0)
        });
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, took, ahead })
    }
}

/// The answer's head, while its connection is served; its body is not waited for.
async fn driven<E>(
    connection: impl Future<Output = E>,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut connection, mut is_open) = (std::pin::pin!(connection), true);
    let mut answer = std::pin::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// RFC 9110 §6.6.1, in seconds since 1970.
fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim().replace("GMT", "+0000"));
    at.ok().map(|at| at.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_as_http_writes_it() {
        let of = |text: &'static str| date(&HeaderMap::from_iter([(header::DATE, HeaderValue::from_static(text))]));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(of("yesterday"), None);
    }
}
