//! Who is calling, by what it shows: API key, user and password, token, certificate. In: a route's [`Gate`] and the request's
//! headers. Out: the client, or what was wrong.
//!
//! Rules, all of which fail closed:
//!
//! - A gate reads the kinds that its clients use, and no others. What it reads is not forwarded ([`Gate::taken`]).
//! - Who shows nothing may be known by its network, if the route names a client of networks alone.
//! - Who shows something is known by that or not at all: a wrong credential never falls back to the network.
//! - Who shows several things must be the same client by each. A certificate that no client has is passed over if there is
//!   something else: it comes with the connection, and says nothing against the rest.
//! - A field that is there twice, empty, too long or malformed is a wrong credential.
//! - A client's networks must hold the caller, whatever it shows.
//!
//! Nothing here knows of ingress: egress asks the same with `Proxy-Authorization`.
//!
//! **Timing.** Keys and passwords are never compared themselves, only their SHA-256, and those in constant time
//! ([`Digest32`]). A digest is looked up in a table whose hash is keyed with random numbers of the process, so that nobody
//! can choose a guess by where it lands. User and password are looked up as one digest: a known user's wrong password takes
//! the very way of an unknown user.

mod cache;
mod failures;
mod gate;
mod grounds;
mod header;
mod key_ring;
mod strict;
#[cfg(test)]
mod tests;
mod token;

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc, sync::Arc};

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};

pub use cache::TokenCache;
pub use gate::Gate;
pub use grounds::Grounds;
pub use key_ring::KeyRing;

use super::{ClientCertificate, Now, Reason, San, client::Clients, egress, limit::Refused};
use crate::config::{
    Config, Digest32, Material, SecretRef,
    jwks::BadSignature,
    model::{ClientId, JwksSource, Mtls, Networks, RouteId, SanIs},
};
use cache::{Found, Stamp};
use failures::{Failures, Mark};
use header::{Authorization, Field, Scheme};
use token::{Rule, Token};

/// What a caller can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing, or nothing that says what it is.
    None,
    ApiKey,
    Basic,
    Jwt,
    Mtls,
}

impl Kind {
    /// In the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::None, Self::ApiKey, Self::Basic, Self::Jwt, Self::Mtls];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::Jwt => "jwt",
            Self::Mtls => "mtls",
        }
    }
}

/// Why somebody is nobody: for metrics and for the operator. The caller is told no more than the [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It showed nothing.
    Missing,
    /// Twice, empty, too long, or not of the form.
    Malformed,
    /// No client has that key, that user with that password, or that certificate.
    Unknown,
    /// The token's algorithm is not one of the client's.
    Algorithm,
    /// The issuer has no such key.
    Key,
    Signature,
    Issuer,
    Audience,
    /// `sub`, `exp` or another claim is not as asked for.
    Claims,
    Expired,
    NotYetValid,
    /// Right, but from outside of the client's networks.
    Network,
    /// What it shows is of different clients.
    Conflict,
    /// Its address failed too often: nothing was checked.
    Slowed,
    /// The issuer's keys are not known.
    Unavailable,
}

impl Why {
    /// In the order of their discriminants.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::Expired,
        Self::NotYetValid,
        Self::Network,
        Self::Conflict,
        Self::Slowed,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Network => "network",
            Self::Conflict => "conflict",
            Self::Slowed => "slowed",
            Self::Unavailable => "unavailable",
        }
    }

    /// For the operator.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "it shows nothing that this route reads",
            Self::Malformed => "it is there twice, empty, too long or malformed",
            Self::Unknown => "no client has this one",
            Self::Algorithm => "the token is signed by an algorithm that no client of its issuer allows",
            Self::Key => "the issuer's key set has no such key",
            Self::Signature => "the token's signature is wrong",
            Self::Issuer => "no client takes tokens of this issuer",
            Self::Audience => "the token is not for this audience",
            Self::Claims => "the token's `sub`, `exp` or claims are not those of a client",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Network => "the caller is outside of the client's networks",
            Self::Conflict => "what it shows is of different clients",
            Self::Slowed => "its address failed too often",
            Self::Unavailable => "the issuer's keys are not known",
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Missing => Reason::CredentialsMissing,
            Self::Slowed => Reason::RateLimited,
            Self::Unavailable => Reason::CredentialUnavailable,
            _ => Reason::CredentialsInvalid,
        }
    }
}

