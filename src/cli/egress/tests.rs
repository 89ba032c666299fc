//! What the commands say, of a config and a log in a folder.

use std::path::PathBuf;

use crate::cli::{CommandLine, dispatch, term::Terminal};
use crate::config::{Sources, parse};
use clap::Parser;

const CONFIG: &str = r#"
[client.orders-fn]
owner = "payments"
networks = ["10.1.0.0/16"]
[client.other]
networks = ["10.2.0.0/16"]
[client.nobody]
networks = ["10.3.0.0/16"]
[egress]
deny_message = "ask #platform"
[egress.listener.inside]
address = "127.0.0.4:3128"
[egress.source.bank]
bind = ["127.0.0.5"]
public = "203.0.113.11"
[egress.source.away]
bind = "192.0.2.1"
[egress.rule.payments]
clients = ["orders-fn"]
to = ["api.bank.example", "*.bank.example:8443"]
source = "bank"
limits = { tunnels = 200, rate = "50/s", bandwidth = "10MiB/s" }
[egress.rule.erp]
clients = ["orders-fn"]
to = ["erp.corp.internal"]
private = ["10.20.0.0/24"]
source = "away"
[egress.rule.watched]
clients = ["other"]
to = ["*"]
mode = "report"
"#;

const PARENTS: &str = r#"
[egress.rule.chained]
clients = ["orders-fn"]
to = ["far.example"]
source = "bank"
parent = "http://127.0.0.8:3128"
[egress.rule.left-to-it]
clients = ["orders-fn"]
to = ["left.example"]
parent = { url = "http://127.0.0.8:3128", resolve = "parent" }
"#;

const LOG: &str = r#"
{"ts":"2026-11-22T10:00:00.000Z","kind":"connect","client":"orders-fn","target":"api.new.example:443","reason":"destination_not_allowed","status":403,"bytes_in":0,"bytes_out":0}
{"ts":"2026-11-22T10:00:01.000Z","kind":"forward","client":"orders-fn","target":"plain.example:80","reason":"destination_not_allowed","status":403}
{"ts":"2026-11-22T10:00:01.000Z","kind":"connect","client":"orders-fn","target":"10.0.0.7:8080","reason":"destination_not_allowed","status":403}
{"ts":"2026-11-22T10:00:02.000Z","kind":"connect","client":"other.fn","target":"api.new.example:443","mode":"report","would_refuse":"destination_not_allowed","status":200,"bytes_in":10,"bytes_out":20}
{"ts":"2026-11-22T10:00:03.000Z","kind":"connect","client":"orders-fn","target":"api.new.example:443","reason":"destination_not_allowed","status":403}
{"ts":"2026-11-22T10:00:04.000Z","kind":"connect","client":"orders-fn","target":"api.bank.example:443","source":"bank","source_address":"127.0.0.5","status":200,"rule":"payments","bytes_in":10,"bytes_out":20}
{"ts":"2026-11-22T10:00:05.000Z","kind":"connect","client":"orders-fn","target":"api.bank.example:443","source":"bank","source_address":"127.0.0.5","status":504,"reason":"upstream_timeout","rule":"payments"}
{"ts":"2026-11-22T10:00:06.000Z","kind":"connect","client":"orders-fn","target":"api.bank.example","reason":"destination_not_allowed","status":400}
{"ts":"2026-11-22T10:00:07.000Z","kind":"connect","target":"x.example:443","reason":"destination_not_allowed","status":403}
{"ts":"2026-11-22T10:00:07.000Z","request_id":"an access line","method":"GET","status":200}
a line of something else
"#;

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gatepost.toml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("egress.log"), LOG).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a command of these words, of which each is whole, says on stdout and on stderr, beside the config's path.
    fn tells(&self, words: &[&str]) -> (String, String) {
        let (mut term, out, err) = Terminal::on_pads();
        let config = self.path("gatepost.toml").display().to_string();
        let words = [&["gatepost", "egress"], words, &["--config", &config]].concat();
        let line = CommandLine::try_parse_from(words).unwrap();
        if let Err(failure) = dispatch(line.command, &mut term) {
            failure.tell(&mut term);
        }
        (out.text(), err.text())
    }

    /// What a command says on stdout, and on stderr.
    fn says(&self, words: &str) -> (String, String) {
        let (mut term, out, err) = Terminal::on_pads();
        let config = self.path("gatepost.toml").display().to_string();
        let log = self.path("egress.log").display().to_string();
        let words =
            format!("gatepost egress {words}").replace("CONFIG", &format!("--config {config}")).replace("LOG", &log);
        let line = CommandLine::try_parse_from(words.split_whitespace()).unwrap();
        if let Err(failure) = dispatch(line.command, &mut term) {
            failure.tell(&mut term);
        }
        (out.text(), err.text())
    }

    fn explains(&self, words: &str) -> String {
        self.says(&format!("explain {words} CONFIG")).0
    }
}

