//! A disk that is full or read-only, a folder that is gone, a kill in the middle of anything: it goes on or comes back, its state is never
//! broken, and it says what is degraded wherever somebody may look.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{Connection, Gateway, Origin, eventually, gateway, load::load, origin, when};

/// In a mount namespace of its own, where a folder of the gateway's directory is a small disk. Without root in a user namespace as well.
const ON_A_DISK: &str = "mkdir -p @DIR@/disk && mount -t tmpfs -o SIZE,mode=0777 tmpfs @DIR@/disk && exec \"$@\"";

async fn on_a_disk(options: &str, function: &Origin) -> Gateway {
    let text = format!(
        r#"
        [server]
        state_dir = "@DIR@/disk/state"
        [log]
        access = "@DIR@/disk/access.log"
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        "#,
        function.url()
    );
    let namespace = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    let script = ON_A_DISK.replace("SIZE", options);
    gateway(text).wrapped(&["unshare", namespace, "sh", "-c", &script, "sh"]).start().await
}

/// That disk, as the process sees it.
fn disk(gateway: &Gateway) -> PathBuf {
    let inside = gateway.dir().join("disk");
    Path::new(&format!("/proc/{}/root", gateway.process().0)).join(inside.strip_prefix("/").unwrap())
}

/// Does something to that disk, from within.
fn remount(gateway: &Gateway, options: &str) {
    let disk = gateway.dir().join("disk");
    assert!(within(gateway, &["mount", "-o", options, disk.to_str().unwrap()]));
}

/// Whether a command in the gateway's namespaces is content.
fn within(gateway: &Gateway, words: &[&str]) -> bool {
    let pid = gateway.process().0.to_string();
    let mut command = Command::new("nsenter");
    if !rustix::process::getuid().is_root() {
        command.arg("-U").arg("--preserve-credentials");
    }
    command.args(["-m", "-t", &pid]).args(words).status().unwrap().success()
}

/// What the admin says is degraded; it is ready all the same.
async fn degraded(gateway: &Gateway) -> Vec<String> {
    let ready = gateway.ask_admin("/readyz").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let text = ready.text();
    let parts = text.lines().filter_map(|line| line.strip_prefix("degraded: ")?.split(": ").next());
    parts.map(str::to_owned).collect()
}

async fn is_degraded(gateway: &Gateway, parts: &[&str]) {
    eventually(&format!("{parts:?} are degraded"), async || when(degraded(gateway).await == parts)).await;
    let metrics = gateway.metrics().await;
    for part in ["access_log", "budgets", "descriptors", "egress_source", "memory", "releases", "state_dir", "workers"]
    {
        let is = metrics.sum("gatepost_degraded", &[("what", part)]);
        assert_eq!(is, f64::from(u8::from(parts.contains(&part))), "{part}");
    }
    let status = gateway.ask_admin("/api/v1/status").await.json();
    let told = status["degraded"].as_array().map_or(0, Vec::len);
    assert_eq!(told, parts.len(), "{status}");
}

#[tokio::test]
async fn a_full_disk() {
    let function = origin().start().await;
    let gateway = on_a_disk("size=512k", &function).await;
    assert_eq!(gateway.get("/").await.status, 200);
    is_degraded(&gateway, &[]).await;
    let filler = disk(&gateway).join("filler");
    // To the last byte.
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let receipt = gateway.swap("[route.f]", "[route.f]\npath = \"/*\"").await;
    assert_eq!(receipt.generation, 2);
    assert_eq!(gateway.get("/").await.status, 200);
    is_degraded(&gateway, &["access_log", "state_dir"]).await;
    gateway.says(&["degraded", "state_dir"]).await;

    fs::remove_file(&filler).unwrap();
    assert_eq!(gateway.get("/").await.status, 200);
    // Nobody has to do anything.
    is_degraded(&gateway, &[]).await;
    let history = fs::read_to_string(disk(&gateway).join("state/history.jsonl")).unwrap();
    let generations: Vec<_> = history
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["generation"].as_u64().unwrap())
        .collect();
    assert_eq!(generations, [1, 2]);
    assert!(disk(&gateway).join("state/generations/000002/manifest.json").exists());
    gateway.says(&["access log is written again"]).await;
}

