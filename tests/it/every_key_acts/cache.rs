//! What a route answers out of memory: `cache` and `fallback`.

use super::{Proof, leaf::Leaf, one_function, table};
use crate::harness::{Gateway, Origin, Reply, Request, eventually, gate, get, origin, origin::dead_address, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("route.*.cache.ttl", ttl),
        ("route.*.cache.key = header:", key_header),
        ("route.*.cache.key = cookie:", key_cookie),
        ("route.*.cache.key = query:", key_query),
        ("route.*.cache.key = client", key_client),
        ("route.*.cache.key = client_ip", key_client_ip),
        ("route.*.cache.max_body", max_body),
        ("route.*.cache.max_size", max_size),
        ("route.*.cache.stale_if_error", stale_if_error),
        ("route.*.cache.wait", wait),
        ("route.*.fallback.status", fallback_status),
        ("route.*.fallback.body", fallback_body),
        ("route.*.fallback.file", fallback_file),
        ("route.*.fallback.content_type", fallback_type),
    ]
}

/// Two gateposts whose function is gone.
async fn gone(leaf: &Leaf, route: &str, one: &str, other: &str) -> [Gateway; 2] {
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"http://{}\" }}\n[route.f]\nfunction = \"f\"\nfallback = {{ {route} }}\n",
        dead_address()
    );
    let pair = leaf.pair(&config, one, other);
    pair.also(|build| build.file("a.html", "file a").file("b.html", "file b")).start().await
}

async fn fallback_status(leaf: Leaf) {
    let both = gone(&leaf, "body = \"x\", LEAF", "status = 200", "status = 503").await;
    for (gateway, status) in both.iter().zip([200, 503]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn fallback_body(leaf: Leaf) {
    let both = gone(&leaf, "LEAF", "body = \"one\"", "body = \"other\"").await;
    for (gateway, text) in both.iter().zip(["one", "other"]) {
        assert_eq!(gateway.get("/").await.text(), text);
    }
}

async fn fallback_file(leaf: Leaf) {
    let both = gone(&leaf, "LEAF", "file = \"a.html\"", "file = \"b.html\"").await;
    for (gateway, text) in both.iter().zip(["file a", "file b"]) {
        assert_eq!(gateway.get("/").await.text(), text);
    }
}

async fn fallback_type(leaf: Leaf) {
    let both = gone(&leaf, "body = \"x\", LEAF", "content_type = \"text/css\"", "content_type = \"text/csv\"").await;
    for (gateway, kind) in both.iter().zip(["text/css", "text/csv"]) {
        assert_eq!(gateway.get("/").await.header("content-type"), Some(kind));
    }
}

/// Two gateposts in front of one function that answers with `reply`.
async fn kept(leaf: &Leaf, cache: &str, one: &str, other: &str, reply: Reply) -> ([Gateway; 2], Origin) {
    let f = origin().reply(reply).start().await;
    let config = one_function(&f.url(), &format!("cache = {{ {cache} }}"));
    (leaf.pair(&config, one, other).start().await, f)
}

/// How many calls these requests cost, of the one and of the other.
async fn costs(both: &[Gateway; 2], f: &Origin, requests: &[Request], calls: [usize; 2]) {
    for (gateway, calls) in both.iter().zip(calls) {
        let before = f.requests();
        for request in requests {
            assert_eq!(gateway.send(request.clone()).await.status, 200);
        }
        assert_eq!(f.requests() - before, calls);
    }
}

async fn ttl(leaf: Leaf) {
    let (both, f) = kept(&leaf, "LEAF", "ttl = \"1h\"", "ttl = \"0s\"", "x".into()).await;
    costs(&both, &f, &[get("/"), get("/")], [1, 2]).await;
}

async fn key_header(leaf: Leaf) {
    let (one, other) = ("key = [\"header:x-a\"]", "key = [\"header:x-b\"]");
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", one, other, "x".into()).await;
    costs(&both, &f, &[get("/").header("x-a", "1"), get("/").header("x-a", "2")], [2, 1]).await;
}

async fn key_cookie(leaf: Leaf) {
    let (one, other) = ("key = [\"cookie:a\"]", "key = [\"cookie:b\"]");
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", one, other, "x".into()).await;
    costs(&both, &f, &[get("/").header("cookie", "a=1"), get("/").header("cookie", "a=1")], [1, 2]).await;
}

async fn key_query(leaf: Leaf) {
    let (one, other) = ("key = [\"query:a\"]", "key = [\"query:b\"]");
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", one, other, "x".into()).await;
    costs(&both, &f, &[get("/?a=1&b=1"), get("/?a=2&b=1")], [2, 1]).await;
}

async fn from_two(gateway: &Gateway) {
    for address in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(gateway.connect_from(address).await.send("/").await.status, 200);
    }
}

async fn key_client(leaf: Leaf) {
    let f = origin().start().await;
    let config = format!(
        "[client.a]\nnetworks = [\"127.0.0.1\"]\n[client.b]\nnetworks = [\"127.0.0.2\"]\n{}",
        one_function(&f.url(), "clients = [\"a\", \"b\"]\ncache = { ttl = \"1h\", LEAF }")
    );
    let refused = ["nothing would be kept"];
    let one = leaf.pair(&config, "key = [\"client\"]", "key = [\"client_ip\"]").refuses(&refused).await;
    from_two(&one).await;
    from_two(&one).await;
    assert_eq!(f.requests(), 2);
}

async fn key_client_ip(leaf: Leaf) {
    let (one, other) = ("key = [\"client_ip\"]", "key = [\"client\"]");
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", one, other, "x".into()).await;
    from_two(&both[0]).await;
    assert_eq!(f.requests(), 2);
    from_two(&both[1]).await;
    assert_eq!(f.requests(), 3);
}

async fn max_body(leaf: Leaf) {
    let reply = Reply::made(1025);
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", "max_body = \"1025B\"", "max_body = \"1KiB\"", reply).await;
    costs(&both, &f, &[get("/"), get("/")], [1, 2]).await;
}

