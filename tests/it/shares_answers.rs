//! `cache`: those who ask the same get one answer, and nobody gets what is another's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::harness::{
    Connection, Gateway, Origin, Reply, Request, eventually, full, gate, gateway, get,
    h2::H2,
    origin,
    origin::Seen,
    reply::{Cut, Gate},
    request, when,
};

/// A function that answers with how often it was asked, behind a route with these lines. What is kept is kept for the whole test.
async fn counting(route: &str, with: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> (Gateway, Origin) {
    let function = origin().answers(move |seen| with(Reply::text(format!("answer {}", seen.number)))).start().await;
    (gateway(config(&function, "", route)).workers(1).start().await, function)
}

async fn in_front_of(function: &Origin, route: &str) -> Gateway {
    gateway(config(function, "", route)).workers(2).start().await
}

fn config(function: &Origin, of_function: &str, route: &str) -> String {
    format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{of_function}\n\
         [route.f]\nfunction = \"f\"\n{route}\n",
        function.url()
    )
}

const HOUR: &str = "cache = { ttl = \"1h\" }";

async fn text(gateway: &Gateway, request: Request) -> String {
    gateway.send(request).await.text()
}

async fn words(gateway: &Gateway, lines: usize) -> Vec<String> {
    let log = gateway.log(lines).await;
    log.iter().map(|line| line["cache"].as_str().unwrap_or("-").to_owned()).collect()
}

#[tokio::test]
async fn the_second_who_asks_gets_what_the_first_got() {
    let with = |reply: Reply| reply.header("x-own", "1").header("etag", "\"v1\"").header("content-type", "text/plain");
    let (gateway, function) = counting(HOUR, with).await;
    let first = gateway.get("/page?a=1").await;
    let second = gateway.get("/page?a=1").await;
    assert_eq!((first.text(), second.text()), ("answer 0".to_owned(), "answer 0".to_owned()));
    assert_eq!((second.header("x-own"), second.header("content-length")), (Some("1"), Some("8")));
    assert_eq!((first.header("age"), second.header("age")), (None, Some("0")));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    let head = gateway.send(request("HEAD", "/page?a=1")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("8"), 0));
    let h2 = H2::plain(gateway.address("in")).await.send(get("/page?a=1").host("gate.test")).await;
    assert_eq!(h2.text(), "answer 0");
    // The same tag: nothing more is to be said.
    let known = gateway.send(get("/page?a=1").header("if-none-match", "W/\"v1\"")).await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some("\"v1\"")));
    assert_eq!(known.header("content-length"), None);
    assert_eq!(text(&gateway, get("/page?a=2")).await, "answer 1");
    assert_eq!(text(&gateway, get("/page?a=1").host("other.test")).await, "answer 2");
    assert_eq!(function.requests(), 3);
    assert_eq!(words(&gateway, 7).await, ["miss", "hit", "hit", "hit", "hit", "miss", "miss"]);
    let hit = &gateway.log(7).await[1];
    assert_eq!((&hit["version"], &hit["class"], &hit["status"]), (&"v1".into(), &"ok".into(), &200.into()));
    assert!(hit.get("upstream_status").is_none() && hit.get("attempts").is_none(), "{hit}");
    let by = |result| [("route", "f"), ("result", result)];
    gateway.counts("gatepost_cache_total", &by("hit"), 4.0).await;
    gateway.counts("gatepost_cache_total", &by("miss"), 3.0).await;
    let held = gateway.metrics().await.sum("gatepost_cache_bytes", &[("route", "f")]);
    assert!((100.0..20_000.0).contains(&held), "{held}");
}

