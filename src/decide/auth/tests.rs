//! Callers at a gate, told as tables. What the keys of issuers make of tokens is in `tests/tokens.rs`.

mod proxy;
mod tokens;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::config::Sources;

/// The secret behind `env:NAME` is its name.
pub(super) struct Named(pub(super) HashMap<SecretRef, Vec<Digest32>>, pub(super) Option<Arc<KeyRing>>);

impl Secrets for Named {
    fn digests(&self, secret: &SecretRef) -> &[Digest32] {
        self.0.get(secret).map_or(&[], Vec::as_slice)
    }

    fn keys(&self, _: &JwksSource) -> Option<Arc<KeyRing>> {
        self.1.clone()
    }
}

const PARTNER: &str = "partner-0123456789abcdef";
const OTHER: &str = "other-0123456789abcdef";
const PASSWORD: &str = "password-0123456789abcdef";

const CLIENTS: &str = r#"
    [client.partner]
    api_key = { sha256 = "env:partner-0123456789abcdef" }
    [client.other]
    api_key = { sha256 = "env:other-0123456789abcdef", header = "X-Other" }
    basic = { user = "other", sha256 = "env:password-0123456789abcdef" }
    [client.inside]
    networks = ["10.0.0.0/8"]
    basic = { user = "inside", sha256 = "env:short" }
    [client.office]
    networks = ["192.0.2.0/24"]
    [client.bank]
    mtls = { subject = "CN=payments,O=Example Bank,C=CH", san = ["dns:API.bank.example", "uri:spiffe://bank/x"] }
    [client.pinned]
    mtls = { sha256 = "0101010101010101010101010101010101010101010101010101010101010101" }
    api_key = { sha256 = "env:pinned-0123456789abcdef" }
"#;