/// What was wrong with what a caller showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub why: Why,
}

/// Somebody who is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    pub reason: Reason,
    /// Who it is: for [`Reason::ForbiddenClient`], where it is somebody.
    pub client: Option<ClientId>,
    /// What it failed by; `None`: it is who it says, and not let in.
    pub failure: Option<Failure>,
    /// How long it must wait.
    pub wait: Option<Refused>,
}

impl Denied {
    fn by(failure: Failure) -> Self {
        Self { reason: failure.why.reason(), client: None, failure: Some(failure), wait: None }
    }

    fn forbidden(client: Option<ClientId>) -> Self {
        Self { reason: Reason::ForbiddenClient, client, failure: None, wait: None }
    }
}

/// Who asks, and when.
#[derive(Clone, Copy)]
pub struct Asking<'r> {
    pub ip: IpAddr,
    pub headers: &'r HeaderMap,
    pub certificate: Option<&'r ClientCertificate>,
    pub now: Now,
    /// Seconds since 1970; asked for only where a token must be judged.
    pub unix: &'r dyn Fn() -> i64,
    /// The worker's own; `None`: tokens are judged each time.
    pub tokens: Option<&'r RefCell<TokenCache>>,
}

/// Where the hashes of secrets and the keys of issuers come from.
pub trait Secrets {
    fn digests(&self, secret: &SecretRef) -> &[Digest32];
    fn keys(&self, source: &JwksSource) -> Option<Arc<KeyRing>>;
}

/// What a config's own files say; keys that are fetched are not known.
impl Secrets for Material {
    fn digests(&self, secret: &SecretRef) -> &[Digest32] {
        Self::digests(self, secret)
    }

    fn keys(&self, source: &JwksSource) -> Option<Arc<KeyRing>> {
        match source {
            JwksSource::File(path) => Some(Arc::new(KeyRing::new(self.key_set(path).cloned()))),
            JwksSource::Url(_) => None,
        }
    }
}

/// Nothing is known: who would show something is refused.
#[derive(Debug)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn digests(&self, _: &SecretRef) -> &[Digest32] {
        &[]
    }

    fn keys(&self, _: &JwksSource) -> Option<Arc<KeyRing>> {
        None
    }
}

/// All clients of a config, arranged by what they show.
#[derive(Debug)]
pub struct Callers {
    /// Those of networks alone.
    by_network: Clients,
    /// By [`ClientId`]; empty: from anywhere.
    networks: Vec<Networks>,
    api_keys: Vec<(HeaderName, HashMap<Digest32, ClientId>)>,
    passwords: HashMap<Digest32, ClientId>,
    issuers: Vec<Issuer>,
    certificates: Vec<(ClientId, Mtls)>,
    /// By [`RouteId`]; `None`: it names no clients.
    gates: Vec<Option<Gate>>,
    /// Of the way out; `None`: there is none.
    egress: Option<Gate>,
    failures: Failures,
    number: u64,
}

#[derive(Debug)]
struct Issuer {
    name: String,
    source: JwksSource,
    ring: Arc<KeyRing>,
    /// Those that ask for more come first.
    rules: Vec<Rule>,
}

