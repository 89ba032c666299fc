//! pingora's errors in gatepost's words.

use pingora_error::{Error, ErrorSource, ErrorType};

use crate::decide::Reason;

/// How far a request had come when its upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the request was sent: any method may try the next address.
    Connect,
    /// The function may have seen the request, or part of it.
    Exchange,
}

/// What went wrong between us and a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub phase: Phase,
    /// For the service log, not for callers: it may name addresses and what certificates say.
    pub detail: String,
}

/// What `error` means; `None` where it isn't the function's doing: the caller went away, or ingress raised it itself.
///
/// Everything before the request is sent, a connect that takes too long included, is `upstream_unreachable`: the function has not had its
/// chance to answer. `upstream_timeout` is for a function that had the request and was too slow to take or answer it. What breaks off or
/// isn't HTTP is `upstream_reset`.
pub fn classify_error(error: &Error) -> Option<Failure> {
    if *error.esource() == ErrorSource::Downstream {
        return None;
    }
    if is_out_of_descriptors(error) {
        let detail = "no file descriptor is left for a connection to the function".to_owned();
        return Some(Failure { reason: Reason::Overloaded, phase: Phase::Connect, detail });
    }
    let (reason, phase, words) = match error.etype() {
        // pingora wraps a failed bind in an internal error.
        ErrorType::InternalError => match error.root_etype() {
            ErrorType::BindError | ErrorType::SocketError => kind(error.root_etype())?,
            _ => (Reason::UpstreamReset, Phase::Exchange, "internal error while proxying"),
        },
        other => kind(other)?,
    };
    Some(Failure { reason, phase, detail: detail(words, error) })
}

/// Ours, not the function's doing.
fn is_out_of_descriptors(error: &Error) -> bool {
    let Some(cause) = &error.cause else { return false };
    if let Some(inner) = cause.downcast_ref::<Box<Error>>() {
        return is_out_of_descriptors(inner);
    }
    let code = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    code.is_some_and(|code| {
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|e| e.raw_os_error()).contains(&code)
    })
}

fn kind(etype: &ErrorType) -> Option<(Reason, Phase, &'static str)> {
    use ErrorType as E;
    let unreachable = |words| Some((Reason::UpstreamUnreachable, Phase::Connect, words));
    let timeout = |words| Some((Reason::UpstreamTimeout, Phase::Exchange, words));
    let reset = |words| Some((Reason::UpstreamReset, Phase::Exchange, words));
    match etype {
        E::ConnectTimedout => unreachable("connecting took too long"),
        E::ConnectRefused => unreachable("connection refused"),
        E::ConnectNoRoute => unreachable("no route to the address"),
        E::ConnectError | E::ConnectProxyFailure => unreachable("cannot connect"),
        E::BindError | E::SocketError => unreachable("cannot open a socket"),
        E::TLSWantX509Lookup | E::TLSHandshakeFailure | E::HandshakeError => unreachable("handshake failed"),
        E::TLSHandshakeTimedout => unreachable("tls handshake took too long"),
        E::InvalidCert => unreachable("certificate not accepted"),
        E::ReadTimedout => timeout("no answer in time"),
        E::WriteTimedout => timeout("the request was not taken in time"),
        E::ReadError | E::ConnectionClosed => reset("the answer broke off"),
        E::WriteError => reset("the connection broke while the request was sent"),
        E::InvalidHTTPHeader => reset("the answer's head is not valid"),
        E::H1Error => reset("the answer is not valid http/1.1"),
        E::H2Error | E::InvalidH2 => reset("the answer is not valid http/2, or its stream was reset"),
        E::H2Downgrade => reset("the function wants http/1.1"),
        E::InternalError => reset("internal error while proxying"),
        // Those that ingress makes, and those that have nothing to do with an upstream.
        E::HTTPStatus(_)
        | E::Custom(_)
        | E::CustomCode(..)
        | E::UnknownError
        | E::AcceptError
        | E::FileOpenError
        | E::FileCreateError
        | E::FileReadError
        | E::FileWriteError => None,
    }
}

