//! `gatepost explain` says of a request what then happens to it.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::harness::{
    Connection, Gateway, Origin, Request, authority, gateway, gateway::log_lines, get, origin, request,
};

const RULES: &str = r#"
[server]
trusted_proxies = ["127.0.0.8/32"]

[client.office]
networks = ["127.0.0.2/32"]

[function.dealt]
override = [{ header = "x-tester: yes", version = "v2" }, { cookie = "beta", from = ["127.0.0.2/32"], version = "v2" }]
[function.dealt.versions]
v1 = "V1"
v2 = { url = "V2/base", host = "two.internal" }
[function.dealt.weights]
v1 = "rest"
v2 = 40

[function.kept]
sticky = { by = ["header:x-user", "cookie:uid", "client_ip"], group = "checkout" }
preserve_host = true
versions = { v1 = "V1", v2 = "V2" }
weights = { v1 = 50, v2 = 50 }

[function.off]
versions = { v1 = "V1", v2 = "V2" }
weights = { v1 = 100 }

[route.dealt]
path = "/dealt/*"
function = "dealt"

[route.stripped]
path = "/shop/orders/*"
strip_prefix = "/shop/orders"
function = "dealt"

[route.pinned]
host = "*.test.example"
path = "/dealt/*"
function = "dealt"
version = "v2"

[route.kept]
path = "/kept/{id}"
methods = ["GET", "PUT"]
function = "kept"

[route.keeps-slashes]
path = "/slash/*"
encoded_slash = "keep"
function = "off"

[route.office]
path = "/office"
clients = ["office"]
function = "off"

[route.blocked]
path = "/blocked"
allow = ["127.0.0.0/8"]
deny = ["127.0.0.2"]
function = "off"

[route.by-query]
path = "/limited/query"
limits = [{ rate = "1/h", per = "query:tenant" }]
function = "off"

[route.by-header]
path = "/limited/header"
limits = [{ rate = "1/h", per = "header:x-tenant" }]
function = "off"

[route.by-client]
path = "/limited/client"
limits = [{ rate = "1/h", per = "client" }]
function = "off"

[route.by-cookie]
path = "/limited/cookie"
limits = [{ rate = "1/h", per = "cookie:tenant" }]
function = "off"
"#;

struct Shop {
    gateway: Gateway,
    v1: Origin,
    v2: Origin,
}

impl Shop {
    async fn open() -> Self {
        let (v1, v2) = (origin().reply("v1").start().await, origin().reply("v2").start().await);
        let rules = RULES.replace("V1", &v1.url()).replace("V2", &v2.url());
        Self { gateway: gateway(rules).workers(1).start().await, v1, v2 }
    }

