//! An edit acts within a second and whole, or not at all; nobody in flight notices.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use crate::harness::{
    Connection, Gateway, Origin, Reply, eventually, full, gate, gateway, load::load, origin, ports::free, when,
};

/// A gatepost whose function answers with the version that the config names.
async fn versioned(more: &str) -> (Gateway, [Origin; 2]) {
    let one = origin().reply("one").start().await;
    let two = origin().reply("two").start().await;
    let gateway = gateway(format!(
        r#"
        [function.f]
        versions = {{ one = "{}", two = "{}" }}
        weights = {{ one = 100 }}
        [route.f]
        function = "f"
        {more}
        "#,
        one.url(),
        two.url()
    ))
    .start()
    .await;
    (gateway, [one, two])
}

const TO_ONE: &str = "{ one = 100 }";
const TO_TWO: &str = "{ two = 100 }";

#[tokio::test]
async fn a_saved_edit_acts_within_a_second_and_leaves_a_receipt() {
    let (gateway, _functions) = versioned("").await;
    assert_eq!(gateway.get("/").await.text(), "one");
    let saved = Instant::now();
    gateway.replace(&gateway.config_text().replace(TO_ONE, TO_TWO));
    eventually("the new version answers", async || when(gateway.get("/").await.text() == "two")).await;
    assert!(saved.elapsed() < Duration::from_secs(1), "{:?}", saved.elapsed());
    let receipt = gateway.receipt(0).await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("applied", 2));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_config_generation", &[]), 2.0);
    assert_eq!(metrics.sum("gatepost_config_reloads_total", &[("result", "applied")]), 1.0);
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_says_where() {
    let (gateway, _functions) = versioned("").await;
    let receipt = gateway.edit(|text| text.replace("weights", "wieghts")).await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("rejected", 1));
    gateway.says(&["gatepost.toml:"]).await;
    gateway.says(&["did you mean `weights`?"]).await;
    assert_eq!(gateway.get("/").await.text(), "one");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_config_generation", &[]), 1.0);
    assert_eq!(metrics.sum("gatepost_config_reloads_total", &[("result", "rejected")]), 1.0);
    // Mended, it applies.
    gateway.swap("wieghts = { one = 100 }", "weights = { two = 100 }").await;
    assert_eq!(gateway.get("/").await.text(), "two");
}

#[tokio::test]
async fn an_empty_file_and_a_missing_one_are_refused() {
    let (gateway, _functions) = versioned("").await;
    let text = gateway.config_text();
    gateway.replace("");
    assert_eq!(gateway.receipt(0).await.result, "rejected");
    fs::remove_file(&gateway.config).unwrap();
    let receipts = gateway.receipts().len();
    assert_eq!(gateway.hup().await.result, "rejected");
    assert_eq!(gateway.get("/").await.text(), "one");
    let before = gateway.receipts().len();
    assert!(before > receipts);
    gateway.replace(&text.replace(TO_ONE, TO_TWO));
    eventually("the file is back", async || when(gateway.get("/").await.text() == "two")).await;
}

#[tokio::test]
async fn a_hangup_without_a_change_is_unchanged() {
    let (gateway, _functions) = versioned("").await;
    let receipt = gateway.hup().await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("unchanged", 1));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_config_reloads_total", &[("result", "unchanged")]), 1.0);
}

