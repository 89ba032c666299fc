//! What a good config means.

use super::{Config, Mode, Report, Sources, load, model::*, parse};

fn config(text: &str) -> Config {
    match parse(&Sources::new([("gatepost.toml", text)])) {
        Ok(config) => config,
        Err(report) => panic!("{report}"),
    }
}

const SMALL: &str = r#"
[server]
workers = 1
state_dir = "state"
[admin]
address = "127.0.0.1:9901"
[log]
access = "off"
[listener.in]
address = "127.0.0.1:8080"
[function.f]
versions = { v1 = "http://127.0.0.1:9001", v2 = "http://127.0.0.1:9002/base/" }
weights = { v1 = 90, v2 = 10 }
[route.f]
path = "/*"
function = "f"
limits = [{ rate = "1000000/s", burst = 1000000 }]
"#;

#[test]
fn the_words_of_a_small_config_arrive() {
    let config = config(SMALL);
    assert_eq!(config.server.workers.map(u32::from), Some(1));
    assert_eq!(config.log.access, AccessSink::Off);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    let function = &config.functions[0];
    assert_eq!(function.weights, [Share(9_000), Share(1_000)]);
    assert_eq!(function.versions[1].url.base_path, "/base");
    assert_eq!(function.versions[1].url.authority, "127.0.0.1:9002");
    assert_eq!(function.baseline, None);
    let route = &config.routes[0];
    assert!(matches!(&route.path, PathPattern::Prefix(path) if path.is_empty()));
    assert!(matches!(&route.limits[0], LimitUse::Own(limit) if limit.burst.get() == 1_000_000));
}

#[test]
fn a_file_is_loaded_with_its_includes() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("gatepost.toml");
    std::fs::create_dir(folder.path().join("conf.d")).expect("conf.d");
    std::fs::write(&main, format!("include = [\"conf.d/*.toml\"]\n{SMALL}")).expect("main");
    std::fs::write(folder.path().join("conf.d/b.toml"), "[route.g]\npath = \"/g\"\nfunction = \"f\"\n")
        .expect("include");
    let loaded = load(&main, Mode::Run).map_err(|report: Report| panic!("{report}"));
    let loaded = loaded.expect("loaded");
    assert_eq!(loaded.config.routes.len(), 2);
    assert_eq!(loaded.sources.files.len(), 2);
    assert_eq!(loaded.config.server.state_dir, folder.path().join("state"));
    assert!(loaded.sources.watched().contains(&folder.path().join("conf.d")));
    assert!(loaded.warnings.is_empty());
}

/// The configs of `../shared/bench`, where they are at hand.
#[test]
fn the_benchs_configs_are_taken() {
    for name in ["log", "plain", "ratelimit", "routes", "serverless", "tls", "uptls"] {
        let path = format!("../../shared/bench/peers/gatepost/{name}/gatepost.toml");
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        let text: String = text
            .replace("#each pool", "")
            .replace("@{PORT}", "1")
            .replace("@{TLS_PORT}", "2")
            .replace("@{ADMIN_PORT}", "3")
            .lines()
            .map(|line| {
                let line = line.replace("_PORT}", "}");
                let filled = line.split("@{").enumerate().map(|(nth, part)| match part.split_once('}') {
                    Some((_, rest)) if nth > 0 => format!("0{rest}"),
                    _ => part.to_owned(),
                });
                format!("{}\n", filled.collect::<String>())
            })
            .collect();
        let text = text.replace(":0\"", ":9000\"");
        let config = config(&text);
        assert!(!config.routes.is_empty(), "{name}");
    }
}

