use std::{collections::BTreeMap, num::NonZeroU32, thread, time::Duration};

use super::*;
use crate::config::model::*;

/// Two functions' worth of names: `routes` are (name, function, number of own limits).
fn config(functions: &[(&str, &[(&str, u16)])], routes: &[(&str, usize)], limits: bool) -> Config {
    let endpoint = Endpoint {
        tls: false,
        host: EndpointHost::Name("example.com".to_owned()),
        port: 80,
        base_path: String::new(),
        authority: "example.com".to_owned(),
    };
    let second = Duration::from_secs(1);
    let one = NonZeroU32::MIN;
    let limit = Limit {
        rate: Rate { count: one, period: second },
        burst: one,
        per: LimitKey::Route,
        max_keys: one,
        dry_run: false,
        scope: LimitScope::Instance,
    };
    let used = [LimitUse::Own(limit.clone()), LimitUse::Shared(SharedLimitId(0)), LimitUse::Shared(SharedLimitId(0))];
    Config {
        server: Server {
            workers: None,
            state_dir: "/tmp".into(),
            trusted_proxies: Networks::default(),
            max_connections: None,
            max_requests: None,
            max_memory: None,
            dns: Vec::new(),
            drain: second,
            auth_failures: Limit::AUTH_FAILURES,
            maintenance: None,
            max_body: BodyBound::DEFAULT,
            max_hops: 10,
            error_pages: Vec::new(),
        },
        admin: Admin { address: ListenAddress::Unix("/tmp/x".into()), token: None },
        log: Log { access: AccessSink::Off, egress: None, format: LogFormat::Json, sample_ok: 1.0, query: false },
        listeners: vec![Listener {
            name: "public".into(),
            address: ListenAddress::Unix("/tmp/y".into()),
            freebind: false,
            tls: Vec::new(),
            tls_profile: TlsProfile::Intermediate,
            client_auth: None,
            proxy_protocol: None,
            h2c: false,
            max_connections: None,
            max_connections_per_ip: None,
            timeouts: ListenerTimeouts {
                handshake: second,
                header: second,
                body: second,
                idle: second,
                min_body_rate: None,
            },
            mode: 0o660,
        }],
        clients: Vec::new(),
        functions: functions
            .iter()
            .map(|(name, versions)| Function {
                name: (*name).into(),
                versions: versions
                    .iter()
                    .map(|(name, _)| Version {
                        name: (*name).into(),
                        url: endpoint.clone(),
                        ca: None,
                        host: None,
                        credential: None,
                        max_concurrency: None,
                    })
                    .collect(),
                weights: versions.iter().map(|(_, share)| Share(*share)).collect(),
                baseline: None,
                rest: None,
                ramp: None,
                sticky: None,
                overrides: Vec::new(),
                preserve_host: false,
                timeouts: UpstreamTimeouts {
                    connect: second,
                    first_byte: second,
                    idle: second,
                    write: second,
                    total: None,
                },
                http: UpstreamHttp::Auto,
                pool: Pool { idle: second, age: None },
                platform: Platform::default(),
                budget: None,
                guard: None,
                mirror: None,
                concurrency: None,
                retries: None,
                health: None,
            })
            .collect(),
        routes: routes
            .iter()
            .map(|(name, function)| Route {
                name: (*name).into(),
                listeners: None,
                hosts: Vec::new(),
                path: PathPattern::Prefix(String::new()),
                methods: None,
                headers: Vec::new(),
                query: Vec::new(),
                priority: 0,
                serves: Serves::Function(FunctionId(u32::try_from(*function).unwrap())),
                version: None,
                clients: None,
                allow: None,
                deny: Networks::default(),
                limits: if limits { used.to_vec() } else { Vec::new() },
                handling: Default::default(),
                encoded_slash: EncodedSlash::Refuse,
                forward_client_cert: false,
                criticality: Criticality::default(),
            })
            .collect(),
        limits: vec![SharedLimit { name: "partners".into(), limit }],
        credentials: Vec::new(),
        freeze: Default::default(),
        cluster: None,
        egress: Default::default(),
    }
}

fn orders() -> Config {
    config(&[("orders", &[("v41", 9_500), ("v42", 500)])], &[("orders", 0)], true)
}