#[test]
fn explain_walks_through_each_step() {
    let folder = Folder::new();
    let told = folder.explains("orders-fn api.bank.example:443 --address 93.184.216.34");
    for line in [
        "orders-fn to api.bank.example:443",
        "  client    orders-fn (payments), known by networks",
        "  rule      payments",
        "  limits    200 tunnels at once, for this client",
        "            50/s, burst 50, for this client",
        "            10MiB/s in each direction, for this client",
        "  dns       1 address by --address",
        "  address   93.184.216.34  public: dialled",
        "  source    bank: leaves from 127.0.0.5, seen as 203.0.113.11",
        "  tls       the hello must ask for api.bank.example",
        "  answer    let through",
    ] {
        assert!(told.lines().any(|one| one == line), "`{line}` is not in\n{told}");
    }
}

#[test]
fn explain_tells_what_a_parent_is_asked_for() {
    let folder = Folder::new();
    std::fs::write(folder.path("gatepost.toml"), format!("{CONFIG}{PARENTS}")).unwrap();
    let told = folder.explains("orders-fn far.example:443 --address 93.184.216.34");
    for line in [
        "  address   93.184.216.34  public: the parent is asked for it",
        "  parent    http://127.0.0.8:3128, asked for 93.184.216.34:443",
        "  source    bank: leaves from 127.0.0.5, seen as 203.0.113.11",
        "  answer    let through",
    ] {
        assert!(told.lines().any(|one| one == line), "`{line}` is not in\n{told}");
    }
    let told = folder.explains("orders-fn far.example:443 --address 10.0.0.1");
    assert!(told.contains("403 address_not_allowed: 10.0.0.1 is private"), "{told}");
    let told = folder.explains("orders-fn left.example:443");
    for line in [
        "  parent    http://127.0.0.8:3128, asked for left.example:443",
        "            it looks the name up: the addresses behind it are not judged here",
    ] {
        assert!(told.lines().any(|one| one == line), "`{line}` is not in\n{told}");
    }
    let (out, _) = folder.says("addresses CONFIG");
    assert!(out.contains("rule chained goes by http://127.0.0.8:3128, whose addresses are what to whitelist"), "{out}");
    assert!(out.contains("the parent http://127.0.0.8:3128"), "{out}");
}

#[test]
fn explain_says_why_not_and_whom_to_ask() {
    let folder = Folder::new();
    for (words, answer) in [
        (
            "orders-fn api.bank.example:443 --address 93.184.216.34 --address 10.0.0.1",
            "403 address_not_allowed: 10.0.0.1 is private (RFC 1918); a name with allowed and refused addresses is refused",
        ),
        (
            "orders-fn erp.corp.internal:443 --address 10.20.1.4",
            "403 address_not_allowed: 10.20.1.4 is private (RFC 1918)",
        ),
        (
            "orders-fn erp.corp.internal:443 --address 10.20.0.4",
            "503 source_unavailable: 192.0.2.1 of source away is not on this machine",
        ),
        (
            "orders-fn api.bank.example:22",
            "403 destination_not_allowed: no rule takes orders-fn to api.bank.example:22",
        ),
        ("orders-fn api.bank.example", "400 bad_request: the destination has no port"),
        ("orders-fn http://127.1/", "403 destination_not_allowed: the destination is a number"),
        ("other 127.0.0.1:443", "403 destination_not_allowed: no rule takes other to 127.0.0.1:443"),
        ("other x.example:443 --address 127.0.0.1", "403 address_not_allowed: 127.0.0.1 is loopback"),
        ("nobody x.example:443", "403 forbidden_client: no rule names the client nobody"),
        // Who asks is judged before what is asked for, as in the service.
        ("nobody x.example", "403 forbidden_client: no rule names the client nobody"),
        ("other localhost:443", "403 address_not_allowed: 127.0.0.1 is loopback"),
    ] {
        let told = folder.explains(words);
        assert!(told.contains(&format!("  answer    {answer}")), "{words}:\n{told}");
        assert!(told.contains("            ask #platform\n"), "{told}");
    }
    assert!(
        folder
            .explains("orders-fn api.bank.example:22")
            .contains("    not     payments: it leads there on other ports alone: 443, 8443\n")
    );
    let (_, err) = folder.says("explain who x.example:443 CONFIG");
    assert_eq!(err, "error: no client is called `who`; there are: nobody, orders-fn, other\n");
}

