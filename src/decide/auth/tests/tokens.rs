//! Tokens, signed here by keys made on the spot.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;
use crate::config::jwks::KeySet;

const CLIENTS: &str = r#"
    [client.any]
    jwt = { issuer = "https://issuer", audience = "api", jwks = "keys.json", algorithms = ["ES256"] }
    [client.writer]
    networks = ["203.0.113.0/24"]
    [client.writer.jwt]
    issuer = "https://issuer"
    audience = ["api", "other"]
    jwks = "keys.json"
    algorithms = ["ES256", "EdDSA"]
    subject = ["ada", "bob"]
    claims = { scope = "write", tenant = "*" }
    leeway = "0s"
    [client.office]
    networks = ["192.0.2.0/24"]
"#;
pub(super) const NOW: i64 = 1_800_000_000;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) struct Signer {
    id: &'static str,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

pub(super) fn signer(id: &'static str) -> Signer {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    Signer { id, p256, ed25519: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap() }
}

impl Signer {
    fn keys(&self) -> [Value; 2] {
        let point = self.p256.public_key().as_ref();
        [
            json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "x": b64(&point[1..33]), "y": b64(&point[33..]) }),
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": b64(self.ed25519.public_key()) }),
        ]
    }

    pub(super) fn set(&self) -> Arc<KeySet> {
        let set = json!({ "keys": self.keys() }).to_string();
        Arc::new(KeySet::parse(set.as_bytes()).unwrap())
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = if header.contains("EdDSA") {
            self.ed25519.sign(signed.as_bytes()).as_ref().to_vec()
        } else {
            self.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{signed}.{}", b64(signature))
    }

    pub(super) fn token(&self, claims: Value) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": self.id }).to_string(), &claims.to_string())
    }
}

/// Good for `any`.
pub(super) fn claims() -> Value {
    json!({ "iss": "https://issuer", "aud": "api", "exp": NOW + 60 })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| *value != "absent");
    claims
}

struct Issued {
    door: Door,
    ring: Arc<KeyRing>,
    signer: Signer,
    tokens: RefCell<TokenCache>,
}

fn issued(clients: &str) -> Issued {
    let config = config(CLIENTS, &format!("clients = {clients}"));
    let signer = signer("one");
    let ring = Arc::new(KeyRing::new(Some(signer.set())));
    let secrets = Named(HashMap::new(), Some(ring.clone()));
    let callers = Callers::new(&config, &secrets, None, Now(0));
    Issued { door: Door { config, callers }, ring, signer, tokens: RefCell::default() }
}

impl Issued {
    /// Twice: by judging it, and by remembering it.
    fn at(&self, unix: i64, ip: &str, token: &str) -> String {
        let caller = caller().from(ip).header("authorization", &format!("Bearer {token}"));
        let ask = || {
            let asked = self.door.callers.admit(
                RouteId(0),
                &Asking {
                    ip: caller.ip,
                    headers: &caller.headers,
                    certificate: None,
                    // Long after one another: here nobody is slowed.
                    now: Now(unix as u64 * 1_000_000_000),
                    unix: &|| unix,
                    tokens: Some(&self.tokens),
                },
            );
            match asked {
                Ok(client) => (*self.door.config.clients[client.unwrap().index()].name).to_owned(),
                Err(Denied { failure: Some(failure), .. }) => failure.why.as_str().to_owned(),
                Err(Denied { client, .. }) => format!("forbidden {client:?}"),
            }
        };
        let first = ask();
        assert_eq!(ask(), first, "{token}");
        first
    }

    fn says(&self, token: &str) -> String {
        // Each time from another address.
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.at(NOW, &format!("203.0.{}.{}", 114 + n / 250, n % 250 + 1), token)
    }

    fn of(&self, changes: Value) -> String {
        self.says(&self.signer.token(with(changes)))
    }

    fn headed(&self, header: Value) -> String {
        self.says(&self.signer.sign(&header.to_string(), &claims().to_string()))
    }
}

