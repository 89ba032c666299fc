//! A function that takes signed calls only is reached by the gate alone: the bytes that are signed are the bytes that are sent.

use std::{fs, process::Command};

use bytes::Bytes;

use crate::harness::{
    Gateway, Reply, eventually, gateway,
    gateway::Build,
    get,
    h2::H2,
    origin, post, request,
    signed::{ID, SECRET, TOKEN, acs3, credential, secrets, sigv4, tc3, verifies},
    when,
};

/// One function with a credential of that kind, and all paths to it.
fn signed(url: &str, kind: &str, more: &str, route: &str) -> Build {
    let credential = credential(kind, more);
    secrets(gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"{url}\" }}\n\
         credential = \"key\"\n[route.f]\nfunction = \"f\"\n{route}\n{credential}"
    )))
}

const ODD: [&str; 24] = [
    "/",
    "/a/b",
    "/a/b/",
    "/a//b",
    "//",
    "/a/./b/../c",
    "/with%20space",
    "/%e6%97%a5%e6%9c%ac/%C3%BC",
    "/semi;colon=1,2/at@home:80/$money/!ex'cl*(am)",
    "/tilde~and%7Etilde/%41bc",
    "/per%25cent/%2525/plus+plus",
    "/?",
    "/?a",
    "/?a=",
    "/?=a",
    "/?a=1&a=2&a=1&A=3",
    "/?b=2&a=1&a-b=3&a_b=4&a.b=5",
    "/?empty=&empty&&x=",
    "/?q=a+b&q=a%20b&q=a%2Bb",
    "/?q=%e6%97%a5&%E6%97%A5=q&k=%zz&k=100%",
    "/?url=https://x.example/a?b=c=d&e=/",
    "/?a=%26&b=%3D%3d&c=~%7e",
    "/?sign=!'()*;:@$,[]|{}^`",
    "/path?X-Amz-Date=1999&Signature=abc",
];

#[tokio::test]
async fn odd_targets_are_signed_as_they_are_sent_by_every_scheme() {
    for (kind, check, more) in [
        ("sigv4", sigv4 as fn(&_) -> _, ""),
        ("sigv4", sigv4, "session_token = \"file:@DIR@/token\""),
        ("acs3", acs3, ""),
        ("acs3", acs3, "sign_body = true\nsession_token = \"file:@DIR@/token\""),
        ("tc3", tc3, "uin = \"100001\""),
    ] {
        let f = verifies(check).start().await;
        let gateway = signed(&f.url(), kind, more, "").start().await;
        let h2 = H2::plain(gateway.address("in")).await;
        for target in ODD {
            for method in ["GET", "POST", "DELETE"] {
                let ask = request(method, target).body(if method == "POST" { "some=body" } else { "" });
                let answer = gateway.send(ask.clone()).await;
                assert_eq!(answer.status, 200, "{kind} {method} {target}: {answer:?}");
                // Hyper's URIs are stricter than HTTP/1's.
                if !target.contains(['|', '{', '^', '`']) && target != "//" {
                    let answer = h2.send(ask).await;
                    assert_eq!(answer.status, 200, "{kind} over h2 {method} {target}: {answer:?}");
                }
            }
        }
        if more.contains("uin") {
            assert_eq!(f.last().header("x-scf-cam-uin"), Some("100001"));
        }
    }
}

