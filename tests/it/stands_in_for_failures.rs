//! `fallback`: callers get something that was written before, where the call came to nothing; and are told so.

use crate::harness::{Gateway, Origin, Reply, gateway, get, h2::H2, origin, origin::dead_address, request};

/// A function that answers with the status that its path ends in, behind a route with these lines.
async fn failing(function: &str, route: &str) -> (Gateway, Origin) {
    let origin = origin()
        .answers(|seen| {
            let status = seen.target.rsplit('/').next().and_then(|s| s.parse().ok()).unwrap_or(200);
            Reply::text(format!("own {status}")).status(status).header("set-cookie", "a=1").header("retry-after", "9")
        })
        .start()
        .await;
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{}\" }}\n{function}\n\
         [function.gone]\nversions = {{ v1 = \"http://{}\" }}\n\
         [route.f]\npath = \"/f/*\"\nfunction = \"f\"\n{route}\n[route.gone]\npath = \"/gone\"\nfunction = \"gone\"\n{route}\n",
        origin.url(),
        dead_address(),
    );
    (gateway(text).file("sorry.html", "<p>sorry").workers(1).start().await, origin)
}

#[tokio::test]
async fn callers_get_it_where_the_function_cannot_be_reached() {
    let (gateway, _f) = failing("", "fallback = { status = 200, file = \"sorry.html\" }").await;
    let answer = gateway.get("/gone").await;
    assert_eq!((answer.status, answer.reason(), answer.text().as_str()), (200, "upstream_unreachable", "<p>sorry"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    // Nobody may keep it in the place of the real answer.
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").is_some());
    let head = gateway.send(request("HEAD", "/gone")).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("8")));
    let line = gateway.log(2).await.remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"upstream_unreachable".into()));
    assert_eq!(line["class"], "unreachable");
    gateway.counts("gatepost_requests_total", &[("route", "gone"), ("class", "unreachable")], 2.0).await;
}

#[tokio::test]
async fn callers_get_it_where_the_function_says_that_it_failed() {
    let route = "fallback = { body = \"later\" }\nsecurity_headers = \"basic\"";
    let (gateway, function) = failing("", route).await;
    let mut connection = gateway.connect().await;
    for status in [500, 503, 429] {
        let answer = connection.send(get(&format!("/f/{status}"))).await;
        // Without a status of its own it keeps the failure's.
        assert_eq!((answer.status, answer.reason(), answer.text().as_str()), (status, "function_failed", "later"));
        assert_eq!((answer.header("set-cookie"), answer.header("retry-after")), (None, Some("9")));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    }
    // What callers did wrong is theirs to hear of.
    for status in [200, 404] {
        let answer = connection.send(get(&format!("/f/{status}"))).await;
        assert_eq!((answer.status, answer.reason(), answer.text()), (status, "", format!("own {status}")));
    }
    let h2 = H2::plain(gateway.address("in")).await.send(get("/f/500")).await;
    assert_eq!((h2.status, h2.text().as_str()), (500, "later"));
    let post = gateway.send(request("POST", "/f/500").body("hello")).await;
    assert_eq!((post.status, post.text().as_str()), (500, "later"));
    let log = gateway.log(7).await;
    for (line, (status, class)) in log.iter().zip([(500, "function"), (503, "function"), (429, "throttled")]) {
        assert_eq!((&line["status"], &line["upstream_status"]), (&status.into(), &status.into()), "{line}");
        assert_eq!((&line["class"], &line["reason"]), (&class.into(), &"function_failed".into()), "{line}");
    }
    assert!(log[3].get("reason").is_none(), "{}", log[3]);
    assert_eq!(function.requests(), 7, "nothing is asked twice");
}

/// Its platform knows a failure that comes as a 200.
#[tokio::test]
async fn what_is_a_failure_is_told_by_its_class() {
    let function = "classify = [{ status = 418, class = \"function\" }, { status = 500, class = \"client_error\" }]";
    let (gateway, _f) = failing(function, "fallback = { status = 203, body = \"later\" }").await;
    assert_eq!((gateway.get("/f/418").await.status, gateway.get("/f/500").await.status), (203, 500));
}

#[tokio::test]
async fn refusals_that_are_the_callers_own_stay_what_they_are() {
    let route = "fallback = { status = 200, body = \"later\" }\nlimits = [{ rate = \"1/d\" }]\nmax_body = \"1KiB\"";
    let (gateway, _f) = failing("", route).await;
    gateway.send(request("POST", "/f/200").body(vec![b'x'; 2048])).await.is_problem(413, "body_too_large");
    assert_eq!(gateway.get("/f/200").await.text(), "own 200");
    gateway.get("/f/200").await.is_problem(429, "rate_limited");
    gateway.get("/nowhere").await.is_problem(404, "no_route");
    // gRPC callers read statuses of their own.
    let grpc = gateway.send(request("POST", "/gone").header("content-type", "application/grpc").body("")).await;
    assert_eq!(grpc.header("grpc-status"), Some("14"));
}
