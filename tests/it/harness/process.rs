//! What the kernel knows about a running gatepost.

use std::fs;

/// A process by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Resident memory in bytes.
    pub(crate) fn rss(self) -> u64 {
        self.kib("status", "VmRSS:")
    }

    /// Memory of its own in bytes, without the pages of the binary: those of a debug build are nobody's that runs gatepost.
    pub(crate) fn anonymous(self) -> u64 {
        self.kib("status", "RssAnon:")
    }

    /// Proportional memory in bytes: shared pages are counted by share.
    pub(crate) fn pss(self) -> u64 {
        self.kib("smaps_rollup", "Pss:")
    }

    /// Open file descriptors.
    pub(crate) fn fds(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }

    fn kib(self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}
