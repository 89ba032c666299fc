//! `ramp` of a function, and `[freeze]`.

use jiff::{SignedDuration, Zoned, civil::Weekday, tz::TimeZone};

use super::{Proof, credential::places, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Reply, eventually, gate, origin, origin::Seen, tls::authority, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.ramp.version", version),
        ("function.*.ramp.steps", steps),
        ("function.*.ramp.hold", hold),
        ("function.*.ramp.hours", hours),
        ("function.*.ramp.days", days),
        ("function.*.ramp.timezone", timezone),
        ("function.*.ramp.before_step.url", hook_url),
        ("function.*.ramp.before_step.ca", hook_ca),
        ("function.*.ramp.before_step.bearer = env:", hook_bearer),
        ("function.*.ramp.before_step.bearer = file:", hook_bearer),
        ("function.*.ramp.before_step.bearer = credential:", hook_bearer),
        ("function.*.ramp.before_step.hmac = env:", hook_hmac),
        ("function.*.ramp.before_step.hmac = file:", hook_hmac),
        ("function.*.ramp.before_step.hmac = credential:", hook_hmac),
        ("function.*.ramp.before_step.timeout", hook_timeout),
        ("function.*.ramp.before_step.again", hook_again),
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

/// A ramp that asks, with these words of its hook.
fn asking(hook: &str) -> String {
    format!("{UP}, before_step = {{ {hook} }}")
}

async fn hook_url(leaf: Leaf) {
    let holds = origin().reply(Reply::text("").status(409)).start().await;
    let lets = origin().reply(Reply::text("")).start().await;
    let leaves = [&holds, &lets].map(|hook| format!("url = \"{}/ok\"", hook.url()));
    ramped(leaf, &asking("LEAF"), "", [&leaves[0], &leaves[1]], NOT_AND_UP).await;
}

async fn hook_ca(leaf: Leaf) {
    let (other, trusted) = (authority(), authority());
    let hook = origin().reply(Reply::text("")).tls(&trusted.leaf(&["127.0.0.1"])).start().await;
    let words = [&other, &trusted].map(|one| format!("ca = \"{}\"", one.ca().display()));
    let hook = asking(&format!("url = \"{}/ok\", LEAF", hook.url()));
    ramped(leaf, &hook, "", [&words[0], &words[1]], NOT_AND_UP).await;
}

/// Who lets a step go only for a request that has this header.
async fn strict(name: &'static str, value: &'static str) -> Origin {
    origin()
        .answers(move |seen| {
            let knows = seen.header(name).is_some_and(|said| said.contains(value));
            Reply::text("").status(if knows { 200 } else { 401 })
        })
        .start()
        .await
}

const KEYS: [&str; 2] = ["barley", "sesame"];

/// Two gateposts whose hooks are asked with one secret or the other.
async fn with_secrets(leaf: Leaf, hook: &Origin, more: &str) -> [Gateway; 2] {
    let versions = [named("v1").await, named("v2").await];
    let (lines, also) = places(&leaf, KEYS);
    let hook = asking(&format!("url = \"{}\", LEAF{more}", hook.url()));
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\" }}\nramp = {{ {hook} }}\n\
         [route.f]\nfunction = \"f\"\n",
        versions[0].url(),
        versions[1].url()
    );
    leaf.pair(&config, &lines[0], &lines[1]).also(also).start().await
}

async fn hook_bearer(leaf: Leaf) {
    let hook = strict("authorization", "Bearer sesame").await;
    let both = with_secrets(leaf, &hook, "").await;
    comes_to(&both[1], "v2", 40.0).await;
    comes_to(&both[0], "v2", 0.0).await;
}

async fn hook_hmac(leaf: Leaf) {
    let hook = origin().reply(Reply::text("").status(409)).start().await;
    let _both = with_secrets(leaf, &hook, ", again = \"100ms\"").await;
    // The same words, signed in two ways.
    let signatures = eventually("both have asked", async || {
        let seen = hook.seen();
        let all: std::collections::BTreeSet<_> = seen.iter().map(right_key).collect();
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(signatures.into_iter().collect::<Vec<_>>(), KEYS);
}

/// Which of the two keys the request was signed with.
fn right_key(seen: &Seen) -> &'static str {
    let said = seen.header("x-gatepost-signature").unwrap();
    let (at, tag) = said.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let signed = [at.as_bytes(), b".", &seen.body].concat();
    let tag_of = |key: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
        ring::hmac::sign(&key, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    KEYS.into_iter().find(|key| tag_of(key) == tag).expect("one of the two")
}

async fn hook_timeout(leaf: Leaf) {
    let held = gate();
    let hook = origin().reply(Reply::text("").after(&held)).start().await;
    let ramp = asking(&format!("url = \"{}\", LEAF", hook.url()));
    let versions = [named("v1").await, named("v2").await];
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\" }}\nramp = {{ {ramp} }}\n[route.f]\nfunction = \"f\"\n",
        versions[0].url(),
        versions[1].url()
    );
    let both = leaf.pair(&config, "timeout = \"100ms\"", "timeout = \"50s\"").start().await;
    both[0].counts("gatepost_ramp_hook_total", &[("result", "failed")], 1.0).await;
    held.open();
    comes_to(&both[1], "v2", 40.0).await;
    comes_to(&both[0], "v2", 0.0).await;
}

async fn hook_again(leaf: Leaf) {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    // Whoever asks for a second time may go on; the first two are two gateposts.
    let hook = origin()
        .answers(move |_| {
            let before = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Reply::text("").status(if before < 2 { 409 } else { 200 })
        })
        .start()
        .await;
    let ramp = asking(&format!("url = \"{}\", LEAF", hook.url()));
    ramped(leaf, &ramp, "", ["again = \"1h\"", "again = \"100ms\""], NOT_AND_UP).await;
}
