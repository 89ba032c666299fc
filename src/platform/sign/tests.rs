//! Signatures against the published vectors, and against the vendors' own SDKs.

use std::{collections::HashMap, path::Path, process::Command};

use serde::Deserialize;
use serde_json::Value;

use super::{acs3::Acs3, sigv4::SigV4, tc3::Tc3, time::Moment, *};

fn key(id: &str, secret: &str, token: Option<&str>) -> Key {
    Key { id: id.into(), secret: secret.into(), token: token.map(Into::into) }
}

fn unix(time: &str) -> u64 {
    u64::try_from(time.parse::<jiff::Timestamp>().unwrap().as_second()).unwrap()
}

/// A request as the vectors write it: head, an empty line, body; values may be folded over lines.
struct Raw<'v> {
    method: &'v str,
    target: &'v str,
    headers: Vec<(String, String)>,
    body: &'v str,
}

impl<'v> Raw<'v> {
    fn read(text: &'v str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""));
        let mut lines = head.lines();
        // A path may hold a blank.
        let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
        let target = rest.strip_suffix(" HTTP/1.1").unwrap();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            match line.split_once(':').filter(|_| !line.starts_with(' ')) {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                None => headers.last_mut().unwrap().1 += line,
            }
        }
        Self { method, target, headers, body }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(n, _)| n == name)?;
        Some(self.headers.remove(at).1)
    }

    fn canonical(&self, query: Option<&str>, normal: bool, payload: &str) -> (String, String) {
        let path = self.target.split('?').next().unwrap();
        let signed = self.headers.iter().map(|(name, value)| (name.as_str(), canon::folded(value))).collect();
        let (list, names) = canon::headers(signed);
        let call = Call { path, query, ..Self::call(self.method) };
        (sigv4::canonical(&call, &sigv4::path(path, normal), &list, &names, payload), names)
    }

    fn call(method: &'v str) -> Call<'v> {
        Call { method, path: "/", query: None, host: "", content_type: None, payload: Payload::Empty }
    }

    fn query(&self) -> Option<&'v str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

fn vectors(suite: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../../tests/data/signing/sigv4.json")).unwrap();
    all.into_iter().filter(|v| v["suite"] == suite).collect()
}

fn sha(text: &str) -> String {
    Payload::of(text.as_bytes()).words("")
}

#[test]
fn all_vectors_of_aws_c_auth_are_met() {
    let all = vectors("aws-c-auth");
    assert_eq!(all.len(), 38);
    for vector in &all {
        let text = |at: &Value| at.as_str().unwrap().to_owned();
        let (name, context) = (text(&vector["name"]), &vector["context"]);
        let keys = &context["credentials"];
        let signer = SigV4::new(
            key(keys["access_key_id"].as_str().unwrap(), keys["secret_access_key"].as_str().unwrap(), None),
            context["region"].as_str().unwrap(),
            context["service"].as_str().unwrap(),
            true,
        );
        let now = unix(context["timestamp"].as_str().unwrap());
        let moment = Moment::at(now).unwrap();
        let normal = context["normalize"].as_bool().unwrap();
        let unsigned_token = context["omit_session_token"].as_bool() == Some(true);

        let said = &vector["header"];
        let signed_request = text(&said["signed_request"]);
        let mut raw = Raw::read(&signed_request);
        let authorization = raw.take("authorization").unwrap();
        if unsigned_token {
            raw.take("x-amz-security-token").unwrap();
        }
        let payload = sha(raw.body);
        let (request, names) = raw.canonical(raw.query(), normal, &payload);
        assert_eq!(request, text(&said["canonical_request"]), "{name}");
        assert_eq!(signer.string_to_sign(moment, &request), text(&said["string_to_sign"]), "{name}");
        assert_eq!(signer.authorization(moment, &request, &names), authorization.trim(), "{name}");
        assert!(authorization.ends_with(&text(&said["signature"])), "{name}");

        // A signature in the query is made from the same parts.
        let said = &vector["query"];
        let signed_request = text(&said["signed_request"]);
        let raw = Raw::read(&signed_request);
        let pairs: Vec<&str> = raw.query().unwrap().split('&').collect();
        let left = |pair: &&str| {
            let after = pair.starts_with("X-Amz-Signature=") || (unsigned_token && pair.starts_with("X-Amz-Security"));
            !after
        };
        let query = pairs.into_iter().filter(left).collect::<Vec<_>>().join("&");
        let (request, _) = raw.canonical(Some(&query), normal, &sha(raw.body));
        assert_eq!(request, text(&said["canonical_request"]), "{name}, in the query");
        let string_to_sign = signer.string_to_sign(moment, &request);
        assert_eq!(string_to_sign, text(&said["string_to_sign"]), "{name}, in the query");
        let signature = signer.signature(&moment.date(), &string_to_sign);
        assert_eq!(signature, text(&said["signature"]), "{name}, in the query");
    }
}

#[test]
fn all_vectors_of_botocore_are_met() {
    let all = vectors("botocore");
    assert_eq!(all.len(), 34);
    let signer =
        SigV4::new(key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None), "us-east-1", "service", true);
    let moment = Moment::at(unix("2015-08-30T12:36:00Z")).unwrap();
    for vector in &all {
        let text = |key: &str| vector[key].as_str().unwrap().replace('\r', "");
        let name = text("name");
        let request = text("sreq");
        let mut raw = Raw::read(&request);
        raw.take("authorization").unwrap();
        if name == "post-sts-header-after" {
            raw.take("x-amz-security-token");
        }
        let (request, names) = raw.canonical(raw.query(), true, &sha(raw.body));
        assert_eq!(request, text("creq"), "{name}");
        assert_eq!(signer.string_to_sign(moment, &request), text("sts"), "{name}");
        assert_eq!(signer.authorization(moment, &request, &names), text("authz"), "{name}");
    }
}