    /// What `gatepost explain --json` says.
    fn explained(&self, from: &str, asked: &Request) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.args(["explain", "--json", "--listener", "in", "--from", from, "--config"]).arg(&self.gateway.config);
        command.args([&asked.method, &asked.target, "-H", &format!("Host: {}", asked.host)]);
        for (name, value) in &asked.fields {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Asks `explain`, sends the request, and holds the two against each other. What was told, and the status.
    async fn agrees(&self, from: &str, asked: Request) -> (Value, u16) {
        let told = self.explained(from, &asked);
        let before = (self.v1.requests(), self.v2.requests());
        let lines = log_lines(&self.gateway.dir().join("access.log")).len();
        let what = format!("{} {} {:?}\n{told:#}", asked.method, asked.target, asked.fields);
        let (target, method) = (asked.target.clone(), asked.method.clone());
        let answer = Connection::from(from, self.gateway.address("in")).await.send(asked).await;
        let line = self.gateway.log(lines + 1).await.pop().unwrap();
        for (said, logged) in [
            ("client_ip", "client_ip"),
            ("client", "client"),
            ("route", "route"),
            ("function", "function"),
            ("picked_by", "picked_by"),
        ] {
            // A limit that was empty when `explain` looked may be full when the request comes.
            if answer.status == 429 && ["function", "picked_by"].contains(&said) {
                continue;
            }
            let (said, logged) = (&told[said], line.get(logged).unwrap_or(&Value::Null));
            assert_eq!(said, logged, "{what}\n{line:#}");
        }
        if answer.status == 429 {
            assert!(!told["limits"].as_array().unwrap().is_empty(), "{what}");
            return (told, 429);
        }
        if let Some(refused) = told["refused"].as_object() {
            answer.is_problem(
                u16::try_from(refused["status"].as_u64().unwrap()).unwrap(),
                refused["reason"].as_str().unwrap(),
            );
            return (told, answer.status);
        }
        assert_eq!(answer.status, 200, "{what}\n{answer:?}");
        let seen = if self.v2.requests() > before.1 { self.v2.last() } else { self.v1.last() };
        let version = answer.text();
        assert_eq!(line["version"], version.as_str(), "{what}");
        let destinations = told["destinations"].as_array().unwrap();
        let to = destinations.iter().find(|to| to["version"] == version.as_str());
        let to = to.unwrap_or_else(|| panic!("{version} answered, which is not in {what}"));
        let url: http::Uri = to["url"].as_str().unwrap().parse().unwrap();
        assert_eq!(url.path_and_query().unwrap().as_str(), seen.target, "{method} {target}: {what}");
        assert_eq!(to["host"].as_str(), seen.header("host"), "{what}");
        (told, 200)
    }
}

#[tokio::test]
async fn routes_versions_and_what_functions_see() {
    let shop = Shop::open().await;
    for host in ["gate.test", "Gate.Test:8080", "a.test.example"] {
        for target in [
            "/dealt/x?a=%41",
            "/dealt",
            "/dealt/../dealt//%7Ex",
            "/shop/orders",
            "/shop/orders/7?",
            "/kept/7",
            "/dealt2",
        ] {
            for _ in 0..2 {
                shop.agrees("127.0.0.1", get(target).host(host)).await;
            }
        }
    }
    shop.agrees("127.0.0.1", get("/dealt/x").header("x-tester", "yes")).await;
    shop.agrees("127.0.0.1", get("/dealt/x").header("X-Tester", "no")).await;
    shop.agrees("127.0.0.1", get("/dealt/x").header("cookie", "beta=1")).await;
    shop.agrees("127.0.0.2", get("/dealt/x").header("cookie", "a=b; beta=1")).await;
    shop.agrees("127.0.0.1", get("/slash/a%2Fb")).await;
}

#[tokio::test]
async fn sticky_callers() {
    let shop = Shop::open().await;
    let mut versions = std::collections::BTreeSet::new();
    for user in ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "é", "x y"] {
        for asked in [
            get("/kept/1").header("x-user", user),
            get("/kept/1").header("cookie", &format!("uid=\"{user}\"")),
            get("/kept/1").header("x-user", "").header("cookie", &format!("uid={user}")),
        ] {
            let (told, _) = shop.agrees("127.0.0.1", asked).await;
            versions.insert(told["destinations"][0]["version"].to_string());
        }
    }
    assert_eq!(versions.len(), 2);
    shop.agrees("127.0.0.3", get("/kept/1")).await;
    shop.agrees("127.0.0.8", get("/kept/1").header("x-forwarded-for", "192.0.2.9, 2001:db8::1")).await;
    shop.agrees("127.0.0.3", get("/kept/1").header("x-forwarded-for", "192.0.2.9")).await;
}

