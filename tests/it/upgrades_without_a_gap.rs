//! A new binary takes over from the old one: nobody is refused, nothing under way is cut, and one that can't serve changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::{
    Connection, Gateway, Origin, Reply, authority, eventually, gate, gateway, get,
    h2::H2,
    load::{Tally, load},
    origin,
    origin::Seen,
    process::Process,
    proxy::echo,
    websocket::WebSocket,
    when,
};

async fn serving(more: &str) -> (Gateway, Origin) {
    let function = origin().start().await;
    (fronting(more, &function).start().await, function)
}

fn fronting(more: &str, function: &Origin) -> gateway::Build {
    gateway(format!(
        r#"
        [server]
        drain = "20s"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        {more}
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    ))
}

async fn ends(process: Process) {
    eventually(&format!("process {} ends", process.0), async || when(!process.lives())).await;
}

#[tokio::test]
async fn callers_do_not_notice() {
    let (gateway, _function) = serving("").await;
    let (address, admin) = (gateway.address("in"), gateway.admin());
    let calling = load(address, 100);
    for _ in 0..3 {
        let answered = calling.so_far().ok();
        let old = gateway.upgrade().await;
        eventually("calls go on", async || when(calling.so_far().ok() > answered + 20)).await;
        assert_ne!(gateway.process().0, old.0);
        assert_eq!((gateway.address("in"), gateway.admin()), (address, admin));
        // The admin's port answers for the new one.
        let status = gateway.ask_admin("/api/v1/status").await.json();
        assert_eq!(status["pid"], gateway.process().0, "{status}");
    }
    let Tally { failed, stale, sent, .. } = calling.finish().await;
    assert_eq!((failed.len(), stale), (0, 0), "{failed:?} of {sent}");
}

#[tokio::test]
async fn a_kept_connection_has_one_more_request_and_is_told_so() {
    let (gateway, _function) = serving("").await;
    let mut kept = gateway.connect().await;
    assert_ne!(kept.send("/").await.header("connection"), Some("close"));
    let mut untouched = gateway.connect().await;
    let old = gateway.upgrade().await;
    gateway.says(&["draining for the new process"]).await;
    // It waits for them: both are open, and nothing hurries.
    assert!(!kept.closes_within(Duration::from_millis(700)).await && old.lives());
    for connection in [&mut kept, &mut untouched] {
        let answer = connection.send("/").await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
        assert!(connection.closes_within(Duration::from_secs(5)).await);
    }
    ends(old).await;
    // Answers of gatepost's own say so as well, and the new one's kept connections are kept.
    let mut fresh = gateway.connect().await;
    assert_ne!(fresh.send("/").await.header("connection"), Some("close"));
    assert_eq!(fresh.send("/").await.status, 200);
}

#[tokio::test]
async fn downloads_websockets_and_h2_streams_end_in_the_old_one() {
    let (download, feed) = Reply::fed();
    let door = gate();
    let late = Reply::text("late").after(&door);
    let script = move |seen: &Seen| match seen.target.as_str() {
        "/download" => download.clone(),
        "/socket" => Reply::websocket(),
        "/late" => late.clone(),
        _ => Reply::text("ok"),
    };
    let function = origin().answers(script).start().await;
    let gateway = fronting("", &function).start().await;
    let mut loading = gateway.connect().await;
    loading.begin("/download").await;
    feed.send("first, ");
    assert_eq!(loading.piece().await.unwrap().unwrap(), "first, ");
    let mut socket = WebSocket::open(gateway.connect().await, "/socket").await;
    let h2 = H2::plain(gateway.address("in")).await;
    let late = {
        let h2 = h2.clone();
        tokio::spawn(async move { h2.send("/late").await.text() })
    };
    eventually("all reached the function", async || when(function.requests() == 3)).await;

    let old = gateway.upgrade().await;
    eventually("the new one serves", async || when(gateway.get("/").await.status == 200)).await;
    socket.say("still here?").await.unwrap();
    assert_eq!(socket.hear().await.unwrap().as_deref(), Some("still here?"));
    feed.send("second");
    drop(feed);
    assert_eq!(loading.piece().await.unwrap().unwrap(), "second");
    door.open();
    assert_eq!(late.await.unwrap(), "late");
    eventually("the h2 connection was told to go", async || when(h2.is_closed())).await;
    assert!(old.lives(), "the socket is still open");
    socket.close().await.unwrap();
    // Its answer had begun before, so that it was not told: it is kept as long as its caller likes, or `drain` lasts.
    drop(loading);
    ends(old).await;
    // Every request has its line, whoever served it.
    gateway.says(&["the old process has ended"]).await;
    for path in ["/download", "/socket", "/late", "/"] {
        eventually(&format!("the line of {path}"), async || {
            when(gateway.log_lines().iter().any(|line| line["path"] == path))
        })
        .await;
    }
}

