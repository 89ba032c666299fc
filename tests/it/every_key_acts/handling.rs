//! What a route does beside sending on, and `server.maintenance`.

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{Gateway, Reply, get, origin, request};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("route.*.redirect", redirect),
        ("route.*.redirect.to", redirect_to),
        ("route.*.redirect.status", redirect_status),
        ("route.*.redirect.keep_query", keep_query),
        ("route.*.redirect.any_host", any_host),
        ("route.*.respond.status", respond_status),
        ("route.*.respond.body", respond_body),
        ("route.*.respond.file", respond_file),
        ("route.*.respond.content_type", respond_type),
        ("route.*.respond.headers.*", respond_headers),
        ("route.*.add_prefix", add_prefix),
        ("route.*.rewrite", rewrite),
        ("route.*.request_headers.set.*", request_set),
        ("route.*.request_headers.add.*", request_add),
        ("route.*.request_headers.remove", request_remove),
        ("route.*.response_headers.set.*", response_set),
        ("route.*.response_headers.add.*", response_add),
        ("route.*.response_headers.remove", response_remove),
        ("route.*.security_headers = basic", security),
        ("route.*.security_headers = strict", security),
        ("route.*.security_headers.preset = basic", security_preset),
        ("route.*.security_headers.preset = strict", security_preset),
        ("route.*.security_headers.replace", security_replace),
        ("route.*.maintenance", maintenance),
        ("route.*.maintenance.status", maintenance_status),
        ("route.*.maintenance.retry_after", maintenance_retry_after),
        ("route.*.maintenance.body", maintenance_body),
        ("route.*.maintenance.file", maintenance_file),
        ("route.*.maintenance.content_type", maintenance_type),
        ("route.*.maintenance.allow", maintenance_allow),
        ("route.*.compression", compression),
        ("route.*.compression.codings = zstd", compression_codings),
        ("route.*.compression.codings = br", compression_codings),
        ("route.*.compression.codings = gzip", compression_codings),
        ("route.*.compression.min_size", compression_min_size),
        ("route.*.compression.types", compression_types),
        ("route.*.cors.allow_origins", cors_origins),
        ("route.*.cors.allow_methods", cors_methods),
        ("route.*.cors.allow_headers", cors_headers),
        ("route.*.cors.expose_headers", cors_expose),
        ("route.*.cors.allow_credentials", cors_credentials),
        ("route.*.cors.max_age", cors_max_age),
        ("route.*.max_body", max_body),
        ("server.max_body", max_body),
        ("server.maintenance", maintenance),
        ("server.maintenance.status", maintenance_status),
        ("server.maintenance.retry_after", maintenance_retry_after),
        ("server.maintenance.body", maintenance_body),
        ("server.maintenance.file", maintenance_file),
        ("server.maintenance.content_type", maintenance_type),
        ("server.maintenance.allow", maintenance_allow),
    ]
}

/// A route that answers itself, in the one way and in the other.
async fn itself(leaf: &Leaf, route: &str, one: &str, other: &str) -> [Gateway; 2] {
    let pair = leaf.pair(&format!("[route.r]\npath = \"/x/*\"\n{route}\n"), one, other);
    pair.also(|build| build.file("a.html", "file a").file("b.html", "file b")).start().await
}

/// A header of the answer to the same request.
async fn header(both: &[Gateway; 2], name: &str, values: [Option<&str>; 2]) {
    for (gateway, value) in both.iter().zip(values) {
        let answer = gateway.get("/x/y?q").await;
        assert_eq!(answer.header(name), value, "{answer:?}");
    }
}

async fn redirect(leaf: Leaf) {
    let both = itself(&leaf, "LEAF", "redirect = \"/one\"", "redirect = \"/other/{rest}\"").await;
    header(&both, "location", [Some("/one?q"), Some("/other/y?q")]).await;
}

async fn redirect_to(leaf: Leaf) {
    let both = itself(&leaf, "redirect = { LEAF }", "to = \"/one\"", "to = \"https://b.test{path}\"").await;
    header(&both, "location", [Some("/one?q"), Some("https://b.test/x/y?q")]).await;
}

async fn redirect_status(leaf: Leaf) {
    let both = itself(&leaf, "redirect = { to = \"/z\", LEAF }", "status = 301", "status = 307").await;
    for (gateway, status) in both.iter().zip([301, 307]) {
        assert_eq!(gateway.get("/x/y").await.status, status);
    }
}

async fn keep_query(leaf: Leaf) {
    let both = itself(&leaf, "redirect = { to = \"/z\", LEAF }", "keep_query = true", "keep_query = false").await;
    header(&both, "location", [Some("/z?q"), Some("/z")]).await;
}