#[tokio::test]
async fn what_is_signed_is_the_request_after_every_edit() {
    let f = verifies(sigv4).start().await;
    let edits = "path = \"/shop/*\"\nstrip_prefix = \"/shop\"\n\
                 request_headers = { set = { content-type = \"text/plain;  charset=utf-8\", x-amz-fake = \"1\" } }";
    let gateway = signed(&format!("{}/base", f.url()), "sigv4", "", edits).start().await;
    let answer = gateway.send(post("/shop/%7Ea/x?y=1").body("{}")).await;
    assert_eq!((answer.status, f.last().target.as_str()), (200, "/base/~a/x?y=1"), "{answer:?}");
    gateway.swap("credential = \"key\"", "credential = \"key\"\npreserve_host = true").await;
    let answer = gateway.send(get("/shop/").host("Shop.Example:8443")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(f.last().header("host"), Some("Shop.Example:8443"));
}

#[tokio::test]
async fn a_version_may_have_a_credential_of_its_own_and_the_others_stay_unsigned() {
    let (plain, own) = (origin().echo().start().await, verifies(sigv4).start().await);
    let gateway = secrets(gateway(format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = {{ url = \"{}\", credential = \"key\" }} }}\n\
         weights = {{ v1 = \"rest\" }}\n[route.a]\npath = \"/a\"\nfunction = \"f\"\nversion = \"v1\"\n\
         [route.b]\npath = \"/b\"\nfunction = \"f\"\nversion = \"v2\"\n{}",
        plain.url(),
        own.url(),
        credential("sigv4", "")
    )));
    let gateway = gateway.start().await;
    assert_eq!(gateway.get("/b").await.status, 200);
    gateway.send(get("/a").header("authorization", "Basic x").header("x-amz-date", "mine")).await;
    let seen = plain.last();
    assert_eq!((seen.header("authorization"), seen.header("x-amz-date")), (Some("Basic x"), Some("mine")));
}

#[tokio::test]
async fn what_a_caller_sends_in_the_signers_fields_never_passes() {
    let f = verifies(sigv4).start().await;
    let gateway = signed(&f.url(), "sigv4", "", "").start().await;
    let ask = get("/")
        .header("Authorization", "Bearer mine")
        .header("authorization", "Basic mine")
        .header("X-Amz-Date", "20010101T000000Z")
        .header("X-Amz-Security-Token", "stolen")
        .header("X-Amz-Invocation-Type", "Event");
    let answer = gateway.send(ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = f.last();
    assert_eq!(seen.fields.all("authorization").len(), 1);
    assert!(!seen.fields.has("x-amz-security-token") && !seen.fields.has("x-amz-invocation-type"), "{seen:?}");
}

#[tokio::test]
async fn bodies_are_signed_whatever_their_size_and_framing() {
    let f = verifies(sigv4).start().await;
    let two = verifies(sigv4).h2c().start().await;
    for (url, http) in [(f.url(), "1.1"), (two.url(), "2")] {
        let gateway = signed(&url, "sigv4", "sign_body_max = \"700KiB\"", "").start().await;
        gateway.swap("credential = \"key\"", &format!("credential = \"key\"\nhttp = \"{http}\"")).await;
        let h2 = H2::plain(gateway.address("in")).await;
        for size in [1, 100, 65_535, 65_536, 65_537, 131_072, 131_073, 500_000, 716_800] {
            let body = Bytes::from(vec![b'x'; size]);
            let ask = post("/up").body(body.clone());
            let expected = format!("signed, {size} bytes");
            let answer = gateway.send(ask.clone()).await;
            assert_eq!(answer.text(), expected, "to http {http}");
            let answer = h2.send(ask.header("content-length", &size.to_string())).await;
            assert_eq!(answer.text(), expected, "h2 to http {http}");
        }
        // Chunks: their length is told when it is known.
        let chunked = "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                       3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let answer = gateway.raw(chunked).await;
        assert!(answer.contains("signed, 7 bytes"), "{answer}");
        let empty = "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n";
        let answer = gateway.raw(empty).await;
        assert!(answer.contains("signed, 0 bytes"), "{answer}");
        // Too large, as said and as it comes.
        let large = vec![b'x'; 716_801];
        gateway.send(post("/up").body(large.clone())).await.is_problem(413, "body_too_large");
        let mut frames = b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        frames.extend(format!("{:x}\r\n", large.len()).bytes().chain(large).chain(*b"\r\n0\r\n\r\n"));
        let answer = gateway.raw(frames).await;
        assert!(answer.contains(" 413 ") && answer.contains("Content-Length"), "{answer}");
    }
    assert_eq!(f.seen().iter().filter(|seen| seen.fields.has("transfer-encoding")).count(), 0);
}

#[tokio::test]
async fn who_waits_for_100_continue_gets_it_from_the_gate() {
    let f = verifies(sigv4).start().await;
    let gateway = signed(&f.url(), "sigv4", "", "").start().await;
    let mut caller = gateway.connect().await;
    caller.write("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(caller.wire.head().await.unwrap().unwrap().status(), 100);
    caller.write("hello").await;
    assert_eq!(caller.answer().await.text(), "signed, 5 bytes");
    assert!(!f.last().fields.has("expect"));
}

#[tokio::test]
async fn a_body_that_no_signature_covers_streams() {
    let f = verifies(acs3).early().start().await;
    let gateway = signed(&f.url(), "acs3", "", "").start().await;
    let mut caller = gateway.connect().await;
    caller.write("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").await;
    // The answer is there before the body is.
    assert_eq!(caller.answer_head("POST").await.unwrap().status(), 200);

    let aws = verifies(sigv4).start().await;
    let gateway = signed(&aws.url(), "sigv4", "sign_body = false", "").start().await;
    assert_eq!(gateway.send(post("/").body("x")).await.status, 200);
    assert_eq!(aws.last().header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    let scf = verifies(tc3).start().await;
    let gateway = signed(&scf.url(), "tc3", "sign_body = false", "").start().await;
    assert_eq!(gateway.send(post("/").body("x")).await.status, 200);
}

#[tokio::test]
async fn every_attempt_is_signed_anew_with_its_whole_body() {
    let f = verifies(sigv4).start().await;
    let gateway = signed(&f.url(), "sigv4", "", "").workers(1).start().await;
    assert_eq!(gateway.get("/").await.status, 200);
    // A kept connection ends as the next request comes: it is sent again on another one.
    f.now_answers(|seen| match (seen.nth, sigv4(seen)) {
        (0, Ok(())) => Reply::text(format!("again, {} bytes", seen.body_bytes)),
        (_, Ok(())) => Reply::vanish(),
        (_, Err(why)) => Reply::text(why).status(403),
    });
    let answer = gateway.send(request("PUT", "/again").body(vec![b'y'; 200_000])).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "again, 200000 bytes"), "{answer:?}");
    assert_eq!(f.seen().len(), 3);
    assert!(f.seen().iter().all(|seen| sigv4(seen).is_ok()));
    assert_eq!(gateway.log(2).await[1]["attempts"], 2);
}

#[tokio::test]
async fn the_signature_counts_for_what_the_platform_takes_and_what_it_replaces_does_not() {
    for (kind, check, more) in [
        ("sigv4", sigv4 as fn(&_) -> _, "session_token = \"file:@DIR@/token\""),
        ("acs3", acs3, ""),
        ("acs3", acs3, "sign_body = true"),
        ("tc3", tc3, "uin = \"100001\"\nsession_token = \"file:@DIR@/token\""),
    ] {
        let f = verifies(check).start().await;
        let gateway = signed(&f.url(), kind, more, "").start().await;
        gateway.swap("credential = \"key\"", "credential = \"key\"\nmax_headers = \"2KiB\"").await;
        let ask =
            |bytes: usize| get("/").header("x-big", &"x".repeat(bytes)).header("authorization", &"y".repeat(3000));
        let written = || f.last().fields.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        let answer = gateway.send(ask(1)).await;
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        // What makes it 2 KiB, to the byte.
        let full = 2048 - written() + 1;
        // Room is kept for the longest signature: one that covers a content type too.
        let answer = gateway.send(ask(full - 64)).await;
        assert_eq!((answer.status, written()), (200, 2048 - 64), "{kind}: {answer:?}");
        gateway.send(ask(full + 1)).await.is_problem(431, "headers_too_large");
        assert_eq!(f.requests(), 2, "{kind}: nothing was billed");
    }
}

#[tokio::test]
async fn a_body_that_is_kept_meets_the_functions_bound_by_its_name() {
    let f = verifies(sigv4).start().await;
    let gateway = signed(&f.url(), "sigv4", "", "").start().await;
    gateway.swap("credential = \"key\"", "credential = \"key\"\nmax_body = \"8B\"").await;
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n9\r\nnine byte\r\n0\r\n\r\n";
    let answer = gateway.raw(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("this function takes at most 8 bytes"), "{answer}");
    assert_eq!(f.requests(), 0);
}

#[tokio::test]
async fn a_websocket_is_opened_by_a_signed_call() {
    let f = origin()
        .answers(|seen| match sigv4(seen) {
            Ok(()) => Reply::websocket(),
            Err(why) => Reply::text(why).status(403),
        })
        .start()
        .await;
    let gateway = signed(&f.url(), "sigv4", "", "").start().await;
    let mut caller = gateway.connect().await;
    caller
        .write(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(caller.answer_head("GET").await.unwrap().status(), 101);
}

#[tokio::test]
async fn a_shared_secret_rotates_and_drops_nobody() {
    let f = origin().echo().start().await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\ncredential = \"gate\"\n[route.f]\nfunction = \"f\"\n\
         [credential.gate]\nkind = \"header\"\nheader = \"X-Gate-Secret\"\nsecret = \"file:@DIR@/now\"\n",
        f.url()
    );
    let gateway = gateway(config).file("now", "first").file("before", "first").start().await;
    let ask = || get("/").header("x-gate-secret", "guess").header("X-Gate-Secret-Previous", "guess");
    gateway.send(ask()).await;
    let sent = |name| f.last().fields.all(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((sent("x-gate-secret"), sent("x-gate-secret-previous")), (vec!["first".to_owned()], vec![]));

    // Both while functions know the one or the other.
    let receipt =
        gateway.edit(|text| text.replace("[credential.gate]", "[credential.gate]\nprevious = \"file:before\"")).await;
    assert_eq!(receipt.result, "applied");
    fs::write(gateway.dir().join("now"), "second").unwrap();
    eventually("the new secret is sent", async || {
        gateway.send(ask()).await;
        when(sent("x-gate-secret") == ["second"])
    })
    .await;
    assert_eq!(sent("x-gate-secret-previous"), ["first"]);
}

#[tokio::test]
async fn a_key_that_was_rolled_is_followed_and_a_lost_one_changes_nothing() {
    let f = origin().echo().start().await;
    let gateway = signed(&f.url(), "sigv4", "session_token = \"file:@DIR@/token\"", "").start().await;
    gateway.get("/").await;
    assert_eq!(f.last().header("x-amz-security-token"), Some(TOKEN));
    let before = gateway.receipts().len();
    fs::write(gateway.dir().join("token"), "rolled").unwrap();
    eventually("the new token is sent", async || {
        gateway.get("/").await;
        when(f.last().header("x-amz-security-token") == Some("rolled"))
    })
    .await;
    // The line is written once it serves.
    assert_eq!(gateway.receipt(before).await.result, "applied");
    let before = gateway.receipts().len();
    fs::remove_file(gateway.dir().join("token")).unwrap();
    let receipt = gateway.receipt(before).await;
    assert_eq!(receipt.result, "rejected");
    gateway.get("/").await;
    assert_eq!(f.last().header("x-amz-security-token"), Some("rolled"), "signed as before, never unsigned");
}

fn gatepost(gateway: &Gateway, words: &[&str]) -> (Option<i32>, String) {
    let config = gateway.dir().join("gatepost.toml");
    let done = Command::new(env!("CARGO_BIN_EXE_gatepost")).args(words).arg("--config").arg(config).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn explain_and_check_say_what_is_signed_and_nobody_says_a_secret() {
    let f = verifies(sigv4).start().await;
    let gateway = signed(&f.url(), "sigv4", "session_token = \"file:@DIR@/token\"", "").start().await;
    assert_eq!(gateway.get("/x").await.status, 200);
    let (code, explained) = gatepost(&gateway, &["explain", "GET", "http://gate.test/x"]);
    assert_eq!(code, Some(0), "{explained}");
    assert!(explained.contains("signed with credential key"), "{explained}");
    let (code, schema) = gatepost(&gateway, &["check"]);
    assert_eq!(code, Some(0), "{schema}");
    fs::remove_file(gateway.dir().join("secret")).unwrap();
    let (code, checked) = gatepost(&gateway, &["check"]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.contains("cannot read the secret") && checked.contains("/secret"), "{checked}");

    let status = gateway.ask_admin("/api/v1/status").await.text();
    let log = serde_json::to_string(&gateway.log(1).await).unwrap();
    let metrics = gateway.ask_admin("/metrics").await.text();
    for said in [gateway.stderr(), explained, checked, status, log, metrics] {
        for secret in [SECRET, TOKEN, ID] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}

#[tokio::test]
async fn without_its_secret_nothing_starts() {
    let f = origin().start().await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\" }}\ncredential = \"gate\"\n[route.f]\nfunction = \"f\"\n\
         [credential.gate]\nkind = \"header\"\nheader = \"x-gate\"\nsecret = \"env:GATEPOST_NO_SUCH\"\n",
        f.url()
    );
    let (code, said) = gateway(config.clone()).fails().await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the environment has no variable GATEPOST_NO_SUCH"), "{said}");
    let (code, said) = gateway(config).env("GATEPOST_NO_SUCH", "new\nline").fails().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("credential gate") && !said.contains("new\nline"), "{said}");
}
