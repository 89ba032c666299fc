//! A version goes out step by step, is shifted and rolled back by one command, and what has happened outlives a kill.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use gatepost::{config, release::State};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Gateway, Origin, Reply, eventually, full, gateway::gateway, origin, when};

/// Two versions that answer with their names; drop them last.
async fn versions() -> [Origin; 2] {
    [origin().reply(Reply::text("v1")).start().await, origin().reply(Reply::text("v2")).start().await]
}

/// Function `orders`, with these lines.
fn orders(versions: &[Origin; 2], lines: &str) -> String {
    let [v1, v2] = versions.each_ref().map(Origin::url);
    format!(
        "[route.r]\nfunction = \"orders\"\n[function.orders]\nversions = {{ v1 = \"{v1}\", v2 = \"{v2}\" }}\n{lines}\n"
    )
}

const CANARY: &str =
    "[function.orders.weights] # who gets what\nv1 = \"rest\"  # the old one\nv2 = 5       # the canary";

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(args).arg("--config").arg(dir.join("gatepost.toml")).env("USER", "mei").env_remove("SUDO_USER");
    command.stdin(Stdio::null());
    command
}

/// Runs a command as mei: what it printed, or with its code what it complained of.
fn run(gateway: &Gateway, args: &[&str]) -> Result<String, (Option<i32>, String)> {
    let Output { status, stdout, stderr } = command(gateway.dir(), args).output().unwrap();
    let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    if status.success() { Ok(out + &err) } else { Err((status.code(), out + &err)) }
}

#[track_caller]
fn done(gateway: &Gateway, args: &[&str]) -> String {
    run(gateway, args).unwrap_or_else(|(code, text)| panic!("{args:?}: {code:?}: {text}\n{}", gateway.stderr()))
}

async fn share(gateway: &Gateway) -> f64 {
    gateway.metrics().await.sum("gatepost_release_share", &[("function", "orders"), ("version", "v2")])
}

async fn comes_to(gateway: &Gateway, percent: f64) {
    eventually(&format!("v2 comes to {percent} %"), async || {
        when((share(gateway).await - percent).abs() < f64::EPSILON)
    })
    .await;
}

fn history(gateway: &Gateway) -> Vec<Value> {
    let text = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_shift_changes_the_number_alone_and_says_when_it_is_in_force() {
    let versions = versions().await;
    let gateway = gateway(orders(&versions, CANARY)).start().await;
    let before = gateway.config_text();
    let said = done(&gateway, &["shift", "orders", "v2=50.5", "--reason", "it looks good"]);
    assert!(said.contains("orders: v1 95 % → 49.5 %, v2 5 % → 50.5 %"), "{said}");
    assert!(said.contains("generation 2 applied"), "{said}");
    assert_eq!(gateway.config_text(), before.replace("v2 = 5  ", "v2 = 50.5  "));
    assert_eq!(share(&gateway).await, 50.5, "it is in force when the command is back");
    let last = history(&gateway).pop().unwrap();
    assert_eq!((&last["by"], &last["reason"]), (&"mei".into(), &"it looks good".into()), "{last}");
    assert_eq!(last["generation"], 2);
    // The same once more changes nothing, and neither does what makes no sense.
    assert!(done(&gateway, &["shift", "orders", "v2=50.5"]).contains("that already"));
    let (code, said) = run(&gateway, &["shift", "orders", "v3=1"]).unwrap_err();
    assert_eq!(code, Some(2));
    assert!(said.contains("no version of function `orders` is called `v3`"), "{said}");
    assert_eq!(run(&gateway, &["shift", "orders", "v2"]).unwrap_err().0, Some(2));
    let json: Value = serde_json::from_str(&done(&gateway, &["shift", "orders", "v2=7", "--json"])).unwrap();
    assert_eq!(
        (&json["result"], &json["weights"]["v2"], &json["receipt"]["generation"]),
        (&"applied".into(), &7.0.into(), &3.into())
    );
}

#[tokio::test]
async fn a_rollback_is_one_command_and_reaches_callers_at_once() {
    let versions = versions().await;
    let config = orders(&versions, &CANARY.replace("v2 = 5 ", "v2 = 100 "));
    let gateway = gateway(config).workers(1).start().await;
    let mut caller = gateway.connect().await;
    assert_eq!(caller.send("/").await.text(), "v2");
    let before = gateway.config_text();
    let said = done(&gateway, &["rollback", "orders", "-m", "errors"]);
    assert!(said.contains("v2 100 % → 0 %"), "{said}");
    // Over a connection that was there before.
    assert_eq!(caller.send("/").await.text(), "v1");
    // And the whole file, as it was in generation 1.
    let said = done(&gateway, &["rollback", "--to", "1"]);
    assert!(said.contains("the files of generation 1 are back"), "{said}");
    assert_eq!(gateway.config_text(), before);
    assert_eq!(caller.send("/").await.text(), "v2");
    assert!(run(&gateway, &["rollback", "--to", "99"]).unwrap_err().1.contains("generation 99 is not kept"));
    // Also over a file that is broken by now.
    fs::write(gateway.dir().join("gatepost.toml"), before.replace("v2 = 100", "v2 = 1000")).unwrap();
    gateway.says(&["is refused"]).await;
    let (code, said) = run(&gateway, &["rollback", "orders"]).unwrap_err();
    assert_eq!(code, Some(2));
    assert!(said.contains("rollback --to N"), "{said}");
    done(&gateway, &["rollback", "--to", "2"]);
    assert_eq!(caller.send("/").await.text(), "v1");
}

#[tokio::test]
async fn a_ramp_goes_through_its_steps_and_stays_at_the_last() {
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\" }\nramp = { version = \"v2\", steps = [25, 50, 100], hold = \"300ms\" }";
    let mut gateway = gateway(orders(&versions, ramp)).workers(1).start().await;
    gateway.says(&["ramp of v2 0 % → 25 % (step 1 of 3)"]).await;
    gateway.says(&["ramp of v2 25 % → 50 % (step 2 of 3)"]).await;
    gateway.says(&["ramp of v2 50 % → 100 % (step 3 of 3)"]).await;
    gateway.says(&["ramp of v2 is over at 100 %"]).await;
    assert_eq!(share(&gateway).await, 100.0);
    assert_eq!(gateway.get("/").await.text(), "v2");
    let line = gateway.log_line().await;
    assert_eq!((&line["version"], &line["weights_from"]), (&"v2".into(), &"ramp".into()));
    let status = gateway.ask_admin("/api/v1/status").await.text();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["releases"][0]["state"], "over", "{status}");
    assert_eq!(status["functions"][1]["weights_from"], "ramp", "{status}");
    // A kill later it is where it was.
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let gateway = gateway.again().await;
    assert_eq!(gateway.get("/").await.text(), "v2");
    let steps = history(&gateway).into_iter().filter(|line| line["by"] == "ramp").count();
    assert_eq!(steps, 4);
    // Out of the file, out of force.
    gateway.swap("ramp = {", "# ramp = {").await;
    assert_eq!(gateway.get("/").await.text(), "v1");
    gateway.says(&["the ramp of v2 is gone"]).await;
}

