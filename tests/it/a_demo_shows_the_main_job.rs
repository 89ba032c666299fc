//! `gatepost demo`: the main job within a minute, without a word of manual.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{
    Connection, eventually,
    gateway::{Gathered, gather},
    get,
};

/// A demo whose temporary folder is the test's.
struct Demo {
    child: Child,
    said: Gathered,
    home: TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let home = TempDir::with_prefix("demo-").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(["demo", "--port", "0"])
            .args(args)
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let said = gather(child.stdout.take().unwrap());
        Self { child, said, home }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Waits for a line with these words, behind the first `after`.
    async fn says(&self, after: usize, words: &[&str]) -> String {
        eventually(&format!("the demo says {words:?}: {:#?}", self.said()), async || {
            let said = self.said();
            said.into_iter().skip(after).find(|line| words.iter().all(|word| line.contains(word)))
        })
        .await
    }

    /// What stands behind this word.
    async fn told(&self, word: &str) -> String {
        let line = self.says(0, &[word]).await;
        line.split(word).nth(1).unwrap().trim().to_owned()
    }

    async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the demo ends", async || child.try_wait().unwrap()).await
    }

    fn left_over(&self) -> Vec<PathBuf> {
        fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

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
    let file = PathBuf::from(demo.told("edit  ").await);
    assert!(file.starts_with(demo.home.path()), "{}", file.display());
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
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
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
