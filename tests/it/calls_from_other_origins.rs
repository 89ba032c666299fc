//! `cors`: which pages may call, said by gatepost alone, on errors too (WHATWG Fetch, §3.2).

use crate::harness::{Answer, Gateway, Origin, Reply, Request, gateway, get, h2::H2, origin, request};

const APP: &str = "https://app.test";

async fn served(route: &str) -> (Gateway, Origin) {
    let function = origin()
        .reply(
            Reply::text("hello")
                .header("access-control-allow-origin", "*")
                .header("access-control-allow-credentials", "false")
                .header("vary", "Accept-Language"),
        )
        .start()
        .await;
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n\
         [route.f]\npath = \"/f/*\"\nfunction = \"f\"\n{route}\n[route.plain]\npath = \"/plain\"\nfunction = \"f\"\n",
        function.url()
    );
    (gateway(text).workers(1).start().await, function)
}

fn preflight(method: &str) -> Request {
    request("OPTIONS", "/f/x").header("origin", APP).header("access-control-request-method", method)
}

/// The answer's headers of CORS, sorted.
fn cors_of(answer: &Answer) -> Vec<(String, String)> {
    let all = answer.fields.0.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
    let mut cors: Vec<_> = all.filter(|(name, _)| name.starts_with("access-control-")).collect();
    cors.sort();
    cors
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_function_a_credential_or_a_limit() {
    let (gateway, function) = served(
        "methods = [\"GET\", \"PUT\"]\nlimits = [{ rate = \"1/h\" }]\nclients = [\"office\"]\n\
         cors = { allow_origins = [\"https://app.test\"], allow_headers = [\"x-a\", \"content-type\"], allow_credentials = true, max_age = \"1h\" }\n\
         [client.office]\nnetworks = [\"192.0.2.0/24\"]",
    )
    .await;
    for _ in 0..3 {
        let answer = gateway.send(preflight("PUT").header("access-control-request-headers", "x-a")).await;
        assert_eq!((answer.status, answer.reason()), (204, ""), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("x-a, content-type"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
        let vary = answer.header("vary").unwrap();
        for name in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            assert!(vary.contains(name), "{vary}");
        }
        assert!(!answer.fields.has("access-control-expose-headers"));
    }
    assert_eq!(function.connections(), 0);
    let log = gateway.log(3).await;
    assert_eq!((&log[0]["method"], &log[0]["class"], &log[0]["route"]), (&"OPTIONS".into(), &"ok".into(), &"f".into()));
    // A method that the route does not serve is nothing to ask for.
    gateway.send(preflight("DELETE")).await.is_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn an_unknown_origin_is_told_nothing() {
    let (gateway, _f) = served("cors = { allow_origins = [\"https://app.test\"] }").await;
    let mut asked = preflight("GET");
    asked.fields.iter_mut().filter(|(n, _)| n == "origin").for_each(|(_, v)| "https://evil.test".clone_into(v));
    let answer = gateway.send(asked).await;
    assert_eq!((answer.status, cors_of(&answer)), (204, vec![]));
    for asked in [get("/f/x").header("origin", "https://evil.test"), get("/f/x").header("origin", "null"), get("/f/x")]
    {
        let answer = gateway.send(asked).await;
        assert_eq!((answer.status, cors_of(&answer)), (200, vec![]), "the function's own words are gone too");
        assert_eq!(answer.fields.all("vary"), ["Accept-Language, Origin"], "a cache must not mix them up");
    }
}

#[tokio::test]
async fn answers_and_errors_are_readable_by_the_page() {
    let (gateway, function) = served(
        "limits = [{ rate = \"2/h\", burst = 2 }]\n\
         cors = { allow_origins = [\"https://app.test\"], expose_headers = [\"x-request-id\"], allow_credentials = true }",
    )
    .await;
    let expected = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", APP),
        ("access-control-expose-headers", "x-request-id"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let asked = || get("/f/x").header("origin", APP);
    let ok = gateway.send(asked()).await;
    assert_eq!((ok.status, cors_of(&ok)), (200, expected.to_vec()), "one author: nothing is there twice");
    let h2 = H2::plain(gateway.address("in")).await;
    assert_eq!(cors_of(&h2.send(asked()).await), expected);
    let refused = gateway.send(asked()).await;
    refused.is_problem(429, "rate_limited");
    assert_eq!(cors_of(&refused), expected);
    assert_eq!(function.requests(), 2);
}

#[tokio::test]
async fn a_function_that_is_down_is_no_riddle_for_the_page() {
    let dead = origin::dead_address();
    let gateway = gateway(format!(
        "[function.f]\nversions = {{ v1 = \"http://{dead}\" }}\n[route.f]\nfunction = \"f\"\ncors = {{ allow_origins = [\"*\"] }}\n"
    ))
    .start()
    .await;
    let answer = gateway.send(get("/").header("origin", APP)).await;
    answer.is_problem(502, "upstream_unreachable");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(!answer.fields.has("vary"), "the same for every origin: caches may keep one");
}

#[tokio::test]
async fn any_origin_and_any_header() {
    let (gateway, _f) = served("cors = { allow_origins = [\"*\"], allow_headers = [\"*\"] }").await;
    let answer = gateway.send(preflight("GET").header("access-control-request-headers", "authorization, x-b")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-b"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    let answer = gateway.send(get("/f/x")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.fields.all("vary"), ["Accept-Language"]);
}

#[tokio::test]
async fn what_is_no_preflight_is_the_functions() {
    let (gateway, function) = served("cors = { allow_origins = [\"https://app.test\"] }").await;
    // An OPTIONS that asks nothing, one of a route without `cors`, and a GET with a preflight's header.
    gateway.send(request("OPTIONS", "/f/x").header("origin", APP)).await;
    let plain = preflight("GET");
    gateway.send(Request { target: "/plain".into(), ..plain }).await;
    gateway.send(get("/f/x").header("access-control-request-method", "GET").header("origin", APP)).await;
    let methods: Vec<_> = function.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
    assert_eq!(methods, ["OPTIONS /f/x", "OPTIONS /plain", "GET /f/x"]);
}

#[tokio::test]
async fn networks_that_are_shut_out_stay_out() {
    let (gateway, _f) = served("deny = [\"127.0.0.1\"]\ncors = { allow_origins = [\"https://app.test\"] }").await;
    let answer = gateway.send(preflight("GET")).await;
    answer.is_problem(403, "forbidden_address");
}
