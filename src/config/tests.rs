//! What a good config means.

use super::{Config, Mode, Report, Sources, load, model::*, parse};

fn config(text: &str) -> Config {
    match parse(&Sources::new([("gatepost.toml", text)])) {
        Ok(config) => config,
        Err(report) => panic!("{report}"),
    }
}

const SMALL: &str = r#"
[server]
workers = 1
state_dir = "state"
[admin]
address = "127.0.0.1:9901"
[log]
access = "off"
[listener.in]
address = "127.0.0.1:8080"
[function.f]
versions = { v1 = "http://127.0.0.1:9001", v2 = "http://127.0.0.1:9002/base/" }
weights = { v1 = 90, v2 = 10 }
[route.f]
path = "/*"
function = "f"
limits = [{ rate = "1000000/s", burst = 1000000 }]
"#;

#[test]
fn the_words_of_a_small_config_arrive() {
    let config = config(SMALL);
    assert_eq!(config.server.workers.map(u32::from), Some(1));
    assert_eq!(config.log.access, AccessSink::Off);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    let function = &config.functions[0];
    assert_eq!(function.weights, [Share(9_000), Share(1_000)]);
    assert_eq!(function.versions[1].url.base_path, "/base");
    assert_eq!(function.versions[1].url.authority, "127.0.0.1:9002");
    assert_eq!(function.baseline, None);
    let route = &config.routes[0];
    assert!(matches!(&route.path, PathPattern::Prefix(path) if path.is_empty()));
    assert!(matches!(&route.limits[0], LimitUse::Own(limit) if limit.burst.get() == 1_000_000));
}

#[test]
fn a_file_is_loaded_with_its_includes() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("gatepost.toml");
    std::fs::create_dir(folder.path().join("conf.d")).expect("conf.d");
    std::fs::write(&main, format!("include = [\"conf.d/*.toml\"]\n{SMALL}")).expect("main");
    std::fs::write(
        folder.path().join("conf.d/b.toml"),
        "[route.g]\npath = \"/g\"\nfunction = \"f\"\n",
    )
    .expect("include");
    let loaded = load(&main, Mode::Run).map_err(|report: Report| panic!("{report}"));
    let loaded = loaded.expect("loaded");
    assert_eq!(loaded.config.routes.len(), 2);
    assert_eq!(loaded.sources.files.len(), 2);
    assert_eq!(loaded.config.server.state_dir, folder.path().join("state"));
    assert!(
        loaded
            .sources
            .watched()
            .contains(&folder.path().join("conf.d"))
    );
    assert!(loaded.warnings.is_empty());
}

/// The configs of `../shared/bench`, where they are at hand.
#[test]
fn the_benchs_configs_are_taken() {
    for name in [
        "log",
        "plain",
        "ratelimit",
        "routes",
        "serverless",
        "tls",
        "uptls",
    ] {
        let path = format!("../../shared/bench/peers/gatepost/{name}/gatepost.toml");
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        let text: String =
            text.replace("#each pool", "")
                .replace("@{PORT}", "1")
                .replace("@{TLS_PORT}", "2")
                .replace("@{ADMIN_PORT}", "3")
                .lines()
                .map(|line| {
                    let line = line.replace("_PORT}", "}");
                    let filled = line.split("@{").enumerate().map(|(nth, part)| {
                        match part.split_once('}') {
                            Some((_, rest)) if nth > 0 => format!("0{rest}"),
                            _ => part.to_owned(),
                        }
                    });
                    format!("{}\n", filled.collect::<String>())
                })
                .collect();
        let text = text.replace(":0\"", ":9000\"");
        let config = config(&text);
        assert!(!config.routes.is_empty(), "{name}");
    }
}