#[test]
fn every_key_arrives() {
    let config = config(include_str!("../../tests/it/good.toml"));
    let seconds = std::time::Duration::from_secs;
    let nets = |nets: &Networks| -> Vec<String> { nets.as_slice().iter().map(ToString::to_string).collect() };

    let server = &config.server;
    assert_eq!(server.workers.map(u32::from), Some(2));
    let office = ["192.0.2.0/24", "2001:db8::7/128"];
    assert_eq!(nets(&server.trusted_proxies)[1..], office);
    assert_eq!(server.max_connections.map(u32::from), Some(10_000));
    assert_eq!(server.max_requests.map(u32::from), Some(20_000));
    assert_eq!(server.max_memory, Some(2 << 30));
    assert_eq!(server.drain, seconds(20));
    let dns: Vec<_> = server.dns.iter().map(ToString::to_string).collect();
    assert_eq!(dns, ["127.0.0.53:53", "[::1]:5353"]);

    assert_eq!(config.admin.address.to_string(), "unix:/run/gatepost/admin.sock");
    let token = config.admin.token.as_ref().map(ToString::to_string);
    assert_eq!(token.as_deref(), Some("env:GATEPOST_TOKEN"));

    let log = &config.log;
    assert!(matches!(&log.access, AccessSink::File(path) if path.ends_with("access.log")));
    assert_eq!((log.format, log.sample_ok, log.query), (LogFormat::Text, 0.25, true));

    let [floating, local, public] = &config.listeners[..] else {
        panic!("three listeners");
    };
    assert!(floating.freebind && !local.freebind && !public.freebind);
    assert_eq!((&*local.name, local.mode, local.h2c), ("local", 0o600, true));
    assert_eq!(local.timeouts.idle, seconds(75), "the default");
    let TlsCertificate::Files(files) = &public.tls[0] else { panic!("files") };
    assert_eq!(files.key, std::path::Path::new("api.key"));
    assert_eq!(public.max_connections.map(u32::from), Some(500));
    assert_eq!(public.max_connections_per_ip.map(u32::from), Some(50));
    assert_eq!(public.timeouts.min_body_rate.map(u32::from), Some(1024));
    assert_eq!(local.timeouts.min_body_rate.map(u32::from), Some(500), "the default");
    let from = public.proxy_protocol.as_ref().map(nets);
    assert_eq!(from.as_deref(), Some(&["10.0.0.0/24".to_owned()][..]));
    let timeouts = public.timeouts;
    let timeouts = [timeouts.handshake, timeouts.header, timeouts.body, timeouts.idle];
    assert_eq!(timeouts, [5, 6, 7, 8].map(seconds));

    assert_eq!(config.clients[0].owner.as_deref(), Some("Büro für Prüfung"));

    let function = &config.functions[0];
    assert_eq!(function.weights, [Share(8_750), Share(1_250)]);
    assert_eq!(function.baseline, Some(VersionId(0)));
    let sticky = function.sticky.as_ref().expect("sticky");
    assert_eq!((sticky.by.len(), &*sticky.salt, sticky.issue_cookie), (2, "checkout", true));
    let by: Vec<_> = function.overrides.iter().map(|one| &one.by).collect();
    assert!(matches!(by[0], OverrideBy::Header(name, Some(yes)) if name == "x-tester" && yes == "yes"));
    assert!(matches!(by[1], OverrideBy::Cookie(name, Some(one)) if name == "canary" && one == "1"));
    assert!(matches!(by[2], OverrideBy::Networks(_)));
    assert!(matches!(by[3], OverrideBy::Client(ClientId(0))));
    assert!(function.overrides[0].from.is_some() && function.overrides[1].from.is_none());
    assert!(function.preserve_host);
    assert_eq!(function.http, UpstreamHttp::Http2);
    assert_eq!((function.pool.idle, function.pool.age), (seconds(0), Some(seconds(420))));
    let peaks = function.concurrency.unwrap();
    assert_eq!((peaks.max.map(u32::from), peaks.queue, peaks.wait.as_millis()), (Some(300), 7, 800));
    let (growth, adaptive) = (peaks.growth.unwrap(), peaks.adaptive.unwrap());
    assert_eq!((growth.rate.count.get(), growth.rate.period, growth.burst.get()), (500, seconds(60), 500));
    assert_eq!((adaptive.min.get(), adaptive.decrease, adaptive.increase.count.get()), (3, 5, 2));
    let on = &function.platform;
    let rules: Vec<_> = on.classify.iter().map(super::changes::rule).collect();
    assert_eq!(rules[0], "410,5xx x-app: gone is client_error, answered with 404");
    assert_eq!(rules[1], "299 is ok");
    assert_eq!(rules[2], "429,503 x-fc-error-type: FcCommonError is throttled", "the preset's come behind");
    assert_eq!((on.name, on.map_status, on.request_id.expose), (PlatformName::AliyunFc3, true, true));
    assert_eq!(on.request_id.headers[..], ["x-fc-request-id", "x-id"]);
    assert_eq!(on.sizes, Sizes { headers: Some(4 << 10), uri: None, body: Some(1 << 20) });
    let strip: Vec<_> = on.strip.as_slice().iter().map(ToString::to_string).collect();
    assert_eq!((strip, on.hide.is_empty()), (vec!["x-fc-*".to_owned(), "x-own".to_owned()], true));
    assert_eq!(on.drop_attachment.len(), 2);
    assert_eq!(function.timeouts.connect, seconds(1));
    assert_eq!(function.timeouts.total, Some(seconds(300)));
    let [v41, v42] = &function.versions[..] else {
        panic!("two versions");
    };
    assert_eq!(v41.ca.as_deref(), Some(std::path::Path::new("bank.pem")));
    assert_eq!((&*v41.url.authority, v41.url.port), ("orders-v41.example.com", 443));
    assert_eq!(v42.ca.as_deref(), Some(std::path::Path::new("other.pem")));
    assert_eq!((&*v42.url.authority, &*v42.url.base_path), ("[2001:db8::1]:8443", "/base"));
    assert_eq!(v42.host.as_deref(), Some("orders.example.com"));

    let [elsewhere, moved, odd, orders, rewritten, robots, user] = &config.routes[..] else {
        panic!("seven routes");
    };
    assert!(matches!(&elsewhere.serves, Serves::Redirect(to) if to.status.as_u16() == 302 && to.keep_query));
    assert!(matches!(&moved.serves, Serves::Redirect(to) if to.status.as_u16() == 301 && !to.keep_query));
    assert!(matches!(&robots.serves, Serves::Respond(own) if own.headers.len() == 1 && own.content.is_some()));
    assert!(matches!(&rewritten.handling.path, Some(PathEdit::Rewrite(to)) if to.pieces.len() == 3));
    let edits = orders.handling.request_headers.as_ref().expect("edits");
    assert_eq!((edits.set.len(), edits.add.len(), edits.remove.len()), (1, 1, 1));
    assert_eq!(edits.remove_prefixes, ["x-debug-"]);
    assert!(orders.handling.security_headers.is_some_and(|security| security.replace));
    assert!(orders.handling.maintenance.is_some() && config.server.maintenance.is_some());
    assert!(matches!(&odd.path, PathPattern::Regex(regex)
        if regex.is_match("/v1/x") && !regex.is_match("/a/v1/x")));
    assert!(matches!(&user.path, PathPattern::Params(segments) if segments.len() == 3));
    let listeners = [ListenerId(2), ListenerId(1)];
    assert_eq!(orders.listeners.as_deref(), Some(&listeners[..]));
    let hosts = [HostPattern::Exact("api.example.com".into()), HostPattern::Wildcard(".shop.example.com".into())];
    assert_eq!(orders.hosts, hosts);
    assert_eq!(orders.methods.as_ref().map(Vec::len), Some(2));
    assert_eq!(orders.headers.iter().filter(|c| c.value.is_none()).count(), 1);
    assert_eq!((orders.query.len(), orders.priority), (1, 5));
    assert_eq!((orders.function(), orders.version), (Some(FunctionId(0)), Some(VersionId(1))));
    assert_eq!(orders.clients.as_deref(), Some(&[ClientId(0)][..]));
    assert_eq!(orders.allow.as_ref().map(|nets| nets.as_slice().len()), Some(3));
    assert_eq!(nets(&orders.deny), ["10.9.0.0/16"]);
    assert!(matches!(&orders.handling.path, Some(PathEdit::Prefix { strip: Some(strip), add: Some(add) })
        if strip == "/orders" && add == "/v2"));
    assert_eq!(orders.encoded_slash, EncodedSlash::Keep);
    let [LimitUse::Own(own), LimitUse::Shared(SharedLimitId(0))] = &orders.limits[..] else {
        panic!("two limits");
    };
    assert_eq!((own.per.clone(), own.max_keys.get(), own.dry_run), (LimitKey::ClientIp, 1_000, true));
    let shared = &config.limits[0].limit;
    assert_eq!(shared.burst.get(), 166, "one second's worth of 10000/min");
}

