//! Stand-ins for the edges of function platforms: their limits, headers and errors, as `docs/functions.md` has them.

use super::{
    origin::{Build, Seen, origin},
    reply::Reply,
};

/// As HTTP/1.1 writes them.
fn header_bytes(seen: &Seen) -> usize {
    seen.fields.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
}

/// The edge of that platform, with a function behind it that answers with its path, or fails as its path says.
pub(crate) fn edge(platform: &str) -> Build {
    let answer: fn(&Seen) -> Reply = match platform {
        "aliyun-fc3" => fc3,
        "tencent-scf" => scf,
        "aws-lambda-url" => lambda,
        "cloud-run" => cloud_run,
        "azure-functions" => azure,
        "knative" => knative,
        "openfaas" => openfaas,
        _ => function,
    };
    origin().answers(answer)
}

/// How a test asks for a failure: `/orders/fails` fails in the function, `/orders/throttled` at the edge.
fn asks(seen: &Seen, word: &str) -> bool {
    seen.target.split('?').next().is_some_and(|path| path.ends_with(word))
}

fn function(seen: &Seen) -> Reply {
    Reply::text(seen.target.clone())
}

/// 8 KB of headers, 4 KB of path and query, 32 MB of body; `x-fc-*` of callers steers; the default address forces downloads.
fn fc3(seen: &Seen) -> Reply {
    let refused = |status, code: &str| {
        let body = format!(r#"{{"RequestId":"1-edge","ErrorCode":"{code}","ErrorMessage":"…"}}"#);
        Reply::text(body).status(status).header("X-Fc-Error-Type", "FcCommonError")
    };
    let steered = seen.fields.0.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("x-fc-"));
    let reply = match () {
        () if header_bytes(seen) > 8192 || seen.target.len() > 4096 || seen.body_bytes > 32 << 20 => {
            refused(400, "InvalidArgument")
        }
        () if steered => Reply::text("").status(202),
        () if asks(seen, "throttled") => refused(429, "ResourceExhausted"),
        () if asks(seen, "fails") => {
            Reply::text(r#"{"errorMessage":"boom"}"#).header("X-Fc-Error-Type", "UnhandledInvocationError")
        }
        () => function(seen),
    };
    reply
        .header("X-Fc-Request-Id", "1-edge")
        .header("X-Fc-Instance-Id", "c-edge")
        .header("Content-Disposition", "attachment")
}

/// 6 MB of body; failures in the 43x range; `x-scf-remote-addr` is the platform's word.
fn scf(seen: &Seen) -> Reply {
    let reply = match () {
        () if seen.body_bytes > 6 << 20 => Reply::text("").status(406),
        () if seen.header("x-scf-remote-addr").is_some() => Reply::text("spoofed"),
        () if asks(seen, "throttled") => Reply::text("").status(432),
        () if asks(seen, "fails") => Reply::text("boom").status(430),
        () => function(seen),
    };
    reply.header("X-Scf-Request-Id", "1-edge")
}

fn lambda(seen: &Seen) -> Reply {
    let reply = match () {
        () if seen.body_bytes > 6 << 20 => Reply::text("").status(413),
        () if asks(seen, "throttled") => {
            Reply::text("").status(429).header("x-amzn-ErrorType", "TooManyRequestsException")
        }
        () if asks(seen, "fails") => Reply::text("").status(502),
        () => function(seen),
    };
    reply.header("x-amzn-RequestId", "1-edge")
}

fn cloud_run(seen: &Seen) -> Reply {
    let reply = match () {
        () if asks(seen, "throttled") => Reply::text("no available instance").status(503),
        () if asks(seen, "fails") => Reply::text("boom").status(500),
        () => function(seen),
    };
    reply.header("X-Cloud-Trace-Context", "1-edge")
}

fn azure(seen: &Seen) -> Reply {
    let reply = match () {
        () if asks(seen, "throttled") => Reply::text("").status(429),
        () if asks(seen, "fails") => Reply::text("").status(500),
        () => function(seen),
    };
    reply.header("x-ms-invocation-id", "1-edge")
}

fn knative(seen: &Seen) -> Reply {
    match () {
        () if asks(seen, "throttled") => Reply::text("pending request queue full").status(503),
        () if asks(seen, "fails") => Reply::text("").status(500),
        () => function(seen),
    }
}

fn openfaas(seen: &Seen) -> Reply {
    let reply = match () {
        () if asks(seen, "throttled") => Reply::text("").status(429),
        () if asks(seen, "fails") => Reply::text("exit status 1").status(500),
        () => function(seen),
    };
    reply.header("X-Call-Id", "1-edge")
}
