//! How callers show who they are: users, headers of keys, where an issuer's keys are.

use std::path::PathBuf;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::{FilePath, http_words::header_name};
use crate::config::{
    model::{Algorithm, Endpoint, EndpointHost, JwksUrl, SanIs},
    read::{Complaint, Word, words},
    report::nearest,
};

/// The header that holds an API key.
#[derive(Debug, Clone)]
pub(in crate::config) struct KeyHeader(pub(in crate::config) HeaderName);

impl Word for KeyHeader {
    const EXPECTED: &'static str = "the name of a header such as `x-api-key`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        /// Fields that mean something else to gatepost or to HTTP.
        const TAKEN: [&str; 7] =
            ["content-length", "content-type", "cookie", "expect", "forwarded", "via", "x-request-id"];
        let name = header_name(text)?;
        match name.as_str() {
            "authorization" | "proxy-authorization" => Err(Complaint::new(format!("`{name}` holds no API key"))
                .help("it is read for `basic` and `jwt`; an API key has a header of its own")),
            taken if TAKEN.contains(&taken) || taken.starts_with("x-forwarded-") => {
                Err(Complaint::new(format!("`{name}` has a meaning of its own")))
            }
            _ => Ok(Self(name)),
        }
    }
}

/// The user of Basic credentials.
#[derive(Debug, Clone)]
pub(in crate::config) struct BasicUser(pub(in crate::config) String);

impl Word for BasicUser {
    const EXPECTED: &'static str = "a user's name";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // RFC 7617 §2: the first colon ends it.
        match text.chars().find(|c| *c == ':' || c.is_control()) {
            Some(bad) => {
                Err(Complaint::new(format!("`{}` cannot stand in a user's name (RFC 7617)", bad.escape_debug())))
            }
            None if text.is_empty() => Err(Complaint::new("a user's name cannot be empty")),
            None => Ok(Self(text.to_owned())),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^[^:]+$" })
    }
}

/// Where a key set is.
#[derive(Debug, Clone)]
pub(in crate::config) enum JwksWord {
    File(PathBuf),
    /// Without its `ca`, which is another key.
    Url(JwksUrl),
}

impl Word for JwksWord {
    const EXPECTED: &'static str = "a path, or an https URL";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return FilePath::parse(text).map(|path| Self::File(path.0));
        };
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(Complaint::new("an issuer's keys are fetched over https only")
                .help("whoever can change them on their way can sign tokens"));
        }
        if text.contains('#') {
            return Err(Complaint::new("this URL has a fragment, which no server sees"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let endpoint = <Endpoint as Word>::parse(&format!("https://{authority}"))?;
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Complaint::new("this URL holds characters that must be percent-encoded"));
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self::Url(JwksUrl {
            host: match endpoint.host {
                EndpointHost::Name(name) => name,
                EndpointHost::Address(ip) => ip.to_string(),
            },
            port: endpoint.port,
            target: format!("{slash}{target}"),
            ca: None,
        }))
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["https://issuer.example.com/.well-known/jwks.json", "jwks.json"] })
    }
}

impl Word for Algorithm {
    const EXPECTED: &'static str = "an algorithm with a public key, such as `RS256` or `ES256`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = || Complaint::new(format!("`{}` is none of the algorithms", text.escape_debug()));
        Self::named(text).ok_or_else(|| match text {
            "none" => Complaint::new("`none` is no signature: anyone could write such a token"),
            "HS256" | "HS384" | "HS512" => Complaint::new(format!("`{text}` has one key for signing and checking"))
                .help("ask the issuer for an algorithm with a public key, such as `RS256` or `ES256`"),
            _ => match nearest(text, Self::WORDS.iter().copied()) {
                Some(near) => complaint().help(format!("did you mean `{near}`?")),
                None => complaint(),
            },
        })
    }

    fn form() -> Json {
        json!({ "enum": Self::WORDS })
    }
}

impl Word for SanIs {
    const EXPECTED: &'static str = "`dns:NAME`, `uri:URI` or `email:ADDRESS`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            Some((_, "")) => Err(Complaint::new(format!("`{}` names nobody", text.escape_debug()))),
            Some(("dns", name)) => Ok(Self::Dns(name.to_ascii_lowercase())),
            Some(("uri", uri)) => Ok(Self::Uri(uri.to_owned())),
            Some(("email", email)) => Ok(Self::Email(email.to_owned())),
            _ => {
                let complaint =
                    Complaint::new(format!("`{}` does not say what kind of name it is", text.escape_debug()));
                let kind = match text {
                    _ if text.contains("://") => "uri",
                    _ if text.contains('@') => "email",
                    _ => "dns",
                };
                Err(complaint.help(format!("did you mean `{kind}:{}`?", text.escape_debug())))
            }
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(dns:.+|uri:.+|email:.+)$" })
    }
}

/// The SHA-256 of a certificate.
#[derive(Debug, Clone)]
pub(in crate::config) struct Fingerprint(pub(in crate::config) [u8; 32]);

impl Word for Fingerprint {
    const EXPECTED: &'static str = "64 hexadecimal digits, with or without colons";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map_while(|c| c.to_digit(16)).collect();
        let letters = text.chars().filter(|c| *c != ':').count();
        let mut bytes = [0; 32];
        if digits.len() != 64 || letters != 64 {
            return Err(Complaint::new(format!("`{}` is not the SHA-256 of a certificate", text.escape_debug()))
                .help("`openssl x509 -noout -fingerprint -sha256 -in FILE` prints it"));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(Self(bytes))
    }

    fn form() -> Json {
        json!({ "pattern": "^[0-9A-Fa-f:]{64,95}$" })
    }
}

words!(KeyHeader, BasicUser, JwksWord, Algorithm, SanIs, Fingerprint);
