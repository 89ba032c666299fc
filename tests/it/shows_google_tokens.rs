//! A function that Google guards is called with a token that is good, or not at all.

use std::time::Duration;

use crate::harness::{
    Gateway, Reply, authority, eventually, gateway, get, google::google, origin, tls::Authority, when,
};

/// Two versions of a function, and where its tokens come from.
fn config(urls: [&str; 2], credential: &str) -> String {
    let [v1, v2] = urls;
    format!(
        "[function.f]\nversions = {{ v1 = \"{v1}\", v2 = \"{v2}\" }}\nweights = {{ v1 = \"rest\" }}\ncredential = \"google\"\n\
         [route.v1]\npath = \"/v1/*\"\nfunction = \"f\"\nversion = \"v1\"\n[route.v2]\npath = \"/v2/*\"\nfunction = \"f\"\nversion = \"v2\"\n\
         [credential.google]\nkind = \"gcp_id_token\"\n{credential}\n"
    )
}

fn by_key(url: &str, authority: &Authority) -> String {
    let ca = authority.ca();
    format!("service_account = \"file:@DIR@/key.json\"\ntoken_url = \"{url}/token\"\nca = \"{}\"", ca.display())
}

async fn unavailable(gateway: &Gateway) {
    eventually("the token is over", async || when(gateway.get("/v1/").await.reason() == "credential_unavailable"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_gets_a_token_of_its_own_which_is_fetched_once() {
    let (google, authority) = (google(), authority());
    let server = google.token_server().tls(&authority.leaf(&["127.0.0.1"])).start().await;
    let v1 = google.function("authorization", "http://127.0.0.1:").start().await;
    let v2 = google.function("authorization", "http://127.0.0.1:").start().await;
    let text = config([&v1.url(), &format!("{}/base", v2.url())], &by_key(&server.url(), &authority));
    let gateway = gateway(text).file("key.json", &google.key_file()).start().await;
    for _ in 0..5 {
        for path in ["/v1/", "/v2/"] {
            // Nobody gets to show another.
            let ask =
                get(path).header("X-Serverless-Authorization", "Bearer mine").header("Authorization", "Basic mine");
            let answer = gateway.send(ask).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    for function in [&v1, &v2] {
        let seen = function.last();
        assert_eq!(google.shown(&seen, "authorization").unwrap()["aud"], function.url(), "its URL without a path");
        assert!(!seen.fields.has("x-serverless-authorization"), "{seen:?}");
    }
    assert_eq!(server.requests(), 2);
    gateway.counts("gatepost_token_fetches_total", &[("credential", "google"), ("result", "ok")], 2.0).await;
    let until = gateway.metrics().await.sum("gatepost_token_expiry_seconds", &[("audience", &v1.url())]);
    assert!(until > 1_700_000_000.0, "{until}");

    // A reload of something else asks for none.
    gateway.swap("path = \"/v2/*\"", "path = \"/two/*\"").await;
    assert_eq!(gateway.get("/two/").await.status, 200);
    assert_eq!(server.requests(), 2);
    let said = gateway.stderr();
    assert!(!said.contains("PRIVATE KEY") && !said.contains("eyJ"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_field_leaves_authorization_to_the_function() {
    let (google, authority) = (google(), authority());
    let server = google.token_server().tls(&authority.leaf(&["127.0.0.1"])).start().await;
    let function = google.function("x-serverless-authorization", "the-audience").start().await;
    let credential =
        by_key(&server.url(), &authority) + "\nheader = \"x-serverless-authorization\"\naudience = \"the-audience\"";
    let text = config([&function.url(), &function.url()], &credential);
    let gateway = gateway(text).file("key.json", &google.key_file()).start().await;
    let answer = gateway.send(get("/v1/").header("Authorization", "Bearer the callers own")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(function.last().header("authorization"), Some("Bearer the callers own"));
    assert_eq!(gateway.get("/v2/").await.status, 200);
    assert_eq!(server.requests(), 1, "one audience, one token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_ahead_serves_to_its_end_and_no_longer() {
    let (google, authority) = (google(), authority());
    google.set_life(4);
    let server = google.token_server().tls(&authority.leaf(&["127.0.0.1"])).start().await;
    let function = google.function("authorization", "127.0.0.1").start().await;
    let text = config([&function.url(), &function.url()], &by_key(&server.url(), &authority));
    let gateway = gateway(text).file("key.json", &google.key_file()).start().await;
    let first = gateway.get("/v1/").await.text();
    eventually("another token", async || {
        let answer = gateway.get("/v1/").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        when(answer.status == 200 && answer.text() != first)
    })
    .await;
    server.now_answers(|_| Reply::text("").status(500));
    unavailable(&gateway).await;
    gateway.says(&["cannot fetch a token", "credential=\"google\"", "it answered 500"]).await;
    let before = function.requests();
    gateway.get("/v1/").await.is_problem(503, "credential_unavailable");
    assert_eq!(function.requests(), before, "never without");
    // Once it is there again, calls go on.
    let again = google.token_server().tls(&authority.leaf(&["127.0.0.1"])).start().await;
    gateway.swap(&server.url(), &again.url()).await;
    eventually("calls go on", async || when(gateway.get("/v1/").await.status == 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_metadata_server_vouches_and_nobody_else_who_answers() {
    let google = google();
    let server = google.metadata_server().start().await;
    let function = google.function("authorization", "127.0.0.1").start().await;
    let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/identity", server.url());
    let text = config([&function.url(), &function.url()], &format!("token_url = \"{url}\""));
    let gateway = gateway(text).start().await;
    assert_eq!(gateway.get("/v1/").await.status, 200);
    let stranger = origin().reply(Reply::text("<html>log in to the hotel's network")).start().await;
    gateway.swap(&server.url(), &stranger.url()).await;
    gateway.get("/v1/").await.is_problem(503, "credential_unavailable");
    gateway.says(&["what answered is no metadata server"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_found_before_it_serves() {
    let text = config(["http://127.0.0.1:9", "http://127.0.0.1:9"], "service_account = \"file:@DIR@/key.json\"");
    let (code, said) =
        gateway(text).file("key.json", "{\"client_email\":\"a\",\"private_key\":\"hush\"}").fails().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("credential google: the private_key of `service_account` is no PKCS #8 key"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}