#[tokio::test]
async fn what_is_a_callers_own_goes_to_the_function_and_to_nobody_else() {
    let (gateway, function) = counting(HOUR, |reply| reply).await;
    assert_eq!(text(&gateway, get("/")).await, "answer 0");
    for (n, (name, value)) in
        [("authorization", "Bearer a"), ("cookie", "session=1"), ("range", "bytes=0-1"), ("if-match", "\"a\"")]
            .into_iter()
            .enumerate()
    {
        assert_eq!(text(&gateway, get("/").header(name, value)).await, format!("answer {}", n + 1), "{name}");
    }
    assert_eq!(text(&gateway, request("POST", "/other").body("x")).await, "answer 5");
    // None of these was kept in the place of the first.
    assert_eq!(text(&gateway, get("/")).await, "answer 0");
    // A caller who reloads does not spend the function's calls; one who wants nothing kept is served what is there.
    for cache_control in ["no-cache", "max-age=0", "no-store", "only-if-cached"] {
        assert_eq!(text(&gateway, get("/").header("cache-control", cache_control)).await, "answer 0");
    }
    // But nothing of its own is kept.
    assert_eq!(text(&gateway, get("/new").header("cache-control", "no-store")).await, "answer 6");
    assert_eq!(text(&gateway, get("/new")).await, "answer 7");
    assert_eq!(function.requests(), 8);
    gateway.counts("gatepost_cache_total", &[("result", "bypass")], 5.0).await;
}

#[tokio::test]
async fn what_the_key_names_is_kept_for_each() {
    let route = "cache = { ttl = \"1h\", key = [\"cookie:lang\", \"header:authorization\", \"query:id\"] }";
    let (gateway, function) = counting(route, |reply| reply).await;
    for _ in 0..2 {
        assert_eq!(text(&gateway, get("/?id=1").header("cookie", "lang=de")).await, "answer 0");
        assert_eq!(text(&gateway, get("/?id=1&t=5").header("cookie", "lang=fr")).await, "answer 1");
        assert_eq!(text(&gateway, get("/?t=6&id=1").header("authorization", "Bearer a")).await, "answer 2");
        assert_eq!(text(&gateway, get("/?t=6&id=2").header("authorization", "Bearer a")).await, "answer 3");
    }
    assert_eq!(function.requests(), 4);
    for n in 4..6 {
        let other = get("/?id=1").header("cookie", "lang=de; session=7");
        assert_eq!(text(&gateway, other).await, format!("answer {n}"));
    }
}

#[tokio::test]
async fn what_the_function_forbids_is_not_kept() {
    let says = |seen: &Seen| {
        let n = seen.number;
        let reply = Reply::text(format!("answer {n}"));
        match seen.target.as_str() {
            "/cookie" => reply.header("set-cookie", "a=1"),
            "/star" => reply.header("vary", "*"),
            "/trailers" => reply.trailer("x-sum", "1"),
            "/404" => reply.status(404),
            "/close" => {
                Reply::raw(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nanswer {n}")).cut(u64::MAX, Cut::Close)
            }
            path => reply.header("cache-control", path.trim_start_matches('/')),
        }
    };
    let function = origin().answers(says).start().await;
    let gateway = in_front_of(&function, HOUR).await;
    let forbidden = ["cookie", "star", "404", "no-store", "private", "no-cache", "max-age=0", "s-maxage=0,max-age=9"];
    for path in forbidden {
        let path = format!("/{path}");
        let (one, other) = (gateway.get(&path).await.text(), gateway.get(&path).await.text());
        assert!(one.starts_with("answer ") && one != other, "{path}: {one} {other}");
    }
    for path in ["/public", "/max-age=60", "/s-maxage=60"] {
        assert_eq!(gateway.get(path).await.text(), gateway.get(path).await.text(), "{path}");
    }
}

#[tokio::test]
async fn answers_that_vary_are_kept_apart() {
    let says = |seen: &Seen| {
        let lang = seen.header("accept-language").unwrap_or("none");
        Reply::text(format!("{lang} {}", seen.number)).header("vary", "Accept-Language, Origin")
    };
    let function = origin().answers(says).start().await;
    let gateway = in_front_of(&function, HOUR).await;
    for _ in 0..3 {
        assert_eq!(text(&gateway, get("/").header("accept-language", "de")).await, "de 0");
        assert_eq!(text(&gateway, get("/").header("accept-language", "fr")).await, "fr 1");
        assert_eq!(text(&gateway, get("/")).await, "none 2");
    }
    assert_eq!(function.requests(), 3);
}

/// So many who ask the same at once, all of them waiting for the one call that is held back at the gate.
async fn crowd(gateway: &Arc<Gateway>, function: &Origin, target: &'static str, size: usize) -> JoinSet<String> {
    let mut crowd = JoinSet::new();
    let asked = function.requests();
    for n in 0..size {
        let gateway = gateway.clone();
        crowd.spawn(async move { gateway.get(target).await.text() });
        if n == 0 {
            eventually("the first is at the function", async || when(function.requests() > asked)).await;
        }
    }
    gateway.counts("gatepost_in_flight", &[("function", "f")], size as f64).await;
    // The last of them was counted, but may not have looked yet: a worker does both before its next request.
    gateway.turn().await;
    crowd
}

fn held<W: Fn(Reply) -> Reply + Send + Sync + 'static>(gate: &Gate, with: W) -> impl Fn(&Seen) -> Reply + use<W> {
    let gate = gate.clone();
    move |seen| with(Reply::text(format!("answer {}", seen.number))).after(&gate)
}