impl Callers {
    /// Arranges the clients of `config`. Failures are counted on where `previous` was.
    pub fn new(config: &Config, secrets: &dyn Secrets, previous: Option<&Self>, now: Now) -> Self {
        let mut api_keys: Vec<(HeaderName, HashMap<Digest32, ClientId>)> = Vec::new();
        let mut passwords = HashMap::new();
        let mut issuers: Vec<Issuer> = Vec::new();
        let mut certificates = Vec::new();
        for (id, client) in (0u32..).map(ClientId).zip(&config.clients) {
            if let Some(key) = &client.api_key {
                let at = api_keys.iter().position(|(header, _)| *header == key.header).unwrap_or_else(|| {
                    api_keys.push((key.header.clone(), HashMap::new()));
                    api_keys.len() - 1
                });
                api_keys[at].1.extend(secrets.digests(&key.sha256).iter().map(|digest| (*digest, id)));
            }
            if let Some(basic) = &client.basic {
                let pair = |digest: &Digest32| (user_and_password(basic.user.as_bytes(), digest), id);
                passwords.extend(secrets.digests(&basic.sha256).iter().map(pair));
            }
            if let Some(jwt) = &client.jwt {
                let rule = Rule { client: id, jwt: jwt.clone() };
                match issuers.iter_mut().find(|known| known.name == jwt.issuer && known.source == jwt.keys) {
                    Some(known) => known.rules.push(rule),
                    None => issuers.push(Issuer {
                        name: jwt.issuer.clone(),
                        source: jwt.keys.clone(),
                        ring: secrets.keys(&jwt.keys).unwrap_or_else(|| Arc::new(KeyRing::new(None))),
                        rules: vec![rule],
                    }),
                }
            }
            if let Some(mtls) = &client.mtls {
                certificates.push((id, mtls.clone()));
            }
        }
        for issuer in &mut issuers {
            issuer.rules.sort_by_key(|rule| std::cmp::Reverse(rule.strictness()));
        }
        let strictness = |mtls: &Mtls| (!mtls.sha256.is_empty(), !mtls.subject.is_empty(), !mtls.san.is_empty());
        certificates.sort_by_key(|(_, mtls)| std::cmp::Reverse(strictness(mtls)));
        let gates = (config.routes.iter())
            .map(|route| Some(Gate::new(route.clients.as_ref()?, &config.clients, &AUTHORIZATION, &api_keys, false)))
            .collect();
        // An API key in a forwarded request is the destination's.
        let no_keys: &[(HeaderName, ())] = &[];
        let egress = (!config.egress.listeners.is_empty())
            .then(|| Gate::new(&egress::clients(config), &config.clients, &PROXY_AUTHORIZATION, no_keys, true));
        Self {
            by_network: Clients::new(&config.clients),
            networks: config.clients.iter().map(|client| client.networks.clone()).collect(),
            api_keys,
            passwords,
            issuers,
            certificates,
            gates,
            egress,
            failures: Failures::new(&config.server.auth_failures, previous.map(|p| &p.failures), now),
            number: key_ring::fresh_number(),
        }
    }

    /// The client that an address alone belongs to.
    pub fn by_network(&self, ip: IpAddr) -> Option<ClientId> {
        self.by_network.identify(ip)
    }

    /// What a route reads; `None`: it names no clients.
    pub fn gate(&self, route: RouteId) -> Option<&Gate> {
        self.gates[route.index()].as_ref()
    }

    /// What the way out reads, with [`pass`](Self::pass); `None`: there is no egress listener.
    pub fn egress(&self) -> Option<&Gate> {
        self.egress.as_ref()
    }

    /// Who asks for a route, and whether it is let in; on a route that names no clients, nothing but the address is read.
    ///
    /// # Errors
    ///
    /// [`Denied`]. A failure has been counted for the address.
    pub fn admit(&self, route: RouteId, asking: &Asking<'_>) -> Result<Option<ClientId>, Denied> {
        match self.gate(route) {
            None => Ok(self.by_network(asking.ip)),
            Some(gate) => self.pass(gate, asking).map(Some),
        }
    }