/// Sample → value. Checks on the way that the text is one that Prometheus reads: each family announced once, before its samples, and no
/// sample twice.
fn scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let mut samples = BTreeMap::new();
    let mut families: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(name.starts_with(families.last().unwrap()), "{line} has no family");
            let before = samples.insert(sample.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{sample} twice");
        }
    }
    samples
}

const V42: Option<(RouteId, Option<VersionId>)> = Some((RouteId(0), Some(VersionId(1))));
const MS: Duration = Duration::from_millis(1);

#[test]
fn requests_are_counted_by_route_version_and_class() {
    let metrics = Metrics::new(2);
    let handles = metrics.resolve(&orders());
    metrics.install(Arc::clone(&handles), 7);
    thread::scope(|scope| {
        for worker in 0..4 {
            let handles = &handles;
            scope.spawn(move || {
                for _ in 0..1000 {
                    handles.request(worker, V42, Class::Ok, MS);
                }
            });
        }
    });
    handles.request(0, V42, Class::Timeout, Duration::from_secs(70));
    handles.request(0, Some((RouteId(0), None)), Class::RateLimited, Duration::ZERO);
    handles.request(1, None, Class::Refused, Duration::ZERO);

    let seen = scrape(&metrics);
    let v42 = r#"route="orders",function="orders",version="v42""#;
    let total = |labels: &str| seen[&format!("gatepost_requests_total{{{labels}}}")];
    assert_eq!(total(&format!(r#"{v42},class="ok""#)), 4000.0);
    assert_eq!(total(&format!(r#"{v42},class="timeout""#)), 1.0);
    assert_eq!(total(&format!(r#"{v42},class="function""#)), 0.0);
    assert_eq!(total(r#"route="orders",function="orders",version="",class="rate_limited""#), 1.0);
    assert_eq!(total(r#"route="",function="",version="",class="refused""#), 1.0);
    assert!(!seen.keys().any(|k| k.contains("requests_total") && k.contains("v41")), "untouched");

    let seconds = |suffix: &str, le: &str| seen[&format!("gatepost_request_seconds_{suffix}{{{v42}{le}}}")];
    assert_eq!(seconds("bucket", r#",le="0.001""#), 4000.0);
    assert_eq!(seconds("bucket", r#",le="60""#), 4000.0);
    assert_eq!(seconds("bucket", r#",le="+Inf""#), 4001.0);
    assert_eq!(seconds("count", ""), 4001.0);
    assert!((seconds("sum", "") - 74.0).abs() < 1e-6);
    assert_eq!(seen["gatepost_config_generation"], 7.0);
}

#[test]
fn what_a_reload_still_names_keeps_its_counts_and_the_rest_is_gone() {
    let metrics = Metrics::new(1);
    let before = config(
        &[("a", &[("v1", 10_000), ("v2", 0)]), ("b", &[("v1", 10_000)])],
        &[("kept", 0), ("moved", 0), ("removed", 1)],
        true,
    );
    let old = metrics.resolve(&before);
    metrics.install(Arc::clone(&old), 1);
    for route in 0..3 {
        old.request(0, Some((RouteId(route), Some(VersionId(0)))), Class::Ok, MS);
        old.limit(RouteId(route), 1).refused(0);
    }
    old.enter(0, FunctionId(0), VersionId(0));
    old.enter(0, FunctionId(1), VersionId(0));
    old.listener(ListenerId(0)).opened();

    let after =
        config(&[("a", &[("v1", 2_550), ("v3", 7_450)]), ("c", &[("v1", 10_000)])], &[("kept", 0), ("moved", 1)], true);
    let new = metrics.resolve(&after);
    assert!(scrape(&metrics).keys().any(|k| k.contains("removed")), "not before it is installed");
    metrics.install(Arc::clone(&new), 2);
    new.request(0, Some((RouteId(0), Some(VersionId(0)))), Class::Ok, MS);
    // A request that began on the old config ends on it, and still counts.
    old.request(0, Some((RouteId(0), Some(VersionId(0)))), Class::Ok, MS);

    let seen = scrape(&metrics);
    let ok = |route: &str, function: &str| {
        seen.get(&format!(
            r#"gatepost_requests_total{{route="{route}",function="{function}",version="v1",class="ok"}}"#
        ))
    };
    assert_eq!(ok("kept", "a"), Some(&3.0));
    assert_eq!(ok("moved", "a"), None);
    assert_eq!(ok("moved", "c"), None);
    assert_eq!(ok("removed", "b"), None);
    assert_eq!(seen[r#"gatepost_limited_total{route="kept",limit="partners"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_in_flight{function="a",version="v1"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_release_share{function="a",version="v1"}"#], 25.5);
    assert_eq!(seen[r#"gatepost_connections{listener="public"}"#], 1.0);
    assert!(!seen.keys().any(|k| k.contains(r#"function="b""#) || k.contains(r#"version="v2""#)));
    old.leave(0, FunctionId(0), VersionId(0));
    assert_eq!(scrape(&metrics)[r#"gatepost_in_flight{function="a",version="v1"}"#], 0.0);
}

#[test]
fn limits_are_told_apart_and_a_dry_run_is_no_refusal() {
    let metrics = Metrics::new(1);
    let handles = metrics.resolve(&orders());
    metrics.install(Arc::clone(&handles), 1);
    handles.limit(RouteId(0), 0).refused(0);
    handles.limit(RouteId(0), 0).show(1, 0);
    handles.limit(RouteId(0), 1).refused(0);
    handles.limit(RouteId(0), 2).refused(0);
    handles.limit(RouteId(0), 1).show(0, 1);
    let seen = scrape(&metrics);
    assert_eq!(seen[r#"gatepost_limited_total{route="orders",limit="limits[0]"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_limited_total{route="orders",limit="partners"}"#], 2.0);
    assert_eq!(seen[r#"gatepost_limit_dry_run_total{route="orders",limit="limits[0]"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_limit_overflow_total{route="orders",limit="partners"}"#], 1.0);
}

#[test]
fn connections_are_counted_on_both_sides() {
    let metrics = Metrics::new(3);
    let handles = metrics.resolve(&orders());
    metrics.install(Arc::clone(&handles), 1);
    let public = handles.listener(ListenerId(0));
    public.opened();
    public.opened();
    public.closed();
    public.count(ConnectionResult::OverCap);
    // Begun by one worker, ended by another.
    handles.enter(0, FunctionId(0), VersionId(1));
    handles.enter(1, FunctionId(0), VersionId(1));
    handles.leave(2, FunctionId(0), VersionId(1));
    handles.upstream_connection(5, FunctionId(0), VersionId(1), true);
    let seen = scrape(&metrics);
    assert_eq!(seen[r#"gatepost_connections{listener="public"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_connections_total{listener="public",result="over_cap"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_in_flight{function="orders",version="v42"}"#], 1.0);
    let used = r#"gatepost_upstream_connections_total{function="orders",version="v42",reused="#;
    assert_eq!(seen[&format!("{used}\"true\"}}")], 1.0);
    assert_eq!(seen[&format!("{used}\"false\"}}")], 0.0);
}

#[test]
fn reloads_certificates_the_log_and_the_process_are_told() {
    let metrics = Metrics::new(1);
    metrics.count_reload(ReloadResult::Applied);
    metrics.count_reload(ReloadResult::Rejected);
    metrics.set_certificates(vec![CertificateExpiry {
        listener: "public".to_owned(),
        name: "a\"\\\nb".to_owned(),
        not_after: 1_800_000_000,
    }]);
    assert!(!metrics.render().contains("gatepost_access_log"));
    metrics.watch_access_log(Arc::default());
    let seen = scrape(&metrics);
    assert_eq!(seen[r#"gatepost_config_reloads_total{result="applied"}"#], 1.0);
    assert_eq!(seen[r#"gatepost_config_reloads_total{result="unchanged"}"#], 0.0);
    assert_eq!(seen["gatepost_config_last_reload_successful"], 0.0);
    assert_eq!(seen[r#"gatepost_certificate_expiry_seconds{listener="public",name="a\"\\\nb"}"#], 1_800_000_000.0);
    assert_eq!(seen["gatepost_access_log_dropped_lines_total"], 0.0);
    assert_eq!(seen[r#"gatepost_build_info{version="0.1.0"}"#], 1.0);
    assert!(seen["process_resident_memory_bytes"] > 100_000.0);
    assert!(seen["process_cpu_seconds_total"] > 0.0);
    assert!(seen["process_open_fds"] >= 3.0);
    assert!(seen["process_max_fds"] >= seen["process_open_fds"]);
    assert!(seen["process_start_time_seconds"] > 1.7e9);
}
