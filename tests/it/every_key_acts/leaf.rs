//! The leaves of the schema, and pairs of configs that differ in one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use gatepost::config::schema;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Gateway,
    gateway::{Build, fill_in, gateway},
};

/// Every leaf: its path, a name that the user gives being `*`; where it takes words of its own, one leaf for each (`log.format = json`).
pub(super) fn leaves() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(&schema(), "", &mut found);
    found
}

fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let below = |key: &str| format!("{path}.{key}").trim_start_matches('.').to_owned();
    assert!(schema.get("$ref").is_none() && schema.get("oneOf").is_none(), "{path}: teach the walk about it");
    let mut is_leaf = true;
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        is_leaf = false;
        // Of several forms a list is one of its own.
        let path =
            if one["type"] == "array" && one["items"]["properties"].is_null() { &format!("{path}[]") } else { path };
        walk(one, path, found);
    }
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        is_leaf = false;
        walk(schema, &below(key), found);
    }
    if schema["additionalProperties"].is_object() {
        is_leaf = false;
        walk(&schema["additionalProperties"], &below("*"), found);
    }
    let items = &schema["items"];
    if items.is_object() && (items.get("properties").is_some() || items.get("anyOf").is_some()) {
        is_leaf = false;
        walk(items, path, found);
    }
    if !is_leaf {
        return;
    }
    match words(schema).or_else(|| words(items)) {
        Some(words) => found.extend(words.iter().map(|word| format!("{path} = {word}"))),
        None => drop(found.insert(path.to_owned())),
    }
}

/// The words that a value is one of, or begins with (`header:`); `None`: it is free.
fn words(schema: &Value) -> Option<Vec<String>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word.to_owned()]);
    }
    if let Some(all) = schema["enum"].as_array() {
        return Some(all.iter().map(|word| word.as_str().unwrap().to_owned()).collect());
    }
    let pattern = schema["pattern"].as_str()?.strip_prefix("^(")?.strip_suffix(")$")?;
    let word = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(part.len());
        match part[end..].chars().next() {
            None if end > 0 => Some(part.to_owned()),
            Some(':') if end > 0 => Some(part[..=end].to_owned()),
            _ => None,
        }
    };
    pattern.split('|').map(word).collect()
}

/// The leaves that a config sets: where, which leaf of the schema that is, and to what.
fn set(schema: &Value, value: &Value, at: &str, path: &str, found: &mut BTreeMap<String, (String, Value)>) {
    let entry = |at: String, path: String, value: &Value, found: &mut BTreeMap<_, _>| {
        found.insert(at, (path, value.clone()));
    };
    let known = |one: &Value| match value {
        Value::Object(table) => table.keys().all(|key| one["properties"].get(key).is_some()),
        Value::Array(_) => one["type"] == "array",
        Value::String(_) => one["type"] == "string" || one.get("const") == Some(value),
        _ => one["type"] == "number" || one["type"] == "integer",
    };
    if let Some(one) = schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| known(one))) {
        let path = if value.is_array() { &format!("{path}[]") } else { path };
        return set(one, value, at, path, found);
    }
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let (name, schema) = match schema["properties"].get(key) {
                    Some(schema) => (key.as_str(), schema),
                    None => ("*", &schema["additionalProperties"]),
                };
                let path = format!("{path}.{name}");
                set(schema, value, &format!("{at}.{key}"), path.trim_start_matches('.'), found);
            }
        }
        Value::Array(all) if all.iter().any(Value::is_object) => {
            for (n, value) in all.iter().enumerate() {
                set(&schema["items"], value, &format!("{at}[{n}]"), path, found);
            }
        }
        _ => entry(at.to_owned(), path.to_owned(), value, found),
    }
}

/// How a gatepost comes to its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Start,
    Reload,
}

/// The leaf that a proof is about.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) name: &'static str,
    pub(super) way: Way,
    pub(super) was_compared: Arc<AtomicBool>,
}

impl Leaf {
    pub(super) fn new(name: &'static str, way: Way) -> Self {
        Self { name, way, was_compared: Arc::default() }
    }

