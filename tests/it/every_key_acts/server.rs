//! The process: `[server]`, `[admin]`, `[log]`, `[networks]`, `[client]` and `include`.

use std::{fs, path::PathBuf};

use super::{
    Proof,
    leaf::{Leaf, Way},
    named, one_function, table,
};
use crate::harness::{Connection, Gateway, Reply, dns::Dns, eventually, gate, get, origin, post, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("include", include),
        ("server.workers", workers),
        ("server.state_dir", state_dir),
        ("server.trusted_proxies", trusted_proxies),
        ("server.max_connections", max_connections),
        ("server.max_requests", max_requests),
        ("server.max_memory", max_memory),
        ("server.max_hops", max_hops),
        ("server.dns", dns),
        ("server.drain", drain),
        ("admin.address", admin_address),
        ("admin.token = env:", admin_token),
        ("admin.token = file:", admin_token),
        ("admin.token = credential:", admin_token),
        ("log.access", log_access),
        ("log.format = json", log_format),
        ("log.format = text", log_format),
        ("log.sample_ok", sample_ok),
        ("log.query", log_query),
        ("networks.*", networks),
        ("client.*.owner", owner),
        ("client.*.networks", client_networks),
    ]
}

async fn include(leaf: Leaf) {
    let function = named("v1").await;
    let routes = |path: &str| one_function(&function.url(), &format!("path = \"{path}\""));
    let (a, b) = (routes("/a"), routes("/b"));
    let [one, other] = leaf
        .pair("LEAF\n", "include = [\"a/*.toml\"]", "include = [\"b/*.toml\"]")
        .also(move |build| build.file("a/x.toml", &a).file("b/x.toml", &b))
        .start()
        .await;
    assert_eq!([one.get("/a").await.status, one.get("/b").await.status], [200, 404]);
    assert_eq!([other.get("/a").await.status, other.get("/b").await.status], [404, 200]);
}

/// How many threads there are whose name begins so.
fn threads(gateway: &Gateway, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.process().0)).unwrap().flatten();
    tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|n| n.starts_with(name))).count()
}

async fn workers(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [one, other] = leaf.pair(&config, "workers = 1", "workers = 3").start().await;
    assert_eq!(threads(&one, "worker-"), 1);
    if waits(&leaf, &other) {
        assert_eq!(threads(&other, "worker-"), 1);
    } else {
        assert_eq!(threads(&other, "worker-"), 3);
    }
}

/// What can't change while it runs: the receipt of the reload says so.
fn waits(leaf: &Leaf, gateway: &Gateway) -> bool {
    if leaf.way == Way::Start {
        return false;
    }
    let receipts = gateway.receipts();
    let told = receipts.last().unwrap();
    assert!(told.line.contains(leaf.name) && told.line.contains("waits for a restart"), "{told:?}");
    true
}

async fn state_dir(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let both = leaf.pair(&config, "state_dir = \"@DIR@/one\"", "state_dir = \"@DIR@/other\"").start().await;
    let names = if waits(&leaf, &both[1]) { ["one", "one"] } else { ["one", "other"] };
    for (gateway, name) in both.iter().zip(names) {
        let kept = |name: &str| gateway.dir().join(name).join("history.jsonl").exists();
        eventually("the generation is kept", async || when(kept(name))).await;
        assert!(!kept(if name == "one" { "other" } else { "one" }));
    }
}

async fn trusted_proxies(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [one, other] =
        leaf.pair(&config, "trusted_proxies = [\"127.0.0.0/8\"]", "trusted_proxies = [\"10.0.0.0/8\"]").start().await;
    for (gateway, ip) in [(one, "192.0.2.9"), (other, "127.0.0.1")] {
        gateway.send(get("/").header("x-forwarded-for", "192.0.2.9")).await;
        assert_eq!(gateway.log_line().await["client_ip"], ip);
        assert_eq!(function.last().header("x-forwarded-for").unwrap().split(',').next(), Some(ip));
    }
}