    /// Who stands at a gate, and whether it is let in.
    ///
    /// # Errors
    ///
    /// [`Denied`]. A failure has been counted for the address.
    pub fn pass(&self, gate: &Gate, asking: &Asking<'_>) -> Result<ClientId, Denied> {
        let shown = self.shown(gate, asking);
        if shown.is_nothing() {
            return match self.by_network(asking.ip) {
                Some(id) if gate.lets_in(id) => Ok(id),
                client if !gate.reads_anything() => Err(Denied::forbidden(client)),
                _ => Err(Denied::by(Failure { kind: Kind::None, why: Why::Missing })),
            };
        }
        let slow = |wait| {
            let failure = Failure { kind: shown.kind(), why: Why::Slowed };
            Denied { wait: Some(wait), ..Denied::by(failure) }
        };
        if shown.is_in_headers()
            && let Err(wait) = self.failures.look(asking.ip, asking.headers, asking.now)
            && !shown.mark(asking.ip).is_some_and(|mark| self.failures.remembers(mark, asking.now))
        {
            return Err(slow(wait));
        }
        match self.judge(&shown, gate, asking) {
            Ok(id) => {
                if let Some(mark) = shown.mark(asking.ip) {
                    self.failures.remember(mark, asking.now);
                }
                if gate.lets_in(id) { Ok(id) } else { Err(Denied::forbidden(Some(id))) }
            }
            Err(failure) if failure.why == Why::Unavailable => Err(Denied::by(failure)),
            Err(failure) => {
                self.failures.count(asking.ip, asking.headers, asking.now).map_err(slow)?;
                Err(Denied::by(failure))
            }
        }
    }