#[tokio::test]
async fn a_ramp_is_paused_rolled_back_and_resumed_by_command() {
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\", v2 = 0 }\nramp = { version = \"v2\", steps = [25, 100], hold = \"1h\" }";
    let mut gateway = gateway(orders(&versions, ramp)).start().await;
    comes_to(&gateway, 25.0).await;
    let said = done(&gateway, &["pause", "orders", "-m", "lunch"]);
    assert!(said.contains("ramp of v2 paused: lunch"), "{said}");
    assert_eq!(share(&gateway).await, 25.0);
    let before = gateway.config_text();
    let said = done(&gateway, &["rollback", "orders", "-m", "errors"]);
    assert!(said.contains("ramp of v2 paused and set back: errors"), "{said}");
    assert_eq!(share(&gateway).await, 0.0);
    assert_eq!(gateway.config_text(), before, "the file has nothing to take back");
    // It stays so over a kill.
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let mut gateway = gateway.again().await;
    assert_eq!(share(&gateway).await, 0.0);
    let said = done(&gateway, &["resume", "orders"]);
    assert!(said.contains("ramp of v2 goes on from 0 %"), "{said}");
    comes_to(&gateway, 25.0).await;
    assert!(done(&gateway, &["resume", "orders"]).contains("nothing changed"));
    let (code, said) = run(&gateway, &["resume", "order"]).unwrap_err();
    assert_eq!(code, Some(1));
    assert!(said.contains("no function is called `order`"), "{said}");
    // Where nobody runs it is done when one starts.
    gateway.stop().await;
    let said = done(&gateway, &["rollback", "orders", "-m", "not this week"]);
    assert!(said.contains("no gatepost is running"), "{said}");
    let gateway = gateway.again().await;
    comes_to(&gateway, 0.0).await;
    gateway.says(&["ramp of v2 paused and set back: not this week"]).await;
}