async fn max_size(leaf: Leaf) {
    let reply = Reply::made(300_000);
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", "max_size = \"64MiB\"", "max_size = \"4MiB\"", reply).await;
    let ten: Vec<_> = (0..10).chain(0..1).map(|n| get(&format!("/{n}"))).collect();
    costs(&both, &f, &ten, [10, 11]).await;
}

async fn stale_if_error(leaf: Leaf) {
    let lines = ["stale_if_error = \"1h\"", "stale_if_error = \"0s\""];
    let (both, f) = kept(&leaf, "ttl = \"0s\", LEAF", lines[0], lines[1], "x".into()).await;
    costs(&both, &f, &[get("/")], [1, 1]).await;
    f.now_answers(|_| Reply::text("own").status(500));
    for (gateway, status) in both.iter().zip([200, 500]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

/// Of two who ask at once the second goes itself, or gets what the first does.
async fn wait(leaf: Leaf) {
    let door = gate();
    let reply = Reply::text("x").after(&door);
    let (both, f) = kept(&leaf, "ttl = \"1h\", LEAF", "wait = \"20ms\"", "wait = \"1h\"", reply).await;
    let [one, other] = &both;
    let all = async { tokio::join!(one.get("/"), one.get("/"), other.get("/"), other.get("/")) };
    let opens = async {
        other.counts("gatepost_in_flight", &[], 2.0).await;
        // It was counted, but may not have looked yet: a worker does both before its next request.
        other.turn().await;
        eventually("all went who go", async || when(f.requests() == 3)).await;
        door.open();
    };
    tokio::join!(all, opens);
    other.counts("gatepost_cache_total", &[("result", "coalesced")], 1.0).await;
    one.counts("gatepost_cache_total", &[("result", "miss")], 2.0).await;
}
