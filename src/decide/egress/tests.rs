//! The way out as a function meets it: a target's bytes in, addresses to dial or a refusal out. The name server is scripted, and counts.

use std::{cell::RefCell, net::IpAddr, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        Config, Sources,
        model::{ClientId, EgressMode, EgressRuleId},
    },
    decide::Now,
};

const CONFIG: &str = r#"
    [admin]
    address = "127.0.0.1:9901"
    [listener.public]
    address = "0.0.0.0:443"
    [client.fn]
    networks = ["10.1.0.0/16"]
    [client.other]
    networks = ["10.2.0.0/16"]
    [egress.listener.inside]
    address = "10.0.0.4:3128"
    [egress.source.bank]
    bind = "10.0.0.5"
    public = "47.96.1.3"
    [egress.rule.partners]
    clients = ["fn"]
    to = ["allowed.com", "*.allowed.com", "xn--bcher-kva.example", "plain.example:80", "10.example:8443"]
    source = "bank"
    [egress.rule.literals]
    clients = ["fn"]
    to = ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.5.5.5",
          "[2606:4700:4700::1111]", "2400:3200::1", "198.51.100.0/24:8080", "47.96.1.3"]
    private = ["198.51.100.0/24"]
    [egress.rule.erp]
    clients = ["fn"]
    to = ["erp.corp.internal", "10.20.0.7"]
    private = ["10.20.0.0/24"]
    [egress.rule.lenient]
    clients = ["fn"]
    to = ["dropping.example"]
    mixed_answers = "drop"
    [egress.rule.self]
    clients = ["fn"]
    to = ["me.example", "me.example:3128", "me.example:9901", "127.0.0.1:9901", "10.0.0.4:3128"]
    private = ["127.0.0.0/8", "10.0.0.0/24"]
"#;

/// For everything that is refused although any name and any public address is allowed.
const OPEN: &str = r#"
    [client.fn]
    networks = ["10.1.0.0/16"]
    [egress.listener.inside]
    address = "10.0.0.4:3128"
    [egress.rule.all]
    clients = ["fn"]
    to = ["*", "*:80", "0.0.0.0/0", "0.0.0.0/0:80", "::/0", "[::/0]:80"]
"#;

