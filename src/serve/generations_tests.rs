//! A number per config, kept through restarts, crashes and full disks.

use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::config::changes::Applied;

fn at() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn texts(text: &str) -> Vec<(String, String)> {
    vec![("gatepost.toml".into(), text.into())]
}

/// Records a config whose hash is its text.
fn record(generations: &mut Generations, text: &str) -> Result<u64, StateError> {
    let change = Change { text: format!("now {text}"), applies: Applied::Live };
    generations.record(&texts(text), text, &[change], &Author::default(), at())
}

fn open(dir: &TempDir) -> Generations {
    Generations::open(&dir.path().join("state")).unwrap()
}

fn state(dir: &TempDir) -> PathBuf {
    dir.path().join("state")
}

#[test]
fn numbers_go_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut one = open(&dir);
    assert_eq!(one.current(), 0);
    assert_eq!(one.number_for("a"), 1);
    assert_eq!(record(&mut one, "a").unwrap(), 1);
    assert_eq!(record(&mut one, "b").unwrap(), 2);
    drop(one);

    let mut two = open(&dir);
    assert_eq!(two.number_for("b"), 2);
    assert_eq!(record(&mut two, "b").unwrap(), 2, "the same config as before");
    assert_eq!(two.list().unwrap().len(), 2);
    assert_eq!(record(&mut two, "a").unwrap(), 3, "an old config is a new generation");
    let history = two.list().unwrap();
    assert_eq!(history[2].change, ["now a"]);
    assert_eq!(history[2].at, at());
}

#[test]
fn the_directory_is_closed_to_others() {
    let dir = TempDir::new().unwrap();
    let _held = open(&dir);
    assert_eq!(fs::metadata(state(&dir)).unwrap().mode() & 0o777, 0o750);
}

#[test]
fn texts_come_back_by_their_names_whatever_these_are() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    let sources: Vec<(String, String)> = [
        "gatepost.toml",
        "conf.d/a.toml",
        "/etc/other/conf.d/a.toml",
        "../../x y\u{1f600}.toml",
        "..",
        "manifest.json",
    ]
    .into_iter()
    .enumerate()
    .map(|(i, name)| (name.to_owned(), format!("text {i}")))
    .collect();
    let author = Author { by: Some("mei".into()), reason: Some("canary is fine".into()) };
    let number = generations.record(&sources, "h", &[], &author, at()).unwrap();
    assert_eq!(generations.read(number).unwrap(), sources);
    assert_eq!(generations.list().unwrap()[0].author, author);
    let line = fs::read_to_string(history_file(&state(&dir))).unwrap();
    assert_eq!(
        line,
        "{\"generation\":1,\"at\":\"2026-11-22T10:00:00Z\",\"hash\":\"h\",\"change\":[],\"by\":\"mei\",\"reason\":\"canary is fine\"}\n"
    );
}

#[test]
fn two_gateposts_do_not_share_a_directory() {
    let dir = TempDir::new().unwrap();
    assert!(!holder(&state(&dir)).unwrap());
    let held = open(&dir);
    assert!(holder(&state(&dir)).unwrap());
    let message = Generations::open(&state(&dir)).unwrap_err().to_string();
    let pid = format!("another gatepost (pid {})", std::process::id());
    assert!(message.starts_with(&pid), "{message}");
    drop(held);
    assert!(!holder(&state(&dir)).unwrap());
    open(&dir);
}

#[test]
fn the_last_fifty_keep_their_texts_and_all_their_lines() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    for i in 1..=53 {
        record(&mut generations, &format!("text {i}")).unwrap();
    }
    let kept = kept(&texts_dir(&state(&dir)));
    assert_eq!((kept.len(), kept[0]), (50, 4));
    assert_eq!(generations.read(4).unwrap(), texts("text 4"));
    let gone = generations.read(3).unwrap_err();
    assert!(matches!(gone, StateError::NotKept { generation: 3, .. }), "{gone}");
    assert_eq!(generations.list().unwrap().len(), 53);
}

#[test]
fn half_a_last_line_is_taken_away() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    record(&mut generations, "a").unwrap();
    record(&mut generations, "b").unwrap();
    drop(generations);
    let path = history_file(&state(&dir));
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().position(|b| *b == b'\n').unwrap() + 1;

    // Killed at every point of the second line.
    for cut in second..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut again = open(&dir);
        assert_eq!(again.current(), 2, "its texts are there");
        assert_eq!(record(&mut again, "b").unwrap(), 2);
        let numbers: Vec<_> = again.list().unwrap().iter().map(|e| e.generation).collect();
        assert_eq!(numbers, [1, 2], "cut at {cut}");
    }
}