#[tokio::test]
async fn a_file_written_in_pieces_is_read_once_and_whole() {
    let (gateway, _functions) = versioned("").await;
    // 2 MB: a route a piece, and what changes at the very end. Any prefix of it would be valid.
    let mut text = gateway.config_text();
    let filler = format!("# {}\n", "x".repeat(200));
    for n in 0..50 {
        text += &format!("[route.r{n}]\npath = \"/r{n}\"\nfunction = \"f\"\n");
        text += &filler.repeat(200);
    }
    text += "[route.last]\npath = \"/last\"\nfunction = \"f\"\nversion = \"two\"\n";
    assert!(text.len() > 2_000_000, "{}", text.len());
    let mut file = fs::File::create(&gateway.config).unwrap();
    for piece in text.as_bytes().chunks(text.len() / 50 + 1) {
        file.write_all(piece).unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    drop(file);
    eventually("the whole file is served", async || when(gateway.get("/last").await.text() == "two")).await;
    assert_eq!(gateway.receipt(0).await.result, "applied");
    // One that is asked for finds nothing new, and was the second.
    assert_eq!(gateway.hup().await.result, "unchanged");
    let receipts = gateway.receipts();
    assert_eq!(receipts.len(), 2, "{receipts:?}");
}

#[tokio::test]
async fn a_swapped_symlink_is_a_change() {
    // As Kubernetes does it: file → ..data/file, and ..data → a directory that is swapped.
    let (gateway, _functions) = versioned("").await;
    let dir = gateway.dir().to_owned();
    let text = gateway.config_text();
    for (name, text) in [("old", text.clone()), ("new", text.replace(TO_ONE, TO_TWO))] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("gatepost.toml"), text).unwrap();
    }
    symlink("old", dir.join("..data")).unwrap();
    let before = gateway.receipts().len();
    symlink("..data/gatepost.toml", dir.join("link")).unwrap();
    fs::rename(dir.join("link"), &gateway.config).unwrap();
    // The same content through a link changes nothing, and is no reload.
    symlink("new", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    eventually("the swapped file is served", async || when(gateway.get("/").await.text() == "two")).await;
    let applied = || gateway.receipts()[before..].iter().filter(|r| r.result == "applied").count();
    // The line is written once it serves.
    eventually("the receipt", async || when(applied() > 0)).await;
    assert_eq!(applied(), 1, "{:?}", gateway.receipts());
}

#[tokio::test]
async fn an_included_file_is_watched_and_new_ones_are_found() {
    let function = origin().start().await;
    let text = format!("include = [\"conf.d/*.toml\"]\n[function.f]\nversions = {{ v1 = \"{}\" }}\n", function.url());
    let route = |name: &str| format!("[route.{name}]\npath = \"/{name}\"\nfunction = \"f\"\n");
    let gateway = gateway(text).file("conf.d/a.toml", &route("a")).start().await;
    assert_eq!(gateway.get("/a").await.status, 200);
    fs::write(gateway.dir().join("conf.d/b.toml"), route("b")).unwrap();
    eventually("b is served", async || when(gateway.get("/b").await.status == 200)).await;
    fs::write(gateway.dir().join("conf.d/a.toml"), route("c")).unwrap();
    eventually("c is served", async || when(gateway.get("/c").await.status == 200)).await;
    gateway.get("/a").await.is_problem(404, "no_route");
    fs::remove_file(gateway.dir().join("conf.d/b.toml")).unwrap();
    eventually("b is gone", async || when(gateway.get("/b").await.status == 404)).await;
}

#[tokio::test]
async fn a_request_in_flight_finishes_on_the_config_it_started_with() {
    let (gateway, functions) = versioned("").await;
    let door = gate();
    let behind = door.clone();
    functions[0].now_answers(move |_| Reply::text("one").after(&behind));
    let mut slow = gateway.connect().await;
    slow.write(crate::harness::get("/").bytes()).await;
    eventually("it reached the function", async || when(functions[0].requests() == 1)).await;
    // Route, function and version all go away.
    gateway.edit(|text| text.replace("[route.f]", "[route.g]\npath = \"/g\"").replace(TO_ONE, TO_TWO)).await;
    gateway.get("/").await.is_problem(404, "no_route");
    door.open();
    assert_eq!(slow.answer().await.text(), "one");
    // The same connection's next request is judged by the new config.
    slow.send("/").await.is_problem(404, "no_route");
    let lines = gateway.log(3).await;
    let slow = lines.iter().find(|l| l["status"] == 200).unwrap();
    assert_eq!(slow["generation"], 1);
    assert_eq!(lines.last().unwrap()["generation"], 2);
}

