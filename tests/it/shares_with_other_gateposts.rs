//! Several gateposts before one Redis: their limits count together, each tells of the others, and without it each takes its part.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Connection, Gateway, Origin, eventually, full, gateway, get, origin, redis::Redis, when};

/// The same words for all of them, so that they have the same config.
fn config(redis: &Redis, function: &Origin, limit: &str) -> String {
    format!(
        r#"
        [server]
        workers = 1
        state_dir = "state"
        drain = "1s"
        [admin]
        address = "127.0.0.1:0"
        [log]
        access = "access.log"
        [listener.in]
        address = "127.0.0.1:0"
        [cluster]
        redis = "{}"
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        limits = [{{ use = "all" }}]
        [route.own]
        path = "/own"
        respond = {{ status = 200, body = "ok" }}
        limits = [{{ use = "all" }}]
        [limit.all]
        scope = "cluster"
        {limit}
        "#,
        redis.url(),
        function.url()
    )
}

/// So many members that know of each other.
async fn members(count: usize, config: &str) -> Vec<Gateway> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(gateway(config).start().await);
    }
    for one in &all {
        one.counts("gatepost_cluster_members", &[], count as f64).await;
    }
    all
}

async fn cluster(gateway: &Gateway) -> Value {
    let status: Value = serde_json::from_str(&gateway.ask_admin("/api/v1/status").await.text()).unwrap();
    status["cluster"].clone()
}

/// Asks for so many a second until then: how many it asked for, and how many passed.
async fn callers(
    gateway: &Gateway,
    per_second: u32,
    until: Instant,
    ask: fn(u64) -> crate::harness::Request,
) -> (u64, u64) {
    const CALLERS: u32 = 16;
    let mut all = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let mut connection = gateway.connect().await;
        all.spawn(async move {
            let (mut sent, mut passed) = (0, 0);
            let mut tick = tokio::time::interval(Duration::from_secs(1) * CALLERS / per_second);
            while Instant::now() < until {
                tick.tick().await;
                let nth = sent * u64::from(CALLERS) + u64::from(caller);
                sent += 1;
                passed += u64::from(connection.send(ask(nth)).await.status == 200);
            }
            (sent, passed)
        });
    }
    all.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

async fn passes(connection: &mut Connection, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        passed += usize::from(connection.send("/").await.status == 200);
    }
    passed
}

