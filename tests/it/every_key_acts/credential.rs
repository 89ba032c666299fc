//! `[credential.NAME]`: what a function is shown by it.

use super::{Proof, leaf::Leaf, named, one_function, table};
use crate::harness::{
    Gateway, Origin, get,
    origin::Seen,
    post,
    signed::{SECRET, acs3, secrets, verifies},
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("credential.*.kind = sigv4", kind_with_region),
        ("credential.*.kind = acs3", kind),
        ("credential.*.kind = tc3", kind),
        ("credential.*.kind = header", kind_of_header),
        ("credential.*.access_key_id = env:", secret),
        ("credential.*.access_key_id = file:", secret),
        ("credential.*.access_key_id = credential:", secret),
        ("credential.*.access_key_secret = env:", key_secret),
        ("credential.*.access_key_secret = file:", key_secret),
        ("credential.*.access_key_secret = credential:", key_secret),
        ("credential.*.session_token = env:", secret),
        ("credential.*.session_token = file:", secret),
        ("credential.*.session_token = credential:", secret),
        ("credential.*.secret = env:", secret),
        ("credential.*.secret = file:", secret),
        ("credential.*.secret = credential:", secret),
        ("credential.*.previous = env:", secret),
        ("credential.*.previous = file:", secret),
        ("credential.*.previous = credential:", secret),
        ("credential.*.region", region),
        ("credential.*.service", service),
        ("credential.*.uin", uin),
        ("credential.*.sign_body", sign_body),
        ("credential.*.sign_body_max", sign_body_max),
        ("credential.*.header", header),
        ("function.*.credential", of_function),
        ("function.*.versions.*.credential", of_version),
    ]
}

const KEYS: &str = "access_key_id = \"file:@DIR@/id\"\naccess_key_secret = \"file:@DIR@/secret\"\n";

/// A function whose calls are signed with this.
fn signed(f: &Origin, credential: &str) -> String {
    let function = one_function(&f.url(), "").replace("[route.f]", "credential = \"key\"\n[route.f]");
    format!("{function}[credential.key]\n{credential}\n")
}

/// What the function got from the one, and from the other.
async fn shown(both: &[Gateway; 2], f: &Origin) -> [Seen; 2] {
    let mut seen = Vec::new();
    for gateway in both {
        assert_eq!(gateway.send(post("/").body("x")).await.status, 200);
        seen.push(f.last());
    }
    seen.try_into().unwrap()
}

async fn shows(leaf: Leaf, credential: &str, [one, other]: [&str; 2], field: &str, values: [Option<&str>; 2]) {
    let f = named("v1").await;
    let both = leaf.pair(&signed(&f, credential), one, other).also(secrets).start().await;
    let seen = shown(&both, &f).await;
    for (seen, value) in seen.iter().zip(values) {
        let said = seen.header(field);
        let fits = said == value || said.zip(value).is_some_and(|(said, value)| said.contains(value));
        assert!(fits, "{said:?} holds no {value:?}");
    }
}

async fn kind(leaf: Leaf) {
    let words = ["kind = \"acs3\"", "kind = \"tc3\""];
    let values = [Some("ACS3-HMAC-SHA256 "), Some("TC3-HMAC-SHA256 ")];
    shows(leaf, &format!("LEAF\n{KEYS}"), words, "authorization", values).await;
}

