//! `gatepost demo`: every line that it prints to be tried works when it is typed as it stands.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{eventually, when};

struct Demo {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
}

impl Demo {
    /// A demo in a folder of the test's; a blank in its name must not hurt.
    async fn start() -> Self {
        let dir = TempDir::with_prefix("gatepost demo-").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(["demo", "--port", "0", "--for", "2m", "--config-dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (stdout, lines) = (child.stdout.take().unwrap(), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let demo = Self { child, said, _dir: dir };
        demo.says("Ctrl-C").await;
        demo
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn says(&self, word: &str) -> String {
        eventually(&format!("the demo says {word:?}"), async || {
            self.said().into_iter().find(|line| line.contains(word))
        })
        .await
    }

    /// The printed line with that word, typed into a shell: what it printed.
    #[track_caller]
    fn types(&self, word: &str) -> String {
        let line = self.said().into_iter().find(|line| line.starts_with("      ") && line.contains(word)).unwrap();
        let out = Command::new("bash").arg("-c").arg(line.trim()).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn counts(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[tokio::test]
async fn what_it_prints_can_be_typed_as_it_stands() {
    let mut demo = Demo::start().await;
    assert!(demo.types("/hello").contains(r#""path":"/hello""#));
    assert_eq!(counts(&demo.types("seq 20")), ["19", r#"{"version":"v1"}"#, "1", r#"{"version":"v2"}"#]);
    assert!(demo.types("x-tester").contains("v2"));
    assert_eq!(counts(&demo.types("seq 8")), ["5", "200", "3", "429"]);
    demo.types("sed -i");
    demo.says("v2 5 % → 50 %").await;
    assert_eq!(counts(&demo.types("seq 20")), ["10", r#"{"version":"v1"}"#, "10", r#"{"version":"v2"}"#]);

    // Typed twice, the line changes nothing.
    demo.types("sed -i");
    assert!(demo.types("/hello").contains("hello"));
    assert!(!demo.said().join("\n").contains("refused"), "{}", demo.said().join("\n"));

    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    let status = eventually("the demo ends", async || demo.child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    eventually("its last words", async || when(demo.said().last().is_some_and(|l| l.starts_with("demo ended")))).await;
}