async fn max_connections(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [one, other] = leaf.pair(&config, "max_connections = 1", "max_connections = 2").start().await;
    for (gateway, status) in [(one, 503), (other, 200)] {
        let mut first = gateway.connect().await;
        assert_eq!(first.send("/").await.status, 200);
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn max_hops(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [one, other] = leaf.pair(&config, "max_hops = 2", "max_hops = 3").start().await;
    one.send(get("/").header("x-gatepost-hop", "2")).await.is_problem(508, "loop_detected");
    assert_eq!(other.send(get("/").header("x-gatepost-hop", "2")).await.status, 200);
    assert_eq!(function.last().header("x-gatepost-hop"), Some("3"));
}

async fn max_requests(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [one, other] = leaf.pair(&config, "max_requests = 1", "max_requests = 2").start().await;
    for (gateway, status) in [(&one, 503), (&other, 200)] {
        let door = gate();
        let waits = door.clone();
        function.now_answers(move |seen| match seen.target.as_str() {
            "/waits" => Reply::text("late").after(&waits),
            _ => Reply::text("ok"),
        });
        let mut first = gateway.connect().await;
        let before = function.requests();
        first.write("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually("it is under way", async || when(function.requests() > before)).await;
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, status);
        if status == 503 {
            answer.is_problem(503, "overloaded");
        }
        door.open();
        assert_eq!(first.answer().await.text(), "late");
        eventually("the place is free again", async || when(gateway.get("/").await.status == 200)).await;
    }
}

async fn max_memory(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [rich, short] = leaf.pair(&config, "max_memory = \"1TiB\"", "max_memory = \"1MiB\"").start().await;
    assert_eq!(rich.get("/").await.status, 200);
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    eventually("it is turned away", async || when(short.raw(asked).await.starts_with("HTTP/1.1 503 "))).await;
    short.counts("gatepost_shedding", &[], 1.0).await;
}

async fn dns(leaf: Leaf) {
    let (one_dns, other_dns) = (Dns::start().await, Dns::start().await);
    let one_function_ = origin().reply("one").at("127.0.0.1", 0).start().await;
    let _other = origin().reply("other").at("127.0.0.2", one_function_.port()).start().await;
    one_dns.answer("fn.test", &["127.0.0.1"], 1);
    other_dns.answer("fn.test", &["127.0.0.2"], 1);
    let config = format!("[server]\nLEAF\n{}", one_function(&one_function_.url_as("fn.test"), ""));
    let servers = [&one_dns, &other_dns].map(|dns| format!("dns = [\"{}\"]", dns.address()));
    let [one, other] = leaf.pair(&config, &servers[0], &servers[1]).start().await;
    assert_eq!(one.get("/").await.text(), "one");
    // On a reload what was known holds until its time is over.
    eventually("the other name server is asked", async || when(other.get("/").await.text() == "other")).await;
}

async fn drain(leaf: Leaf) {
    let open = gate();
    let function = origin().reply(Reply::text("late").after(&open)).start().await;
    let config = format!("[server]\nLEAF\n{}", one_function(&function.url(), ""));
    let [mut one, mut other] = leaf.pair(&config, "drain = \"300ms\"", "drain = \"20s\"").start().await;
    let mut callers = Vec::new();
    for gateway in [&one, &other] {
        let mut caller = gateway.connect().await;
        caller.write(get("/").bytes()).await;
        callers.push(caller);
    }
    eventually("both requests are under way", async || when(function.requests() == 2)).await;
    one.terminate();
    other.terminate();
    one.exit().await;
    assert!(callers[0].try_answer("GET").await.is_err());
    open.open();
    assert_eq!(callers[1].answer().await.text(), "late");
    other.exit().await;
}

async fn admin_address(leaf: Leaf) {
    let config = "[admin]\nLEAF\n";
    let [one, other] = leaf.pair(config, "address = \"127.0.0.1:0\"", "address = \"127.0.0.2:0\"").start().await;
    for (gateway, ip) in [(&one, "127.0.0.1"), (&other, "127.0.0.2")] {
        assert_eq!(gateway.admin().ip().to_string(), ip);
        assert_eq!(gateway.ask_admin("/healthz").await.status, 200);
    }
    let [_, other] =
        leaf.pair(config, "address = \"127.0.0.1:0\"", "address = \"unix:@DIR@/admin.sock\"").start().await;
    let mut admin = Connection::unix(&other.dir().join("admin.sock")).await;
    assert_eq!(admin.send("/healthz").await.status, 200);
}

async fn admin_token(leaf: Leaf) {
    let kind = leaf.name.rsplit(' ').next().unwrap();
    let (one, other) = match kind {
        "env:" => ("env:TOKEN_ONE".to_owned(), "env:TOKEN_OTHER".to_owned()),
        "file:" => ("file:@DIR@/one".to_owned(), "file:@DIR@/other".to_owned()),
        _ => (format!("{kind}one"), format!("{kind}other")),
    };
    let credentials = tempfile::tempdir().unwrap();
    let folder = credentials.path().to_owned();
    for name in ["one", "other"] {
        fs::write(folder.join(name), format!("token-{name}")).unwrap();
    }
    let both = leaf
        .pair("[admin]\nLEAF\n", &format!("token = \"{one}\""), &format!("token = \"{other}\""))
        .also(move |build| {
            build
                .env("TOKEN_ONE", "token-one")
                .env("TOKEN_OTHER", "token-other")
                .env("CREDENTIALS_DIRECTORY", &folder.display().to_string())
                .file("one", "token-one")
                .file("other", "token-other")
        })
        .start()
        .await;
    for (gateway, wanted) in both.iter().zip(["one", "other"]) {
        for name in ["one", "other"] {
            let asks = post("/api/v1/reload").header("authorization", &format!("Bearer token-{name}"));
            let answer = Connection::open(gateway.admin()).await.send(asks).await;
            assert_eq!(answer.status, if name == wanted { 200 } else { 401 }, "{answer:?}");
        }
    }
}

async fn log_access(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[log]\nLEAF\n{}", one_function(&function.url(), ""));
    let lines = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().lines().count();
    let pair = || leaf.pair(&config, "access = \"@DIR@/one.log\"", "access = \"@DIR@/other.log\"");
    for (gateway, name) in pair().start().await.iter().zip(["one.log", "other.log"]) {
        gateway.get("/").await;
        eventually("a line is there", async || when(lines(gateway.dir().join(name)) == 1)).await;
        let of_both = lines(gateway.dir().join("one.log")) + lines(gateway.dir().join("other.log"));
        assert_eq!(of_both, 1);
    }
    let [off, stdout] = leaf.pair(&config, "access = \"off\"", "access = \"stdout\"").start().await;
    off.get("/").await;
    stdout.get("/").await;
    eventually("a line on stdout", async || when(stdout.stdout_lines().len() == 1)).await;
    off.counts("gatepost_requests_total", &[], 1.0).await;
    assert!(off.stdout_lines().is_empty() && !off.dir().join("off").exists());
}

async fn log_format(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[log]\nLEAF\n{}", one_function(&function.url(), ""));
    let [json, text] = leaf.pair(&config, "format = \"json\"", "format = \"text\"").start().await;
    json.get("/").await;
    text.get("/").await;
    assert_eq!(json.log_line().await["status"], 200);
    eventually("a line", async || {
        let lines = fs::read_to_string(text.dir().join("access.log")).unwrap_or_default();
        when(lines.starts_with("127.0.0.1 - - [") && lines.contains("] \"GET gate.test /\" 200 "))
    })
    .await;
}

async fn sample_ok(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[log]\nLEAF\n{}", one_function(&function.url(), "path = \"/f\""));
    let [all, none] = leaf.pair(&config, "sample_ok = 1.0", "sample_ok = 0.0").start().await;
    for (gateway, statuses) in [(all, vec![200, 404]), (none, vec![404])] {
        let mut caller = gateway.connect().await;
        caller.send("/f").await;
        caller.send("/nowhere").await;
        let lines = gateway.log(statuses.len()).await;
        assert!(lines.iter().zip(statuses).all(|(line, status)| line["status"] == status), "{lines:?}");
    }
}

