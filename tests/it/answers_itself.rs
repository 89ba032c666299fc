//! Routes that answer without a function: redirects, answers of their own, maintenance; and edits on the way.

use crate::harness::{Connection, Gateway, Origin, Reply, gateway, get, h2::H2, origin, request};

/// A gatepost with these routes; `[function.f]` echoes what it saw.
async fn with(routes: &str) -> (Gateway, Origin) {
    let function = origin().echo().start().await;
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{routes}\n",
        function.url()
    );
    (gateway(text).workers(1).start().await, function)
}

#[tokio::test]
async fn http_becomes_https_with_one_line() {
    let (gateway, _f) = with("[route.r]\nhost = \"shop.test\"\nredirect = \"https\"").await;
    let answer = gateway.send(get("/a/../b?q=1").host("Shop.test:8080")).await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://shop.test/b?q=1")));
    assert_eq!(answer.reason(), "", "it is the operator's answer, no refusal");
    assert!(answer.header("x-request-id").is_some());
    // A host that the route does not name is led nowhere.
    gateway.send(get("/").host("evil.test")).await.is_problem(404, "no_route");
    let log = gateway.log(2).await;
    assert_eq!((&log[0]["status"], &log[0]["class"], &log[0]["route"]), (&308.into(), &"ok".into(), &"r".into()));
    assert!(log[0].get("function").is_none_or(serde_json::Value::is_null), "{}", log[0]);
}

#[tokio::test]
async fn a_post_is_redirected_too_and_the_connection_kept() {
    let (gateway, _f) = with("[route.r]\npath = \"/old/*\"\nredirect = { to = \"/new/{rest}\", status = 307 }").await;
    let mut connection = gateway.connect().await;
    for n in 0..3 {
        let answer = connection.send(request("POST", &format!("/old/{n}")).body("hello")).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some(format!("/new/{n}").as_str())));
    }
    let head = connection.send(request("HEAD", "/old/x")).await;
    assert_eq!(head.status, 307);
    let h2 = H2::plain(gateway.address("in")).await;
    let answer = h2.send(get("/old/h2")).await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("/new/h2")));
}

#[tokio::test]
async fn a_route_answers_with_a_text_or_a_file() {
    let function = origin().start().await;
    let gateway = gateway(format!(
        r#"
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.robots]
        path = "/robots.txt"
        respond = {{ file = "robots.txt", headers = {{ cache-control = "max-age=60" }} }}
        [route.gone]
        path = "/v1/*"
        respond = {{ status = 410, body = "use /v2", content_type = "text/markdown" }}
        [route.empty]
        path = "/ping"
        respond = {{ status = 204 }}
        [route.broken]
        path = "/broken"
        respond = {{ status = 500 }}
        "#,
        function.url()
    ))
    .file("robots.txt", "User-agent: *\n")
    .workers(1)
    .start()
    .await;
    let robots = gateway.get("/robots.txt").await;
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\n"));
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(robots.header("cache-control"), Some("max-age=60"));
    let head = gateway.send(request("HEAD", "/robots.txt")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("14"), 0));
    let gone = gateway.get("/v1/x").await;
    assert_eq!((gone.status, gone.text().as_str()), (410, "use /v2"));
    assert_eq!((gone.header("content-type"), gone.reason()), (Some("text/markdown"), ""));
    let empty = gateway.get("/ping").await;
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
    let h2 = H2::plain(gateway.address("in")).await;
    assert_eq!(h2.send(get("/robots.txt")).await.text(), "User-agent: *\n");
    assert_eq!(gateway.get("/broken").await.status, 500);
    let classes: Vec<_> = gateway.log(6).await.iter().map(|line| line["class"].as_str().unwrap().to_owned()).collect();
    assert_eq!(classes, ["ok", "ok", "client_error", "ok", "ok", "config"]);
    assert_eq!(function.requests(), 0);
    // The file's new content is served as soon as it is there.
    std::fs::write(gateway.dir().join("robots.txt.new"), "new").unwrap();
    let before = gateway.receipts().len();
    std::fs::rename(gateway.dir().join("robots.txt.new"), gateway.dir().join("robots.txt")).unwrap();
    assert_eq!(gateway.receipt(before).await.result, "applied");
    assert_eq!(gateway.get("/robots.txt").await.text(), "new");
}

#[tokio::test]
async fn they_are_under_allow_deny_and_limits_like_any_other() {
    let (gateway, _f) = with(
        "[route.denied]\npath = \"/denied\"\ndeny = [\"127.0.0.1\"]\nrespond = { body = \"x\" }\n\
         [route.limited]\npath = \"/limited\"\nlimits = [{ rate = \"1/h\" }]\nredirect = \"/x\"\n\
         [route.closed]\npath = \"/closed\"\nlimits = [{ rate = \"1/h\" }]\nmaintenance = true\nfunction = \"f\"",
    )
    .await;
    gateway.get("/denied").await.is_problem(403, "forbidden_address");
    assert_eq!(gateway.get("/limited").await.status, 302);
    gateway.get("/limited").await.is_problem(429, "rate_limited");
    gateway.get("/closed").await.is_problem(503, "maintenance");
    gateway.get("/closed").await.is_problem(429, "rate_limited");
}

