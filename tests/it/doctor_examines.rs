//! `gatepost doctor`: whoever is called at three in the morning sees which version is ill, why, and what was asked to find out.

use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Reply, authority,
    dns::Dns,
    origin,
    signed::{ID, SECRET, credential, sigv4, verifies},
};

/// A config in a folder of its own, with the secrets of [`credential`].
struct Patient {
    dir: TempDir,
}

/// What doctor said: its exit code, stdout and stderr.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Patient {
    fn new(config: &str) -> Self {
        let dir = TempDir::with_prefix("gatepost-").unwrap();
        let listener = if config.contains("[listener.") { "" } else { "[listener.in]\naddress = \"127.0.0.1:0\"\n" };
        let route = "[route.f]\nfunction = \"f\"\n";
        let text = format!("{listener}{config}\n{route}").replace("@DIR@", &dir.path().display().to_string());
        for (name, content) in [("gatepost.toml", &*text), ("id", ID), ("secret", SECRET), ("token", "t")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        Self { dir }
    }

    /// Beside functions that live on this thread's runtime.
    async fn examined(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("doctor").arg("--config").arg(self.dir.path().join("gatepost.toml")).args(words);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// As JSON: the exit code, and what was found of each version, one line each: `version check level: text`.
    async fn findings(&self, words: &[&str]) -> (i32, Vec<String>, Value) {
        let said = self.examined(&[&["--json"], words].concat()).await;
        let told: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
        let mut lines = Vec::new();
        for version in told["versions"].as_array().unwrap() {
            for finding in version["findings"].as_array().unwrap() {
                let word = |key: &str| finding[key].as_str().unwrap();
                let name = version["version"].as_str().unwrap();
                lines.push(format!("{name} {} {}: {}", word("check"), word("level"), word("text")));
            }
        }
        (said.code, lines, told)
    }
}

#[track_caller]
fn has(lines: &[String], words: &[&str]) {
    assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {lines:#?}");
}

fn now(shift: i64) -> String {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(shift);
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_takes_signed_calls_only_is_all_well_and_what_was_sent_is_told() {
    let authority = authority();
    let leaf = authority.leaf(&["orders.test"]);
    let checked = |seen: &_| match sigv4(seen) {
        Ok(()) => Reply::text("signed").header("Date", &now(0)),
        Err(why) => Reply::text(why).status(403).header("Date", &now(0)),
    };
    let v1 = origin().answers(checked).tls(&leaf).start().await;
    let v2 = origin().answers(checked).tls_h2(&leaf).start().await;
    let dns = Dns::start().await;
    dns.answer("orders.test", &["127.0.0.1"], 60);
    let patient = Patient::new(&format!(
        "[server]\ndns = [\"{}\"]\n[function.f]\nca = \"{}\"\ncredential = \"key\"\nweights = {{ v1 = \"rest\" }}\n\
         versions = {{ v1 = \"{}/base\", v2 = \"{}\" }}\n{}",
        dns.address(),
        authority.ca().display(),
        v1.url_as("orders.test"),
        v2.url_as("orders.test"),
        credential("sigv4", "session_token = \"file:@DIR@/token\""),
    ));
    let (code, lines, told) = patient.findings(&["--path", "/health?deep=1"]).await;
    for version in ["v1", "v2"] {
        has(&lines, &[version, "name ok: orders.test is 127.0.0.1"]);
        has(&lines, &[version, "connect ok: 127.0.0.1:", "leaving by 127.0.0.1"]);
        has(&lines, &[version, "certificate ok: for orders.test, until "]);
        has(&lines, &[version, "answer ok: 200"]);
        has(&lines, &[version, "clock ok"]);
        has(&lines, &[version, "signature ok: taken: 200"]);
        has(&lines, &[version, "bypass ok: without the signature it answers 403"]);
    }
    has(&lines, &["v1 connect", "HTTP/1.1"]);
    has(&lines, &["v2 connect", "HTTP/2"]);
    assert_eq!((code, &told["problems"], &told["warnings"]), (0, &0.into(), &0.into()), "{lines:#?}");

    // What it says that it sent is what came, and no secret is in it.
    for (function, version, target) in [(&v1, 0, "/base/health?deep=1"), (&v2, 1, "/health?deep=1")] {
        let seen = function.seen();
        assert_eq!(seen.len(), 2, "one signed, one not");
        assert!(seen.iter().all(|seen| seen.method == "HEAD" && seen.target == target), "{seen:?}");
        let sent: Vec<_> =
            told["versions"][version]["sent"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(sent[0].starts_with(&format!("HEAD {target} to 127.0.0.1:")), "{sent:?}");
        assert!(sent[0].contains("authorization: …") && sent[0].contains("x-amz-security-token: …"), "{sent:?}");
        assert!(!sent[1].contains("authorization"), "{sent:?}");
    }
    let said = patient.examined(&[]).await;
    assert!(said.out.ends_with("all well\n") && !said.out.contains(SECRET) && !said.out.contains(ID), "{}", said.out);
    assert!(said.out.contains("listener in 127.0.0.1:0") && said.out.contains("lo  127.0.0.1"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_around_the_gate_is_a_problem() {
    let open = origin().start().await;
    let closed = verifies(|_| Err("who are you".to_owned())).start().await;
    let silent = origin().reply(Reply::text("no such page").status(404)).start().await;
    let patient = Patient::new(&format!(
        "[function.f]\ncredential = \"key\"\nweights = {{ v1 = \"rest\" }}\n\
         versions = {{ v1 = \"{}\", v2 = \"{}\", v3 = \"{}\" }}\n{}",
        open.url(),
        closed.url(),
        silent.url(),
        credential("sigv4", ""),
    ));
    let (code, lines, told) = patient.findings(&["--method", "GET"]).await;
    has(&lines, &["v1 bypass problem: answers 200 without the signature as well", "goes around gatepost"]);
    has(&lines, &["v2 signature problem: the call is signed, and the answer is 403"]);
    has(&lines, &["v3 bypass warning: answers 404 with the signature and without"]);
    assert_eq!((code, &told["problems"], &told["warnings"]), (1, &2.into(), &1.into()), "{lines:#?}");
    assert!(open.seen().iter().all(|seen| seen.method == "GET"));
    // Of one function that has no credential, at a private address, it is not even a warning.
    let patient = Patient::new(&format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n", open.url()));
    let (code, lines, _) = patient.findings(&["--strict"]).await;
    has(&lines, &["v1 bypass note: answers without a signature, at a private address"]);
    assert_eq!(code, 0, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_are_told_apart() {
    let (authority, stranger) = (authority(), crate::harness::tls::authority_called("somebody else"));
    let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400 + 3600);
    let other = origin().tls(&authority.leaf(&["other.test"])).start().await;
    let foreign = origin().tls(&stranger.leaf(&["127.0.0.1"])).start().await;
    let over = authority.leaf_until(&["127.0.0.1"], SystemTime::now() - Duration::from_secs(3600));
    let over = origin().tls(&over).start().await;
    let soon = authority.leaf_until(&["127.0.0.1"], in_days(5));
    let soon = origin().tls(&soon).start().await;
    let patient = Patient::new(&format!(
        "[function.f]\nca = \"{}\"\nweights = {{ other = \"rest\" }}\n\
         versions = {{ other = \"{}\", foreign = \"{}\", over = \"{}\", soon = \"{}\" }}\n",
        authority.ca().display(),
        other.url(),
        foreign.url(),
        over.url(),
        soon.url(),
    ));
    let (code, lines, _) = patient.findings(&["--no-call"]).await;
    has(&lines, &["other certificate problem: 127.0.0.1:", "for other.test, and not for 127.0.0.1"]);
    has(&lines, &["foreign certificate problem", "somebody else", "the `ca` of this version does not know"]);
    has(&lines, &["over certificate problem", "expired on "]);
    has(&lines, &["soon certificate warning: for 127.0.0.1, ends in 5 days"]);
    assert_eq!(code, 1);
    assert_eq!([&other, &foreign, &over, &soon].map(|o| o.requests()), [0; 4], "--no-call calls nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_a_function_that_fails_and_one_that_is_gone() {
    let late = origin().answers(|_| Reply::text("ok").header("Date", &now(900))).start().await;
    let broken = origin().reply(Reply::text("boom").status(502)).start().await;
    let dns = Dns::start().await;
    let patient = Patient::new(&format!(
        "[server]\ndns = [\"{}\"]\n[listener.away]\naddress = \"192.0.2.77:80\"\n\
         [function.f]\nweights = {{ late = \"rest\" }}\nversions = {{ late = {{ url = \"{}\", credential = \"key\" }}, \
         broken = \"{}\", gone = \"http://127.0.0.1:1\", lost = \"http://lost.test\" }}\n{}",
        dns.address(),
        late.url(),
        broken.url(),
        credential("sigv4", ""),
    ));
    let (code, lines, told) = patient.findings(&[]).await;
    has(&lines, &["late clock problem: this machine is", "s behind the function's Date"]);
    has(&lines, &["broken answer problem: 502", "(class function)"]);
    has(&lines, &["gone connect problem: 127.0.0.1:1: Connection refused"]);
    has(&lines, &["lost name problem: lost.test does not resolve, by 127.0.0.1:"]);
    let listener = &told["listeners"][0]["findings"][0];
    assert_eq!(listener["text"], "this machine has no address 192.0.2.77", "{listener}");
    assert_eq!(code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_named_is_examined_and_what_is_wrong_with_the_question_is_code_2() {
    let (f, g) = (origin().start().await, origin().start().await);
    let both = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[function.g]\nversions = {{ v1 = \"{}\" }}\n[route.g]\npath = \"/g\"\nfunction = \"g\"\n",
        f.url(),
        g.url()
    );
    let patient = Patient::new(&both);
    assert_eq!(patient.examined(&["g"]).await.code, 0);
    assert_eq!((f.requests(), g.requests()), (0, 1));
    for (words, says) in [
        (&["h"][..], "no function is called `h`"),
        (&["--path", "health"], "write a path"),
        (&["--method", "POST"], "POST"),
    ] {
        let said = patient.examined(words).await;
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains(says), "{}", said.err);
    }
    let broken = Patient::new("[function.f]\nversion = 1\n").examined(&[]).await;
    assert_eq!(broken.code, 2, "{}", broken.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_only_the_service_can_read_is_said_so_and_the_rest_is_examined() {
    let f = origin().reply(Reply::text("no").status(403)).start().await;
    let patient = Patient::new(&format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\ncredential = \"gate\"\n\
         [credential.gate]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"credential:gate\"\n",
        f.url(),
    ));
    let (code, lines, _) = patient.findings(&[]).await;
    has(&lines, &["v1 signature warning: not tried"]);
    has(&lines, &["v1 bypass ok: without the signature it answers 403"]);
    assert_eq!((code, f.requests()), (0, 1), "{lines:#?}");
    assert_eq!(patient.findings(&["--strict"]).await.0, 1);
}

/// A partner's whitelist is about these: which address calls leave by, and whether this machine has it. All of 127.0.0.0/8 is here, though an
/// interface lists one of it.
#[tokio::test]
async fn where_calls_leave_from_is_told_and_an_address_that_is_not_here_is_a_problem() {
    let function = origin().start().await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[client.c]\nnetworks = [\"10.0.0.0/8\"]\n\
         [egress.listener.out]\naddress = \"127.0.0.3:0\"\n\
         [egress.source.here]\nbind = \"127.0.0.2\"\npublic = \"203.0.113.11\"\n\
         [egress.source.gone]\nbind = \"192.0.2.77\"\n\
         [egress.rule.a]\nclients = [\"c\"]\nto = [\"a.example\"]\nsource = \"here\"\n\
         [egress.rule.b]\nclients = [\"c\"]\nto = [\"b.example\"]\nsource = \"gone\"\n\
         [egress.rule.c]\nclients = [\"c\"]\nto = [\"c.example\"]\n",
        function.url()
    );
    let said = Patient::new(&config).examined(&[]).await;
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    for words in [
        "egress listener out 127.0.0.3:0\n  reached by 127.0.0.3\n",
        "egress source here\n  leaves by 127.0.0.2, seen as 203.0.113.11\n  used by rule a\n",
        "egress without a source\n  rule c: leaves as the system chooses\n",
        "egress source gone\n  leaves by 192.0.2.77\n  used by rule b\n    problem   address: this machine has no address 192.0.2.77\n",
        "1 problem",
    ] {
        assert!(said.out.contains(words), "`{words}` is not in\n{}", said.out);
    }
}
