//! A running `gatepost demo`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    eventually,
    gateway::{Gathered, all_of, gather},
};

/// A demo whose temporary folder is the test's; dropped, it is killed.
pub(crate) struct Demo {
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
    /// Has it begin, on port 0; a blank in its folder's name must not hurt.
    pub(crate) fn start(args: &[&str]) -> Self {
        let home = TempDir::with_prefix("gatepost demo-").unwrap();
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

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn said(&self) -> Vec<String> {
        all_of(&self.said).clone()
    }

    /// Waits for a line with these words, behind the first `after`.
    pub(crate) async fn says(&self, after: usize, words: &[&str]) -> String {
        eventually(&format!("the demo says {words:?}: {:#?}", self.said()), async || {
            let said = self.said();
            said.into_iter().skip(after).find(|line| words.iter().all(|word| line.contains(word)))
        })
        .await
    }

    /// What stands behind this word.
    pub(crate) async fn told(&self, word: &str) -> String {
        let line = self.says(0, &[word]).await;
        line.split(word).nth(1).unwrap().trim().to_owned()
    }

    /// The printed line with that word, typed into a shell: what it printed.
    #[track_caller]
    pub(crate) fn types(&self, word: &str) -> String {
        let line = self.said().into_iter().find(|line| line.starts_with("      ") && line.contains(word)).unwrap();
        let out = Command::new("bash").arg("-c").arg(line.trim()).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the demo ends", async || child.try_wait().unwrap()).await
    }

    pub(crate) fn left_over(&self) -> Vec<PathBuf> {
        fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}
