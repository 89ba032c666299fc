//! Every file in `conf/` is a config that gatepost takes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use gatepost::config::{self, Loaded, Mode, model::PlatformName};
use serde_json::Value;

fn shipped() -> Vec<PathBuf> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut files: Vec<_> = [conf.clone(), conf.join("functions")]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    files.sort();
    files
}

/// Loads a copy of the file, with certificates and secrets where it wants some.
fn load(file: &Path) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    fs::create_dir(&tls).unwrap();
    let text = fs::read_to_string(file).unwrap().replace("/etc/gatepost/tls", tls.to_str().unwrap());
    let named = text.split('"').filter(|part| part.starts_with(tls.to_str().unwrap()));
    for pem in named.filter(|path| path.ends_with(".pem")).collect::<BTreeSet<_>>() {
        let made = rcgen::generate_simple_self_signed(["api.example.com".to_owned()]).unwrap();
        fs::write(pem, made.cert.pem()).unwrap();
        fs::write(Path::new(pem).with_extension("key"), made.signing_key.serialize_pem()).unwrap();
    }
    let secrets = dir.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let text = text.replace("/etc/gatepost/secrets", secrets.to_str().unwrap());
    let named = text.split('"').filter_map(|part| part.strip_prefix("file:"));
    for secret in named.filter(|path| path.starts_with(secrets.to_str().unwrap())) {
        // Of what callers show, gatepost is given the hash.
        let text = if secret.ends_with(".sha256") { "0123456789abcdef".repeat(4) } else { "hush".to_owned() };
        fs::write(secret, text).unwrap();
    }
    let copy = dir.path().join("gatepost.toml");
    fs::write(&copy, text).unwrap();
    config::load(&copy, Mode::Run).unwrap_or_else(|report| panic!("{}:\n{report}", file.display()))
}

#[test]
fn every_shipped_config_is_right() {
    let files = shipped();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let loaded = load(&file);
        assert!(loaded.warnings.is_empty(), "{}:\n{}", file.display(), loaded.warnings);
        let listeners = loaded.config.listeners.len() + loaded.config.egress.listeners.len();
        assert!(listeners > 0, "{} listens nowhere", file.display());
    }
}

#[test]
fn each_platform_has_a_config_that_is_of_it_and_a_section_in_the_docs() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/functions.md")).unwrap();
    for name in PlatformName::ALL.map(PlatformName::as_str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("conf/functions/{name}.toml"));
        let loaded = load(&file);
        let of_it = loaded.config.functions.iter().all(|function| function.platform.name.as_str() == name);
        assert!(of_it && !loaded.config.routes.is_empty(), "{}", file.display());
        assert!(docs.contains(&format!("## `{name}`")), "docs/functions.md has no section on {name}");
        assert!(docs.contains(&format!("conf/functions/{name}.toml")), "docs/functions.md does not lead to its config");
    }
}

#[test]
fn the_minimal_one_is_minimal_and_serves() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/minimal.toml");
    assert!(fs::read_to_string(&file).unwrap().lines().count() <= 10);
    assert_eq!(load(&file).config.routes.len(), 1);
}

#[test]
fn the_packaged_default_is_right_with_its_examples_uncommented() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gatepost.toml")).unwrap();
    let example = text.split_once("# A function has versions").unwrap().1;
    let example = example.lines().skip(2).map(|line| line.trim_start_matches('#').trim_start()).collect::<Vec<_>>();
    let before = text.split_once("# A function has versions").unwrap().0;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatepost.toml");
    fs::write(&file, format!("{before}\n{}\n", example.join("\n"))).unwrap();
    let loaded = config::load(&file, Mode::Run).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.config.routes.len(), 1);
}

#[test]
fn the_reference_names_every_key() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let schema = config::schema();
    let mut keys = BTreeSet::new();
    collect(&schema, &schema, &mut Vec::new(), &mut keys, 0);
    assert!(keys.len() > 50, "the schema is not understood: {keys:?}");
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| {
            let last = key.rsplit('.').next().unwrap();
            let table = [format!("`[{last}]`"), format!("`[{last}.NAME]`")];
            !text.contains(&format!("`{last}`")) && !table.iter().any(|table| text.contains(table))
        })
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md does not say what these are: {missing:#?}");
}

/// The keys of a schema with the tables that they stand in, names left out.
fn collect(root: &Value, at: &Value, path: &mut Vec<String>, keys: &mut BTreeSet<String>, depth: usize) {
    assert!(depth < 40, "the schema never ends at {path:?}");
    if let Some(reference) = at.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        collect(root, target, path, keys, depth + 1);
    }
    for (key, value) in at.get("properties").and_then(Value::as_object).into_iter().flatten() {
        path.push(key.clone());
        keys.insert(path.join("."));
        collect(root, value, path, keys, depth + 1);
        path.pop();
    }
    for inner in ["additionalProperties", "items"] {
        if let Some(value) = at.get(inner).filter(|value| value.is_object()) {
            collect(root, value, path, keys, depth + 1);
        }
    }
    for (_, value) in at.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
        collect(root, value, path, keys, depth + 1);
    }
    for inner in ["anyOf", "oneOf", "allOf"] {
        for value in at.get(inner).and_then(Value::as_array).into_iter().flatten() {
            collect(root, value, path, keys, depth + 1);
        }
    }
}
