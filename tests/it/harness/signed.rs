//! Functions that believe signed calls only: from the bytes that came, and the vendors' rules, they work out the signature anew. Nothing
//! here is shared with gatepost's own signing.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac::{HMAC_SHA256, Key, sign};
use sha2::{Digest, Sha256};

use super::{
    origin::{Build, Seen, origin},
    reply::Reply,
};

pub(crate) const ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const TOKEN: &str = "session/token+of=some//length";

/// The lines of a `[credential.key]` of that kind, whose secrets are the files of [`secrets`].
pub(crate) fn credential(kind: &str, more: &str) -> String {
    let region = if kind == "sigv4" { "region = \"eu-west-1\"\n" } else { "" };
    format!(
        "[credential.key]\nkind = \"{kind}\"\n{region}access_key_id = \"file:@DIR@/id\"\n\
         access_key_secret = \"file:@DIR@/secret\"\n{more}\n"
    )
}

pub(crate) fn secrets(gateway: super::gateway::Build) -> super::gateway::Build {
    gateway.file("id", &format!("{ID}\n")).file("secret", &format!("{SECRET}\n")).file("token", TOKEN)
}

/// Answers 200 to calls that are signed well, 403 and why to all others.
pub(crate) fn verifies(check: fn(&Seen) -> Result<(), String>) -> Build {
    origin().answers(move |seen| match check(seen) {
        Ok(()) => Reply::text(format!("signed, {} bytes", seen.body_bytes)),
        Err(why) => Reply::text(format!("{why}\n{seen:?}")).status(403),
    })
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn sha(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

fn mac(key: impl AsRef<[u8]>, text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key.as_ref()), text.as_bytes()).as_ref().to_vec()
}

/// Like `urllib.parse.quote`.
fn quote(bytes: &[u8], safe: &str) -> String {
    let free = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || safe.as_bytes().contains(&b);
    bytes.iter().map(|b| if free(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn unquote(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend(part[2..].bytes());
            }
            None => {
                out.push(b'%');
                out.extend(part.bytes());
            }
        }
    }
    out
}

fn sorted_query(query: &str) -> String {
    let again = |text: &str| quote(&unquote(text), "");
    let mut pairs: Vec<[String; 2]> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push([again(key), again(value)]);
    }
    pairs.sort();
    pairs.iter().map(|pair| pair.join("=")).collect::<Vec<_>>().join("&")
}

/// What stands in an Authorization of these schemes.
struct Said {
    scope: Vec<String>,
    signed: Vec<String>,
    signature: String,
}

fn said(seen: &Seen, algorithm: &str) -> Result<Said, String> {
    let [word] = seen.fields.all("authorization")[..] else { return Err("not one Authorization".into()) };
    let parts = word.strip_prefix(algorithm).ok_or("another algorithm")?;
    let part = |name: &str| {
        let found = parts.split(',').map(str::trim).find_map(|part| part.strip_prefix(name));
        found.map(str::to_owned).ok_or_else(|| format!("no {name}"))
    };
    let scope: Vec<String> = part("Credential=")?.split('/').map(str::to_owned).collect();
    if scope[0] != ID {
        return Err("another key".into());
    }
    let signed = part("SignedHeaders=")?.split(';').map(str::to_owned).collect();
    Ok(Said { scope, signed, signature: part("Signature=")? })
}

/// The signed fields as they came, one `name:value` a line. One that came twice is an error: which one would be meant?
fn lines(seen: &Seen, signed: &[String], change: fn(&str) -> String) -> Result<String, String> {
    if !signed.is_sorted() {
        return Err("signed headers are not sorted".into());
    }
    let mut all = String::new();
    for name in signed {
        // h2 calls it otherwise.
        let came_as = if name == "host" && seen.version.starts_with("HTTP/2") { ":authority" } else { name };
        let [value] = seen.fields.all(came_as)[..] else { return Err(format!("not one {name}")) };
        all += &format!("{name}:{}\n", change(value));
    }
    Ok(all)
}

/// All of the platform's own fields are signed, so that none was slipped in.
fn all_signed(seen: &Seen, prefix: &str, signed: &[String]) -> Result<(), String> {
    let slipped = seen
        .fields
        .0
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .find(|name| name.replace('_', "-").starts_with(prefix) && !signed.contains(name));
    slipped.map_or(Ok(()), |name| Err(format!("{name} is not signed")))
}

fn is_now(seconds: i64) -> Result<(), String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    if (now - seconds).abs() > 300 { Err(format!("skew: {seconds}, and it is {now}")) } else { Ok(()) }
}