#[test]
fn a_subtable_may_stand_in_another_file() {
    let main = SMALL.replace("weights = { v1 = 90, v2 = 10 }\n", "");
    let weights = "[function.f.weights]\nv1 = \"rest\"\nv2 = 2.5\n";
    for files in [
        [("a/gatepost.toml", main.as_str()), ("a/conf.d/w.toml", weights)],
        // The order of the files means nothing, but the main file is the first.
        [("a/gatepost.toml", main.as_str()), ("a/conf.d/0.toml", weights)],
    ] {
        let config = parse(&Sources::new(files)).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(config.functions[0].weights, [Share(9_750), Share(250)]);
        assert_eq!(config.functions[0].baseline, Some(VersionId(0)));
    }
}

/// However deep: a version as a table of its own, beside versions that stand with their function or on their own.
#[test]
fn a_subtable_of_a_subtable_may_stand_in_another_file() {
    let rest = "[route.r]\nfunction = \"f\"\n[listener.in]\naddress = \"127.0.0.1:0\"\n";
    let v1 = [
        "[function.f]\nversions = { v1 = \"http://127.0.0.1:1\" }\nweights = { v1 = 100 }\n",
        "[function.f]\nversions.v1 = \"http://127.0.0.1:1\"\nweights = { v1 = 100 }\n",
        "[function.f.versions]\nv1 = \"http://127.0.0.1:1\"\n[function.f.weights]\nv1 = 100\n",
        "[function.f.versions.v1]\nurl = \"http://127.0.0.1:1\"\n[function.f.weights]\nv1 = 100\n",
    ];
    let v2 = "[function.f.versions.v2]\nurl = \"http://127.0.0.1:2\"\nhost = \"two\"\n";
    for v1 in v1 {
        for (main, more) in [(v1, v2), (v2, v1)] {
            let main = format!("{rest}{main}");
            let files = [("a/gatepost.toml", main.as_str()), ("a/conf.d/more.toml", more)];
            let config = parse(&Sources::new(files)).unwrap_or_else(|report| panic!("{report}"));
            let mut names: Vec<_> = config.functions[0].versions.iter().map(|version| &*version.name).collect();
            names.sort_unstable();
            assert_eq!(names, ["v1", "v2"]);
        }
    }
    let main = format!("{rest}{}", v1[2]);
    for (again, said) in [
        ("[function.f.versions.v1]\nurl = \"http://127.0.0.1:3\"\n", "`function.f.versions.v1` is written twice"),
        ("[function.f.versions]\nv3 = \"http://127.0.0.1:3\"\n", "`function.f.versions` is written twice"),
        ("[function.f.versions.v3]\nurl = \"nonsense\"\n", "more.toml:2:7"),
    ] {
        let report = parse(&Sources::new([("a/gatepost.toml", main.as_str()), ("a/more.toml", again)])).unwrap_err();
        assert!(report.to_string().contains(said), "{report}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = load(&folder.path().join("gone.toml"), Mode::Run).expect_err("refused");
    let [problem] = report.problems() else {
        panic!("{report}");
    };
    assert!(problem.message.contains("gone.toml: No such file"), "{report}");
    assert_eq!(report.watched(), [folder.path().join("gone.toml")]);
}

#[test]
fn a_file_that_two_globs_find_is_read_once() {
    let folder = tempfile::Builder::new().prefix("[ab]*").tempdir();
    let folder = folder.expect("a folder with a name like a pattern");
    let main = folder.path().join(".").join("gatepost.toml");
    let text = format!("include = [\"*.toml\", \"./r*.toml\", \"none/*.toml\"]\n{SMALL}");
    std::fs::write(&main, text).expect("main");
    let route = "[route.g]\npath = \"/g\"\nfunction = \"f\"\n";
    std::fs::write(folder.path().join("route.toml"), route).expect("route");
    let loaded = load(&main, Mode::Run).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.sources.files.len(), 2);
}

#[test]
fn deep_nesting_is_refused_and_no_stack_overflows() {
    for (open, close) in [("[", "]"), ("{ a = ", "}"), ("a.", "")] {
        let depth = 100_000;
        let text = match open {
            "a." => format!("{}a = 1\n", open.repeat(depth)),
            _ => format!("a = {}{}\n", open.repeat(depth), close.repeat(depth)),
        };
        let report = parse(&Sources::new([("gatepost.toml", &text)])).expect_err("refused");
        assert!(!report.to_string().is_empty());
    }
}

#[test]
fn lines_may_end_as_on_windows() {
    assert_eq!(config(&SMALL.replace('\n', "\r\n")).routes.len(), 1);
}

#[test]
fn the_hash_goes_by_names_and_texts_and_not_by_the_folder() {
    let hash = |files: [(&str, &str); 2]| Sources::new(files).hash();
    let one = hash([("/a/gatepost.toml", "x"), ("/a/conf.d/y.toml", "z")]);
    assert_eq!(one, hash([("/b/gatepost.toml", "x"), ("/b/conf.d/y.toml", "z")]));
    assert_ne!(one, hash([("/a/gatepost.toml", "xz"), ("/a/conf.d/y.toml", "")]));
    assert_ne!(one, hash([("/a/gatepost.toml", "x"), ("/a/conf.d/z.toml", "z")]));
    assert_eq!(one.len(), 64);
}

/// Whether these routes (without their `function`) tie; listeners are `in` and `out`.
fn tie(a: &str, b: &str) -> bool {
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[listener.out]\naddress = \"127.0.0.1:0\"\n\
         [function.f]\nversions = {{ v1 = \"http://f.example\" }}\n\
         [route.a]\nfunction = \"f\"\n{a}\n[route.b]\nfunction = \"f\"\n{b}\n"
    );
    match parse(&Sources::new([("gatepost.toml", &text)])) {
        Ok(_) => false,
        Err(report) => {
            assert_eq!(report.problems().len(), 1, "{report}");
            assert!(report.problems()[0].message.contains("match the same"), "{report}");
            true
        }
    }
}

