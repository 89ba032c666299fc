//! Watches how much memory the process has, and may have.

use std::{fs, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::observe::{metrics::resident, shedding::Shedding};

const LOOK: Duration = Duration::from_millis(250);
/// The control group's limit may be changed while it runs.
const LOOKS_PER_LIMIT: u32 = 40;

/// Looks until it is dropped; `configured` is `server.max_memory`.
pub async fn watch(shedding: Arc<Shedding>, mut configured: watch::Receiver<Option<u64>>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut of_group = None;
    for looks in 0u32.. {
        tokio::select! {
            _ = tick.tick() => {}
            changed = configured.changed() => if changed.is_err() { return },
        }
        if looks.is_multiple_of(LOOKS_PER_LIMIT) {
            of_group = group_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
        }
        look(&shedding, configured.borrow_and_update().or(of_group));
    }
}

/// Once, before the first request.
pub fn look_now(shedding: &Shedding, configured: Option<u64>) {
    look(shedding, configured.or_else(|| group_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))));
}

fn look(shedding: &Shedding, limit: Option<u64>) {
    let Some(used) = resident() else { return };
    let limit_mib = limit.unwrap_or(0) >> 20;
    match shedding.look(used, limit) {
        Some(true) => {
            tracing::warn!(used_mib = used >> 20, limit_mib, "short of memory: new requests are answered with 503");
        }
        Some(false) => tracing::info!(used_mib = used >> 20, limit_mib, "memory is free again: requests are served"),
        None => {}
    }
}

/// The lowest limit of this process's control group and those above it (cgroups(7)): version 2, or 1.
fn group_limit(own: &Path, root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(own).ok()?;
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            let (root, file) = match controllers {
                "" => (root.to_path_buf(), "memory.max"),
                _ if controllers.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
                _ => return None,
            };
            // In a container the path may be the host's: the root is looked at in any case.
            let group = root.join(path);
            let dirs = group.ancestors().take_while(|dir| dir.starts_with(&root));
            dirs.filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok()).min()
        })
        .min()
        // Version 1 says "none" by a number near the largest.
        .filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let own = root.join("own");
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit(&own, root), None);
        put("own", "0::/a/b\n");
        assert_eq!(group_limit(&own, root), None);
        put("a/b/memory.max", "max\n");
        put("a/memory.max", "1000\n");
        assert_eq!(group_limit(&own, root), Some(1000));
        put("a/b/memory.max", "500\n");
        assert_eq!(group_limit(&own, root), Some(500));
        put("own", "4:cpu,memory:/x\n3:pids:/a\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group_limit(&own, root), None);
        put("memory/x/memory.limit_in_bytes", "700\n");
        assert_eq!(group_limit(&own, root), Some(700));
    }
}
