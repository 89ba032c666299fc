//! What a route does beside sending on, in words.

use http::{HeaderName, HeaderValue};

use super::{Leaf, cache::fallback_words, duration, name_at, nets_words};
use crate::config::{model::*, source::hex};

pub(super) fn serves_leaves(config: &Config, serves: &Serves) -> Vec<Leaf> {
    let (function, redirect, respond) = match serves {
        Serves::Function(id) => (Some(name_at(&config.functions, id.index())), None, None),
        Serves::Redirect(redirect) => (None, Some(redirect_words(redirect)), None),
        Serves::Respond(respond) => (None, None, Some(respond_words(respond))),
    };
    vec![
        Leaf::option("function", "none", function),
        Leaf::option("redirect", "none", redirect),
        Leaf::option("respond", "none", respond),
    ]
}

/// All but what answers.
pub(super) fn handling_leaves(handling: &Handling) -> Vec<Leaf> {
    let Handling {
        path,
        request_headers,
        response_headers,
        security_headers,
        maintenance,
        max_body,
        cors,
        compression,
        error_pages,
        fallback,
    } = handling;
    let (strip, add, rewrite) = match path {
        None => (None, None, None),
        Some(PathEdit::Prefix { strip, add }) => (strip.as_ref(), add.as_ref(), None),
        Some(PathEdit::Rewrite(to)) => (None, None, Some(&to.text)),
    };
    vec![
        Leaf::option("strip_prefix", "none", strip),
        Leaf::option("add_prefix", "none", add),
        Leaf::option("rewrite", "none", rewrite),
        Leaf::list("request_headers", "as they come", edits(request_headers.as_ref())),
        Leaf::list("response_headers", "as they come", edits(response_headers.as_ref())),
        Leaf::option("security_headers", "none", security_headers.as_ref().map(security_words)),
        Leaf::option("maintenance", "off", maintenance.as_ref().map(maintenance_words)),
        Leaf::option("max_body", "the server's", max_body.map(body_bound)),
        Leaf::option("cors", "none", cors.as_ref().map(cors_words)),
        Leaf::list("error_pages", "none", error_pages.iter().map(page_words)),
        Leaf::option("fallback", "none", fallback.as_ref().map(fallback_words)),
        Leaf::option("compression", "off", compression.as_ref().map(compression_words)),
    ]
}

/// What a route does beside sending on, each in a line; what is off says nothing.
pub fn handling(handling: &Handling) -> Vec<String> {
    let off = handling_leaves(&Handling::default());
    let all = handling_leaves(handling);
    let is_on = |(leaf, off): &(&Leaf, &Leaf)| leaf.value != off.value;
    all.iter().zip(&off).filter(is_on).map(|(leaf, _)| format!("{} {}", leaf.key, leaf.value)).collect()
}

pub(super) fn body_bound(BodyBound(bytes): BodyBound) -> String {
    bytes.map_or_else(|| "none".to_owned(), size)
}

/// In the largest unit that it is whole in.
pub fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        _ if bytes == 0 => "0B".to_owned(),
        30.. => format!("{}GiB", bytes >> 30),
        20.. => format!("{}MiB", bytes >> 20),
        10.. => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

fn redirect_words(redirect: &Redirect) -> String {
    let Redirect { to: Template { text, pieces: _ }, status, keep_query } = redirect;
    let query = if *keep_query { "" } else { " without its query" };
    format!("to {text}{query} by {}", status.as_u16())
}

fn respond_words(respond: &Respond) -> String {
    let Respond { status, content, headers } = respond;
    let mut words = status.as_u16().to_string();
    if let Some(content) = content {
        words += &format!(" with {}", content_words(content));
    }
    for header in headers {
        words += &format!(" and {}", field(header));
    }
    words
}

/// A body by its hash: its text may be long.
pub(super) fn content_words(content: &Content) -> String {
    use sha2::Digest as _;
    let Content { file, bytes, kind } = content;
    let hash = hex(&sha2::Sha256::digest(bytes));
    let from = file.as_ref().map_or_else(|| "a body".to_owned(), |file| file.display().to_string());
    let kind = kind.to_str().unwrap_or_default();
    format!("{from} ({kind}, {} bytes, {})", bytes.len(), hash.get(..12).unwrap_or_default())
}

pub(super) fn maintenance_words(maintenance: &Maintenance) -> String {
    let Maintenance { status, retry_after, content, allow } = maintenance;
    let mut words = format!("{}, back in {}", status.as_u16(), duration(*retry_after));
    if let Some(content) = content {
        words += &format!(", {}", content_words(content));
    }
    if !allow.is_empty() {
        words += &format!(", but for {}", nets_words(allow));
    }
    words
}

fn cors_words(cors: &Cors) -> String {
    let Cors { origins, methods, headers, expose, credentials, max_age } = cors;
    let origins = match origins {
        Origins::Any => "*".to_owned(),
        Origins::These(origins) => origins.iter().map(origin).collect::<Vec<_>>().join(" "),
    };
    let methods = methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let headers = match headers {
        CorsHeaders::Asked => "any header".to_owned(),
        CorsHeaders::These(names) if names.is_empty() => "no headers".to_owned(),
        CorsHeaders::These(names) => names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(" "),
    };
    let expose = expose.as_ref().map_or_else(String::new, |e| format!(", exposing {}", e.to_str().unwrap_or_default()));
    let credentials = if *credentials { ", with credentials" } else { "" };
    format!("from {origins} by {methods} with {headers}{expose}{credentials}, for {}", duration(*max_age))
}

pub(super) fn page_words(page: &ErrorPage) -> String {
    let ErrorPage { on, content, intercept } = page;
    let on = match on {
        PageFor::Status(status) => status.to_string(),
        PageFor::Class(class) => format!("{class}xx"),
    };
    format!("{on} {}{}", content_words(content), if *intercept { ", the function's too" } else { "" })
}

fn compression_words(compression: &Compression) -> String {
    let Compression { codings, min_size, types } = compression;
    let codings = codings.iter().map(|coding| coding.as_str()).collect::<Vec<_>>().join(" ");
    let types = types.iter().map(|pattern| match pattern {
        MediaPattern::Exact(kind) => kind.clone(),
        MediaPattern::Type(prefix) => format!("{prefix}*"),
        MediaPattern::Suffix(suffix) => format!("*{suffix}"),
    });
    format!("{codings} from {} of {}", size(*min_size), types.collect::<Vec<_>>().join(" "))
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Exact(origin) => origin.clone(),
        Origin::Below(scheme, suffix) => format!("{scheme}*{suffix}"),
    }
}

fn security_words(SecurityHeaders { preset, replace }: &SecurityHeaders) -> String {
    let preset = match preset {
        SecurityPreset::Basic => "basic",
        SecurityPreset::Strict => "strict",
    };
    format!("{preset}{}", if *replace { " in place of the function's" } else { "" })
}

fn edits(edits: Option<&HeaderEdits>) -> Vec<String> {
    let Some(HeaderEdits { set, add, remove, remove_prefixes }) = edits else { return Vec::new() };
    let set = set.iter().map(|header| format!("set {}", field(header)));
    let add = add.iter().map(|header| format!("add {}", field(header)));
    let remove = remove.iter().map(|name| format!("remove {name}"));
    let prefixes = remove_prefixes.iter().map(|prefix| format!("remove {prefix}*"));
    set.chain(add).chain(remove).chain(prefixes).collect()
}

fn field((name, value): &(HeaderName, HeaderValue)) -> String {
    format!("{name}: {}", value.to_str().unwrap_or_default())
}
