//! The gate's word on the head of an h2 request.

use http::{Method, header};
use pingora_http::RequestHeader;

use super::head::HeadLimits;
use crate::decide::{Reason, snapshot::Refusal};

/// What is wrong with an h2 request that the library has let pass, as the gate would find it over HTTP/1. Its bytes as a whole
/// are the library's to bound.
pub(super) fn check_h2(request: &RequestHeader) -> Result<(), Refusal> {
    let limits = HeadLimits::default();
    let bad = |what: &'static str| Err(Refusal { detail: what.into(), ..Reason::BadRequest.into() });
    let (target, headers) = (request.raw_path(), &request.headers);
    if headers.len() > limits.fields {
        return Err(Reason::HeadersTooLarge.into());
    }
    if target.len() > limits.target {
        return Err(Reason::UriTooLong.into());
    }
    // RFC 9113 §8.3.1.
    if !target.starts_with(b"/") && target != b"*" && request.method != Method::CONNECT {
        return bad("the path must begin with a slash");
    }
    if !target.iter().all(|&b| b.is_ascii_graphic() && b != b'#') {
        return bad("the request target has a character that must be percent-encoded");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (request.uri.authority(), hosts.next()) {
        (None, None) => return bad("the request has neither :authority nor Host"),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return bad(":authority and Host differ");
        }
        _ => {}
    }
    if hosts.next().is_some() {
        return bad("there is more than one Host");
    }
    // RFC 9110 §8.6: the library has compared them; a function is given one.
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return bad("there is more than one Content-Length");
    }
    Ok(())
}