#[tokio::test]
async fn tls_callers_and_those_of_a_unix_socket_come_by_the_same_sockets() {
    let trust = authority();
    let leaf = trust.leaf(&["one.test"]);
    let function = origin().start().await;
    let more = format!(
        "[listener.tls]\naddress = \"127.0.0.1:0\"\ntls = [{}]\n[listener.local]\naddress = \"unix:@DIR@/in.sock\"\nmode = \"0600\"",
        leaf.toml()
    );
    let gateway = fronting(&more, &function).start().await;
    let path = gateway.dir().join("in.sock");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    let tls = gateway.address("tls");
    for _ in 0..2 {
        let old = gateway.upgrade().await;
        ends(old).await;
        let tcp = TcpStream::connect(tls).await.unwrap();
        let (stream, _) = trust.caller(&["http/1.1"]).handshake(tcp, "one.test").await.unwrap();
        assert_eq!(Connection::over(stream).send(get("/").host("one.test")).await.status, 200);
        assert_eq!(Connection::unix(&path).await.send("/").await.status, 200);
        assert_eq!(inode(&path), before, "the socket's file was made anew");
    }
    gateway.terminate();
    ends(gateway.process()).await;
    assert!(!path.exists(), "the last one takes the socket's file away");
}

#[tokio::test]
async fn a_tunnel_goes_on_and_new_ones_are_the_new_ones() {
    let far = echo("127.0.0.9:0").await;
    let to = far.address.to_string();
    let gateway = gateway(format!(
        r#"
        [server]
        drain = "20s"
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.rule.r]
        clients = ["fn"]
        to = ["{to}"]
        private = ["127.0.0.0/8"]
        tls_name = "any"
        "#
    ))
    .start()
    .await;
    let mut before = gateway.opened(&to).await;
    assert_eq!(before.echoes("one").await, "one");
    let old = gateway.upgrade().await;
    let mut after = gateway.opened(&to).await;
    assert_eq!(after.echoes("two").await, "two");
    assert_eq!(before.echoes("three").await, "three");
    assert!(old.lives());
    drop(before);
    ends(old).await;
    assert_eq!(after.echoes("four").await, "four");
}

#[tokio::test]
async fn sigusr2_does_the_same() {
    let (gateway, _function) = serving("").await;
    let old = gateway.process();
    gateway.signal(Signal::USR2);
    let line = gateway.says(&["upgrade: the new process serves"]).await;
    gateway.is_now(gateway::word(&line, "pid").unwrap().parse().unwrap());
    ends(old).await;
    assert_eq!(gateway.get("/").await.status, 200);
    // A reload reaches the new one, which has the directory to itself.
    gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    assert_eq!(gateway.get("/f").await.status, 200);
    let lock = fs::read_to_string(gateway.state_dir().join("lock")).unwrap();
    assert_eq!(lock.trim(), gateway.process().0.to_string());
}

/// Fails to upgrade to that binary: the words that are said, to who asks and in the log; then all is as before.
async fn fails(gateway: &Gateway, binary: &Path, seconds: &str, words: &[&str]) {
    let before = gateway.process();
    let (code, said) = gateway.ask_for_upgrade(&["--binary", binary.to_str().unwrap(), "--timeout", seconds]).await;
    assert_eq!(code, Some(1), "{said}\n{}", gateway.stderr());
    for word in words.iter().chain(&["goes on serving"]) {
        assert!(said.contains(word), "{word}: {said}");
    }
    gateway.says(&["not upgraded"]).await;
    gateway.says(words).await;
    assert!(before.lives());
    assert_eq!(gateway.get("/").await.status, 200);
}

