//! What a limit and a split cost a request: `cargo bench --bench limits`.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use gatepost::{
    config::model::{
        Endpoint, EndpointHost, Function, Limit, LimitKey, LimitScope, Pool, Rate, Share, Sticky, StickyKey,
        UpstreamHttp, UpstreamTimeouts, Version, VersionId,
    },
    decide::{
        Now,
        limit::{Ask, KeyFacts, Limiter, take_all},
        split::{PickFacts, Split},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue};

fn at_least_1(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

fn limiter(rate: u32, per: LimitKey) -> Limiter {
    let limit = Limit {
        rate: Rate { count: at_least_1(rate), period: Duration::from_secs(1) },
        burst: at_least_1(rate),
        per,
        max_keys: at_least_1(1_000_000),
        dry_run: false,
        scope: LimitScope::Instance,
    };
    Limiter::new(&limit, "bench".into())
}

fn facts(headers: &HeaderMap, n: u32) -> KeyFacts<'_> {
    KeyFacts { client_ip: IpAddr::V4(Ipv4Addr::from(n)), client: None, headers, query: None }
}

fn limit(c: &mut Criterion) {
    let mut group = c.benchmark_group("limit");
    let headers = HeaderMap::new();
    // A microsecond between two requests.
    let clock = AtomicU64::new(1_000_000_000);
    let now = || Now(clock.fetch_add(1_000, Ordering::Relaxed));

    let ask = |limiter: &Limiter, n| {
        let key = limiter.key(&facts(&headers, n));
        take_all(&[Ask { limiter, key }], now())
    };
    let route = limiter(4_000_000, LimitKey::Route);
    group.bench_function("route", |b| b.iter(|| ask(black_box(&route), 7)));
    let refusing = limiter(1, LimitKey::Route);
    group.bench_function("route, refused", |b| b.iter(|| ask(black_box(&refusing), 7)));

    for (name, keys, rate) in [
        ("1 address", 1u32, 4_000_000),
        ("1,000 addresses", 1_000, 10_000),
        ("1,000,000 addresses in use", 1_000_000, 1),
    ] {
        let per_ip = limiter(rate, LimitKey::ClientIp);
        let mut n = 0u32;
        for n in 0..keys {
            let _ = ask(&per_ip, n.wrapping_mul(2_654_435_761));
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                n = (n + 1) % keys;
                ask(black_box(&per_ip), n.wrapping_mul(2_654_435_761))
            });
        });
    }

    let per_ip = limiter(4_000_000, LimitKey::ClientIp);
    group.bench_function("address and route", |b| {
        b.iter(|| {
            let facts = facts(&headers, 7);
            let asks = [&per_ip, &route].map(|limiter| Ask { limiter, key: limiter.key(&facts) });
            take_all(black_box(&asks), now())
        });
    });

    let invented = limiter(1, LimitKey::ClientIp);
    let mut n = 0u32;
    group.bench_function("invented addresses", |b| {
        b.iter(|| {
            n = n.wrapping_add(1);
            ask(black_box(&invented), n)
        });
    });
    group.finish();
}

fn function(weights: &[u16], sticky: Option<Vec<StickyKey>>) -> Function {
    let second = Duration::from_secs(1);
    let version = |n: usize| Version {
        name: format!("v{n}").into(),
        url: Endpoint {
            tls: false,
            host: EndpointHost::Name("localhost".into()),
            port: 80,
            base_path: String::new(),
            authority: "localhost".into(),
        },
        ca: None,
        host: None,
        credential: None,
        max_concurrency: None,
    };
    Function {
        name: "orders".into(),
        versions: (0..weights.len()).map(version).collect(),
        weights: weights.iter().copied().map(Share).collect(),
        baseline: Some(VersionId(0)),
        rest: None,
        ramp: None,
        sticky: sticky.map(|by| Sticky { by, salt: "orders".into(), issue_cookie: false }),
        overrides: vec![],
        preserve_host: false,
        timeouts: UpstreamTimeouts { connect: second, first_byte: second, idle: second, write: second, total: None },
        http: UpstreamHttp::Auto,
        pool: Pool { idle: second, age: None },
        platform: gatepost::config::model::Platform::default(),
        budget: None,
        guard: None,
        mirror: None,
        concurrency: None,
        retries: None,
        health: None,
    }
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    let name = HeaderName::from_static("x-openid");
    let headers: HeaderMap =
        [(name.clone(), HeaderValue::from_static("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"))].into_iter().collect();
    let facts = PickFacts {
        pin: None,
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        client: None,
        headers: &headers,
        worker: 0,
        dice: &|| 0,
    };
    for (title, weights, sticky) in [
        ("dealt, 2 versions", &[9_500, 500][..], None),
        ("dealt, 5 versions", &[9_001, 500, 300, 198, 1], None),
        ("sticky by header", &[9_500, 500], Some(vec![StickyKey::Header(name)])),
        ("sticky by address", &[9_500, 500], Some(vec![StickyKey::ClientIp])),
    ] {
        let split = Split::new(&function(weights, sticky), 8, None);
        group.bench_function(title, |b| b.iter(|| black_box(&split).pick(&facts)));
    }
    let thousand: Vec<Function> = (0..1_000).map(|_| function(&[9_500, 500], None)).collect();
    group.bench_function("compile 1,000 functions", |b| {
        b.iter(|| {
            let compile = |f| Split::new(f, 8, None);
            thousand.iter().map(compile).collect::<Vec<_>>()
        });
    });
    let sticky = function(&[9_500, 500], Some(vec![StickyKey::ClientIp]));
    group.bench_function("compile a sticky function", |b| {
        b.iter(|| Split::new(black_box(&sticky), 8, None));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = limit, split
}
criterion_main!(benches);