#[tokio::test]
async fn a_crowd_that_asks_at_once_costs_one_call() {
    for ttl in ["0s", "1h"] {
        let door = gate();
        let function = origin().answers(held(&door, |reply| reply)).start().await;
        let route = format!("cache = {{ ttl = \"{ttl}\", wait = \"1m\" }}");
        let gateway = Arc::new(gateway(config(&function, "", &route)).workers(1).start().await);
        let crowd = crowd(&gateway, &function, "/", 20).await;
        door.open();
        assert!(crowd.join_all().await.iter().all(|text| text == "answer 0"));
        assert_eq!(function.requests(), 1);
        gateway.counts("gatepost_cache_total", &[("result", "coalesced")], 19.0).await;
        let later = gateway.get("/").await.text();
        assert_eq!(later, if ttl == "0s" { "answer 1" } else { "answer 0" });
    }
}

/// All workers share what one of them gets.
#[tokio::test]
async fn a_crowd_over_all_workers_costs_one_call() {
    let door = gate();
    let function = origin().answers(held(&door, |reply| reply)).start().await;
    let gateway = Arc::new(in_front_of(&function, "cache = { ttl = \"1h\", wait = \"1m\" }").await);
    let crowd = crowd(&gateway, &function, "/", 20).await;
    door.open();
    assert!(crowd.join_all().await.iter().all(|text| text == "answer 0"));
    assert_eq!(function.requests(), 1);
}

/// The followers of an answer that is not theirs, or of none, are not lined up behind each other: none of them could be
/// answered before all of them are at the function.
#[tokio::test]
async fn a_crowd_behind_an_answer_that_cannot_be_shared_goes_on_at_once() {
    type With = fn(Reply) -> Reply;
    let all: [(&str, With); 4] = [
        ("private", |reply| reply.header("cache-control", "private")),
        ("failed", |reply| reply.status(500)),
        ("cut", |reply| reply.claims(100).cut(5, Cut::Close)),
        ("large", |_| Reply::made(200_000)),
    ];
    for (what, with) in all {
        let (first, second) = (gate(), gate());
        let (one, other) = (first.clone(), second.clone());
        let says = move |seen: &Seen| with(Reply::text("answer")).after(if seen.number == 0 { &one } else { &other });
        let function = origin().answers(says).start().await;
        let route = "cache = { ttl = \"1h\", wait = \"1m\", max_body = \"100KiB\" }";
        let gateway = Arc::new(gateway(config(&function, "", route)).workers(1).start().await);
        let mut crowd = JoinSet::new();
        for n in 0..10 {
            let gateway = gateway.clone();
            crowd.spawn(async move { drop(gateway.connect().await.try_send("/").await) });
            if n == 0 {
                eventually("the first is at the function", async || when(function.requests() == 1)).await;
            }
        }
        gateway.counts("gatepost_in_flight", &[("function", "f")], 10.0).await;
        gateway.turn().await;
        first.open();
        eventually(&format!("{what}: all are there"), async || when(function.requests() == 10)).await;
        second.open();
        crowd.join_all().await;
    }
}

