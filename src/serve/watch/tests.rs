//! Every way in which people and machines change a file, and what the watch makes of it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    process::Command as Process,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
};

use tempfile::TempDir;

use super::*;

/// A directory with a config in it, and a watch.
struct Scene {
    dir: TempDir,
    watch: Watch,
    events: Receiver<WatchEvent>,
}

const LONG: Duration = Duration::from_secs(20);

fn scene() -> Scene {
    scene_with(Inotify::init(), |_| {})
}

fn scene_with(inotify: io::Result<Inotify>, prepare: impl FnOnce(&Path)) -> Scene {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("gatepost.toml"), "a = 1\n").unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    fs::create_dir(dir.path().join("requests")).unwrap();
    prepare(dir.path());
    let (tell, events) = channel();
    let set = set(dir.path());
    let watch = Watch::start_with(set, move |event| tell.send(event).unwrap(), inotify).unwrap();
    Scene { dir, watch, events }
}

fn set(dir: &Path) -> WatchSet {
    WatchSet {
        files: vec![dir.join("gatepost.toml")],
        globs_dirs: vec![dir.join("conf.d")],
        requests: dir.join("requests"),
        read_at: None,
    }
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("gatepost.toml")
    }

    /// Waits for the firing, and says how long it took.
    fn fires(&self) -> Duration {
        let start = Instant::now();
        assert_eq!(self.events.recv_timeout(LONG), Ok(WatchEvent::Config));
        start.elapsed()
    }

    fn is_silent_for(&self, ms: u64) {
        let waited = self.events.recv_timeout(Duration::from_millis(ms));
        assert_eq!(waited, Err(RecvTimeoutError::Timeout));
    }

    /// One firing, and no second one by the fallback either.
    fn fires_once(&self) -> Duration {
        let took = self.fires();
        self.is_silent_for(700);
        took
    }
}

