//! Tokens (RFC 7519, signed as in RFC 7515): text → what it claims, and by whose key. As strict as RFC 8725 wants it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Why, strict};
use crate::config::model::{Algorithm, ClientId, Jwt};

/// A token, taken apart and not believed yet.
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    /// A name to be compared with, and nothing else.
    pub(super) key: Option<String>,
    pub(super) claims: Map<String, Value>,
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Header fields that bring a key or say where one is (`jwk`, `jku`, `x5c`, `x5u`) are not looked at: the keys are those
    /// of the config (RFC 8725 §3.10).
    pub(super) fn read(text: &'t [u8]) -> Result<Self, Why> {
        let Parts { signed, header, payload, signature } = parts(text).ok_or(Why::Malformed)?;
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| Why::Malformed);
        let header = strict::object(&decode(header)?).ok_or(Why::Malformed)?;
        // RFC 7515 §4.1.11: what must be understood and isn't makes the token invalid. We understand none.
        if header.contains_key("crit") {
            return Err(Why::Malformed);
        }
        // RFC 8725 §3.11: another kind of token, of the same issuer and signed by the same key, is not one for calling.
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if is_for_calling(typ) => {}
            Some(_) => return Err(Why::Malformed),
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Why::Malformed)?;
        let algorithm = Algorithm::named(algorithm).ok_or(Why::Algorithm)?;
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Why::Malformed),
        };
        let claims = strict::object(&decode(payload)?).ok_or(Why::Malformed)?;
        Ok(Self { algorithm, key, claims, signed, signature: decode(signature)? })
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }
}

/// What is signed, and the three parts (RFC 7515 §7.1).
struct Parts<'t> {
    signed: &'t [u8],
    header: &'t [u8],
    payload: &'t [u8],
    signature: &'t [u8],
}

fn parts(text: &[u8]) -> Option<Parts<'_>> {
    let last = text.iter().rposition(|b| *b == b'.')?;
    let (signed, signature) = (&text[..last], &text[last + 1..]);
    let first = signed.iter().position(|b| *b == b'.')?;
    let (header, payload) = (&signed[..first], &signed[first + 1..]);
    let is_three = !payload.contains(&b'.');
    (is_three && !signature.is_empty()).then_some(Parts { signed, header, payload, signature })
}

fn is_for_calling(typ: &str) -> bool {
    // RFC 7515 §4.1.9: `application/` may be left out. RFC 9068 §2.1 has the second.
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// A client that a token is for, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) client: ClientId,
    /// Seconds since 1970, leeway included: from, and until before.
    from: i64,
    until: i64,
}

impl Match {
    pub(super) fn at(&self, now: i64) -> Result<ClientId, Why> {
        match now {
            now if now >= self.until => Err(Why::Expired),
            now if now < self.from => Err(Why::NotYetValid),
            _ => Ok(self.client),
        }
    }
}

/// Whom a token of a certain issuer may be: one client's conditions.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) client: ClientId,
    pub(super) jwt: Jwt,
}

impl Rule {
    /// Of several clients that a token may be, the one that asks for more is meant.
    pub(super) fn strictness(&self) -> usize {
        self.jwt.claims.len() + usize::from(!self.jwt.subject.is_empty())
    }

    /// Judges the claims of a token whose signature is good.
    pub(super) fn judge(&self, token: &Token<'_>) -> Result<Match, Why> {
        let jwt = &self.jwt;
        if !jwt.algorithms.contains(&token.algorithm) {
            return Err(Why::Algorithm);
        }
        let text = |name: &str| token.claims.get(name).and_then(Value::as_str);
        // RFC 7519 §4.1.3: one, or a list.
        let is_for_us = |audience: &String| match token.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !jwt.audience.iter().any(is_for_us) {
            return Err(Why::Audience);
        }
        if !jwt.subject.is_empty() && !text("sub").is_some_and(|sub| jwt.subject.iter().any(|one| one == sub)) {
            return Err(Why::Claims);
        }
        let holds = |(name, wanted): &(String, Option<String>)| match (token.claims.get(name), wanted) {
            (None | Some(Value::Null), _) => false,
            (Some(_), None) => true,
            (Some(value), Some(wanted)) => is_or_holds(name, value, wanted),
        };
        if !jwt.claims.iter().all(holds) {
            return Err(Why::Claims);
        }
        let leeway = i64::try_from(jwt.leeway.as_secs()).unwrap_or(0);
        // A token that never ends is a password that nobody can change.
        let until = date(&token.claims, "exp")?.ok_or(Why::Claims)?;
        let from = date(&token.claims, "nbf")?.unwrap_or(i64::MIN);
        let issued = date(&token.claims, "iat")?.unwrap_or(i64::MIN);
        Ok(Match {
            client: self.client,
            from: from.max(issued).saturating_sub(leeway),
            until: until.saturating_add(leeway),
        })
    }
}

/// `scope` is a list of words (RFC 8693 §4.2); other texts are one.
fn is_or_holds(name: &str, value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) if name == "scope" => text.split(' ').any(|word| word == wanted),
        Value::String(text) => text == wanted,
        Value::Array(all) => all.iter().any(|one| one.as_str() == Some(wanted)),
        Value::Bool(is) => wanted == if *is { "true" } else { "false" },
        Value::Number(number) => *wanted == number.to_string(),
        Value::Null | Value::Object(_) => false,
    }
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Why> {
    /// The year 9999.
    const LAST: f64 = 253_402_300_800.0;
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..LAST).contains(&seconds) => Ok(Some(seconds as i64)),
            _ => Err(Why::Malformed),
        },
    }
}
