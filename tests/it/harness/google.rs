//! A stand-in for Google: it gives ID tokens to who signs for a service account, or asks as a machine does, and functions that take them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::{Value, json};

use super::{
    jwt::{Signer, signer, unix_now},
    origin::{Build, Seen, origin},
    reply::Reply,
};

const EMAIL: &str = "gate@project.iam.gserviceaccount.com";

#[derive(Clone)]
pub(crate) struct Google {
    account: Arc<Signer>,
    own: Arc<Signer>,
    /// How long its tokens are good, in seconds.
    life: Arc<AtomicU64>,
}

pub(crate) fn google() -> Google {
    Google {
        account: Arc::new(signer("account-key", "RS256")),
        own: Arc::new(signer("google", "RS256")),
        life: Arc::new(AtomicU64::new(3600)),
    }
}

impl Google {
    pub(crate) fn set_life(&self, seconds: u64) {
        self.life.store(seconds, Relaxed);
    }

    /// What the console hands out for the service account.
    pub(crate) fn key_file(&self) -> String {
        json!({
            "type": "service_account",
            "project_id": "project",
            "private_key_id": self.account.id,
            "private_key": self.account.pem(),
            "client_email": EMAIL,
            "token_uri": "https://oauth2.googleapis.com/token",
        })
        .to_string()
    }

    fn token(&self, audience: &str, nth: usize) -> String {
        let (now, life) = (unix_now(), self.life.load(Relaxed));
        self.own.token(&json!({
            "iss": "https://accounts.google.com", "aud": audience, "email": EMAIL, "iat": now, "exp": now + life, "nth": nth,
        }))
    }

    /// Takes assertions that are right in every part (RFC 7523 §3).
    pub(crate) fn token_server(&self) -> Build {
        let google = self.clone();
        origin().answers(move |seen| match google.asserted(seen) {
            Ok(audience) => Reply::text(json!({ "id_token": google.token(&audience, seen.number) }).to_string()),
            Err(why) => {
                Reply::text(json!({ "error": "invalid_grant", "error_description": why }).to_string()).status(400)
            }
        })
    }

    fn asserted(&self, seen: &Seen) -> Result<String, String> {
        let body = String::from_utf8_lossy(&seen.body);
        let form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
        let assertion = body.strip_prefix(form).ok_or("no assertion")?;
        if seen.method != "POST" || seen.header("content-type") != Some("application/x-www-form-urlencoded") {
            return Err("no form".to_owned());
        }
        let claims = self.account.claims(assertion)?;
        let number = |key: &str| claims[key].as_u64().unwrap_or(0);
        let word = |key: &str| claims[key].as_str().unwrap_or_default();
        let url = format!("https://{}{}", seen.header("host").unwrap_or_default(), seen.target);
        let is_timely = number("iat").abs_diff(unix_now()) < 300 && number("exp") - number("iat") <= 3600;
        if word("iss") != EMAIL || word("aud") != url || !is_timely {
            return Err(format!("claims that are not so: {claims}"));
        }
        Ok(word("target_audience").to_owned())
    }

    /// A machine's metadata server, as far as tokens go.
    pub(crate) fn metadata_server(&self) -> Build {
        let google = self.clone();
        origin().answers(move |seen| {
            let audience =
                seen.target.strip_prefix("/computeMetadata/v1/instance/service-accounts/default/identity?audience=");
            match audience.and_then(|rest| rest.strip_suffix("&format=full")) {
                Some(audience) if seen.header("metadata-flavor") == Some("Google") => {
                    let audience = audience.replace("%3A", ":").replace("%2F", "/");
                    Reply::text(google.token(&audience, seen.number)).header("Metadata-Flavor", "Google")
                }
                _ => Reply::text("forbidden").status(403),
            }
        })
    }

    /// What the token that a function was shown says.
    pub(crate) fn shown(&self, seen: &Seen, field: &str) -> Result<Value, String> {
        let [value] = seen.fields.all(field)[..] else { return Err(format!("not one {field}")) };
        self.own.claims(value.strip_prefix("Bearer ").ok_or("no Bearer")?)
    }

    /// A function that Google shuts to whoever shows no token for `audience` (a part of it is enough).
    pub(crate) fn function(&self, field: &'static str, audience: &'static str) -> Build {
        let google = self.clone();
        origin().answers(move |seen| match google.shown(seen, field) {
            Ok(claims) if claims["aud"].as_str().is_some_and(|aud| aud.contains(audience)) => {
                Reply::text(claims["nth"].to_string())
            }
            other => Reply::text(format!("{other:?}")).status(401),
        })
    }
}