/// Changes made in one go are told once.
///
/// Where the machine held up this thread on the way for as long as the watch has patience, it was no single go, and is done over.
fn is_told_once(change: impl Fn(&Scene)) {
    for _ in 0..50 {
        let scene = scene();
        let start = Instant::now();
        change(&scene);
        if start.elapsed() < Duration::from_millis(30) {
            scene.fires_once();
            return;
        }
    }
    panic!("the machine never let a few files be written within 30 ms");
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn nothing_happens_when_nothing_happens() {
    scene().is_silent_for(800);
}

#[test]
fn echo_and_cp_write_in_place() {
    let scene = scene();
    fs::write(scene.config(), "a = 2\n").unwrap();
    scene.fires_once();
    fs::write(scene.path("new"), "a = 3\n").unwrap();
    fs::copy(scene.path("new"), scene.config()).unwrap();
    scene.fires_once();
}

#[test]
fn sed_renames_over_it() {
    let scene = scene();
    let sed = Process::new("sed").args(["-i", "s/1/2/"]).arg(scene.config()).status();
    assert!(sed.unwrap().success());
    scene.fires_once();
}

#[test]
fn vim_renames_it_away_and_writes_it_anew() {
    is_told_once(|scene| {
        fs::write(scene.path(".gatepost.toml.swp"), "x").unwrap();
        fs::write(scene.path("4913"), "").unwrap();
        fs::remove_file(scene.path("4913")).unwrap();
        fs::rename(scene.config(), scene.path("gatepost.toml~")).unwrap();
        // vim has it synced as well: how long that takes is the disk's doing.
        fs::write(scene.config(), "a = 2\n").unwrap();
        fs::remove_file(scene.path("gatepost.toml~")).unwrap();
    });
}

#[test]
fn a_save_is_told_within_60_ms() {
    let scene = scene();
    let median = |change: &dyn Fn(u32)| {
        let mut times: Vec<_> = (0..5)
            .map(|i| {
                change(i);
                scene.fires()
            })
            .collect();
        times.sort();
        times[2]
    };
    let closed = median(&|i| fs::write(scene.config(), format!("a = {i}\n")).unwrap());
    let renamed = median(&|i| {
        fs::write(scene.path("new"), format!("b = {i}\n")).unwrap();
        fs::rename(scene.path("new"), scene.config()).unwrap();
    });
    assert!(closed < Duration::from_millis(60), "{closed:?}");
    assert!(renamed < Duration::from_millis(60), "{renamed:?}");
}

#[test]
fn a_big_file_written_in_pieces_is_told_once_and_whole() {
    let scene = scene();
    let piece = "# a line of a long config file\n".repeat(40_000 / 31);
    let mut file = File::create(scene.config()).unwrap();
    for _ in 0..50 {
        file.write_all(piece.as_bytes()).unwrap();
        // The pace is the point: 50 pieces over 2 s.
        assert_eq!(scene.events.recv_timeout(Duration::from_millis(40)), Err(RecvTimeoutError::Timeout));
    }
    drop(file);
    scene.fires_once();
}

#[test]
fn an_emptied_file_waits_for_its_writer() {
    let scene = scene();
    let mut file = File::create(scene.config()).unwrap();
    scene.is_silent_for(1_200);
    file.write_all(b"a = 2\n").unwrap();
    drop(file);
    scene.fires_once();
}

#[test]
fn an_empty_lock_file_beside_the_includes_stops_nothing() {
    let scene = scene();
    let lock = File::create(scene.path("conf.d/lock")).unwrap();
    fs::write(scene.config(), "a = 2\n").unwrap();
    scene.fires();
    drop(lock);
}

#[test]
fn a_writer_who_never_closes_is_not_waited_for() {
    let scene = scene();
    let mut file = File::create(scene.config()).unwrap();
    file.write_all(b"a = 2\n").unwrap();
    assert!(scene.fires() >= Duration::from_millis(300));
    drop(file);
    scene.fires();
}

/// As the kubelet does it: the file is a symlink through `..data`, which is swapped.
#[test]
fn a_config_map_is_swapped() {
    let scene = scene_with(Inotify::init(), |dir| {
        fs::remove_file(dir.join("gatepost.toml")).unwrap();
        fs::create_dir(dir.join("..1")).unwrap();
        fs::write(dir.join("..1/gatepost.toml"), "a = 1\n").unwrap();
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/gatepost.toml", dir.join("gatepost.toml")).unwrap();
    });
    for generation in 2..4 {
        let fresh = format!("..{generation}");
        fs::create_dir(scene.path(&fresh)).unwrap();
        fs::write(scene.path(&fresh).join("gatepost.toml"), "a = 2\n").unwrap();
        scene.is_silent_for(100);
        symlink(&fresh, scene.path("..data_tmp")).unwrap();
        fs::rename(scene.path("..data_tmp"), scene.path("..data")).unwrap();
        fs::remove_dir_all(scene.path(&format!("..{}", generation - 1))).unwrap();
        scene.fires_once();
    }
}

#[test]
fn a_symlink_into_another_directory_is_followed() {
    let elsewhere = TempDir::new().unwrap();
    let target = elsewhere.path().join("real.toml");
    fs::write(&target, "a = 1\n").unwrap();
    let scene = scene_with(Inotify::init(), |dir| {
        fs::remove_file(dir.join("gatepost.toml")).unwrap();
        symlink(&target, dir.join("gatepost.toml")).unwrap();
    });
    append(&target, "b = 1\n");
    scene.fires_once();
    let other = elsewhere.path().join("other.toml");
    fs::write(&other, "a = 2\n").unwrap();
    symlink(&other, scene.path("link")).unwrap();
    fs::rename(scene.path("link"), scene.config()).unwrap();
    scene.fires_once();
    append(&other, "b = 1\n");
    scene.fires_once();
}

#[test]
fn files_come_and_go_in_an_included_directory() {
    let scene = scene();
    let extra = scene.path("conf.d/a.toml");
    fs::write(&extra, "a = 1\n").unwrap();
    scene.fires_once();
    for noise in ["conf.d/.a.toml.swp", "conf.d/a.toml~", "conf.d/#a.toml#"] {
        fs::write(scene.path(noise), "x").unwrap();
    }
    fs::create_dir(scene.path("conf.d/sub")).unwrap();
    scene.is_silent_for(700);
    fs::remove_file(&extra).unwrap();
    scene.fires_once();
}

#[test]
fn an_included_directory_may_come_later_or_be_replaced() {
    let scene = scene_with(Inotify::init(), |dir| {
        fs::remove_dir(dir.join("conf.d")).unwrap();
    });
    fs::create_dir(scene.path("conf.d")).unwrap();
    scene.fires();
    fs::write(scene.path("conf.d/a.toml"), "a = 1\n").unwrap();
    scene.fires_once();
    fs::create_dir(scene.path("next")).unwrap();
    fs::write(scene.path("next/a.toml"), "a = 2\n").unwrap();
    fs::rename(scene.path("conf.d"), scene.path("old")).unwrap();
    fs::rename(scene.path("next"), scene.path("conf.d")).unwrap();
    scene.fires();
    scene.is_silent_for(700);
    append(&scene.path("conf.d/a.toml"), "b = 1\n");
    scene.fires_once();
}

#[test]
fn many_files_at_once_are_told_once() {
    is_told_once(|scene| {
        for i in 0..40 {
            fs::write(scene.path(&format!("conf.d/{i}.toml")), "a = 1\n").unwrap();
        }
        fs::write(scene.config(), "a = 2\n").unwrap();
    });
}

#[test]
fn a_file_that_is_not_there_yet_is_waited_for() {
    let scene = scene();
    let key = scene.path("tls/deep/api.key");
    let mut set = set(scene.dir.path());
    set.files.push(key.clone());
    scene.watch.set(set);
    // What is told after an order was given is told with the order done.
    append(&scene.config(), "b = 1\n");
    scene.fires();
    fs::create_dir_all(key.parent().unwrap()).unwrap();
    scene.fires();
    fs::write(&key, "key").unwrap();
    scene.fires();
    append(&key, "more");
    scene.fires_once();
}

#[test]
fn what_changed_while_it_was_read_is_told() {
    let scene = scene();
    let read_at = SystemTime::now();
    let ca = scene.path("ca.pem");
    fs::write(&ca, "new").unwrap();
    let mut set = set(scene.dir.path());
    set.files.push(ca);
    set.read_at = Some(read_at);
    scene.watch.set(set);
    scene.fires_once();
}

#[test]
fn a_request_is_told_at_once() {
    let scene = scene();
    fs::write(scene.path("requests/.1.json"), "{}").unwrap();
    fs::rename(scene.path("requests/.1.json"), scene.path("requests/1.json")).unwrap();
    assert_eq!(scene.events.recv_timeout(LONG), Ok(WatchEvent::Requests));
    fs::remove_file(scene.path("requests/1.json")).unwrap();
}

#[test]
fn without_inotify_files_are_looked_at() {
    let scene = scene_with(Err(io::Error::other("none left")), |_| {});
    fs::write(scene.config(), "a = 22\n").unwrap();
    assert!(scene.fires_once() < Duration::from_secs(5));
    fs::write(scene.path("conf.d/a.toml"), "a = 1\n").unwrap();
    scene.fires_once();
    fs::write(scene.path("new"), "a = 3\n").unwrap();
    fs::rename(scene.path("new"), scene.config()).unwrap();
    scene.fires_once();
    let mut file = File::create(scene.config()).unwrap();
    scene.is_silent_for(1_000);
    for _ in 0..25 {
        file.write_all(b"# another line\n").unwrap();
        scene.is_silent_for(40);
    }
    scene.fires_once();
    fs::write(scene.path("requests/1.json"), "{}").unwrap();
    assert_eq!(scene.events.recv_timeout(LONG), Ok(WatchEvent::Requests));
}

/// A file that is bind-mounted alone tells its directory nothing; a change through a hard link is as quiet.
#[test]
fn a_change_that_inotify_misses_is_seen() {
    let scene = scene_with(Inotify::init(), |dir| {
        fs::create_dir(dir.join("host")).unwrap();
        fs::hard_link(dir.join("gatepost.toml"), dir.join("host/gatepost.toml")).unwrap();
    });
    append(&scene.path("host/gatepost.toml"), "b = 1\n");
    assert!(scene.fires_once() < Duration::from_secs(5));
}