async fn any_host(leaf: Leaf) {
    let route = "[route.r]\nredirect = { to = \"https\", LEAF }\n";
    let one = leaf.pair(route, "any_host = true", "any_host = false").refuses(&["wherever a caller's Host says"]).await;
    let answer = one.send(get("/a").host("who.test")).await;
    assert_eq!(answer.header("location"), Some("https://who.test/a"));
}

async fn respond_status(leaf: Leaf) {
    let both = itself(&leaf, "respond = { LEAF }", "status = 404", "status = 410").await;
    for (gateway, status) in both.iter().zip([404, 410]) {
        assert_eq!(gateway.get("/x/y").await.status, status);
    }
}

async fn texts(both: [Gateway; 2], texts: [&str; 2]) {
    for (gateway, text) in both.iter().zip(texts) {
        assert_eq!(gateway.get("/x/y").await.text(), text);
    }
}

async fn respond_body(leaf: Leaf) {
    texts(itself(&leaf, "respond = { LEAF }", "body = \"one\"", "body = \"other\"").await, ["one", "other"]).await;
}

async fn respond_file(leaf: Leaf) {
    let both = itself(&leaf, "respond = { LEAF }", "file = \"a.html\"", "file = \"b.html\"").await;
    header(&both, "content-type", [Some("text/html; charset=utf-8"); 2]).await;
    texts(both, ["file a", "file b"]).await;
}

async fn respond_type(leaf: Leaf) {
    let one = "content_type = \"text/css\"";
    let both = itself(&leaf, "respond = { body = \"x\", LEAF }", one, "content_type = \"text/csv\"").await;
    header(&both, "content-type", [Some("text/css"), Some("text/csv")]).await;
}

async fn respond_headers(leaf: Leaf) {
    let both = itself(&leaf, "respond = { headers = { LEAF } }", "x-a = \"1\"", "x-a = \"2\"").await;
    header(&both, "x-a", [Some("1"), Some("2")]).await;
}

/// A function that tells what it saw, and the two gateposts in front.
async fn seen(leaf: &Leaf, route: &str, one: &str, other: &str, check: [impl Fn(&origin::Seen); 2]) {
    let f = named("f").await;
    let both = leaf.pair(&one_function(&f.url(), route), one, other).start().await;
    for (gateway, check) in both.iter().zip(check) {
        gateway.send(get("/x/y?q").header("x-a", "caller").header("x-b", "caller")).await;
        check(&f.last());
    }
}

/// The value of `x-a` that the function sees.
async fn seen_a(leaf: Leaf, route: &str, one: &str, other: &str, values: [&[&str]; 2]) {
    let check = values.map(|values| move |seen: &origin::Seen| assert_eq!(seen.fields.all("x-a"), values));
    seen(&leaf, route, one, other, check).await;
}

async fn add_prefix(leaf: Leaf) {
    let check = ["/one/x/y?q", "/two/x/y?q"].map(|target| move |seen: &origin::Seen| assert_eq!(seen.target, target));
    seen(&leaf, "path = \"/x/*\"\nLEAF", "add_prefix = \"/one\"", "add_prefix = \"/two\"", check).await;
}

async fn rewrite(leaf: Leaf) {
    let check = ["/y/one?q", "/two?q"].map(|target| move |seen: &origin::Seen| assert_eq!(seen.target, target));
    seen(&leaf, "path = \"/x/{id}\"\nLEAF", "rewrite = \"/{id}/one\"", "rewrite = \"/two\"", check).await;
}

async fn request_set(leaf: Leaf) {
    seen_a(leaf, "request_headers = { set = { LEAF } }", "x-a = \"1\"", "x-a = \"2\"", [&["1"], &["2"]]).await;
}

async fn request_add(leaf: Leaf) {
    let values: [&[&str]; 2] = [&["caller", "1"], &["caller", "2"]];
    seen_a(leaf, "request_headers = { add = { LEAF } }", "x-a = \"1\"", "x-a = \"2\"", values).await;
}

async fn request_remove(leaf: Leaf) {
    let (one, other) = ("remove = [\"x-a\"]", "remove = [\"x-b\"]");
    seen_a(leaf, "request_headers = { LEAF }", one, other, [&[], &["caller"]]).await;
}

async fn answered(leaf: &Leaf, route: &str, one: &str, other: &str) -> [Gateway; 2] {
    let route = format!("respond = {{ headers = {{ x-a = \"own\", x-frame-options = \"OWN\" }} }}\n{route}");
    itself(leaf, &route, one, other).await
}