#[tokio::test]
async fn listeners_come_move_and_go() {
    let (gateway, _functions) = versioned("[listener.in]\naddress = \"127.0.0.1:0\"").await;
    let first = gateway.address("in");
    gateway.edit(|text| format!("{text}\n[listener.second]\naddress = \"127.0.0.1:0\"\n")).await;
    let second = gateway.address("second");
    let mut kept = Connection::open(second).await;
    assert_eq!(kept.send("/").await.text(), "one");
    assert_eq!(gateway.address("in"), first, "a reload moved a listener that it didn't name");
    assert_eq!(gateway.get("/").await.text(), "one");
    // Moved.
    gateway
        .edit(|text| {
            text.replace("[listener.second]\naddress = \"127.0.0.1:0\"", "[listener.second]\naddress = \"127.0.0.2:0\"")
        })
        .await;
    let moved = gateway.address("second");
    assert_ne!(moved, second);
    assert_eq!(Connection::open(moved).await.send("/").await.text(), "one");
    eventually("the old address refuses", async || when(Connection::try_open(second).await.is_err())).await;
    // Gone.
    gateway.edit(|text| text.replace("[listener.second]\naddress = \"127.0.0.2:0\"", "")).await;
    eventually("the removed listener refuses", async || when(Connection::try_open(moved).await.is_err())).await;
    assert_eq!(gateway.get("/").await.text(), "one");
}

#[tokio::test]
async fn a_listener_that_cannot_be_had_rejects_the_whole_reload() {
    let (gateway, _functions) = versioned("").await;
    // Nobody else takes it between the drop and the reload.
    let address = free("127.0.0.1");
    let taken = std::net::TcpListener::bind(address).unwrap();
    let receipt = gateway
        .edit(|text| {
            let text = text.replace(TO_ONE, TO_TWO);
            format!("{text}\n[listener.taken]\naddress = \"{address}\"\n")
        })
        .await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("rejected", 1));
    gateway.says(&[&address.to_string(), "in use"]).await;
    assert_eq!(gateway.get("/").await.text(), "one", "half a reload");
    drop(taken);
    assert_eq!(gateway.hup().await.result, "applied");
    assert_eq!(Connection::open(address).await.send("/").await.text(), "two");
}

#[tokio::test]
async fn what_waits_for_a_restart_is_named() {
    let (gateway, _functions) = versioned("").await;
    let receipt = gateway.swap("workers = 2", "workers = 1").await;
    assert_eq!(receipt.generation, 2);
    gateway.says(&["server.workers", "restart"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_nobody() {
    let (reloads, apart, rate) = match full() {
        true => (50, Duration::from_millis(500), 1_000),
        false => (20, Duration::from_millis(500), 500),
    };
    let (gateway, _functions) = versioned("").await;
    let load = load(gateway.address("in"), rate);
    let mut broken = 0;
    let mut weights = TO_ONE;
    for n in 0..reloads {
        let start = Instant::now();
        match n % 4 {
            0 | 2 => {
                let new = if weights == TO_ONE { TO_TWO } else { TO_ONE };
                gateway.swap(weights, new).await;
                weights = new;
            }
            1 => {
                let adds = format!(
                    "\n[listener.l{n}]\naddress = \"127.0.0.1:0\"\n[route.r{n}]\npath = \"/r{n}\"\nfunction = \"f\"\n"
                );
                let receipt = gateway.edit(|text| match text.split_once("\n[listener.l") {
                    Some((before, _)) => before.to_owned(),
                    None => format!("{text}{adds}"),
                });
                assert_eq!(receipt.await.result, "applied");
            }
            _ => {
                // Half of it would act if it were applied in halves.
                let good = gateway.config_text();
                let receipt = gateway
                    .edit(|text| {
                        text.replace("[route.f]", "[route.g]\npath = \"/g\"")
                            + "\n[route.broken]\nfunction = \"nobody\"\n"
                    })
                    .await;
                assert_eq!(receipt.result, "rejected");
                broken += 1;
                gateway.replace(&good);
            }
        }
        tokio::time::sleep(apart.saturating_sub(start.elapsed())).await;
    }
    let tally = load.finish().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{} sent, {} stale", tally.sent, tally.stale);
    assert_eq!(tally.ok(), tally.sent);
    assert_eq!(tally.by_body.len(), 2, "{:?}", tally.by_body);
    let rejected = gateway.receipts().iter().filter(|r| r.result == "rejected").count();
    assert_eq!(rejected, broken);
    eprintln!("{} requests, {} stale, {reloads} reloads", tally.sent, tally.stale);
}

#[tokio::test]
async fn the_applied_texts_and_their_history_are_kept() {
    let (gateway, _functions) = versioned("").await;
    gateway.swap(TO_ONE, TO_TWO).await;
    // The effect doesn't wait for the disk.
    let lines = eventually("the history has both", async || {
        let history = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
        let whole = history.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines: Vec<serde_json::Value> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1]["generation"], 2, "{lines:?}");
}
