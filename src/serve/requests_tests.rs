//! A command asks, the service answers, through files alone.

use std::{os::unix::fs::MetadataExt, thread};

use tempfile::TempDir;

use super::*;
use crate::serve::{
    generations::Generations,
    receipt::{Receipt, ReloadResult},
};

fn reload() -> Request {
    Request::new(Kind::Reload, Author { by: Some("mei".into()), reason: None })
}

fn receipt() -> Receipt {
    Receipt {
        generation: 7,
        hash: "h".into(),
        result: ReloadResult::Unchanged,
        changes: vec![],
        report: None,
        took: Duration::from_millis(2),
        at: "2026-11-22T10:00:00Z".parse().unwrap(),
    }
}

fn service(dir: &TempDir) -> Generations {
    let held = Generations::open(dir.path()).unwrap();
    prepare(dir.path()).unwrap();
    held
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn who_asks_gets_the_receipt_and_nothing_stays() {
    let state = TempDir::new().unwrap();
    let _held = service(&state);
    let asker = {
        let dir = state.path().to_owned();
        thread::spawn(move || ask::<Receipt>(&dir, &reload(), Duration::from_secs(20)))
    };
    let (id, request) = loop {
        match pending(state.path()).pop() {
            Some(one) => break one,
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(request, reload());
    answer(state.path(), &id, &receipt()).unwrap();
    assert_eq!(asker.join().unwrap().unwrap(), receipt());
    assert_eq!(files(&dir(state.path())), 0);
    assert_eq!(files(&receipts(state.path())), 0);
}

#[test]
fn nobody_there_is_said_at_once() {
    let state = TempDir::new().unwrap();
    let long = Duration::from_secs(60);
    let asked = ask::<Receipt>(state.path(), &reload(), long);
    assert!(matches!(asked, Err(AskError::NotRunning { .. })));
    drop(service(&state));
    let asked = ask::<Receipt>(state.path(), &reload(), long);
    assert!(matches!(asked, Err(AskError::NotRunning { .. })));
}

#[test]
fn a_service_that_ends_meanwhile_is_noticed() {
    let state = TempDir::new().unwrap();
    let held = service(&state);
    let asker = {
        let dir = state.path().to_owned();
        thread::spawn(move || ask::<Receipt>(&dir, &reload(), Duration::from_secs(60)))
    };
    while pending(state.path()).is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    let asked = asker.join().unwrap();
    assert!(matches!(asked, Err(AskError::NotRunning { .. })));
    assert!(pending(state.path()).is_empty(), "the request is withdrawn");
}

#[test]
fn a_service_that_does_not_answer_is_a_timeout() {
    let state = TempDir::new().unwrap();
    let _held = service(&state);
    let asked = ask::<Receipt>(state.path(), &reload(), Duration::from_millis(30));
    assert!(matches!(asked, Err(AskError::Timeout { .. })));
    assert!(pending(state.path()).is_empty());
}

#[test]
fn what_is_not_understood_is_removed() {
    let state = TempDir::new().unwrap();
    let _held = service(&state);
    let dir = dir(state.path());
    fs::write(dir.join("1.json"), "{").unwrap();
    fs::write(dir.join("2.json"), r#"{"kind":"dance"}"#).unwrap();
    fs::write(dir.join("a b.json"), r#"{"kind":"reload"}"#).unwrap();
    fs::write(dir.join("3.json"), vec![b' '; LONGEST as usize + 1]).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("4.json"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    fs::write(dir.join(".5.json"), "not finished").unwrap();
    fs::write(dir.join("6.json"), r#"{"kind":"reload"}"#).unwrap();
    let waiting = pending(state.path());
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].0, Id("6".into()));
    assert_eq!(files(&dir), 2, "the good one and the unfinished one");
}

#[test]
fn requests_are_answered_in_the_order_in_which_they_came() {
    let state = TempDir::new().unwrap();
    let _held = service(&state);
    let ids: Vec<Id> = (0..3).map(|_| Id::new()).collect();
    for id in ids.iter().rev() {
        let text = serde_json::to_vec(&reload()).unwrap();
        put(&dir(state.path()).join(id.file_name()), &text, 0o600).unwrap();
    }
    let order: Vec<Id> = pending(state.path()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order, ids);
}

#[test]
fn only_the_owner_can_ask_and_old_answers_go() {
    let state = TempDir::new().unwrap();
    let _held = service(&state);
    for dir in [dir(state.path()), receipts(state.path())] {
        assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700);
    }
    let old = receipts(state.path()).join("old.json");
    let file = fs::File::create(&old).unwrap();
    file.set_modified(SystemTime::now() - KEPT * 2).unwrap();
    let fresh = Id::new();
    answer(state.path(), &fresh, &receipt()).unwrap();
    assert!(!old.exists());
    assert_eq!(files(&receipts(state.path())), 1);
}
