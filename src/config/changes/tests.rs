//! Every leaf of the model shows, in words that a release engineer would use.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderName, Method};

use super::*;
use crate::config::{model::*, secret::SecretRef};

fn n(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

fn nets(list: &[&str]) -> Networks {
    Networks::new(list.iter().map(|net| net.parse().unwrap()))
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tcp(address: &str) -> ListenAddress {
    ListenAddress::Tcp(address.parse().unwrap())
}

fn endpoint(host: &str) -> Endpoint {
    Endpoint {
        tls: true,
        host: EndpointHost::Name(host.into()),
        port: 443,
        base_path: String::new(),
        authority: host.into(),
    }
}

fn own_limit(count: u32, burst: u32, per: LimitKey) -> Limit {
    Limit {
        rate: Rate { count: n(count), period: secs(1) },
        burst: n(burst),
        per,
        max_keys: n(1_000_000),
        dry_run: false,
        scope: LimitScope::Instance,
    }
}

fn a_version(name: &str) -> Version {
    Version {
        name: name.into(),
        url: endpoint(&format!("{name}.example")),
        ca: None,
        host: None,
        credential: None,
        max_concurrency: None,
    }
}

fn base() -> Config {
    let listener = |name: &str, address: &str| Listener {
        name: name.into(),
        address: tcp(address),
        freebind: false,
        tls: vec![],
        tls_profile: TlsProfile::Intermediate,
        client_auth: None,
        proxy_protocol: None,
        h2c: false,
        max_connections: None,
        max_connections_per_ip: None,
        timeouts: ListenerTimeouts {
            handshake: secs(10),
            header: secs(10),
            body: secs(30),
            idle: secs(75),
            min_body_rate: Some(n(500)),
        },
        mode: 0o660,
    };
    let client =
        |name: &str| Client { name: name.into(), owner: None, networks: nets(&["10.1.0.0/16"]), ..Client::default() };
    let function = |name: &str| Function {
        name: name.into(),
        versions: vec![a_version("v41"), a_version("v42")],
        weights: vec![Share(9_500), Share(500)],
        baseline: Some(VersionId(0)),
        rest: None,
        ramp: None,
        sticky: Some(Sticky { by: vec![StickyKey::ClientIp], salt: name.into(), issue_cookie: false }),
        overrides: vec![Override {
            by: OverrideBy::Header(HeaderName::from_static("x-tester"), None),
            from: None,
            version: VersionId(1),
        }],
        preserve_host: false,
        timeouts: UpstreamTimeouts {
            connect: secs(3),
            first_byte: secs(60),
            idle: secs(60),
            write: secs(30),
            total: None,
        },
        http: UpstreamHttp::Auto,
        pool: Pool { idle: secs(25), age: None },
        platform: Platform::default(),
        budget: Some(Box::new(Budget {
            calls_per_day: None,
            spend_per_day: Some(Amount(Amount::WHOLE)),
            price: Price { per_million: Some(Amount(1)), per_gb_second: None },
            memory: None,
            warn: vec![50],
            action: BudgetAction::Alert,
            zone: Zone::utc(),
        })),
        guard: Some(Guard::default()),
        mirror: None,
        concurrency: Some(Concurrency::default()),
        retries: None,
        health: None,
    };
    let route = |name: &str| Route {
        name: name.into(),
        listeners: None,
        hosts: vec![HostPattern::Exact("api.example.com".into())],
        path: PathPattern::Prefix("/orders".into()),
        methods: None,
        headers: vec![],
        query: vec![],
        priority: 0,
        serves: Serves::Function(FunctionId(0)),
        version: None,
        clients: None,
        allow: None,
        deny: Networks::default(),
        limits: vec![LimitUse::Own(own_limit(100, 50, LimitKey::ClientIp)), LimitUse::Shared(SharedLimitId(0))],
        handling: Arc::default(),
        encoded_slash: EncodedSlash::Refuse,
        forward_client_cert: false,
        criticality: Criticality::default(),
    };
    Config {
        server: Server {
            workers: None,
            state_dir: "/var/lib/gatepost".into(),
            trusted_proxies: Networks::default(),
            max_connections: None,
            max_requests: None,
            max_memory: None,
            dns: vec![],
            drain: secs(30),
            auth_failures: Limit::AUTH_FAILURES,
            maintenance: None,
            max_body: BodyBound::DEFAULT,
            max_hops: 10,
            error_pages: Vec::new(),
        },
        admin: Admin { address: tcp("127.0.0.1:9901"), token: None },
        log: Log { access: AccessSink::Stdout, egress: None, format: LogFormat::Json, sample_ok: 1.0, query: false },
        listeners: vec![listener("inside", "10.0.0.1:80"), listener("public", "0.0.0.0:443")],
        clients: vec![client("bank"), client("regulator")],
        functions: vec![function("orders"), function("report")],
        routes: vec![route("orders"), route("report")],
        credentials: vec![],
        freeze: Default::default(),
        cluster: None,
        egress: Default::default(),
        limits: vec![
            SharedLimit {
                name: "partners".into(),
                limit: own_limit(10, 10, LimitKey::Header(HeaderName::from_static("x-id"))),
            },
            SharedLimit { name: "quiet".into(), limit: own_limit(10, 10, LimitKey::Route) },
        ],
    }
}

/// What the change does to the base, and the line that tells of it.
fn told(change: impl Fn(&mut Config)) -> Vec<String> {
    let mut new = base();
    change(&mut new);
    changes(&base(), &new).iter().map(ToString::to_string).collect()
}

fn peaks(config: &mut Config) -> &mut Concurrency {
    config.functions[0].concurrency.get_or_insert_default()
}

fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn guard(c: &mut Config) -> &mut Guard {
    c.functions[0].guard.get_or_insert_default()
}

#[test]
fn the_same_config_has_no_changes() {
    assert!(changes(&base(), &base()).is_empty());
}

#[test]
fn every_leaf_shows_on_one_line() {
    type Case = (&'static str, fn(&mut Config));
    let cases: &[Case] = &[
        ("server.workers one per core → 4 (waits for a restart)", |c| {
            c.server.workers = Some(n(4));
        }),
        ("server.state_dir /var/lib/gatepost → /srv (waits for a restart)", |c| c.server.state_dir = "/srv".into()),
        ("server.trusted_proxies none → 10.0.0.0/8", |c| {
            c.server.trusted_proxies = nets(&["10.0.0.0/8"]);
        }),
        ("server.max_connections by the file limit → 9", |c| {
            c.server.max_connections = Some(n(9));
        }),
        ("server.max_requests as max_connections → 9", |c| {
            c.server.max_requests = Some(n(9));
        }),
        ("server.max_memory the control group's → 512MiB", |c| {
            c.server.max_memory = Some(512 << 20);
        }),
        ("server.dns the system's → 10.0.0.2:53", |c| {
            c.server.dns = vec!["10.0.0.2:53".parse::<SocketAddr>().unwrap()];
        }),
        ("server.drain 30s → 60s", |c| c.server.drain = secs(60)),
        ("function orders: budget.calls_per_day none → 7", |c| {
            c.functions[0].budget.as_mut().unwrap().calls_per_day = Some(7.try_into().unwrap());
        }),
        ("function orders: budget.action alert → stop", |c| {
            c.functions[0].budget.as_mut().unwrap().action = BudgetAction::Stop;
        }),
        ("server.max_hops 10 → 2", |c| c.server.max_hops = 2),
        ("admin.address 127.0.0.1:9901 → unix:/run/a", |c| {
            c.admin.address = ListenAddress::Unix("/run/a".into());
        }),
        ("admin.token none → credential:admin-token", |c| {
            c.admin.token = Some(SecretRef::Credential("admin-token".into()));
        }),
        ("log.access stdout → /var/log/a", |c| {
            c.log.access = AccessSink::File("/var/log/a".into());
        }),
        ("log.egress as access → off", |c| c.log.egress = Some(AccessSink::Off)),
        ("log.access stdout → off", |c| c.log.access = AccessSink::Off),
        ("log.format json → text", |c| c.log.format = LogFormat::Text),
        ("log.sample_ok 1 → 0.25", |c| c.log.sample_ok = 0.25),
        ("log.query false → true", |c| c.log.query = true),
        ("listener public: address 0.0.0.0:443 → 0.0.0.0:8443", |c| {
            c.listeners[1].address = tcp("0.0.0.0:8443");
        }),
        ("listener public: tls off → cert /c key /k", |c| {
            c.listeners[1].tls = vec![TlsCertificate::Files(CertificateFiles { cert: "/c".into(), key: "/k".into() })];
        }),
        ("listener public: tls off → acme a.test b.test from https://acme.test/dir email ops@a.test ca /ca", |c| {
            c.listeners[1].tls = vec![TlsCertificate::Acme(Acme {
                directory: "https://acme.test/dir".into(),
                email: Some("ops@a.test".into()),
                domains: vec!["a.test".into(), "b.test".into()],
                ca: Some("/ca".into()),
            })];
        }),
        ("listener public: tls_profile intermediate → modern", |c| c.listeners[1].tls_profile = TlsProfile::Modern),
        ("listener public: client_ca none → /ca (required)", |c| {
            c.listeners[1].client_auth = Some(ClientAuth { ca: "/ca".into(), need: ClientAuthNeed::Required });
        }),
        ("listener public: client_ca none → /ca (optional)", |c| {
            c.listeners[1].client_auth = Some(ClientAuth { ca: "/ca".into(), need: ClientAuthNeed::Optional });
        }),
        ("listener public: proxy_protocol off → 10.0.0.0/24", |c| {
            c.listeners[1].proxy_protocol = Some(nets(&["10.0.0.0/24"]));
        }),
        ("listener public: h2c false → true", |c| c.listeners[1].h2c = true),
        ("listener public: max_connections no own → 5", |c| {
            c.listeners[1].max_connections = Some(n(5));
        }),
        ("listener public: max_connections_per_ip any → 5", |c| {
            c.listeners[1].max_connections_per_ip = Some(n(5));
        }),
        ("listener public: min_body_rate 500B/s → 1KiB/s", |c| {
            c.listeners[1].timeouts.min_body_rate = Some(n(1024));
        }),
        ("listener public: min_body_rate 500B/s → off", |c| {
            c.listeners[1].timeouts.min_body_rate = None;
        }),
        ("listener public: timeouts.handshake 10s → 1s", |c| {
            c.listeners[1].timeouts.handshake = secs(1);
        }),
        ("listener public: timeouts.header 10s → 250ms", |c| {
            c.listeners[1].timeouts.header = Duration::from_millis(250);
        }),
        ("listener public: timeouts.body 30s → 1s", |c| {
            c.listeners[1].timeouts.body = secs(1);
        }),
        ("listener public: timeouts.idle 75s → 5m", |c| {
            c.listeners[1].timeouts.idle = secs(300);
        }),
        ("listener public: mode 0660 → 0600", |c| c.listeners[1].mode = 0o600),
        ("client bank: owner nobody → \"treasury\"", |c| {
            c.clients[0].owner = Some("treasury".into());
        }),
        ("client bank: networks 10.1.0.0/16 → 10.2.0.0/16", |c| {
            c.clients[0].networks = nets(&["10.2.0.0/16"]);
        }),
        ("function orders: v42 5 % → 10.5 %, v41 95 % → 89.5 %", |c| {
            c.functions[0].weights = vec![Share(8_950), Share(1_050)];
        }),
        ("function orders: version v42 url https://v42.example → https://new.example", |c| {
            c.functions[0].versions[1].url = endpoint("new.example")
        }),
        ("function orders: version v42 url https://v42.example → http://v42.example at v42.example:443", |c| {
            c.functions[0].versions[1].url.tls = false
        }),
        ("function orders: version v42 url https://v42.example → https://v42.example at [::1]:443", |c| {
            c.functions[0].versions[1].url.host = EndpointHost::Address("::1".parse().unwrap())
        }),
        ("function orders: version v42 url https://v42.example → https://v42.example at v42.example:8443", |c| {
            c.functions[0].versions[1].url.port = 8443
        }),
        ("function orders: version v42 url https://v42.example → https://v42.example/base", |c| {
            c.functions[0].versions[1].url.base_path = "/base".into()
        }),
        ("function orders: version v42 url https://v42.example → https://other at v42.example:443", |c| {
            c.functions[0].versions[1].url.authority = "other".into()
        }),
        ("function orders: version v42 ca the system's → /ca.pem", |c| {
            c.functions[0].versions[1].ca = Some("/ca.pem".into());
        }),
        ("function orders: version v42 host the url's → \"h\"", |c| {
            c.functions[0].versions[1].host = Some("h".into());
        }),
        ("function orders: baseline v41 → none", |c| {
            c.functions[0].baseline = None;
        }),
        ("function orders: sticky.by client_ip → header:x-openid, cookie:uid", |c| {
            c.functions[0].sticky.as_mut().unwrap().by =
                vec![StickyKey::Header(header("x-openid")), StickyKey::Cookie("uid".into())];
        }),
        ("function orders: sticky.group \"orders\" → \"shop\"", |c| {
            c.functions[0].sticky.as_mut().unwrap().salt = "shop".into();
        }),
        ("function orders: sticky.issue_cookie false → true", |c| {
            c.functions[0].sticky.as_mut().unwrap().issue_cookie = true;
        }),
        ("function orders: override header x-tester to v42 → header x-tester: yes to v42", |c| {
            c.functions[0].overrides[0].by = OverrideBy::Header(header("x-tester"), Some("yes".into()));
        }),
        ("function orders: override header x-tester to v42 → cookie c=1 to v42", |c| {
            c.functions[0].overrides[0].by = OverrideBy::Cookie("c".into(), Some("1".into()));
        }),
        ("function orders: override header x-tester to v42 → client regulator to v42", |c| {
            c.functions[0].overrides[0].by = OverrideBy::Client(ClientId(1))
        }),
        ("function orders: override header x-tester to v42 → networks 10.9.0.0/16 to v42", |c| {
            c.functions[0].overrides[0].by = OverrideBy::Networks(nets(&["10.9.0.0/16"]))
        }),
        ("function orders: override header x-tester to v42 → header x-tester from 10.0.0.0/8 to v42", |c| {
            c.functions[0].overrides[0].from = Some(nets(&["10.0.0.0/8"]))
        }),
        ("function orders: override header x-tester to v42 → header x-tester to v41", |c| {
            c.functions[0].overrides[0].version = VersionId(0)
        }),
        ("function orders: preserve_host false → true", |c| {
            c.functions[0].preserve_host = true;
        }),
        ("function orders: timeouts.connect 3s → 1s", |c| {
            c.functions[0].timeouts.connect = secs(1);
        }),
        ("function orders: timeouts.first_byte 60s → 1s", |c| {
            c.functions[0].timeouts.first_byte = secs(1);
        }),
        ("function orders: timeouts.idle 60s → 1s", |c| {
            c.functions[0].timeouts.idle = secs(1);
        }),
        ("function orders: timeouts.write 30s → 1s", |c| {
            c.functions[0].timeouts.write = secs(1);
        }),
        ("function orders: timeouts.total none → 2h", |c| {
            c.functions[0].timeouts.total = Some(secs(7_200));
        }),
        ("function orders: http auto → 2", |c| {
            c.functions[0].http = UpstreamHttp::Http2;
        }),
        ("function orders: pool.idle 25s → 0s", |c| {
            c.functions[0].pool.idle = secs(0);
        }),
        ("function orders: pool.age any → 5m", |c| {
            c.functions[0].pool.age = Some(secs(300));
        }),
        ("function orders: guard.action rollback → off", |c| c.functions[0].guard = None),
        ("function orders: guard.action rollback → alert", |c| guard(c).action = GuardAction::Alert),
        ("function orders: guard.tolerate 1.5 → 3", |c| guard(c).tolerate = 3.0),
        ("function orders: guard.false_alarm 0.1 % → 1 %", |c| guard(c).false_alarm = 0.01),
        ("function orders: guard.max_error_ratio 20 % → 12.5 %", |c| guard(c).max_error_ratio = 0.125),
        ("function orders: guard.min_requests 500 → 7", |c| guard(c).min_requests = 7),
        ("function orders: guard.min_time 5m → 2m", |c| guard(c).min_time = secs(120)),
        ("function orders: guard.window 60s → 30s", |c| guard(c).window = secs(30)),
        ("function orders: guard.latency not judged → 4", |c| guard(c).latency = Some(4.0)),
        ("function orders: guard.warmup 60s → 5s", |c| guard(c).warmup = secs(5)),
        ("function orders: concurrency.max any → 300", |c| peaks(c).max = Some(n(300))),
        ("function orders: concurrency.queue 1000 → 0", |c| peaks(c).queue = 0),
        ("function orders: concurrency.wait 1s → 800ms", |c| peaks(c).wait = Duration::from_millis(800)),
        ("function orders: concurrency.growth at once → 300 at once, then 500/min", |c| {
            let rate = Rate { count: n(500), period: secs(60) };
            peaks(c).growth = Some(Growth { rate, burst: n(300) });
        }),
        ("function orders: concurrency.adaptive off → at least 10, -5 % when throttled, +3/s", |c| {
            let increase = Rate { count: n(3), period: secs(1) };
            peaks(c).adaptive = Some(Adaptive { min: n(10), decrease: 5, increase });
        }),
        ("function orders: platform generic → tencent-scf", |c| {
            c.functions[0].platform.name = PlatformName::TencentScf;
        }),
        ("function orders: classify by status alone → 430,5xx x-a: b is function, answered with 500", |c| {
            let header = Some((HeaderName::from_static("x-a"), Some("b".into())));
            let rule = Rule {
                statuses: vec![(430, 430), (500, 599)],
                header,
                class: Class::Function,
                answer: Some(500),
                retry: None,
                billed: None,
            };
            c.functions[0].platform.classify = [rule].into();
        }),
        ("function orders: map_status false → true", |c| {
            c.functions[0].platform.map_status = true;
        }),
        ("function orders: platform_request_id.header none → x-a", |c| {
            c.functions[0].platform.request_id.headers = [HeaderName::from_static("x-a")].into();
        }),
        ("function orders: platform_request_id.expose false → true", |c| {
            c.functions[0].platform.request_id.expose = true;
        }),
        ("function orders: max_headers none → 8KiB", |c| {
            c.functions[0].platform.sizes.headers = Some(8 << 10);
        }),
        ("function orders: max_uri none → 1000B", |c| {
            c.functions[0].platform.sizes.uri = Some(1000);
        }),
        ("function orders: max_body none → 32MiB", |c| {
            c.functions[0].platform.sizes.body = Some(32 << 20);
        }),
        ("function orders: request_headers.remove none → x-fc-*", |c| {
            c.functions[0].platform.strip = NamePatterns::new([NamePattern::Prefix("x-fc-".into())]);
        }),
        ("function orders: response_headers.remove none → x-a", |c| {
            c.functions[0].platform.hide = NamePatterns::new([NamePattern::Exact("x-a".into())]);
        }),
        ("function orders: drop_attachment nowhere → *.fcapp.run", |c| {
            c.functions[0].platform.drop_attachment = [HostPattern::Wildcard(".fcapp.run".into())].into();
        }),
        ("route orders: listeners all → public", |c| {
            c.routes[0].listeners = Some(vec![ListenerId(1)]);
        }),
        ("route orders: host api.example.com → *.example.com", |c| {
            c.routes[0].hosts = vec![HostPattern::Wildcard(".example.com".into())];
        }),
        ("route orders: path /orders/* → /orders", |c| {
            c.routes[0].path = PathPattern::Exact("/orders".into());
        }),
        ("route orders: path /orders/* → /orders/{id}", |c| {
            c.routes[0].path =
                PathPattern::Params(vec![PathSegment::Literal("orders".into()), PathSegment::Param("id".into())]);
        }),
        ("route orders: path /orders/* → regex ^/o$", |c| {
            c.routes[0].path = PathPattern::Regex(regex::Regex::new("^/o$").unwrap());
        }),
        ("route orders: methods any → GET, POST", |c| {
            c.routes[0].methods = Some(vec![Method::GET, Method::POST]);
        }),
        ("route orders: headers any → x-env: *", |c| {
            c.routes[0].headers = vec![HeaderCondition { name: header("x-env"), value: None }];
        }),
        ("route orders: query any → debug=1", |c| {
            c.routes[0].query = vec![QueryCondition { name: "debug".into(), value: Some("1".into()) }];
        }),
        ("route orders: priority 0 → -3", |c| c.routes[0].priority = -3),
        ("route orders: function orders → report", |c| {
            c.routes[0].serves = Serves::Function(FunctionId(1));
        }),
        ("route orders: version by weights → v42", |c| {
            c.routes[0].version = Some(VersionId(1));
        }),
        ("route orders: clients anyone → regulator", |c| {
            c.routes[0].clients = Some(vec![ClientId(1)]);
        }),
        ("route orders: allow anyone → an empty list", |c| {
            c.routes[0].allow = Some(Networks::default());
        }),
        ("route orders: allow anyone → 10.0.0.0/8", |c| {
            c.routes[0].allow = Some(nets(&["10.0.0.0/8"]));
        }),
        ("route orders: deny nobody → 10.0.0.0/8", |c| {
            c.routes[0].deny = nets(&["10.0.0.0/8"]);
        }),
        ("route orders: strip_prefix none → /orders", |c| {
            Arc::make_mut(&mut c.routes[0].handling).path =
                Some(PathEdit::Prefix { strip: Some("/orders".into()), add: None });
        }),
        ("route orders: rewrite none → /x{path}", |c| {
            let template = Template { text: "/x{path}".into(), pieces: vec![Piece::Text("/x".into()), Piece::Path] };
            Arc::make_mut(&mut c.routes[0].handling).path = Some(PathEdit::Rewrite(template));
        }),
        ("route orders: request_headers as they come → set x-env: prod, remove x-debug-*", |c| {
            let name = HeaderName::from_static("x-env");
            Arc::make_mut(&mut c.routes[0].handling).request_headers = Some(HeaderEdits {
                set: vec![(name, http::HeaderValue::from_static("prod"))],
                remove_prefixes: vec!["x-debug-".into()],
                ..HeaderEdits::default()
            });
        }),
        ("route orders: response_headers as they come → remove server", |c| {
            Arc::make_mut(&mut c.routes[0].handling).response_headers =
                Some(HeaderEdits { remove: vec![http::header::SERVER], ..HeaderEdits::default() });
        }),
        ("route orders: security_headers none → strict in place of the function's", |c| {
            Arc::make_mut(&mut c.routes[0].handling).security_headers =
                Some(SecurityHeaders { preset: SecurityPreset::Strict, replace: true });
        }),
        ("route orders: maintenance off → 503, back in 5m, but for 10.0.0.0/8", |c| {
            Arc::make_mut(&mut c.routes[0].handling).maintenance = Some(Maintenance {
                status: http::StatusCode::SERVICE_UNAVAILABLE,
                retry_after: secs(300),
                content: None,
                allow: nets(&["10.0.0.0/8"]),
            });
        }),
        (
            "route orders: cors none → from https://*.a.test by GET with x-a, exposing x-b, with credentials, for 10m",
            |c| {
                Arc::make_mut(&mut c.routes[0].handling).cors = Some(Cors {
                    origins: Origins::These(vec![Origin::Below("https://".into(), ".a.test".into())]),
                    methods: vec![Method::GET],
                    headers: CorsHeaders::These(vec![HeaderName::from_static("x-a")]),
                    expose: Some(http::HeaderValue::from_static("x-b")),
                    credentials: true,
                    max_age: secs(600),
                });
            },
        ),
        ("route orders: compression off → br from 1KiB of text/*", |c| {
            Arc::make_mut(&mut c.routes[0].handling).compression = Some(Compression {
                codings: vec![Coding::Br],
                min_size: 1024,
                types: vec![MediaPattern::Type("text/".into())],
            });
        }),
        (
            "route orders: error_pages none → 5xx a body (text/plain, 0 bytes, e3b0c44298fc), the function's too",
            |c| {
                let kind = http::HeaderValue::from_static("text/plain");
                let content = Content { file: None, bytes: bytes::Bytes::new(), kind };
                Arc::make_mut(&mut c.routes[0].handling).error_pages =
                    vec![ErrorPage { on: PageFor::Class(5), content, intercept: true }];
            },
        ),
        ("route orders: max_body the server's → 6MiB", |c| {
            Arc::make_mut(&mut c.routes[0].handling).max_body = Some(BodyBound(Some(6 << 20)));
        }),
        ("route orders: encoded_slash refuse → keep", |c| {
            c.routes[0].encoded_slash = EncodedSlash::Keep;
        }),
        ("route orders: criticality normal → bulk", |c| c.routes[0].criticality = Criticality::Bulk),
        ("route orders: forward_client_cert false → true", |c| c.routes[0].forward_client_cert = true),
        (
            "route orders: limits 100/s burst 50 per client_ip, use partners → 200/s burst 50 per client_ip, use partners; counts are kept",
            |c| {
                c.routes[0].limits[0] = LimitUse::Own(own_limit(200, 50, LimitKey::ClientIp));
            },
        ),
        (
            "route orders: limits 100/s burst 50 per client_ip, use partners → 100/s burst 50 per query:q, use partners; 100/s burst 50 per query:q starts counting anew",
            |c| {
                let per = LimitKey::Query("q".into());
                c.routes[0].limits[0] = LimitUse::Own(own_limit(100, 50, per));
            },
        ),
        (
            "route orders: limits 100/s burst 50 per client_ip, use partners → 100/s burst 50 per client_ip max_keys 7 dry_run, use quiet; counts are kept",
            |c| {
                let mut limit = own_limit(100, 50, LimitKey::ClientIp);
                limit.max_keys = n(7);
                limit.dry_run = true;
                c.routes[0].limits = vec![LimitUse::Own(limit), LimitUse::Shared(SharedLimitId(1))];
            },
        ),
        ("limit partners: rate 10/s → 10/min; its counts are kept", |c| {
            c.limits[0].limit.rate.period = secs(60);
        }),
        ("limit partners: burst 10 → 20; its counts are kept", |c| {
            c.limits[0].limit.burst = n(20);
        }),
        ("limit partners: per header:x-id → cookie:c; its counts start anew", |c| {
            c.limits[0].limit.per = LimitKey::Cookie("c".into())
        }),
        ("limit partners: max_keys 1000000 → 5; its counts are kept", |c| {
            c.limits[0].limit.max_keys = n(5);
        }),
        ("limit partners: dry_run false → true; its counts are kept", |c| {
            c.limits[0].limit.dry_run = true;
        }),
    ];
    for (line, change) in cases {
        assert_eq!(told(change), [*line]);
    }
}

#[test]
fn tables_that_come_and_go() {
    let lines = told(|c| {
        let mut extra = c.routes[1].clone();
        extra.name = "zebra".into();
        c.routes.push(extra);
        c.routes.remove(1);
    });
    assert_eq!(lines, ["route report: removed", "route zebra: added"]);
}

#[test]
fn a_new_version_takes_its_share() {
    let lines = told(|c| {
        let orders = &mut c.functions[0];
        orders.versions.push(a_version("v43"));
        orders.weights = vec![Share(9_400), Share(500), Share(100)];
    });
    assert_eq!(
        lines,
        ["function orders: v43 0 % → 1 %, v41 95 % → 94 %", "function orders: version v43 added (https://v43.example)"]
    );
}

#[test]
fn what_moves_in_the_tables_is_no_change_of_those_that_point_at_it() {
    let lines = told(|c| {
        let mut first = c.functions[0].clone();
        first.name = "aaa".into();
        c.functions.insert(0, first);
        for route in &mut c.routes {
            route.serves = Serves::Function(FunctionId(1));
        }
    });
    assert_eq!(lines, ["function aaa: added"]);
}

#[test]
fn long_lists_tell_only_what_came_and_went() {
    let many: Vec<String> = (0..100).map(|i| format!("10.{i}.0.0/16")).collect();
    let all: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut old = base();
    old.clients[0].networks = nets(&all);
    let told = |new: &[&str]| {
        let mut config = base();
        config.clients[0].networks = nets(new);
        changes(&old, &config)[0].text.clone()
    };
    assert_eq!(told(&all[1..]), "client bank: networks removed 10.0.0.0/16");
    assert!(told(&all[20..]).ends_with("10.7.0.0/16 and 12 more"));
    let turned: Vec<&str> = all.iter().rev().copied().collect();
    assert_eq!(told(&turned), "client bank: networks in another order or number");
}

#[test]
fn nothing_in_a_file_can_break_the_line() {
    let lines = told(|c| c.clients[0].owner = Some("a\nb\u{1b}[31m".into()));
    assert_eq!(lines, ["client bank: owner nobody → \"a\\nb\\u{1b}[31m\""]);
}

#[test]
fn the_second_limit_alike_is_the_one_that_counts_anew() {
    let one = LimitUse::Own(own_limit(100, 50, LimitKey::ClientIp));
    let two = LimitUse::Own(own_limit(5, 5, LimitKey::ClientIp));
    let new = [one.clone(), two.clone()];
    let anew = counts_anew(std::slice::from_ref(&one), &new);
    assert_eq!(anew, [&own_limit(5, 5, LimitKey::ClientIp)]);
    assert!(counts_anew(&new, &[two, one]).is_empty());
}