#[test]
fn explain_takes_a_name_of_another_script_for_what_clients_send() {
    let folder = Folder::new();
    for (words, target) in [
        ("other BÜCHER.test:443 --no-dns", "xn--bcher-kva.test:443"),
        ("other http://bücher.test:443/ä --no-dns", ""),
        ("other http://bücher.test:443/a?b --no-dns", "xn--bcher-kva.test:443"),
    ] {
        let told = folder.explains(words);
        let written = words.split(' ').nth(1).unwrap();
        match target {
            "" => assert!(told.contains("400 bad_request"), "{told}"),
            target => {
                assert!(told.starts_with(&format!("other to {target}\n")), "{told}");
                let line = format!("  name      of {written}, in ASCII: as it is written it would be a bad_request\n");
                assert!(told.contains(&line) && told.contains("answer    let through"), "{told}");
            }
        }
    }
}

#[test]
fn addresses_say_where_all_of_a_long_list_is() {
    let folder = Folder::new();
    let to = ["a", "b", "c", "d", "e"].map(|name| format!("\"{name}.example\"")).join(", ");
    let text = CONFIG.replace("\"api.bank.example\", \"*.bank.example:8443\"", &to);
    std::fs::write(folder.path("gatepost.toml"), text).unwrap();
    let (out, _) = folder.says("addresses CONFIG");
    assert!(out.contains("d.example:443 and 1 more (--json has all)\n"), "{out}");
}

#[test]
fn explain_tells_what_is_only_watched_and_what_it_did_not_ask() {
    let folder = Folder::new();
    let told = folder.explains("other x.example:443 --address 93.184.216.34");
    assert!(
        told.contains("answer    let through, and told as destination_not_allowed: nothing is enforced here\n"),
        "{told}"
    );
    let told = folder.explains("orders-fn api.bank.example:443 --no-dns");
    assert!(
        told.contains("dns       not asked (--no-dns)") && told.contains("let through, if its addresses are"),
        "{told}"
    );
    let (json, _) = folder.says("explain orders-fn API.bank.example:443 --address 1.2.3.4 --json CONFIG");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["target"], "api.bank.example:443");
    assert_eq!(json["rule"], "payments");
    assert_eq!(json["public"], "203.0.113.11");
    assert_eq!(json["refused"], serde_json::Value::Null);
}

#[test]
fn addresses_are_those_that_partners_see() {
    let folder = Folder::new();
    let (out, err) = folder.says("addresses CONFIG");
    let expected = "\
whitelist     source  bind                             clients    to
192.0.2.1     away    192.0.2.1 (not on this machine)  orders-fn  erp.corp.internal:443
203.0.113.11  bank    127.0.0.5                        orders-fn  *.bank.example:8443, api.bank.example:443
";
    // Columns end where they end.
    assert_eq!(out, expected);
    assert_eq!(err, "warning: watched: no `source`, so calls leave from the address that the system chooses\n");
}

