//! Before a ramp takes a step somebody may be asked, who can hold it.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply, eventually, gateway, origin, tls::authority, when};

/// A ramp of v2 over 10 and 40 %, which asks this hook.
async fn asking(hook: &str) -> (Gateway, [Origin; 2]) {
    let versions = [origin().reply("v1").start().await, origin().reply("v2").start().await];
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\" }}\n\
         ramp = {{ version = \"v2\", steps = [10, 40], hold = \"50ms\", before_step = {{ {hook} }} }}\n\
         [route.f]\nfunction = \"f\"\n[admin]\naddress = \"unix:@DIR@/admin.sock\"\n",
        versions[0].url(),
        versions[1].url()
    ))
    .start()
    .await;
    (gateway, versions)
}

/// Runs a command of gatepost.
fn run(gateway: &Gateway, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command.args(args).arg("--config").arg(&gateway.config).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&run(gateway, &["status", "--json"])).unwrap()
}

/// The ramp's state, and what is said of it.
fn stands(gateway: &Gateway) -> (String, String) {
    let status = status(gateway);
    let told = &status["releases"][0];
    (told["state"].as_str().unwrap_or("-").to_owned(), told["detail"].as_str().unwrap_or("-").to_owned())
}

fn share(gateway: &Gateway) -> f64 {
    status(gateway)["functions"][1]["weight"].as_f64().unwrap()
}

async fn comes_to(gateway: &Gateway, percent: f64) {
    eventually(&format!("v2 comes to {percent} %"), async || when(share(gateway) == percent)).await;
}

fn history(gateway: &Gateway) -> String {
    run(gateway, &["history"])
}

#[tokio::test]
async fn each_step_is_asked_for_and_goes_where_nobody_minds() {
    let hook = origin().reply(Reply::text("").status(204)).start().await;
    let (gateway, _versions) = asking(&format!("url = \"{}/releases\"", hook.url())).await;
    comes_to(&gateway, 40.0).await;
    let seen = hook.seen();
    assert_eq!(seen.len(), 2, "once a step");
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/releases"));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    let said: Value = serde_json::from_slice(&seen[1].body).unwrap();
    let expected = json!({
        "event": "before_step", "function": "f", "version": "v2", "from": 10.0, "to": 40.0, "step": 2, "steps": 2,
        "generation": 1, "verdict": null, "guard": null,
    });
    assert_eq!(said, expected);
    assert!(history(&gateway).contains("ramp of v2 10 % → 40 % (step 2 of 2)"));
}

#[tokio::test]
async fn a_step_that_is_held_waits_and_everybody_can_see_why() {
    let hook = origin().reply(Reply::text(r#"{"hold": true, "reason": "the load test runs"}"#)).start().await;
    let (gateway, _versions) = asking(&format!("url = \"{}\", again = \"300ms\"", hook.url())).await;
    gateway.says(&["ramp of v2 is held at 0 % before 10 % by before_step: the load test runs"]).await;
    eventually("it is asked again", async || when(hook.requests() >= 3)).await;
    let (state, detail) = stands(&gateway);
    assert_eq!(state, "held");
    assert!(detail.contains("before 10 % by `before_step`: the load test runs; asked again"), "{detail}");
    let told = history(&gateway);
    assert_eq!(told.matches("held at 0 % before 10 %").count(), 1, "said once, not each time: {told}");
    assert!(told.contains("by before_step"), "{told}");
    let explained = run(&gateway, &["explain", "GET", "http://a/"]);
    assert!(explained.contains("v2 held: before 10 % by `before_step`: the load test runs"), "{explained}");
    let metrics = run(&gateway, &["status"]);
    assert!(metrics.contains("held"), "{metrics}");
    // A refusal by its status alone is one, with another reason.
    hook.now_answers(|_| Reply::text("").status(409));
    gateway.says(&["before_step: it answered 409"]).await;
    hook.now_answers(|_| Reply::text(""));
    comes_to(&gateway, 40.0).await;
    eventually("nothing is held", async || when(stands(&gateway).0 == "over")).await;
}

#[tokio::test]
async fn whoever_cannot_be_asked_lets_nothing_go() {
    let hook = origin().reply(Reply::text("").status(503)).start().await;
    let (gateway, _versions) = asking(&format!("url = \"{}\", again = \"200ms\"", hook.url())).await;
    let said = gateway.says(&["ramp of v2 is held", "it answered 503"]).await;
    assert!(said.contains("ERROR"), "somebody should look: {said}");
    hook.now_answers(|_| Reply::vanish());
    gateway.says(&["ramp of v2 is held", "it can't be asked"]).await;
    assert_eq!(share(&gateway), 0.0);
    hook.now_answers(|_| Reply::text(""));
    comes_to(&gateway, 40.0).await;
}

/// The release tool of a house has a certificate of the house.
#[tokio::test]
async fn a_hook_of_a_private_authority_is_believed_by_its_ca_alone() {
    let (house, stranger) = (authority(), authority());
    let hook = origin().reply(Reply::text("")).tls(&house.leaf(&["127.0.0.1"])).start().await;
    let (gateway, _versions) = asking(&format!("url = \"{}\", again = \"200ms\"", hook.url())).await;
    gateway.says(&["ramp of v2 is held", "it can't be asked"]).await;
    gateway.swap("again =", &format!("ca = \"{}\", again =", stranger.ca().display())).await;
    gateway.says(&["ramp.before_step.ca the system's → "]).await;
    gateway.says(&["it can't be asked", "UnknownIssuer"]).await;
    assert_eq!((share(&gateway), hook.requests()), (0.0, 0));
    gateway.swap(&stranger.ca().display().to_string(), &house.ca().display().to_string()).await;
    comes_to(&gateway, 40.0).await;
    assert_eq!(hook.requests(), 2);
}

#[tokio::test]
async fn a_held_ramp_can_be_paused_and_its_hook_taken_out() {
    let hook = origin().reply(Reply::text("").status(403)).start().await;
    let (mut gateway, _versions) = asking(&format!("url = \"{}\", again = \"200ms\"", hook.url())).await;
    eventually("it is held", async || when(stands(&gateway).0 == "held")).await;
    run(&gateway, &["pause", "f"]);
    assert_eq!(stands(&gateway).0, "paused");
    gateway.stop().await;
    gateway = gateway.again().await;
    assert_eq!(stands(&gateway).0, "paused");
    let asked = hook.requests();
    run(&gateway, &["resume", "f"]);
    eventually("it is asked anew", async || when(hook.requests() > asked)).await;
    eventually("it is held", async || when(stands(&gateway).0 == "held")).await;
    let text = gateway.config_text();
    let at = text.find(", before_step").unwrap();
    let end = at + text[at..].find('}').unwrap() + 1;
    gateway.edit(|text| text.replace(&text[at..end], "")).await;
    comes_to(&gateway, 40.0).await;
}
