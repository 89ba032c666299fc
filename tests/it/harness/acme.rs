//! An ACME authority (RFC 8555) on loopback: it checks every signature, nonce and URL, fetches challenges by plain HTTP, and signs
//! what was asked for by a proper request.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::CertificateSigningRequestParams;
use ring::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use super::{
    client::{Connection, get},
    tls::{Authority, authority_called},
};

/// A running authority; dropped, it is gone.
pub(crate) struct Acme {
    pub(crate) authority: Arc<Authority>,
    address: SocketAddr,
    shared: Arc<Mutex<State>>,
    task: AbortHandle,
}

/// What it has seen, and what it is told to do.
#[derive(Default)]
pub(crate) struct State {
    /// Where challenges are fetched for names that are not in `names`; `None`: it waits.
    pub(crate) asks_at: Option<SocketAddr>,
    pub(crate) names: BTreeMap<String, SocketAddr>,
    /// Answers every new order with this problem's type and `Retry-After`.
    pub(crate) refuses: Option<(&'static str, u64)>,
    /// Refuses so many good nonces.
    pub(crate) bad_nonces: u32,
    /// How old what it signs is already, and how long it lives.
    pub(crate) ago: Duration,
    pub(crate) life: Duration,
    pub(crate) orders: Vec<Vec<String>>,
    pub(crate) issued: u32,
    /// By account.
    pub(crate) contacts: Vec<Value>,
    nonces: BTreeSet<String>,
    next: u64,
    keys: Vec<Value>,
    made: BTreeMap<u64, Order>,
}

struct Order {
    names: Vec<String>,
    /// One token a name.
    tokens: Vec<String>,
    /// `None`: pending.
    proven: Vec<Option<bool>>,
    error: Option<String>,
    chain: Option<String>,
    thumbprint: String,
}

impl Order {
    fn status(&self) -> &'static str {
        match (&self.chain, &self.proven[..]) {
            (Some(_), _) => "valid",
            (None, proven) if proven.contains(&Some(false)) => "invalid",
            (None, proven) if proven.iter().all(|p| *p == Some(true)) => "ready",
            _ => "pending",
        }
    }
}

