//! What a route does beside sending on: redirects, answers of its own, edits, maintenance.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::Scope;
use crate::config::{
    model::{
        Content, FunctionId, HeaderEdits, Maintenance, PathEdit, PathPattern, PathSegment, Piece, Redirect, Respond,
        SecurityHeaders, Serves, Template,
    },
    raw, raw_handling,
    read::{Map, one_of},
    report::{Problem, nearest},
    source::{At, Span},
    words::{FilePath, HeaderText, MediaType, RemoveName, Text},
};

/// Which way the headers go that are edited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
}

/// Why gatepost does not let a header be edited; `None`: it does.
fn untouchable(name: &str, way: Way) -> Option<&'static str> {
    Some(match (name, way) {
        // RFC 9110 §7.6.1, RFC 9113 §8.2.2.
        (
            "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization",
            _,
        ) => "it is about one connection (RFC 9110 §7.6.1)",
        // RFC 9112 §6.
        ("content-length" | "transfer-encoding", _) => "it says where the body ends, which gatepost knows itself",
        ("content-encoding" | "content-range", _) => {
            "it says how the body is to be read, which an edit does not change"
        }
        ("expect", Way::Request) => "gatepost answers it itself",
        ("host", Way::Request) => "a version has `host = \"…\"`, and a function `preserve_host`",
        (
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "client-cert" | "client-cert-chain",
            Way::Request,
        ) => "it is gatepost's word on who called",
        ("x-request-id", _) => "it is what answers and log lines are found by",
        ("x-gatepost-hop", Way::Request) => "it counts the gateposts on a request's way",
        ("x-gatepost-reason", _) => "it is gatepost's own word",
        _ => return None,
    })
}

