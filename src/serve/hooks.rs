//! Hooks of ramps in the running service: whoever is to be asked before a step is asked by a task of its own, and the answer comes
//! back to the main thread. What can't be asked says nothing, and the step waits.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls_pki_types::CertificateDer;
use tokio::{sync::mpsc, time::timeout};

use super::{Order, jwks::Trust, tokens::fetch::connect};
use crate::{
    config::{
        Material,
        model::{Hook, Name},
        secret::Secret,
    },
    release::hook::{self, Answer},
    upstream::Resolver,
};

/// Nobody has so much to say.
const LONGEST: usize = 64 << 10;

/// An answer, on its way to the main thread.
#[derive(Debug)]
pub struct Answered {
    pub(super) function: Name,
    pub(super) number: u64,
    pub(super) answer: Answer,
}

/// What is asked, with what proves who asks.
pub(super) struct Question {
    hook: Hook,
    /// Who alone vouches for it; `None`: whom the system trusts.
    ca: Option<Vec<CertificateDer<'static>>>,
    body: String,
    bearer: Option<Secret>,
    hmac: Option<Secret>,
}

impl Question {
    /// `None`: a secret or its `ca` was not read. Nobody is asked without.
    pub(super) fn new(hook: &Hook, body: String, material: &Material) -> Option<Self> {
        let read = |at: &Option<_>| match at {
            None => Some(None),
            Some(at) => material.value(at).cloned().map(Some),
        };
        let ca = match &hook.ca {
            None => None,
            Some(ca) => Some(material.authority(ca)?.to_vec()),
        };
        Some(Self { hook: hook.clone(), ca, body, bearer: read(&hook.bearer)?, hmac: read(&hook.hmac)? })
    }

    async fn put(self, resolver: &Resolver) -> Answer {
        let patience = self.hook.timeout;
        match timeout(patience, self.post(resolver)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => Answer::Failed(format!("it can't be asked: {why}")),
            Err(_) => Answer::Failed(format!("it gave no answer within {patience:?}")),
        }
    }

    async fn post(self, resolver: &Resolver) -> Result<Answer, String> {
        let Self { hook, ca, body, bearer, hmac } = self;
        let stream = connect(&hook.url, &mut Trust::new(ca), resolver).await.map_err(|failure| failure.why)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // It ends with `sender`, or with the peer.
        let driven = tokio::spawn(connection);
        let mut request = Request::post(hook.target())
            .header(header::HOST, &hook.url.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "gatepost");
        if let Some(bearer) = bearer {
            let mut value = header::HeaderValue::from_str(&format!("Bearer {}", bearer.expose()))
                .map_err(|_| "its bearer token holds what no header field can".to_owned())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = hmac {
            let at = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
            request = request.header("x-gatepost-signature", signature(key.expose(), at, &body));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let result = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| format!("its answer: {error}"))?.to_bytes();
            Ok(hook::answer(status, &body))
        }
        .await;
        driven.abort();
        result
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over the time, a dot and the body, so that neither can be another one.
fn signature(key: &str, at: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

/// Puts a question; the answer goes to the main thread.
pub(super) async fn ask(
    question: Option<Question>,
    resolver: Resolver,
    orders: mpsc::UnboundedSender<Order>,
    function: Name,
    number: u64,
) {
    let answer = match question {
        Some(question) => question.put(&resolver).await,
        None => Answer::Failed("it can't be asked: its secret or its `ca` was not read".to_owned()),
    };
    // The service may be stopping.
    let _ = orders.send(Order::Answered(Answered { function, number, answer }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_posted_is_signed_with_its_time() {
        // By `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
        assert_eq!(
            signature("key", 1_700_000_000, "{}"),
            "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
    }
}
