//! `[route.NAME]`, less its limits.

use tokio::net::TcpStream;

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{Connection, Request, authority, get, request};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("route.*.listeners", listeners),
        ("route.*.host", host),
        ("route.*.host[]", hosts),
        ("route.*.path", path),
        ("route.*.path_regex", path_regex),
        ("route.*.methods", methods),
        ("route.*.headers.*", headers),
        ("route.*.query.*", query),
        ("route.*.priority", priority),
        ("route.*.function", function),
        ("route.*.version", version),
        ("route.*.clients", clients),
        ("route.*.allow", allow),
        ("route.*.deny", deny),
        ("route.*.strip_prefix", strip_prefix),
        ("route.*.encoded_slash = refuse", encoded_slash),
        ("route.*.encoded_slash = keep", encoded_slash),
        ("route.*.forward_client_cert", forward_client_cert),
    ]
}

/// The one is served to the first request, the other to the second alone; the other one gets `status`.
async fn either(leaf: Leaf, one: &str, other: &str, requests: [Request; 2], status: u16) {
    let f = named("v1").await;
    let both = leaf.pair(&one_function(&f.url(), "LEAF"), one, other).start().await;
    for (gateway, wanted) in both.iter().zip([[200, status], [status, 200]]) {
        for (request, status) in requests.iter().zip(wanted) {
            let answer = gateway.send(request.clone()).await;
            assert_eq!(answer.status, status, "{request:?} → {answer:?}");
        }
    }
}

async fn listeners(leaf: Leaf) {
    let f = named("v1").await;
    let config = one_function(&f.url(), "LEAF")
        + "[listener.in]\naddress = \"127.0.0.1:0\"\n[listener.side]\naddress = \"127.0.0.2:0\"\n";
    let both = leaf.pair(&config, "listeners = [\"in\"]", "listeners = [\"side\"]").start().await;
    for (gateway, [here, side]) in both.iter().zip([[200, 404], [404, 200]]) {
        assert_eq!(gateway.get("/").await.status, here);
        assert_eq!(Connection::open(gateway.address("side")).await.send("/").await.status, side);
    }
}

async fn host(leaf: Leaf) {
    let requests = ["one.test", "a.other.test"].map(|host| get("/").host(host));
    either(leaf, "host = \"one.test\"", "host = \"*.other.test\"", requests, 404).await;
}

async fn hosts(leaf: Leaf) {
    let requests = ["one.test", "a.other.test"].map(|host| get("/").host(host));
    either(leaf, "host = [\"x.test\", \"one.test\"]", "host = [\"x.test\", \"*.other.test\"]", requests, 404).await;
}

async fn path(leaf: Leaf) {
    either(leaf, "path = \"/one/{id}\"", "path = \"/other/*\"", [get("/one/1"), get("/other/1/2")], 404).await;
}

async fn path_regex(leaf: Leaf) {
    either(leaf, "path_regex = \"/one-[0-9]+\"", "path_regex = \"/other.*\"", [get("/one-1"), get("/other-1")], 404)
        .await;
}

async fn methods(leaf: Leaf) {
    let requests = [get("/"), request("DELETE", "/")];
    either(leaf, "methods = [\"GET\"]", "methods = [\"DELETE\"]", requests, 405).await;
}

async fn headers(leaf: Leaf) {
    let requests = ["prod", "test"].map(|env| get("/").header("x-env", env));
    either(leaf, "headers = { x-env = \"prod\" }", "headers = { x-env = \"test\" }", requests, 404).await;
}

async fn query(leaf: Leaf) {
    let requests = [get("/?a=1&debug=1"), get("/?debug=2")];
    either(leaf, "query = { debug = \"1\" }", "query = { debug = \"2\" }", requests, 404).await;
}

async fn clients(leaf: Leaf) {
    let f = named("v1").await;
    let config = one_function(&f.url(), "LEAF")
        + "[client.a]\nnetworks = [\"127.0.0.1\"]\n[client.b]\nnetworks = [\"127.0.0.2\"]\n";
    let both = leaf.pair(&config, "clients = [\"a\"]", "clients = [\"b\"]").start().await;
    assert_eq!(both[0].get("/").await.status, 200);
    both[1].get("/").await.is_problem(403, "forbidden_client");
    assert_eq!(both[1].connect_from("127.0.0.2").await.send("/").await.status, 200);
}

