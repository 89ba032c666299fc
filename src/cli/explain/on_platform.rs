//! What a function's platform makes of a request.

use http::HeaderMap;
use serde::Serialize;

use super::told::{Told, row};
use crate::{
    cli::{failure::Outcome, term::Terminal},
    config::{
        changes,
        model::{Function, Platform, PlatformName, Sizes},
    },
    decide::{Reason, content_length},
    platform::sizes::{self, Part},
};

#[derive(Debug, Serialize)]
pub(super) struct PlatformTold {
    name: &'static str,
    max_headers: Option<u64>,
    max_uri: Option<u64>,
    max_body: Option<u64>,
    /// Headers of this request that callers may not send there.
    dropped: Vec<String>,
    map_status: bool,
    /// The limits in words.
    #[serde(skip)]
    takes: Vec<String>,
}

/// Tells of the platform, where there is something to tell, and refuses what it would refuse.
pub(super) fn explain(told: &mut Told, function: &Function, headers: &HeaderMap, target: &str) {
    let platform = &function.platform;
    if told.refused.is_some() || (platform.name == PlatformName::Generic && *platform == bare(platform)) {
        return;
    }
    let mut kept = headers.clone();
    let going: Vec<_> = headers.keys().filter(|name| platform.strip.contains(name.as_str())).cloned().collect();
    for name in &going {
        kept.remove(name);
    }
    let Sizes { headers: max_headers, uri, body } = platform.sizes;
    let words = [("max_headers", "of headers"), ("max_uri", "of path and query"), ("max_body", "of body")];
    let all = changes::platform(platform);
    let takes = words.into_iter().filter_map(|(key, what)| {
        let (_, words) = all.iter().find(|(known, words)| *known == key && words != "none")?;
        Some(format!("{words} {what}"))
    });
    told.platform = Some(PlatformTold {
        name: platform.name.as_str(),
        max_headers,
        max_uri: uri,
        max_body: body,
        dropped: going.iter().map(ToString::to_string).collect(),
        map_status: platform.map_status,
        takes: takes.collect(),
    });
    // Of several versions the one with the longest base path; it is nearly always the same.
    let base = function.versions.iter().map(|version| version.url.base_path.as_str()).max_by_key(|base| base.len());
    let target = format!("{}{target}", base.unwrap_or_default());
    let length = content_length(headers).unwrap_or(0);
    // What gatepost adds to the headers comes on top, and what signs them.
    let fits = sizes::uri(platform, &target)
        .and_then(|()| sizes::headers(platform, &kept, None))
        .and_then(|()| sizes::body(platform, length));
    if let Err(what) = fits {
        let reason = match what.part {
            Part::Headers => Reason::HeadersTooLarge,
            Part::Uri => Reason::UriTooLong,
            Part::Body => Reason::BodyTooLarge,
        };
        told.refuse(reason, what.to_string());
    }
}

/// What a function has that says nothing about its platform.
fn bare(platform: &Platform) -> Platform {
    Platform { own: platform.own.clone(), ..Platform::default() }
}

impl PlatformTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        let takes = match self.takes.as_slice() {
            [] => "no limit is known".to_owned(),
            takes => format!("at most {}", takes.join(", ")),
        };
        row(term, "platform", format_args!("{}: {takes}", self.name))?;
        if !self.dropped.is_empty() {
            row(term, "", format_args!("drops {}: callers may not send it there", self.dropped.join(", ")))?;
        }
        if self.map_status {
            row(term, "", "failures get an honest status (map_status)")?;
        }
        Ok(())
    }
}
