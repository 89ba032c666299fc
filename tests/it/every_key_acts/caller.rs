//! `[client.NAME]` by credentials, and `server.auth_failures`.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, SanType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{
    Connection, Gateway, Reply, Request, authority, eventually, get,
    jwt::{jwks, signer, unix_now},
    origin,
    tls::{ClientLeaf, authority_called},
    when,
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("server.auth_failures.rate", failures_rate),
        ("server.auth_failures.burst", failures_burst),
        ("client.*.api_key.sha256 = env:", api_key),
        ("client.*.api_key.sha256 = file:", api_key),
        ("client.*.api_key.sha256 = credential:", api_key),
        ("client.*.api_key.header", api_key_header),
        ("client.*.basic.sha256 = env:", password),
        ("client.*.basic.sha256 = file:", password),
        ("client.*.basic.sha256 = credential:", password),
        ("client.*.basic.user", user),
        ("client.*.jwt.issuer", issuer),
        ("client.*.jwt.audience", audience),
        ("client.*.jwt.audience[]", audiences),
        ("client.*.jwt.jwks", key_set),
        ("client.*.jwt.ca", key_set_ca),
        ("client.*.jwt.algorithms = RS256", algorithms),
        ("client.*.jwt.algorithms = RS384", algorithms),
        ("client.*.jwt.algorithms = RS512", algorithms),
        ("client.*.jwt.algorithms = PS256", algorithms),
        ("client.*.jwt.algorithms = PS384", algorithms),
        ("client.*.jwt.algorithms = PS512", algorithms),
        ("client.*.jwt.algorithms = ES256", algorithms),
        ("client.*.jwt.algorithms = ES384", algorithms),
        ("client.*.jwt.algorithms = EdDSA", algorithms),
        ("client.*.jwt.subject", subject),
        ("client.*.jwt.subject[]", subjects),
        ("client.*.jwt.claims.*", claim),
        ("client.*.jwt.leeway", leeway),
        ("client.*.mtls.subject", certificate_subject),
        ("client.*.mtls.subject[]", certificate_subjects),
        ("client.*.mtls.san = dns:", certificate_name),
        ("client.*.mtls.san = uri:", certificate_name),
        ("client.*.mtls.san = email:", certificate_name),
        ("client.*.mtls.san[] = dns:", certificate_names),
        ("client.*.mtls.san[] = uri:", certificate_names),
        ("client.*.mtls.san[] = email:", certificate_names),
        ("client.*.mtls.sha256", certificate_itself),
        ("client.*.mtls.sha256[]", certificates_themselves),
    ]
}

fn sha256(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client `a` with these lines, alone let in; LEAF is the one or the other.
async fn pair(leaf: &Leaf, client: &str, one: &str, other: &str) -> [Gateway; 2] {
    pair_with(leaf, "", client, one, other, &[]).await
}

async fn pair_with(
    leaf: &Leaf,
    top: &str,
    client: &str,
    one: &str,
    other: &str,
    files: &[(&str, &str)],
) -> [Gateway; 2] {
    // It lives as long as the proof's process: what is asked ends before its answer matters.
    let function = Box::leak(Box::new(named("v1").await));
    let config = format!("{top}\n[client.a]\n{client}\n{}", one_function(&function.url(), "clients = [\"a\"]"));
    let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let pair = leaf.pair(&config, one, other);
    pair.also(move |build| files.iter().fold(build, |build, (name, text)| build.file(name, text))).start().await
}

async fn answers(gateways: &[Gateway; 2], ask: impl Fn() -> Request) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (gateway, status) in gateways.iter().zip(&mut statuses) {
        *status = gateway.send(ask()).await.status;
    }
    statuses
}

fn keyed(header: &str, key: &str) -> Request {
    get("/").header(header, key)
}

