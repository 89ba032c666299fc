//! gatepost knows what a function platform does: how its failures look, what it takes, what it says that is not for callers.

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply, gateway, get, origin, post, request};

/// A gatepost before `function`, which is a function of that platform, with these lines too.
async fn on(platform: &str, lines: &str, function: &Origin) -> Gateway {
    gateway(format!(
        "[function.f]\nplatform = \"{platform}\"\nversions = {{ v1 = \"{}\" }}\n{lines}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .workers(1)
    .start()
    .await
}

/// What a platform answers, what gatepost makes of it, and what the caller is told where `map_status` is on.
struct Signal(u16, &'static [(&'static str, &'static str)], &'static str, u16);

const FC: (&str, &str) = ("X-Fc-Error-Type", "FcCommonError");

/// `platforms.md`, B2.
const SIGNALS: [(&str, &[Signal]); 8] = [
    (
        "aliyun-fc3",
        &[
            Signal(200, &[], "ok", 200),
            Signal(404, &[], "client_error", 404),
            Signal(500, &[], "function", 500),
            Signal(429, &[FC], "throttled", 429),
            Signal(503, &[FC], "throttled", 503),
            Signal(500, &[FC], "platform", 500),
            Signal(502, &[("X-Fc-Error-Type", "UnhandledInvocationError")], "function", 502),
            Signal(200, &[("X-Fc-Error-Type", "InitializationError")], "function", 502),
            Signal(400, &[FC], "config", 502),
            Signal(403, &[FC], "config", 502),
            Signal(404, &[FC], "config", 502),
        ],
    ),
    (
        "tencent-scf",
        &[
            Signal(429, &[], "throttled", 429),
            Signal(432, &[], "throttled", 503),
            Signal(430, &[], "function", 502),
            Signal(433, &[], "function", 502),
            Signal(434, &[], "function", 502),
            Signal(402, &[], "account", 503),
            Signal(410, &[], "account", 503),
            Signal(406, &[], "config", 502),
            Signal(407, &[], "config", 502),
            Signal(435, &[], "config", 502),
            Signal(429, &[("X-Scf-Error-Type", "ScfCommonError")], "throttled", 429),
            Signal(500, &[("X-Scf-Error-Type", "ScfSysError")], "platform", 500),
            Signal(502, &[("X-Scf-Error-Type", "UnhandledInvocationErr")], "function", 502),
        ],
    ),
    (
        "aws-lambda-url",
        &[
            Signal(429, &[("x-amzn-ErrorType", "TooManyRequestsException")], "throttled", 429),
            Signal(502, &[], "function", 502),
            Signal(200, &[("X-Amz-Function-Error", "Unhandled")], "function", 502),
        ],
    ),
    (
        "cloud-run",
        &[Signal(429, &[], "throttled", 429), Signal(503, &[], "throttled", 503), Signal(504, &[], "timeout", 504)],
    ),
    ("azure-functions", &[Signal(504, &[], "timeout", 504)]),
    ("knative", &[Signal(503, &[], "throttled", 503), Signal(504, &[], "timeout", 504)]),
    ("openfaas", &[Signal(429, &[], "throttled", 429), Signal(504, &[], "timeout", 504)]),
    ("generic", &[Signal(503, &[], "function", 503), Signal(429, &[], "throttled", 429)]),
];

#[tokio::test]
async fn each_answer_of_each_platform_has_its_class_and_its_honest_status() {
    for (platform, signals) in SIGNALS {
        for map_status in [false, true] {
            let function = origin().start().await;
            let gateway = on(platform, &format!("map_status = {map_status}"), &function).await;
            for (n, Signal(status, fields, class, honest)) in signals.iter().enumerate() {
                let reply = Reply::text("its own words").status(*status);
                let reply = fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value));
                function.now_answers(move |_| reply.clone());
                let answer = gateway.get("/").await;
                let told = if map_status { *honest } else { *status };
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (told, "its own words"),
                    "{platform} {status} {class}"
                );
                let line = gateway.log(n + 1).await.pop().unwrap();
                for (key, value) in [
                    ("class", json!(class)),
                    ("status", json!(told)),
                    ("upstream_status", json!(status)),
                    ("attempts", json!(1)),
                    ("reason", Value::Null),
                ] {
                    assert_eq!(line[key], value, "{key} of {platform} {status} {fields:?}: {line}");
                }
                let same = signals[..=n].iter().filter(|Signal(_, _, other, _)| other == class).count();
                gateway.counts("gatepost_requests_total", &[("class", class)], same as f64).await;
            }
        }
    }
}