#[test]
fn what_is_learned_is_a_config_that_takes_it() {
    let folder = Folder::new();
    let (learned, err) = folder.says("learn LOG");
    let expected = r#"[egress.rule.learned-orders-fn]
clients = ["orders-fn"]
to = [
  "api.new.example",  # 2 times, last 2026-11-22T10:00:03.000Z
  "plain.example:80", # once, 2026-11-22T10:00:01.000Z
  # "10.0.0.7:8080",  # private (RFC 1918): needs `private` as well; once, 2026-11-22T10:00:01.000Z
]

[egress.rule."learned-other.fn"]
clients = ["other.fn"]
to = [
  "api.new.example", # once, 2026-11-22T10:00:02.000Z
]
"#;
    assert_eq!(learned, expected);
    assert!(err.contains("1 line is no JSON") && err.contains("2 lines are left out"), "{err}");
    let text = format!("{CONFIG}\n[client.\"other.fn\"]\nnetworks = [\"10.9.0.0/16\"]\n{learned}");
    let config = parse(&Sources::new([("t.toml", text.clone())])).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config.egress.rules.len(), 5);
    // What the config takes now is not learned again.
    std::fs::write(folder.path("gatepost.toml"), text).unwrap();
    let (again, _) = folder.says("learn LOG CONFIG --client orders-fn");
    assert!(again.starts_with("# [egress.rule.learned-orders-fn]\n"), "{again}");
    assert!(again.lines().all(|line| line.trim_start().starts_with('#')), "{again}");
    let (json, _) = folder.says("learn LOG --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rules"]["orders-fn"]["api.new.example:443"]["times"], 2);
}

/// Rules in report mode for what the log below tells of.
const WATCHED: &str = r#"
[egress.rule.trial]
clients = ["nobody"]
to = ["*", "*:8080", "named.example", "10.0.0.0/8"]
source = "bank"
private = ["10.20.0.0/24"]
tls_name = "any"
limits = { tunnels = 5 }
mode = "report"
"#;

const REPORTED: &str = r#"
{"ts":"t1","kind":"connect","client":"nobody","target":"good.example:443","source":"bank","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","status":200}
{"ts":"t2","kind":"connect","client":"nobody","target":"good.example:443","source":"bank","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","reason":"upstream_timeout","status":504}
{"ts":"t3","kind":"connect","client":"nobody","target":"inner.example:443","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","reason":"address_not_allowed","status":403}
{"ts":"t4","kind":"connect","client":"nobody","target":"gone.example:443","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","reason":"name_not_resolved","status":502}
{"ts":"t5","kind":"connect","client":"nobody","target":"front.example:443","source":"bank","rule":"trial","mode":"report","would_refuse":"server_name_mismatch","status":200}
{"ts":"t6","kind":"connect","client":"nobody","target":"busy.example:8080","source":"bank","rule":"trial","mode":"report","would_refuse":"rate_limited","status":200}
{"ts":"t7","kind":"connect","client":"nobody","target":"10.20.0.7:443","source":"bank","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","status":200}
{"ts":"t8","kind":"connect","client":"nobody","target":"named.example:443","source":"bank","rule":"trial","mode":"report","would_refuse":"destination_not_allowed","status":200}
{"ts":"t9","kind":"connect","client":"nobody","target":"early.example:443","reason":"destination_not_allowed","status":403}
"#;

#[test]
fn what_is_learned_leaves_as_the_rule_that_let_it_through_says() {
    let folder = Folder::new();
    std::fs::write(folder.path("egress.log"), REPORTED).unwrap();
    let (learned, err) = folder.says("learn LOG");
    assert_eq!(err, "");
    let expected = r#"[egress.rule.learned-nobody]
clients = ["nobody"]
to = [
  "early.example", # once, t9
]

# Let through by rule `trial`, in report mode. A log does not have its other keys: copy those that it has of `parent`, `private`, `limits`, `mixed_answers`, `tls_name` and `timeouts`.
[egress.rule.learned-nobody-trial]
clients = ["nobody"]
to = [
  "busy.example:8080", # once, t6
  "front.example",     # once, t5; its TLS client asks for another name, which needs `tls_name = "any"`
  "good.example",      # 2 times, last t2; not always: upstream_timeout
  "named.example",     # once, t8
  # "10.20.0.7",  # private (RFC 1918): needs `private` as well; once, t7
  # "gone.example",  # let through, and failed: name_not_resolved; once, t4
  # "inner.example",  # let through, and failed: address_not_allowed; once, t3
]
source = "bank"
"#;
    assert_eq!(learned, expected);
    parse(&Sources::new([("t.toml", format!("{CONFIG}{learned}"))])).unwrap_or_else(|report| panic!("{report}"));
}

