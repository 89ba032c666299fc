use super::*;
use crate::{
    config::{Sources, parse},
    decide::{Class, compile},
};

const VERSIONS: &str =
    "versions = { v1 = \"http://v1.test\", v2 = \"http://v2.test\" }\nweights = { v1 = \"rest\", v2 = 40 }\n";

fn compiled(lines: &str, previous: Option<&Snapshot>) -> Snapshot {
    let text =
        format!("[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\n{lines}\n[route.f]\nfunction = \"f\"\n");
    let config = parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"));
    compile(config, 1, String::new(), 1, previous, Now(0))
}

const HEALTH: &str =
    "health = { consecutive_failures = 2, base_ejection_time = \"10s\", max_ejection_time = \"35s\" }\n";

fn seconds(at: u64) -> Now {
    Now(at * 1_000_000_000)
}

fn ends(snapshot: &Snapshot, version: usize, class: Class, times: usize) {
    let consecutive = snapshot.config.functions[0].health.as_ref().unwrap().consecutive_failures;
    for _ in 0..times {
        snapshot.health[0].as_ref().unwrap()[version].ended(class, consecutive);
    }
}

/// What turned, as `v2 ejected`.
fn turns(outliers: &mut Outliers, snapshot: &Snapshot, at: u64) -> Vec<String> {
    let told = |turn: Turn| match turn.stands {
        Stands::Out(time) => format!("{} ejected {}s", turn.version, time.as_secs()),
        stands => format!("{} {}", turn.version, stands.as_str()),
    };
    outliers.look(snapshot, seconds(at)).into_iter().map(told).collect()
}

#[test]
fn a_failing_canary_is_out_tried_again_and_out_for_twice_as_long() {
    let snapshot = compiled(&format!("{VERSIONS}{HEALTH}"), None);
    let mut outliers = Outliers::default();
    ends(&snapshot, 1, Class::Function, 1);
    assert!(turns(&mut outliers, &snapshot, 100).is_empty());
    ends(&snapshot, 1, Class::Timeout, 1);
    assert_eq!(turns(&mut outliers, &snapshot, 101), ["v2 ejected 10s"]);
    // Stragglers, and those that an override sends.
    ends(&snapshot, 1, Class::Function, 5);
    assert!(turns(&mut outliers, &snapshot, 110).is_empty());
    let name: Name = "f".into();
    assert_eq!(outliers.of(&name), (BTreeSet::from(["v2".into()]), BTreeSet::new()));
    assert_eq!(turns(&mut outliers, &snapshot, 111), ["v2 tried again"]);
    assert_eq!(outliers.of(&name), (BTreeSet::new(), BTreeSet::from(["v2".into()])));
    ends(&snapshot, 1, Class::Ok, 2);
    assert!(turns(&mut outliers, &snapshot, 112).is_empty(), "two are not enough");
    ends(&snapshot, 1, Class::Function, 1);
    assert_eq!(turns(&mut outliers, &snapshot, 113), ["v2 ejected 20s"]);
    assert_eq!(turns(&mut outliers, &snapshot, 133), ["v2 tried again"]);
    ends(&snapshot, 1, Class::Function, 1);
    assert_eq!(turns(&mut outliers, &snapshot, 134), ["v2 ejected 35s"], "never longer");
    assert_eq!(turns(&mut outliers, &snapshot, 169), ["v2 tried again"]);
    ends(&snapshot, 1, Class::Ok, 3);
    assert_eq!(turns(&mut outliers, &snapshot, 170), ["v2 well"]);
    // Well for as long as it was out, it has one time less to its name: two are left.
    assert!(turns(&mut outliers, &snapshot, 205).is_empty());
    ends(&snapshot, 1, Class::Function, 2);
    assert_eq!(turns(&mut outliers, &snapshot, 206), ["v2 ejected 35s"]);
}

#[test]
fn the_baseline_stays_and_so_does_who_is_alone() {
    for lines in [VERSIONS, "versions = { v1 = \"http://v1.test\" }\n"] {
        let snapshot = compiled(&format!("{lines}{HEALTH}"), None);
        let mut outliers = Outliers::default();
        ends(&snapshot, 0, Class::Unreachable, 50);
        assert!(turns(&mut outliers, &snapshot, 1).is_empty());
    }
    let snapshot = compiled(&format!("{}{HEALTH}", VERSIONS.replace("\"rest\"", "60")), None);
    let mut outliers = Outliers::default();
    ends(&snapshot, 0, Class::Unreachable, 50);
    assert_eq!(turns(&mut outliers, &snapshot, 1), ["v1 ejected 10s"], "without a baseline all are alike");
}