/// A thousand a second for ten seconds where the long versions are asked for, on a machine that has nothing else to do; else a twentieth of it for three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_are_offered_five_times_the_limit_unevenly_let_through_just_the_limit() {
    let (rate, seconds) = if full() { (1_000, 10) } else { (50, 3) };
    let redis = Redis::start().await;
    let function = origin().start().await;
    let limit = format!("rate = \"{rate}/s\"\nburst = {rate}");
    let all = members(3, &config(&redis, &function, &limit)).await;
    let asked = redis.scripts().await;
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let (a, b, c) = tokio::join!(
        callers(&all[0], rate * 16 / 5, until, |_| get("/own")),
        callers(&all[1], rate * 6 / 5, until, |_| get("/own")),
        callers(&all[2], rate * 3 / 5, until, |_| get("/own")),
    );
    let spent = start.elapsed().as_secs_f64();
    let asked = redis.scripts().await - asked;
    let (sent, passed) = (a.0 + b.0 + c.0, a.1 + b.1 + c.1);
    assert!(!full() || sent > 30_000, "only {sent} were offered: is the machine busy?");
    println!("{passed} of {sent} ({a:?} {b:?} {c:?}) in {spent} s, {asked} questions");
    let rate = f64::from(rate);
    // Two hundredths where it is long enough for them to mean something; else what the proof allows for, on a machine on which answers may take their time.
    let lease = rate / 3.0 + rate / 3.0 * 0.5;
    let most = if full() { (rate + rate * spent) * 1.02 } else { rate + rate * spent + 3.0 * lease };
    assert!((passed as f64) <= most, "{passed} of {sent} in {spent} s, at most {most}");
    let least = (if full() { 0.98 } else { 0.6 }) * (rate + rate * (spent - 0.3)).min(sent as f64);
    assert!((passed as f64) >= least, "{passed} of {sent} in {spent} s, at least {least}");
    // Three members; their beats are questions as well.
    assert!((asked as f64) <= 3.0 * 50.0 * spent + 3.0, "{asked} questions in {spent} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_keys_ask_no_more_often_than_one() {
    let redis = Redis::start().await;
    let function = origin().start().await;
    let limit = "rate = \"1/h\"\nburst = 5\nper = \"query:key\"";
    let all = members(1, &config(&redis, &function, limit)).await;
    let asked = redis.scripts().await;
    let start = Instant::now();
    let until = start + Duration::from_secs(if full() { 10 } else { 2 });
    let ask = |nth: u64| get(&format!("/own?key={}", nth % 10_000));
    let (sent, passed) = callers(&all[0], 4_000, until, ask).await;
    let spent = start.elapsed().as_secs_f64();
    let asked = redis.scripts().await - asked;
    println!("{passed} of {sent} in {spent} s, {asked} questions");
    assert_eq!(sent.min(50_000), passed, "five of each of ten thousand keys");
    assert!((asked as f64) <= 50.0 * spent + 1.0, "{asked} questions in {spent} s");
    let keys = sent.min(10_000) as usize;
    eventually("all keys are in the store", async || {
        let found = redis.ask(&["DBSIZE"]).await;
        // And the members, their salt and who leads.
        when(found.starts_with(&format!(":{}\r", keys + 3)))
    })
    .await;
    assert_eq!(all[0].metrics().await.sum("gatepost_cluster_unshared_total", &[]), 0.0);
}