fn config(text: &str) -> Config {
    crate::config::parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

/// What names lead to.
const NAMES: &[(&str, &[&str])] = &[
    ("allowed.com", &["93.184.216.34"]),
    ("api.allowed.com", &["93.184.216.34", "93.184.216.35", "2606:2800:220:1::25"]),
    ("a.b.allowed.com", &["93.184.216.34"]),
    ("xn--bcher-kva.example", &["93.184.216.34"]),
    ("plain.example", &["93.184.216.34"]),
    ("10.example", &["93.184.216.34"]),
    ("erp.corp.internal", &["10.20.0.7"]),
    ("mixed.allowed.com", &["93.184.216.34", "10.0.0.5"]),
    ("mixed6.allowed.com", &["93.184.216.34", "::1"]),
    ("dropping.example", &["10.0.0.5", "93.184.216.34", "93.184.216.34"]),
    ("chain.allowed.com", &["10.0.0.5"]),
    ("127-0-0-1.allowed.com", &["127.0.0.1"]),
    ("mapped.allowed.com", &["::ffff:10.0.0.1"]),
    ("empty.allowed.com", &[]),
    ("me.example", &["127.0.0.1"]),
    ("eip.allowed.com", &["47.96.1.3"]),
    ("localhost", &["127.0.0.1", "::1"]),
    ("foo.localhost", &["127.0.0.1"]),
    ("metadata.google.internal", &["169.254.169.254"]),
];

struct World {
    config: Config,
    policy: Policy,
    own: Own,
    asked: RefCell<Vec<String>>,
}

impl World {
    fn new(text: &str) -> Self {
        let config = config(text);
        Self { policy: Policy::new(&config, None, Now(0)), own: Own::of(&config), asked: RefCell::default(), config }
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        self.asked.borrow_mut().push(name.to_owned());
        let many = || (0..500u32).map(|n| IpAddr::V4((0x5db8_d800 + n).into())).collect();
        match name {
            "many.allowed.com" => many(),
            "manybad.allowed.com" => many().into_iter().chain(["10.0.0.1".parse().unwrap()]).collect(),
            _ => {
                let known = NAMES.iter().find(|(known, _)| *known == name);
                known.map_or_else(Vec::new, |(_, ips)| ips.iter().map(|ip| ip.parse().unwrap()).collect())
            }
        }
    }

    /// All the way to what is dialled.
    fn to(&self, client: u32, target: &str) -> Result<Vec<IpAddr>, Reason> {
        let authority = connect(target.as_bytes()).map_err(AuthorityProblem::reason)?;
        let rule = match self.policy.choose(ClientId(client), &authority) {
            Choice::Rule(id) => Some(&self.config.egress.rules[id.index()]),
            Choice::Unlisted => None,
            Choice::Refused => return Err(Reason::DestinationNotAllowed),
        };
        let judge = Judge::of(rule, &self.own, &|_| false);
        let dial = match &authority.host {
            Host::Address(ip) => {
                judge.one(*ip, authority.port).map(|()| vec![*ip]).map_err(|_| Reason::AddressNotAllowed)?
            }
            Host::Name(name) => {
                judge.all(&self.resolve(name), authority.port).map_err(|_| Reason::AddressNotAllowed)?
            }
        };
        if dial.is_empty() { Err(Reason::NameNotResolved) } else { Ok(dial) }
    }

    fn rule(&self, client: u32, target: &str) -> Option<&str> {
        let authority = connect(target.as_bytes()).expect(target);
        match self.policy.choose(ClientId(client), &authority) {
            Choice::Rule(id) => Some(&self.config.egress.rules[id.index()].name),
            Choice::Unlisted => Some("unlisted"),
            Choice::Refused => None,
        }
    }
}

/// Of the survey's 72 hostile inputs those that a policy meets; the numbers are its. Those of the authority alone are beside its parser, those of
/// sockets in tests/it.
#[test]
fn hostile_targets_are_refused() {
    use Reason::{AddressNotAllowed as Address, BadRequest as Bad, DestinationNotAllowed as Destination};
    let world = World::new(CONFIG);
    let open = World::new(OPEN);
    // By number, target, the reason where a rule allows any destination, and that where partners alone are listed.
    let cases: &[(u32, &str, Reason, Reason)] = &[
        (1, "127.0.0.1:443", Address, Destination),
        (2, "127.255.255.254:443", Address, Destination),
        (3, "0.0.0.0:443", Address, Destination),
        (4, "0.0.0.1:443", Address, Destination),
        (5, "10.1.2.3:443", Address, Destination),
        (6, "172.31.255.255:443", Address, Destination),
        (7, "192.168.0.1:443", Address, Destination),
        (8, "169.254.169.254:80", Address, Destination),
        (9, "169.254.0.23:80", Address, Destination),
        (10, "100.100.100.200:80", Address, Destination),
        (11, "100.64.0.1:443", Address, Destination),
        (12, "192.0.0.192:80", Address, Destination),
        (13, "168.63.129.16:80", Address, Destination),
        (14, "198.18.0.1:443", Address, Destination),
        (15, "192.0.2.1:443", Address, Destination),
        (15, "198.51.100.1:443", Address, Destination),
        (15, "203.0.113.1:443", Address, Destination),
        (16, "224.0.0.1:443", Address, Destination),
        (16, "239.255.255.250:443", Address, Destination),
        (17, "240.0.0.1:443", Address, Destination),
        (17, "255.255.255.255:443", Address, Destination),
        (18, "[::1]:443", Address, Destination),
        (18, "[::]:443", Address, Destination),
        (19, "[::ffff:127.0.0.1]:443", Address, Destination),
        (20, "[::127.0.0.1]:443", Address, Destination),
        (20, "[::169.254.169.254]:443", Address, Destination),
        (21, "[::ffff:0:127.0.0.1]:443", Address, Destination),
        (22, "[64:ff9b::7f00:1]:443", Address, Destination),
        (22, "[64:ff9b:1::7f00:1]:443", Address, Destination),
        (23, "[2002:7f00:1::]:443", Address, Destination),
        (24, "[2001:0:1234::1]:443", Address, Destination),
        (25, "[fe80::1]:443", Address, Destination),
        (25, "[fe80::1%25eth0]:443", Address, Address),
        (26, "[fc00::1]:443", Address, Destination),
        (26, "[fd00:ec2::254]:443", Address, Destination),
        (27, "[fec0::1]:443", Address, Destination),
        (27, "[ff02::1]:443", Address, Destination),
        (27, "[100::1]:443", Address, Destination),
        (27, "[2001:db8::1]:443", Address, Destination),
        (28, "127.1:443", Destination, Destination),
        (29, "2130706433:443", Destination, Destination),
        (30, "0177.0.0.1:443", Destination, Destination),
        (31, "0x7f.0.0.1:443", Destination, Destination),
        (31, "0x7f000001:443", Destination, Destination),
        (32, "127.0.0.1.:443", Destination, Destination),
        (33, "①②⑦.0.0.1:443", Bad, Bad),
        (33, "127。0。0。1:443", Bad, Bad),
        (34, "1.2.3.4.5:443", Destination, Destination),
        (34, "256.1.1.1:443", Destination, Destination),
        (35, "all\u{ad}owed.com:443", Bad, Bad),
        (36, "mixed.allowed.com:443", Address, Address),
        (36, "mixed6.allowed.com:443", Address, Address),
        (38, "chain.allowed.com:443", Address, Address),
        (39, "127-0-0-1.allowed.com:443", Address, Address),
        (40, "mapped.allowed.com:443", Address, Address),
        (41, "empty.allowed.com:443", Reason::NameNotResolved, Reason::NameNotResolved),
        (42, "manybad.allowed.com:443", Address, Address),
        (43, "localhost:443", Address, Destination),
        (43, "LOCALHOST.:443", Address, Destination),
        (43, "foo.localhost:443", Address, Destination),
        (44, "metadata.google.internal:80", Address, Destination),
        (47, "allowed.com:22", Destination, Destination),
        (47, "allowed.com:25", Destination, Destination),
        (47, "allowed.com:6379", Destination, Destination),
        (47, "allowed.com:0", Destination, Destination),
        (48, "allowed.com:65536", Bad, Bad),
        (49, "allowed.com", Bad, Bad),
        (50, "user:pw@allowed.com:443", Bad, Bad),
        (51, "allowed.com:443/path", Bad, Bad),
        (52, "[allowed.com]:443", Bad, Bad),
        (53, "evil.com,allowed.com:443", Bad, Bad),
        (56, "\u{430}llowed.com:443", Bad, Bad),
        (57, "a..b:443", Destination, Destination),
        (58, "allowed%00.evil.com:443", Destination, Destination),
    ];
    for (number, target, by_open, by_list) in cases {
        assert_eq!(open.to(0, target), Err(*by_open), "{number}: {target:?}, anything allowed");
        assert_eq!(world.to(0, target), Err(*by_list), "{number}: {target:?}, partners allowed");
    }
    // What no rule takes asks no name server; of other names each once.
    let listed = ["mixed.allowed.com", "mixed6.allowed.com", "chain.allowed.com", "127-0-0-1.allowed.com"];
    let listed = listed.into_iter().chain(["mapped.allowed.com", "empty.allowed.com", "manybad.allowed.com"]);
    assert_eq!(*world.asked.borrow(), listed.collect::<Vec<_>>());
}

#[test]
fn names_that_look_like_an_allowed_one_are_refused_unasked() {
    let world = World::new(CONFIG);
    for target in [
        // 54, 55, 47, 57
        "allowed.evil.com:443",
        "evilallowed.com:443",
        "allowed.com.evil.com:443",
        "allowed.co:443",
        "bcher-kva.example:443",
        "sub.plain.example:80",
        "plain.example:443",
        "allowed.com:80",
        "api.allowed.com:8443",
        "x10.example:8443",
        "8.8.4.4:443",
        "8.8.8.8:53",
        "[2606:4700:4700::1112]:443",
    ] {
        assert_eq!(world.to(0, target), Err(Reason::DestinationNotAllowed), "{target}");
    }
    // 55: `*.allowed.com` is not `allowed.com`, which is listed by itself here.
    let suffix_only = World::new(&OPEN.replace(r#""*", "*:80""#, r#""*.allowed.com""#));
    assert_eq!(suffix_only.to(0, "allowed.com:443"), Err(Reason::DestinationNotAllowed));
    assert!(suffix_only.to(0, "api.allowed.com:443").is_ok());
    // Another client has no rule at all, nor has one that there is not.
    assert_eq!(world.to(1, "allowed.com:443"), Err(Reason::DestinationNotAllowed));
    assert_eq!(world.to(7, "allowed.com:443"), Err(Reason::DestinationNotAllowed));
    assert_eq!(*world.asked.borrow(), Vec::<String>::new());
}

#[test]
fn what_must_be_permitted_is() {
    let world = World::new(CONFIG);
    let pub4 = "93.184.216.34";
    for (target, dialled) in [
        ("ALLOWED.com:443", &[pub4][..]),
        ("allowed.com.:443", &[pub4]),
        ("allowed.com:443", &[pub4]),
        ("xn--bcher-kva.example:443", &[pub4]),
        ("XN--Bcher-KVA.example:443", &[pub4]),
        ("8.8.8.8:443", &["8.8.8.8"]),
        ("[::ffff:8.8.8.8]:443", &["8.8.8.8"]),
        ("100.63.255.255:443", &["100.63.255.255"]),
        ("100.128.0.1:443", &["100.128.0.1"]),
        ("172.32.0.1:443", &["172.32.0.1"]),
        ("192.0.1.1:443", &["192.0.1.1"]),
        ("198.20.0.1:443", &["198.20.0.1"]),
        ("223.5.5.5:443", &["223.5.5.5"]),
        ("[2606:4700:4700::1111]:443", &["2606:4700:4700::1111"]),
        ("[2400:3200::1]:443", &["2400:3200::1"]),
        ("api.allowed.com:443", &[pub4, "93.184.216.35", "2606:2800:220:1::25"]),
        ("a.b.allowed.com:443", &[pub4]),
        ("erp.corp.internal:443", &["10.20.0.7"]),
        ("10.20.0.7:443", &["10.20.0.7"]),
        ("198.51.100.9:8080", &["198.51.100.9"]),
        ("plain.example:80", &[pub4]),
        ("10.example:8443", &[pub4]),
        ("dropping.example:443", &[pub4]),
    ] {
        let dialled: Vec<IpAddr> = dialled.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(world.to(0, target), Ok(dialled), "{target}");
    }
    // 42: tries are bounded.
    assert_eq!(world.to(0, "many.allowed.com:443").map(|dial| dial.len()), Ok(MOST_DIALLED));
}

/// 45, 46: itself, by address, by name, and by the address that the world knows it by; whatever a rule exempts.
#[test]
fn nobody_is_sent_to_gatepost_itself() {
    let world = World::new(CONFIG);
    for target in ["10.0.0.4:3128", "127.0.0.1:9901", "me.example:9901"] {
        assert_eq!(world.to(0, target), Err(Reason::AddressNotAllowed), "{target}");
    }
    // The public address of a source, on a port that gatepost has: a hairpin.
    assert_eq!(world.to(0, "47.96.1.3:443"), Err(Reason::AddressNotAllowed));
    assert_eq!(world.to(0, "eip.allowed.com:443"), Err(Reason::AddressNotAllowed));
    // A listener on all addresses is at each of this machine's, of which loopback is one.
    assert_eq!(world.to(0, "me.example:443"), Err(Reason::AddressNotAllowed));
    let rule = &world.config.egress.rules[0];
    let here: IpAddr = "93.184.216.34".parse().unwrap();
    let local = |ip| ip == here;
    assert_eq!(Judge::of(Some(rule), &world.own, &local).one(here, 443), Err(NotAllowed::Own));
    assert_eq!(Judge::of(Some(rule), &world.own, &local).one(here, 8443), Ok(()));
    // Other ports of the same machine are a matter of `private`.
    assert_eq!(world.to(0, "me.example:3128"), Ok(vec!["127.0.0.1".parse().unwrap()]));
}

#[test]
fn a_translators_prefix_may_be_exempted_but_not_what_is_behind_it() {
    let world = World::new(&format!("{OPEN}\nprivate = [\"64:ff9b::/96\", \"10.20.0.0/24\"]"));
    assert!(world.to(0, "[64:ff9b::808:808]:443").is_ok());
    assert!(world.to(0, "[64:ff9b::a14:7]:443").is_ok(), "10.20.0.7 is exempted itself");
    for inside in ["[64:ff9b::7f00:1]:443", "[64:ff9b::a9fe:a9fe]:443", "[64:ff9b:1::808:808]:443"] {
        assert_eq!(world.to(0, inside), Err(Reason::AddressNotAllowed), "{inside}");
    }
}

#[test]
fn gatepost_itself_is_refused_behind_a_translator_too() {
    let open = OPEN.replace("\"[::/0]:80\"", "\"[::/0]:80\", \"[::/0]:3128\", \"0.0.0.0/0:3128\"");
    let source = "[egress.source.s]\nbind = \"10.0.0.9\"\npublic = \"8.8.8.8\"";
    let text = format!("{open}\nprivate = [\"64:ff9b::/96\"]\n{source}");
    let world = World::new(&text);
    assert_eq!(world.to(0, "8.8.8.8:3128"), Err(Reason::AddressNotAllowed));
    assert_eq!(world.to(0, "[64:ff9b::808:808]:3128"), Err(Reason::AddressNotAllowed));
    assert!(world.to(0, "[64:ff9b::808:808]:443").is_ok(), "another port than gatepost's");
}

#[test]
fn a_host_field_holds_a_host_or_nothing() {
    for host in [
        "",
        "a.example",
        "A.example:80",
        "a.example:",
        "a_b:0",
        "192.0.2.1",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "2001:db8::1:43081",
        "2001:db8::1",
    ] {
        assert!(is_host(host.as_bytes()), "{host}");
    }
    for host in [
        "a b",
        "a,b",
        "a/b",
        "http://a/",
        "a:b",
        "a:99999",
        "[::1",
        "::1:99999",
        "g::h",
        "u@a",
        "a\u{e9}",
        "a\tb",
        "a:+1",
    ] {
        assert!(!is_host(host.as_bytes()), "{host}");
    }
}

#[test]
fn a_target_is_told_without_what_it_may_hide() {
    for (target, told) in [
        ("a.example:443", "a.example:443"),
        ("http://a.example/b?c", "a.example"),
        ("http://a.example:81?c", "a.example:81"),
        ("http://u:p@a.example:81/b", "a.example:81"),
        ("u:p@a.example:443", "a.example:443"),
        ("u:p@q@a.example:443", "a.example:443"),
        ("u:p/q@a.example:443", ""),
        ("http://u:12/q@a.example/", ""),
        ("u:12?q@a.example:443", ""),
        ("http://u:p!q@a.example/", ""),
        ("http://[u:p", ""),
        ("http://a.example\\b\\c", "a.example"),
        ("a.example:p", "a.example"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("/b?c", ""),
        ("*", ""),
        ("", ""),
        ("@", ""),
        ("://", ""),
        (":", ":"),
    ] {
        let seen = without_secrets(target.as_bytes());
        assert_eq!(std::str::from_utf8(seen).unwrap(), told, "{target}");
    }
}

#[test]
fn the_most_specific_rule_wins() {
    let rule = |name: &str, to: &str| format!("[egress.rule.{name}]\nclients = [\"fn\"]\nto = [{to}]\n");
    let text = OPEN.split("[egress.rule").next().unwrap().to_owned()
        + &rule("any", r#""*", "*:8443""#)
        + &rule("suffix", r#""*.example.com""#)
        + &rule("longer", r#""*.eu.example.com", "*.eu.example.com:8443""#)
        + &rule("exact", r#""a.eu.example.com""#)
        + &rule("all4", r#""0.0.0.0/0", "::/0""#)
        + &rule("net", r#""8.8.0.0/16", "2606:4700::/32""#)
        + &rule("one", r#""8.8.8.8", "2606:4700::1111""#);
    let world = World::new(&text);
    for (target, expected) in [
        ("x.org:443", Some("any")),
        ("org:443", Some("any")),
        ("example.com:443", Some("any")),
        ("a.example.com:443", Some("suffix")),
        ("eu.example.com:443", Some("suffix")),
        ("b.eu.example.com:443", Some("longer")),
        ("c.b.eu.example.com:443", Some("longer")),
        ("a.eu.example.com:443", Some("exact")),
        // Of those with that port alone.
        ("a.eu.example.com:8443", Some("longer")),
        ("a.example.com:8443", Some("any")),
        ("a.example.com:22", None),
        ("1.1.1.1:443", Some("all4")),
        ("8.8.4.4:443", Some("net")),
        ("8.8.8.8:443", Some("one")),
        ("8.8.8.8:80", None),
        ("[2001:db8::1]:443", Some("all4")),
        ("[2606:4700::1]:443", Some("net")),
        ("[2606:4700::1111]:443", Some("one")),
        ("[::ffff:8.8.8.8]:443", Some("one")),
    ] {
        assert_eq!(world.rule(0, target), expected, "{target}");
    }
    // `*` is for names: it takes no address that is written out.
    let names_alone = World::new(&OPEN.replace(r#", "0.0.0.0/0", "0.0.0.0/0:80", "::/0", "[::/0]:80""#, ""));
    assert_eq!(names_alone.to(0, "8.8.8.8:443"), Err(Reason::DestinationNotAllowed));
}

#[test]
fn explaining_says_of_each_rule_why_it_lost() {
    let world = World::new(CONFIG);
    let to = connect(b"api.allowed.com:8443").unwrap();
    let ids = ["erp", "lenient", "literals", "partners", "self"];
    let lost = why_lost(&world.config.egress, ClientId(0), &to, None);
    let told: Vec<_> = lost.iter().map(|(id, lost)| (ids[id.index()], lost.clone())).collect();
    assert_eq!(told[3], ("partners", Lost::Port(vec![443])));
    assert_eq!(told[0], ("erp", Lost::Destination));
    assert!(why_lost(&world.config.egress, ClientId(1), &to, None).iter().all(|(_, lost)| *lost == Lost::Client));
}

#[test]
fn report_mode_lets_destinations_through_but_no_address() {
    let world = World::new(&format!("{CONFIG}\n[egress]\nmode = \"report\""));
    assert_eq!(world.rule(0, "new.example:22"), Some("unlisted"));
    assert_eq!(world.rule(1, "new.example:22"), Some("unlisted"));
    assert_eq!(world.rule(0, "allowed.com:443"), Some("partners"));
    assert_eq!(world.to(0, "metadata.google.internal:80"), Err(Reason::AddressNotAllowed));
    assert_eq!(world.to(0, "10.1.2.3:80"), Err(Reason::AddressNotAllowed));
    assert_eq!(clients(&world.config), [ClientId(0), ClientId(1)]);
    assert_eq!(clients(&World::new(CONFIG).config), [ClientId(0)]);
}

#[test]
fn on_port_443_of_a_name_the_client_must_ask_for_that_name() {
    let world = World::new(CONFIG);
    let rule = world.config.egress.rules.iter().find(|rule| &*rule.name == "partners").unwrap();
    let any = EgressRuleAny::of(rule);
    let wanted = |rule, target: &str| {
        let to = connect(target.as_bytes()).unwrap();
        wanted_name(rule, &to).map(str::to_owned)
    };
    assert_eq!(wanted(Some(rule), "ALLOWED.com.:443").as_deref(), Some("allowed.com"));
    assert_eq!(wanted(Some(rule), "allowed.com:8443"), None);
    assert_eq!(wanted(Some(rule), "8.8.8.8:443"), None);
    assert_eq!(wanted(Some(&any.0), "allowed.com:443"), None);
    assert_eq!(wanted(None, "allowed.com:443").as_deref(), Some("allowed.com"));
    // 67
    assert!(hello_agrees(&Hello::Name("allowed.com".into()), "allowed.com"));
    for other in [Hello::Name("evil.com".into()), Hello::NoName, Hello::NotTls, Hello::Bad("x"), Hello::NeedMore] {
        assert!(!hello_agrees(&other, "allowed.com"), "{other:?}");
    }
}

struct EgressRuleAny(crate::config::model::EgressRule);

impl EgressRuleAny {
    fn of(rule: &crate::config::model::EgressRule) -> Self {
        Self(crate::config::model::EgressRule { tls_name: crate::config::model::TlsName::Any, ..rule.clone() })
    }
}

const BOUNDED: &str = r#"
    [client.a]
    networks = ["10.1.0.0/16"]
    [client.b]
    networks = ["10.2.0.0/16"]
    [egress.listener.inside]
    address = "10.0.0.4:3128"
    [egress.rule.r]
    clients = ["a", "b"]
    to = ["a.example"]
    limits = { tunnels = 2, rate = "3/s", bandwidth = "1MiB/s" }
"#;

fn enter(policy: &Policy, client: u32, second: u64) -> Result<(Ticket, Option<Over>), Over> {
    let ip = "10.1.0.1".parse().unwrap();
    policy.enter(EgressRuleId(0), EgressMode::Enforce, ClientId(client), ip, Now(second * 1_000_000_000))
}

#[test]
fn each_client_has_bounds_of_its_own_and_places_come_back() {
    let policy = Policy::new(&config(BOUNDED), None, Now(0));
    let first = enter(&policy, 0, 10).unwrap();
    let second = enter(&policy, 0, 10).unwrap();
    let full = enter(&policy, 0, 10).unwrap_err();
    assert_eq!((full.reason, full.retry_after), (Reason::TunnelsExhausted, 1));
    assert!(enter(&policy, 1, 10).is_ok(), "another client");
    drop(first);
    // Who was refused has taken nothing of the rate: two are spent of three.
    let third = enter(&policy, 0, 10).unwrap();
    drop(second);
    assert_eq!(enter(&policy, 0, 10).unwrap_err().reason, Reason::RateLimited);
    let fourth = enter(&policy, 0, 11).unwrap();
    drop((third, fourth));
    assert!(policy.under_way().all(|(_, _, n)| n == 0));
}

#[test]
fn a_rule_in_report_mode_only_tells_of_its_bounds() {
    let policy = Policy::new(&config(BOUNDED), None, Now(0));
    let ip = "10.1.0.1".parse().unwrap();
    let enter = || policy.enter(EgressRuleId(0), EgressMode::Report, ClientId(0), ip, Now(10_000_000_000));
    let places: Vec<_> = (0..5).map(|_| enter().unwrap()).collect();
    let over: Vec<_> = places.iter().map(|(_, over)| over.map(|over| over.reason)).collect();
    let (full, fast) = (Some(Reason::TunnelsExhausted), Some(Reason::RateLimited));
    assert_eq!(over, [None, None, full, full, full]);
    drop(places);
    assert_eq!(enter().unwrap().1.map(|over| over.reason), fast, "it was let through, and so counts");
}

#[test]
fn counts_outlive_a_reload_that_means_the_same() {
    let before = Policy::new(&config(BOUNDED), None, Now(0));
    let held = [enter(&before, 0, 10).unwrap(), enter(&before, 0, 10).unwrap()];
    let text = BOUNDED
        .replace("tunnels = 2", "tunnels = 3")
        .replace("[client.a]", "[client.0]\nnetworks = [\"10.3.0.0/16\"]\n[client.a]");
    let after = Policy::new(&config(&text), Some(&before), Now(11_000_000_000));
    // By name: `a` has another number now.
    let third = enter(&after, 1, 20).unwrap();
    assert_eq!(enter(&after, 1, 20).unwrap_err().reason, Reason::TunnelsExhausted);
    drop(held);
    assert!(enter(&after, 1, 21).is_ok());
    drop(third);
    assert!(after.under_way().all(|(_, _, n)| n == 0));
}

#[test]
fn bandwidth_is_shared_by_a_clients_tunnels_and_not_by_directions() {
    let policy = Policy::new(&config(BOUNDED), None, Now(0));
    let (one, two) = (enter(&policy, 0, 10).unwrap().0, enter(&policy, 0, 10).unwrap().0);
    let (other, _) = enter(&policy, 1, 10).unwrap();
    let now = Now(10_000_000_000);
    assert_eq!(one.pay(64 << 10, Direction::Up, now), Duration::ZERO);
    assert_eq!(two.pay(1 << 20, Direction::Up, now), Duration::from_nanos(1_062_500_000 - 100_000_000));
    assert_eq!(one.pay(0, Direction::Up, Now(11_062_500_000)), Duration::ZERO);
    assert_eq!(one.pay(1 << 10, Direction::Down, now), Duration::ZERO);
    assert_eq!(other.pay(1 << 10, Direction::Up, now), Duration::ZERO);
    // No number of bytes is too many.
    one.pay(u64::MAX, Direction::Down, now);
    one.pay(u64::MAX, Direction::Down, now);
    assert!(one.is_paced());
}

fn source_of(bind: &[&str]) -> crate::config::model::Source {
    let bind = bind.iter().map(|ip| ip.parse().unwrap()).collect();
    crate::config::model::Source { name: "s".into(), bind, public: vec![], check: None }
}

#[test]
fn a_client_keeps_to_one_address_of_a_set() {
    let four: IpAddr = "8.8.8.8".parse().unwrap();
    let six: IpAddr = "2606:4700::1".parse().unwrap();
    let pick =
        |source: &_, client: usize, to| source_address(source, &format!("client-{client}"), to).map(|(_, ip)| ip);
    let three = source_of(&["10.0.0.5", "10.0.0.6", "2001:db8::5", "10.0.0.7"]);
    let mut counts = std::collections::HashMap::new();
    for client in 0..3_000 {
        let ip = pick(&three, client, four).unwrap();
        assert_eq!(pick(&three, client, four), Some(ip));
        *counts.entry(ip).or_insert(0) += 1;
        assert_eq!(pick(&three, client, six), Some("2001:db8::5".parse().unwrap()));
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|n| (850..1_150).contains(n)), "{counts:?}");
    // In another order, or without one of them, nobody moves who needs not.
    let (turned, less) = (source_of(&["10.0.0.7", "10.0.0.6", "10.0.0.5"]), source_of(&["10.0.0.5", "10.0.0.7"]));
    for client in 0..300 {
        let before = pick(&three, client, four).unwrap();
        assert_eq!(pick(&turned, client, four), Some(before));
        if before != "10.0.0.6".parse::<IpAddr>().unwrap() {
            assert_eq!(pick(&less, client, four), Some(before));
        }
    }
    assert_eq!(pick(&source_of(&["10.0.0.5"]), 1, six), None);
}

#[test]
fn statuses_are_a_proxys() {
    assert_eq!(status(Reason::CredentialsMissing), 407);
    assert_eq!(status(Reason::CredentialsInvalid), 407);
    assert_eq!(status(Reason::DestinationNotAllowed), 403);
    assert_eq!(status(Reason::TunnelsExhausted), 429);
    assert_eq!(status(Reason::SourceUnavailable), 503);
    assert_eq!(status(Reason::NameNotResolved), 502);
    assert_eq!(status(Reason::UpstreamTimeout), 504);
}

/// Ten thousand names cost as many lookups as ten: what is found is found among as many buckets as the name has labels.
#[test]
fn many_names_are_told_apart() {
    let names: String = (0..10_000).map(|n| format!("\"n{n}.example\", \"*.s{n}.example\",")).collect();
    let world = World::new(&OPEN.replace(r#""*", "*:80","#, &names));
    assert_eq!(world.rule(0, "n9999.example:443"), Some("all"));
    assert_eq!(world.rule(0, "a.b.c.s0.example:443"), Some("all"));
    assert_eq!(world.rule(0, "s0.example:443"), None);
    assert_eq!(world.rule(0, "n10000.example:443"), None);
}

/// The naive reading: every rule's every destination, the most specific by length.
fn naive(world: &World, client: ClientId, to: &Authority<'_>) -> Option<EgressRuleId> {
    use crate::config::model::DestinationHost as D;
    let rank = |host: &D| match host {
        D::Name(_) => 1_000,
        D::Suffix(suffix) => 1 + suffix.len(),
        D::AnyName => 0,
        D::Net(net) => net.prefix_len().into(),
    };
    let rules = (0..).map(EgressRuleId).zip(&world.config.egress.rules);
    rules
        .filter(|(_, rule)| rule.clients.contains(&client))
        .flat_map(|(id, rule)| rule.to.iter().map(move |one| (id, one)))
        .filter(|(_, one)| one.port == to.port && takes(&one.host, &to.host))
        .max_by_key(|(_, one)| rank(&one.host))
        .map(|(id, _)| id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_asking_every_rule(
        rules in prop::collection::vec(prop::collection::vec("((\\*\\.)?([ab]\\.){0,3}[ab]|\\*|8\\.8\\.[89]\\.[89]|8\\.8\\.8\\.0/24|8\\.0\\.0\\.0/8)(:[12])?", 1..5), 1..5),
        targets in prop::collection::vec("(([ab]\\.){0,4}[ab]|8\\.[89]\\.8\\.[89]):(1|2|443)", 1..20),
    ) {
        let mut seen = std::collections::HashSet::new();
        let mut text = OPEN.split("[egress.rule").next().unwrap().to_owned();
        for (n, to) in rules.iter().enumerate() {
            let to: Vec<_> = to.iter().filter(|one| {
                let whole = if one.contains(':') { (*one).clone() } else { format!("{one}:443") };
                seen.insert(whole)
            }).collect();
            if !to.is_empty() {
                text += &format!("[egress.rule.r{n}]\nclients = [\"fn\"]\nto = {to:?}\n");
            }
        }
        let world = World::new(&text);
        for target in &targets {
            let to = connect(target.as_bytes()).unwrap();
            let found = match world.policy.choose(ClientId(0), &to) {
                Choice::Rule(id) => Some(id),
                _ => None,
            };
            prop_assert_eq!(found, naive(&world, ClientId(0), &to), "{}", target);
        }
    }
}