fn config(clients: &str, route: &str) -> Config {
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\ntls = [{{ cert = \"c\", key = \"k\" }}]\nclient_ca = \"ca\"\n{clients}\n[function.f]\nversions = {{ v1 = \"http://127.0.0.1:1\" }}\n\
         [route.r]\nfunction = \"f\"\n{route}\n"
    );
    crate::config::parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

fn named(config: &Config) -> Named {
    let references = config.clients.iter().flat_map(|client| {
        let key = client.api_key.as_ref().map(|key| &key.sha256);
        key.into_iter().chain(client.basic.as_ref().map(|basic| &basic.sha256))
    });
    let digest = |secret: &SecretRef| match secret {
        SecretRef::Env(name) => (secret.clone(), vec![Digest32::of(name.as_bytes())]),
        other => panic!("{other}"),
    };
    Named(references.map(digest).collect(), None)
}

/// Clients, and one route that names some of them.
struct Door {
    config: Config,
    callers: Callers,
}

fn door(clients: &str) -> Door {
    let config = config(CLIENTS, &format!("clients = {clients}"));
    let callers = Callers::new(&config, &named(&config), None, Now(0));
    Door { config, callers }
}

/// A caller from 203.0.113.9 at second 1, unless it says otherwise.
#[derive(Clone)]
struct Caller {
    ip: IpAddr,
    headers: HeaderMap,
    certificate: Option<ClientCertificate>,
    second: u64,
}

fn caller() -> Caller {
    let ip = "203.0.113.9".parse().unwrap();
    Caller { ip, headers: HeaderMap::new(), certificate: None, second: 1 }
}

impl Caller {
    fn from(mut self, ip: &str) -> Self {
        self.ip = ip.parse().unwrap();
        self
    }

    fn at(mut self, second: u64) -> Self {
        self.second = second;
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    fn basic(self, user: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        self.header("authorization", &format!("Basic {encoded}"))
    }

    fn certificate(mut self, subject: &str, sans: &[San], sha256: u8) -> Self {
        let certificate = ClientCertificate { subject: subject.into(), sans: sans.to_vec(), sha256: [sha256; 32] };
        self.certificate = Some(certificate);
        self
    }
}

impl Door {
    fn ask(&self, caller: &Caller) -> Result<Option<ClientId>, Denied> {
        self.callers.admit(
            RouteId(0),
            &Asking {
                ip: caller.ip,
                headers: &caller.headers,
                certificate: caller.certificate.as_ref(),
                now: Now(caller.second * 1_000_000_000),
                unix: &|| 0,
                tokens: None,
            },
        )
    }

    /// `partner`, or `basic unknown`, or `forbidden partner`.
    fn says(&self, caller: Caller) -> String {
        let name = |id: Option<ClientId>| id.map_or("nobody", |id| &*self.config.clients[id.index()].name).to_owned();
        match self.ask(&caller) {
            Ok(client) => name(client),
            Err(Denied { failure: None, client, .. }) => format!("forbidden {}", name(client)),
            Err(Denied { failure: Some(Failure { kind, why }), .. }) => format!("{} {}", kind.as_str(), why.as_str()),
        }
    }
}

#[test]
fn who_shows_nothing_is_known_by_its_network_alone() {
    let open = door(r#"["partner", "office"]"#);
    assert_eq!(open.says(caller().from("192.0.2.7")), "office");
    assert_eq!(open.says(caller()), "none missing");
    // Inside has a network and must show something as well.
    assert_eq!(open.says(caller().from("10.0.0.1")), "none missing");
    let office = door(r#"["office"]"#);
    assert_eq!(office.says(caller()), "forbidden nobody");
    // What no client of the route uses is not read.
    assert_eq!(office.says(caller().from("192.0.2.7").key("wrong").basic("x", "y")), "office");
}

#[test]
fn a_key_is_known_whole() {
    let door = door(r#"["partner"]"#);
    assert_eq!(door.says(caller().key(PARTNER)), "partner");
    for wrong in [&PARTNER[1..], &format!("{PARTNER} "), &PARTNER.to_uppercase(), "x"] {
        assert_eq!(door.says(caller().key(wrong)), "api_key unknown", "{wrong}");
    }
    assert_eq!(door.says(caller().key("")), "api_key malformed");
    assert_eq!(door.says(caller().key(PARTNER).key(PARTNER)), "api_key malformed");
    assert_eq!(door.says(caller().key(&"x".repeat(2000))), "api_key malformed");
    assert_eq!(door.says(caller().key(PARTNER).key("x")), "api_key malformed");
    // Another client's header is not read here.
    assert_eq!(door.says(caller().header("x-other", OTHER)), "none missing");
}

#[test]
fn a_wrong_credential_never_falls_back_to_the_network() {
    let door = door(r#"["office", "partner", "other"]"#);
    let here = || caller().from("192.0.2.7");
    assert_eq!(door.says(here()), "office");
    assert_eq!(door.says(here().key("wrong")), "api_key unknown");
    assert_eq!(door.says(here().basic("other", "wrong")), "basic unknown");
    assert_eq!(door.says(here().header("authorization", "Digest x=y")), "none malformed");
    assert_eq!(door.says(here().header("authorization", "")), "none malformed");
    assert_eq!(door.says(here().header("authorization", "Bearer a.b.c")), "jwt unknown");
    assert_eq!(door.says(here().key(PARTNER)), "partner");
}

#[test]
fn user_and_password_belong_together() {
    let door = door(r#"["other", "inside"]"#);
    assert_eq!(door.says(caller().basic("other", PASSWORD)), "other");
    for (user, password) in
        [("other", "short"), ("nobody", PASSWORD), ("", PASSWORD), ("other", ""), ("OTHER", PASSWORD)]
    {
        assert_eq!(door.says(caller().basic(user, password)), "basic unknown", "{user}:{password}");
    }
    assert_eq!(door.says(caller().basic("other", PASSWORD).basic("other", PASSWORD)), "none malformed");
    assert_eq!(door.says(caller().from("10.1.1.1").basic("inside", "short")), "inside");
    // Right, from the wrong place.
    assert_eq!(door.says(caller().basic("inside", "short")), "basic network");
}

#[test]
fn several_credentials_must_be_of_one_client() {
    let door = door(r#"["partner", "other"]"#);
    assert_eq!(door.says(caller().header("x-other", OTHER).basic("other", PASSWORD)), "other");
    assert_eq!(door.says(caller().key(PARTNER).basic("other", PASSWORD)), "api_key conflict");
    assert_eq!(door.says(caller().header("x-other", OTHER).basic("other", "wrong")), "basic unknown");
    assert_eq!(door.says(caller().key(PARTNER).header("x-other", OTHER)), "api_key malformed");
}

#[test]
fn who_is_somebody_else_is_forbidden_not_unknown() {
    let door = door(r#"["partner"]"#);
    assert_eq!(door.says(caller().key("pinned-0123456789abcdef")), "forbidden pinned");
    let denied = door.ask(&caller().key("pinned-0123456789abcdef")).unwrap_err();
    assert_eq!(denied.reason, Reason::ForbiddenClient);
}

#[test]
fn a_certificate_is_of_whom_it_names() {
    let door = door(r#"["bank", "pinned", "partner"]"#);
    let dns = San::Dns("api.bank.example".into());
    let bank = "CN=payments,O=Example Bank,C=CH";
    assert_eq!(door.says(caller().certificate(bank, std::slice::from_ref(&dns), 9)), "bank");
    assert_eq!(door.says(caller().certificate(bank, &[San::Uri("spiffe://bank/x".into())], 9)), "bank");
    // Every condition must hold, and a name of one kind is none of another.
    for (subject, san) in [
        (bank, vec![]),
        (bank, vec![San::Uri("api.bank.example".into())]),
        (bank, vec![San::Email("api.bank.example".into())]),
        ("CN=payments,O=Example Bank", vec![dns.clone()]),
        ("O=Example Bank,C=CH", vec![dns.clone()]),
    ] {
        assert_eq!(door.says(caller().certificate(subject, &san, 9)), "mtls unknown", "{subject} {san:?}");
    }
    assert_eq!(door.says(caller().certificate("CN=x", &[], 1)), "pinned");
    // Of two that it fits, the one that names it more closely.
    assert_eq!(door.says(caller().certificate(bank, std::slice::from_ref(&dns), 1)), "pinned");
    // One that nobody has says nothing against a key; one of somebody else does.
    assert_eq!(door.says(caller().certificate("CN=x", &[], 9).key(PARTNER)), "partner");
    assert_eq!(door.says(caller().certificate("CN=x", &[], 1).key(PARTNER)), "api_key conflict");
    assert_eq!(door.says(caller().certificate("CN=x", &[], 1).key("pinned-0123456789abcdef")), "pinned");
    assert_eq!(door.says(caller()), "none missing");
}

#[test]
fn where_no_client_has_one_a_certificate_is_not_read() {
    let door = door(r#"["partner", "office"]"#);
    assert_eq!(door.says(caller().from("192.0.2.7").certificate("CN=x", &[], 1)), "office");
}

#[test]
fn a_gate_says_what_it_expects_and_takes_that_away() {
    let all = door(r#"["partner", "other", "bank", "office"]"#);
    let gate = all.callers.gate(RouteId(0)).unwrap();
    let challenges: Vec<_> = gate.challenges().iter().map(|c| c.to_str().unwrap()).collect();
    assert_eq!(
        challenges,
        [
            r#"Basic realm="gatepost", charset="UTF-8""#,
            r#"ApiKey realm="gatepost", header="x-other""#,
            r#"ApiKey realm="gatepost", header="x-api-key""#,
            r#"ClientCertificate realm="gatepost""#,
        ]
    );
    assert_eq!(
        gate.expects(),
        "expected Basic credentials, an API key in x-other, an API key in x-api-key or a client certificate"
    );
    let taken: Vec<_> = gate.taken().iter().map(HeaderName::as_str).collect();
    assert_eq!(taken, ["x-other", "x-api-key", "authorization"]);
    let office = door(r#"["office"]"#);
    let gate = office.callers.gate(RouteId(0)).unwrap();
    assert!(gate.taken().is_empty() && gate.challenges().is_empty() && gate.expects().is_empty());
}

#[test]
fn without_its_secrets_nobody_is_let_in() {
    let config = config(CLIENTS, r#"clients = ["partner", "other", "inside"]"#);
    let callers = Callers::new(&config, &NoSecrets, None, Now(0));
    let door = Door { config, callers };
    assert_eq!(door.says(caller().key(PARTNER)), "api_key unknown");
    assert_eq!(door.says(caller().basic("other", PASSWORD)), "basic unknown");
}

/// Guesses as many times; how often it was told that it is wrong, and how long it must wait at the end.
fn guess(door: &Door, caller: &Caller, times: usize) -> (usize, Option<u64>) {
    let mut told = 0;
    let mut wait = None;
    for n in 0..times {
        let denied = door.ask(&caller.clone().key(&format!("guess-{n}"))).unwrap_err();
        told += usize::from(denied.reason == Reason::CredentialsInvalid);
        wait = denied.wait.map(|wait| wait.retry_after());
    }
    (told, wait)
}

#[test]
fn guessing_is_slowed_for_its_address_and_no_other() {
    let door = door(r#"["partner", "office", "inside"]"#);
    assert_eq!(guess(&door, &caller(), 100), (20, Some(6)));
    // Even a right key waits, if this address never showed it before.
    assert_eq!(door.says(caller().key(PARTNER)), "api_key slowed");
    assert_eq!(door.says(caller().basic("inside", "short")), "basic slowed");
    // Who shows nothing is not slowed.
    assert_eq!(door.says(caller()), "none missing");
    assert_eq!(door.says(caller().from("203.0.113.10").key(PARTNER)), "partner");
    assert_eq!(door.says(caller().from("192.0.2.7")), "office");
    // Ten a minute come back.
    assert_eq!(guess(&door, &caller().at(61), 100), (10, Some(6)));
    assert_eq!(door.says(caller().at(68).key(PARTNER)), "partner");
}

#[test]
fn an_ipv6_guesser_has_one_64_bit_network() {
    let door = door(r#"["partner"]"#);
    assert_eq!(guess(&door, &caller().from("2001:db8::1"), 100).0, 20);
    assert_eq!(guess(&door, &caller().from("2001:db8::2:3:4:5"), 100).0, 0);
    assert_eq!(guess(&door, &caller().from("2001:db8:0:1::1"), 100).0, 20);
}

#[test]
fn what_was_accepted_from_an_address_goes_on_from_there() {
    let door = door(r#"["partner", "other", "inside"]"#);
    let here = || caller().from("10.0.0.9");
    assert_eq!(door.says(here().key(PARTNER)), "partner");
    assert_eq!(door.says(here().basic("other", PASSWORD)), "other");
    assert_eq!(door.says(here().basic("inside", "short")), "inside");
    guess(&door, &here(), 30);
    assert_eq!(door.says(here().key(PARTNER)), "partner");
    assert_eq!(door.says(here().basic("other", PASSWORD)), "other");
    // Somebody might guess this one.
    assert_eq!(door.says(here().basic("inside", "short")), "basic slowed");
    // Never accepted from here: it waits like a guess.
    assert_eq!(door.says(here().header("x-other", OTHER)), "api_key slowed");
    // And from elsewhere it counts for nothing.
    let there = || caller().from("10.0.0.10");
    guess(&door, &there(), 30);
    assert_eq!(door.says(there().key(PARTNER)), "api_key slowed");
}

#[test]
fn what_was_accepted_long_ago_is_forgotten() {
    let door = door(r#"["partner"]"#);
    door.says(caller().key(PARTNER));
    guess(&door, &caller().at(4500), 30);
    assert_eq!(door.says(caller().at(4500).key(PARTNER)), "partner");
    guess(&door, &caller().at(9600), 30);
    assert_eq!(door.says(caller().at(9600).key(PARTNER)), "api_key slowed");
}

#[test]
fn a_reload_forgives_no_failures() {
    let before = door(r#"["partner"]"#);
    guess(&before, &caller(), 30);
    let config = config(CLIENTS, r#"clients = ["partner"]"#);
    let callers = Callers::new(&config, &named(&config), Some(&before.callers), Now(2_000_000_000));
    let after = Door { config, callers };
    assert_eq!(after.says(caller().at(2).key(PARTNER)), "api_key slowed");
}

proptest! {
    /// Whatever is in the headers: nobody is let in without a right credential, and nothing panics.
    #[test]
    fn garbage_is_nobody(
        values in prop::collection::vec((0usize..3, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
        ip in any::<u32>(),
    ) {
        let door = door(r#"["partner", "other", "bank"]"#);
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(["x-api-key", "authorization", "x-other"][name], value);
            }
        }
        let caller = Caller { ip: IpAddr::V4(ip.into()), headers, certificate: None, second: 1 };
        prop_assert!(door.ask(&caller).is_err());
    }

    /// A key with anything changed in it is another.
    #[test]
    fn only_the_key_itself_is_the_key(at in 0usize..PARTNER.len(), to in "[!-~]") {
        let door = door(r#"["partner"]"#);
        let changed = format!("{}{to}{}", &PARTNER[..at], &PARTNER[at + 1..]);
        let expected = if changed == PARTNER { "partner" } else { "api_key unknown" };
        prop_assert_eq!(door.says(caller().key(&changed)), expected);
    }
}