fn basic(user: &str, password: &str) -> Request {
    get("/").header("authorization", &format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

const KEY_FILES: [(&str, &str); 1] = [("partner", "0000000000000000000000000000000000000000000000000000000000000000")];

/// How many wrong keys are told so.
async fn told(gateway: &Gateway, guesses: usize) -> usize {
    let mut caller = gateway.connect().await;
    let mut told = 0;
    for n in 0..guesses {
        told += usize::from(caller.send(keyed("x-api-key", &n.to_string())).await.status == 401);
    }
    told
}

async fn failures(leaf: &Leaf, fixed: &str, one: &str, other: &str) -> [Gateway; 2] {
    let top = format!("[server]\nauth_failures = {{ {fixed}LEAF }}");
    pair_with(leaf, &top, "api_key = { sha256 = \"file:@DIR@/partner\" }", one, other, &KEY_FILES).await
}

async fn failures_rate(leaf: Leaf) {
    let both = failures(&leaf, "burst = 1, ", "rate = \"1/h\"", "rate = \"1000000/s\"").await;
    assert_eq!(told(&both[0], 10).await, 1);
    assert_eq!(told(&both[1], 10).await, 10);
}

async fn failures_burst(leaf: Leaf) {
    let both = failures(&leaf, "rate = \"1/h\", ", "burst = 2", "burst = 5").await;
    assert_eq!(told(&both[0], 10).await, 2);
    assert_eq!(told(&both[1], 10).await, 5);
}

/// The leaf's kind of reference to the secrets `one` and `other`.
async fn by_secret(leaf: &Leaf, client: impl Fn(&str) -> String) -> [Gateway; 2] {
    let kind = leaf.name.rsplit(' ').next().unwrap();
    let place = if kind == "file:" { "@DIR@/" } else { "" };
    let credentials = tempfile::tempdir().unwrap();
    let folder = credentials.path().to_owned();
    for name in ["one", "other"] {
        fs::write(folder.join(name), sha256(name)).unwrap();
    }
    let function = named("v1").await;
    let config = format!("[client.a]\n{}\n{}", client("LEAF"), one_function(&function.url(), "clients = [\"a\"]"));
    let words = ["one", "other"].map(|name| format!("sha256 = \"{kind}{place}{name}\""));
    let both = leaf
        .pair(&config, &words[0], &words[1])
        .also(move |build| {
            let all = ["one", "other"].into_iter();
            let build = build.env("CREDENTIALS_DIRECTORY", &folder.display().to_string());
            all.fold(build, |build, name| build.env(name, &sha256(name)).file(name, &sha256(name)))
        })
        .start()
        .await;
    // Its answers are not waited for: it must outlive them all the same.
    std::mem::forget(function);
    drop(credentials);
    both
}

async fn api_key(leaf: Leaf) {
    let both = by_secret(&leaf, |sha256| format!("api_key = {{ {sha256} }}")).await;
    assert_eq!(answers(&both, || keyed("x-api-key", "one")).await, [200, 401]);
    assert_eq!(answers(&both, || keyed("x-api-key", "other")).await, [401, 200]);
}

async fn password(leaf: Leaf) {
    let both = by_secret(&leaf, |sha256| format!("basic = {{ user = \"ada\", {sha256} }}")).await;
    assert_eq!(answers(&both, || basic("ada", "one")).await, [200, 401]);
    assert_eq!(answers(&both, || basic("ada", "other")).await, [401, 200]);
}

async fn api_key_header(leaf: Leaf) {
    let client = "api_key = { sha256 = \"file:@DIR@/k\", LEAF }";
    let files = [("k", &*sha256("key"))];
    let both = pair_with(&leaf, "", client, "header = \"x-api-key\"", "header = \"X-Other\"", &files).await;
    assert_eq!(answers(&both, || keyed("x-api-key", "key")).await, [200, 401]);
    assert_eq!(answers(&both, || keyed("x-other", "key")).await, [401, 200]);
}

async fn user(leaf: Leaf) {
    let client = "basic = { sha256 = \"file:@DIR@/k\", LEAF }";
    let files = [("k", &*sha256("key"))];
    let both = pair_with(&leaf, "", client, "user = \"ada\"", "user = \"bob\"", &files).await;
    assert_eq!(answers(&both, || basic("ada", "key")).await, [200, 401]);
    assert_eq!(answers(&both, || basic("bob", "key")).await, [401, 200]);
}

/// Two gateposts for one issuer's tokens, with LEAF in place of the key that it is about; and the statuses of these claims.
async fn tokens(leaf: Leaf, one: &str, other: &str, asked: &[(Value, [u16; 2])]) {
    let signer = signer("k", "EdDSA");
    let mut lines = vec![];
    for line in ["issuer = \"i\"", "audience = \"a\"", "jwks = \"@DIR@/keys\"", "algorithms = [\"EdDSA\"]"] {
        if !line.starts_with(leaf.key().trim_end_matches("[]")) {
            lines.push(line);
        }
    }
    let client = format!("[client.a.jwt]\n{}\nLEAF", lines.join("\n"));
    let both = pair_with(&leaf, "", &client, one, other, &[("keys", &jwks(&[&signer]))]).await;
    for (claims, statuses) in asked {
        let mut all = json!({ "iss": "i", "aud": "a", "exp": unix_now() + 60 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let token = signer.token(&all);
        assert_eq!(answers(&both, || bearer(&token)).await, *statuses, "{claims}");
    }
}

fn bearer(token: &str) -> Request {
    get("/").header("authorization", &format!("Bearer {token}"))
}

async fn issuer(leaf: Leaf) {
    let asked = [(json!({ "iss": "one" }), [200, 401]), (json!({ "iss": "other" }), [401, 200])];
    tokens(leaf, "issuer = \"one\"", "issuer = \"other\"", &asked).await;
}

async fn audience(leaf: Leaf) {
    let asked = [(json!({ "aud": "one" }), [200, 401]), (json!({ "aud": "other" }), [401, 200])];
    tokens(leaf, "audience = \"one\"", "audience = \"other\"", &asked).await;
}

async fn audiences(leaf: Leaf) {
    let asked = [(json!({ "aud": "one" }), [200, 401]), (json!({ "aud": "both" }), [200, 200])];
    tokens(leaf, "audience = [\"one\", \"both\"]", "audience = [\"other\", \"both\"]", &asked).await;
}

async fn subject(leaf: Leaf) {
    let asked = [(json!({ "sub": "one" }), [200, 401]), (json!({ "sub": "other" }), [401, 200])];
    tokens(leaf, "subject = \"one\"", "subject = \"other\"", &asked).await;
}

async fn subjects(leaf: Leaf) {
    let asked = [(json!({ "sub": "one" }), [200, 401]), (json!({ "sub": "both" }), [200, 200])];
    tokens(leaf, "subject = [\"one\", \"both\"]", "subject = [\"other\", \"both\"]", &asked).await;
}

async fn claim(leaf: Leaf) {
    let asked = [(json!({ "scope": "read x" }), [200, 401]), (json!({ "scope": "write" }), [401, 200])];
    tokens(leaf, "claims = { scope = \"read\" }", "claims = { scope = \"write\" }", &asked).await;
}

async fn leeway(leaf: Leaf) {
    let asked = [(json!({ "exp": unix_now() - 60 }), [401, 200]), (json!({}), [200, 200])];
    tokens(leaf, "leeway = \"0s\"", "leeway = \"5m\"", &asked).await;
}

async fn algorithms(leaf: Leaf) {
    let word = leaf.name.rsplit(' ').next().unwrap();
    let signer = signer("k", word);
    let client = "[client.a.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks = \"@DIR@/keys\"\nLEAF";
    let other = if word == "EdDSA" { "ES256" } else { "EdDSA" };
    let [one, other] = [word, other].map(|word| format!("algorithms = [\"{word}\"]"));
    let both = pair_with(&leaf, "", client, &one, &other, &[("keys", &jwks(&[&signer]))]).await;
    let token = signer.token(&json!({ "iss": "i", "aud": "a", "exp": unix_now() + 60 }));
    assert_eq!(answers(&both, || bearer(&token)).await, [200, 401]);
}

async fn key_set(leaf: Leaf) {
    let (one, other) = (signer("k", "EdDSA"), signer("k", "EdDSA"));
    let client = "[client.a.jwt]\nissuer = \"i\"\naudience = \"a\"\nalgorithms = [\"EdDSA\"]\nLEAF";
    let files = [("one", &*jwks(&[&one])), ("other", &*jwks(&[&other]))];
    let both = pair_with(&leaf, "", client, "jwks = \"@DIR@/one\"", "jwks = \"@DIR@/other\"", &files).await;
    let claims = json!({ "iss": "i", "aud": "a", "exp": unix_now() + 60 });
    for (signer, statuses) in [(one, [200, 401]), (other, [401, 200])] {
        let token = signer.token(&claims);
        assert_eq!(answers(&both, || bearer(&token)).await, statuses);
    }
}

/// Whom the issuer's server must be known to. What it said to who trusted it before is nobody's who trusts another.
async fn key_set_ca(leaf: Leaf) {
    let (authority, stranger) = (authority(), authority_called("stranger"));
    let signer = signer("k", "EdDSA");
    let server = origin().tls(&authority.leaf(&["127.0.0.1"])).reply(Reply::text(jwks(&[&signer]))).start().await;
    let client = format!(
        "[client.a.jwt]\nissuer = \"i\"\naudience = \"a\"\nalgorithms = [\"EdDSA\"]\njwks = \"{}/keys\"\nLEAF",
        server.url()
    );
    let [one, other] = [&authority, &stranger].map(|of| format!("ca = \"{}\"", of.ca().display()));
    let [one, other] = pair(&leaf, &client, &one, &other).await;
    let token = signer.token(&json!({ "iss": "i", "aud": "a", "exp": unix_now() + 60 }));
    eventually("the keys are fetched", async || when(one.send(bearer(&token)).await.status == 200)).await;
    eventually("the fetch fails", async || {
        let metrics = other.metrics().await;
        when(metrics.sum("gatepost_jwks_fetches_total", &[("result", "failed")]) > 0.0)
    })
    .await;
    other.send(bearer(&token)).await.is_problem(503, "credential_unavailable");
}

/// Two gateposts that know callers by their certificates, and what those of these callers get.
async fn certificates(leaf: Leaf, words: [String; 2], callers: &[(&ClientLeaf, [u16; 2])], ca: &std::path::Path) {
    let server = authority();
    let top = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\ntls = [{}]\nclient_ca = \"{}\"",
        server.leaf(&["one.test"]).toml(),
        ca.display()
    );
    let both = pair_with(&leaf, &top, "[client.a.mtls]\nLEAF", &words[0], &words[1], &[]).await;
    for (caller, statuses) in callers {
        let caller = server.caller(&["http/1.1"]).showing(caller);
        for (gateway, status) in both.iter().zip(statuses) {
            let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
            let (stream, _) = caller.handshake(tcp, "one.test").await.unwrap();
            let answer = Connection::over(stream).send(get("/").host("one.test")).await;
            assert_eq!(answer.status, *status, "{answer:?}");
        }
    }
}

/// One value, or two lists that share one: what the callers called `one`, `other` and `both` get.
async fn certified(
    leaf: Leaf,
    key: &str,
    certificate: impl Fn(&str) -> ClientLeaf,
    word: impl Fn(&str, &ClientLeaf) -> String,
    ca: &std::path::Path,
) {
    let [one, other, both] = ["one", "other", "both"].map(|name| (name, certificate(name)));
    let said = |(name, leaf): &(&str, ClientLeaf)| format!("\"{}\"", word(name, leaf));
    let is_list = leaf.name.contains("[]");
    let words = [&one, &other].map(|of| match is_list {
        true => format!("{key} = [{}, {}]", said(of), said(&both)),
        false => format!("{key} = {}", said(of)),
    });
    let shared = if is_list { [200, 200] } else { [401, 401] };
    let callers = [(&one.1, [200, 401]), (&other.1, [401, 200]), (&both.1, shared)];
    certificates(leaf, words, &callers, ca).await;
}

async fn certificate_subject(leaf: Leaf) {
    let callers = authority_called("callers");
    let ca = callers.ca();
    certified(leaf, "subject", |name| callers.client(name), |name, _| format!("CN={name}"), &ca).await;
}

async fn certificate_subjects(leaf: Leaf) {
    certificate_subject(leaf).await;
}

async fn certificate_name(leaf: Leaf) {
    let kind = leaf.name.rsplit(' ').next().unwrap();
    let callers = authority_called("callers");
    let ca = callers.ca();
    let san = |name: &str| match kind {
        "dns:" => format!("{name}.test"),
        "uri:" => format!("spiffe://test/{name}"),
        _ => format!("{name}@one.test"),
    };
    let certificate = |name: &str| {
        callers.client_with("x", |params: &mut CertificateParams| {
            let text = san(name).try_into().unwrap();
            params.subject_alt_names = vec![match kind {
                "dns:" => SanType::DnsName(text),
                "uri:" => SanType::URI(text),
                _ => SanType::Rfc822Name(text),
            }];
        })
    };
    certified(leaf, "san", certificate, |name, _| format!("{kind}{}", san(name)), &ca).await;
}

async fn certificate_names(leaf: Leaf) {
    certificate_name(leaf).await;
}

async fn certificate_itself(leaf: Leaf) {
    let callers = authority_called("callers");
    let ca = callers.ca();
    let print =
        |_: &str, leaf: &ClientLeaf| Sha256::digest(&leaf.der).iter().map(|byte| format!("{byte:02x}")).collect();
    certified(leaf, "sha256", |name| callers.client(name), print, &ca).await;
}

async fn certificates_themselves(leaf: Leaf) {
    certificate_itself(leaf).await;
}
