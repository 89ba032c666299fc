//! Certificates that are what they should be, and those that are not.

use std::{fs, path::Path};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::config::{Loaded, Mode, Report, load, model::TlsCertificate};

/// A folder with a config of one TLS listener, and `a.pem`, `a.key`, `b.pem`, `b.key`, `ca.pem` in it.
fn folder(listener: &str, function: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a", "b"] {
        certificate(folder.path(), name, 2099);
    }
    fs::copy(folder.path().join("a.pem"), folder.path().join("ca.pem")).expect("ca.pem");
    fs::write(
        folder.path().join("gatepost.toml"),
        format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n{listener}\n\
             [function.f]\nversions = {{ v1 = \"https://f.example\" }}\n{function}\n"
        ),
    )
    .expect("gatepost.toml");
    folder
}

fn certificate(folder: &Path, name: &str, until: i32) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([format!("{name}.example")]).expect("params");
    params.not_before = date_time_ymd(2001, 2, 3);
    params.not_after = date_time_ymd(until, 2, 3);
    let cert = params.self_signed(&key).expect("a certificate");
    fs::write(folder.join(format!("{name}.pem")), cert.pem()).expect("certificate");
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("key");
}

fn loaded(folder: &tempfile::TempDir) -> Result<Loaded, Report> {
    load(&folder.path().join("gatepost.toml"), Mode::Run)
}

/// The messages of a report, with the folder's own name taken out.
fn messages(report: &Report, folder: &tempfile::TempDir) -> Vec<String> {
    let own = format!("{}/", folder.path().display());
    report.problems().iter().map(|problem| problem.message.replace(&own, "")).collect()
}

const A: &str = "tls = [{ cert = \"a.pem\", key = \"a.key\" }]";

#[test]
fn a_certificate_comes_with_its_key() {
    let folder = folder(A, "ca = \"ca.pem\"");
    let loaded = loaded(&folder).map_err(|report| report.to_string());
    let loaded = loaded.expect("loaded");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let TlsCertificate::Files(files) = &loaded.config.listeners[0].tls[0] else { panic!("files") };
    assert_eq!(loaded.material.key(files).expect("key").cert.len(), 1);
    let ca = loaded.config.functions[0].versions[0].ca.clone();
    let ca = loaded.material.authority(&ca.expect("ca")).expect("read");
    assert_eq!(ca.len(), 1);
    assert_eq!(loaded.material.paths().count(), 3);
}

#[test]
fn another_certificates_key_is_refused() {
    let folder = folder("tls = [{ cert = \"a.pem\", key = \"b.key\" }]", "");
    let report = loaded(&folder).expect_err("refused");
    assert_eq!(messages(&report, &folder), ["the key b.key does not belong to a.pem"]);
    assert!(report.to_string().contains("gatepost.toml:3:32"), "{report}");
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let folder = folder(A, "");
    certificate(folder.path(), "a", 2020);
    let loaded = loaded(&folder).map_err(|report| report.to_string());
    assert_eq!(
        messages(&loaded.expect("loaded").warnings, &folder),
        ["certificate 1 of a.pem expired on 2020-02-03T00:00:00Z"]
    );
}

#[test]
fn what_is_no_certificate_or_key_is_refused() {
    let folder = folder(A, "ca = \"ca.pem\"");
    fs::write(folder.path().join("ca.pem"), "").expect("ca.pem");
    fs::write(
        folder.path().join("a.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .expect("a.key");
    fs::write(folder.path().join("a.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("a.pem");
    let report = loaded(&folder).expect_err("refused");
    assert_eq!(
        messages(&report, &folder),
        ["certificate 1 of a.pem is broken", "a.key holds no private key", "ca.pem holds no certificate",]
    );
    assert!(report.to_string().contains("the key is encrypted"), "{report}");
}

#[test]
fn the_hash_tells_whether_a_file_changed() {
    let folder = folder(A, "ca = \"ca.pem\"");
    let hash = || {
        let loaded = loaded(&folder).map_err(|report| report.to_string());
        loaded.expect("loaded").material.hash().to_owned()
    };
    let before = hash();
    assert_eq!(before, hash());
    certificate(folder.path(), "ca", 2050);
    assert_ne!(before, hash());
}

#[test]
fn a_secret_that_cannot_be_read_is_an_error_only_when_it_matters() {
    let folder = folder("", "[admin]\ntoken = \"file:token\"");
    let path = folder.path().join("gatepost.toml");
    let report = load(&path, Mode::Run).expect_err("refused");
    assert!(messages(&report, &folder)[0].starts_with("cannot read the secret"));
    let checked = load(&path, Mode::Check).map_err(|report| report.to_string());
    assert_eq!(checked.expect("checked").warnings.problems().len(), 1);

    fs::write(folder.path().join("token"), "hunter2\n").expect("token");
    let loaded = loaded(&folder).map_err(|report| report.to_string());
    let loaded = loaded.expect("loaded");
    let secret = loaded.config.admin.token.expect("token").read();
    let secret = secret.expect("read");
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret:?}"), "Secret(***)");
    assert!(loaded.material.paths().any(|path| path.ends_with("token")));
}