async fn response_set(leaf: Leaf) {
    let both = answered(&leaf, "response_headers = { set = { LEAF } }", "x-a = \"1\"", "x-a = \"2\"").await;
    header(&both, "x-a", [Some("1"), Some("2")]).await;
}

async fn response_add(leaf: Leaf) {
    let both = answered(&leaf, "response_headers = { add = { LEAF } }", "x-c = \"1\"", "x-c = \"2\"").await;
    header(&both, "x-c", [Some("1"), Some("2")]).await;
}

async fn response_remove(leaf: Leaf) {
    let both = answered(&leaf, "response_headers = { LEAF }", "remove = [\"x-a\"]", "remove = [\"x-f*\"]").await;
    header(&both, "x-a", [None, Some("own")]).await;
    header(&both, "x-frame-options", [Some("OWN"), None]).await;
}

const POLICIES: [Option<&str>; 2] = [Some("frame-ancestors 'self'"), Some("frame-ancestors 'none'")];

async fn security(leaf: Leaf) {
    let both = answered(&leaf, "LEAF", "security_headers = \"basic\"", "security_headers = \"strict\"").await;
    header(&both, "content-security-policy", POLICIES).await;
}

async fn security_preset(leaf: Leaf) {
    let both = answered(&leaf, "security_headers = { LEAF }", "preset = \"basic\"", "preset = \"strict\"").await;
    header(&both, "content-security-policy", POLICIES).await;
}

async fn security_replace(leaf: Leaf) {
    let route = "security_headers = { preset = \"strict\", LEAF }";
    let both = answered(&leaf, route, "replace = false", "replace = true").await;
    header(&both, "x-frame-options", [Some("OWN"), Some("DENY")]).await;
}

/// A route under maintenance, by its own word or by the server's.
async fn closed(leaf: &Leaf, words: &str, one: &str, other: &str) -> [Gateway; 2] {
    let (of_server, of_route) = if leaf.name.starts_with("server") { (words, "") } else { ("", words) };
    let config = format!("[server]\n{of_server}\n[route.r]\nrespond = {{ body = \"open\" }}\n{of_route}\n");
    let pair = leaf.pair(&config, one, other);
    pair.also(|build| build.file("a.html", "file a").file("b.html", "file b")).start().await
}

async fn maintenance(leaf: Leaf) {
    let both = closed(&leaf, "LEAF", "maintenance = true", "maintenance = false").await;
    both[0].get("/").await.is_problem(503, "maintenance");
    assert_eq!(both[1].get("/").await.text(), "open");
}

async fn maintenance_status(leaf: Leaf) {
    let both = closed(&leaf, "maintenance = { LEAF }", "status = 503", "status = 404").await;
    for (gateway, status) in both.iter().zip([503, 404]) {
        let answer = gateway.get("/").await;
        assert_eq!((answer.status, answer.reason()), (status, "maintenance"));
    }
}

async fn maintenance_retry_after(leaf: Leaf) {
    let both = closed(&leaf, "maintenance = { LEAF }", "retry_after = \"1m\"", "retry_after = \"1500ms\"").await;
    header(&both, "retry-after", [Some("60"), Some("2")]).await;
}

async fn maintenance_body(leaf: Leaf) {
    let both = closed(&leaf, "maintenance = { LEAF }", "body = \"one\"", "body = \"other\"").await;
    texts(both, ["one", "other"]).await;
}

async fn maintenance_file(leaf: Leaf) {
    let both = closed(&leaf, "maintenance = { LEAF }", "file = \"a.html\"", "file = \"b.html\"").await;
    texts(both, ["file a", "file b"]).await;
}

async fn maintenance_type(leaf: Leaf) {
    let one = "content_type = \"text/css\"";
    let both = closed(&leaf, "maintenance = { body = \"x\", LEAF }", one, "content_type = \"text/csv\"").await;
    header(&both, "content-type", [Some("text/css"), Some("text/csv")]).await;
}

async fn maintenance_allow(leaf: Leaf) {
    let both = closed(&leaf, "maintenance = { LEAF }", "allow = [\"127.0.0.1\"]", "allow = [\"127.0.0.2\"]").await;
    assert_eq!(both[0].get("/").await.text(), "open");
    both[1].get("/").await.is_problem(503, "maintenance");
}