#[tokio::test]
async fn a_leader_who_leaves_takes_nobody_along() {
    let door = gate();
    let function = origin().answers(held(&door, |reply| reply)).start().await;
    let gateway = Arc::new(in_front_of(&function, "cache = { ttl = \"1h\", wait = \"1m\" }").await);
    let h2 = H2::plain(gateway.address("in")).await;
    let (feed, leader) = h2.start(get("/"));
    drop(feed);
    let leader = tokio::spawn(leader);
    eventually("the leader is at the function", async || when(function.requests() == 1)).await;
    let mut followers = JoinSet::new();
    for _ in 0..5 {
        let gateway = gateway.clone();
        followers.spawn(async move { gateway.get("/").await.text() });
    }
    gateway.counts("gatepost_in_flight", &[("function", "f")], 6.0).await;
    leader.abort();
    eventually("another leads", async || when(function.requests() == 2)).await;
    door.open();
    assert!(followers.join_all().await.iter().all(|text| text == "answer 1"));
    assert_eq!(function.requests(), 2);
}

#[tokio::test]
async fn nobody_waits_longer_than_it_is_said() {
    let door = gate();
    let function = origin().answers(held(&door, |reply| reply)).start().await;
    let gateway = Arc::new(in_front_of(&function, "cache = { ttl = \"1h\", wait = \"50ms\" }").await);
    let mut crowd = JoinSet::new();
    for _ in 0..5 {
        let gateway = gateway.clone();
        crowd.spawn(async move { gateway.get("/").await.status });
    }
    eventually("all went themselves", async || when(function.requests() == 5)).await;
    door.open();
    assert_eq!(crowd.join_all().await, [200; 5]);
}

#[tokio::test]
async fn a_crowd_that_wants_different_variants_costs_one_call_each() {
    let door = gate();
    let held = held(&door, |reply| reply.header("vary", "accept-language"));
    let function = origin().answers(held).start().await;
    let gateway = Arc::new(in_front_of(&function, "cache = { ttl = \"1h\", wait = \"1m\" }").await);
    let mut crowd = JoinSet::new();
    for n in 0..12 {
        let gateway = gateway.clone();
        let lang = ["de", "fr", "it"][n % 3];
        crowd.spawn(async move { (lang, gateway.send(get("/").header("accept-language", lang)).await.text()) });
    }
    gateway.counts("gatepost_in_flight", &[("function", "f")], 12.0).await;
    assert_eq!(function.requests(), 1);
    door.open();
    let answers: std::collections::BTreeSet<_> = crowd.join_all().await.into_iter().collect();
    assert_eq!((answers.len(), function.requests()), (3, 3), "{answers:?}");
}