    /// The leaf's own key: the last of its path.
    pub(super) fn key(&self) -> &'static str {
        let path = self.name.split(" = ").next().unwrap_or_default();
        path.rsplit('.').next().unwrap_or_default()
    }

    /// `config` twice, with `one` and with `other` in place of `LEAF`. Fails unless this leaf is all that they differ in.
    #[track_caller]
    pub(super) fn pair(&self, config: &str, one: &str, other: &str) -> Pair {
        assert!(config.contains("LEAF"), "{}: no place for the leaf", self.name);
        let texts = [one, other].map(|line| config.replace("LEAF", line));
        let sets = texts.each_ref().map(|text| {
            let text = fill_in(text, Path::new("/dir"), 1);
            let value: Value = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", self.name));
            let mut found = BTreeMap::new();
            set(&schema(), &value, "", "", &mut found);
            found
        });
        let (path, word) = match self.name.split_once(" = ") {
            Some((path, word)) => (path, Some(word)),
            None => (self.name, None),
        };
        let places: BTreeSet<&String> = sets[0].keys().chain(sets[1].keys()).collect();
        let differing: Vec<_> = places.into_iter().filter(|at| sets[0].get(*at) != sets[1].get(*at)).collect();
        assert_eq!(differing.len(), 1, "{}: they differ in {differing:?}", self.name);
        let values: Vec<_> = sets.iter().filter_map(|set| set.get(differing[0])).collect();
        assert!(values.iter().any(|(p, _)| p == path), "{}: they differ in {values:?}", self.name);
        if let Some(word) = word {
            let says =
                |text: &Value| text.as_str().is_some_and(|t| t == word || (word.ends_with(':') && t.starts_with(word)));
            let any = |value: &Value| says(value) || value.as_array().is_some_and(|all| all.iter().any(says));
            assert!(values.iter().any(|(_, value)| any(value)), "{}: nobody says {word}: {values:?}", self.name);
        }
        self.was_compared.store(true, Relaxed);
        Pair { leaf: self.clone(), texts, also: Vec::new() }
    }
}

type Also = Box<dyn Fn(Build) -> Build + Send>;

/// Two configs that differ in one leaf.
pub(super) struct Pair {
    leaf: Leaf,
    texts: [String; 2],
    also: Vec<Also>,
}

impl Pair {
    /// What both gateposts have beside their config.
    pub(super) fn also(mut self, also: impl Fn(Build) -> Build + Send + 'static) -> Self {
        self.also.push(Box::new(also));
        self
    }

    fn build(&self, which: usize) -> Build {
        let build = gateway(self.texts[which].clone()).workers(1);
        self.also.iter().fold(build, |build, also| also(build))
    }

    /// A gatepost with the one, and a gatepost with the other: started so, or brought there by a reload.
    pub(super) async fn start(self) -> [Gateway; 2] {
        let one = self.build(0).start().await;
        let other = match self.leaf.way {
            Way::Start => self.build(1).start().await,
            Way::Reload => {
                let other = self.build(0).start().await;
                let text = fill_in(&self.texts[1], other.dir(), 1);
                let receipt = other.edit(|_| text).await;
                assert_eq!(receipt.result, "applied", "{}: {}", self.leaf.name, other.stderr());
                other
            }
        };
        [one, other]
    }

    /// The one is served, the other refused: with these words.
    pub(super) async fn refuses(self, words: &[&str]) -> Gateway {
        self.refuses_with(2, words).await
    }

    /// The same; a start ends with this code.
    pub(super) async fn refuses_with(self, ends: i32, words: &[&str]) -> Gateway {
        let one = self.build(0).start().await;
        let said = match self.leaf.way {
            Way::Start => {
                let (code, said) = self.build(1).fails().await;
                assert_eq!(code, Some(ends), "{}: {said}", self.leaf.name);
                said
            }
            Way::Reload => {
                let text = fill_in(&self.texts[1], one.dir(), 1);
                let receipt = one.edit(|_| text).await;
                assert_eq!(receipt.result, "rejected", "{}: {}", self.leaf.name, one.stderr());
                for word in words {
                    one.says(&[word]).await;
                }
                one.stderr()
            }
        };
        assert!(words.iter().all(|word| said.contains(word)), "{}: {words:?} in\n{said}", self.leaf.name);
        one
    }

    /// What `gatepost explain --json ARGS` says of each.
    pub(super) fn explained(&self, args: &[&str]) -> [Value; 2] {
        self.texts.each_ref().map(|text| {
            let dir = TempDir::with_prefix("gatepost-").unwrap();
            let file = dir.path().join("gatepost.toml");
            std::fs::write(&file, fill_in(text, dir.path(), 1)).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
            let output = command.args(["explain", "--json", "--config"]).arg(file).args(args).output().unwrap();
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
        })
    }
}
