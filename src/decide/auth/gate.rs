//! What a route that names clients reads of a request, and what it tells who is not let in.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

use crate::config::model::{Client, ClientId};

/// The kinds of credentials that one list of clients uses.
#[derive(Debug)]
pub struct Gate {
    /// Sorted.
    clients: Vec<ClientId>,
    /// Headers of API keys, by their place in `Callers::api_keys`.
    keys: Vec<usize>,
    basic: bool,
    jwt: bool,
    mtls: bool,
    token_passwords: bool,
    authorization: HeaderName,
    taken: Vec<HeaderName>,
    challenges: Vec<HeaderValue>,
    expects: String,
}

impl Gate {
    /// `authorization`: the field that Basic and Bearer stand in; `api_keys`: the headers of keys of all clients; `token_passwords`: whether a
    /// token may be shown as the password of Basic, which is all that a proxy's URL can carry.
    pub(super) fn new<T>(
        of: &[ClientId],
        clients: &[Client],
        authorization: &HeaderName,
        api_keys: &[(HeaderName, T)],
        token_passwords: bool,
    ) -> Self {
        let mut ids = of.to_vec();
        ids.sort_unstable();
        let named = || ids.iter().map(|id| &clients[id.index()]);
        let mut keys: Vec<usize> = named()
            .filter_map(|client| client.api_key.as_ref())
            .filter_map(|key| api_keys.iter().position(|(header, _)| *header == key.header))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let basic = named().any(|client| client.basic.is_some());
        let jwt = named().any(|client| client.jwt.is_some());
        let mtls = named().any(|client| client.mtls.is_some());
        let headers = || keys.iter().map(|at| &api_keys[*at].0);
        let mut taken: Vec<HeaderName> = headers().cloned().collect();
        if basic || jwt {
            taken.push(authorization.clone());
        }
        // RFC 9110 §11.6.1: one for each way in. RFC 7617 §2.1 for the charset. Keys and certificates have no registered scheme,
        // and 401 must have a challenge (RFC 9110 §15.5.2): these two are gatepost's own.
        let mut challenges = Vec::new();
        let mut expects: Vec<String> = Vec::new();
        let mut way = |challenge: String, expected: String| {
            challenges.extend(HeaderValue::try_from(challenge));
            expects.push(expected);
        };
        if basic || (token_passwords && jwt) {
            way(r#"Basic realm="gatepost", charset="UTF-8""#.into(), "Basic credentials".into());
        }
        if jwt {
            way(r#"Bearer realm="gatepost""#.into(), "a bearer token".into());
        }
        for header in headers() {
            way(format!(r#"ApiKey realm="gatepost", header="{header}""#), format!("an API key in {header}"));
        }
        if mtls {
            way(r#"ClientCertificate realm="gatepost""#.into(), "a client certificate".into());
        }
        let mut text = String::new();
        for (at, expected) in expects.iter().enumerate() {
            let before = match at {
                0 => "expected ",
                at if at + 1 == expects.len() => " or ",
                _ => ", ",
            };
            // Writing to a String cannot fail.
            let _ = write!(text, "{before}{expected}");
        }
        Self {
            clients: ids,
            keys,
            basic,
            jwt,
            mtls,
            token_passwords: token_passwords && jwt,
            authorization: authorization.clone(),
            taken,
            challenges,
            expects: text,
        }
    }

    pub(super) fn lets_in(&self, client: ClientId) -> bool {
        self.clients.binary_search(&client).is_ok()
    }

    pub(super) fn keys(&self) -> &[usize] {
        &self.keys
    }

    pub(super) fn basic(&self) -> bool {
        self.basic
    }

    pub(super) fn jwt(&self) -> bool {
        self.jwt
    }

    pub(super) fn token_passwords(&self) -> bool {
        self.token_passwords
    }

    pub(super) fn mtls(&self) -> bool {
        self.mtls
    }

    pub(super) fn reads_authorization(&self) -> bool {
        self.basic || self.jwt
    }

    pub(super) fn authorization(&self) -> &HeaderName {
        &self.authorization
    }

    pub(super) fn reads_anything(&self) -> bool {
        self.mtls || self.reads_authorization() || !self.keys.is_empty()
    }

    /// The headers that are read here, and so not forwarded.
    pub fn taken(&self) -> &[HeaderName] {
        &self.taken
    }

    /// What an answer with 401 says in `WWW-Authenticate`: which kinds are expected, and nothing more.
    pub fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }

    /// The same in words: `expected Basic credentials or an API key in x-api-key`.
    pub fn expects(&self) -> &str {
        &self.expects
    }
}