#[tokio::test]
async fn an_honest_status_is_sent_whole_whatever_the_body_was() {
    let function = origin().start().await;
    let gateway = on("aliyun-fc3", "map_status = true", &function).await;
    let mut caller = gateway.connect().await;
    let failed =
        |reply: Reply| reply.header("X-Fc-Error-Type", "HandledInvocationError").header("cache-control", "max-age=60");
    for (method, status, reply) in [
        ("GET", 200, Reply::text("sorry")),
        ("GET", 200, Reply::text("")),
        ("GET", 200, Reply::chunks(&["so", "rry"])),
        ("GET", 204, Reply::text("")),
        ("GET", 304, Reply::text("")),
        ("HEAD", 200, Reply::text("sorry")),
        ("POST", 206, Reply::text("sorry")),
    ] {
        let sorry = if method == "HEAD" || status == 204 || status == 304 { "" } else { "sorry" };
        let is_empty = matches!(&reply.body, crate::harness::reply::Body::Whole(text) if text.is_empty());
        let reply = failed(reply.status(status));
        function.now_answers(move |_| reply.clone());
        // On one connection: were an answer framed wrongly, the next one would be garbled.
        let answer = caller.send(request(method, "/")).await;
        let expected = if is_empty { "" } else { sorry };
        assert_eq!((answer.status, answer.text().as_str()), (502, expected), "{method} {status}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-gatepost-reason"), None, "the body is the function's");
    }
}

#[tokio::test]
async fn rules_in_the_file_go_before_the_platforms_own() {
    let function = origin().reply(Reply::text("gone").status(410)).start().await;
    let lines = r#"
        map_status = true
        classify = [
            { status = 410, class = "client_error" },
            { status = ["2xx", 404], header = "x-app-error", class = "function", answer = 500 },
            { header = "x-app-error: quota", class = "throttled" },
        ]"#;
    let gateway = on("tencent-scf", lines, &function).await;
    assert_eq!(gateway.get("/").await.status, 410);
    function.now_answers(|_| Reply::text("oops").header("x-app-error", "quota"));
    assert_eq!(gateway.get("/").await.status, 500);
    function.now_answers(|_| Reply::text("slow down").status(400).header("x-app-error", "quota"));
    assert_eq!(gateway.get("/").await.status, 503);
    function.now_answers(|_| Reply::text("crash").status(430));
    assert_eq!(gateway.get("/").await.status, 502);
    let classes: Vec<_> = gateway.log(4).await.iter().map(|line| line["class"].clone()).collect();
    assert_eq!(classes, ["client_error", "function", "throttled", "function"]);
}

#[tokio::test]
async fn the_platforms_name_for_a_call_is_in_the_log_and_hidden_or_shown() {
    let reply =
        Reply::text("ok").header("X-Fc-Request-Id", "1-6743-ab").header("X-Fc-Instance-Id", "c-1").header("x-own", "1");
    let function = origin().reply(reply).start().await;
    for expose in [false, true] {
        let lines = format!("platform_request_id = {{ expose = {expose} }}");
        let gateway = on("aliyun-fc3", &lines, &function).await;
        let answer = gateway.get("/").await;
        assert_eq!(gateway.log_line().await["platform_request_id"], "1-6743-ab");
        assert_eq!(answer.header("x-platform-request-id"), expose.then_some("1-6743-ab"));
        for hidden in ["x-fc-request-id", "x-fc-instance-id"] {
            assert_eq!(answer.header(hidden), None, "{answer:?}");
        }
        assert_eq!(answer.header("x-own"), Some("1"));
    }
}

#[tokio::test]
async fn callers_cannot_speak_in_the_platforms_name() {
    for (platform, steering) in [
        ("aliyun-fc3", ["X-Fc-Invocation-Type", "x-fc-date"]),
        ("tencent-scf", ["X-Scf-Remote-Addr", "x-scf-request-id"]),
        ("aws-lambda-url", ["X-Amz-Invocation-Type", "x-amz-security-token"]),
        ("cloud-run", ["X-Serverless-Authorization", "x-goog-authenticated-user-email"]),
        ("azure-functions", ["X-MS-Client-Principal", "x-ms-routing-name"]),
        ("knative", ["Knative-Serving-Tag", "k-proxy-request"]),
        ("openfaas", ["X-Callback-Url", "x-call-id"]),
    ] {
        let function = origin().start().await;
        let gateway = on(platform, "", &function).await;
        let twice = get("/").header(steering[0], "a").header(steering[1], "b").header(steering[0], "c");
        gateway.send(twice.header("x-own", "1").header("authorization", "Bearer x")).await;
        let seen = function.last();
        for name in steering {
            assert_eq!(seen.header(name), None, "{platform}: {seen:?}");
        }
        assert_eq!((seen.header("x-own"), seen.header("authorization")), (Some("1"), Some("Bearer x")), "{platform}");
    }
}