#[test]
fn routes_tie_only_where_nothing_tells_them_apart() {
    assert!(tie("", "path = \"/*\""));
    assert!(!tie("", "path = \"/\""), "exact beats prefix");
    assert!(!tie("", "priority = 1"));
    assert!(!tie("listeners = [\"in\"]", "listeners = [\"out\"]"));
    assert!(tie("listeners = [\"in\"]", ""));
    assert!(!tie("host = \"a.example\"", "host = \"*.example\""));
    assert!(!tie("host = \"*.a.example\"", "host = \"*.example\""));
    assert!(tie("host = [\"a.example\", \"*.b.example\"]", "host = \"*.B.example\""));
    assert!(tie("path = \"/a/{x}\"", "path = \"/a/{y}\""));
    assert!(!tie("path = \"/a/{x}\"", "path = \"/{y}/a\""), "literals from the left");
    assert!(tie("path_regex = \"/a\"", "path_regex = \"/b\""));
    assert!(!tie("methods = [\"GET\"]", "methods = [\"PUT\"]"));
    assert!(tie("methods = [\"GET\", \"PUT\"]", "methods = [\"PUT\"]"));
    assert!(tie("methods = [\"GET\"]", "headers = { a = \"1\" }"));
    assert!(!tie("methods = [\"GET\"]", "headers = { a = \"1\", b = \"1\" }"), "more conditions");
    assert!(!tie("headers = { a = \"1\" }", "headers = { A = \"2\" }"));
    assert!(tie("headers = { a = \"1\" }", "headers = { a = \"*\" }"));
    assert!(tie("headers = { a = \"1\" }", "query = { a = \"2\" }"));
    assert!(!tie("query = { a = \"1\" }", "query = { a = \"2\" }"));
}