/// No other kind has a region: the other config is wrong.
async fn kind_with_region(leaf: Leaf) {
    let f = named("v1").await;
    let config = signed(&f, &format!("LEAF\nregion = \"eu-west-1\"\n{KEYS}"));
    let pair = leaf.pair(&config, "kind = \"sigv4\"", "kind = \"acs3\"").also(secrets);
    let gateway = pair.refuses(&["`region` says nothing to a credential of this kind"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(f.last().header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 "));
}

async fn kind_of_header(leaf: Leaf) {
    let f = named("v1").await;
    let config = signed(&f, "LEAF\nheader = \"x-gate\"\nsecret = \"file:@DIR@/secret\"\n");
    let pair = leaf.pair(&config, "kind = \"header\"", "kind = \"acs3\"").also(secrets);
    let gateway = pair.refuses(&["`header` says nothing to a credential of this kind"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(f.last().header("x-gate"), Some(SECRET));
}

/// The leaf's secret from two places of its kind, which hold these two; and what it is written in.
pub(super) fn places(
    leaf: &Leaf,
    values: [&'static str; 2],
) -> ([String; 2], impl Fn(crate::harness::gateway::Build) -> crate::harness::gateway::Build + use<>) {
    let (key, kind) = (leaf.key(), leaf.name.rsplit(' ').next().unwrap());
    let lines = ["ONE", "OTHER"].map(|name| match kind {
        "file:" => format!("{key} = \"file:@DIR@/{name}\""),
        _ => format!("{key} = \"{kind}{name}\""),
    });
    // Of each gatepost's own folder: gone with it.
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in ["ONE", "OTHER"].iter().zip(values) {
        std::fs::write(folder.path().join(name), value).unwrap();
    }
    let also = move |build: crate::harness::gateway::Build| {
        secrets(build)
            .env("ONE", values[0])
            .env("OTHER", values[1])
            .env("CREDENTIALS_DIRECTORY", &folder.path().display().to_string())
            .file("ONE", values[0])
            .file("OTHER", values[1])
    };
    (lines, also)
}

async fn secret(leaf: Leaf) {
    let (rest, field) = match leaf.key() {
        "access_key_id" => ("kind = \"acs3\"\naccess_key_secret = \"file:@DIR@/secret\"", "authorization"),
        "session_token" => (&*format!("kind = \"acs3\"\n{KEYS}"), "x-acs-security-token"),
        "secret" => ("kind = \"header\"\nheader = \"x-gate\"", "x-gate"),
        _ => ("kind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:@DIR@/secret\"", "x-gate-previous"),
    };
    let f = named("v1").await;
    let (lines, also) = places(&leaf, ["value-one", "value-other"]);
    let pair = leaf.pair(&signed(&f, &format!("{rest}\nLEAF")), &lines[0], &lines[1]);
    let seen = shown(&pair.also(also).start().await, &f).await;
    for (seen, value) in seen.iter().zip(["value-one", "value-other"]) {
        assert!(seen.header(field).unwrap().contains(value), "{seen:?}");
    }
}

/// Only the one's signature is right.
async fn key_secret(leaf: Leaf) {
    let f = verifies(acs3).start().await;
    let (lines, also) = places(&leaf, [SECRET, "another"]);
    let config = signed(&f, "kind = \"acs3\"\naccess_key_id = \"file:@DIR@/id\"\nLEAF");
    let both = leaf.pair(&config, &lines[0], &lines[1]).also(also).start().await;
    for (gateway, status) in both.iter().zip([200, 403]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn region(leaf: Leaf) {
    let words = ["region = \"eu-west-1\"", "region = \"us-east-1\""];
    let values = [Some("/eu-west-1/lambda/"), Some("/us-east-1/lambda/")];
    shows(leaf, &format!("kind = \"sigv4\"\n{KEYS}LEAF"), words, "authorization", values).await;
}

async fn service(leaf: Leaf) {
    let words = ["service = \"scf\"", "service = \"cvm\""];
    let values = [Some("/scf/tc3_request"), Some("/cvm/tc3_request")];
    shows(leaf, &format!("kind = \"tc3\"\n{KEYS}LEAF"), words, "authorization", values).await;
}

async fn uin(leaf: Leaf) {
    shows(leaf, &format!("kind = \"tc3\"\n{KEYS}LEAF"), ["uin = \"100\"", ""], "x-scf-cam-uin", [Some("100"), None])
        .await;
}

async fn sign_body(leaf: Leaf) {
    let hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let words = ["sign_body = false", "sign_body = true"];
    shows(leaf, &format!("kind = \"acs3\"\n{KEYS}LEAF"), words, "x-acs-content-sha256", [None, Some(hash)]).await;
}

async fn sign_body_max(leaf: Leaf) {
    let f = named("v1").await;
    let config = signed(&f, &format!("kind = \"tc3\"\n{KEYS}LEAF"));
    let both = leaf.pair(&config, "sign_body_max = \"10B\"", "sign_body_max = \"11B\"").also(secrets).start().await;
    let ask = || post("/").body("eleven byte");
    both[0].send(ask()).await.is_problem(413, "body_too_large");
    assert_eq!(both[1].send(ask()).await.status, 200);
}

async fn header(leaf: Leaf) {
    let words = ["header = \"x-gate\"", "header = \"x-other\""];
    let rest = "kind = \"header\"\nsecret = \"file:@DIR@/secret\"\nLEAF";
    shows(leaf, rest, words, "x-gate", [Some(SECRET), None]).await;
}

const TWO: &str = "[credential.a]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:@DIR@/id\"\n\
                   [credential.b]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:@DIR@/secret\"\n";

async fn names(leaf: Leaf, config: &str, f: &Origin) {
    let both = leaf.pair(config, "credential = \"a\"", "credential = \"b\"").also(secrets).start().await;
    for (gateway, value) in both.iter().zip([crate::harness::signed::ID, SECRET]) {
        assert_eq!(gateway.send(get("/")).await.status, 200);
        assert_eq!(f.last().header("x-gate"), Some(value));
    }
}

async fn of_function(leaf: Leaf) {
    let f = named("v1").await;
    let config = one_function(&f.url(), "").replace("[route.f]", "LEAF\n[route.f]");
    names(leaf, &format!("{config}{TWO}"), &f).await;
}

async fn of_version(leaf: Leaf) {
    let f = named("v1").await;
    let config =
        format!("[function.f]\nversions = {{ v1 = {{ url = \"{}\", LEAF }} }}\n[route.f]\nfunction = \"f\"\n", f.url());
    names(leaf, &format!("{config}{TWO}"), &f).await;
}
