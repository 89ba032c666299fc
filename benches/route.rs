//! What finding a route costs, by the number of routes: it should hardly matter.
//!
//! `cargo bench --bench route`

use std::{hint::black_box, net::SocketAddr, path::PathBuf, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatepost::{
    config::model::{
        AccessSink, Admin, BodyBound, Config, EncodedSlash, FunctionId, Handling, HostPattern, Limit, ListenAddress,
        ListenerId, Log, LogFormat, Networks, PathPattern, PathSegment, Route, Server, Serves,
    },
    decide::{Facts, host, path, route::Router},
};
use http::{HeaderMap, Method};

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1_000, 10_000] {
        let router = Router::new(&config(count));
        let last = count - count % 4 - 4;
        let (exact, params, prefix) =
            (format!("/svc{last}/report"), format!("/svc{}/7/items", last + 1), format!("/svc{}/orders/7", last + 2));
        for (name, path) in [("exact", &*exact), ("params", &*params), ("prefix", &*prefix), ("miss", "/nothing/here")]
        {
            let headers = HeaderMap::new();
            let facts = Facts {
                listener: ListenerId(0),
                method: &Method::GET,
                host: "api.example.com",
                path,
                query: None,
                headers: &headers,
            };
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| router.find(black_box(&facts)));
            });
        }
    }
    group.finish();
}

fn build(c: &mut Criterion) {
    let config = config(10_000);
    c.bench_function("route/build/10000", |b| b.iter(|| Router::new(&config)));
}

fn spelling(c: &mut Criterion) {
    let mut group = c.benchmark_group("spelling");
    for (name, raw) in [("clean", "/orders/2026/11/items/7"), ("dirty", "/orders/./2026//%31%31/items/7")] {
        group.bench_function(BenchmarkId::new("path", name), |b| {
            b.iter(|| path::normalise(black_box(raw)).is_ok());
        });
    }
    group.bench_function("host", |b| {
        b.iter(|| host::parse(black_box("api.example.com:8443")).is_ok());
    });
    group.finish();
}

/// `count` routes: exact, params, prefix, and prefix under a host of its own, in turn.
fn config(count: usize) -> Config {
    Config {
        server: Server {
            workers: None,
            state_dir: PathBuf::new(),
            trusted_proxies: Networks::default(),
            max_connections: None,
            max_requests: None,
            max_memory: None,
            dns: Vec::new(),
            drain: Duration::from_secs(30),
            auth_failures: Limit::AUTH_FAILURES,
            maintenance: None,
            max_body: BodyBound::DEFAULT,
        },
        admin: Admin { address: ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), token: None },
        log: Log { access: AccessSink::Off, format: LogFormat::Json, sample_ok: 1.0, query: false },
        listeners: Vec::new(),
        clients: Vec::new(),
        functions: Vec::new(),
        routes: (0..count).map(route).collect(),
        limits: Vec::new(),
        credentials: Vec::new(),
    }
}

fn route(i: usize) -> Route {
    let (host, path) = match i % 4 {
        0 => (None, PathPattern::Exact(format!("/svc{i}/report"))),
        1 => {
            let literal = |text: &str| PathSegment::Literal(text.to_owned());
            let svc = literal(&format!("svc{i}"));
            let id = PathSegment::Param("id".to_owned());
            (None, PathPattern::Params(vec![svc, id, literal("items")]))
        }
        2 => (None, PathPattern::Prefix(format!("/svc{i}/orders"))),
        _ => (Some(HostPattern::Exact(format!("h{i}.example.com"))), PathPattern::Prefix("/orders".to_owned())),
    };
    Route {
        name: format!("r{i:05}").into(),
        listeners: None,
        hosts: host.into_iter().collect(),
        path,
        methods: None,
        headers: Vec::new(),
        query: Vec::new(),
        priority: 0,
        serves: Serves::Function(FunctionId(0)),
        version: None,
        clients: None,
        allow: None,
        deny: Networks::default(),
        limits: Vec::new(),
        handling: Handling::default(),
        encoded_slash: EncodedSlash::Refuse,
        forward_client_cert: false,
    }
}

criterion_group!(benches, find, build, spelling);
criterion_main!(benches);