    fn shown<'r>(&self, gate: &Gate, asking: &Asking<'r>) -> Shown<'r> {
        let mut shown = Shown { key: Key::Absent, authorization: Authorization::Absent, certificate: None };
        for at in gate.keys() {
            let name = &self.api_keys[*at].0;
            shown.key = match (shown.key, header::api_key(asking.headers, name)) {
                (key, Field::Absent) => key,
                (Key::Absent, Field::Is(value)) => Key::Is(*at, value),
                // Two headers, of which each may hold one.
                _ => Key::Bad,
            };
        }
        if gate.reads_authorization() {
            shown.authorization = Authorization::read(asking.headers, gate.authorization(), gate.token_passwords());
        }
        if gate.mtls() {
            shown.certificate = asking.certificate;
        }
        shown
    }

    /// The client that all that is shown is of: of several, one that the gate lets in, and of those the first.
    fn judge(&self, shown: &Shown<'_>, gate: &Gate, asking: &Asking<'_>) -> Result<ClientId, Failure> {
        let unknown = |kind| Failure { kind, why: Why::Unknown };
        let malformed = |kind| Failure { kind, why: Why::Malformed };
        let by_key = match shown.key {
            Key::Absent => None,
            Key::Bad => return Err(malformed(Kind::ApiKey)),
            Key::Is(at, key) => {
                let known = asking.tokens.and_then(|cache| cache.borrow().digest(key));
                let digest = known.unwrap_or_else(|| Digest32::of(key));
                let found = self.api_keys[at].1.get(&digest).copied().ok_or_else(|| unknown(Kind::ApiKey))?;
                if let (None, Some(cache)) = (known, asking.tokens) {
                    cache.borrow_mut().keep_digest(key, digest);
                }
                Some(found)
            }
        };
        let mut by_password = None;
        let mut by_token: Option<Found> = None;
        match &shown.authorization {
            Authorization::Absent => {}
            Authorization::Bad(scheme) => {
                return Err(malformed(match scheme {
                    Scheme::Basic => Kind::Basic,
                    Scheme::Bearer => Kind::Jwt,
                    Scheme::Other => Kind::None,
                }));
            }
            // A scheme that no client of the gate uses is as wrong as any.
            Authorization::Basic(_) if !gate.basic() && !gate.token_passwords() => return Err(unknown(Kind::Basic)),
            Authorization::Bearer(_) if !gate.jwt() => return Err(unknown(Kind::Jwt)),
            Authorization::Basic(pair) => {
                let digest = user_and_password(pair.user(), &Digest32::of(pair.password()));
                by_password = self.passwords.get(&digest).copied().filter(|_| gate.basic());
                match pair.token().filter(|_| by_password.is_none() && gate.token_passwords()) {
                    None => by_password = Some(by_password.ok_or_else(|| unknown(Kind::Basic))?),
                    Some(token) => {
                        let found = self.token(token, asking);
                        by_token = Some(found.map_err(|why| Failure { kind: Kind::Jwt, why })?);
                    }
                }
            }
            Authorization::Bearer(token) => {
                let found = self.token(token, asking);
                by_token = Some(found.map_err(|why| Failure { kind: Kind::Jwt, why })?);
            }
        }
        let now = by_token.is_some().then(asking.unix).unwrap_or_default();
        let known = shown.certificate.filter(|one| self.is_somebodys(one));
        if by_key.is_none() && by_password.is_none() && by_token.is_none() && known.is_none() {
            return Err(unknown(Kind::Mtls));
        }

        let mut why = Why::Conflict;
        let mut chosen: Option<ClientId> = None;
        let mut consider = |id: ClientId| {
            let by_token = match &by_token {
                None => Ok(()),
                Some(found) => match found.iter().find(|one| one.client == id) {
                    Some(one) => one.at(now).map(drop),
                    None => Err(Why::Conflict),
                },
            };
            let agrees = by_key.is_none_or(|key| key == id)
                && by_password.is_none_or(|password| password == id)
                && known.is_none_or(|certificate| self.is_of_client(certificate, id));
            let networks = &self.networks[id.index()];
            if let Err(late) = by_token {
                why = late;
            } else if !agrees {
                why = Why::Conflict;
            } else if !networks.is_empty() && !networks.contains(asking.ip) {
                why = Why::Network;
            } else if chosen.is_none_or(|first| !gate.lets_in(first) && gate.lets_in(id)) {
                chosen = Some(id);
            }
        };
        match (by_key.or(by_password), &by_token) {
            (Some(id), _) => consider(id),
            (None, Some(found)) => found.iter().for_each(|one| consider(one.client)),
            (None, None) => self.certificates.iter().for_each(|(id, mtls)| {
                if known.is_some_and(|certificate| is_of(certificate, mtls)) {
                    consider(*id);
                }
            }),
        }
        chosen.ok_or_else(|| Failure { kind: shown.kind(), why })
    }

    /// Whether any client has that certificate.
    fn is_somebodys(&self, certificate: &ClientCertificate) -> bool {
        self.certificates.iter().any(|(_, mtls)| is_of(certificate, mtls))
    }

    fn is_of_client(&self, certificate: &ClientCertificate, id: ClientId) -> bool {
        self.certificates.iter().any(|(client, mtls)| *client == id && is_of(certificate, mtls))
    }

    /// The clients that a token is for, whatever the time.
    fn token(&self, text: &[u8], asking: &Asking<'_>) -> Result<Found, Why> {
        let holds = |stamp: Stamp| {
            stamp.callers == self.number
                && self.issuers.get(stamp.issuer).is_some_and(|i| i.ring.version() == stamp.keys)
        };
        if let Some(found) = asking.tokens.and_then(|tokens| tokens.borrow().find(text, holds)) {
            return Ok(found);
        }
        let token = Token::read(text)?;
        let mut why = Why::Issuer;
        for (at, issuer) in self.issuers.iter().enumerate().filter(|(_, i)| token.issuer() == Some(&i.name)) {
            let stamp = Stamp { callers: self.number, issuer: at, keys: issuer.ring.version() };
            match issuer.judge(&token) {
                Ok(found) => {
                    if let Some(tokens) = asking.tokens {
                        tokens.borrow_mut().keep(text, stamp, found.clone());
                    }
                    return Ok(found);
                }
                Err(other) => why = other,
            }
        }
        Err(why)
    }
}