#[tokio::test]
async fn who_has_used_up_a_limit_at_one_gets_no_more_than_a_lease_at_another() {
    let redis = Redis::start().await;
    let function = origin().start().await;
    let all = members(3, &config(&redis, &function, "rate = \"1/h\"\nburst = 9\nper = \"client_ip\"")).await;
    let mut first = all[0].connect().await;
    let mut passed = 0;
    eventually("nine have passed at the first", async || {
        passed += passes(&mut first, 1).await;
        when(passed == 9)
    })
    .await;
    let refused = first.send("/").await;
    refused.is_problem(429, "rate_limited");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"all\";q=9;w=32400"));
    // At most five minutes are told, once the last one is settled.
    eventually("it is told how long to wait", async || {
        when(first.send("/").await.header("retry-after") == Some("300"))
    })
    .await;
    // A third of nine, which it gives before it has asked, and never again.
    for other in &all[1..] {
        let mut connection = other.connect().await;
        assert!(passes(&mut connection, 20).await <= 3);
        eventually("the other has asked", async || {
            when(connection.send("/").await.header("ratelimit").is_some_and(|state| state.contains(";t=")))
        })
        .await;
    }
    let mut late = all[1].connect().await;
    assert_eq!(passes(&mut late, 20).await, 0);
    assert!(function.requests() <= 9 + 3 + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_each_takes_its_part_and_says_so_and_with_it_all_is_well_again() {
    let mut redis = Redis::start().await;
    let function = origin().start().await;
    let limit = "rate = \"90/s\"\nburst = 90";
    let mut all = members(3, &config(&redis, &function, limit)).await;
    assert_eq!(all[0].ask_admin("/readyz").await.text(), "ready\n");
    redis.kill();
    for one in &all {
        one.says(&["degraded", "does not answer", "each of 3 members takes 1/3 of its limits"]).await;
        one.counts("gatepost_cluster_up", &[], 0.0).await;
    }
    let ready = eventually("/readyz says so", async || {
        let ready = all[0].ask_admin("/readyz").await;
        ready.text().contains("\ndegraded: cluster: the cluster's store redis://").then_some(ready)
    })
    .await;
    assert_eq!(ready.status, 200);
    let told = cluster(&all[0]).await;
    assert_eq!((&told["answers"], &told["counted"]), (&false.into(), &3.into()), "{told}");
    // Who starts now remembers how many they were.
    all[2].stop().await;
    let third = all.pop().unwrap().again().await;
    third.counts("gatepost_cluster_members", &[], 3.0).await;
    let start = Instant::now();
    let (sent, passed) = callers(&all[0], 200, start + Duration::from_secs(2), |_| get("/")).await;
    let spent = start.elapsed().as_secs_f64();
    assert!((passed as f64) <= 30.0 + 30.0 * spent + 1.0, "{passed} of {sent} in {spent} s");
    assert!(passed > 30, "{passed} of {sent} in {spent} s: more than the burst");
    redis.again().await;
    for one in all.iter().chain([&third]) {
        one.says(&["the store answers"]).await;
        one.counts("gatepost_cluster_up", &[], 1.0).await;
        one.counts("gatepost_cluster_members", &[], 3.0).await;
    }
    eventually("/readyz says nothing more", async || when(all[0].ask_admin("/readyz").await.text() == "ready\n")).await;
    assert_eq!(cluster(&all[0]).await["answers"], true);
}

#[tokio::test]
async fn a_member_with_another_config_is_named_and_one_that_stops_is_no_member() {
    let redis = Redis::start().await;
    let function = origin().start().await;
    let text = config(&redis, &function, "rate = \"90/s\"");
    let named = |name: &str| text.replace("[cluster]\n", &format!("[cluster]\nmember = \"{name}\"\n"));
    let mut one = members(2, &text).await;
    assert_eq!(cluster(&one[0]).await["says"], Value::Null);
    let mut other = gateway(named("odd-one")).start().await;
    one[0].says(&["this member has another config", "odd-one"]).await;
    let told = eventually("it is told", async || {
        let told = cluster(&one[0]).await;
        (told["says"] == "odd-one with another config than this one").then_some(told)
    })
    .await;
    let row = |told: &Value, name: &str| {
        let rows = told["members"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(row(&told, "odd-one")["config"], "another", "{told}");
    one[0].counts("gatepost_cluster_members_differing", &[], 1.0).await;
    other.counts("gatepost_cluster_members_differing", &[], 2.0).await;
    other.stop().await;
    one[0].counts("gatepost_cluster_members", &[], 2.0).await;
    one[0].counts("gatepost_cluster_members_differing", &[], 0.0).await;
    // Killed, it is missed after a while.
    let gone = one.pop().unwrap();
    drop(gone);
    one[0].counts("gatepost_cluster_members", &[], 1.0).await;
    // Out of the cluster by a reload, and all counts here alone.
    let table = format!("[cluster]\nredis = \"{}\"\n", redis.url());
    let receipt = one[0].edit(|text| text.replace("scope = \"cluster\"", "").replace(&table, "")).await;
    assert_eq!(receipt.result, "applied", "{}", one[0].stderr());
    assert_eq!(cluster(&one[0]).await, Value::Null);
}

#[tokio::test]
async fn a_start_does_not_wait_for_a_store_that_is_not_there() {
    let mut redis = Redis::start().await;
    redis.kill();
    let function = origin().start().await;
    let gateway = gateway(config(&redis, &function, "rate = \"1/h\"\nburst = 4")).start().await;
    gateway.says(&["degraded", "its limits count here alone"]).await;
    let mut connection = gateway.connect().await;
    assert_eq!(passes(&mut connection, 9).await, 4);
    redis.again().await;
    gateway.counts("gatepost_cluster_up", &[], 1.0).await;
}

/// Two versions of `orders`, with these lines.
fn orders(redis: &Redis, versions: &[Origin; 2], lines: &str) -> String {
    let [v1, v2] = versions.each_ref().map(Origin::url);
    let text = config(redis, &versions[0], "rate = \"1000/s\"");
    format!(
        "{text}\n[route.o]\npath = \"/o\"\nfunction = \"orders\"\n[function.orders]\nversions = {{ v1 = \"{v1}\", v2 = \"{v2}\" }}\n{lines}\n"
    )
}

async fn share(gateway: &Gateway) -> f64 {
    gateway.metrics().await.sum("gatepost_release_share", &[("function", "orders"), ("version", "v2")])
}

async fn comes_to(all: &[Gateway], percent: f64) {
    for one in all {
        eventually(&format!("v2 comes to {percent} %"), async || {
            when((share(one).await - percent).abs() < f64::EPSILON)
        })
        .await;
    }
}

fn run(gateway: &Gateway, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(args).arg("--config").arg(&gateway.config).env("USER", "mei").env_remove("SUDO_USER");
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success(), "{args:?}: {out}{err}\n{}", gateway.stderr());
    out + &err
}

const WEIGHTS: &str = "[function.orders.weights]\nv1 = \"rest\"\nv2 = 50";

#[tokio::test]
async fn a_rollback_on_one_sends_back_on_all_and_a_resume_on_another_lifts_it() {
    let mut redis = Redis::start().await;
    let versions = [origin().start().await, origin().start().await];
    let mut all = members(3, &orders(&redis, &versions, WEIGHTS)).await;
    comes_to(&all, 50.0).await;
    run(&all[0], &["rollback", "orders", "--reason", "errors"]);
    comes_to(&all, 0.0).await;
    // The others' files are as they were; they say on whose word.
    assert!(all[1].config_text().contains("v2 = 50"));
    all[1].says(&["v2 is sent back and latched, on another member's word", "mei", "errors"]).await;
    let history = std::fs::read_to_string(all[1].state_dir().join("history.jsonl")).unwrap();
    assert!(history.contains("on another member's word"), "{history}");
    run(&all[2], &["resume", "orders"]);
    // In the file of the first it is 0 now.
    comes_to(&all[..1], 0.0).await;
    comes_to(&all[1..], 50.0).await;
    // Without the store a latch stays, over a restart too; and it is told when there is a store again.
    redis.kill();
    all[1].says(&["does not answer"]).await;
    run(&all[1], &["rollback", "orders"]);
    all[1].stop().await;
    let again = all.remove(1).again().await;
    assert_eq!(share(&again).await, 0.0);
    assert_eq!(share(&all[1]).await, 50.0);
    redis.again().await;
    comes_to(&all[1..], 0.0).await;
    // A number that rises in one file lifts it for all.
    run(&again, &["shift", "orders", "v2=7"]);
    let again = [again];
    comes_to(&again, 7.0).await;
    comes_to(&all[1..], 50.0).await;
}

#[tokio::test]
async fn one_moves_a_ramp_and_the_others_follow_it() {
    let redis = Redis::start().await;
    let versions = [origin().start().await, origin().start().await];
    let lines = "baseline = \"v1\"\nweights = { v1 = \"rest\" }\nramp = { version = \"v2\", steps = [1, 20, 60], hold = \"2s\" }";
    let mut all = members(2, &orders(&redis, &versions, lines)).await;
    comes_to(&all, 20.0).await;
    let moved = "1 % → 20 % (step 2 of 3)";
    all[0].says(&[moved]).await;
    all[1].says(&["ramp of v2 is at 20 %, as the cluster has it"]).await;
    assert!(!all[1].stderr().contains(moved), "{}", all[1].stderr());
    // Held by a word on one, and let go by a word on the other.
    run(&all[1], &["pause", "orders", "--reason", "lunch"]);
    all[0].says(&["ramp of v2 is held, on another member's word", "lunch"]).await;
    run(&all[0], &["resume", "orders"]);
    all[1].says(&["ramp of v2 goes on, on another member's word"]).await;
    // Who moved it is gone: another does.
    drop(all.remove(0));
    comes_to(&all, 60.0).await;
    all[0].says(&["20 % → 60 % (step 3 of 3)"]).await;
}

/// What the store says to a question that it answers with a number or a short text.
async fn store_says(redis: &Redis, question: &str) -> String {
    let said = redis.ask(&[question]).await;
    said.split("+OK").next().unwrap_or_default().trim().replace("\r\n", " ")
}

/// Looks at every beat whether there are two members, of one config; until this one has said so often that it is there.
async fn are_two_for(beats: f64, redis: &Redis, all: &[Gateway]) {
    let asked = async || all[1].metrics().await.sum("gatepost_cluster_commands_total", &[]);
    let begin = asked().await;
    eventually("the members have met so often", async || {
        assert_eq!(store_says(redis, "HLEN gatepost:members").await, ":2");
        for one in all {
            let told = cluster(one).await;
            assert_eq!((&told["counted"], &told["says"]), (&2.into(), &Value::Null), "{told}");
        }
        when(asked().await >= begin + beats)
    })
    .await;
}

#[tokio::test]
async fn a_member_that_is_upgraded_is_one_member_while_its_old_process_drains() {
    let redis = Redis::start().await;
    let versions = [origin().start().await, origin().start().await];
    let lines = "baseline = \"v1\"\nweights = { v1 = \"rest\" }\nramp = { version = \"v2\", steps = [1, 20, 60], hold = \"4s\" }";
    let text = orders(&redis, &versions, lines).replace("drain = \"1s\"", "drain = \"60s\"");
    let all = members(2, &text).await;
    let leader = store_says(&redis, "GET gatepost:leader").await;
    comes_to(&all, 20.0).await;
    // One that can't serve was never a member, and the old one still is.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let right = all[0].config_text();
    all[0].edit(|text| format!("{text}\n[listener.more]\naddress = \"{}\"\n", taken.local_addr().unwrap())).await;
    let (code, said) = all[0].ask_for_upgrade(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    all[0].replace(&right);
    are_two_for(3.0, &redis, &all).await;
    // A kept connection holds the old process, for longer than a member is counted that says nothing.
    let mut kept = all[0].connect().await;
    assert_eq!(kept.send("/").await.status, 200);
    let old = all[0].upgrade().await;
    are_two_for(12.0, &redis, &all).await;
    // Who moved the ramp moves it still: not the old process, which decides nothing any more, nor the other member.
    comes_to(&all, 60.0).await;
    let moved = "20 % → 60 % (step 3 of 3)";
    all[0].says(&[moved]).await;
    assert!(!all[1].stderr().contains(moved), "{}", all[1].stderr());
    assert_eq!(store_says(&redis, "GET gatepost:leader").await, leader);
    assert!(old.lives());
    // Its end is no member's.
    drop(kept);
    eventually("the old process ends", async || when(!old.lives())).await;
    are_two_for(4.0, &redis, &all).await;
    assert!(!all.iter().any(|one| one.stderr().contains("members=3")), "{}", all[1].stderr());
}

/// Both processes are the one member, and what one of them let pass the other knows.
#[tokio::test]
async fn an_upgrade_gives_nobody_more_of_a_shared_limit() {
    let redis = Redis::start().await;
    let function = origin().start().await;
    let text = config(&redis, &function, "rate = \"1/h\"\nburst = 8").replace("drain = \"1s\"", "drain = \"60s\"");
    let all = members(2, &text).await;
    let (mut kept, mut passed) = (all[0].connect().await, 0);
    eventually("eight have passed", async || {
        passed += passes(&mut kept, 1).await;
        when(passed == 8)
    })
    .await;
    let old = all[0].upgrade().await;
    // The new process, and the one more request that the old one has for a kept connection.
    let mut fresh = all[0].connect().await;
    assert_eq!(passes(&mut fresh, 20).await, 0);
    assert!(old.lives());
    kept.send("/").await.is_problem(429, "rate_limited");
    assert_eq!(function.requests(), 8);
}
