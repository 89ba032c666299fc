//! What every process tells, under the names that every Prometheus client uses. Read when asked.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::text::{Kind, Text};

pub(super) fn render(out: &mut Text, started: f64) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    out.single(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time used.",
        cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
    );
    if let Some(bytes) = resident() {
        out.single("process_resident_memory_bytes", Kind::Gauge, "Memory that is resident.", bytes);
    }
    // The listing holds the descriptor by which it is read.
    if let Ok(listing) = fs::read_dir("/proc/self/fd") {
        out.single("process_open_fds", Kind::Gauge, "Open file descriptors.", listing.count().saturating_sub(1));
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        out.single("process_max_fds", Kind::Gauge, "File descriptors that may be open.", limit);
    }
    out.single("process_start_time_seconds", Kind::Gauge, "When the process started, in seconds since 1970.", started);
}

/// Memory of this process that is resident, in bytes: from `VmRSS:      5120 kB`.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