#[tokio::test]
async fn what_the_platform_would_refuse_is_refused_before_the_call() {
    let function = origin().start().await;
    let gateway = on("aliyun-fc3", "max_body = \"64KiB\"", &function).await;
    let refused = [
        (get(&format!("/{}", "u".repeat(4096))), 414, "uri_too_long", "4096 bytes of path and query"),
        (get(&format!("/?{}", "u".repeat(4096))), 414, "uri_too_long", "this request has 4098"),
        (get("/").header("x-big", &"h".repeat(8192)), 431, "headers_too_large", "8192 bytes of header fields"),
        (post("/").body(vec![b'b'; 65537]), 413, "body_too_large", "aliyun-fc3 takes at most 65536 bytes of body"),
    ];
    for (request, status, reason, words) in refused {
        let answer = gateway.send(request).await;
        assert_eq!((answer.status, answer.reason()), (status, reason), "{answer:?}");
        assert!(answer.text().contains(words), "{answer:?}");
    }
    assert_eq!(function.requests(), 0, "nothing was billed");
    assert_eq!(gateway.get(&format!("/{}", "u".repeat(4095))).await.status, 200);
    assert_eq!(gateway.send(get("/").header("x-big", &"h".repeat(7000))).await.status, 200);
    assert_eq!(gateway.send(post("/").body(vec![b'b'; 65536])).await.status, 200);
    let classes: Vec<_> = gateway.log(7).await.iter().map(|line| line["class"].clone()).collect();
    assert_eq!(classes, ["refused", "refused", "refused", "refused", "ok", "ok", "ok"]);
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_where_it_grows_too_large() {
    let function = origin().start().await;
    let gateway = on("generic", "max_body = \"8B\"", &function).await;
    let chunked = |pieces: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{pieces}0\r\n\r\n"
        )
    };
    let answer = gateway.raw(chunked("4\r\nfour\r\n4\r\nfour\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = gateway.raw(chunked("4\r\nfour\r\n4\r\nfour\r\n1\r\n!\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    assert_eq!(function.requests(), 1, "the second never had its end");
    assert_eq!(gateway.log(2).await[1]["reason"], "body_too_large");
}

#[tokio::test]
async fn a_forced_download_is_no_download_but_a_named_one_is() {
    for (value, host, shown) in [
        ("attachment", "127.0.0.1", None),
        ("attachment; filename=\"a.csv\"", "127.0.0.1", Some("attachment; filename=\"a.csv\"")),
        ("attachment", "*.fcapp.run", Some("attachment")),
    ] {
        let function = origin().reply(Reply::text("page").header("Content-Disposition", value)).start().await;
        let gateway = on("aliyun-fc3", &format!("drop_attachment = [\"{host}\"]"), &function).await;
        assert_eq!(gateway.get("/").await.header("content-disposition"), shown, "{value} at {host}");
    }
}

#[tokio::test]
async fn a_function_may_know_better_than_its_preset() {
    let function =
        origin().reply(Reply::text("ok").header("X-Fc-Request-Id", "1").header("X-Other-Id", "2")).start().await;
    let lines = r#"
        max_headers = "none"
        max_uri = "16KiB"
        request_headers = { remove = ["x-mine"] }
        response_headers = { remove = [] }
        platform_request_id = { header = "x-other-id" }"#;
    let gateway = on("aliyun-fc3", lines, &function).await;
    let asked = get(&format!("/{}", "u".repeat(8000))).header("x-big", &"h".repeat(9000));
    let answer = gateway.send(asked.header("x-fc-date", "now").header("x-mine", "1")).await;
    assert_eq!((answer.status, answer.header("x-fc-request-id")), (200, Some("1")));
    let seen = function.last();
    assert_eq!((seen.header("x-fc-date"), seen.header("x-mine")), (Some("now"), None));
    assert_eq!(gateway.log_line().await["platform_request_id"], "2");
}
