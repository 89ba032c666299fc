//! A caller reaches the function that host, path, method, headers and query say, and no other.

use serde_json::Value;

use crate::harness::{Answer, Connection, Gateway, Origin, eventually, gateway, get, origin, request, when};

/// A gatepost with these routes, each to a function of the same name that answers with it.
///
/// All functions are one origin, told apart by the base path of their URLs.
async fn routes(routes: &[(&str, &str)]) -> (Gateway, Origin) {
    let functions = origin()
        .answers(|seen| {
            let path = seen.target.split('?').next().unwrap_or_default();
            let name = path.split('/').nth(1).unwrap_or_default();
            name.into()
        })
        .start()
        .await;
    let mut config = String::new();
    for (name, conditions) in routes {
        let url = functions.url();
        config += &format!(
            "[function.{name}]\nversions = {{ v1 = \"{url}/{name}\" }}\n\
             [route.{name}]\nfunction = \"{name}\"\n{conditions}\n"
        );
    }
    (gateway(config).start().await, functions)
}

/// Who answered.
async fn who(gateway: &Gateway, host: &str, path: &str) -> String {
    let answer = gateway.send(get(path).host(host)).await;
    match answer.status {
        200 => answer.text(),
        _ => format!("{} {}", answer.status, answer.reason()),
    }
}

#[tokio::test]
async fn the_nearest_host_wins() {
    let (gateway, _functions) =
        routes(&[("exact", "host = \"api.example.com\""), ("wildcard", "host = \"*.example.com\""), ("any", "")]).await;
    assert_eq!(who(&gateway, "api.example.com", "/").await, "exact");
    assert_eq!(who(&gateway, "API.Example.com", "/").await, "exact");
    assert_eq!(who(&gateway, "api.example.com:8443", "/").await, "exact");
    assert_eq!(who(&gateway, "api.example.com.", "/").await, "exact");
    assert_eq!(who(&gateway, "a.b.example.com", "/").await, "wildcard");
    assert_eq!(who(&gateway, "example.com", "/").await, "any");
    assert_eq!(who(&gateway, "example.org", "/").await, "any");
}

