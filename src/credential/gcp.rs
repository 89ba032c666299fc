//! Google's ID tokens: by a service account's key (RFC 7523), or by the metadata server.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;

/// How long an assertion is good; the most that Google takes.
const LIFE: u64 = 3600;
/// More is no answer of a token server.
pub const LARGEST: usize = 64 << 10;

/// A service account's key.
pub struct ServiceAccount {
    email: String,
    key_id: String,
    key: RsaKeyPair,
    /// Who is asked, by the file's own word.
    pub token_uri: Option<String>,
}

#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    token_uri: Option<String>,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("email", &self.email).finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// Reads the JSON that Google hands out.
    ///
    /// # Errors
    ///
    /// What is wrong with it; never with a word of it.
    pub fn read(json: &str) -> Result<Self, &'static str> {
        // serde's own words show what stands there.
        let file: KeyFile = serde_json::from_str(json)
            .map_err(|_| "`service_account` holds no JSON with client_email and private_key")?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes());
        let der = der.map_err(|_| "the private_key of `service_account` is no PKCS #8 key in PEM")?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| "the private_key of `service_account` is no RSA key of 2,048 bits or more")?;
        Ok(Self { email: file.client_email, key_id: file.private_key_id, key, token_uri: file.token_uri })
    }

    /// The form that asks `token_url` for a token for `audience`.
    ///
    /// # Errors
    ///
    /// When it cannot be signed.
    pub fn form(&self, token_url: &str, audience: &str, now: u64) -> Result<String, &'static str> {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.email, "sub": self.email, "aud": token_url, "target_audience": audience, "iat": now, "exp": now + LIFE,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "the assertion cannot be signed")?;
        let assertion = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        // All of these are free of what a form must escape (RFC 7523 §2.1), but for the colons.
        Ok(format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"))
    }
}

/// The query by which the metadata server is asked.
pub fn metadata_query(audience: &str) -> String {
    let escaped: String = (audience.bytes())
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    format!("audience={escaped}&format=full")
}

#[derive(Deserialize)]
struct Answer {
    id_token: String,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: u64,
    #[serde(default)]
    iat: Option<u64>,
}

/// A token, and how long it is good.
#[derive(PartialEq, Eq)]
pub struct Fetched {
    pub token: String,
    pub life: u64,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Reads a token server's answer: JSON with an `id_token`, or the metadata server's bare token. The token's signature is for whom it is
/// for to check; that it is for `audience`, and good for a while, is looked at here.
///
/// # Errors
///
/// What is wrong with it; never with a word of it.
pub fn read(body: &[u8], bare: bool, audience: &str, now: u64) -> Result<Fetched, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "the answer is no text")?;
    let token = match bare {
        true => text.trim().to_owned(),
        false => serde_json::from_str::<Answer>(text).map_err(|_| "the answer is no JSON with an id_token")?.id_token,
    };
    let no_token = "what came is no token (RFC 7519)";
    // RFC 7515 §7.1: nothing else stands in one.
    if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(no_token);
    }
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(no_token);
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| no_token)?;
    let claims: Claims =
        serde_json::from_slice(&claims).map_err(|_| "the token does not say for whom and until when it is")?;
    if claims.aud != audience {
        return Err("the token is for another audience");
    }
    // By its own clock, where it tells: this machine's may be wrong.
    let life = claims.exp.saturating_sub(claims.iat.unwrap_or(now)).min(24 * 3600);
    if life == 0 {
        return Err("the token is over already");
    }
    Ok(Fetched { token, life })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &serde_json::Value) -> String {
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part("{}".into()), part(claims.to_string()), part("sig".into()))
    }

    #[test]
    fn an_answer_must_be_a_token_for_that_audience_that_is_good_for_a_while() {
        let good = token(&json!({ "aud": "https://f.test", "iat": 100, "exp": 3700 }));
        let json = |token: &str| format!("{{\"id_token\":\"{token}\"}}").into_bytes();
        let fetched = Fetched { token: good.clone(), life: 3600 };
        // A clock that is hours off changes nothing.
        assert_eq!(read(&json(&good), false, "https://f.test", 999_999), Ok(fetched));
        assert!(read(format!("{good}\n").as_bytes(), true, "https://f.test", 0).is_ok());
        for (body, bare, audience) in [
            (json(&good), false, "https://g.test"),
            (json(&good), true, "https://f.test"),
            (b"{}".to_vec(), false, "https://f.test"),
            (b"".to_vec(), true, "https://f.test"),
            (json("a.b"), false, "https://f.test"),
            (json(&token(&json!({ "aud": "https://f.test", "iat": 100, "exp": 100 }))), false, "https://f.test"),
            (json(&token(&json!({ "aud": "https://f.test" }))), false, "https://f.test"),
        ] {
            assert!(read(&body, bare, audience, 0).is_err(), "{}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn a_key_file_that_is_none_is_told_without_a_word_of_it() {
        for text in ["secret", "{\"client_email\":\"a\"}", "{\"client_email\":\"a\",\"private_key\":\"secret\"}"] {
            let why = ServiceAccount::read(text).unwrap_err();
            assert!(why.contains("service_account") && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn the_metadata_server_is_asked_with_the_audience_escaped() {
        assert_eq!(metadata_query("https://f.test/a b"), "audience=https%3A%2F%2Ff.test%2Fa%20b&format=full");
    }
}