async fn max_body(leaf: Leaf) {
    let f = named("f").await;
    let [server, route] = if leaf.name.starts_with("server") { ["LEAF", ""] } else { ["", "LEAF"] };
    let config = format!("[server]\n{server}\n{}", one_function(&f.url(), route));
    let both = leaf.pair(&config, "max_body = \"4B\"", "max_body = \"none\"").start().await;
    both[0].post("/", "hello").await.is_problem(413, "body_too_large");
    assert_eq!(both[1].post("/", "hello").await.status, 200);
}

/// What a page of `a.test` gets: of its preflight, or of its request.
async fn cors(leaf: &Leaf, preflight: bool, cors: &str, lines: [&str; 2], name: &str, values: [Option<&str>; 2]) {
    let both = itself(leaf, &format!("respond = {{ body = \"x\" }}\ncors = {{ {cors} }}"), lines[0], lines[1]).await;
    for (gateway, value) in both.iter().zip(values) {
        let asked = if preflight {
            request("OPTIONS", "/x/y").header("access-control-request-method", "PUT")
        } else {
            get("/x/y")
        };
        let answer = gateway.send(asked.header("origin", "https://a.test")).await;
        assert_eq!(answer.header(name), value, "{answer:?}");
    }
}

const SITE: &str = "allow_origins = [\"https://a.test\"], LEAF";

async fn cors_origins(leaf: Leaf) {
    let lines = ["allow_origins = [\"https://a.test\"]", "allow_origins = [\"https://b.test\"]"];
    cors(&leaf, false, "LEAF", lines, "access-control-allow-origin", [Some("https://a.test"), None]).await;
}

async fn cors_methods(leaf: Leaf) {
    let lines = ["allow_methods = [\"PUT\"]", "allow_methods = [\"PUT\", \"GET\"]"];
    cors(&leaf, true, SITE, lines, "access-control-allow-methods", [Some("PUT"), Some("PUT, GET")]).await;
}

async fn cors_headers(leaf: Leaf) {
    let lines = ["allow_headers = [\"x-a\"]", "allow_headers = [\"x-b\"]"];
    cors(&leaf, true, SITE, lines, "access-control-allow-headers", [Some("x-a"), Some("x-b")]).await;
}

async fn cors_expose(leaf: Leaf) {
    let lines = ["expose_headers = [\"x-a\", \"x-b\"]", "expose_headers = [\"*\"]"];
    cors(&leaf, false, SITE, lines, "access-control-expose-headers", [Some("x-a, x-b"), Some("*")]).await;
}

async fn cors_credentials(leaf: Leaf) {
    let lines = ["allow_credentials = true", "allow_credentials = false"];
    cors(&leaf, false, SITE, lines, "access-control-allow-credentials", [Some("true"), None]).await;
}

async fn cors_max_age(leaf: Leaf) {
    let lines = ["max_age = \"1h\"", "max_age = \"0s\""];
    cors(&leaf, true, SITE, lines, "access-control-max-age", [Some("3600"), Some("0")]).await;
}

/// The coding of a text of 2,000 bytes, for a caller who takes any.
async fn coded(leaf: Leaf, route: &str, lines: [&str; 2], codings: [Option<&str>; 2]) {
    let text = Reply::text("text ".repeat(400)).header("content-type", "text/plain");
    let f = origin().reply(text).start().await;
    let both = leaf.pair(&one_function(&f.url(), route), lines[0], lines[1]).start().await;
    for (gateway, coding) in both.iter().zip(codings) {
        let answer = gateway.send(get("/").header("accept-encoding", "gzip, br, zstd")).await;
        assert_eq!(answer.header("content-encoding"), coding, "{answer:?}");
    }
}

async fn compression(leaf: Leaf) {
    coded(leaf, "LEAF", ["compression = true", "compression = false"], [Some("zstd"), None]).await;
}

async fn compression_codings(leaf: Leaf) {
    let own = leaf.name.rsplit(' ').next().unwrap();
    let other = if own == "gzip" { "br" } else { "gzip" };
    let lines = [format!("codings = [\"{own}\"]"), format!("codings = [\"{other}\"]")];
    let lines = [lines[0].as_str(), lines[1].as_str()];
    coded(leaf, "compression = { LEAF }", lines, [Some(own), Some(other)]).await;
}

async fn compression_min_size(leaf: Leaf) {
    let lines = ["min_size = \"2000B\"", "min_size = \"2001B\""];
    coded(leaf, "compression = { LEAF }", lines, [Some("zstd"), None]).await;
}

async fn compression_types(leaf: Leaf) {
    let lines = ["types = [\"text/*\"]", "types = [\"*+json\"]"];
    coded(leaf, "compression = { LEAF }", lines, [Some("zstd"), None]).await;
}