/// A leader brings conditions of its own: the others have nothing of its answer, so that it gets the whole for once.
#[tokio::test]
async fn a_reload_of_the_page_leads_as_well() {
    let with = |reply: Reply| reply.header("etag", "\"v1\"").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let (gateway, function) = counting(HOUR, with).await;
    let since = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
    let mut connection = gateway.connect().await;
    for (path, (name, value)) in [("/a", ("if-none-match", "\"v1\"")), ("/b", since)] {
        let known = connection.send(get(path).header(name, value)).await;
        assert_eq!((known.status, known.body.len()), (200, 8));
        assert_eq!(function.last().header(name), None);
        assert_eq!(connection.send(get(path)).await.text(), known.text());
        let again = connection.send(get(path).header(name, value)).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
    assert_eq!(function.requests(), 2);
}

#[tokio::test]
async fn what_was_kept_stands_in_where_the_function_fails() {
    let route = "cache = { ttl = \"0s\", stale_if_error = \"1h\" }\nfallback = { status = 200, body = \"later\" }";
    let (gateway, function) = counting(route, |reply| reply).await;
    assert_eq!(gateway.get("/").await.text(), "answer 0");
    assert_eq!(gateway.get("/").await.text(), "answer 1", "nothing is fresh for longer than nothing");
    for reply in [Reply::text("own").status(500), Reply::made(300_000).status(503), Reply::vanish()] {
        function.now_answers(move |_| reply.clone());
        let mut connection = gateway.connect().await;
        let stale = connection.send(get("/")).await;
        assert_eq!((stale.status, stale.reason(), stale.text().as_str()), (200, "", "answer 1"));
        assert!(stale.header("age").is_some());
        // Nothing was kept of this one.
        assert_eq!(connection_or_new(&gateway, "/other").await, "later");
    }
    function.die().await;
    assert_eq!(gateway.get("/").await.text(), "answer 1");
    let log = gateway.log(9).await;
    let stale: Vec<_> = log.iter().filter(|line| line["cache"] == "stale").collect();
    let told: Vec<_> = stale.iter().map(|line| (line["reason"].as_str(), line["class"].as_str())).collect();
    let (failed, reset) = ((Some("function_failed"), Some("function")), (Some("upstream_reset"), Some("function")));
    assert_eq!(told, [failed, failed, reset, (Some("upstream_unreachable"), Some("unreachable"))]);
    gateway.counts("gatepost_cache_total", &[("result", "stale")], 4.0).await;
}

async fn connection_or_new(gateway: &Gateway, target: &str) -> String {
    gateway.get(target).await.text()
}

#[tokio::test]
async fn a_function_that_wants_nothing_stale_given_is_heard() {
    let with = |reply: Reply| reply.header("cache-control", "max-age=1, must-revalidate");
    let (gateway, function) = counting("cache = { ttl = \"0s\", stale_if_error = \"1h\" }", with).await;
    assert_eq!(gateway.get("/").await.text(), "answer 0");
    function.die().await;
    gateway.get("/").await.is_problem(502, "upstream_unreachable");
}

#[tokio::test]
async fn what_changes_something_is_seen_at_once() {
    let (gateway, function) = counting(HOUR, |reply| reply).await;
    assert_eq!(gateway.get("/a").await.text(), "answer 0");
    assert_eq!(text(&gateway, request("POST", "/a").body("x")).await, "answer 1");
    assert_eq!(gateway.get("/a").await.text(), "answer 2");
    function.now_answers(|_| Reply::text("no").status(400));
    assert_eq!(gateway.send(request("DELETE", "/a")).await.status, 400);
    assert_eq!(gateway.get("/a").await.text(), "answer 2", "what failed changed nothing");
}

#[tokio::test]
async fn each_caller_gets_its_own_dress() {
    let route = "cache = { ttl = \"1h\" }\ncompression = true\nsecurity_headers = \"basic\"\n\
                 cors = { allow_origins = [\"https://a.test\", \"https://b.test\"] }";
    let with = |_| {
        Reply::text("text ".repeat(500))
            .header("content-type", "text/plain")
            .header("etag", "\"v1\"")
            .header("access-control-allow-origin", "https://nobody.test")
    };
    let (gateway, function) = counting(route, with).await;
    for origin in ["https://a.test", "https://b.test"] {
        for (accept, coding) in [("identity", None), ("gzip", Some("gzip")), ("br", Some("br")), ("gzip", Some("gzip"))]
        {
            let answer = gateway.send(get("/").header("origin", origin).header("accept-encoding", accept)).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.header("content-encoding"), coding);
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.header("vary").map(|vary| vary.contains("Accept-Encoding")), Some(true), "{answer:?}");
            match coding {
                None => assert_eq!(answer.text(), "text ".repeat(500)),
                Some("gzip") => {
                    let mut text = String::new();
                    let mut reader = flate2::read::GzDecoder::new(answer.body.as_slice());
                    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
                    assert_eq!(text, "text ".repeat(500));
                    assert_eq!(answer.header("etag"), Some("W/\"v1\""));
                }
                Some(_) => assert!(answer.body.len() < 500),
            }
        }
    }
    assert_eq!(function.requests(), 1);
}

#[tokio::test]
async fn versions_are_kept_apart_and_sticky_callers_stay_on_theirs() {
    let (one, other) = (origin().reply("v1").start().await, origin().reply("v2").start().await);
    let text = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = 50, v2 = 50 }}\n\
         sticky = {{ by = [\"header:x-openid\"], issue_cookie = true }}\n[route.f]\nfunction = \"f\"\n{HOUR}\n",
        one.url(),
        other.url()
    );
    let gateway = gateway(text).workers(1).start().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let first = gateway.get("/").await;
        let cookie = first.header("set-cookie").expect("a cookie of its own").split(';').next().unwrap().to_owned();
        let again = gateway.send(get("/").header("cookie", &cookie)).await;
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        seen.insert((first.text(), cookie));
    }
    assert_eq!(seen.len(), 40, "no two got the same cookie");
    assert_eq!((one.requests(), other.requests()), (1, 1));
    // The header by which it tells callers apart may be in the answer.
    gateway.send(get("/").header("x-openid", "u1")).await;
    gateway.send(get("/").header("x-openid", "u1")).await;
    assert_eq!(one.requests() + other.requests(), 4);
}

