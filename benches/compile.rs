//! A config's way from text to what decides: what a reload costs, by the number of routes.

use std::fmt::Write as _;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatepost::{
    config::{self, Sources},
    decide::{Now, compile},
};

fn text(routes: usize) -> String {
    let mut text = String::from("[listener.in]\naddress = \"127.0.0.1:0\"\n");
    for n in 0..8 {
        let _ = write!(
            text,
            "[function.p{n}]\nversions = {{ v1 = \"http://127.0.0.1:9\", v2 = \"http://127.0.0.1:9\" }}\nweights = {{ v1 = 90, v2 = 10 }}\n"
        );
    }
    for n in 0..routes {
        let _ = write!(
            text,
            "[route.r{n}]\npath = \"/ep-{n}/*\"\nfunction = \"p{}\"\nlimits = [{{ rate = \"100/s\", per = \"client_ip\" }}]\n",
            n % 8
        );
    }
    text
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("config");
    group.sample_size(10);
    for routes in [10, 1_000, 10_000] {
        let sources = Sources::new([("gatepost.toml", text(routes))]);
        group.bench_with_input(BenchmarkId::new("parse", routes), &sources, |b, sources| {
            b.iter(|| config::parse(sources).map(|c| c.routes.len()).unwrap_or(0));
        });
        let Ok(parsed) = config::parse(&sources) else { continue };
        group.bench_with_input(BenchmarkId::new("compile", routes), &parsed, |b, parsed| {
            b.iter(|| compile(parsed.clone(), 1, String::new(), 2, None, Now(1)).limits.len());
        });
        let before = compile(parsed.clone(), 1, String::new(), 2, None, Now(1));
        group.bench_with_input(BenchmarkId::new("compile again", routes), &parsed, |b, parsed| {
            b.iter(|| compile(parsed.clone(), 2, String::new(), 2, Some(&before), Now(2)).limits.len());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