#[tokio::test]
async fn maintenance_lets_the_office_through_and_tells_the_others_when_to_come_back() {
    let (gateway, function) = with(
        "[route.f]\nfunction = \"f\"\n\
         maintenance = { retry_after = \"10m\", body = \"<p>back soon\", content_type = \"text/html\", allow = [\"127.0.0.2\"] }",
    )
    .await;
    let closed = gateway.get("/").await;
    assert_eq!((closed.status, closed.reason(), closed.text().as_str()), (503, "maintenance", "<p>back soon"));
    assert_eq!((closed.header("retry-after"), closed.header("content-type")), (Some("600"), Some("text/html")));
    assert_eq!(closed.header("cache-control"), Some("no-store"));
    assert_eq!(function.requests(), 0);
    let office = gateway.connect_from("127.0.0.2").await.send("/").await;
    assert_eq!(office.status, 200);
    let log = gateway.log(2).await;
    assert_eq!((&log[0]["class"], &log[0]["reason"]), (&"refused".into(), &"maintenance".into()));
    // gRPC callers keep their own kind of answer.
    let grpc = gateway.send(request("POST", "/s/m").header("content-type", "application/grpc").body("")).await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));
    // Over, by one edit.
    gateway.edit(|text| text.lines().filter(|l| !l.starts_with("maintenance")).collect::<Vec<_>>().join("\n")).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn headers_are_edited_on_both_ways() {
    let function = origin()
        .answers(|seen| {
            Reply::text(format!("{:?}", seen.fields.0))
                .header("server", "fn/1")
                .header("x-debug-a", "1")
                .header("x-debug-b", "2")
                .header("via", "1.1 fn")
        })
        .start()
        .await;
    let gateway = gateway(format!(
        r#"
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        request_headers = {{ set = {{ x-env = "prod" }}, add = {{ x-tag = "b" }}, remove = ["x-secret", "x-debug-*"] }}
        response_headers = {{ set = {{ server = "s" }}, add = {{ via = "1.1 edge" }}, remove = ["x-debug-*"] }}
        limits = [{{ rate = "4/h", burst = 4 }}]
        "#,
        function.url()
    ))
    .start()
    .await;
    let asked = get("/").header("x-env", "test").header("x-tag", "a").header("x-secret", "s").header("X-Debug-Me", "1");
    let answer = gateway.send(asked).await;
    let seen = function.last();
    assert_eq!(seen.fields.all("x-env"), ["prod"]);
    assert_eq!(seen.fields.all("x-tag"), ["a", "b"]);
    assert!(!seen.fields.has("x-secret") && !seen.fields.has("x-debug-me"), "{seen:?}");
    assert_eq!(answer.fields.all("server"), ["s"]);
    assert_eq!(answer.fields.all("via"), ["1.1 fn", "1.1 edge"]);
    assert!(!answer.fields.has("x-debug-a") && !answer.fields.has("x-debug-b"), "{answer:?}");
    // gatepost's own answers of this route wear them too.
    for _ in 0..3 {
        gateway.get("/").await;
    }
    let refused = gateway.get("/").await;
    refused.is_problem(429, "rate_limited");
    assert_eq!((refused.header("server"), refused.header("via")), (Some("s"), Some("1.1 edge")));
}

#[tokio::test]
async fn security_headers_add_what_the_function_does_not_say() {
    let function = origin()
        .reply(
            Reply::text("x")
                .header("x-frame-options", "SAMEORIGIN")
                .header("server", "f")
                .header("x-powered-by", "php"),
        )
        .start()
        .await;
    let config = |security: &str| {
        format!(
            "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[function.f]\nversions = {{ v1 = \"{}\" }}\n\
             [route.f]\nfunction = \"f\"\nsecurity_headers = {security}\n[route.x]\npath = \"/x\"\ndeny = [\"127.0.0.1\"]\n\
             function = \"f\"\nsecurity_headers = {security}\n",
            function.url()
        )
    };
    let gateway = gateway(config("\"strict\"")).start().await;
    let plain = gateway.get("/").await;
    assert_eq!(plain.fields.all("x-frame-options"), ["SAMEORIGIN"], "the function's own word stands");
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(plain.header("content-security-policy"), Some("frame-ancestors 'none'"));
    assert!(!plain.fields.has("server") && !plain.fields.has("x-powered-by"), "{plain:?}");
    assert!(!plain.fields.has("strict-transport-security"), "RFC 6797 §7.2: not over plain HTTP");
    // A trusted proxy that ended TLS says so; refusals are dressed as well.
    let refused = gateway.send(get("/x").header("x-forwarded-proto", "https")).await;
    refused.is_problem(403, "forbidden_address");
    assert_eq!(refused.header("strict-transport-security"), Some("max-age=63072000; includeSubDomains"));
    assert_eq!(refused.header("x-frame-options"), Some("DENY"));
    gateway.edit(|text| text.replace("\"strict\"", "{ preset = \"basic\", replace = true }")).await;
    let replaced = gateway.send(get("/").header("x-forwarded-proto", "https")).await;
    assert_eq!(replaced.header("content-security-policy"), Some("frame-ancestors 'self'"));
    assert_eq!(replaced.header("strict-transport-security"), Some("max-age=31536000"));
}

#[tokio::test]
async fn the_path_is_rewritten_for_the_function() {
    let (gateway, function) = with(
        "[route.a]\npath = \"/a/*\"\nstrip_prefix = \"/a\"\nadd_prefix = \"/v2\"\nfunction = \"f\"\n\
         [route.u]\npath = \"/u/{id}\"\nrewrite = \"/users/{id}/show\"\nfunction = \"f\"",
    )
    .await;
    for (asked, seen) in [("/a/b?c=1", "/v2/b?c=1"), ("/a", "/v2"), ("/u/7?x", "/users/7/show?x")] {
        gateway.get(asked).await;
        assert_eq!(function.last().target, seen);
        Connection::open(gateway.address("in")).await.send(asked).await;
    }
}
