//! The house keeps its plan: what a room may name, read from the sources.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A room, and the other rooms that it may use. `lib.rs` says the same in words.
const ROOMS: [(&str, &[&str]); 12] = [
    ("config", &[]),
    ("decide", &["config"]),
    ("platform", &["config"]),
    ("credential", &["config", "decide", "platform"]),
    ("upstream", &["config", "decide", "platform"]),
    ("observe", &["config", "decide", "platform", "upstream"]),
    ("release", &["config", "decide", "observe"]),
    ("ingress", &["config", "decide", "platform", "upstream", "release", "observe"]),
    ("egress", &["config", "decide", "platform", "upstream", "observe"]),
    ("admin", &["config", "decide", "platform", "upstream", "release", "observe"]),
    (
        "serve",
        &["config", "decide", "platform", "credential", "upstream", "release", "observe", "ingress", "egress", "admin"],
    ),
    (
        "cli",
        &[
            "config",
            "decide",
            "platform",
            "credential",
            "upstream",
            "release",
            "observe",
            "ingress",
            "egress",
            "admin",
            "serve",
        ],
    ),
];

/// The rooms that are more than rules.
const AT_WORK: &[&str] = &["upstream", "release", "observe", "ingress", "egress", "admin", "serve", "cli"];

/// Words that only some rooms may write, and why.
const BANNED: [(&str, &[&str], &str); 6] = [
    ("pingora", &["ingress", "upstream", "serve"], "pingora stays where bytes are moved"),
    ("tokio", AT_WORK, "rules know no runtime"),
    ("tracing", AT_WORK, "rules return, they don't log"),
    ("Instant::now", AT_WORK, "the clock is an argument"),
    ("SystemTime::now", AT_WORK, "the clock is an argument"),
    ("std::net::TcpStream", AT_WORK, "rules know no sockets"),
];

#[test]
fn rooms_use_only_rooms_before_them() {
    let mut wrong = String::new();
    for source in sources() {
        let Some(&(room, may)) = ROOMS.iter().find(|(name, _)| *name == source.room) else {
            continue;
        };
        for (number, line) in source.code() {
            for other in rooms_named(line).into_iter().filter(|&other| other != room && !may.contains(&other)) {
                let _ = writeln!(wrong, "{}:{number}: {room} may not use {other}", source.path.display());
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn words_stay_in_the_rooms_that_may_know_them() {
    let mut wrong = String::new();
    for source in sources() {
        for (word, rooms, why) in BANNED {
            if rooms.contains(&source.room.as_str()) {
                continue;
            }
            for (number, line) in source.code().into_iter().filter(|(_, line)| names(line, word)) {
                let _ = writeln!(wrong, "{}:{number}: `{word}` ({why}): {}", source.path.display(), line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_folder_is_a_room_with_an_entry_in_the_map() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rs") {
            assert!(["lib.rs", "main.rs"].contains(&name.as_str()), "src/{name} is in no room");
            continue;
        }
        assert!(ROOMS.iter().any(|(room, _)| *room == name), "src/{name} is no room of this test");
        assert!(map.contains(&format!("- [`{name}`")), "src/lib.rs does not say what `{name}` is");
    }
}

#[test]
fn files_stay_readable() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, path)| *lines > 700 && !path.ends_with("tests.rs"))
        .collect();
    assert!(long.is_empty(), "over 700 lines: {long:?}");
}

#[test]
fn the_test_itself_sees_a_wrong_use() {
    assert_eq!(rooms_named("use crate::serve::Receipt;"), ["serve"]);
    assert_eq!(rooms_named("use crate::{config::model::Name, serve, admin as a};"), ["config", "serve", "admin"]);
    assert_eq!(rooms_named("    crate::upstream::pick(&x)"), ["upstream"]);
    assert!(rooms_named("observed serve admin").is_empty());
    assert!(names("use tokio::net;", "tokio") && names("tokio_rustls::x", "tokio"));
    assert!(!names("let mytokio = 1;", "tokio") && !names("let a = \"pingora=off\";", "pingora"));
    let code = |text: &str| {
        let source = Source { room: "x".into(), path: "x".into(), text: text.into() };
        source.code().into_iter().map(|(_, line)| line).collect::<Vec<_>>()
    };
    assert_eq!(code("a; // tokio\n//! pingora\nb\n#[cfg(test)]\nmod tests {\n  use tokio;\n}\n"), ["a; ", "b"]);
    assert_eq!(code("use crate::{\n    serve::x,\n};\n"), ["use crate::{ serve::x, };"]);
}

struct Source {
    room: String,
    path: PathBuf,
    text: String,
}

impl Source {
    /// Numbered lines without comments and without what stands behind `#[cfg(test)]` (the bottom of the file, by our
    /// habit); a `use` over several lines is one.
    fn code(&self) -> Vec<(usize, String)> {
        let mut lines: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            let line = line.split("//").next().unwrap_or_default();
            if line.trim().is_empty() {
                continue;
            }
            match lines.last_mut() {
                Some((_, last)) if open => {
                    last.push(' ');
                    last.push_str(line.trim());
                }
                _ => lines.push((index + 1, line.to_owned())),
            }
            let last = lines.last().map_or("", |(_, line)| line.as_str());
            let starts_use = last.trim_start().trim_start_matches("pub ").starts_with("use ");
            open = starts_use && !last.contains(';');
        }
        lines
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src/` but those that are tests only.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                let inside = path.strip_prefix(root().join("src")).unwrap();
                let room = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { room, path: path.strip_prefix(root()).unwrap().to_owned(), text });
            }
        }
    }
    assert!(found.len() > ROOMS.len());
    found
}

/// The rooms that a line of code names: `crate::serve::…` and `crate::{config::…, serve}`.
fn rooms_named(line: impl AsRef<str>) -> Vec<&'static str> {
    let line = line.as_ref();
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        let heads: Vec<&str> = match part.strip_prefix('{') {
            Some(list) => top_level(list),
            None => vec![part],
        };
        for head in heads {
            let word: String = head.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some((room, _)) = ROOMS.iter().find(|(room, _)| *room == word) {
                found.push(*room);
            }
        }
    }
    found
}

/// The items of a brace list, up to its closing brace; what is nested stays with its item.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items
}

/// Whether `word` begins a path or an identifier in `line`.
fn names(line: impl AsRef<str>, word: &str) -> bool {
    // What stands in quotes (a log filter's words, say) names nothing.
    let line: String = line.as_ref().split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    line.match_indices(word)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_'))
}