#[tokio::test]
async fn refusals() {
    let shop = Shop::open().await;
    for (from, asked, status) in [
        ("127.0.0.1", request("DELETE", "/kept/1"), 405),
        ("127.0.0.1", get("/nothing"), 404),
        ("127.0.0.1", request("TRACE", "/dealt/x"), 405),
        ("127.0.0.1", get("/dealt/a%2Fb"), 400),
        ("127.0.0.1", get("/dealt/%00"), 400),
        ("127.0.0.1", get("/dealt/x").host("a..b"), 400),
        ("127.0.0.1", get("/office"), 403),
        ("127.0.0.2", get("/office"), 200),
        ("127.0.0.2", get("/blocked"), 403),
        ("127.0.0.8", get("/blocked").header("x-forwarded-for", "127.0.0.2"), 403),
        ("127.0.0.8", get("/blocked").header("x-forwarded-for", "192.0.2.1"), 403),
        ("127.0.0.1", get("/blocked"), 200),
    ] {
        let what = format!("{asked:?}");
        assert_eq!(shop.agrees(from, asked).await.1, status, "{what}");
    }
}

#[tokio::test]
async fn callers_share_a_limit_where_explain_says_the_same_key() {
    let shop = Shop::open().await;
    let mut seen: std::collections::BTreeSet<(String, String)> = std::collections::BTreeSet::new();
    for (from, asked) in [
        ("127.0.0.1", get("/limited/query?tenant=a+b")),
        ("127.0.0.3", get("/limited/query?x&tenant=a%2Bb")),
        ("127.0.0.3", get("/limited/query?%74enant=a%2Bb")),
        ("127.0.0.1", get("/limited/query?tenant=b&tenant=a+b")),
        ("127.0.0.1", get("/limited/query?tenant&tenant=c")),
        ("127.0.0.1", get("/limited/query")),
        ("127.0.0.3", get("/limited/query?tenant=")),
        ("127.0.0.1", get("/limited/header").header("x-tenant", "a")),
        ("127.0.0.3", get("/limited/header").header("x-tenant", "a")),
        ("127.0.0.3", get("/limited/header").header("x-tenant", "b")),
        ("127.0.0.3", get("/limited/header")),
        // A header that looks like an address is not counted as one.
        ("127.0.0.1", get("/limited/header").header("x-tenant", "127.0.0.3")),
        ("127.0.0.2", get("/limited/client")),
        ("127.0.0.1", get("/limited/client")),
        ("127.0.0.1", get("/limited/client")),
        ("127.0.0.1", get("/limited/cookie").header("cookie", "tenant=a")),
        ("127.0.0.3", get("/limited/cookie").header("cookie", "x=1; tenant=\"a\"")),
        ("127.0.0.3", get("/limited/cookie")),
        ("127.0.0.4", get("/limited/cookie").header("cookie", "tenant=")),
    ] {
        let what = format!("{asked:?}");
        let (told, status) = shop.agrees(from, asked).await;
        let key = (told["route"].to_string(), told["limits"][0]["key"].as_str().unwrap().to_owned());
        let first = seen.insert(key.clone());
        assert_eq!(status, if first { 200 } else { 429 }, "{key:?} of {what}, others: {seen:?}");
    }
}

/// Whoever is on call is not the service's user, and a question about rules and addresses needs no key.
#[test]
fn the_way_out_is_explained_to_who_may_not_read_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let leaf = authority.leaf(&["proxy.test"]);
    let config = folder.path().join("gatepost.toml");
    let text = format!(
        r#"
        [client.fn]
        networks = ["127.0.0.1"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        tls = [{}]
        [egress.source.s]
        bind = "127.0.0.1"
        [egress.rule.r]
        clients = ["fn"]
        to = ["a.example"]
        source = "s"
        "#,
        leaf.toml()
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&leaf.key, fs::Permissions::from_mode(0o000)).unwrap();
    let says = |words: &[&str]| {
        // Root reads everything, unless it may not.
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-dac_override,-dac_read_search", env!("CARGO_BIN_EXE_gatepost")])
            .args(words)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = says(&["egress", "explain", "fn", "a.example:443", "--address", "93.184.216.34"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("answer    let through"), "{out}");
    assert!(err.contains("warning: cannot read") && err.contains("proxy.test.key"), "{err}");
    let (code, out, err) = says(&["egress", "addresses"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("a.example:443"), "{out}");
    assert_eq!(says(&["check"]).0, Some(2), "what the service would refuse is no good config");
}