#[tokio::test]
async fn status_tells_what_is_written_where_the_admin_port_does_not_answer() {
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\" }\nramp = { version = \"v2\", steps = [25, 100], hold = \"1h\" }";
    // The file says port 0, where nobody ever listens.
    let mut gateway = gateway(orders(&versions, ramp)).start().await;
    comes_to(&gateway, 25.0).await;
    let said = done(&gateway, &["status"]);
    assert!(said.contains("generation  1") && said.contains("at 25 % (step 1 of 2)"), "{said}");
    let json = command(gateway.dir(), &["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status["releases"][0]["version"], "v2", "{status}");
    gateway.stop().await;
    assert_eq!(run(&gateway, &["status"]).unwrap_err().0, Some(1));
}

#[tokio::test]
async fn a_hand_that_lowers_the_weight_stops_the_ramp() {
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\", v2 = 10 }\nramp = { version = \"v2\", steps = [10, 50], hold = \"100ms\" }";
    let gateway = gateway(orders(&versions, ramp)).start().await;
    comes_to(&gateway, 50.0).await;
    gateway.swap("v2 = 10", "v2 = 0").await;
    assert_eq!(share(&gateway).await, 0.0);
    gateway.says(&["ramp of v2 paused and set back: its weight was lowered to 0 % in the file"]).await;
}

#[tokio::test]
async fn a_state_that_is_lost_sends_canaries_back_until_resume() {
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\", v2 = 50 }\nramp = { version = \"v2\", steps = [100], hold = \"1h\" }";
    let build = gateway(orders(&versions, ramp)).file("state/releases.json", "{\"format\":1,\"func");
    let mut gateway = build.workers(1).start().await;
    gateway.says(&["ERROR", "the state of releases is lost"]).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.text(), "v1");
    }
    assert_eq!(gateway.log(4).await[0]["weights_from"], "latch");
    let explained = done(&gateway, &["explain", "GET", "http://a/"]);
    assert!(explained.contains("latched"), "{explained}");
    // The latch is written: another start knows it.
    gateway.stop().await;
    let gateway = gateway.again().await;
    assert_eq!(share(&gateway).await, 0.0);
    let said = done(&gateway, &["resume", "orders", "-m", "looked at it"]);
    assert!(said.contains("v2 is no longer latched"), "{said}");
    comes_to(&gateway, 100.0).await;
    let last = history(&gateway).into_iter().find(|line| line["reason"] == "looked at it").unwrap();
    assert_eq!(last["by"], "mei");
}

#[tokio::test]
async fn a_latch_is_lifted_by_a_rise_of_its_own_number_alone() {
    let versions = versions().await;
    let state = r#"{"format":1,"functions":{"orders":{"latches":{"v2":{"at":"2026-11-22T10:00:00Z","by":"guard",
        "reason":"20 errors to 1","number":{"share":500}}}}}}"#;
    let gateway = gateway(orders(&versions, CANARY)).file("state/releases.json", state).start().await;
    assert_eq!(share(&gateway).await, 0.0);
    gateway.swap("v2 = 5 ", "v2 = 3 ").await;
    gateway.hup().await;
    assert_eq!(share(&gateway).await, 0.0);
    let receipt = gateway.swap("v2 = 3 ", "v2 = 4 ").await;
    assert!(receipt.line.contains("v2 is no longer latched: its weight rose to 4 %"), "{}", receipt.line);
    assert_eq!(share(&gateway).await, 4.0);
}

#[tokio::test]
async fn a_shift_touches_a_file_of_500_lines_in_one_number() {
    let versions = versions().await;
    let comments: String = (0..250).map(|n| format!("# line {n}: =  {{ v2 = {n} }}\n\n")).collect();
    let gateway = gateway(format!("{comments}{}{comments}", orders(&versions, CANARY))).start().await;
    let before = gateway.config_text();
    assert!(before.lines().count() > 500);
    done(&gateway, &["shift", "orders", "v2=6"]);
    let after = gateway.config_text();
    let differ: Vec<_> = before.bytes().zip(after.bytes()).filter(|(was, is)| was != is).collect();
    assert_eq!(differ, [(b'5', b'6')]);
    assert_eq!(before.len(), after.len());
}

/// Whole lines of the history.
fn lines(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("state/history.jsonl")).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
}

fn kill(mut child: Child) {
    // It may be done already.
    let _ = child.kill();
    let _ = child.wait();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_the_file_and_the_state_are_whole() {
    let rounds = if full() { 200 } else { 20 };
    let versions = versions().await;
    let ramp = "weights = { v1 = \"rest\", v2 = 1 }\nramp = { version = \"v2\", steps = [2, 3, 4, 5, 6, 7, 8, 9], hold = \"1ms\" }";
    let mut gateway = gateway(orders(&versions, ramp)).workers(1).start().await;
    let path = gateway.dir().join("gatepost.toml");
    let weight = || {
        let sources = config::texts(&path).unwrap_or_else(|report| panic!("{report}"));
        let config = config::parse(&sources).unwrap_or_else(|report| panic!("{report}"));
        config.functions[0].weights[1].0 / 100
    };
    let mut dice = 7u64;
    for round in 0..rounds {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (before, told) = (weight(), lines(gateway.dir()));
        let wanted = if before == 1 { 20 } else { 1 };
        let words = format!("v2={wanted}");
        let shift = command(gateway.dir(), &["shift", "orders", &words, "--timeout", "5"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_micros((dice >> 33) % 40_000)).await;
        if round % 2 == 0 {
            gateway.signal(Signal::KILL);
            gateway.exit().await;
            kill(shift);
        } else {
            kill(shift);
        }
        let now = weight();
        assert!([before, wanted].contains(&now), "{before} → {wanted}: {now}");
        State::read(&gateway.state_dir()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let after = lines(gateway.dir());
        assert_eq!(after[..told.len()], told, "round {round}: the history lost something");
        if round % 2 == 0 {
            gateway = gateway.again().await;
            assert_eq!(lines(gateway.dir())[..after.len()], after, "round {round}: the start lost history");
        }
        // It lets the ramp go on in the next round.
        if round % 4 == 3 {
            let _ = run(&gateway, &["resume", "orders"]);
        }
    }
    assert_eq!(gateway.get("/").await.status, 200);
}