#[tokio::test]
async fn the_nearest_path_wins() {
    let (gateway, _functions) = routes(&[
        ("exact", "path = \"/orders/new\""),
        ("param", "path = \"/orders/{id}\""),
        ("long", "path = \"/orders/archive/*\""),
        ("short", "path = \"/orders/*\""),
        ("regex", "path_regex = \"/v[0-9]+/.*\""),
    ])
    .await;
    for (path, expected) in [
        ("/orders/new", "exact"),
        ("/orders/7", "param"),
        ("/orders/archive/7", "long"),
        ("/orders/7/lines", "short"),
        ("/orders", "short"),
        ("/orders/", "short"),
        ("/v2/x", "regex"),
        ("/orders2", "404 no_route"),
        ("/", "404 no_route"),
        ("/vx/x", "404 no_route"),
    ] {
        assert_eq!(who(&gateway, "x.test", path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn more_conditions_win_and_a_failed_one_disqualifies() {
    let (gateway, _functions) = routes(&[
        ("plain", "path = \"/a\""),
        ("posts", "path = \"/a\"\nmethods = [\"POST\"]"),
        // GET alone: a POST with that header would otherwise meet one condition here and one above, which is a tie.
        ("testers", "path = \"/a\"\nmethods = [\"GET\"]\nheaders = { x-tester = \"yes\" }"),
        ("debug", "path = \"/a\"\nmethods = [\"GET\"]\nheaders = { x-tester = \"*\" }\nquery = { debug = \"1\" }"),
    ])
    .await;
    assert_eq!(gateway.get("/a").await.text(), "plain");
    assert_eq!(gateway.post("/a", "").await.text(), "posts");
    let tester = get("/a").header("X-Tester", "yes");
    assert_eq!(gateway.send(tester).await.text(), "testers");
    let other = get("/a").header("X-Tester", "no");
    assert_eq!(gateway.send(other).await.text(), "plain");
    let debug = get("/a?x=y&debug=1").header("X-Tester", "no");
    assert_eq!(gateway.send(debug).await.text(), "debug");
}

#[tokio::test]
async fn a_higher_priority_settles_what_is_otherwise_a_tie() {
    let (gateway, _functions) =
        routes(&[("one", "path_regex = \"/a.*\""), ("two", "path_regex = \".*b\"\npriority = 1")]).await;
    assert_eq!(gateway.get("/ab").await.text(), "two");
    assert_eq!(gateway.get("/a").await.text(), "one");
}

#[tokio::test]
async fn nothing_there_is_told_apart_from_a_wrong_method() {
    let (gateway, functions) = routes(&[("a", "path = \"/a\"\nmethods = [\"GET\", \"PUT\"]")]).await;
    gateway.get("/b").await.is_problem(404, "no_route");
    let answer = gateway.send(request("DELETE", "/a")).await;
    answer.is_problem(405, "method_not_allowed");
    let mut allow: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
    allow.sort_unstable();
    assert!(allow.contains(&"GET") && allow.contains(&"PUT"), "{allow:?}");
    assert!(!allow.contains(&"DELETE"), "{allow:?}");
    assert_eq!(functions.requests(), 0);
}

async fn echoing(route: &str) -> (Gateway, Origin) {
    let function = origin().echo().start().await;
    let url = function.url();
    let config = format!("[function.f]\nversions = {{ v1 = \"{url}\" }}\n[route.f]\nfunction = \"f\"\n{route}\n");
    (gateway(config).start().await, function)
}

fn target(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["target"].clone()
}

#[tokio::test]
async fn paths_are_normalised_and_queries_untouched() {
    let (gateway, _function) = echoing("path = \"/*\"").await;
    for (sent, arrives) in [
        ("/a/../b/./c?x=%2e%2e/../y", "/b/c?x=%2e%2e/../y"),
        ("//a///b", "/a/b"),
        ("/%61%2D%7e", "/a-~"),
        ("/a%20b", "/a%20b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a?", "/a?"),
    ] {
        assert_eq!(target(&gateway.get(sent).await), arrives, "{sent}");
    }
}

#[tokio::test]
async fn what_a_path_may_not_hold_is_refused() {
    let (gateway, function) = echoing("path = \"/*\"").await;
    for path in ["/a%2fb", "/a%2Fb", "/a%00b", "/a%0ab", "/a%zz", "/a%7f"] {
        gateway.get(path).await.is_problem(400, "bad_request");
    }
    assert_eq!(function.requests(), 0);
}

#[tokio::test]
async fn an_encoded_slash_is_kept_where_the_route_says_so() {
    let (gateway, _function) = echoing("path = \"/files/{name}\"\nencoded_slash = \"keep\"").await;
    assert_eq!(target(&gateway.get("/files/a%2Fb").await), "/files/a%2Fb");
    assert_eq!(gateway.get("/files/a/b").await.status, 404);
}

#[tokio::test]
async fn a_prefix_is_stripped_at_a_segment_border() {
    let (gateway, _function) = echoing("path = \"/orders/*\"\nstrip_prefix = \"/orders\"").await;
    for (sent, arrives) in [("/orders/7?x=1", "/7?x=1"), ("/orders", "/"), ("/orders/", "/")] {
        assert_eq!(target(&gateway.get(sent).await), arrives, "{sent}");
    }
}

#[tokio::test]
async fn a_route_may_be_for_one_listener_only() {
    let function = origin().start().await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        [listener.inside]
        address = "127.0.0.1:0"
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        listeners = ["inside"]
        function = "f"
        "#,
        function.url()
    ))
    .start()
    .await;
    gateway.get("/").await.is_problem(404, "no_route");
    let mut inside = Connection::open(gateway.address("inside")).await;
    assert_eq!(inside.send("/").await.status, 200);
}

#[tokio::test]
async fn ten_thousand_routes_are_no_trouble() {
    let function = origin().start().await;
    let mut config = format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n", function.url());
    for n in 0..10_000 {
        config += &format!("[route.r{n}]\npath = \"/r{n}/*\"\nfunction = \"f\"\n");
    }
    let gateway = gateway(config).start().await;
    for n in [0, 4_711, 9_999] {
        assert_eq!(gateway.get(&format!("/r{n}/x")).await.status, 200);
    }
    gateway.get("/r10000/x").await.is_problem(404, "no_route");
    let memory = gateway.process().anonymous();
    assert!(memory < 100 << 20, "{memory} bytes");
    let more = gateway.config_text() + "[route.new]\npath = \"/new\"\nfunction = \"f\"\n";
    gateway.replace(&more);
    eventually("the new route answers", async || when(gateway.get("/new").await.status == 200)).await;
}