/// An authority that signs for ninety days, and refuses the first nonce.
pub(crate) async fn acme() -> Acme {
    let authority = Arc::new(authority_called("gatepost test acme"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let life = Duration::from_secs(90 * 86_400);
    let shared = Arc::new(Mutex::new(State { life, bad_nonces: 1, ..State::default() }));
    let acceptor = authority.leaf(&["127.0.0.1"]).acceptor(&[]);
    let server =
        Arc::new(Server { base: format!("https://{address}"), authority: authority.clone(), shared: shared.clone() });
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = service_fn(|request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Acme { authority, address, shared, task: task.abort_handle() }
}

impl Drop for Acme {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Acme {
    pub(crate) fn directory(&self) -> String {
        format!("https://{}/directory", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `{ acme = { … } }` in a config's words.
    pub(crate) fn toml(&self, domains: &[&str]) -> String {
        format!("{{ acme = {{ {}, domains = {domains:?} }} }}", self.keys())
    }

    /// Its keys, less `domains`.
    pub(crate) fn keys(&self) -> String {
        format!("directory = \"{}\", ca = \"{}\"", self.directory(), self.authority.ca().display())
    }
}

struct Server {
    base: String,
    authority: Arc<Authority>,
    shared: Arc<Mutex<State>>,
}

/// A problem: its type, and what it says.
type Refused = (StatusCode, &'static str, String);

fn malformed(what: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, "malformed", what.into())
}

/// A checked request: whose it is (for a new account nobody's), and what it says.
struct Signed {
    account: Option<usize>,
    key: Value,
    payload: Value,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let result = match (method, path.as_str()) {
            (Method::GET, "/directory") => Ok((StatusCode::OK, None, self.directory())),
            (Method::HEAD | Method::GET, "/nonce") => Ok((StatusCode::OK, None, Value::Null)),
            (Method::POST, _) => self.signed(&path, &body).and_then(|signed| self.post(&path, &signed)),
            _ => Err(malformed("no such thing")),
        };
        let nonce = {
            let mut state = self.state();
            state.next += 1;
            let nonce = BASE64.encode(format!("nonce {}", state.next));
            state.nonces.insert(nonce.clone());
            nonce
        };
        let mut response = Response::builder().header("Replay-Nonce", nonce);
        let (status, body) = match result {
            Ok((status, location, Value::String(chain))) => {
                let _ = location;
                response = response.header("Content-Type", "application/pem-certificate-chain");
                (status, chain)
            }
            Ok((status, location, value)) => {
                if let Some(location) = location {
                    response = response.header("Location", location);
                }
                (status, value.to_string())
            }
            Err((status, kind, detail)) => {
                if let Some((_, after)) = self.state().refuses.filter(|_| kind == "rateLimited") {
                    response = response.header("Retry-After", after);
                }
                response = response.header("Content-Type", "application/problem+json");
                let kind = format!("urn:ietf:params:acme:error:{kind}");
                (status, json!({ "type": kind, "detail": detail, "status": status.as_u16() }).to_string())
            }
        };
        response.status(status).body(Full::new(Bytes::from(body))).unwrap()
    }

    fn directory(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.base);
        json!({ "newNonce": at("/nonce"), "newAccount": at("/account"), "newOrder": at("/order"), "revokeCert": at("/revoke"),
            "keyChange": at("/key") })
    }

    /// RFC 8555 §6.2 to §6.5, and RFC 7515.
    fn signed(&self, path: &str, body: &[u8]) -> Result<Signed, Refused> {
        let jws: Value = serde_json::from_slice(body).map_err(|e| malformed(e.to_string()))?;
        let part = |name: &str| jws[name].as_str().ok_or_else(|| malformed(format!("no {name}")));
        let decoded = |text: &str| BASE64.decode(text).map_err(|e| malformed(e.to_string()));
        let (protected, payload) = (part("protected")?, part("payload")?);
        let header: Value = serde_json::from_slice(&decoded(protected)?).map_err(|e| malformed(e.to_string()))?;
        if header["alg"] != "ES256" {
            return Err((StatusCode::BAD_REQUEST, "badSignatureAlgorithm", header["alg"].to_string()));
        }
        if header["url"] != format!("{}{path}", self.base) {
            return Err((StatusCode::UNAUTHORIZED, "unauthorized", format!("signed for {}", header["url"])));
        }
        let mut state = self.state();
        let is_known = state.nonces.remove(header["nonce"].as_str().unwrap_or_default());
        if !is_known || state.bad_nonces > 0 {
            state.bad_nonces = state.bad_nonces.saturating_sub(1);
            return Err((StatusCode::BAD_REQUEST, "badNonce", "take another".to_owned()));
        }
        let account = header["kid"].as_str().and_then(|kid| {
            kid.strip_prefix(&format!("{}/account/", self.base))?
                .parse::<usize>()
                .ok()
                .filter(|n| *n < state.keys.len())
        });
        let key = match (account, path) {
            (Some(account), _) => state.keys[account].clone(),
            (None, "/account") if header["kid"].is_null() => header["jwk"].clone(),
            _ => return Err((StatusCode::BAD_REQUEST, "accountDoesNotExist", header["kid"].to_string())),
        };
        let coordinate = |name: &str| decoded(key[name].as_str().unwrap_or_default());
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(format!("{protected}.{payload}").as_bytes(), &decoded(part("signature")?)?)
            .map_err(|_| malformed("the signature is wrong"))?;
        let payload = match payload {
            // RFC 8555 §6.3: POST-as-GET.
            "" => Value::Null,
            text => serde_json::from_slice(&decoded(text)?).map_err(|e| malformed(e.to_string()))?,
        };
        Ok(Signed { account, key, payload })
    }

    fn post(&self, path: &str, signed: &Signed) -> Result<(StatusCode, Option<String>, Value), Refused> {
        let mut state = self.state();
        let number = |text: &str| text.parse::<u64>().map_err(|_| malformed(path));
        match path[1..].split_once('/').unwrap_or_else(|| (&path[1..], "")) {
            ("account", "") => {
                assert_eq!(signed.payload["termsOfServiceAgreed"], true);
                state.keys.push(signed.key.clone());
                state.contacts.push(signed.payload["contact"].clone());
                let url = format!("{}/account/{}", self.base, state.keys.len() - 1);
                Ok((StatusCode::CREATED, Some(url), json!({ "status": "valid" })))
            }
            ("account", _) => {
                let account = signed.account.ok_or_else(|| malformed("whose?"))?;
                state.contacts[account] = signed.payload["contact"].clone();
                Ok((StatusCode::OK, None, json!({ "status": "valid" })))
            }
            ("order", "") => {
                if let Some((kind, _)) = state.refuses {
                    return Err((StatusCode::TOO_MANY_REQUESTS, kind, "not now".to_owned()));
                }
                let names: Vec<String> = signed.payload["identifiers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|one| one["value"].as_str().unwrap_or_default().to_owned())
                    .collect();
                state.orders.push(names.clone());
                state.next += 1;
                let id = state.next;
                let order = Order {
                    tokens: (0..names.len()).map(|n| BASE64.encode(format!("token {id} {n}"))).collect(),
                    proven: vec![None; names.len()],
                    names,
                    error: None,
                    chain: None,
                    thumbprint: thumbprint(&signed.key),
                };
                let told = self.order(id, &order);
                state.made.insert(id, order);
                Ok((StatusCode::CREATED, Some(format!("{}/order/{id}", self.base)), told))
            }
            ("order", id) => {
                let id = number(id)?;
                let order = state.made.get(&id).ok_or_else(|| malformed(path))?;
                Ok((StatusCode::OK, None, self.order(id, order)))
            }
            (kind @ ("authz" | "challenge"), rest) => {
                let (id, n) = rest.split_once('/').ok_or_else(|| malformed(path))?;
                let (id, n) = (number(id)?, usize::try_from(number(n)?).unwrap());
                let order = state.made.get(&id).ok_or_else(|| malformed(path))?;
                if kind == "authz" {
                    return Ok((StatusCode::OK, None, self.authorization(id, n, order)));
                }
                let ask = Ask {
                    host: order.names[n].clone(),
                    token: order.tokens[n].clone(),
                    wanted: format!("{}.{}", order.tokens[n], order.thumbprint),
                };
                tokio::spawn(prove(self.shared.clone(), id, n, ask));
                Ok((StatusCode::OK, None, self.challenge(id, n, order)))
            }
            ("finalize", id) => {
                let id = number(id)?;
                let (ago, life) = (state.ago, state.life);
                let order = state.made.get_mut(&id).ok_or_else(|| malformed(path))?;
                if order.status() != "ready" {
                    return Err((StatusCode::FORBIDDEN, "orderNotReady", order.status().to_owned()));
                }
                let csr = BASE64
                    .decode(signed.payload["csr"].as_str().unwrap_or_default())
                    .map_err(|e| malformed(e.to_string()))?;
                let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
                    .map_err(|e| (StatusCode::BAD_REQUEST, "badCSR", e.to_string()))?;
                let asked: BTreeSet<String> = request
                    .params
                    .subject_alt_names
                    .iter()
                    .map(|name| match name {
                        rcgen::SanType::DnsName(name) => name.as_str().to_owned(),
                        other => format!("{other:?}"),
                    })
                    .collect();
                if asked != order.names.iter().cloned().collect() {
                    return Err((StatusCode::BAD_REQUEST, "badCSR", format!("{asked:?}")));
                }
                order.chain = Some(self.authority.sign(request, ago, life));
                let told = self.order(id, order);
                state.issued += 1;
                Ok((StatusCode::OK, None, told))
            }
            ("cert", id) => {
                let order = state.made.get(&number(id)?).ok_or_else(|| malformed(path))?;
                Ok((StatusCode::OK, None, Value::String(order.chain.clone().ok_or_else(|| malformed(path))?)))
            }
            _ => Err(malformed(path)),
        }
    }

    fn order(&self, id: u64, order: &Order) -> Value {
        let base = &self.base;
        let identifiers: Vec<Value> = order.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let authorizations: Vec<String> = (0..order.names.len()).map(|n| format!("{base}/authz/{id}/{n}")).collect();
        let mut told = json!({ "status": order.status(), "identifiers": identifiers, "authorizations": authorizations,
            "finalize": format!("{base}/finalize/{id}") });
        if order.chain.is_some() {
            told["certificate"] = format!("{base}/cert/{id}").into();
        }
        told
    }

    fn authorization(&self, id: u64, n: usize, order: &Order) -> Value {
        json!({ "status": status(order.proven[n]), "identifier": { "type": "dns", "value": order.names[n] },
            "challenges": [self.challenge(id, n, order)] })
    }

    fn challenge(&self, id: u64, n: usize, order: &Order) -> Value {
        let mut told = json!({ "type": "http-01", "status": status(order.proven[n]), "token": order.tokens[n],
            "url": format!("{}/challenge/{id}/{n}", self.base) });
        if let (Some(false), Some(error)) = (order.proven[n], &order.error) {
            told["error"] =
                json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": error, "status": 403 });
        }
        told
    }
}

fn status(proven: Option<bool>) -> &'static str {
    match proven {
        None => "pending",
        Some(true) => "valid",
        Some(false) => "invalid",
    }
}

/// RFC 7638.
fn thumbprint(key: &Value) -> String {
    let canonical = format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, key["crv"], key["kty"], key["x"], key["y"]);
    BASE64.encode(digest(&SHA256, canonical.as_bytes()))
}

struct Ask {
    host: String,
    token: String,
    wanted: String,
}

/// RFC 8555 §8.3: asks for the token as any browser would.
async fn prove(shared: Arc<Mutex<State>>, id: u64, n: usize, ask: Ask) {
    let address = loop {
        let at = {
            let state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state.names.get(&ask.host).copied().or(state.asks_at)
        };
        match at {
            Some(address) => break address,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let target = format!("/.well-known/acme-challenge/{}", ask.token);
    let said = match Connection::try_open(address).await {
        Ok(mut connection) => match connection.try_send(get(&target).host(&ask.host)).await {
            Ok(answer) => {
                (answer.status == 200 && answer.text() == ask.wanted).then_some(()).ok_or_else(|| answer.text())
            }
            Err(error) => Err(format!("{error:?}")),
        },
        Err(error) => Err(error.to_string()),
    };
    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let order = state.made.get_mut(&id).unwrap();
    order.proven[n] = Some(said.is_ok());
    order.error = said.err().map(|said| format!("asked for {target}, and got {said}"));
}