#[tokio::test]
async fn a_reload_keeps_what_still_means_the_same() {
    let (gateway, function) = counting(HOUR, |reply| reply).await;
    assert_eq!(gateway.get("/").await.text(), "answer 0");
    let edit = async |from: &str, to: &str| {
        let receipt = gateway.edit(|text| text.replace(from, to)).await;
        assert_eq!(receipt.result, "applied", "{}", gateway.stderr());
    };
    edit("ttl = \"1h\"", "ttl = \"2h\"").await;
    assert_eq!(gateway.get("/").await.text(), "answer 0");
    // The function is asked something else from here on.
    edit("function = \"f\"", "function = \"f\"\nrequest_headers = { set = { x-a = \"1\" } }").await;
    assert_eq!(gateway.get("/").await.text(), "answer 1");
    edit("x-a = \"1\"", "x-a = \"2\"").await;
    assert_eq!(gateway.get("/").await.text(), "answer 2");
    edit("ttl = \"2h\"", "ttl = \"0s\"").await;
    assert_eq!(gateway.get("/").await.text(), "answer 3", "what was kept is too old now");
    assert_eq!(function.requests(), 4);
}

/// What is kept is bounded, and so is what arrives.
#[tokio::test]
async fn memory_is_bounded_whatever_is_asked() {
    let function = origin().answers(|_| Reply::made(60_000)).start().await;
    let route = "cache = { ttl = \"1h\", max_body = \"64KiB\", max_size = \"1MiB\" }";
    let gateway = in_front_of(&function, route).await;
    let mut connection = gateway.connect().await;
    for n in 0..200 {
        assert_eq!(connection.send(get(&format!("/{n}"))).await.body.len(), 60_000);
    }
    let held = gateway.metrics().await.sum("gatepost_cache_bytes", &[]);
    assert!((120_000.0..=1_048_576.0).contains(&held), "{held}");
    // What is asked for again and again stays, the rest goes.
    let popular = function.requests();
    for n in 200..300 {
        connection.send(get("/popular")).await;
        connection.send(get(&format!("/{n}"))).await;
    }
    assert!(function.requests() - popular <= 110, "{}", function.requests() - popular);
}

#[tokio::test]
async fn after_its_time_one_goes_and_fetches_anew() {
    let (gateway, function) = counting("cache = { ttl = \"200ms\" }", |reply| reply).await;
    let begin = Instant::now();
    let mut last = String::new();
    while function.requests() < 4 {
        last = gateway.get("/").await.text();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(last, "answer 3");
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
}

/// However many ask: each version is called about once a second. `GATEPOST_FULL=1` for ten seconds, and then at 5,000 a second (a release build).
#[tokio::test]
async fn a_page_that_everyone_asks_for_costs_two_calls_a_second_and_version_at_most() {
    let (v1, v2) = (origin().reply("v1").start().await, origin().reply("v2").start().await);
    let versions =
        format!("versions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = 50, v2 = 50 }}", v1.url(), v2.url());
    let route = "[route.f]\nfunction = \"f\"\ncache = { ttl = \"1s\" }\n";
    let gateway = gateway(format!("[function.f]\n{versions}\n{route}")).workers(2).start().await;
    let (lasts, each) =
        if full() { (Duration::from_secs(10), 5_000 / 16) } else { (Duration::from_secs(2), 1_000 / 16) };
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let mut caller = Connection::open(gateway.address("in")).await;
        callers.spawn(async move {
            let mut asked = 0_u32;
            while began.elapsed() < lasts {
                assert_eq!(caller.send("/page").await.status, 200);
                asked += 1;
                // Where that is late it goes on at once.
                let due = began + Duration::from_secs(1) * asked / each;
                tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
            }
            asked
        });
    }
    let asked: u32 = callers.join_all().await.into_iter().sum();
    let seconds = began.elapsed().as_secs_f64();
    println!("{asked} asked in {seconds:.1} s: {} and {} calls", v1.requests(), v2.requests());
    for version in [&v1, &v2] {
        assert!(version.requests() as f64 <= 2.0 * seconds.ceil(), "{} calls in {seconds} s", version.requests());
    }
    assert_eq!(gateway.all_told(asked as usize).await.len(), asked as usize);
}
