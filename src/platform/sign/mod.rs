//! Signed calls: a request and the time → the header fields by which an endpoint knows that gatepost is calling.
//!
//! A [`Signer`] is a `[credential]` with its secrets read. What it is shown ([`Call`]) is the request as it goes to the wire, after every
//! edit: the bytes that are signed are the bytes that are sent.

mod acs3;
mod bearer;
mod canon;
mod sigv4;
mod tc3;
mod time;

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};
use ring::digest;

use super::sizes;
use crate::config::{
    Material,
    model::{AccessKey, Credential, CredentialKind, Name},
    secret::{Secret, SecretRef},
};
use bearer::Bearer;
pub use bearer::TokenSlot;

/// A request as an endpoint will read it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    pub method: &'c str,
    /// The target's path, as sent.
    pub path: &'c str,
    /// The target's query, as sent, without its question mark.
    pub query: Option<&'c str>,
    pub host: &'c str,
    /// `None` also where there are several, or one that is not ASCII: then it is left out of the signature.
    pub content_type: Option<&'c str>,
    pub payload: Payload,
}

/// What is known of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// There is none.
    Empty,
    /// Its SHA-256.
    Hash([u8; 32]),
    /// It streams.
    Unread,
}

impl Payload {
    pub fn of(body: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
        Self::Hash(hash)
    }

    /// In hex; `unread` for a body that nobody hashed.
    fn words(self, unread: &str) -> String {
        match self {
            Self::Empty => canon::EMPTY_SHA256.to_owned(),
            Self::Hash(hash) => canon::hex(&hash),
            Self::Unread => unread.to_owned(),
        }
    }
}

/// What a signature consists of.
pub type Fields = Vec<(HeaderName, HeaderValue)>;

/// Why a call cannot be signed, or a credential not be used. Never with a secret in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    #[error("one of its secrets was not read")]
    NotRead,
    #[error("one of its secrets holds what no header field can")]
    NotSendable,
    #[error("its token is fetched by the running service alone")]
    Fetched,
    #[error("there is no token that is good now")]
    NoToken,
    #[error("the clock stands outside of the years 1970 to 9999")]
    Clock,
}

/// A `[credential]` with its secrets.
pub struct Signer {
    name: Name,
    sign_body_max: usize,
    scheme: Scheme,
    room: u64,
}

enum Scheme {
    SigV4(sigv4::SigV4),
    Acs3(acs3::Acs3),
    Tc3(tc3::Tc3),
    Header(Shared),
    Bearer(Bearer),
}

/// A secret that the function compares: no signature at all, but good against those who only know the URL.
struct Shared {
    name: HeaderName,
    value: HeaderValue,
    /// During a rotation: the function may still know the old secret only.
    previous: Option<(HeaderName, HeaderValue)>,
}