impl Scope<'_> {
    /// What answers the route's requests: exactly one of `function`, `redirect`, `respond`.
    pub(super) fn serves(&mut self, raw: &raw::Route, path: Option<&PathPattern>, place: Span) -> Option<Serves> {
        let file = self.file;
        let function =
            (raw.function.as_ref()).and_then(|at| self.find("function", at, &file.functions)).map(FunctionId);
        let redirect = raw.redirect.as_ref().and_then(|at| self.redirect(at, raw, path));
        let respond = raw.respond.as_ref().and_then(|at| self.respond(&at.value));
        let mut there = [
            ("function", raw.function.as_ref().map(|at| at.span)),
            ("redirect", raw.redirect.as_ref().map(|at| at.span)),
            ("respond", raw.respond.as_ref().map(|at| at.span)),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)));
        match (there.next(), there.next()) {
            (Some((first, at)), Some((second, span))) => {
                self.report.push(
                    Problem::at(format!("a route has one of `{first}` and `{second}`"), span)
                        .label("the second")
                        .also(at, "the first"),
                );
                return None;
            }
            // What is absent may have been meant.
            (None, _) if !raw.broken => {
                self.report.push(
                    Problem::at("the route says nothing of what answers", place)
                        .label("`function`, `redirect` or `respond` is needed here"),
                );
                return None;
            }
            _ => {}
        }
        if function.is_none() && raw.function.is_none() {
            self.without_function(raw);
        }
        function
            .map(Serves::Function)
            .or_else(|| redirect.map(Serves::Redirect))
            .or_else(|| respond.map(Serves::Respond))
    }

    /// Keys that say something of a function, in a route that has none.
    fn without_function(&mut self, raw: &raw::Route) {
        let keys = [
            ("version", raw.version.as_ref().map(|at| at.span)),
            ("strip_prefix", raw.strip_prefix.as_ref().map(|at| at.span)),
            ("add_prefix", raw.add_prefix.as_ref().map(|at| at.span)),
            ("rewrite", raw.rewrite.as_ref().map(|at| at.span)),
            ("compression", raw.compression.as_ref().filter(|at| at.value.0.is_some()).map(|at| at.span)),
            ("max_body", raw.max_body.as_ref().map(|at| at.span)),
            ("fallback", raw.fallback.as_ref().map(|at| at.span)),
            ("request_headers", raw.request_headers.as_ref().map(|at| at.span)),
            ("criticality", raw.criticality.as_ref().map(|at| at.span)),
            ("forward_client_cert", raw.forward_client_cert.as_ref().map(|at| at.span)),
        ];
        if raw.redirect.is_none() && raw.respond.is_none() {
            return;
        }
        for (key, span) in keys {
            if let Some(span) = span {
                self.report.push(
                    Problem::at(format!("`{key}` is about a function, and this route has none"), span)
                        .label("nothing would come of it")
                        .help("take it out, or give the route a `function`"),
                );
            }
        }
    }

    fn redirect(
        &mut self,
        at: &At<Box<raw_handling::Redirect>>,
        raw: &raw::Route,
        path: Option<&PathPattern>,
    ) -> Option<Redirect> {
        let table = &at.value.0;
        let to = table.to.as_ref()?;
        let is_https = to.value.0 == "https";
        let written = if is_https { "https://{host}{path}" } else { to.value.0.as_str() };
        if is_https {
            self.not_by_tls(to.span, raw);
        }
        let status = match &table.status {
            None if is_https => StatusCode::PERMANENT_REDIRECT,
            None => StatusCode::FOUND,
            Some(status) => self.one_status(status, &[301, 302, 303, 307, 308])?,
        };
        let template = self.template(written, to.span, path?, true)?;
        let asks_host = template.pieces.contains(&Piece::Host);
        let any_host = table.any_host.as_ref().is_some_and(|at| at.value);
        if asks_host && raw.host.is_none() && !any_host {
            self.report.push(
                Problem::at("the redirect would lead wherever a caller's Host says", to.span)
                    .label("`{host}` needs a route that names its `host`")
                    .help("add `host = \"…\"`, write the host out, or say `any_host = true` if that is meant"),
            );
            return None;
        }
        Some(Redirect { to: template, status, keep_query: table.keep_query.as_ref().is_none_or(|at| at.value) })
    }

    /// `https` leads callers of a TLS listener to where they are.
    fn not_by_tls(&mut self, span: Span, raw: &raw::Route) {
        let named = raw.listeners.as_ref().map(|list| list.value.iter().map(|at| &at.value.0).collect::<Vec<_>>());
        let mut listeners = self.file.listeners.iter();
        let by_tls = listeners.find(|(name, (_, listener))| {
            listener.tls.is_some() && named.as_ref().is_none_or(|named| named.contains(name))
        });
        if let Some((name, (place, _))) = by_tls {
            self.report.push(
                Problem::at("the redirect leads callers who came by TLS to where they are", span)
                    .label(format!("the route is served on `{name}` too"))
                    .also(*place, "by TLS")
                    .help("name the plain listeners: `listeners = [\"…\"]`"),
            );
        }
    }

    fn one_status(&mut self, at: &At<raw_handling::Status>, known: &[u16]) -> Option<StatusCode> {
        let status = u16::try_from(at.value.0).ok().filter(|status| known.contains(status));
        if status.is_none() {
            let names: Vec<String> = known.iter().map(u16::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.report.push(
                Problem::at(format!("{} is not a redirect's status", at.value.0), at.span)
                    .label(format!("expected {}", one_of(&names)))
                    .help("301 and 308 are remembered by browsers; 307 and 308 keep the method and the body"),
            );
        }
        status.and_then(|status| StatusCode::from_u16(status).ok())
    }

    /// A path or (where `url`) a URL with places to be filled in.
    fn template(&mut self, text: &str, span: Span, path: &PathPattern, url: bool) -> Option<Template> {
        match template(text, path, url) {
            Ok(pieces) => Some(Template { text: text.to_owned(), pieces }),
            Err((message, help)) => {
                let expected = if url { "a path or a URL" } else { "a path" };
                let mut problem = Problem::at(message, span).label(format!("expected {expected}"));
                problem.help = help;
                self.report.push(problem);
                None
            }
        }
    }

    fn respond(&mut self, raw: &raw_handling::Respond) -> Option<Respond> {
        let status = status(raw.status.as_ref(), StatusCode::OK)?;
        let content = self.content(raw.body.as_ref(), raw.file.as_ref(), raw.content_type.as_ref())?;
        if let Some((_, at)) = content.as_ref().zip(raw.status.as_ref()).filter(|_| has_no_body(status)) {
            // RFC 9110 §15.3.5, §15.3.6 and §15.4.5.
            self.report.push(
                Problem::at(format!("an answer with {status} has no body"), at.span).label("and this route gives one"),
            );
        }
        let mut places = BTreeMap::new();
        let headers = self.header_map(raw.headers.as_ref(), Way::Response, &mut places)?;
        if let Some(span) = places.get("content-type") {
            self.report
                .push(Problem::at("the body's type stands in `content_type`", *span).label("it would be there twice"));
        }
        Some(Respond { status, content, headers })
    }

    /// The body of an answer: a text or a file. `Some(None)`: none; `None`: wrong.
    pub(super) fn content(
        &mut self,
        body: Option<&At<Text>>,
        file: Option<&At<FilePath>>,
        kind: Option<&At<MediaType>>,
    ) -> Option<Option<Content>> {
        let named = kind.map(|at| at.value.0.clone());
        match (body, file) {
            (Some(body), Some(file)) => {
                self.report.push(
                    Problem::at("an answer has `body` or `file`, not both", file.span)
                        .label("the second")
                        .also(body.span, "the first"),
                );
                None
            }
            (Some(body), None) => {
                let kind = named.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
                Some(Some(Content { file: None, bytes: Bytes::from(body.value.0.clone()), kind }))
            }
            (None, Some(file)) => {
                let path = self.path(file);
                self.pointers.contents.push(At { value: path.clone(), span: file.span });
                let kind = named.unwrap_or_else(|| HeaderValue::from_static(kind_of(&path)));
                Some(Some(Content { file: Some(path), bytes: Bytes::new(), kind }))
            }
            (None, None) => {
                if let Some(kind) = kind {
                    self.report.push(
                        Problem::at("`content_type` says the type of a body, and there is none", kind.span)
                            .label("`body` or `file` is needed beside it"),
                    );
                    return None;
                }
                Some(None)
            }
        }
    }

    pub(super) fn maintenance(
        &mut self,
        raw: Option<&At<Box<raw_handling::Maintenance>>>,
    ) -> Option<Option<Maintenance>> {
        let Some(table) = raw.and_then(|at| at.value.0.as_ref()) else { return Some(None) };
        let status = status(table.status.as_ref(), StatusCode::SERVICE_UNAVAILABLE)?;
        if let Some(at) = table.status.as_ref().filter(|_| has_no_body(status)) {
            self.report.push(
                Problem::at(format!("an answer with {status} has no body, and says nothing of maintenance"), at.span)
                    .label("expected such as 503"),
            );
        }
        let content = self.content(table.body.as_ref(), table.file.as_ref(), table.content_type.as_ref())?;
        let allow = match &table.allow {
            Some(list) => self.some_networks(list, "allow")?,
            None => self.networks(None)?,
        };
        let retry_after = table.retry_after.as_ref().map_or(Duration::from_secs(300), |at| at.value.0);
        Some(Some(Maintenance { status, retry_after, content, allow }))
    }

    pub(super) fn security(raw: Option<&At<raw_handling::Security>>) -> Option<SecurityHeaders> {
        let table = &raw?.value.0;
        Some(SecurityHeaders {
            preset: table.preset.as_ref()?.value,
            replace: table.replace.as_ref().is_some_and(|at| at.value),
        })
    }

    pub(super) fn path_edit(&mut self, raw: &raw::Route, path: Option<&PathPattern>) -> Option<PathEdit> {
        let strip = (raw.strip_prefix.as_ref())
            .filter(|strip| path.is_some_and(|path| self.strips(strip, path)))
            .map(|strip| strip.value.0.clone());
        let add = raw.add_prefix.as_ref().map(|at| at.value.0.clone());
        let Some(rewrite) = &raw.rewrite else {
            return (strip.is_some() || add.is_some()).then_some(PathEdit::Prefix { strip, add });
        };
        let beside = [
            ("strip_prefix", raw.strip_prefix.as_ref().map(|at| at.span)),
            ("add_prefix", raw.add_prefix.as_ref().map(|at| at.span)),
        ];
        for (key, span) in beside {
            if let Some(span) = span {
                self.report.push(
                    Problem::at(format!("`rewrite` says the whole path: `{key}` has no part in it"), span)
                        .label("nothing would come of it")
                        .also(rewrite.span, "the whole path")
                        .help("`{rest}` is what `/*` stands for"),
                );
            }
        }
        self.template(&rewrite.value.0, rewrite.span, path?, false).map(PathEdit::Rewrite)
    }

    pub(super) fn request_edits(&mut self, raw: &raw::Route) -> Option<Option<HeaderEdits>> {
        self.header_edits(raw.request_headers.as_ref(), Way::Request)
    }

    pub(super) fn response_edits(&mut self, raw: &raw::Route) -> Option<Option<HeaderEdits>> {
        self.header_edits(raw.response_headers.as_ref(), Way::Response)
    }

    fn header_edits(
        &mut self,
        raw: Option<&At<Box<raw_handling::HeaderEdits>>>,
        way: Way,
    ) -> Option<Option<HeaderEdits>> {
        let Some(at) = raw else { return Some(None) };
        let raw = &at.value;
        let mut places = BTreeMap::new();
        let before = self.report.len();
        let set = self.header_map(raw.set.as_ref(), way, &mut places);
        let add = self.header_map(raw.add.as_ref(), way, &mut places);
        let mut edits = HeaderEdits { set: set?, add: add?, ..HeaderEdits::default() };
        for at in raw.remove.iter().flat_map(|list| &list.value) {
            match &at.value {
                RemoveName::Name(name) => {
                    if self.may_edit(name, at.span, way) && self.is_new(name, at.span, &mut places) {
                        edits.remove.push(name.clone());
                    }
                }
                RemoveName::Prefix(prefix) => edits.remove_prefixes.push(prefix.clone()),
            }
        }
        (self.report.len() == before).then_some(Some(edits))
    }

    /// `None`: something is wrong, and told.
    fn header_map(
        &mut self,
        map: Option<&At<Map<HeaderText>>>,
        way: Way,
        places: &mut BTreeMap<String, Span>,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let entries = map.map(|at| at.value.0.as_slice()).unwrap_or_default();
        let mut headers = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Ok(name) = key.value.parse::<HeaderName>() else {
                self.report.push(
                    Problem::at(format!("`{}` is not a header's name", key.value.escape_debug()), key.span)
                        .label("expected the name of a header"),
                );
                continue;
            };
            if self.may_edit(&name, key.span, way)
                && self.is_new(&name, key.span, places)
                && let Some(value) = value
            {
                headers.push((name, value.value.0.clone()));
            }
        }
        (headers.len() == entries.len()).then_some(headers)
    }

    fn may_edit(&mut self, name: &HeaderName, span: Span, way: Way) -> bool {
        let why = untouchable(name.as_str(), way);
        if let Some(why) = why {
            self.report
                .push(Problem::at(format!("`{name}` cannot be edited: {why}"), span).label("expected another header"));
        }
        why.is_none()
    }

    /// RFC 9110 §5.1: names are case-insensitive.
    fn is_new(&mut self, name: &HeaderName, span: Span, places: &mut BTreeMap<String, Span>) -> bool {
        let first = places.insert(name.as_str().to_owned(), span);
        if let Some(first) = first {
            self.report.push(
                Problem::at(format!("header `{name}` is there twice"), span)
                    .label("again here")
                    .also(first, "first here")
                    .help("`set` replaces what is there, so `remove` or `add` beside it does nothing"),
            );
        }
        first.is_none()
    }
}

