//! Stand-ins for the edges of function platforms: their limits, headers and errors, as `docs/functions.md` has them.

use std::time::Duration;

use super::{
    origin::{Build, Seen, origin},
    reply::{Gate, Places, Reply, gate},
};

/// As HTTP/1.1 writes them.
fn header_bytes(seen: &Seen) -> usize {
    seen.fields.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
}

/// How a call fails on a platform: asked for by the last part of its path.
pub(crate) struct Fails {
    pub(crate) word: &'static str,
    pub(crate) status: u16,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
}

impl Fails {
    fn reply(&self) -> Reply {
        let reply = Reply::text(self.body).status(self.status);
        self.fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    }
}

const fn fails(
    word: &'static str,
    status: u16,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> Fails {
    Fails { word, status, fields, body }
}

const FC_COMMON: &[(&str, &str)] = &[("X-Fc-Error-Type", "FcCommonError")];
const LAMBDA_DENIED: &[(&str, &str)] = &[("x-amzn-ErrorType", "AccessDeniedException")];
const LAMBDA_THROTTLED: &[(&str, &str)] = &[("x-amzn-ErrorType", "TooManyRequestsException")];

/// Every way in which a platform is known to say that a call failed.
pub(crate) const FAILURES: [(&str, &[Fails]); 8] = [
    (
        "aliyun-fc3",
        &[
            fails("fails", 200, &[("X-Fc-Error-Type", "UnhandledInvocationError")], r#"{"errorMessage":"boom"}"#),
            fails("handled", 200, &[("X-Fc-Error-Type", "HandledInvocationError")], r#"{"errorMessage":"boom"}"#),
            fails("init", 200, &[("X-Fc-Error-Type", "InitializationError")], r#"{"errorMessage":"no handler"}"#),
            fails("crash", 502, &[("X-Fc-Error-Type", "UnhandledInvocationError")], r#"{"errorMessage":"exit 1"}"#),
            fails("throttled", 429, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"ResourceExhausted"}"#),
            fails("flow", 503, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"ResourceThrottled"}"#),
            fails("internal", 500, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"InternalServerError"}"#),
            fails("argument", 400, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"InvalidArgument"}"#),
            fails("denied", 403, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"SignatureNotMatch"}"#),
            fails("missing", 404, FC_COMMON, r#"{"RequestId":"1-edge","ErrorCode":"TriggerNotFound"}"#),
        ],
    ),
    (
        "tencent-scf",
        &[
            fails("fails", 430, &[], r#"{"errorCode":430,"errorMessage":"user code exception"}"#),
            fails("timeout", 433, &[], r#"{"errorCode":433,"errorMessage":"time limit exceeded"}"#),
            fails("memory", 434, &[], r#"{"errorCode":434,"errorMessage":"memory limit exceeded"}"#),
            fails("throttled", 432, &[], r#"{"errorCode":432,"errorMessage":"ResourceLimitReached"}"#),
            fails("burst", 429, &[], r#"{"errorCode":429,"errorMessage":"ResourceLimit"}"#),
            fails("suspended", 402, &[], ""),
            fails("balance", 410, &[], ""),
            fails("asked-too-much", 406, &[], ""),
            fails("said-too-much", 407, &[], ""),
            fails("missing", 435, &[], ""),
            fails("common", 429, &[("X-Scf-Error-Type", "ScfCommonError")], ""),
            fails("internal", 500, &[("X-Scf-Error-Type", "ScfSysError")], ""),
            fails("crash", 502, &[("X-Scf-Error-Type", "UnhandledInvocationErr")], ""),
        ],
    ),
    (
        "aws-lambda-url",
        &[
            fails("fails", 502, &[], ""),
            fails("handled", 200, &[("X-Amz-Function-Error", "Unhandled")], r#"{"errorMessage":"boom"}"#),
            fails("throttled", 429, LAMBDA_THROTTLED, r#"{"Reason":"ConcurrentInvocationLimitExceeded"}"#),
            fails("denied", 403, LAMBDA_DENIED, r#"{"Message":"Forbidden"}"#),
        ],
    ),
    (
        "cloud-run",
        &[
            fails("fails", 500, &[], "boom"),
            fails("throttled", 503, &[], "The request was aborted because there was no available instance."),
            fails("rate", 429, &[], "Rate exceeded."),
            fails("timeout", 504, &[], "upstream request timeout"),
        ],
    ),
    (
        "azure-functions",
        &[fails("fails", 500, &[], ""), fails("throttled", 429, &[], ""), fails("timeout", 504, &[], "")],
    ),
    (
        "knative",
        &[
            fails("fails", 500, &[], ""),
            fails("throttled", 503, &[], "pending request queue full"),
            fails("rate", 429, &[], ""),
            fails("timeout", 504, &[], "activator request timeout"),
        ],
    ),
    (
        "openfaas",
        &[fails("fails", 500, &[], "exit status 1"), fails("throttled", 429, &[], ""), fails("timeout", 504, &[], "")],
    ),
    // What the shipped file says of its own platform.
    (
        "generic",
        &[
            fails("fails", 200, &[("x-function-error", "boom")], ""),
            fails("throttled", 529, &[], ""),
            fails("busy", 503, &[], ""),
        ],
    ),
];

/// How long a platform's edge keeps a connection that nobody uses, as far as anybody knows: the load balancers that its vendor sells.
pub(crate) fn keeps(platform: &str) -> Duration {
    Duration::from_secs(match platform {
        "aliyun-fc3" | "tencent-scf" => 15,
        "azure-functions" => 230,
        _ => 60,
    })
}

/// The edge of that platform, with a function behind it that answers with its path, or with as many bytes as its path says (`/bytes-9`), or fails as it says.
pub(crate) fn edge(platform: &str) -> Build {
    crowded(platform, &Places::of(usize::MAX), &gate())
}

/// The same with so many calls at a time, and `/waits` for a function that takes until the door opens. What is too much is throttled in the platform's own words.
pub(crate) fn crowded(platform: &str, places: &Places, door: &Gate) -> Build {
    let (_, failures) = FAILURES.iter().find(|(name, _)| *name == platform).unwrap();
    let (platform, places, door) = (platform.to_owned(), places.clone(), door.clone());
    let failing = |word: &str| failures.iter().find(|fails| fails.word == word).map(Fails::reply);
    origin().answers(move |seen| {
        let word = seen.target.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let works = || {
            let Some(place) = places.take() else { return failing("throttled").unwrap() };
            let reply = match word.strip_prefix("bytes-").map(|bytes| bytes.parse().unwrap()) {
                Some(bytes) => too_long(&platform, bytes).unwrap_or_else(|| Reply::made(bytes)),
                None => failing(word).unwrap_or_else(|| Reply::text(seen.target.clone())),
            };
            let reply = if word == "waits" { reply.after(&door) } else { reply };
            reply.holding(place)
        };
        let reply = refused(&platform, seen).unwrap_or_else(works);
        says(&platform).iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    })
}

/// The longest answer that a platform lets through, as far as its vendor says.
pub(crate) fn longest(platform: &str) -> Option<u64> {
    match platform {
        "tencent-scf" | "aws-lambda-url" => Some(6 << 20),
        "cloud-run" => Some(32 << 20),
        _ => None,
    }
}

/// What it says in place of a longer one, when the function has run already.
fn too_long(platform: &str, bytes: u64) -> Option<Reply> {
    longest(platform).filter(|most| bytes > *most)?;
    Some(match platform {
        "tencent-scf" => Reply::text("").status(407),
        "aws-lambda-url" => Reply::text("").status(502),
        _ => Reply::text("Response size was too large. Please consider reducing response size.").status(500),
    })
}

/// What the edge does not let through to a function, and what steers it.
fn refused(platform: &str, seen: &Seen) -> Option<Reply> {
    let has = |beginning: &str| seen.fields.0.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with(beginning));
    match platform {
        // 8 KB of headers, 4 KB of path and query, 32 MB of body.
        "aliyun-fc3" if header_bytes(seen) > 8192 || seen.target.len() > 4096 || seen.body_bytes > 32 << 20 => {
            let reply = Reply::text(r#"{"RequestId":"1-edge","ErrorCode":"InvalidArgument"}"#).status(400);
            Some(reply.header("X-Fc-Error-Type", "FcCommonError"))
        }
        "aliyun-fc3" => has("x-fc-").then(|| Reply::text("").status(202)),
        "tencent-scf" if seen.body_bytes > 6 << 20 => Some(Reply::text("").status(406)),
        "tencent-scf" => has("x-scf-remote-addr").then(|| Reply::text("spoofed")),
        "aws-lambda-url" if seen.body_bytes > 6 << 20 => Some(Reply::text("").status(413)),
        "aws-lambda-url" => has("x-amz-invocation-type").then(|| Reply::text("").status(202)),
        "cloud-run" if seen.body_bytes > 32 << 20 => Some(Reply::text("").status(413)),
        "azure-functions" if seen.body_bytes > 100 << 20 => Some(Reply::text("").status(413)),
        "azure-functions" => has("x-ms-routing-name").then(|| Reply::text("another slot")),
        "knative" => has("knative-serving-tag").then(|| Reply::text("another revision")),
        "openfaas" => has("x-callback-url").then(|| Reply::text("sent there").status(202)),
        _ => None,
    }
}

/// What the edge says of itself in each answer.
fn says(platform: &str) -> &'static [(&'static str, &'static str)] {
    match platform {
        // The default address forces downloads.
        "aliyun-fc3" => &[
            ("X-Fc-Request-Id", "1-edge"),
            ("X-Fc-Instance-Id", "c-1-edge"),
            ("X-Fc-Invocation-Duration", "3"),
            ("Content-Disposition", "attachment"),
        ],
        "tencent-scf" => &[("X-Scf-Request-Id", "1-edge"), ("X-Scf-Memory-Usage", "1-edge MB")],
        "aws-lambda-url" => &[("x-amzn-RequestId", "1-edge"), ("X-Amzn-Trace-Id", "Root=1-edge")],
        "cloud-run" => &[("X-Cloud-Trace-Context", "1-edge")],
        "azure-functions" => &[("x-ms-invocation-id", "1-edge"), ("x-ms-middleware-request-id", "1-edge")],
        "openfaas" => &[("X-Call-Id", "1-edge"), ("X-Duration-Seconds", "1-edge")],
        _ => &[],
    }
}