#[test]
fn ties_are_found_among_many_routes() {
    use std::fmt::Write as _;
    let mut text = String::from(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = { v1 = \"http://f.example\" }\n",
    );
    for nth in 0..300 {
        let value = if nth == 299 { 7 } else { nth };
        let _ = write!(text, "[route.r{nth:03}]\nfunction = \"f\"\nheaders = {{ x-tenant = \"{value}\" }}\n");
    }
    let report = parse(&Sources::new([("gatepost.toml", &text)])).expect_err("a tie");
    let messages: Vec<_> = report.problems().iter().map(|problem| &*problem.message).collect();
    assert_eq!(messages, ["routes `r007` and `r299` match the same requests"]);
}

#[test]
fn the_way_out_arrives_with_its_defaults() {
    let text = r#"
[server]
dns = ["10.0.0.2"]
[client.f]
networks = ["10.1.0.0/16"]
[egress]
timeouts = { idle = "10m", total = "1h" }
[egress.listener.inside]
address = "10.0.0.4:3128"
[egress.source.bank]
bind = ["10.0.0.5", "10.0.0.6"]
public = "203.0.113.11"
[egress.rule.plain]
clients = ["f", "f"]
to = ["A.example", "a.example:443", "*.b.example:8443"]
[egress.rule.own]
clients = ["f"]
to = ["c.example"]
source = "bank"
limits = { tunnels = 2, rate = "600/min", bandwidth = "1MiB/s" }
timeouts = { idle = "1h" }
"#;
    let egress = config(text).egress;
    let listener = &egress.listeners[0];
    assert_eq!(listener.address.to_string(), "10.0.0.4:3128");
    assert_eq!(listener.timeouts.min_body_rate, None);
    assert_eq!(egress.resolver.servers[0].to_string(), "10.0.0.2:53");
    assert_eq!(egress.sources[0].public_of(1).map(|ip| ip.to_string()).as_deref(), Some("203.0.113.11"));
    let [own, plain] = &egress.rules[..] else { panic!("{:?}", egress.rules) };
    assert_eq!(plain.clients, [ClientId(0)]);
    assert_eq!(plain.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.example:443", "*.b.example:8443"]);
    assert_eq!((plain.mode, plain.mixed_answers, plain.tls_name), Default::default());
    assert_eq!((plain.source, own.source), (None, Some(EgressSourceId(0))));
    assert_eq!(plain.timeouts, egress.timeouts);
    assert_eq!((own.timeouts.idle.as_secs(), own.timeouts.total.map(|t| t.as_secs())), (3_600, Some(3_600)));
    let rate = own.limits.rate.as_ref().expect("a rate");
    assert_eq!((rate.burst.get(), own.limits.bandwidth.map(u64::from)), (10, Some(1 << 20)));
}

#[test]
fn a_promise_that_nobody_keeps_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("gatepost.toml");
    let warnings = |to: &str, more: &str| {
        let text = format!(
            "[client.f]\nnetworks = [\"10.1.0.0/16\"]\n[egress.listener.inside]\naddress = \"10.0.0.4:3128\"\n\
             [egress.rule.r]\nclients = [\"f\"]\nto = [{to}]\n{more}\n"
        );
        std::fs::write(&main, text).expect("written");
        let loaded = load(&main, Mode::Run).unwrap_or_else(|report| panic!("{report}"));
        loaded.warnings.problems().iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    let compares = "tls_name = \"match\"";
    assert_eq!(warnings("\"a.example:8443\", \"8.8.8.8\"", compares), ["`tls_name = \"match\"` says nothing here"]);
    assert!(warnings("\"a.example:8443\", \"*.b.example\"", compares).is_empty());
    let by = |port: u16| format!("parent = \"http://10.0.0.4:{port}\"");
    assert_eq!(warnings("\"a.example\"", &by(3128)), ["the parent is this gatepost itself"]);
    assert!(warnings("\"a.example\"", &by(3129)).is_empty());
}
