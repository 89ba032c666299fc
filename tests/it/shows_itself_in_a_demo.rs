//! `gatepost demo`: the main job within a minute, without a word of manual; and every line that it prints to be tried works when it is
//! typed as it stands.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{Connection, demo::Demo, eventually, get, when};

/// How many of so many calls reach v2.
async fn of_v2(address: SocketAddr, calls: usize) -> usize {
    let mut caller = Connection::open(address).await;
    let mut reached = 0;
    for _ in 0..calls {
        let answer = caller.send("/version").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let version = answer.json()["version"].clone();
        assert_eq!(answer.header("x-version"), version.as_str());
        reached += usize::from(version == "v2");
    }
    reached
}

#[tokio::test]
async fn the_weight_is_edited_and_the_split_follows() {
    let mut demo = Demo::start(&["--for", "5m"]);
    let address: SocketAddr = demo.told(" at http://").await.parse().unwrap();
    // Quoted for a shell, since the folder's name has a blank.
    let file = PathBuf::from(demo.told("edit  ").await.trim_matches('\''));
    assert!(file.starts_with(demo.home()), "{}", file.display());
    demo.says(0, &["Ctrl-C ends it"]).await;

    // What it offers to try.
    let hello = Connection::open(address).await.send("/hello").await.json();
    assert_eq!((&hello["method"], &hello["path"]), (&"GET".into(), &"/hello".into()));
    let tester = get("/version").header("x-tester", "yes");
    assert_eq!(Connection::open(address).await.send(tester).await.json()["version"], "v2");
    assert!(of_v2(address, 100).await.abs_diff(5) <= 1);
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(Connection::open(address).await.send("/limited/").await.status);
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");

    // An edit in place, as an editor does it.
    let text = fs::read_to_string(&file).unwrap();
    let edited = text.replace("v2 = 5 ", "v2 = 50 ");
    assert_ne!(text, edited);
    let before = demo.said().len();
    fs::write(&file, &edited).unwrap();
    let saved = Instant::now();
    while of_v2(address, 20).await < 9 {
        assert!(saved.elapsed() < Duration::from_secs(1), "{:#?}", demo.said());
    }
    demo.says(before, &["applied", "generation 2"]).await;
    demo.says(before, &["v2", "5", "50"]).await;

    // A wrong one: told where and why, and the split goes on.
    let before = demo.said().len();
    fs::write(&file, text.replace("v2 = 5 ", "v2 = 500 ")).unwrap();
    demo.says(before, &["rejected"]).await;
    demo.says(before, &["gatepost.toml:"]).await;
    demo.says(before, &["500"]).await;
    demo.says(before, &["generation 2 goes on serving"]).await;
    assert!(of_v2(address, 100).await.abs_diff(50) <= 1);
    demo.says(before, &["100 calls", "v1", "v2"]).await;

    // Ctrl-C.
    demo.interrupt();
    let status = demo.exit().await;
    assert!(status.success(), "{status}");
    demo.says(0, &["demo ended", "is removed"]).await;
    assert_eq!(demo.left_over(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn it_may_end_by_itself_and_keep_its_folder() {
    let kept = TempDir::new().unwrap();
    let folder = kept.path().join("mine");
    let mut demo = Demo::start(&["--for", "1s", "--config-dir", folder.to_str().unwrap()]);
    let file = PathBuf::from(demo.told("edit  ").await);
    assert!(demo.exit().await.success());
    demo.says(0, &["demo ended", "stays"]).await;
    assert!(file.starts_with(folder.canonicalize().unwrap()) && file.exists());
}

fn counts(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[tokio::test]
async fn what_it_prints_can_be_typed_as_it_stands() {
    let mut demo = Demo::start(&["--for", "2m"]);
    demo.says(0, &["Ctrl-C"]).await;
    assert!(demo.types("/hello").contains(r#""path":"/hello""#));
    assert_eq!(counts(&demo.types("seq 20")), ["19", r#"{"version":"v1"}"#, "1", r#"{"version":"v2"}"#]);
    assert!(demo.types("x-tester").contains("v2"));
    // A machine that takes a second for eight calls earns a sixth.
    let limited = demo.types("seq 8");
    assert!(matches!(*counts(&limited), ["5" | "6" | "7", "200", _, "429"]), "{limited}");
    demo.types("sed -i");
    demo.says(0, &["v2 5 % → 50 %"]).await;
    assert_eq!(counts(&demo.types("seq 20")), ["10", r#"{"version":"v1"}"#, "10", r#"{"version":"v2"}"#]);

    // Typed twice, the line changes nothing.
    demo.types("sed -i");
    assert!(demo.types("/hello").contains("hello"));
    assert!(!demo.said().join("\n").contains("refused"), "{}", demo.said().join("\n"));

    demo.interrupt();
    assert!(demo.exit().await.success());
    eventually("its last words", async || when(demo.said().last().is_some_and(|l| l.starts_with("demo ended")))).await;
}