#[test]
fn texts_without_a_line_get_one_or_are_passed_over() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    record(&mut generations, "a").unwrap();
    record(&mut generations, "b").unwrap();
    drop(generations);
    let path = history_file(&state(&dir));
    let first: String = fs::read_to_string(&path).unwrap().lines().take(1).collect();
    fs::write(&path, first + "\n").unwrap();

    let mut other = open(&dir);
    assert_eq!(record(&mut other, "c").unwrap(), 3, "2 is taken");
    assert_eq!(other.read(2).unwrap(), texts("b"));
}

#[test]
fn what_was_being_written_at_a_kill_is_swept() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    record(&mut generations, "a").unwrap();
    drop(generations);
    let half = texts_dir(&state(&dir)).join(".new-000002");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("000-gatepost.toml"), "ha").unwrap();
    let mut again = open(&dir);
    assert!(!half.exists());
    assert_eq!(record(&mut again, "b").unwrap(), 2);
}

#[test]
fn a_full_disk_is_told_and_the_number_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    symlink("/dev/full", history_file(&state(&dir))).unwrap();
    let error = record(&mut generations, "a").unwrap_err().to_string();
    assert!(error.contains("history.jsonl: No space left"), "{error}");
    assert_eq!(generations.current(), 1);
    record(&mut generations, "b").unwrap_err();
    assert_eq!(generations.current(), 2);

    fs::remove_file(history_file(&state(&dir))).unwrap();
    assert_eq!(record(&mut generations, "b").unwrap(), 2, "written once there is space");
    assert_eq!(generations.list().unwrap().len(), 1);
    assert_eq!(generations.read(2).unwrap(), texts("b"));
}

#[test]
fn a_directory_that_cannot_be_written_is_told_and_the_number_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut generations = open(&dir);
    record(&mut generations, "a").unwrap();
    fs::remove_dir_all(texts_dir(&state(&dir))).unwrap();
    fs::write(texts_dir(&state(&dir)), "in the way").unwrap();
    let error = record(&mut generations, "b").unwrap_err().to_string();
    assert!(error.contains("generations"), "{error}");
    assert_eq!(generations.current(), 2);
    drop(generations);

    let error = Generations::open(&state(&dir)).unwrap_err().to_string();
    assert!(error.starts_with("cannot make "), "{error}");
    let mut detached = Generations::detached(&state(&dir));
    assert_eq!(detached.current(), 1, "read from the history");
    record(&mut detached, "c").unwrap_err();
    assert_eq!(detached.current(), 2);
}

#[test]
fn a_lock_that_is_handed_over_is_never_free_in_between() {
    let dir = TempDir::new().unwrap();
    let mut old = Generations::open(dir.path()).unwrap();
    old.record(&[], "one", &[], &Author::default(), Timestamp::now()).unwrap();
    let mut new = Generations::inherit(dir.path(), old.lock().unwrap().unwrap());
    assert_eq!(new.current(), 1);
    // The old one's last word counts.
    old.record(&[], "two", &[], &Author::default(), Timestamp::now()).unwrap();
    new.refresh();
    assert_eq!((new.current(), new.number_for("two")), (2, 2));
    old.let_go();
    assert!(old.is_detached());
    assert!(matches!(Generations::open(dir.path()), Err(StateError::InUse { .. })));
    assert!(holder(dir.path()).unwrap());
    drop(new);
    Generations::open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_can_be_used_again_is_and_numbers_go_on() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("state");
    fs::write(&place, "in the way").unwrap();
    assert!(Generations::open(&place).is_err());
    let mut generations = Generations::detached(&place);
    for hash in ["one", "two"] {
        assert!(generations.record(&[], hash, &[], &Author::default(), Timestamp::now()).is_err());
    }
    assert!(generations.reopen().is_err() && generations.is_detached());
    assert!(generations.trouble().unwrap().contains("cannot be used"));
    fs::remove_file(&place).unwrap();
    generations.reopen().unwrap();
    assert_eq!(generations.current(), 2);
    generations.record(&[], "two", &[], &Author::default(), Timestamp::now()).unwrap();
    assert_eq!((generations.trouble(), generations.list().unwrap().len()), (None, 1));
    assert_eq!(generations.list().unwrap()[0].generation, 2);
}