#[tokio::test]
async fn a_state_folder_that_is_read_only() {
    let function = origin().start().await;
    let text = format!(
        "[server]\nstate_dir = \"@DIR@/disk/state\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    );
    let namespace = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    let script = ON_A_DISK.replace("SIZE", "size=1m,ro");
    let gateway = gateway(text).wrapped(&["unshare", namespace, "sh", "-c", &script, "sh"]).start().await;
    gateway.says(&["degraded: generations are not kept"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    is_degraded(&gateway, &["state_dir"]).await;
    let receipt = gateway.swap("[route.f]", "[route.f]\npath = \"/*\"").await;
    assert_eq!(receipt.generation, 2);
    remount(&gateway, "remount,rw");
    gateway.says(&["state_dir can be used again"]).await;
    is_degraded(&gateway, &[]).await;
    let reload =
        within(&gateway, &[env!("CARGO_BIN_EXE_gatepost"), "reload", "--config", gateway.config.to_str().unwrap()]);
    assert!(reload, "commands do not reach it");
    let history = fs::read_to_string(disk(&gateway).join("state/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains("\"generation\":2"), "{history}");
}

#[tokio::test]
async fn a_log_folder_that_is_deleted() {
    let function = origin().start().await;
    let text = format!(
        "[log]\naccess = \"@DIR@/logs/access.log\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    );
    let gateway = gateway(text).file("logs/keep", "").start().await;
    let logs = gateway.dir().join("logs");
    assert_eq!(gateway.get("/").await.status, 200);
    fs::remove_dir_all(&logs).unwrap();
    assert_eq!(gateway.get("/").await.status, 200);
    is_degraded(&gateway, &["access_log"]).await;
    gateway.says(&["access log cannot be written"]).await;
    fs::create_dir(&logs).unwrap();
    assert_eq!(gateway.get("/").await.status, 200);
    is_degraded(&gateway, &[]).await;
    let lines = gateway::log_lines(&logs.join("access.log"));
    assert!(lines.len() >= 2, "what waited is written: {lines:?}");
}

#[tokio::test]
async fn too_few_descriptors() {
    let function = origin().start().await;
    let text = format!(
        "[server]\nmax_connections = 10000\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    );
    let gateway = gateway(text).start().await;
    let few = rustix::process::Rlimit { current: Some(256), maximum: Some(256) };
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.process().0).unwrap());
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, few).unwrap();
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(gateway.connect().await);
    }
    is_degraded(&gateway, &["descriptors"]).await;
    drop(held);
    eventually("callers are served again", async || {
        let Ok(mut connection) = Connection::try_open(gateway.address("in")).await else { return None };
        when(connection.try_send("/").await.is_ok_and(|answer| answer.status == 200))
    })
    .await;
    is_degraded(&gateway, &[]).await;
}

/// Killed in the middle of reloads, of log lines and of a ramp, again and again: it starts, serves what the file says, and all that it has
/// written can be read.
#[tokio::test]
async fn a_kill_at_any_moment() {
    let function = origin().start().await;
    let text = format!(
        r#"
        [function.f]
        versions = {{ v1 = "{0}", v2 = "{0}" }}
        weights = {{ v1 = "rest", v2 = 10 }}
        ramp = {{ version = "v2", steps = [10, 11, 12, 50, 60, 70], hold = "1s" }}
        budget = {{ calls_per_day = 100000, action = "stop", timezone = "UTC" }}
        [route.f]
        path = "/0/*"
        function = "f"
        "#,
        function.url()
    );
    let mut gateway = gateway(text).start().await;
    let rounds = if crate::harness::full() { 40 } else { 6 };
    for round in 1..=rounds {
        let calling = load(gateway.address("in"), 200);
        // A different moment each time: so many reloads are under way.
        for step in 0..round % 4 {
            let text = gateway.config_text();
            let path = format!("path = \"/{}/*\"", round * 10 + step);
            let line = text.lines().find(|line| line.starts_with("path = ")).unwrap();
            gateway.replace(&text.replace(line, &path));
            tokio::time::sleep(Duration::from_millis(u64::try_from(step * 37 % 60).unwrap())).await;
        }
        gateway.signal(Signal::KILL);
        gateway.exit().await;
        drop(calling.finish().await);
        gateway = gateway.again().await;
        let path =
            gateway.config_text().lines().find_map(|line| line.strip_prefix("path = \"").map(str::to_owned)).unwrap();
        let answer = gateway.get(path.trim_end_matches("/*\"")).await;
        assert_eq!(answer.status, 200, "round {round}: {answer:?}");
        let state = gateway.state_dir();
        let history = fs::read_to_string(state.join("history.jsonl")).unwrap();
        let mut last = 0;
        for line in history.lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let generation = entry["generation"].as_u64().unwrap();
            assert!(generation >= last, "round {round}: {generation} behind {last}");
            last = generation;
        }
        for kept in fs::read_dir(state.join("generations")).unwrap() {
            let manifest = kept.unwrap().path().join("manifest.json");
            let text = fs::read_to_string(&manifest).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{e}: {}", manifest.display()));
        }
        for file in ["releases.json", "budgets.json"] {
            if let Ok(text) = fs::read_to_string(state.join(file)) {
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            }
        }
        assert!(!gateway.stderr().contains("is lost"), "{}", gateway.stderr());
        is_degraded(&gateway, &[]).await;
    }
}
