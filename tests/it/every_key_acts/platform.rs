//! `[function.NAME]`: whose function it is, and what that means for requests and answers.

use super::{Proof, leaf::Leaf, named, table};
use crate::harness::{Gateway, Origin, Reply, get, origin, post};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.platform = aliyun-fc3", platform),
        ("function.*.platform = tencent-scf", platform),
        ("function.*.platform = aws-lambda-url", platform),
        ("function.*.platform = cloud-run", platform),
        ("function.*.platform = azure-functions", platform),
        ("function.*.platform = knative", platform),
        ("function.*.platform = openfaas", platform),
        ("function.*.platform = generic", generic),
        ("function.*.classify.status", status),
        ("function.*.classify.status[]", statuses),
        ("function.*.classify.header", header),
        ("function.*.classify.class = ok", class),
        ("function.*.classify.class = client_error", class),
        ("function.*.classify.class = throttled", class),
        ("function.*.classify.class = function", class),
        ("function.*.classify.class = platform", class),
        ("function.*.classify.class = config", class),
        ("function.*.classify.class = account", class),
        ("function.*.classify.class = timeout", class),
        ("function.*.classify.answer", answer),
        ("function.*.classify.billed", billed),
        ("function.*.map_status", map_status),
        ("function.*.platform_request_id.header", request_id),
        ("function.*.platform_request_id.header[]", request_ids),
        ("function.*.platform_request_id.expose", expose),
        ("function.*.max_headers", max_headers),
        ("function.*.max_uri", max_uri),
        ("function.*.max_body", max_body),
        ("function.*.request_headers.remove", request_headers),
        ("function.*.response_headers.remove", response_headers),
        ("function.*.drop_attachment", drop_attachment),
        ("function.*.pool.age", pool_age),
    ]
}

/// `[function.f]` at `function`, with these lines.
fn at(function: &Origin, lines: &str) -> String {
    format!("[function.f]\nversions = {{ v1 = \"{}\" }}\n{lines}\n[route.f]\nfunction = \"f\"\n", function.url())
}

async fn answering(reply: Reply) -> Origin {
    origin().reply(reply).start().await
}

/// What each says of its next request in the access log.
async fn classes(both: &[Gateway; 2]) -> [String; 2] {
    let mut classes = Vec::new();
    for gateway in both {
        gateway.get("/").await;
        classes.push(gateway.log_line().await["class"].as_str().unwrap().to_owned());
    }
    classes.try_into().unwrap()
}

/// A sign that this platform alone knows.
async fn platform(leaf: Leaf) {
    let name = leaf.name.split(" = ").nth(1).unwrap();
    let (reply, told, plainly) = match name {
        "aliyun-fc3" => (Reply::text("").header("X-Fc-Error-Type", "InitializationError"), "function", "ok"),
        "tencent-scf" => (Reply::text("").status(430), "function", "client_error"),
        "aws-lambda-url" => (Reply::text("").header("X-Amz-Function-Error", "Unhandled"), "function", "ok"),
        "cloud-run" => (Reply::text("").status(503), "throttled", "function"),
        _ => (Reply::text("").status(504), "timeout", "function"),
    };
    let f = answering(reply).await;
    let one = format!("platform = \"{name}\"");
    let both = leaf.pair(&at(&f, "LEAF"), &one, "platform = \"generic\"").start().await;
    assert_eq!(classes(&both).await, [told, plainly]);
}

async fn generic(leaf: Leaf) {
    let f = answering(Reply::text("").status(430)).await;
    let both = leaf.pair(&at(&f, "LEAF"), "platform = \"generic\"", "platform = \"tencent-scf\"").start().await;
    assert_eq!(classes(&both).await, ["client_error", "function"]);
}

async fn status(leaf: Leaf) {
    let f = answering(Reply::text("").status(299)).await;
    let config = at(&f, "classify = [{ LEAF, class = \"config\" }]");
    let both = leaf.clone().pair(&config, "status = 299", "status = 298").start().await;
    assert_eq!(classes(&both).await, ["config", "ok"]);
    let both = leaf.pair(&config, "status = \"2xx\"", "status = \"3xx\"").start().await;
    assert_eq!(classes(&both).await, ["config", "ok"]);
}

async fn statuses(leaf: Leaf) {
    let f = answering(Reply::text("").status(299)).await;
    let config = at(&f, "classify = [{ LEAF, class = \"config\" }]");
    let both = leaf.pair(&config, "status = [201, 299]", "status = [201, \"3xx\"]").start().await;
    assert_eq!(classes(&both).await, ["config", "ok"]);
}

async fn header(leaf: Leaf) {
    let f = answering(Reply::text("").header("x-app", "bad")).await;
    let config = at(&f, "classify = [{ LEAF, class = \"config\" }]");
    let both = leaf.pair(&config, "header = \"x-app: bad\"", "header = \"x-app: good\"").start().await;
    assert_eq!(classes(&both).await, ["config", "ok"]);
}

async fn class(leaf: Leaf) {
    let word = leaf.name.split(" = ").nth(1).unwrap();
    let other = if word == "account" { "config" } else { "account" };
    let f = named("f").await;
    let config = at(&f, "classify = [{ status = 200, LEAF }]");
    let words = [word, other].map(|class| format!("class = \"{class}\""));
    let both = leaf.pair(&config, &words[0], &words[1]).start().await;
    assert_eq!(classes(&both).await, [word, other]);
}

