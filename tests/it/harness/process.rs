//! What the kernel knows about a running gatepost.

use std::{fs, path::Path};

/// A process by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Resident memory in bytes.
    pub(crate) fn rss(self) -> u64 {
        self.kib("status", "VmRSS:")
    }

    /// Memory of its own in bytes, without the pages of the binary: those of a debug build are nobody's that runs gatepost,
    /// and how many others share them changes while one looks.
    pub(crate) fn anonymous(self) -> u64 {
        self.kib("status", "RssAnon:")
    }

    /// Open file descriptors.
    pub(crate) fn fds(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }

    /// How many of them are ends of pipes.
    pub(crate) fn pipes(self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
        let is_pipe = |target: std::path::PathBuf| target.to_string_lossy().starts_with("pipe:");
        all.filter(|entry| entry.as_ref().is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(is_pipe))).count()
    }

    /// Whether it has not ended yet.
    pub(crate) fn lives(self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Whether it is a gatepost with that config: numbers are given out again.
    pub(crate) fn runs(self, config: &Path) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    }

    fn kib(self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}
