//! Every kind of mistake, with the report that it gets: `bad_configs/NAME.toml` (or a folder with `gatepost.toml`)
//! and `bad_configs/NAME.txt`. `UPDATE_GOLDEN=1` writes the reports anew; read the difference before committing it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gatepost::config::{Mode, Sources, load, parse};
use proptest::prelude::*;

/// Relative, so that reports read the same on every machine: tests run in the package's folder.
const FOLDER: &str = "tests/it/bad_configs";

fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = fs::read_dir(FOLDER)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            if path.is_dir() {
                Some((name, path.join("gatepost.toml")))
            } else {
                (path.extension()? == "toml").then_some((name, path))
            }
        })
        .collect();
    cases.sort();
    cases
}

#[test]
fn with_a_report_that_says_where_and_what_to_do() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let cases = cases();
    assert!(cases.len() >= 40, "only {} bad configs", cases.len());
    let mut wrong = Vec::new();
    for (name, path) in cases {
        let Err(report) = load(&path, Mode::Run) else {
            wrong.push(format!("{name}: was accepted"));
            continue;
        };
        let shown = report.to_string();
        let golden = Path::new(FOLDER).join(format!("{name}.txt"));
        if update {
            fs::write(&golden, &shown).expect("golden file written");
        } else if fs::read_to_string(&golden).ok().as_deref() != Some(shown.as_str()) {
            wrong.push(format!("{name}: the report is now\n{shown}"));
        }
        assert!(!report.problems().is_empty(), "{name}: nothing is reported");
        assert!(!shown.contains("hunter2"), "{name}: a secret is shown\n{shown}");
        let json = report.to_json().to_string();
        assert!(!json.contains("hunter2"), "{name}: a secret is shown\n{json}");
        assert_ne!(report.render(true), "", "{name}: colours");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

const GOOD: &str = include_str!("good.toml");

#[test]
fn but_takes_the_good_one() {
    if let Err(report) = parse(&Sources::new([("good.toml", GOOD)])) {
        panic!("{report}");
    }
}

/// toml-lang's collection of invalid files, where it is at hand.
#[test]
fn whatever_is_not_toml() {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["../shared/toml-invalid", "../../shared/toml-invalid"] {
        walk(Path::new(folder), &mut found);
    }
    for path in found {
        let report = load(&path, Mode::Run).err();
        let report = report.unwrap_or_else(|| panic!("{} was accepted", path.display()));
        assert!(!report.to_string().is_empty(), "{}", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn without_a_panic_whatever_bytes_are_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6)
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => { bytes.remove(at); }
                _ => bytes[at] = b"\"'[]{}=.#\n*/%\xc3"[usize::from(byte) % 14],
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(report) = parse(&Sources::new([("good.toml", &text)])) {
            prop_assert!(!report.to_string().is_empty());
            prop_assert!(report.to_json().is_array());
        }
    }

    #[test]
    fn without_a_panic_whatever_lines_are_moved(
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..5)
    ) {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        for (from, to) in moves {
            let line = lines.remove(from.index(lines.len()));
            lines.insert(to.index(lines.len()), line);
        }
        let text = lines.join("\n");
        if let Err(report) = parse(&Sources::new([("good.toml", &text)])) {
            prop_assert!(!report.to_string().is_empty());
        }
    }
}
