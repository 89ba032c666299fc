//! Callers show who they are, by key, password, token or certificate; whoever can't gets nowhere, and slowly.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{
    Answer, Connection, Gateway, Origin, Reply, Request, authority, eventually,
    gateway::{Build, gateway},
    get,
    jwt::{Signer, jwks, signer, unix_now},
    origin, post,
    tls::authority_called,
    when,
};

const KEY: &str = "partner-4b1f60a7c2d94e5f8a30";
const PASSWORD: &str = "orders-4b1f60a7c2d94e5f8a30";

fn sha256(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A partner with a key, an orders function with a password, an office with neither, and a route for some of them.
async fn serving(route: &str) -> (Build, Origin) {
    let function = origin().echo().start().await;
    let text = format!(
        r#"
        [client.partner]
        owner = "Ada"
        api_key = {{ sha256 = "file:partner.sha256" }}
        [client.orders-fn]
        basic = {{ user = "orders-fn", sha256 = "file:@DIR@/orders.sha256" }}
        [client.office]
        networks = ["127.0.0.9/32"]
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        {route}
        "#,
        function.url()
    );
    let build = gateway(text)
        .workers(1)
        .file("partner.sha256", &format!("{}  -\n", sha256(KEY)))
        .file("orders.sha256", &sha256(PASSWORD));
    (build, function)
}

fn keyed(key: &str) -> Request {
    get("/").header("X-API-Key", key)
}

fn basic(user: &str, password: &str) -> Request {
    get("/").header("Authorization", &format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn bearer(token: &str) -> Request {
    get("/").header("Authorization", &format!("Bearer {token}"))
}

async fn from(gateway: &Gateway, ip: &str, request: Request) -> Answer {
    gateway.connect_from(ip).await.send(request).await
}

fn challenges(answer: &Answer) -> Vec<&str> {
    let all = answer.fields.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    all.map(|(_, value)| value.as_str()).collect()
}

/// Whether the function saw a header of that name.
fn saw(function: &Origin, name: &str) -> bool {
    function.last().header(name).is_some()
}

#[tokio::test]
async fn a_key_lets_its_client_in_and_goes_no_further() {
    let (build, function) = serving(r#"clients = ["partner", "office"]"#).await;
    let gateway = build.start().await;
    assert_eq!(gateway.send(keyed(KEY).header("Authorization", "Bearer the-function's-own")).await.status, 200);
    assert!(!saw(&function, "x-api-key"));
    // Nobody here is known by it: it is the function's.
    assert!(saw(&function, "authorization"));
    let missing = gateway.send("/").await;
    missing.is_problem(401, "credentials_missing");
    assert_eq!(challenges(&missing), [r#"ApiKey realm="gatepost", header="x-api-key""#]);
    assert_eq!(missing.json()["detail"], "expected an API key in x-api-key");
    for wrong in ["", "x", &KEY[1..], &KEY.to_uppercase()] {
        let answer = gateway.send(keyed(wrong)).await;
        answer.is_problem(401, "credentials_invalid");
        assert_eq!(challenges(&answer), [r#"ApiKey realm="gatepost", header="x-api-key""#]);
    }
    gateway.send(keyed(KEY).header("x-api-key", KEY)).await.is_problem(401, "credentials_invalid");
    // An office that shows nothing is known by its address; one that shows a wrong key is not.
    assert_eq!(from(&gateway, "127.0.0.9", get("/")).await.status, 200);
    from(&gateway, "127.0.0.9", keyed("x")).await.is_problem(401, "credentials_invalid");
    assert_eq!(function.requests(), 2);

    let clients: Vec<Value> = gateway.log(9).await.iter().map(|line| line["client"].clone()).collect();
    assert_eq!(clients[0], "partner");
    assert!(clients[1..7].iter().all(Value::is_null), "{clients:?}");
    assert_eq!(clients[7], "office");
    let name = "gatepost_auth_failures_total";
    gateway.counts(name, &[("kind", "api_key"), ("reason", "unknown")], 4.0).await;
    gateway.counts(name, &[("kind", "api_key"), ("reason", "malformed")], 2.0).await;
    gateway.counts(name, &[("kind", "none"), ("reason", "missing")], 1.0).await;
    for told in [gateway.stderr(), fs::read_to_string(gateway.dir().join("access.log")).unwrap()] {
        assert!(!told.contains(KEY) && !told.contains(&sha256(KEY)), "a secret in {told}");
    }
}

#[tokio::test]
async fn a_user_and_its_password_let_in_and_go_no_further() {
    let (build, function) = serving(r#"clients = ["orders-fn"]"#).await;
    let gateway = build.start().await;
    assert_eq!(gateway.send(basic("orders-fn", PASSWORD).header("X-Api-Key", "the-function's-own")).await.status, 200);
    assert!(!saw(&function, "authorization"));
    assert!(saw(&function, "x-api-key"));
    for wrong in [
        basic("orders-fn", "wrong"),
        basic("nobody", PASSWORD),
        basic("", ""),
        get("/").header("Authorization", "Basic !!!"),
        get("/").header("Authorization", "Basic"),
        get("/").header("Authorization", PASSWORD),
        bearer("a.b.c"),
        basic("orders-fn", PASSWORD).header("Authorization", "Basic x"),
    ] {
        let answer = gateway.send(wrong).await;
        answer.is_problem(401, "credentials_invalid");
        assert_eq!(challenges(&answer), [r#"Basic realm="gatepost", charset="UTF-8""#]);
    }
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn a_known_client_that_the_route_does_not_name_is_forbidden() {
    let (build, function) =
        serving("clients = [\"other\"]\n[client.other]\napi_key = { sha256 = \"file:other\" }").await;
    let gateway = build.file("other", &sha256("another-key")).start().await;
    let answer = gateway.send(keyed(KEY)).await;
    answer.is_problem(403, "forbidden_client");
    assert!(challenges(&answer).is_empty());
    assert_eq!(gateway.log_line().await["client"], "partner");
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn a_grpc_caller_is_told_in_its_own_words() {
    let (build, _f) = serving(r#"clients = ["partner"]"#).await;
    let gateway = build.start().await;
    for (request, reason) in [
        (post("/pkg.Service/Call"), "credentials_missing"),
        (post("/pkg.Service/Call").header("x-api-key", "x"), "credentials_invalid"),
    ] {
        let answer = gateway.send(request.header("content-type", "application/grpc")).await;
        assert_eq!((answer.status, answer.header("grpc-status"), answer.reason()), (200, Some("16"), reason));
    }
}

/// The issue: guessing is slowed, the others unharmed, and the caller's own limits not drained.
#[tokio::test]
async fn guessing_is_slowed_and_harms_nobody_else() {
    let limit = r#"limits = [{ rate = "1/h", burst = 2, per = "client" }, { rate = "1/h", burst = 4 }]"#;
    let (build, function) = serving(&format!("clients = [\"partner\", \"orders-fn\", \"office\"]\n{limit}")).await;
    let gateway = build.start().await;
    let mut guesser = gateway.connect_from("127.0.0.66").await;
    let mut told = Vec::new();
    for n in 0..60 {
        let guess = if n % 2 == 0 { keyed(&format!("guess-{n}")) } else { basic("orders-fn", &format!("{n}")) };
        let answer = guesser.send(guess).await;
        if answer.status == 429 {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=6).contains(&wait), "{answer:?}");
            answer.is_problem(429, "rate_limited");
        }
        told.push(answer.status);
    }
    let wrong = told.iter().filter(|status| **status == 401).count();
    assert!((20..=22).contains(&wrong), "{told:?}");
    assert_eq!(told.len() - wrong, told.iter().filter(|status| **status == 429).count());
    // Right, but never seen from there: whoever guesses it now does not learn so.
    assert_eq!(guesser.send(keyed(KEY)).await.status, 429);
    assert_eq!(guesser.send("/").await.status, 401);
    // Neither the route's nor the clients' own limits were touched.
    for (ip, request) in [
        ("127.0.0.2", keyed(KEY)),
        ("127.0.0.2", basic("orders-fn", PASSWORD)),
        ("127.0.0.9", get("/")),
        ("127.0.0.2", keyed(KEY)),
    ] {
        assert_eq!(from(&gateway, ip, request).await.status, 200, "{ip}");
    }
    from(&gateway, "127.0.0.3", keyed(KEY)).await.is_problem(429, "rate_limited");
    assert_eq!(function.requests(), 4);
    let slowed = 60.0 - wrong as f64 + 1.0;
    gateway.counts("gatepost_auth_failures_total", &[("reason", "slowed")], slowed).await;
}

#[tokio::test]
async fn a_neighbour_behind_the_same_address_goes_on() {
    let (build, _f) = serving(r#"clients = ["partner", "orders-fn"]"#).await;
    let gateway = build.start().await;
    let mut neighbour = gateway.connect().await;
    assert_eq!(neighbour.send(keyed(KEY)).await.status, 200);
    let mut guesser = gateway.connect().await;
    for n in 0..30 {
        guesser.send(keyed(&format!("guess-{n}"))).await;
    }
    assert_eq!(guesser.send(keyed("guess")).await.status, 429);
    for _ in 0..5 {
        assert_eq!(neighbour.send(keyed(KEY)).await.status, 200);
    }
    // The one that has not called from here yet waits with the guesser.
    assert_eq!(neighbour.send(basic("orders-fn", PASSWORD)).await.status, 429);
}

#[tokio::test]
async fn a_key_is_changed_by_way_of_two() {
    let (build, _f) = serving(r#"clients = ["partner"]"#).await;
    let gateway = build.start().await;
    let file = gateway.dir().join("partner.sha256");
    let next = "partner-next-4b1f60a7c2d94e5f8a30";
    let takes = async |key: &str, status: u16| {
        eventually("the key file is followed", async || when(gateway.send(keyed(key)).await.status == status)).await;
    };
    assert_eq!(gateway.send(keyed(next)).await.status, 401);
    replace(&file, &format!("# old\n{}\n# new\n{}\n", sha256(KEY), sha256(next)));
    takes(next, 200).await;
    takes(KEY, 200).await;
    replace(&file, &sha256(next));
    takes(KEY, 401).await;
    takes(next, 200).await;
    // What is no hash changes nothing, and says so without saying what it is.
    replace(&file, "hunter2\n");
    gateway.says(&["holds no SHA-256"]).await;
    assert_eq!(gateway.send(keyed(next)).await.status, 200);
    assert!(!gateway.stderr().contains("hunter2"));
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// A client by token of `https://issuer.test`, with these lines beside.
async fn trusting(keys: &str, more: &str) -> (Build, Origin) {
    let function = origin().echo().start().await;
    let text = format!(
        r#"
        [client.ada]
        [client.ada.jwt]
        issuer = "https://issuer.test"
        audience = "https://api.test"
        algorithms = ["RS256", "PS256", "ES384", "EdDSA"]
        {keys}
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        clients = ["ada"]
        {more}
        "#,
        function.url()
    );
    (gateway(text).workers(1), function)
}

fn claims() -> Value {
    json!({ "iss": "https://issuer.test", "aud": ["x", "https://api.test"], "sub": "ada", "exp": unix_now() + 600 })
}

#[tokio::test]
async fn tokens_that_openssl_signed_are_good_and_changed_ones_are_not() {
    let signers = ["RS256", "PS256", "ES384", "EdDSA"].map(|algorithm| signer(algorithm, algorithm));
    let set = jwks(&signers.each_ref());
    let (build, function) = trusting("jwks = \"keys.json\"", "").await;
    let gateway = build.file("keys.json", &set).start().await;
    for signer in &signers {
        let token = signer.token(&claims());
        // The second time it is remembered.
        for _ in 0..2 {
            assert_eq!(gateway.send(bearer(&token)).await.status, 200, "{}", signer.id);
            assert!(!saw(&function, "authorization"));
        }
    }
    let passed = function.requests();
    let expired =
        signers[0].token(&json!({ "iss": "https://issuer.test", "aud": "https://api.test", "exp": unix_now() - 60 }));
    let elsewhere = signers[0].token(&json!({ "iss": "https://issuer.test", "aud": "x", "exp": unix_now() + 60 }));
    let swapped = |alg: &str| {
        let good = signers[0].token(&claims());
        let header = crate::harness::jwt::b64(json!({ "alg": alg, "kid": "RS256" }).to_string());
        format!("{header}.{}", good.split_once('.').unwrap().1)
    };
    let stranger = signer("RS256", "RS256").token(&claims());
    for (token, why) in [
        (expired, "expired"),
        (elsewhere, "audience"),
        (swapped("none"), "algorithm"),
        (swapped("HS256"), "algorithm"),
        (swapped("PS256"), "signature"),
        (swapped("ES384"), "key"),
        (stranger, "signature"),
        ("garbage".to_owned(), "malformed"),
    ] {
        let before = gateway.metrics().await.sum("gatepost_auth_failures_total", &[("kind", "jwt"), ("reason", why)]);
        let answer = gateway.send(bearer(&token)).await;
        answer.is_problem(401, "credentials_invalid");
        assert_eq!(challenges(&answer), [r#"Bearer realm="gatepost""#]);
        gateway.counts("gatepost_auth_failures_total", &[("kind", "jwt"), ("reason", why)], before + 1.0).await;
    }
    let missing = gateway.send("/").await;
    missing.is_problem(401, "credentials_missing");
    assert_eq!(function.requests(), passed);
}

#[tokio::test]
async fn a_key_set_in_a_file_is_followed() {
    let (old, new) = (signer("old", "EdDSA"), signer("new", "EdDSA"));
    let (build, _f) = trusting("jwks = \"keys.json\"", "").await;
    let gateway = build.file("keys.json", &jwks(&[&old])).start().await;
    let (old_token, new_token) = (old.token(&claims()), new.token(&claims()));
    assert_eq!(gateway.send(bearer(&old_token)).await.status, 200);
    assert_eq!(gateway.send(bearer(&new_token)).await.status, 401);
    replace(&gateway.dir().join("keys.json"), &jwks(&[&new]));
    eventually("the new key is known", async || when(gateway.send(bearer(&new_token)).await.status == 200)).await;
    // It had been remembered as good.
    assert_eq!(gateway.send(bearer(&old_token)).await.status, 401);
}

/// An issuer's server of keys, and the lines that name it.
async fn issuing(signers: &[&Signer]) -> (Origin, String, crate::harness::tls::Authority) {
    let authority = authority();
    let set = jwks(signers);
    let server = origin().tls(&authority.leaf(&["127.0.0.1"])).reply(Reply::text(set)).start().await;
    let lines = format!("jwks = \"{}/keys?v=1\"\nca = \"{}\"", server.url(), authority.ca().display());
    (server, lines, authority)
}

async fn lets_in(gateway: &Gateway, token: &str) {
    // Failures on the way are from other addresses, so that none is slowed.
    let mut n = 0;
    eventually("the token is good", async || {
        n += 1;
        let ip = format!("127.0.{}.{}", n / 250 + 1, n % 250 + 1);
        when(from(gateway, &ip, bearer(token)).await.status == 200)
    })
    .await;
}

#[tokio::test]
async fn keys_by_url_are_fetched_and_a_new_one_is_found_when_a_token_names_it() {
    let (old, new) = (signer("old", "EdDSA"), signer("new", "EdDSA"));
    let (server, lines, _authority) = issuing(&[&old]).await;
    let (build, _f) = trusting(&lines, "").await;
    let gateway = build.start().await;
    lets_in(&gateway, &old.token(&claims())).await;
    assert_eq!(server.last().target, "/keys?v=1");
    let set = jwks(&[&new]);
    server.now_answers(move |_| Reply::text(set.clone()).header("cache-control", "max-age=3600"));
    let token = new.token(&claims());
    assert_eq!(gateway.send(bearer(&token)).await.status, 401);
    lets_in(&gateway, &token).await;
    assert_eq!(from(&gateway, "127.0.99.1", bearer(&old.token(&claims()))).await.status, 401);

    // Down: the last keys stay, and it is told.
    server.die().await;
    let strange = signer("strange", "EdDSA").token(&claims());
    let mut n = 0;
    eventually("a fetch fails", async || {
        n += 1;
        from(&gateway, &format!("127.1.{}.{}", n / 250, n % 250 + 1), bearer(&strange)).await;
        when(gateway.metrics().await.sum("gatepost_jwks_fetches_total", &[("result", "failed")]) > 0.0)
    })
    .await;
    assert_eq!(gateway.send(bearer(&token)).await.status, 200);
    gateway.says(&["cannot fetch an issuer's keys", "the last keys stay"]).await;
    let status = gateway.ask_admin("/api/v1/status").await.json();
    assert_eq!(status["jwks"][0]["keys"], 1, "{status}");
    assert!(status["jwks"][0]["error"].is_string() && status["jwks"][0]["fetched"].is_string(), "{status}");
    assert_eq!(gateway.metrics().await.sum("gatepost_jwks_keys", &[]), 1.0);
}

#[tokio::test]
async fn a_restart_needs_no_issuer_and_a_first_start_waits_for_one() {
    let signer = signer("one", "EdDSA");
    let (server, lines, _authority) = issuing(&[&signer]).await;
    let state = TempDir::with_prefix("gatepost-state-").unwrap();
    let server_lines = format!("[server]\nstate_dir = \"{}\"", state.path().display());
    let token = signer.token(&claims());

    let (build, _f) = trusting(&lines, &server_lines).await;
    let mut first = build.start().await;
    lets_in(&first, &token).await;
    first.stop().await;
    server.die().await;

    let (build, _f) = trusting(&lines, &server_lines).await;
    let second = build.start().await;
    assert_eq!(second.send(bearer(&token)).await.status, 200);
    second.says(&["an issuer's keys are remembered"]).await;
    drop(second);

    // Without a memory nothing can be said of a token, for good or bad.
    fs::remove_dir_all(state.path().join("jwks")).unwrap();
    let (build, function) = trusting(&lines, &server_lines).await;
    let third = build.start().await;
    let answer = third.send(bearer(&token)).await;
    answer.is_problem(503, "credential_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(function.requests(), 0);
    third.says(&["cannot fetch an issuer's keys", "its tokens are refused"]).await;
}

#[tokio::test]
async fn keys_come_from_nobody_but_the_issuer() {
    let signer = signer("one", "EdDSA");
    let (_server, lines, _authority) = issuing(&[&signer]).await;
    // Another authority vouches for the server than the one that the config trusts.
    let other = authority_called("another authority");
    let ca = lines.split("ca = ").nth(1).unwrap().to_owned();
    let (build, _f) = trusting(&lines.replace(&ca, &format!("\"{}\"", other.ca().display())), "").await;
    let gateway = build.start().await;
    gateway.says(&["cannot fetch an issuer's keys"]).await;
    gateway.send(bearer(&signer.token(&claims()))).await.is_problem(503, "credential_unavailable");
}

#[tokio::test]
async fn a_certificate_names_its_client_and_an_unknown_one_nobody() {
    let (server, callers) = (authority(), authority_called("callers"));
    let function = origin().echo().start().await;
    let known = callers.client("payments");
    let text = format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        tls = [{}]
        client_ca = "{}"
        client_auth = "optional"
        [client.bank]
        mtls = {{ subject = "CN=payments" }}
        [client.pinned]
        mtls = {{ sha256 = "{}" }}
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        clients = ["bank"]
        [route.pinned]
        path = "/pinned"
        function = "f"
        clients = ["pinned"]
        "#,
        server.leaf(&["one.test"]).toml(),
        callers.ca().display(),
        Sha256::digest(&known.der).iter().map(|byte| format!("{byte:02X}:")).collect::<String>().trim_end_matches(':'),
        function.url(),
    );
    let gateway = gateway(text).workers(1).start().await;
    let plain = server.caller(&["http/1.1"]);
    let ask = async |caller: &crate::harness::tls::TlsCaller, target: &str| {
        let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
        let (stream, _) = caller.handshake(tcp, "one.test").await.unwrap();
        Connection::over(stream).send(get(target).host("one.test")).await
    };
    assert_eq!(ask(&plain.showing(&known), "/").await.status, 200);
    assert_eq!(ask(&plain.showing(&known), "/pinned").await.status, 200);
    let stranger = callers.client("stranger");
    let answer = ask(&plain.showing(&stranger), "/").await;
    answer.is_problem(401, "credentials_invalid");
    assert_eq!(challenges(&answer), [r#"ClientCertificate realm="gatepost""#]);
    // The same name on another certificate is not the pinned one, but somebody.
    ask(&plain.showing(&callers.client("payments")), "/pinned").await.is_problem(403, "forbidden_client");
    ask(&plain, "/").await.is_problem(401, "credentials_missing");
    let clients: Vec<Value> = gateway.log(5).await.iter().map(|line| line["client"].clone()).collect();
    assert_eq!(clients[0], "bank");
    assert_eq!(clients[1], "pinned");
    assert!(clients[2].is_null() && clients[4].is_null(), "{clients:?}");
}