async fn log_query(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[log]\nLEAF\n{}", one_function(&function.url(), ""));
    let [with, without] = leaf.pair(&config, "query = true", "query = false").start().await;
    for (gateway, path) in [(with, "/f?a=b"), (without, "/f")] {
        gateway.get("/f?a=b").await;
        assert_eq!(gateway.log_line().await["path"], path);
    }
}

async fn networks(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[networks]\nLEAF\n{}", one_function(&function.url(), "allow = [\"@office\"]"));
    let [one, other] = leaf.pair(&config, "office = [\"127.0.0.1\"]", "office = [\"10.0.0.0/8\"]").start().await;
    assert_eq!(one.get("/").await.status, 200);
    other.get("/").await.is_problem(403, "forbidden_address");
}

/// It is for people: `explain` says whom to ask.
async fn owner(leaf: Leaf) {
    let config = format!(
        "[client.a]\nnetworks = [\"127.0.0.1\"]\nLEAF\n{}",
        one_function("http://127.0.0.1:9", "clients = [\"a\"]")
    );
    let pair = leaf.pair(&config, "owner = \"Ada Wang\"", "owner = \"Bo Li\"");
    let [one, other] = pair.explained(&["GET", "http://gate.test/"]);
    assert_eq!([&one["owner"], &other["owner"]], ["Ada Wang", "Bo Li"], "{one}");
}

async fn client_networks(leaf: Leaf) {
    let function = named("v1").await;
    let config = format!("[client.a]\nLEAF\n{}", one_function(&function.url(), "clients = [\"a\"]"));
    let [one, other] = leaf.pair(&config, "networks = [\"127.0.0.1\"]", "networks = [\"127.0.0.2\"]").start().await;
    for (gateway, ip, stranger) in [(one, "127.0.0.1", "127.0.0.2"), (other, "127.0.0.2", "127.0.0.1")] {
        assert_eq!(gateway.connect_from(ip).await.send("/").await.status, 200);
        gateway.connect_from(stranger).await.send("/").await.is_problem(403, "forbidden_client");
        assert_eq!(gateway.log(2).await[0]["client"], "a");
    }
}
