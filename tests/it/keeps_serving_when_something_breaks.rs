//! A file goes, a folder fills, a name is not found: what served goes on serving, and the log says what to mend.

use std::{fs, time::Duration};

use crate::harness::{Connection, Gateway, Origin, eventually, gateway, origin, post, when};

/// A gatepost with these words in its config, and its function.
async fn serving(more: &str, files: &[(&str, &str)]) -> (Gateway, Origin) {
    let function = origin().start().await;
    let text =
        format!("{more}\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url());
    let build = files.iter().fold(gateway(text), |build, (name, content)| build.file(name, content));
    (build.start().await, function)
}

/// Asks for a reload, which must be refused with these words; the old config serves on.
async fn refused(gateway: &Gateway, words: &[&str]) {
    let receipt = gateway.hup().await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("rejected", 1), "{}", gateway.stderr());
    gateway.says(words).await;
    gateway.says(&["generation 1 goes on serving"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_secret_that_vanishes() {
    let (gateway, _function) = serving("[admin]\ntoken = \"file:@DIR@/token\"", &[("token", "sesame\n")]).await;
    let path = gateway.dir().join("token");
    fs::remove_file(&path).unwrap();
    // Without being asked for: the file is watched.
    assert_eq!(gateway.receipt(0).await.result, "rejected");
    gateway.says(&["token", "No such file"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    fs::write(&path, "open\n").unwrap();
    eventually("the new secret counts", async || {
        let asks = post("/api/v1/reload").header("Authorization", "Bearer open");
        when(Connection::open(gateway.admin()).await.send(asks).await.status == 200)
    })
    .await;
}

#[tokio::test]
async fn an_include_that_cannot_be_read() {
    let (gateway, _function) = serving("", &[("conf.d/keep", "")]).await;
    // A link to nowhere, since root may read every file.
    std::os::unix::fs::symlink("/nowhere/broken.toml", gateway.dir().join("conf.d/broken.toml")).unwrap();
    gateway.replace(&format!("include = [\"conf.d/*.toml\"]\n{}", gateway.config_text()));
    assert_eq!(gateway.receipt(0).await.result, "rejected");
    refused(&gateway, &["conf.d/broken.toml"]).await;
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened() {
    let (gateway, _function) = serving("", &[]).await;
    let receipt = gateway.edit(|text| text.replace("/access.log", "/no/such/folder/access.log")).await;
    assert_eq!((receipt.result.as_str(), receipt.generation), ("rejected", 1));
    gateway.says(&["log.access", "/no/such/folder/access.log"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    // Its line is where it always was.
    assert_eq!(gateway.log_line().await["status"], 200);
}

#[tokio::test]
async fn an_authority_that_is_none() {
    let (gateway, _function) = serving("", &[("ca.pem", "not a certificate\n")]).await;
    let ca = gateway.dir().join("ca.pem").display().to_string();
    let receipt = gateway
        .edit(|text| format!("{text}[function.g]\nca = \"{ca}\"\nversions = {{ v1 = \"https://localhost:9\" }}\n"))
        .await;
    assert_eq!(receipt.result, "rejected");
    gateway.says(&["ca.pem"]).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_state_folder_that_is_gone() {
    let (gateway, _function) = serving("", &[]).await;
    fs::remove_dir_all(gateway.state_dir()).unwrap();
    // Nothing can be made where a file is.
    fs::write(gateway.state_dir(), "").unwrap();
    gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    assert_eq!(gateway.get("/f").await.status, 200);
    gateway.says(&["degraded", "state"]).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_config_generation", &[]), 2.0);
}

#[tokio::test]
async fn a_name_that_nobody_knows_costs_its_function_only() {
    let (gateway, _function) = serving(
        "[function.lost]\nversions = { v1 = \"http://function.invalid\" }\n[route.lost]\npath = \"/lost\"\nfunction = \"lost\"",
        &[],
    )
    .await;
    gateway.get("/lost").await.is_problem(502, "name_not_resolved");
    assert_eq!(gateway.get("/").await.status, 200);
    // Nor does it hold up a reload.
    let asked = std::time::Instant::now();
    gateway.swap("path = \"/lost\"", "path = \"/gone\"").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}
