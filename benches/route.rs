//! What finding a route costs, by the number of routes: it should hardly matter.
//!
//! `cargo bench --bench route`

use std::{fmt::Write as _, hint::black_box};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatepost::{
    config::{self, Config, Sources, model::ListenerId},
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
    let mut text = String::from(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = { v1 = \"http://127.0.0.1:9\" }\n",
    );
    for i in 0..count {
        let path = match i % 4 {
            0 => format!("path = \"/svc{i}/report\""),
            1 => format!("path = \"/svc{i}/{{id}}/items\""),
            2 => format!("path = \"/svc{i}/orders/*\""),
            _ => format!("host = \"h{i}.example.com\"\npath = \"/orders/*\""),
        };
        let _ = write!(text, "[route.r{i:05}]\n{path}\nfunction = \"f\"\n");
    }
    let Ok(config) = config::parse(&Sources::new([("gatepost.toml", text)])) else {
        std::process::abort();
    };
    config
}

criterion_group!(benches, find, build, spelling);
criterion_main!(benches);
