//! `[credential.NAME] kind = "gcp_id_token"`.

use super::{Proof, credential::places, leaf::Leaf, one_function, table};
use crate::harness::{
    authority,
    google::{Google, google},
    origin::Origin,
    tls::{Authority, authority_called},
};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("credential.*.kind = gcp_id_token", kind),
        ("credential.*.service_account = env:", service_account),
        ("credential.*.service_account = file:", service_account),
        ("credential.*.service_account = credential:", service_account),
        ("credential.*.audience", audience),
        ("credential.*.token_url", token_url),
        ("credential.*.ca", ca),
    ]
}

async fn server(google: &Google, authority: &Authority) -> Origin {
    google.token_server().tls(&authority.leaf(&["127.0.0.1"])).start().await
}

fn config(function: &Origin, credential: &str) -> String {
    let function = one_function(&function.url(), "").replace("[route.f]", "credential = \"key\"\n[route.f]");
    format!("{function}[credential.key]\n{credential}\n")
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

const KEY: &str = "kind = \"gcp_id_token\"\nservice_account = \"file:@DIR@/key.json\"\n";

async fn kind(leaf: Leaf) {
    let google = google();
    let metadata = google.metadata_server().start().await;
    let function = google.function("authorization", "127.0.0.1").start().await;
    let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/identity", metadata.url());
    let config = config(&function, &format!("LEAF\ntoken_url = \"{url}\""));
    let pair = leaf.pair(&config, "kind = \"gcp_id_token\"", "kind = \"acs3\"");
    let gateway = pair.refuses(&["`token_url` says nothing to a credential of this kind"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

/// The other key is nobody's that Google knows.
async fn service_account(leaf: Leaf) {
    let (known, other, authority) = (google(), google(), authority());
    let server = server(&known, &authority).await;
    let function = known.function("authorization", "127.0.0.1").start().await;
    let (lines, also) = places(&leaf, [leaked(known.key_file()), leaked(other.key_file())]);
    let rest = format!(
        "kind = \"gcp_id_token\"\ntoken_url = \"{}/token\"\nca = \"{}\"\nLEAF",
        server.url(),
        authority.ca().display()
    );
    let both = leaf.pair(&config(&function, &rest), &lines[0], &lines[1]).also(also).start().await;
    for (gateway, status) in both.iter().zip([200, 503]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn audience(leaf: Leaf) {
    let (google, authority) = (google(), authority());
    let server = server(&google, &authority).await;
    let function = google.function("authorization", "the-one").start().await;
    let rest = format!("{KEY}token_url = \"{}/token\"\nca = \"{}\"\nLEAF", server.url(), authority.ca().display());
    let key = google.key_file();
    let pair = leaf.pair(&config(&function, &rest), "audience = \"the-one\"", "audience = \"the-other\"");
    let both = pair.also(move |build| build.file("key.json", &key)).start().await;
    for (gateway, status) in both.iter().zip([200, 401]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}

async fn token_url(leaf: Leaf) {
    let (google, authority) = (google(), authority());
    let (one, other) = (server(&google, &authority).await, server(&google, &authority).await);
    let function = google.function("authorization", "127.0.0.1").start().await;
    let rest = format!("{KEY}ca = \"{}\"\nLEAF", authority.ca().display());
    let lines = [&one, &other].map(|server| format!("token_url = \"{}/token\"", server.url()));
    let key = google.key_file();
    let pair = leaf.pair(&config(&function, &rest), &lines[0], &lines[1]);
    let both = pair.also(move |build| build.file("key.json", &key)).start().await;
    for gateway in &both {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(one.requests() > 0 && other.requests() > 0);
}

async fn ca(leaf: Leaf) {
    let (google, authority, stranger) = (google(), authority(), authority_called("somebody else"));
    let server = server(&google, &authority).await;
    let function = google.function("authorization", "127.0.0.1").start().await;
    let rest = format!("{KEY}token_url = \"{}/token\"\nLEAF", server.url());
    let lines = [&authority, &stranger].map(|authority| format!("ca = \"{}\"", authority.ca().display()));
    let key = google.key_file();
    let pair = leaf.pair(&config(&function, &rest), &lines[0], &lines[1]);
    let both = pair.also(move |build| build.file("key.json", &key)).start().await;
    for (gateway, status) in both.iter().zip([200, 503]) {
        assert_eq!(gateway.get("/").await.status, status);
    }
}