fn agree(ours: &str, said: &Said, canonical: &str) -> Result<(), String> {
    if ours == said.signature { Ok(()) } else { Err(format!("another signature; it should cover\n{canonical}")) }
}

/// As Lambda does.
pub(crate) fn sigv4(seen: &Seen) -> Result<(), String> {
    let said = said(seen, "AWS4-HMAC-SHA256 ")?;
    let [_, date, region, service, end] = &said.scope[..] else { return Err("a strange scope".into()) };
    if (region.as_str(), service.as_str(), end.as_str()) != ("eu-west-1", "lambda", "aws4_request") {
        return Err("another scope".into());
    }
    for needed in ["host", "x-amz-date", "x-amz-content-sha256"] {
        if !said.signed.iter().any(|name| name == needed) {
            return Err(format!("{needed} is not signed"));
        }
    }
    all_signed(seen, "x-amz-", &said.signed)?;
    let at = seen.header("x-amz-date").unwrap();
    let moment = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", at).map_err(|e| e.to_string())?;
    is_now(moment.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second())?;
    if !at.starts_with(date.as_str()) {
        return Err("two dates".into());
    }
    let payload = seen.header("x-amz-content-sha256").unwrap();
    if payload != sha(&seen.body) && payload != "UNSIGNED-PAYLOAD" {
        return Err("another body".into());
    }
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    let canonical = [
        &seen.method,
        &quote(path.as_bytes(), "/"),
        &sorted_query(query),
        &lines(seen, &said.signed, words)?,
        &said.signed.join(";"),
        payload,
    ]
    .join("\n");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{date}/{region}/{service}/{end}\n{}", sha(&canonical));
    let key = [date, region, service, end].iter().fold(format!("AWS4{SECRET}").into_bytes(), |k, word| mac(k, word));
    agree(&hex(mac(key, &text)), &said, &canonical)
}

/// As Function Compute documents it for HTTP triggers; where the body's hash is signed, as the OpenAPI gateways do.
pub(crate) fn acs3(seen: &Seen) -> Result<(), String> {
    let said = said(seen, "ACS3-HMAC-SHA256 ")?;
    all_signed(seen, "x-acs-", &said.signed)?;
    let at = seen.header("x-acs-date").ok_or("no x-acs-date")?;
    is_now(at.parse::<jiff::Timestamp>().map_err(|e| e.to_string())?.as_second())?;
    let payload = seen.header("x-acs-content-sha256").unwrap_or_default();
    if !payload.is_empty() && payload != sha(&seen.body) {
        return Err("another body".into());
    }
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let path = path.split('/').map(|segment| quote(&unquote(segment), "")).collect::<Vec<_>>().join("/");
    let lines = lines(seen, &said.signed, |value| value.trim().to_owned())?;
    let canonical = [&seen.method, &path, &sorted_query(query), &lines, &said.signed.join(";"), payload].join("\n");
    let text = format!("ACS3-HMAC-SHA256\n{}", sha(&canonical));
    agree(&hex(mac(SECRET, &text)), &said, &canonical)
}

/// As signature V3 of Tencent Cloud has it.
pub(crate) fn tc3(seen: &Seen) -> Result<(), String> {
    let said = said(seen, "TC3-HMAC-SHA256 ")?;
    let [_, date, service, end] = &said.scope[..] else { return Err("a strange scope".into()) };
    if said.signed != ["content-type", "host"] || service != "scf" || end != "tc3_request" {
        return Err("another scope".into());
    }
    let at = seen.header("x-scf-cam-timestamp").ok_or("no timestamp")?;
    if seen.fields.all("x-tc-timestamp") != [at] {
        return Err("two timestamps".into());
    }
    is_now(at.parse().map_err(|_| "no time")?)?;
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let lines = lines(seen, &said.signed, |value| value.trim().to_lowercase())?;
    let body = match seen.header("x-tc-content-sha256") {
        None => sha(&seen.body),
        Some("UNSIGNED-PAYLOAD") => sha("UNSIGNED-PAYLOAD"),
        Some(_) => return Err("a strange hash".into()),
    };
    let canonical = [&seen.method, path, query, &lines, &said.signed.join(";"), &body].join("\n");
    let text = format!("TC3-HMAC-SHA256\n{at}\n{date}/{service}/{end}\n{}", sha(&canonical));
    let key = [date, service, end].iter().fold(format!("TC3{SECRET}").into_bytes(), |k, word| mac(k, word));
    agree(&hex(mac(key, &text)), &said, &canonical)
}