impl Issuer {
    fn judge(&self, token: &Token<'_>) -> Result<Found, Why> {
        // Before anything is done with a key: the config says how tokens are signed (RFC 8725 §3.1).
        if !self.rules.iter().any(|rule| rule.jwt.algorithms.contains(&token.algorithm)) {
            return Err(Why::Algorithm);
        }
        let keys = self.ring.load();
        let Some(keys) = &*keys else { return Err(Why::Unavailable) };
        match keys.verify(token.algorithm, token.key.as_deref(), token.signed, &token.signature) {
            Ok(()) => {}
            Err(BadSignature::Wrong) => return Err(Why::Signature),
            Err(BadSignature::NoKey) => {
                self.ring.want();
                return Err(Why::Key);
            }
        }
        let mut why = Why::Claims;
        let judged = self.rules.iter().filter_map(|rule| rule.judge(token).map_err(|other| why = other).ok());
        let found: Vec<_> = judged.collect();
        if found.is_empty() { Err(why) } else { Ok(Rc::from(found)) }
    }
}

/// What a request shows of what its gate reads.
struct Shown<'r> {
    key: Key<'r>,
    authorization: Authorization<'r>,
    certificate: Option<&'r ClientCertificate>,
}

#[derive(Clone, Copy)]
enum Key<'r> {
    Absent,
    Bad,
    /// By the place of its header, and itself.
    Is(usize, &'r [u8]),
}

impl Shown<'_> {
    fn is_in_headers(&self) -> bool {
        !matches!((&self.key, &self.authorization), (Key::Absent, Authorization::Absent))
    }

    fn is_nothing(&self) -> bool {
        !self.is_in_headers() && self.certificate.is_none()
    }

    fn kind(&self) -> Kind {
        match (&self.key, &self.authorization) {
            (Key::Is(..) | Key::Bad, _) => Kind::ApiKey,
            (Key::Absent, Authorization::Basic(_) | Authorization::Bad(Scheme::Basic)) => Kind::Basic,
            (Key::Absent, Authorization::Bearer(_) | Authorization::Bad(Scheme::Bearer)) => Kind::Jwt,
            (Key::Absent, Authorization::Absent) if self.certificate.is_some() => Kind::Mtls,
            (Key::Absent, Authorization::Absent | Authorization::Bad(Scheme::Other)) => Kind::None,
        }
    }

    /// What it is known by again from this address. Of several credentials none: they are too seldom.
    fn mark(&self, ip: IpAddr) -> Option<Mark> {
        match (&self.key, &self.authorization) {
            (Key::Is(at, key), Authorization::Absent) => Mark::of(u8::try_from(*at).ok()?.checked_add(2)?, key, ip),
            (Key::Absent, Authorization::Basic(pair)) => {
                // The password alone must be hard to guess.
                Mark::of(0, pair.password(), ip)?;
                Mark::of(0, pair.both(), ip)
            }
            (Key::Absent, Authorization::Bearer(token)) => Mark::of(1, token, ip),
            _ => None,
        }
    }
}

/// User and password as one digest.
fn user_and_password(user: &[u8], password: &Digest32) -> Digest32 {
    Digest32::of_parts(&[user, password.as_bytes()])
}

fn is_of(certificate: &ClientCertificate, mtls: &Mtls) -> bool {
    let same = |wanted: &SanIs, is: &San| match (wanted, is) {
        (SanIs::Dns(a), San::Dns(b)) | (SanIs::Uri(a), San::Uri(b)) | (SanIs::Email(a), San::Email(b)) => a == b,
        _ => false,
    };
    (mtls.sha256.is_empty() || mtls.sha256.contains(&certificate.sha256))
        && (mtls.subject.is_empty() || mtls.subject.contains(&certificate.subject))
        && (mtls.san.is_empty() || mtls.san.iter().any(|wanted| certificate.sans.iter().any(|is| same(wanted, is))))
}