#[test]
fn it_outlives_a_reload_unless_the_version_is_another_or_nobody_asks_any_more() {
    let snapshot = compiled(&format!("{VERSIONS}{HEALTH}"), None);
    let mut outliers = Outliers::default();
    ends(&snapshot, 1, Class::Function, 2);
    assert_eq!(turns(&mut outliers, &snapshot, 1), ["v2 ejected 10s"]);
    let more = VERSIONS
        .replace("v1 =", "v0 = \"http://v0.test\", v1 =")
        .replace("weights = { v0 = \"http://v0.test\", v1", "weights = { v1");
    let reloaded = compiled(&format!("{more}{HEALTH}"), Some(&snapshot));
    assert!(turns(&mut outliers, &reloaded, 2).is_empty(), "it has another number, and is the same");
    let moved = compiled(&format!("{}{HEALTH}", VERSIONS.replace("http://v2", "http://other")), Some(&reloaded));
    assert_eq!(turns(&mut outliers, &moved, 3), ["v2 well"]);
    ends(&moved, 1, Class::Function, 2);
    assert_eq!(turns(&mut outliers, &moved, 4), ["v2 ejected 10s"]);
    let off = compiled(VERSIONS, Some(&moved));
    assert_eq!(turns(&mut outliers, &off, 5), ["v2 well"]);
    let now_the_baseline = VERSIONS.replace("v1 = \"rest\", v2 = 40", "v1 = 40, v2 = \"rest\"");
    let moved = compiled(&format!("{VERSIONS}{HEALTH}"), None);
    ends(&moved, 1, Class::Function, 2);
    assert_eq!(turns(&mut outliers, &moved, 6), ["v2 ejected 10s"]);
    let promoted = compiled(&format!("{now_the_baseline}{HEALTH}"), Some(&moved));
    assert_eq!(turns(&mut outliers, &promoted, 7), ["v2 well"], "who promotes it wants it");
}

#[test]
fn a_check_puts_out_also_who_gets_no_requests_and_lets_back_who_passes_it() {
    const CHECKED: &str = "health = { base_ejection_time = \"10s\", check = { path = \"/\", fall = 2, rise = 2 } }\n";
    let snapshot = compiled(&format!("{VERSIONS}{CHECKED}"), None);
    let mut outliers = Outliers::default();
    let probe = |version: usize, is_well| snapshot.health[0].as_ref().unwrap()[version].checked(is_well);
    assert_eq!(probe(1, false), (0, 1));
    probe(0, false);
    assert!(turns(&mut outliers, &snapshot, 100).is_empty());
    assert_eq!(probe(1, false), (1, 2));
    probe(0, false);
    let turned = outliers.look(&snapshot, seconds(101));
    assert_eq!(turned.len(), 1, "the baseline stays: {turned:?}");
    assert_eq!(
        turned[0].event().text,
        "function f: v2 fails its check, and gets no requests for 10s, nor before its check passes"
    );
    probe(1, true);
    assert!(turns(&mut outliers, &snapshot, 150).is_empty(), "one is not enough");
    probe(1, false);
    probe(1, true);
    assert!(turns(&mut outliers, &snapshot, 151).is_empty(), "in a row");
    probe(1, true);
    assert_eq!(turns(&mut outliers, &snapshot, 152), ["v2 tried again"]);
    // Requests have the last word, and where they fail the passing check lets it be tried again, after its time.
    ends(&snapshot, 1, Class::Function, 1);
    assert_eq!(turns(&mut outliers, &snapshot, 153), ["v2 ejected 20s"]);
    probe(1, true);
    probe(1, true);
    assert!(turns(&mut outliers, &snapshot, 172).is_empty());
    assert_eq!(turns(&mut outliers, &snapshot, 173), ["v2 tried again"]);
    probe(1, false);
    probe(1, false);
    assert_eq!(turns(&mut outliers, &snapshot, 174), ["v2 ejected 40s"]);
    // Without a check its time alone counts.
    let unchecked = compiled(&format!("{VERSIONS}{HEALTH}"), Some(&snapshot));
    assert_eq!(turns(&mut outliers, &unchecked, 214), ["v2 tried again"]);
}
