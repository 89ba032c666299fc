//! `cors`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::Scope;
use crate::config::{
    model::{Cors, CorsHeaders, Origin, Origins},
    raw,
    report::Problem,
    source::At,
    words::{HeaderOrAny, OriginWord},
};

impl Scope<'_> {
    /// `Some(None)`: the route has none; `None`: it is wrong.
    pub(super) fn cors(&mut self, raw: &raw::Route) -> Option<Option<Cors>> {
        let Some(at) = &raw.cors else { return Some(None) };
        let before = self.report.len();
        let credentials = at.value.allow_credentials.as_ref().filter(|at| at.value);
        let origins = self.origins(at.value.allow_origins.as_ref()?)?;
        if let (Origins::Any, Some(credentials)) = (&origins, credentials) {
            // WHATWG Fetch §3.2.5: browsers would refuse the answer, and echoing any origin would let every page act as its reader.
            self.report.push(
                Problem::at("credentials cannot go to any origin", credentials.span)
                    .label("every page could act as whoever reads it")
                    .help("name the origins: `allow_origins = [\"https://app.example.com\"]`"),
            );
        }
        let methods = match &at.value.allow_methods {
            Some(list) if list.value.is_empty() => {
                self.report
                    .push(Problem::at("`allow_methods` is empty", list.span).label("expected at least one method"));
                return None;
            }
            Some(list) => list.value.iter().map(|at| at.value.clone()).collect(),
            None => match &raw.methods {
                Some(list) => list.value.iter().map(|at| at.value.clone()).collect(),
                None => vec![Method::GET, Method::HEAD, Method::POST],
            },
        };
        let headers = match self.cors_headers(at.value.allow_headers.as_ref(), "allow_headers")? {
            None => CorsHeaders::Asked,
            Some(names) => CorsHeaders::These(names),
        };
        let expose = match self.cors_headers(at.value.expose_headers.as_ref(), "expose_headers")? {
            // §3.2.5: with credentials a star is the name of a header.
            None if credentials.is_some() => {
                self.report.push(
                    Problem::at("with credentials, `*` exposes nothing", at.value.expose_headers.as_ref()?.span)
                        .label("expected the names of headers"),
                );
                return None;
            }
            None => Some(HeaderValue::from_static("*")),
            Some(names) if names.is_empty() => None,
            Some(names) => {
                let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
                HeaderValue::from_str(&names.join(", ")).ok()
            }
        };
        self.no_edits_of_cors(raw);
        let max_age = at.value.max_age.as_ref().map_or(Duration::from_secs(600), |at| at.value.0);
        let cors = Cors { origins, methods, headers, expose, credentials: credentials.is_some(), max_age };
        (self.report.len() == before).then_some(Some(cors))
    }

    fn origins(&mut self, list: &At<Vec<At<OriginWord>>>) -> Option<Origins> {
        if list.value.is_empty() {
            self.report.push(
                Problem::at("`allow_origins` is empty: no page could call", list.span)
                    .label("expected at least one origin")
                    .help("leave `cors` out to say nothing of it"),
            );
            return None;
        }
        let mut known: Vec<Origin> = Vec::new();
        for at in &list.value {
            match &at.value {
                OriginWord::Any if list.value.len() == 1 => return Some(Origins::Any),
                OriginWord::Any => {
                    self.report.push(Problem::at("`*` is every origin: the others say nothing", at.span));
                    return None;
                }
                OriginWord::One(origin) if known.contains(origin) => {
                    self.report.push(Problem::at("this origin is there twice", at.span));
                }
                OriginWord::One(origin) => known.push(origin.clone()),
            }
        }
        Some(Origins::These(known))
    }

    /// `Some(None)`: `*`; `None`: wrong.
    fn cors_headers(&mut self, list: Option<&At<Vec<At<HeaderOrAny>>>>, key: &str) -> Option<Option<Vec<HeaderName>>> {
        let mut names = Vec::new();
        let list = list.map(|at| at.value.as_slice()).unwrap_or_default();
        for at in list {
            match &at.value {
                HeaderOrAny::Any if list.len() == 1 => return Some(None),
                HeaderOrAny::Any => {
                    self.report
                        .push(Problem::at(format!("`*` in `{key}` is every header: the others say nothing"), at.span));
                    return None;
                }
                HeaderOrAny::Name(name) => names.push(name.clone()),
            }
        }
        Some(Some(names))
    }

    /// Headers of CORS have one author.
    fn no_edits_of_cors(&mut self, raw: &raw::Route) {
        let edits = raw.response_headers.as_ref().map(|at| &at.value);
        let maps = edits.into_iter().flat_map(|edits| [&edits.set, &edits.add]).flatten();
        for (key, _) in maps.flat_map(|map| &map.value.0) {
            if key.value.to_ascii_lowercase().starts_with("access-control-") {
                self.report.push(
                    Problem::at(format!("`{}` is what `cors` says", key.value.escape_debug()), key.span)
                        .label("it would be replaced"),
                );
            }
        }
    }
}
