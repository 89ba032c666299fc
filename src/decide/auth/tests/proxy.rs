//! At the gate of the way out: Proxy-Authorization, tokens as passwords, no API keys.

use serde_json::json;

use super::{tokens::*, *};

const EGRESS: &str = r#"
    [client.fn]
    basic = { user = "fn", sha256 = "env:password-0123456789abcdef" }
    [client.platform]
    jwt = { issuer = "https://issuer", audience = "api", jwks = "keys.json", algorithms = ["ES256"] }
    api_key = { sha256 = "env:partner-0123456789abcdef" }
    [client.office]
    networks = ["192.0.2.0/24"]
    [client.stranger]
    networks = ["198.51.100.0/24"]
    [egress.listener.inside]
    address = "10.0.0.4:3128"
    [egress.rule.r]
    clients = ["fn", "platform", "office"]
    to = ["a.example"]
"#;

struct Proxy {
    door: Door,
    signer: Signer,
}

fn proxy(text: &str) -> Proxy {
    let config = crate::config::parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"));
    let signer = signer("one");
    let secrets = Named(named(&config).0, Some(Arc::new(KeyRing::new(Some(signer.set())))));
    let callers = Callers::new(&config, &secrets, None, Now(0));
    Proxy { door: Door { config, callers }, signer }
}

impl Proxy {
    fn says(&self, ip: &str, header: &'static str, value: &str) -> String {
        let caller = caller().from(ip).header(header, value);
        let asking = Asking {
            ip: caller.ip,
            headers: &caller.headers,
            certificate: None,
            now: Now(NOW as u64 * 1_000_000_000),
            unix: &|| NOW,
            tokens: None,
        };
        let gate = self.door.callers.egress().expect("a way out");
        match self.door.callers.pass(gate, &asking) {
            Ok(id) => (*self.door.config.clients[id.index()].name).to_owned(),
            Err(denied) => match denied.failure {
                Some(failure) => format!("{} {}", denied.reason.as_str(), failure.why.as_str()),
                None => denied.reason.as_str().to_owned(),
            },
        }
    }

    fn password(&self, user: &str, password: &str) -> String {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        self.says("203.0.113.9", "proxy-authorization", &format!("Basic {encoded}"))
    }
}

#[test]
fn a_proxys_user_and_password_are_known() {
    let proxy = proxy(EGRESS);
    assert_eq!(proxy.password("fn", PASSWORD), "fn");
    assert_eq!(proxy.password("fn", "wrong"), "credentials_invalid unknown");
    assert_eq!(proxy.password("other", PASSWORD), "credentials_invalid unknown");
}

#[test]
fn a_token_may_be_the_password_of_any_user() {
    let proxy = proxy(EGRESS);
    let token = proxy.signer.token(claims());
    assert_eq!(proxy.password("x", &token), "platform");
    assert_eq!(proxy.password("", &token), "platform");
    assert_eq!(proxy.says("203.0.113.9", "proxy-authorization", &format!("Bearer {token}")), "platform");
    // As long as identity platforms make them.
    let mut long = claims();
    long["groups"] = json!("g".repeat(3_000));
    assert_eq!(proxy.password("x", &proxy.signer.token(long)), "platform");
    let mut expired = claims();
    expired["exp"] = json!(NOW - 60);
    assert_eq!(proxy.password("x", &proxy.signer.token(expired)), "credentials_invalid expired");
    assert_eq!(proxy.password("x", &signer("one").token(claims())), "credentials_invalid signature");
    // Where no client shows tokens, it is a password as any.
    let without = self::proxy(&EGRESS.replace("clients = [\"fn\", \"platform\", \"office\"]", "clients = [\"fn\"]"));
    assert_eq!(without.password("x", &without.signer.token(claims())), "credentials_invalid unknown");
}

