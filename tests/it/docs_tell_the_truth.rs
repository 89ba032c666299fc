//! What the docs say of metrics, reasons, reports and the first config is so.

use std::{collections::BTreeSet, fs, path::Path};

use gatepost::{
    config::{self, Mode},
    decide::{Class, Reason, split},
};

use crate::harness::{gateway, gateway::Gateway, origin};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The fenced blocks of that language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What `check` says of this text as `/etc/gatepost/gatepost.toml`.
fn report(text: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatepost.toml");
    fs::write(&file, text).unwrap();
    let report = config::load(&file, Mode::Check).err()?;
    Some(report.to_string().replace(&dir.path().display().to_string(), "/etc/gatepost"))
}

/// Words that begin as metrics do; a histogram's parts count as the histogram.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("gatepost_") || word.starts_with("process_"))
        .filter(|word| *word != "gatepost_sticky")
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().fold(word, |w, end| w.strip_suffix(end).unwrap_or(w)).to_owned()
        })
        .collect()
}

async fn running() -> Gateway {
    let function = origin().start().await;
    let rules = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.r]\nfunction = \"f\"\nlimits = [{{ rate = \"100/s\" }}]\n",
        function.url()
    );
    let gateway = gateway(rules).start().await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway
}

#[tokio::test]
async fn every_metric_in_the_docs_is_served_and_every_one_served_is_in_the_docs() {
    let gateway = running().await;
    let served = gateway.ask_admin("/metrics").await.text();
    let served: BTreeSet<String> =
        served.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    let told = metrics(&read("docs/operations.md"));
    assert_eq!(told, served, "docs/operations.md on the left, /metrics on the right");
    for page in ["README.md", "docs/configuration.md", "docs/architecture.md"] {
        let mut told = metrics(&read(page));
        // pingora's function, which begins as the metrics of processes do.
        told.remove("process_new_http");
        assert!(told.is_subset(&served), "{page}: {told:?}");
    }
}

#[test]
fn operations_says_what_to_do_about_every_reason_and_what_each_class_is() {
    let text = read("docs/operations.md");
    for reason in Reason::ALL {
        assert!(text.contains(&format!("`{}`", reason.as_str())), "{}", reason.as_str());
    }
    for class in Class::ALL {
        assert!(text.contains(&format!("`{}`", class.as_str())), "{}", class.as_str());
    }
}

#[test]
fn the_first_config_is_short_and_right() {
    let readme = read("README.md");
    let [first] = blocks(&readme, "toml")[..] else { panic!("one config in README.md") };
    assert!(first.lines().count() <= 15, "{first}");
    assert_eq!(report(first), None);
}

#[test]
fn the_example_of_a_mistake_gets_the_report_that_is_shown() {
    let text = read("docs/configuration.md");
    let (_, section) = text.split_once("## When it is wrong").unwrap();
    let file = blocks(section, "toml")[0];
    let shown = blocks(section, "text")[0];
    let made = report(file).expect("the example is right");
    assert_eq!(shown.trim_end(), made.trim_end(), "the report is now\n{made}");
}

#[test]
fn the_examples_of_the_reference_have_no_unknown_key_and_no_wrong_word() {
    let text = read("docs/configuration.md");
    let (reference, _) = text.split_once("## When it is wrong").unwrap();
    let functions = read("docs/functions.md");
    let (examples, worked) = (blocks(reference, "toml"), blocks(&functions, "toml"));
    assert!(examples.len() >= 10 && worked.len() >= 6);
    for example in examples.into_iter().chain(worked) {
        // Its names are of tables elsewhere, and its files of another machine.
        let report = report(example).unwrap_or_default();
        let wrong: Vec<_> = report
            .lines()
            .filter(|line| line.starts_with("error: "))
            .filter(|line| line.contains("unknown") || line.contains("is not a") || line.contains("not valid"))
            .collect();
        assert!(wrong.is_empty(), "{example}\n{report}");
    }
}

#[test]
fn the_example_of_the_sticky_formula_is_right() {
    assert!(read("docs/configuration.md").contains("`orders` and the value `alice` make bucket 4050"));
    assert_eq!(split::bucket("orders", b"alice"), 4050);
}