async fn tells(both: &[Gateway; 2], statuses: [u16; 2]) {
    for (gateway, status) in both.iter().zip(statuses) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn answer(leaf: Leaf) {
    let f = named("f").await;
    let config = at(&f, "map_status = true\nclassify = [{ status = 200, class = \"function\", LEAF }]");
    let both = leaf.pair(&config, "answer = 500", "answer = 418").start().await;
    tells(&both, [500, 418]).await;
}

async fn billed(leaf: Leaf) {
    let f = named("f").await;
    let config = at(
        &f,
        "budget.calls_per_day = 1\nbudget.action = \"stop\"\nclassify = [{ status = 200, class = \"ok\", LEAF }]",
    );
    let both = leaf.pair(&config, "billed = true", "billed = false").start().await;
    for gateway in &both {
        assert_eq!(gateway.get("/").await.status, 200);
        gateway.log_line().await;
    }
    tells(&both, [503, 200]).await;
}

async fn map_status(leaf: Leaf) {
    let f = answering(Reply::text("").status(430)).await;
    let config = at(&f, "platform = \"tencent-scf\"\nLEAF");
    let both = leaf.pair(&config, "map_status = true", "map_status = false").start().await;
    tells(&both, [502, 430]).await;
}

async fn ids(leaf: Leaf, one: &str, other: &str) {
    let f = answering(Reply::text("").header("x-one", "1").header("x-other", "2")).await;
    let both = leaf.pair(&at(&f, "platform_request_id = { LEAF }"), one, other).start().await;
    for (gateway, id) in both.iter().zip(["1", "2"]) {
        gateway.get("/").await;
        assert_eq!(gateway.log_line().await["platform_request_id"], id);
    }
}

async fn request_id(leaf: Leaf) {
    ids(leaf, "header = \"x-one\"", "header = \"x-other\"").await;
}

async fn request_ids(leaf: Leaf) {
    ids(leaf, "header = [\"x-none\", \"x-one\"]", "header = [\"x-other\", \"x-one\"]").await;
}

async fn expose(leaf: Leaf) {
    let f = answering(Reply::text("").header("x-one", "1")).await;
    let config = at(&f, "platform_request_id = { header = \"x-one\", LEAF }");
    let both = leaf.pair(&config, "expose = true", "expose = false").start().await;
    for (gateway, id) in both.iter().zip([Some("1"), None]) {
        assert_eq!(gateway.get("/").await.header("x-platform-request-id"), id);
    }
}

async fn max_headers(leaf: Leaf) {
    let f = named("f").await;
    let both = leaf.pair(&at(&f, "LEAF"), "max_headers = \"1KiB\"", "max_headers = \"none\"").start().await;
    for (gateway, status) in both.iter().zip([431, 200]) {
        assert_eq!(gateway.send(get("/").header("x-big", &"h".repeat(1024))).await.status, status);
    }
}

async fn max_uri(leaf: Leaf) {
    let f = named("f").await;
    let both = leaf.pair(&at(&f, "LEAF"), "max_uri = \"9B\"", "max_uri = \"10B\"").start().await;
    for (gateway, status) in both.iter().zip([414, 200]) {
        assert_eq!(gateway.get("/ten?bytes").await.status, status);
    }
}

async fn max_body(leaf: Leaf) {
    let f = named("f").await;
    let both = leaf.pair(&at(&f, "LEAF"), "max_body = \"1KiB\"", "max_body = \"1MiB\"").start().await;
    for (gateway, status) in both.iter().zip([413, 200]) {
        assert_eq!(gateway.send(post("/").body(vec![b'b'; 1025])).await.status, status);
    }
}

async fn request_headers(leaf: Leaf) {
    let f = named("f").await;
    let config = at(&f, "request_headers = { LEAF }");
    let both = leaf.pair(&config, "remove = [\"x-one-*\"]", "remove = [\"x-other\"]").start().await;
    for (gateway, left) in both.iter().zip(["x-other", "x-one-a"]) {
        gateway.send(get("/").header("x-one-a", "1").header("x-other", "1")).await;
        let seen = f.last();
        let there: Vec<_> = ["x-one-a", "x-other"].into_iter().filter(|name| seen.header(name).is_some()).collect();
        assert_eq!(there, [left]);
    }
}

async fn response_headers(leaf: Leaf) {
    let f = answering(Reply::text("").header("x-one-a", "1").header("x-other", "1")).await;
    let config = at(&f, "response_headers = { LEAF }");
    let both = leaf.pair(&config, "remove = [\"x-one-*\"]", "remove = [\"x-other\"]").start().await;
    for (gateway, left) in both.iter().zip(["x-other", "x-one-a"]) {
        let answer = gateway.get("/").await;
        let there: Vec<_> = ["x-one-a", "x-other"].into_iter().filter(|name| answer.header(name).is_some()).collect();
        assert_eq!(there, [left]);
    }
}

async fn drop_attachment(leaf: Leaf) {
    let f = answering(Reply::text("").header("Content-Disposition", "attachment")).await;
    let both = leaf.pair(&at(&f, "LEAF"), "drop_attachment = [\"127.0.0.1\"]", "drop_attachment = []").start().await;
    for (gateway, shown) in both.iter().zip([None, Some("attachment")]) {
        assert_eq!(gateway.get("/").await.header("content-disposition"), shown);
    }
}

/// The one changes its connection again and again, the other keeps it.
async fn pool_age(leaf: Leaf) {
    let f = named("f").await;
    let both = leaf.pair(&at(&f, "pool = { LEAF }"), "age = \"50ms\"", "age = \"1h\"").start().await;
    let before = f.connections();
    let mut asked = 0;
    while f.connections() < before + 3 {
        assert_eq!(both[0].get("/").await.status, 200);
        asked += 1;
    }
    let before = f.connections();
    for _ in 0..asked {
        assert_eq!(both[1].get("/").await.status, 200);
    }
    // An hour may end meanwhile.
    assert!(f.connections() - before <= 2);
}