async fn allow(leaf: Leaf) {
    let f = named("v1").await;
    let both =
        leaf.pair(&one_function(&f.url(), "LEAF"), "allow = [\"127.0.0.1\"]", "allow = [\"127.0.0.2\"]").start().await;
    assert_eq!(both[0].get("/").await.status, 200);
    both[1].get("/").await.is_problem(403, "forbidden_address");
}

async fn deny(leaf: Leaf) {
    let f = named("v1").await;
    let both =
        leaf.pair(&one_function(&f.url(), "LEAF"), "deny = [\"127.0.0.1\"]", "deny = [\"127.0.0.2\"]").start().await;
    both[0].get("/").await.is_problem(403, "forbidden_address");
    assert_eq!(both[1].get("/").await.status, 200);
}

/// Two functions, `f` and `g`, and their routes as they are.
async fn two(leaf: &Leaf, routes: &str, one: &str, other: &str) {
    let (f, g) = (named("f").await, named("g").await);
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\n[function.g]\nversions = {{ v1 = \"{}\" }}\n{routes}",
        f.url(),
        g.url()
    );
    let both = leaf.pair(&config, one, other).start().await;
    for (gateway, name) in both.iter().zip(["f", "g"]) {
        assert_eq!(gateway.get("/x/y").await.text(), name);
    }
}

async fn priority(leaf: Leaf) {
    let routes = "[route.f]\nfunction = \"f\"\npath_regex = \"/x/.*\"\nLEAF\n\
                  [route.g]\nfunction = \"g\"\npath_regex = \"/.*/y\"\npriority = 5\n";
    two(&leaf, routes, "priority = 6", "priority = 4").await;
}

async fn function(leaf: Leaf) {
    two(&leaf, "[route.r]\nLEAF\n", "function = \"f\"", "function = \"g\"").await;
}

async fn version(leaf: Leaf) {
    let (v1, v2) = (named("v1").await, named("v2").await);
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = 50, v2 = 50 }}\n\
         [route.f]\nfunction = \"f\"\nLEAF\n",
        v1.url(),
        v2.url()
    );
    let both = leaf.pair(&config, "version = \"v1\"", "version = \"v2\"").start().await;
    for (gateway, name) in both.iter().zip(["v1", "v2"]) {
        for _ in 0..4 {
            assert_eq!(gateway.get("/").await.text(), name);
        }
        assert_eq!(gateway.log(4).await[0]["picked_by"], "pin");
    }
}

async fn strip_prefix(leaf: Leaf) {
    let f = named("v1").await;
    let config = one_function(&f.url(), "path = \"/a/b/*\"\nLEAF");
    let both = leaf.pair(&config, "strip_prefix = \"/a\"", "strip_prefix = \"/a/b\"").start().await;
    for (gateway, target) in both.iter().zip(["/b/c?d", "/c?d"]) {
        gateway.get("/a/b/c?d").await;
        assert_eq!(f.last().target, target);
    }
}

async fn encoded_slash(leaf: Leaf) {
    let f = named("v1").await;
    let config = one_function(&f.url(), "path = \"/a/{id}\"\nLEAF");
    let both = leaf.pair(&config, "encoded_slash = \"refuse\"", "encoded_slash = \"keep\"").start().await;
    both[0].get("/a/b%2Fc").await.is_problem(400, "bad_request");
    assert_eq!(both[1].get("/a/b%2Fc").await.status, 200);
    assert_eq!(f.last().target, "/a/b%2Fc");
}

async fn forward_client_cert(leaf: Leaf) {
    let f = named("v1").await;
    let authority = authority();
    let certificate = authority.leaf(&["one.test"]);
    let tls = format!("tls = [{}]\nclient_ca = \"{}\"", certificate.toml(), authority.ca().display());
    let config = format!("[listener.in]\naddress = \"127.0.0.1:0\"\n{tls}\n{}", one_function(&f.url(), "LEAF"));
    let words = ["forward_client_cert = true", "forward_client_cert = false"];
    let both = leaf.pair(&config, words[0], words[1]).start().await;
    let caller = authority.caller(&[]).showing(&authority.client("bank"));
    for (gateway, tells) in both.iter().zip([true, false]) {
        let tcp = TcpStream::connect(gateway.address("in")).await.unwrap();
        let (stream, _) = caller.handshake(tcp, "one.test").await.unwrap();
        Connection::over(stream).send("/").await;
        assert_eq!(f.last().header("client-cert").is_some(), tells);
    }
}
