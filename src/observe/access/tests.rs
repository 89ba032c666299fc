use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::*;
use crate::config::model::LogFormat;

/// A log in a directory of its own.
struct Scene {
    dir: tempfile::TempDir,
    log: Log,
    access: AccessLog,
}

fn to_file(path: &Path) -> Log {
    Log {
        access: AccessSink::File(path.to_owned()),
        egress: None,
        format: LogFormat::Json,
        sample_ok: 1.0,
        query: false,
    }
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let log = to_file(&dir.path().join("access.log"));
    let access = AccessLog::start(&log).unwrap();
    Scene { dir, log, access }
}

impl Scene {
    fn path(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }
}

fn entry(path: &str) -> Entry<'_> {
    Entry {
        ts: 1_709_210_096_789,
        request_id: "id",
        generation: 1,
        listener: "public",
        client_ip: None,
        client: None,
        method: "GET",
        host: b"example.com",
        path: path.as_bytes(),
        query: None,
        route: None,
        function: None,
        version: None,
        picked_by: None,
        weights_from: None,
        status: Some(200),
        upstream_status: None,
        class: Class::Ok,
        reason: None,
        bytes_in: 0,
        bytes_out: 0,
        total: Duration::ZERO,
        queue: None,
        connect: None,
        upstream: None,
        attempts: 0,
        platform_request_id: None,
        cache: None,
    }
}

/// The `path` of every line so far; one may be in the making.
fn paths(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole]
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            line["path"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_line_is_in_the_file_soon_though_no_other_follows() {
    let scene = scene();
    let mut port = scene.access.port();
    port.write(&scene.log, &entry("/only"));
    until("the line", || paths(&scene.path()) == ["/only"]);
}

#[test]
fn many_workers_write_whole_lines_and_none_is_lost() {
    let scene = scene();
    thread::scope(|scope| {
        for worker in 0..4 {
            let mut port = scene.access.port();
            let log = &scene.log;
            scope.spawn(move || {
                for n in 0..2000 {
                    port.write(log, &entry(&format!("/{worker}/{n}")));
                }
            });
        }
    });
    assert!(scene.access.close(LONG));
    let seen = paths(&scene.path());
    for worker in 0..4 {
        let mine: Vec<_> = seen
            .iter()
            .filter_map(|path| path.strip_prefix(&format!("/{worker}/")))
            .map(|n| n.parse::<u32>().unwrap())
            .collect();
        assert_eq!(mine, (0..2000).collect::<Vec<_>>(), "worker {worker}");
    }
    assert_eq!(scene.access.counts().dropped_lines(), 0);
}

#[test]
fn a_renamed_file_is_left_and_a_new_one_begun() {
    let scene = scene();
    let mut port = scene.access.port();
    port.write(&scene.log, &entry("/before"));
    until("the first line", || paths(&scene.path()).len() == 1);
    let old = scene.dir.path().join("access.log.1");
    fs::rename(scene.path(), &old).unwrap();
    port.write(&scene.log, &entry("/after"));
    until("the second line", || paths(&scene.path()) == ["/after"]);
    assert_eq!(paths(&old), ["/before"]);
}

#[test]
fn reopen_makes_the_file_though_nothing_is_written() {
    let scene = scene();
    fs::remove_file(scene.path()).unwrap();
    scene.access.reopen();
    until("the file", || scene.path().exists());
}

#[test]
fn lines_wait_while_the_directory_is_gone_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = to_file(&logs.join("access.log"));
    let access = AccessLog::start(&log).unwrap();
    let mut port = access.port();
    fs::remove_dir_all(&logs).unwrap();

    let long = format!("/{}", "x".repeat(8000));
    let mut written = 0;
    while access.counts().dropped_lines() == 0 {
        port.write(&log, &entry(&long));
        written += 1;
    }
    until("a failed write", || access.counts().write_errors() > 0);
    fs::create_dir(&logs).unwrap();
    until("what could wait", || {
        paths(&logs.join("access.log")).len() as u64 == written - access.counts().dropped_lines()
    });
    port.write(&log, &entry("/after"));
    assert!(access.close(LONG));
    assert_eq!(paths(&logs.join("access.log")).last().unwrap(), "/after");
}

#[test]
fn a_full_disk_blocks_nobody_and_is_counted() {
    let log = to_file(Path::new("/dev/full"));
    let access = AccessLog::start(&log).unwrap();
    let mut port = access.port();
    port.write(&log, &entry("/lost"));
    until("a failed write", || access.counts().write_errors() > 0);
    assert!(access.close(LONG));
    assert_eq!(access.counts().dropped_lines(), 1);
}

#[test]
fn a_file_moved_from_where_no_new_one_can_be_made_is_still_written() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = to_file(&logs.join("access.log"));
    let access = AccessLog::start(&log).unwrap();
    let mut port = access.port();
    fs::rename(&logs, dir.path().join("moved")).unwrap();
    port.write(&log, &entry("/kept"));
    assert!(access.close(LONG));
    assert_eq!(paths(&dir.path().join("moved/access.log")), ["/kept"]);
    assert_eq!(access.counts().dropped_lines(), 0);
}

#[test]
fn a_reload_moves_the_log_and_no_line_gets_lost() {
    let scene = scene();
    let mut port = scene.access.port();
    port.write(&scene.log, &entry("/old"));
    let new = to_file(&scene.dir.path().join("new.log"));
    scene.access.reconfigure(&new).unwrap();
    until("the old line", || paths(&scene.path()) == ["/old"]);
    until("the new file", || {
        port.write(&new, &entry("/new"));
        !paths(&scene.dir.path().join("new.log")).is_empty()
    });
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/access.log");
    let error = AccessLog::start(&to_file(&missing)).unwrap_err();
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");

    let scene = scene();
    assert!(scene.access.reconfigure(&to_file(&missing)).is_err());
    let mut port = scene.access.port();
    port.write(&scene.log, &entry("/still"));
    assert!(scene.access.close(LONG));
    assert_eq!(paths(&scene.path()), ["/still"]);
}

#[test]
fn off_writes_nothing() {
    let scene = scene();
    let off = Log { access: AccessSink::Off, ..to_file(&scene.path()) };
    scene.access.port().write(&off, &entry("/unseen"));
    assert!(scene.access.close(LONG));
    assert_eq!(fs::read(scene.path()).unwrap(), b"");
}

#[test]
fn successes_are_sampled_evenly_and_failures_always_told() {
    let scene = scene();
    let sampled = Log { sample_ok: 0.1, ..scene.log.clone() };
    let none = Log { sample_ok: 0.0, ..sampled.clone() };
    let mut port = scene.access.port();
    for n in 0..100 {
        port.write(&sampled, &entry(&format!("/ok/{n}")));
        port.write(&none, &entry("/never"));
    }
    let failed = Entry { class: Class::Timeout, ..entry("/failed") };
    port.write(&none, &failed);
    assert!(scene.access.close(LONG));
    let seen = paths(&scene.path());
    let wanted = |tens: std::ops::RangeInclusive<usize>| tens.contains(&seen.len());
    assert!(wanted(10..=11), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "/failed");
    assert!(!seen.iter().any(|path| path == "/never"));
}