/// An access key, read.
struct Key {
    id: String,
    secret: String,
    token: Option<String>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Signer {
    /// Carries the token in `slot`, for a credential whose tokens are fetched.
    pub fn bearer(credential: &Credential, header: HeaderName, slot: Arc<TokenSlot>) -> Self {
        /// Google's are half as long.
        const ROOM: u64 = 2048;
        let scheme = Scheme::Bearer(Bearer { header, slot });
        Self { name: credential.name.clone(), sign_body_max: credential.sign_body_max, scheme, room: ROOM }
    }

    /// # Errors
    ///
    /// When a secret was not read, or cannot stand in a header field.
    pub fn new(credential: &Credential, material: &Material) -> Result<Self, Unsignable> {
        let read = |at: &SecretRef| material.value(at).map(Secret::expose).ok_or(Unsignable::NotRead);
        let key = |key: &AccessKey| {
            let token = key.token.as_ref().map(read).transpose()?.map(str::to_owned);
            let key = Key { id: read(&key.id)?.to_owned(), secret: read(&key.secret)?.to_owned(), token };
            sendable(&key.id)?;
            key.token.as_deref().map(sendable).transpose()?;
            Ok(key)
        };
        let scheme = match &credential.kind {
            CredentialKind::SigV4 { keys, region, service, sign_body } => {
                Scheme::SigV4(sigv4::SigV4::new(key(keys)?, region, service, *sign_body))
            }
            CredentialKind::Acs3 { keys, sign_body } => Scheme::Acs3(acs3::Acs3::new(key(keys)?, *sign_body)),
            CredentialKind::Tc3 { keys, service, uin, sign_body } => {
                Scheme::Tc3(tc3::Tc3::new(key(keys)?, service, uin.clone(), *sign_body))
            }
            CredentialKind::Header { header, secret, previous } => Scheme::Header(Shared {
                name: header.clone(),
                value: sensitive(read(secret)?)?,
                previous: match previous {
                    None => None,
                    Some(at) => Some((previous_name(header)?, sensitive(read(at)?)?)),
                },
            }),
            CredentialKind::GcpIdToken(_) => return Err(Unsignable::Fetched),
        };
        let mut signer =
            Self { name: credential.name.clone(), sign_body_max: credential.sign_body_max, scheme, room: 0 };
        signer.room = signer.most()?;
        Ok(signer)
    }

    /// The longest that [`sign`](Self::sign) says: what is in a call changes its length by these two alone.
    fn most(&self) -> Result<u64, Unsignable> {
        // Until 2286 the seconds have ten digits.
        const SOME_TIME: u64 = 1_700_000_000;
        let mut most = 0;
        for content_type in [None, Some("text/plain")] {
            for payload in [Payload::Empty, Payload::Unread] {
                let call = Call { method: "GET", path: "/", query: None, host: "a", content_type, payload };
                let fields = self.sign(&call, SOME_TIME)?;
                most = most.max(sizes::written(fields.iter().map(|(name, value)| (name, value))));
            }
        }
        Ok(most)
    }

    /// The most that a signature adds to a head, in bytes as HTTP/1.1 writes them.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// The name of its `[credential]`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether a body's hash is part of the signature: the whole body is needed before the head can go.
    pub fn hashes_bodies(&self) -> bool {
        match &self.scheme {
            Scheme::SigV4(scheme) => scheme.sign_body,
            Scheme::Acs3(scheme) => scheme.sign_body,
            Scheme::Tc3(scheme) => scheme.sign_body,
            Scheme::Header(_) | Scheme::Bearer(_) => false,
        }
    }

    /// The largest body that may be kept for its hash.
    pub fn sign_body_max(&self) -> usize {
        self.sign_body_max
    }

    /// Whether a field is the signer's to say, so that a caller's never passes. `name` is in lower case. An underscore counts as a hyphen:
    /// behind CGI-like interfaces they are the same.
    pub fn owns(&self, name: &str) -> bool {
        let begins = |prefix: &str| name.len() >= prefix.len() && alike(&name[..prefix.len()], prefix);
        match &self.scheme {
            Scheme::SigV4(_) => name == "authorization" || begins("x-amz-"),
            Scheme::Acs3(_) => name == "authorization" || begins("x-acs-"),
            Scheme::Tc3(_) => name == "authorization" || begins("x-tc-") || begins("x-scf-cam-"),
            // Google looks at this one first, wherever ours stands.
            Scheme::Bearer(bearer) => name == bearer.header || alike(name, "x-serverless-authorization"),
            Scheme::Header(shared) => {
                let own = shared.name.as_str();
                begins(own) && (name.len() == own.len() || alike(&name[own.len()..], PREVIOUS))
            }
        }
    }

    /// The fields that make `call` a signed one at `now`, seconds since 1970.
    ///
    /// # Errors
    ///
    /// When the clock is beyond what the schemes can say.
    pub fn sign(&self, call: &Call<'_>, now: u64) -> Result<Fields, Unsignable> {
        match &self.scheme {
            Scheme::SigV4(scheme) => scheme.sign(call, now),
            Scheme::Acs3(scheme) => scheme.sign(call, now),
            Scheme::Tc3(scheme) => scheme.sign(call, now),
            Scheme::Bearer(bearer) => bearer.sign(now),
            Scheme::Header(shared) => {
                let current = (shared.name.clone(), shared.value.clone());
                Ok([Some(current), shared.previous.clone()].into_iter().flatten().collect())
            }
        }
    }
}

/// What is added to a header's name for the previous secret.
const PREVIOUS: &str = "-previous";

fn previous_name(header: &HeaderName) -> Result<HeaderName, Unsignable> {
    format!("{header}{PREVIOUS}").parse().map_err(|_| Unsignable::NotSendable)
}

fn alike(name: &str, with: &str) -> bool {
    name.len() == with.len()
        && name.bytes().zip(with.bytes()).all(|(a, b)| a == b || (matches!(a, b'_' | b'-') && matches!(b, b'_' | b'-')))
}

fn sendable(text: &str) -> Result<(), Unsignable> {
    HeaderValue::from_str(text).map(drop).map_err(|_| Unsignable::NotSendable)
}

/// A value that no Debug shows, and no header compression keeps.
fn sensitive(text: &str) -> Result<HeaderValue, Unsignable> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Unsignable::NotSendable)?;
    value.set_sensitive(true);
    Ok(value)
}

fn field(name: &'static str, value: &str) -> Result<(HeaderName, HeaderValue), Unsignable> {
    Ok((HeaderName::from_static(name), sensitive(value)?))
}

fn authorization(value: &str) -> Result<(HeaderName, HeaderValue), Unsignable> {
    field("authorization", value)
}

#[cfg(test)]
mod tests;