#[test]
fn what_is_the_destinations_is_not_read() {
    let proxy = proxy(EGRESS);
    let missing = "credentials_missing missing";
    assert_eq!(proxy.says("203.0.113.9", "x-api-key", PARTNER), missing);
    let basic = format!("Basic {}", STANDARD.encode(format!("fn:{PASSWORD}")));
    assert_eq!(proxy.says("203.0.113.9", "authorization", &basic), missing);
    let gate = proxy.door.callers.egress().unwrap();
    assert_eq!(gate.taken(), ["proxy-authorization"]);
    assert_eq!(gate.challenges()[0], r#"Basic realm="gatepost", charset="UTF-8""#);
    assert_eq!(gate.expects(), "expected Basic credentials or a bearer token");
}

#[test]
fn networks_alone_let_in_whom_a_rule_names() {
    let proxy = proxy(EGRESS);
    assert_eq!(proxy.says("192.0.2.7", "x-none", "1"), "office");
    // Somebody who might show more is asked to.
    assert_eq!(proxy.says("198.51.100.7", "x-none", "1"), "credentials_missing missing");
    let report = self::proxy(&EGRESS.replace("[egress.listener", "[egress]\nmode = \"report\"\n[egress.listener"));
    assert_eq!(report.says("198.51.100.7", "x-none", "1"), "stranger");
    let by_network =
        self::proxy(&EGRESS.replace("clients = [\"fn\", \"platform\", \"office\"]", "clients = [\"office\"]"));
    assert_eq!(by_network.says("198.51.100.7", "x-none", "1"), "forbidden_client");
    assert!(Door { ..door("[\"partner\"]") }.callers.egress().is_none());
}

#[test]
fn who_stands_is_asked_again_by_what_it_showed_and_no_secret_is_kept() {
    let old = proxy(EGRESS);
    let grounds = |ip: &str, value: &str| {
        let caller = caller().from(ip).header("proxy-authorization", value);
        let headers = if value.is_empty() { HeaderMap::new() } else { caller.headers.clone() };
        let asking = Asking {
            ip: caller.ip,
            headers: &headers,
            certificate: None,
            now: Now(NOW as u64 * 1_000_000_000),
            unix: &|| NOW,
            tokens: None,
        };
        old.door.callers.grounds(old.door.callers.egress().unwrap(), &asking)
    };
    let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let by_password = grounds("203.0.113.9", &basic("fn", PASSWORD));
    let by_token = grounds("203.0.113.9", &basic("x", "a.token.s"));
    let by_network = grounds("192.0.2.7", "");
    assert!(!format!("{by_password:?}").contains(PASSWORD), "{by_password:?}");

    let stands = |text: &str, grounds: &Grounds, name: &str| {
        let new = proxy(text).door;
        let id = (0..).map(ClientId).zip(&new.config.clients).find(|(_, client)| *client.name == *name).unwrap().0;
        new.callers.stands(new.callers.egress().unwrap(), grounds, id, true)
    };
    assert!(stands(EGRESS, &by_password, "fn"));
    assert!(!stands(&EGRESS.replace("env:password-0123456789abcdef", "env:another"), &by_password, "fn"));
    assert!(!stands(&EGRESS.replace("user = \"fn\"", "user = \"f2\""), &by_password, "fn"));
    assert!(!stands(EGRESS, &by_password, "office"), "another client's");
    let elsewhere = EGRESS.replace("[client.fn]", "[client.fn]\nnetworks = [\"198.51.100.0/25\"]");
    assert!(!stands(&elsewhere, &by_password, "fn"));
    let unnamed = EGRESS.replace("clients = [\"fn\", ", "clients = [");
    assert!(!stands(&unnamed, &by_password, "fn"), "no rule names it");

    assert!(stands(EGRESS, &by_token, "platform"));
    let new = proxy(EGRESS).door;
    assert!(!new.callers.stands(new.callers.egress().unwrap(), &by_token, ClientId(1), false));

    // RFC 5280's word beside the password: what no client has any more says nothing against the rest.
    let secure = "10.0.0.4:3128\"\ntls = [{ cert = \"c\", key = \"k\" }]\nclient_ca = \"ca\"";
    let secure = EGRESS.replace("10.0.0.4:3128\"", secure);
    let both = secure.replace("[client.fn]", "[client.fn]\nmtls = { subject = \"CN=fn\" }");
    let shows = |certificate: &str| {
        let caller = caller().header("proxy-authorization", &basic("fn", PASSWORD)).certificate(certificate, &[], 9);
        let asking = Asking {
            ip: caller.ip,
            headers: &caller.headers,
            certificate: caller.certificate.as_ref(),
            now: Now(0),
            unix: &|| NOW,
            tokens: None,
        };
        let then = proxy(&both).door.callers;
        then.grounds(then.egress().unwrap(), &asking)
    };
    assert!(stands(&both, &shows("CN=fn"), "fn") && stands(EGRESS, &shows("CN=fn"), "fn"));
    let others = both.replace("[client.office]", "[client.other]\nmtls = { subject = \"CN=gn\" }\n[client.office]");
    assert!(
        !stands(&others.replace("CN=fn", "CN=hn").replace("CN=gn", "CN=fn"), &shows("CN=fn"), "fn"),
        "another's now"
    );

    assert!(stands(EGRESS, &by_network, "office"));
    assert!(!stands(&EGRESS.replace("192.0.2.0/24", "192.0.2.0/30"), &by_network, "office"));
}
