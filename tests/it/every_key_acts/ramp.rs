//! `ramp` of a function, and `[freeze]`.

use jiff::{SignedDuration, Zoned, civil::Weekday, tz::TimeZone};

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, eventually, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.ramp.version", version),
        ("function.*.ramp.steps", steps),
        ("function.*.ramp.hold", hold),
        ("function.*.ramp.hours", hours),
        ("function.*.ramp.days", days),
        ("function.*.ramp.timezone", timezone),
        ("freeze.timezone", freeze_timezone),
        ("freeze.windows.from", freeze_from),
        ("freeze.windows.to", freeze_to),
        ("freeze.windows.reason", freeze_reason),
    ]
}

async fn comes_to(gateway: &Gateway, version: &str, percent: f64) {
    eventually(&format!("{version} comes to {percent} %"), async || {
        let share = gateway.metrics().await.sum("gatepost_release_share", &[("function", "f"), ("version", version)]);
        when((share - percent).abs() < f64::EPSILON)
    })
    .await;
}

/// With a ramp, and lines behind it: the one gatepost comes to one share of that version, the other to another.
async fn ramped(leaf: Leaf, ramp: &str, behind: &str, leaves: [&str; 2], shares: [(&str, f64); 2]) {
    let versions = [named("v1").await, named("v2").await, named("v3").await];
    let urls: Vec<_> = versions.iter().zip(1..).map(|(f, n)| format!("v{n} = \"{}\"", f.url())).collect();
    let config = format!(
        "[function.f]\nversions = {{ {} }}\nweights = {{ v1 = \"rest\" }}\nramp = {{ {ramp} }}\n[route.f]\nfunction = \"f\"\n{behind}",
        urls.join(", ")
    );
    let both = leaf.pair(&config, leaves[0], leaves[1]).start().await;
    // The second first: what the first does not do it has had time for.
    for (gateway, (version, share)) in both.iter().zip(shares).rev() {
        comes_to(gateway, version, share).await;
    }
}

async fn version(leaf: Leaf) {
    let leaves = ["version = \"v2\"", "version = \"v3\""];
    ramped(leaf, "LEAF, steps = [40]", "", leaves, [("v2", 40.0), ("v3", 40.0)]).await;
}

async fn steps(leaf: Leaf) {
    let leaves = ["steps = [40]", "steps = [60]"];
    ramped(leaf, "version = \"v2\", hold = \"50ms\", LEAF", "", leaves, [("v2", 40.0), ("v2", 60.0)]).await;
}

async fn hold(leaf: Leaf) {
    let leaves = ["hold = \"1h\"", "hold = \"50ms\""];
    ramped(leaf, "version = \"v2\", steps = [10, 40], LEAF", "", leaves, [("v2", 10.0), ("v2", 40.0)]).await;
}

const UP: &str = "version = \"v2\", steps = [40]";
const NOT_AND_UP: [(&str, f64); 2] = [("v2", 0.0), ("v2", 40.0)];

/// So many hours from now.
fn later(hours: i64) -> Zoned {
    Zoned::now().with_time_zone(TimeZone::UTC) + SignedDuration::from_hours(hours)
}

fn between(from: i64, to: i64) -> String {
    format!("hours = \"{}-{}\"", later(from).strftime("%H:%M"), later(to).strftime("%H:%M"))
}

async fn hours(leaf: Leaf) {
    let ramp = format!("{UP}, timezone = \"UTC\", LEAF");
    ramped(leaf, &ramp, "", [&between(5, 7), &between(-3, 3)], NOT_AND_UP).await;
}

async fn days(leaf: Leaf) {
    let ramp = format!("{UP}, timezone = \"UTC\", LEAF");
    let today: Weekday = later(0).weekday();
    let name = |day: Weekday| gatepost::config::model::DAYS[usize::try_from(day.to_monday_zero_offset()).unwrap()];
    let far = format!("days = [\"{}\"]", name(today.wrapping_add(3)));
    ramped(leaf, &ramp, "", [&far, "days = [\"mon-fri\", \"sat\", \"sun\"]"], NOT_AND_UP).await;
}

async fn timezone(leaf: Leaf) {
    let ramp = format!("{UP}, {}, LEAF", between(-3, 3));
    ramped(leaf, &ramp, "", ["timezone = \"Asia/Tokyo\"", "timezone = \"UTC\""], NOT_AND_UP).await;
}

async fn freeze_timezone(leaf: Leaf) {
    let [from, to] = [later(-3), later(3)].map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
    let freeze = format!("[freeze]\nLEAF\nwindows = [{{ from = \"{from}\", to = \"{to}\" }}]\n");
    ramped(leaf, UP, &freeze, ["timezone = \"UTC\"", "timezone = \"Asia/Tokyo\""], NOT_AND_UP).await;
}

async fn freeze_from(leaf: Leaf) {
    let freeze = "[freeze]\ntimezone = \"UTC\"\nwindows = [{ LEAF, to = \"2199-01-02\" }]\n";
    ramped(leaf, UP, freeze, ["from = \"2020-01-01\"", "from = \"2199-01-01\""], NOT_AND_UP).await;
}

async fn freeze_to(leaf: Leaf) {
    let freeze = "[freeze]\ntimezone = \"UTC\"\nwindows = [{ from = \"2020-01-01\", LEAF }]\n";
    ramped(leaf, UP, freeze, ["to = \"2199-01-01\"", "to = \"2020-01-01 12:00\""], NOT_AND_UP).await;
}

/// It is what `explain` and `status` say of a ramp that does not move.
async fn freeze_reason(leaf: Leaf) {
    let config = "[function.f]\nversions = { v1 = \"http://127.0.0.1:1\", v2 = \"http://127.0.0.1:2\" }\n\
                  weights = { v1 = \"rest\" }\nramp = { version = \"v2\" }\n[route.f]\nfunction = \"f\"\n\
                  [freeze]\ntimezone = \"UTC\"\nwindows = [{ from = \"2020-01-01\", to = \"2199-01-01\", LEAF }]\n";
    let pair = leaf.pair(config, "reason = \"year end\"", "reason = \"audit\"");
    let said = pair.explained(&["GET", "http://a/"]).map(|told| told["releases"][0].to_string());
    assert!(said[0].contains("year end") && said[1].contains("audit"), "{said:?}");
}
