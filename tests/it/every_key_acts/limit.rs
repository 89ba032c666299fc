//! A route's `limits`, and `[limit.NAME]`: the same keys, and the same proofs.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Request, get};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("route.*.limits.rate", rate),
        ("route.*.limits.burst", burst),
        ("route.*.limits.per = route", per_route),
        ("route.*.limits.per = client_ip", per_client_ip),
        ("route.*.limits.per = client", per_client),
        ("route.*.limits.per = header:", per_header),
        ("route.*.limits.per = cookie:", per_cookie),
        ("route.*.limits.per = query:", per_query),
        ("route.*.limits.max_keys", max_keys),
        ("route.*.limits.dry_run", dry_run),
        ("route.*.limits.use", shared),
        ("limit.*.rate", rate),
        ("limit.*.burst", burst),
        ("limit.*.per = route", per_route),
        ("limit.*.per = client_ip", per_client_ip),
        ("limit.*.per = client", per_client),
        ("limit.*.per = header:", per_header),
        ("limit.*.per = cookie:", per_cookie),
        ("limit.*.per = query:", per_query),
        ("limit.*.max_keys", max_keys),
        ("limit.*.dry_run", dry_run),
    ]
}

/// Two gateposts with a limit that has these keys, the route's own or a shared one as the leaf says.
async fn limited(leaf: &Leaf, keys: &[&str], one: &str, other: &str) -> ([Gateway; 2], Origin) {
    let f = named("v1").await;
    let own = leaf.name.starts_with("route.");
    let limits = if own { format!("[{{ {}, LEAF }}]", keys.join(", ")) } else { "[{ use = \"l\" }]".to_owned() };
    let shared = if own { String::new() } else { format!("[limit.l]\n{}\nLEAF\n", keys.join("\n")) };
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\nlimits = {limits}\n{shared}\
         [client.a]\nnetworks = [\"127.0.0.1\", \"127.0.0.2\"]\n",
        f.url()
    );
    // Without a key in front there is no comma.
    let config = config.replace("{ , LEAF", "{ LEAF");
    (leaf.pair(&config, one, other).start().await, f)
}

/// How many of so many requests in a row pass.
async fn passes(gateway: &Gateway, requests: usize, ask: impl Fn(usize) -> Request) -> usize {
    let mut caller = gateway.connect().await;
    let mut passed = 0;
    for n in 0..requests {
        passed += usize::from(caller.send(ask(n)).await.status == 200);
    }
    passed
}

async fn rate(leaf: Leaf) {
    let (both, _f) = limited(&leaf, &["burst = 1"], "rate = \"1/min\"", "rate = \"1/h\"").await;
    for (gateway, wait) in both.iter().zip([50..=60, 300..=300]) {
        assert_eq!(gateway.get("/").await.status, 200);
        let refused = gateway.get("/").await;
        refused.is_problem(429, "rate_limited");
        let told: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(wait.contains(&told), "{told}");
    }
}

async fn burst(leaf: Leaf) {
    let (both, _f) = limited(&leaf, &["rate = \"1/h\""], "burst = 1", "burst = 3").await;
    assert_eq!(passes(&both[0], 5, |_| get("/")).await, 1);
    assert_eq!(passes(&both[1], 5, |_| get("/")).await, 3);
}

/// Requests of as many callers in the eyes of `per`: all pass by the one, the first alone by the other.
async fn per(leaf: Leaf, per: &str, other: &str, ask: impl Fn(usize) -> Request) {
    let (one, other) = (format!("per = \"{per}\""), format!("per = \"{other}\""));
    let (both, _f) = limited(&leaf, &["rate = \"1/h\"", "burst = 1"], &one, &other).await;
    assert_eq!(passes(&both[0], 5, &ask).await, 5);
    assert_eq!(passes(&both[1], 5, &ask).await, 1);
}

async fn per_route(leaf: Leaf) {
    per(leaf, "header:x-partner", "route", |n| get("/").header("x-partner", &n.to_string())).await;
}

async fn per_header(leaf: Leaf) {
    per(leaf, "header:x-partner", "client_ip", |n| get("/").header("x-partner", &n.to_string())).await;
}

async fn per_cookie(leaf: Leaf) {
    per(leaf, "cookie:uid", "route", |n| get("/").header("cookie", &format!("uid={n}"))).await;
}

async fn per_query(leaf: Leaf) {
    per(leaf, "query:key", "route", |n| get(&format!("/?key={n}"))).await;
}

/// Two addresses, one client: by what they are counted.
async fn two_addresses(leaf: Leaf, one: &str, other: &str, second: [u16; 2]) {
    let (both, _f) = limited(&leaf, &["rate = \"1/h\"", "burst = 1"], one, other).await;
    for (gateway, status) in both.iter().zip(second) {
        assert_eq!(gateway.connect_from("127.0.0.1").await.send("/").await.status, 200);
        assert_eq!(gateway.connect_from("127.0.0.2").await.send("/").await.status, status);
    }
}

async fn per_client_ip(leaf: Leaf) {
    two_addresses(leaf, "per = \"client_ip\"", "per = \"route\"", [200, 429]).await;
}

async fn per_client(leaf: Leaf) {
    two_addresses(leaf, "per = \"client_ip\"", "per = \"client\"", [200, 429]).await;
}

/// Keys for which there is no room share buckets.
async fn max_keys(leaf: Leaf) {
    let keys = ["rate = \"1/h\"", "burst = 1", "per = \"header:x-partner\""];
    let (both, _f) = limited(&leaf, &keys, "max_keys = 10000", "max_keys = 1").await;
    let ask = |n: usize| get("/").header("x-partner", &n.to_string());
    assert_eq!(passes(&both[0], 200, ask).await, 200);
    assert!(passes(&both[1], 200, ask).await < 120);
    let overflowed = |metrics: crate::harness::gateway::Metrics| metrics.sum("gatepost_limit_overflow_total", &[]);
    assert_eq!(overflowed(both[0].metrics().await), 0.0);
    assert!(overflowed(both[1].metrics().await) > 0.0);
}

async fn dry_run(leaf: Leaf) {
    let (both, _f) = limited(&leaf, &["rate = \"1/h\"", "burst = 1"], "dry_run = true", "dry_run = false").await;
    for (gateway, passed, metric) in
        [(&both[0], 5, "gatepost_limit_dry_run_total"), (&both[1], 1, "gatepost_limited_total")]
    {
        assert_eq!(passes(gateway, 5, |_| get("/")).await, passed);
        gateway.counts(metric, &[("route", "f")], 4.0).await;
    }
}

async fn shared(leaf: Leaf) {
    let f = named("v1").await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\nlimits = [{{ LEAF }}]\n\
         [limit.one]\nrate = \"1/h\"\nburst = 1\n[limit.other]\nrate = \"1/h\"\nburst = 3\n",
        f.url()
    );
    let both = leaf.pair(&config, "use = \"one\"", "use = \"other\"").start().await;
    for (gateway, (limit, passed)) in both.iter().zip([("one", 1), ("other", 3)]) {
        assert_eq!(passes(gateway, 5, |_| get("/")).await, passed);
        gateway.counts("gatepost_limited_total", &[("limit", limit)], 5.0 - passed as f64).await;
    }
}