pub(super) fn status(at: Option<&At<raw_handling::Status>>, default: StatusCode) -> Option<StatusCode> {
    at.map_or(Some(default), |at| StatusCode::from_u16(u16::try_from(at.value.0).ok()?).ok())
}

pub(super) fn has_no_body(status: StatusCode) -> bool {
    matches!(status.as_u16(), 204 | 205 | 304)
}

/// The media type by a file's ending.
fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/vnd.microsoft.icon",
        "pem" => "application/x-pem-file",
        _ => "application/octet-stream",
    }
}

type Wrong = (String, Option<String>);

/// Takes a template apart, and checks that whatever fills it, it leads to the host that is written in it.
fn template(text: &str, path: &PathPattern, url: bool) -> Result<Vec<Piece>, Wrong> {
    let shown = text.escape_debug();
    let wrong = |message: String| Err((message, None));
    if text.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || b"\"<>\\^`".contains(&byte)) {
        return wrong(format!("`{shown}` holds a character that no URL has: percent-encode it"));
    }
    let behind_host = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) if url => {
            let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let authority = authority.strip_suffix("{path}").unwrap_or(authority);
            let host = authority.strip_prefix("{host}").unwrap_or(authority);
            let port_alone = host.len() < authority.len();
            let is_host = if port_alone {
                host.is_empty() || host.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
            } else {
                !host.contains(['{', '}', '@']) && host.parse::<http::uri::Authority>().is_ok()
            };
            if !is_host {
                let help = "only `{host}` can stand for a host, alone or before a port".to_owned();
                return Err((format!("`{shown}` leads to no host that is known beforehand"), Some(help)));
            }
            scheme.len() + 3 + authority.len()
        }
        // `//x` would be another host (RFC 3986 §4.2).
        _ if text.starts_with("//") => return wrong(format!("`{shown}` leads to another host")),
        _ if text.starts_with('/') || text.starts_with("{path}") => 0,
        _ if url => {
            let help = "write `https://www.example.com{path}`, `/new/{rest}` or `https`".to_owned();
            return Err((format!("`{shown}` is neither a path nor a URL"), Some(help)));
        }
        _ => return wrong(format!("`{shown}` does not start with `/`")),
    };
    if !url && text.contains(['?', '#']) {
        return Err((format!("`{shown}` holds more than a path"), Some("the query goes on as it came".to_owned())));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else {
            return wrong(format!("`{shown}` has a `{{` without its `}}`"));
        };
        if before.contains('}') {
            return wrong(format!("`{shown}` has a `}}` without its `{{`"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let at = text.len() - rest.len() + before.len();
        pieces.push(match name {
            "host" if url => Piece::Host,
            "path" => Piece::Path,
            name => named(name, path)?,
        });
        if pieces.last() == Some(&Piece::Host) && at >= behind_host {
            return wrong(format!("`{shown}`: `{{host}}` stands behind the scheme alone"));
        }
        rest = behind;
    }
    if rest.contains('}') {
        return wrong(format!("`{shown}` has a `}}` without its `{{`"));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// What `{name}` means for a route with this path.
fn named(name: &str, path: &PathPattern) -> Result<Piece, Wrong> {
    let known: Vec<&str> = match path {
        PathPattern::Prefix(_) if name == "rest" => return Ok(Piece::Rest),
        PathPattern::Prefix(_) => vec!["rest"],
        PathPattern::Exact(_) => vec![],
        PathPattern::Params(segments) => {
            let is_it = |segment: &PathSegment| matches!(segment, PathSegment::Param(param) if param == name);
            if let Some(at) = segments.iter().position(is_it) {
                return Ok(Piece::Segment(at));
            }
            segments.iter().filter_map(name_of).collect()
        }
        PathPattern::Regex(regex) => {
            let names: Vec<&str> = regex.capture_names().flatten().collect();
            if names.contains(&name) {
                return Ok(Piece::Group(name.to_owned()));
            }
            names
        }
    };
    let help = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => {
            let known: Vec<String> =
                known.iter().copied().chain(["path", "host"]).map(|name| format!("{{{name}}}")).collect();
            format!("there are {}", one_of(&known.iter().map(String::as_str).collect::<Vec<_>>()))
        }
    };
    Err((format!("`{{{}}}` is nothing that this route's path has", name.escape_debug()), Some(help)))
}

fn name_of(segment: &PathSegment) -> Option<&str> {
    match segment {
        PathSegment::Param(name) => Some(name),
        PathSegment::Literal(_) => None,
    }
}