/// `words`, and what the innermost error says, which is the nearest to what happened.
fn detail(words: &str, error: &Error) -> String {
    let mut text = innermost(error);
    // rustls's words begin here; before them pingora says again and again that the handshake failed.
    if let Some(at) = text.find(CERTIFICATE) {
        text = text.split_off(at);
        // pingora adds its own context behind.
        if let Some(end) = text.find(", SNI: ") {
            text.truncate(end);
        }
        let problem = text[CERTIFICATE.len()..].trim();
        return format!("certificate not accepted: {}", certificate(problem));
    }
    if text.is_empty() { words.to_owned() } else { format!("{words}: {text}") }
}

const CERTIFICATE: &str = "invalid peer certificate: ";

/// rustls names some problems by their identifiers; said in words.
fn certificate(problem: &str) -> String {
    match problem.split_whitespace().next() {
        Some("UnknownIssuer") => "not signed by an authority that is trusted for this version".to_owned(),
        Some("BadEncoding") => "it cannot be read".to_owned(),
        Some("BadSignature") => "its signature is wrong".to_owned(),
        Some("Revoked") => "it is revoked".to_owned(),
        _ => problem.to_owned(),
    }
}

fn innermost(error: &Error) -> String {
    let context = || error.context.as_ref().map(|context| context.as_str().to_owned()).unwrap_or_default();
    let Some(cause) = &error.cause else {
        return context();
    };
    if let Some(inner) = cause.downcast_ref::<Box<Error>>() {
        return innermost(inner);
    }
    let said = cause.to_string();
    // pingora's note of our own port, put where a cause would be.
    if said.starts_with("local address ") { context() } else { said }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn said(error: &Error) -> (Reason, Phase, String) {
        let failure = classify_error(error).unwrap();
        (failure.reason, failure.phase, failure.detail)
    }

    #[test]
    fn before_the_request_is_sent_it_is_unreachable() {
        for etype in [
            ErrorType::ConnectTimedout,
            ErrorType::ConnectRefused,
            ErrorType::ConnectNoRoute,
            ErrorType::TLSHandshakeFailure,
            ErrorType::TLSHandshakeTimedout,
            ErrorType::InvalidCert,
        ] {
            let (reason, phase, _) = said(&Error::new_up(etype));
            assert_eq!((reason, phase), (Reason::UpstreamUnreachable, Phase::Connect));
        }
    }

    #[test]
    fn a_failed_bind_is_found_under_its_wrapping() {
        let bind =
            Error::because(ErrorType::BindError, "failed to bind", io::Error::from(io::ErrorKind::AddrNotAvailable));
        let wrapped = Error::because(ErrorType::InternalError, "Fail to connect", bind);
        assert_eq!(
            said(&wrapped),
            (Reason::UpstreamUnreachable, Phase::Connect, "cannot open a socket: address not available".to_owned())
        );
    }

    #[test]
    fn no_descriptor_is_gateposts_own_trouble() {
        let none = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let socket = Error::because(ErrorType::SocketError, "failed to create socket", none);
        let wrapped = Error::because(ErrorType::InternalError, "Fail to connect", socket);
        let (reason, phase, _) = said(&wrapped);
        assert_eq!((reason, phase), (Reason::Overloaded, Phase::Connect));
    }

    #[test]
    fn a_slow_function_is_a_timeout_and_a_broken_one_a_reset() {
        assert_eq!(
            said(&Error::explain(ErrorType::ReadTimedout, "reading header")),
            (Reason::UpstreamTimeout, Phase::Exchange, "no answer in time: reading header".to_owned())
        );
        for etype in [
            ErrorType::ReadError,
            ErrorType::ConnectionClosed,
            ErrorType::InvalidHTTPHeader,
            ErrorType::H1Error,
            ErrorType::H2Error,
        ] {
            let (reason, phase, _) = said(&Error::new_up(etype));
            assert_eq!((reason, phase), (Reason::UpstreamReset, Phase::Exchange));
        }
    }

    #[test]
    fn what_the_caller_did_is_not_the_functions_failure() {
        assert_eq!(classify_error(&Error::new_down(ErrorType::ReadError)), None);
        assert_eq!(classify_error(&Error::new_in(ErrorType::HTTPStatus(413))), None);
    }
}