/// A program in the gateway's directory.
fn script(gateway: &Gateway, name: &str, text: &str) -> PathBuf {
    let path = gateway.dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_new_binary_that_fails_changes_nothing() {
    let (gateway, _function) = serving("").await;
    let mut kept = gateway.connect().await;
    kept.send("/").await;
    fails(&gateway, Path::new("/no/such/gatepost"), "20", &["/no/such/gatepost", "cannot be started"]).await;
    fails(&gateway, &script(&gateway, "crashes", "exit 7"), "20", &["ended before it served", "exit status: 7"]).await;
    fails(
        &gateway,
        &script(&gateway, "babbles", "exec 3<&0; head -c 64 /dev/zero | tr '\\0' x >&3; sleep 60"),
        "20",
        &["is no gatepost that can take over"],
    )
    .await;
    // It dies as if it were out of memory.
    fails(&gateway, &script(&gateway, "killed", "kill -9 $$"), "20", &["ended before it served", "signal: 9"]).await;
    // What was kept is kept.
    assert_ne!(kept.send("/").await.header("connection"), Some("close"));
    // And the state is still this one's alone.
    gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    assert_eq!(gateway.get("/f").await.status, 200);
}

#[tokio::test]
async fn a_new_binary_that_hangs_is_ended_and_a_second_upgrade_waits_for_nobody() {
    let (gateway, _function) = serving("").await;
    let hangs = script(&gateway, "hangs", "echo $$ > pid; exec sleep 600");
    let path = hangs.to_str().unwrap();
    let words = ["--binary", path, "--timeout", "5"];
    let first = gateway.ask_for_upgrade(&words);
    let second = async {
        gateway.says(&["upgrade: a new process is started"]).await;
        let (code, said) = gateway.ask_for_upgrade(&[]).await;
        assert_eq!(code, Some(1));
        assert!(said.contains("an upgrade is under way already"), "{said}");
        // Nor does it hold up callers.
        assert_eq!(gateway.get("/").await.status, 200);
    };
    let ((code, said), ()) = tokio::join!(first, second);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not serve within 5 s, and was ended"), "{said}");
    let pid: u32 = fs::read_to_string(gateway.dir().join("pid")).unwrap().trim().parse().unwrap();
    ends(Process(pid)).await;
    let old = gateway.upgrade().await;
    ends(old).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_config_that_the_new_one_cannot_serve_is_told_and_the_old_one_goes_on() {
    let (gateway, _function) = serving("").await;
    // It is right, but somebody else has the port; a reload has said so too.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[listener.more]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    let receipt = gateway.edit(|text| format!("{text}{more}")).await;
    assert_eq!(receipt.result, "rejected");
    let (code, said) = gateway.ask_for_upgrade(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("listener more: cannot listen on") && said.contains("goes on serving"), "{said}");
    assert_eq!(gateway.get("/").await.status, 200);
    // One that is wrong is not even asked for.
    gateway.replace("[listener.in]\nadress = \"127.0.0.1:0\"\n");
    let (code, said) = gateway.ask_for_upgrade(&[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("adress") && said.contains("not upgraded"), "{said}");
    // By a signal nobody has looked before: the new process does.
    gateway.signal(Signal::USR2);
    gateway.says(&["not upgraded", "adress"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn the_file_that_it_was_started_from_may_be_another_by_now() {
    let function = origin().start().await;
    let binary = tempfile::tempdir().unwrap();
    let place = binary.path().join("gatepost");
    let real = Path::new(env!("CARGO_BIN_EXE_gatepost"));
    let install = || {
        // As dpkg does: a new file beside, then a rename; the old one is gone.
        let new = binary.path().join("gatepost.dpkg-new");
        fs::copy(real, &new).unwrap();
        fs::rename(&new, &place).unwrap();
    };
    install();
    let gateway = fronting("", &function).binary(&place).start().await;
    install();
    let exe = |process: Process| fs::read_link(format!("/proc/{}/exe", process.0)).unwrap();
    assert!(exe(gateway.process()).to_str().unwrap().ends_with(" (deleted)"));
    let old = gateway.upgrade().await;
    assert_eq!(exe(gateway.process()), fs::canonicalize(&place).unwrap());
    ends(old).await;
    // A rename over it, while no file is there: told, and nothing changes.
    fs::remove_file(&place).unwrap();
    let (code, said) = gateway.ask_for_upgrade(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be started"), "{said}");
    install();
    ends(gateway.upgrade().await).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn stopping_the_new_one_waits_for_what_the_old_one_still_serves() {
    let function = origin().reply(Reply::websocket()).start().await;
    let gateway = fronting("", &function).start().await;
    let mut socket = WebSocket::open(gateway.connect().await, "/").await;
    let old = gateway.upgrade().await;
    gateway.terminate();
    gateway.says(&["waiting for the old process to end"]).await;
    socket.say("hello?").await.unwrap();
    assert_eq!(socket.hear().await.unwrap().as_deref(), Some("hello?"));
    assert!(gateway.process().lives());
    socket.close().await.unwrap();
    ends(old).await;
    ends(gateway.process()).await;
}

#[tokio::test]
async fn an_old_one_whose_successor_dies_does_not_linger() {
    let function = origin().reply(Reply::websocket()).start().await;
    let gateway = fronting("", &function).start().await;
    let _socket = WebSocket::open(gateway.connect().await, "/").await;
    let old = gateway.upgrade().await;
    gateway.says(&["draining for the new process"]).await;
    gateway.signal(Signal::KILL);
    // So that whoever watches over the service sees that it is gone, and starts it.
    gateway.says(&["the new process has ended", "ends as well"]).await;
    ends(old).await;
}

#[tokio::test]
async fn what_limits_have_counted_goes_along() {
    let function = origin().start().await;
    let text = format!(
        r#"
        [limit.partners]
        rate = "1/h"
        burst = 3
        per = "header:x-partner"
        [listener.in]
        address = "127.0.0.1:0"
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.own]
        path = "/own"
        function = "f"
        limits = [{{ rate = "1/h", burst = 5, per = "client_ip" }}, {{ rate = "1/h", burst = 100 }}]
        [route.shared]
        path = "/shared"
        function = "f"
        limits = [{{ use = "partners" }}]
        "#,
        function.url()
    );
    let gateway = gateway(text).start().await;
    let own = |ip: &'static str| {
        let gateway = &gateway;
        async move { gateway.connect_from(ip).await.send("/own").await.status }
    };
    let shared = |partner: &'static str| {
        let gateway = &gateway;
        async move { gateway.send(get("/shared").header("x-partner", partner)).await.status }
    };
    for _ in 0..5 {
        assert_eq!(own("127.0.0.2").await, 200);
    }
    for _ in 0..2 {
        assert_eq!((own("127.0.0.3").await, shared("a").await), (200, 200));
    }
    // One that is kept: what the old one still lets pass is told to the new one as well.
    let mut kept = Connection::from("127.0.0.4", gateway.address("in")).await;
    assert_eq!(kept.send("/own").await.status, 200);
    let old = gateway.upgrade().await;
    assert_eq!((own("127.0.0.2").await, own("127.0.0.2").await), (429, 429), "it had used all five");
    for _ in 0..3 {
        assert_eq!(own("127.0.0.3").await, 200);
    }
    assert_eq!(own("127.0.0.3").await, 429, "three of five were left");
    assert_eq!((shared("a").await, shared("a").await, shared("b").await), (200, 429, 200));
    for _ in 0..3 {
        assert_eq!(own("127.0.0.4").await, 200);
    }
    assert_eq!(kept.send("/own").await.status, 200, "the old one's fifth");
    ends(old).await;
    eventually("the new one has heard of it", async || when(own("127.0.0.4").await == 429)).await;
    // And once more.
    ends(gateway.upgrade().await).await;
    assert_eq!((own("127.0.0.2").await, shared("a").await), (429, 429));
}

#[tokio::test]
async fn budgets_are_counted_on() {
    let function = origin().start().await;
    let text = format!(
        r#"
        [function.f]
        versions = {{ v1 = "{}" }}
        budget = {{ calls_per_day = 10, action = "stop", timezone = "UTC" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    );
    let gateway = gateway(text).start().await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let mut kept = gateway.connect().await;
    let old = gateway.upgrade().await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    gateway.counts("gatepost_budget_calls", &[("function", "f")], 8.0).await;
    assert_eq!(kept.send("/").await.status, 200);
    ends(old).await;
    gateway.counts("gatepost_budget_calls", &[("function", "f")], 9.0).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.get("/").await.is_problem(503, "budget_spent");
    gateway.terminate();
    ends(gateway.process()).await;
    let file = fs::read_to_string(gateway.state_dir().join("budgets.json")).unwrap();
    assert!(file.contains("\"complete\":true") && file.contains("\"calls\":10"), "{file}");
}

#[tokio::test]
async fn a_latch_stays_and_the_history_is_one() {
    let function = origin().start().await;
    let text = format!(
        r#"
        [function.f]
        versions = {{ v1 = "{0}", v2 = "{0}" }}
        weights = {{ v1 = "rest", v2 = 10 }}
        ramp = {{ version = "v2", steps = [10, 50], hold = "1h" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    );
    let gateway = gateway(text).start().await;
    let told = |gateway: &Gateway| {
        let text = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let pause = |gateway: &Gateway| {
        let config = gateway.config.clone();
        tokio::task::spawn_blocking(move || {
            let words = ["pause", "f", "-m", "wait", "--config"];
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
            assert!(command.args(words).arg(config).output().unwrap().status.success());
        })
    };
    pause(&gateway).await.unwrap();
    let before = told(&gateway).len();
    ends(gateway.upgrade().await).await;
    let status = gateway.ask_admin("/api/v1/status").await.json();
    assert!(status["releases"].to_string().contains("wait"), "{status}");
    assert_eq!(told(&gateway).len(), before, "an upgrade is no generation");
    gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    eventually("generation 2 is in the history", async || when(told(&gateway).last()?["generation"] == 2)).await;
}

#[tokio::test]
async fn tls_callers_come_back_by_their_tickets() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let trust = authority();
        let leaf = trust.leaf(&["one.test"]);
        let function = origin().start().await;
        let more = format!("[listener.tls]\naddress = \"127.0.0.1:0\"\ntls = [{}]", leaf.toml());
        let gateway = fronting(&more, &function).start().await;
        let caller = trust.caller_with(&["http/1.1"], &[version]);
        let ask = async || {
            let tcp = TcpStream::connect(gateway.address("tls")).await.unwrap();
            let (stream, agreed) = caller.handshake(tcp, "one.test").await.unwrap();
            let answer = Connection::over(stream).send(get("/").host("one.test")).await;
            assert_eq!(answer.status, 200);
            agreed.resumed
        };
        assert!(!ask().await);
        assert!(ask().await);
        for _ in 0..2 {
            ends(gateway.upgrade().await).await;
            assert!(ask().await, "{version:?}");
        }
    }
}

/// A config that was saved while two processes had other things to do is not forgotten.
#[tokio::test]
async fn what_is_asked_for_meanwhile_is_done_by_whoever_serves_then() {
    let (gateway, _function) = serving("").await;
    let slow = script(&gateway, "slow", &format!("sleep 2; exec {} \"$@\"", env!("CARGO_BIN_EXE_gatepost")));
    let words = ["--binary", slow.to_str().unwrap(), "--timeout", "60", "--json"];
    let upgrade = gateway.ask_for_upgrade(&words);
    let edit = async {
        gateway.says(&["upgrade: a new process is started"]).await;
        gateway.replace(&gateway.config_text().replace("[route.f]", "[route.f]\npath = \"/new\""));
    };
    let ((code, said), ()) = tokio::join!(upgrade, edit);
    assert_eq!(code, Some(0), "{said}");
    let receipt: serde_json::Value = serde_json::from_str(&said).unwrap();
    gateway.is_now(receipt["to"]["pid"].as_u64().unwrap().try_into().unwrap());
    // A connection that the old one has accepted in its last moment is still answered by the old config.
    eventually("the new config serves", async || when(gateway.get("/other").await.status == 404)).await;
    assert_eq!(gateway.get("/new").await.status, 200);
}

/// The issue's own figure, at its full size: `GATEPOST_FULL=1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_under_load() {
    if !crate::harness::full() {
        return;
    }
    let trust = authority();
    let leaf = trust.leaf(&["one.test"]);
    let far = echo("127.0.0.9:0").await;
    let function = origin()
        .answers(|seen| if seen.target == "/socket" { Reply::websocket() } else { Reply::text("ok") })
        .start()
        .await;
    let more = format!(
        r#"
        [listener.tls]
        address = "127.0.0.1:0"
        tls = [{}]
        [client.fn]
        networks = ["127.0.0.1/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.rule.r]
        clients = ["fn"]
        to = ["{}"]
        private = ["127.0.0.0/8"]
        tls_name = "any"
        "#,
        leaf.toml(),
        far.address
    );
    let gateway = fronting(&more, &function).start().await;
    let calling = load(gateway.address("in"), 1_000);
    let tls = gateway.address("tls");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut over_tls = tokio::task::JoinSet::new();
    for h2 in [false, false, true, true] {
        let (caller, stopped) = (trust.caller(if h2 { &["h2"] } else { &["http/1.1"] }), stopped.clone());
        over_tls.spawn(async move {
            let mut answered = 0;
            while !*stopped.borrow() {
                if h2 {
                    let (h2, _) = H2::tls(tls, &caller, "one.test").await;
                    for _ in 0..20 {
                        match h2.try_send(get("/").host("one.test")).await {
                            Ok(answer) => assert_eq!(answer.status, 200),
                            // It was told to go, and a request that is not served may be sent again (RFC 9113 §6.8).
                            Err(_) if h2.is_closed() => break,
                            Err(error) => panic!("h2: {error}"),
                        }
                        answered += 1;
                    }
                    continue;
                }
                let tcp = TcpStream::connect(tls).await.unwrap();
                let (stream, _) = caller.handshake(tcp, "one.test").await.unwrap();
                let mut kept = Connection::over(stream);
                for _ in 0..20 {
                    let answer = kept.send(get("/").host("one.test")).await;
                    assert_eq!(answer.status, 200);
                    answered += 1;
                    if answer.header("connection") == Some("close") {
                        break;
                    }
                }
            }
            answered
        });
    }
    let mut last = gateway.process();
    for round in 0..20 {
        // Of each round some: 50 tunnels and 20 sockets in all are open while the processes change.
        let mut tunnels = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..50 {
            tunnels.push(gateway.opened(&far.address.to_string()).await);
        }
        for _ in 0..20 {
            sockets.push(WebSocket::open(gateway.connect().await, "/socket").await);
        }
        let old = gateway.upgrade().await;
        for tunnel in &mut tunnels {
            assert_eq!(tunnel.echoes("still").await, "still", "round {round}");
        }
        for socket in &mut sockets {
            socket.say("there?").await.unwrap();
            assert_eq!(socket.hear().await.unwrap().as_deref(), Some("there?"), "round {round}");
        }
        drop((tunnels, sockets));
        last = old;
    }
    assert_ne!(last.0, gateway.process().0);
    stop.send_replace(true);
    let mut answered = 0;
    while let Some(done) = over_tls.join_next().await {
        answered += done.unwrap();
    }
    let Tally { failed, stale, sent, .. } = calling.finish().await;
    eprintln!("{sent} plain requests, {} failed, {stale} stale; {answered} over TLS", failed.len());
    // Idle ones that were not used once more until `drain` was over are closed, and the request goes again.
    assert!(failed.is_empty(), "of {sent}: {:?}", &failed[..failed.len().min(5)]);
}