#[test]
fn a_token_of_the_issuer_for_us_is_good() {
    let issued = issued(r#"["any"]"#);
    assert_eq!(issued.of(json!({})), "any");
    assert_eq!(issued.of(json!({ "aud": ["x", "api"], "sub": "x", "nbf": NOW, "iat": NOW - 5, "jti": "1" })), "any");
    assert_eq!(issued.of(json!({ "exp": NOW as f64 + 0.5 })), "any");
}

#[test]
fn every_claim_is_looked_at() {
    let issued = issued(r#"["any"]"#);
    for (changes, why) in [
        (json!({ "iss": "https://issuer/" }), "issuer"),
        (json!({ "iss": "absent" }), "issuer"),
        (json!({ "iss": ["https://issuer"] }), "issuer"),
        (json!({ "aud": "apis" }), "audience"),
        (json!({ "aud": [] }), "audience"),
        (json!({ "aud": [["api"]] }), "audience"),
        (json!({ "aud": "absent" }), "audience"),
        (json!({ "exp": "absent" }), "claims"),
        (json!({ "exp": (NOW + 60).to_string() }), "malformed"),
        (json!({ "exp": -1 }), "malformed"),
        (json!({ "exp": 1e300 }), "malformed"),
        (json!({ "nbf": "tomorrow" }), "malformed"),
        (json!({ "exp": null }), "malformed"),
    ] {
        assert_eq!(issued.of(changes.clone()), why, "{changes}");
    }
}

#[test]
fn a_token_is_good_in_its_time_give_or_take_the_leeway() {
    let issued = issued(r#"["any"]"#);
    let token = issued.signer.token(with(json!({ "nbf": NOW, "iat": NOW - 100, "exp": NOW + 60 })));
    for (at, says) in [
        (-31, "not_yet_valid"),
        (-30, "any"),
        (0, "any"),
        (60, "any"),
        (89, "any"),
        (90, "expired"),
        (100_000, "expired"),
    ] {
        assert_eq!(issued.at(NOW + at, "198.51.100.1", &token), says, "{at}");
    }
    let from_the_future = issued.signer.token(with(json!({ "iat": NOW + 40 })));
    assert_eq!(issued.says(&from_the_future), "not_yet_valid");
}

#[test]
fn the_config_says_how_tokens_are_signed_not_the_token() {
    let issued = issued(r#"["any"]"#);
    let point = issued.signer.p256.public_key().as_ref();
    let hmac = |secret: &[u8], alg: &str| {
        let signed = format!("{}.{}", b64(json!({ "alg": alg, "kid": "one" }).to_string()), b64(claims().to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        format!("{signed}.{}", b64(ring::hmac::sign(&key, signed.as_bytes())))
    };
    // The public key as the secret of an HMAC.
    assert_eq!(issued.says(&hmac(point, "HS256")), "algorithm");
    assert_eq!(issued.says(&hmac(&point[1..], "HS256")), "algorithm");
    assert_eq!(issued.says(&hmac(point, "ES256")), "signature");
    let good = issued.signer.token(claims());
    let rest = good.split_once('.').unwrap().1;
    for alg in ["none", "None", "NONE", "nOnE", "HS256", "es256", "ES512", "RS256", "ES384"] {
        let token = format!("{}.{rest}", b64(json!({ "alg": alg, "kid": "one" }).to_string()));
        assert_eq!(issued.says(&token), "algorithm", "{alg}");
    }
    // No signature at all.
    let unsigned = format!("{}.{}.", b64(json!({ "alg": "none" }).to_string()), b64(claims().to_string()));
    assert_eq!(issued.says(&unsigned), "malformed");
    // Another client of this issuer takes these: what is signed that way must be so.
    let token = format!("{}.{rest}", b64(json!({ "alg": "EdDSA", "kid": "one" }).to_string()));
    assert_eq!(issued.says(&token), "signature");
    // And it is not that client's.
    let mixed = issued.signer.sign(&json!({ "alg": "EdDSA", "kid": "one" }).to_string(), &claims().to_string());
    assert_eq!(issued.says(&mixed), "algorithm");
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let issued = issued(r#"["any"]"#);
    let stranger = signer("one");
    let [jwk, _] = stranger.keys();
    for header in [
        json!({ "alg": "ES256", "kid": "one" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "ES256", "jwk": jwk }),
        json!({ "alg": "ES256", "kid": "one", "jku": "https://evil.test/jwks.json" }),
        json!({ "alg": "ES256", "kid": "one", "x5u": "https://evil.test/x.pem", "x5c": ["MIIB"] }),
    ] {
        let token = stranger.sign(&header.to_string(), &claims().to_string());
        assert_eq!(issued.says(&token), "signature", "{header}");
    }
    // The same fields do no harm to a good one.
    assert_eq!(issued.headed(json!({ "alg": "ES256", "jku": "https://evil.test/", "x5u": "x" })), "any");
    for kid in ["two", "../../etc/passwd", "one'--", "one\u{0}", "ONE"] {
        assert_eq!(issued.headed(json!({ "alg": "ES256", "kid": kid })), "key", "{kid}");
    }
    assert_eq!(issued.headed(json!({ "alg": "ES256", "kid": 1 })), "malformed");
}

#[test]
fn what_is_not_understood_is_refused() {
    let issued = issued(r#"["any"]"#);
    for header in [
        json!({ "alg": "ES256", "crit": ["exp"] }),
        json!({ "alg": "ES256", "crit": [] }),
        json!({ "alg": "ES256", "b64": false, "crit": ["b64"] }),
        json!({ "alg": "ES256", "typ": "logout+jwt" }),
        json!({ "alg": "ES256", "typ": 1 }),
        json!({ "kid": "one" }),
        json!({ "alg": 1 }),
    ] {
        assert_eq!(issued.headed(header.clone()), "malformed", "{header}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert_eq!(issued.headed(json!({ "alg": "ES256", "typ": typ })), "any", "{typ}");
    }
    let sign = |header: &str, claims: &str| issued.says(&issued.signer.sign(header, claims));
    let good = claims().to_string();
    assert_eq!(sign(r#"{"alg":"ES256","alg":"ES256"}"#, &good), "malformed");
    assert_eq!(sign(r#"{"alg":"ES256"}"#, &good.replace('{', "{\"aud\":\"api\",")), "malformed");
    assert_eq!(sign(r#"{"alg":"ES256"}"#, "[]"), "malformed");
    assert_eq!(sign(r#"{"alg":"ES256"}"#, "{"), "malformed");
    let token = issued.signer.token(claims());
    for bad in [
        "a.b.c".to_owned(),
        "..".to_owned(),
        token.replace('.', ""),
        format!("{token}.x"),
        format!("{token}="),
        token.replacen('.', "..", 1),
        token[..token.rfind('.').unwrap()].to_owned(),
    ] {
        assert_eq!(issued.says(&bad), "malformed", "{bad}");
    }
}

#[test]
fn the_signature_covers_every_letter() {
    let issued = issued(r#"["any"]"#);
    let token = issued.signer.token(claims());
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let says = issued.says(std::str::from_utf8(&changed).unwrap());
        assert!(says != "any", "letter {at} of {token}");
    }
}

#[test]
fn of_two_clients_the_one_that_asks_for_more_is_meant_and_the_route_decides_first() {
    let both = issued(r#"["any", "writer"]"#);
    let token = |issued: &Issued, changes| issued.signer.token(with(changes));
    let writer = json!({ "sub": "ada", "scope": "read write", "tenant": 7 });
    let inside = "203.0.113.9";
    assert_eq!(both.at(NOW, inside, &token(&both, writer.clone())), "writer");
    for not in [
        json!({ "sub": "eve", "scope": "write", "tenant": 7 }),
        json!({ "sub": "ada", "scope": "writer", "tenant": 7 }),
        json!({ "sub": "ada", "scope": "write", "tenant": null }),
        json!({ "sub": "ada", "scope": "write" }),
    ] {
        assert_eq!(both.at(NOW, inside, &token(&both, not.clone())), "any", "{not}");
    }
    // From elsewhere it is not the writer.
    assert_eq!(both.at(NOW, "198.51.100.1", &token(&both, writer.clone())), "any");
    let any = issued(r#"["any"]"#);
    assert_eq!(any.at(NOW, inside, &token(&any, writer.clone())), "any");
    let writers = issued(r#"["writer"]"#);
    assert_eq!(writers.at(NOW, "198.51.100.1", &token(&writers, writer.clone())), "forbidden Some(ClientId(0))");
    // The writer's clocks are exact; any's may differ.
    let late = token(&both, with_all(writer, json!({ "exp": NOW - 1 })));
    assert_eq!(both.at(NOW, inside, &late), "any");
    let tomorrow = json!({ "aud": "other", "sub": "bob", "scope": ["x", "write"], "tenant": true });
    let other = both.signer.sign(r#"{"alg":"EdDSA","kid":"one"}"#, &with(tomorrow).to_string());
    assert_eq!(both.at(NOW, inside, &other), "writer");
}

fn with_all(mut one: Value, other: Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

#[test]
fn new_keys_void_what_the_old_ones_accepted() {
    let issued = issued(r#"["any"]"#);
    let old = issued.signer.token(claims());
    assert_eq!(issued.says(&old), "any");
    let next = signer("two");
    let token = next.token(claims());
    assert_eq!(issued.says(&token), "key");
    let wanted = || issued.ring.poll_wanted(&std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
    assert!(wanted() && !wanted());
    issued.ring.store(next.set());
    assert_eq!(issued.says(&token), "any");
    assert_eq!(issued.says(&old), "key");
}

#[test]
fn without_keys_nothing_is_said_of_a_token() {
    let config = config(CLIENTS, r#"clients = ["any", "office"]"#);
    let secrets = Named(HashMap::new(), Some(Arc::new(KeyRing::new(None))));
    let door = Door { callers: Callers::new(&config, &secrets, None, Now(0)), config };
    let token = signer("one").token(claims());
    for _ in 0..50 {
        let caller = caller().from("192.0.2.1").header("authorization", &format!("Bearer {token}"));
        assert_eq!(door.ask(&caller).unwrap_err().reason, Reason::CredentialUnavailable);
    }
    assert_eq!(door.says(caller().from("192.0.2.1")), "office");
}

#[test]
fn a_set_is_read_for_what_is_of_use() {
    let [ec, ed] = signer("one").keys();
    let count = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|set| set.len()).ok();
    let plus = |key: &Value, name: &str, value: Value| with_all(key.clone(), json!({ name: value }));
    assert_eq!(count(json!([ec, ed])), Some(2));
    for passed_over in [
        plus(&ec, "use", json!("enc")),
        plus(&ec, "key_ops", json!(["sign"])),
        plus(&ec, "kty", json!("oct")),
        plus(&ec, "crv", json!("P-521")),
        plus(&ec, "crv", json!("P-384")),
        plus(&ec, "x", json!("AA")),
        plus(&ec, "alg", json!("HS256")),
        plus(&ec, "alg", json!("ES384")),
        json!({ "kty": "RSA", "n": b64([255; 128]), "e": "AQAB" }),
        json!(7),
    ] {
        assert_eq!(count(json!([passed_over, ed])), Some(1), "{passed_over}");
        assert_eq!(count(json!([passed_over])), None, "{passed_over}");
    }
    assert_eq!(count(json!([plus(&ec, "key_ops", json!(["verify"])), plus(&ec, "use", json!("sig"))])), Some(2));
    assert_eq!(count(json!(vec![ec; 101])), None);
    for bad in ["", "{}", "[]", "{\"keys\":{}}", "<html>"] {
        assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(KeySet::parse(&vec![b' '; 300 * 1024]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_no_token(text in "[A-Za-z0-9_.-]{0,80}", header in "\\PC{0,30}", claims in "\\PC{0,30}") {
        let _ = Token::read(text.as_bytes());
        let token = format!("{}.{}.AAAA", b64(&header), b64(&claims));
        prop_assert!(Token::read(token.as_bytes()).is_err() || header.contains("alg"));
    }
}