#[test]
fn what_is_learned_beside_its_config_has_the_keys_of_the_rule_that_watched() {
    let folder = Folder::new();
    std::fs::write(folder.path("egress.log"), REPORTED).unwrap();
    let before = format!("{CONFIG}{WATCHED}");
    std::fs::write(folder.path("gatepost.toml"), &before).unwrap();
    let (learned, err) = folder.says("learn LOG CONFIG");
    assert_eq!(err, "");
    // What was refused before the rule came is let through by it now.
    let expected = r#"# Let through by rule `trial`, in report mode; its other keys are copied.
[egress.rule.learned-nobody-trial]
clients = ["nobody"]
to = [
  "10.20.0.7",         # once, t7
  "busy.example:8080", # once, t6
  "early.example",     # once, t9
  "front.example",     # once, t5; its TLS client asks for another name, which needs `tls_name = "any"`
  "good.example",      # 2 times, last t2; not always: upstream_timeout
  # "gone.example",  # let through, and failed: name_not_resolved; once, t4
  # "inner.example",  # let through, and failed: address_not_allowed; once, t3
  # "named.example",  # rule `trial` names it already: take `mode = "report"` from that one; once, t8
]
limits = { tunnels = 5 }
private = ["10.20.0.0/24"]
source = "bank"
tls_name = "any"
"#;
    assert_eq!(learned, expected);
    std::fs::write(folder.path("gatepost.toml"), format!("{before}{learned}")).unwrap();
    let (again, err) = folder.says("learn LOG CONFIG");
    assert_eq!(err, "");
    assert!(again.lines().all(|line| line.trim_start().starts_with('#')), "{again}");
}

#[test]
fn learn_says_that_a_log_has_no_such_client() {
    let folder = Folder::new();
    let (out, _) = folder.says("learn LOG --client order-fn");
    assert_eq!(out, "# the log has no line of client `order-fn`; it has: orders-fn, other.fn\n");
    let (_, err) = folder.says("learn LOG --client order-fn --json");
    assert!(err.contains("warning: the log has no line of client `order-fn`"), "{err}");
}

#[test]
fn partners_tells_who_calls_whom_from_where() {
    let folder = Folder::new();
    let (out, _) = folder.says("partners LOG CONFIG --to bank");
    let expected = "\
destination                client     from                      worked  last success              failed  why
api.bank.example           orders-fn  -                         0       -                         1       destination_not_allowed
api.bank.example:443       orders-fn  203.0.113.11 (127.0.0.5)  1       2026-11-22T10:00:04.000Z  1       upstream_timeout
";
    let squeezed =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(squeezed(&out), squeezed(expected));
    let (json, _) = folder.says("partners LOG --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 6);
}

#[test]
fn partners_are_known_clients_and_their_names_move_no_cursor() {
    let folder = Folder::new();
    let hostile = r#"{"ts":"t1","kind":"connect","client":"orders-fn","target":"\u001b[31mX\u009b2J\n:443","reason":"bad_request","status":400}
{"ts":"t2","kind":"connect","target":"\u001b[31mstranger:443","reason":"credentials_missing","status":407}
{"ts":"\u001b[31m","kind":"connect","client":"orders-fn\u001b","target":"api.example:443","reason":"destination_not_allowed","status":403}
"#;
    std::fs::write(folder.path("egress.log"), hostile).unwrap();
    let (out, err) = folder.says("partners LOG");
    assert!(out.contains("\\u001b[31mX\\u009b2J\\u000a:443  orders-fn"), "{out}");
    assert!(!out.contains("stranger"), "{out}");
    assert_eq!(err, "warning: 1 line is left out: no client\n");
    let (json, _) = folder.says("partners LOG --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["destination"], "\u{1b}[31mX\u{9b}2J\n:443");
    assert_eq!(json.as_array().unwrap().len(), 2);
    let (learned, _) = folder.says("learn LOG");
    assert!(
        learned.contains("clients = [\"orders-fn\\u001b\"]") && learned.contains("# once, \\u001b[31m"),
        "{learned}"
    );
    // A line end in a word of the command line begins no line of its own.
    let (told, _) = folder.tells(&["explain", "orders-fn", "x\u{1b}[31m\n  answer    let through:443"]);
    for text in [&out, &learned, &told] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}