/// The example of Alibaba Cloud's documentation of signature V3, with fixed parameters.
#[test]
fn the_published_example_of_acs3_is_met() {
    let signer = Acs3::new(key("YourAccessKeyId", "YourAccessKeySecret", None), true);
    let call = Call {
        method: "POST",
        path: "/",
        query: Some("RegionId=cn-shanghai&ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
        host: "ecs.cn-shanghai.aliyuncs.com",
        content_type: None,
        payload: Payload::Empty,
    };
    let signed = [
        ("x-acs-version", "2014-05-26"),
        ("x-acs-action", "RunInstances"),
        ("host", call.host),
        ("x-acs-date", "2023-10-26T10:22:32Z"),
        ("x-acs-content-sha256", canon::EMPTY_SHA256),
        ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
    ];
    let signed = signed.map(|(name, value)| (name, value.to_owned())).to_vec();
    assert_eq!(
        signer.authorization(&call, signed, canon::EMPTY_SHA256),
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;\
         x-acs-signature-nonce;x-acs-version,Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    );
}

/// The example of Tencent Cloud's documentation of signature V3.
#[test]
fn the_published_example_of_tc3_is_met() {
    let signer = Tc3::new(
        key("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE", None),
        "cvm",
        None,
        true,
    );
    let body = r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
    let call = Call {
        method: "POST",
        path: "/",
        query: None,
        host: "cvm.tencentcloudapi.com",
        content_type: Some("application/json; charset=utf-8"),
        payload: Payload::of(body.as_bytes()),
    };
    let fields = signer.sign(&call, 1_551_113_065).unwrap();
    assert_eq!(
        fields.last().unwrap().1,
        "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, \
         SignedHeaders=content-type;host, Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
    );
    assert_eq!(fields[0], (HeaderName::from_static("x-tc-timestamp"), HeaderValue::from_static("1551113065")));
}

/// A random request and what an SDK says of it: a line that `tests/oracles/sign.py` writes.
#[derive(Debug, Deserialize)]
struct Oracle {
    scheme: String,
    method: String,
    path: String,
    query: Option<String>,
    host: String,
    content_type: Option<String>,
    body: Option<String>,
    sign_body: bool,
    now: u64,
    id: String,
    secret: String,
    token: Option<String>,
    region: Option<String>,
    service: Option<String>,
    authorization: String,
}

impl Oracle {
    fn agrees(&self) {
        let payload = match &self.body {
            Some(body) if self.sign_body => Payload::of(body.as_bytes()),
            Some(_) => Payload::Unread,
            None => Payload::Empty,
        };
        let call = Call {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            host: &self.host,
            content_type: self.content_type.as_deref(),
            payload,
        };
        let key = key(&self.id, &self.secret, self.token.as_deref());
        let service = self.service.as_deref().unwrap_or_default();
        let fields = match self.scheme.as_str() {
            "sigv4" => SigV4::new(key, self.region.as_deref().unwrap(), service, self.sign_body).sign(&call, self.now),
            "acs3" => Acs3::new(key, self.sign_body).sign(&call, self.now),
            "tc3" => Tc3::new(key, service, None, self.sign_body).sign(&call, self.now),
            other => panic!("no scheme {other}"),
        };
        assert_eq!(fields.unwrap().last().unwrap().1, self.authorization.as_str(), "{self:#?}");
    }
}

fn agree(lines: &str) {
    let mut seen = HashMap::<String, usize>::new();
    for line in lines.lines() {
        let oracle: Oracle = serde_json::from_str(line).unwrap();
        oracle.agrees();
        *seen.entry(oracle.scheme).or_default() += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().sum::<usize>() >= 1_000, "{seen:?}");
}

#[test]
fn a_thousand_random_requests_are_signed_as_the_sdks_sign_them() {
    agree(include_str!("../../../tests/data/signing/sdks.jsonl"));
}

/// `GATEPOST_FULL=1` asks the SDKs anew, about other requests: by the python that `GATEPOST_SDK_PYTHON` names, or one that is
/// given the SDKs here and now.
#[test]
fn and_so_are_a_thousand_new_ones() {
    if std::env::var_os("GATEPOST_FULL").is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles/sign.py");
    let folder = tempfile::tempdir().unwrap();
    let python = match std::env::var_os("GATEPOST_SDK_PYTHON") {
        Some(python) => python.into(),
        None => {
            let run = |program: &Path, words: &[&str]| {
                let done = Command::new(program).args(words).current_dir(folder.path()).status().unwrap();
                assert!(done.success(), "{} {words:?}", program.display());
            };
            run(Path::new("python3"), &["-m", "venv", "venv"]);
            let python = folder.path().join("venv/bin/python");
            run(
                &python,
                &[
                    "-m",
                    "pip",
                    "-q",
                    "install",
                    "botocore",
                    "alibabacloud-tea-openapi",
                    "tencentcloud-sdk-python-common",
                ],
            );
            python
        }
    };
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
    let told = Command::new(python).arg(script).args(["1000", &seed]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    agree(std::str::from_utf8(&told.stdout).unwrap());
}

#[test]
fn however_a_path_or_query_is_written_its_meaning_is_signed() {
    let same = [("/a%2fb/~x%41", "/a%2Fb/%7ExA"), ("", "/"), ("/%zz", "/%25zz"), ("/a$b", "/a%24b")];
    for (one, other) in same {
        assert_eq!(canon::path(one), canon::path(other), "{one} {other}");
    }
    assert_eq!(canon::query(Some("b=2&a=2&a=1&&c&a%3d=+%20ü")), "a=1&a=2&a%3D=%2B%20%C3%BC&b=2&c=");
    assert_eq!(canon::query(Some("")), "");
    assert_eq!(sigv4::path("/a%20b/ü/../c//d/.", true), "/a%2520b/c/d/");
}

#[test]
fn derived_keys_follow_the_day() {
    let signer = Tc3::new(key("id", "secret", None), "scf", None, true);
    let call = Call { host: "h", ..Raw::call("GET") };
    let at = |now| signer.sign(&call, now).unwrap().last().unwrap().1.clone();
    let (monday, tuesday) = (at(86_399), at(86_400));
    assert_ne!(monday, tuesday);
    let fresh = Tc3::new(key("id", "secret", None), "scf", None, true);
    assert_eq!(fresh.sign(&call, 86_400).unwrap().last().unwrap().1, tuesday);
    assert_eq!(at(86_399), monday);
}

mod from_config {
    use super::*;
    use crate::config::{Mode, load};

    fn signers(credentials: &str) -> (Vec<Result<Signer, Unsignable>>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("id", "AKID"), ("secret", "hush-hush"), ("old", "old-hush"), ("odd", "a\u{7}b")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join("gatepost.toml");
        let text = format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ v = \"https://f.example\" }}\n{credentials}"
        );
        std::fs::write(&path, text).unwrap();
        let loaded = load(&path, Mode::Run).map_err(|report| report.to_string()).unwrap();
        let signers = loaded.config.credentials.iter().map(|one| Signer::new(one, &loaded.material)).collect();
        (signers, folder)
    }

    const CALL: Call<'static> =
        Call { method: "GET", path: "/", query: None, host: "f.example", content_type: None, payload: Payload::Empty };

    #[test]
    fn a_shared_secret_is_sent_with_the_one_before() {
        let (signers, _folder) = signers(
            "[credential.gate]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:secret\"\nprevious = \"file:old\"\n",
        );
        let signer = signers[0].as_ref().unwrap();
        let fields = signer.sign(&CALL, 0).unwrap();
        let shown: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(shown, [("x-gate", "hush-hush"), ("x-gate-previous", "old-hush")]);
        for own in ["x-gate", "x_gate", "x-gate-previous", "x-gate_previous"] {
            assert!(signer.owns(own), "{own}");
        }
        for other in ["x-gat", "x-gates", "authorization", "x-gate-previously"] {
            assert!(!signer.owns(other), "{other}");
        }
        assert!(!signer.hashes_bodies());
    }

    #[test]
    fn no_secret_shows_itself() {
        let (signers, _folder) = signers(
            "[credential.a]\nkind = \"sigv4\"\nregion = \"eu-west-1\"\naccess_key_id = \"file:id\"\n\
             access_key_secret = \"file:secret\"\nsession_token = \"file:old\"\n\
             [credential.b]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:secret\"\n",
        );
        for signer in &signers {
            let signer = signer.as_ref().unwrap();
            let shown = format!("{signer:?} {:?}", signer.sign(&CALL, 0).unwrap());
            assert!(!shown.contains("hush"), "{shown}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_sent_makes_no_signer() {
        let (signers, _folder) =
            signers("[credential.gate]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"file:odd\"\n");
        assert_eq!(signers[0].as_ref().err(), Some(&Unsignable::NotSendable));
    }

    #[test]
    fn each_kind_owns_its_fields() {
        let keys = "access_key_id = \"file:id\"\naccess_key_secret = \"file:secret\"\n";
        let (signers, _folder) = signers(&format!(
            "[credential.a]\nkind = \"sigv4\"\nregion = \"eu-west-1\"\n{keys}[credential.b]\nkind = \"acs3\"\n{keys}\
             [credential.c]\nkind = \"tc3\"\nuin = \"100\"\n{keys}"
        ));
        let owned = ["x-amz-date", "x-acs-date", "x-tc-timestamp"];
        for (signer, own) in signers.iter().zip(owned) {
            let signer = signer.as_ref().unwrap();
            assert!(signer.owns("authorization"));
            for name in owned {
                assert_eq!(signer.owns(name), name == own, "{own} {name}");
            }
            for (name, _) in signer.sign(&CALL, 1_551_113_065).unwrap() {
                assert!(signer.owns(name.as_str()) || name == "content-type", "{name}");
            }
            assert_eq!(signer.sign(&CALL, u64::MAX).err(), Some(Unsignable::Clock));
        }
        assert!([true, false, true].iter().zip(&signers).all(|(h, s)| s.as_ref().unwrap().hashes_bodies() == *h));
    }
}
