//! `error_pages`: people see a page, programs the problem document.

use crate::harness::{Gateway, Origin, Reply, gateway, get, h2::H2, origin, request};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A function that answers with the status that its path ends in.
async fn failing(more: &str) -> (Gateway, Origin) {
    let function = origin()
        .answers(|seen| {
            let status = seen.target.rsplit('/').next().and_then(|s| s.parse().ok()).unwrap_or(200);
            Reply::text(format!("own {status}"))
                .status(status)
                .header("etag", "\"own\"")
                .header("set-cookie", "a=1")
                .header("content-type", "text/plain")
        })
        .start()
        .await;
    let text = format!(
        r#"
        [server]
        error_pages = {{ 404 = {{ body = "<p>nothing here", content_type = "text/html" }}, 5xx = {{ file = "5xx.html" }} }}
        [listener.in]
        address = "127.0.0.1:0"
        h2c = true
        [function.f]
        versions = {{ v1 = "{}" }}
        [route.f]
        path = "/f/*"
        function = "f"
        {more}
        [route.closed]
        path = "/closed"
        maintenance = true
        function = "f"
        "#,
        function.url()
    );
    (gateway(text).file("5xx.html", "<p>later").workers(1).start().await, function)
}

#[tokio::test]
async fn a_browser_sees_the_page_and_a_program_the_document() {
    let (gateway, _f) = failing("").await;
    let page = gateway.send(get("/nowhere").header("accept", BROWSER)).await;
    assert_eq!((page.status, page.reason(), page.text().as_str()), (404, "no_route", "<p>nothing here"));
    assert_eq!(page.header("content-type"), Some("text/html"));
    assert!(page.header("x-request-id").is_some());
    gateway.send(get("/nowhere").header("accept", "application/json")).await.is_problem(404, "no_route");
    let closed = gateway.send(get("/closed").header("accept", BROWSER)).await;
    assert_eq!((closed.status, closed.reason(), closed.text().as_str()), (503, "maintenance", "<p>later"));
    assert_eq!(closed.header("retry-after"), Some("300"));
    let head = gateway.send(request("HEAD", "/nowhere").header("accept", BROWSER)).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (404, 0, Some("15")));
    let grpc = gateway.send(request("POST", "/closed").header("content-type", "application/grpc").body("")).await;
    assert_eq!(grpc.header("grpc-status"), Some("14"));
    // Without a page for the status the document stands; without `intercept` the function's word does.
    gateway.send(request("TRACE", "/f/x").header("accept", BROWSER)).await.is_problem(405, "method_not_allowed");
    let own = gateway.send(get("/f/500").header("accept", BROWSER)).await;
    assert_eq!((own.status, own.text().as_str()), (500, "own 500"));
}

#[tokio::test]
async fn a_page_stands_in_for_the_function_where_it_is_meant_to() {
    let pages = "error_pages = { 5xx = { body = \"<p>sorry\", content_type = \"text/html\", intercept = true }, \
                 404 = { body = \"x\" } }\nresponse_headers = { add = { x-seen = \"1\" } }";
    let (gateway, function) = failing(pages).await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        let page = connection.send(get("/f/502").header("accept", BROWSER)).await;
        assert_eq!((page.status, page.reason(), page.text().as_str()), (502, "", "<p>sorry"));
        assert_eq!((page.header("etag"), page.header("set-cookie")), (None, Some("a=1")));
        assert_eq!((page.header("content-type"), page.header("vary")), (Some("text/html"), Some("Accept")));
        assert_eq!(page.fields.all("x-seen"), ["1"]);
    }
    let json = connection.send(get("/f/502").header("accept", "application/json")).await;
    assert_eq!((json.status, json.text().as_str()), (502, "own 502"));
    let other = connection.send(get("/f/404").header("accept", BROWSER)).await;
    assert_eq!(other.text(), "own 404", "its page does not intercept, and the server's is not asked");
    let head = connection.send(request("HEAD", "/f/500").header("accept", BROWSER)).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (500, 0, Some("8")));
    let h2 = H2::plain(gateway.address("in")).await.send(get("/f/503").header("accept", BROWSER)).await;
    assert_eq!((h2.status, h2.text().as_str()), (503, "<p>sorry"));
    // An upload that the function refuses early, and an answer without a body.
    let empty = Reply::text("").status(500);
    function.now_answers(move |_| empty.clone());
    let post = gateway.send(request("POST", "/f/x").header("accept", BROWSER).body("hello")).await;
    assert_eq!((post.status, post.text().as_str()), (500, "<p>sorry"));
    let log = gateway.log(7).await;
    assert_eq!((&log[0]["status"], &log[0]["upstream_status"]), (&502.into(), &502.into()));
    assert_eq!((&log[0]["class"], &log[0]["attempts"]), (&"function".into(), &1.into()));
    assert!(log[0].get("reason").is_none_or(serde_json::Value::is_null), "{}", log[0]);
    assert_eq!(function.requests(), 7, "nothing is asked twice");
}
