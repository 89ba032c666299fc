//! Why each route wins or loses: `gatepost explain`. Looks at every route, so it is no way for requests.

use std::{cmp::Ordering, cmp::Reverse, fmt};

use http::HeaderName;

use super::{Failed, Router};
use crate::{
    config::model::{HostPattern, PathPattern, PathSegment, Route, RouteId},
    decide::Facts,
};

/// What became of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Wins,
    /// All its conditions hold, and the winner is better by this.
    LessSpecific(Lead),
    /// Nothing but the method failed.
    Method,
    /// A query condition with this key does not hold.
    Query(String),
    /// A header condition with this name does not hold.
    Header(HeaderName),
    Path,
    Host,
    Listener,
}

/// What makes the winner better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    Host,
    Path,
    Conditions,
    Priority,
    /// It names HEAD; the other has it by its GET.
    Head,
    /// They match alike, which a config does not let through but for regexes and headers that overlap.
    Name,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wins => f.write_str("wins"),
            Self::LessSpecific(lead) => write!(f, "matches, but the winner {lead}"),
            Self::Method => f.write_str("everything holds but the method"),
            Self::Query(key) => write!(f, "the query has no `{key}` as this route wants it"),
            Self::Header(name) => write!(f, "the header `{name}` is not as this route wants it"),
            Self::Path => f.write_str("another path"),
            Self::Host => f.write_str("another host"),
            Self::Listener => f.write_str("not on this listener"),
        }
    }
}

impl fmt::Display for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "names the host more exactly",
            Self::Path => "names the path more exactly",
            Self::Conditions => "has more conditions",
            Self::Priority => "has a higher priority",
            Self::Head => "names HEAD itself",
            Self::Name => "comes first by name (give them different priorities)",
        })
    }
}

/// The patterns of a route, as the config has them.
#[derive(Debug)]
pub(super) struct Patterns {
    hosts: Box<[HostPattern]>,
    path: PathPattern,
}

/// How well a host pattern fits; higher is better. A wildcard's is the length of its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HostFit {
    Any,
    Wildcard(usize),
    Exact,
}

/// How well a path pattern fits; higher is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PathFit {
    Regex,
    /// Its length.
    Prefix(usize),
    /// From the left, whether each segment is a literal: all of an exact path's are.
    Whole(Vec<bool>),
}

impl Router {
    /// What becomes of every route: the winner first, then the others that match, best first, then those that
    /// don't, those that failed latest first (listener, host, path, header, query, method).
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<(RouteId, Fate)> {
        let mut fitting = Vec::new();
        let mut failed = Vec::new();
        for (index, patterns) in (0..).zip(&self.patterns) {
            let id = RouteId(index);
            match self.fit(id, patterns, facts) {
                Ok(fit) => fitting.push((fit, id)),
                Err(fate) => failed.push((id, fate)),
            }
        }
        // Stable, as the ids are in order: a tie goes to the first by name.
        fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
        failed.sort_by_key(|(_, fate)| stage(fate));
        let mut told = Vec::with_capacity(self.patterns.len());
        if let Some((best, winner)) = fitting.first() {
            told.push((*winner, Fate::Wins));
            told.extend((fitting.iter().skip(1)).map(|(fit, id)| (*id, Fate::LessSpecific(lead(best, fit)))));
        }
        told.append(&mut failed);
        told
    }

    fn fit(&self, id: RouteId, patterns: &Patterns, facts: &Facts<'_>) -> Result<Fit, Fate> {
        let conditions = self.conditions(id);
        let checked = conditions.check(facts);
        if checked == Err(Failed::Listener) {
            return Err(Fate::Listener);
        }
        let host = patterns.fit_host(facts.host).ok_or(Fate::Host)?;
        let path = patterns.fit_path(facts.path).ok_or(Fate::Path)?;
        checked.map_err(|failed| match failed {
            Failed::Listener => Fate::Listener,
            Failed::Header(name) => Fate::Header(name.clone()),
            Failed::Query(key) => Fate::Query(key.to_owned()),
            Failed::Method => Fate::Method,
        })?;
        Ok((host, path, conditions.count(), conditions.priority(), conditions.names_head()))
    }
}

/// Compares as the routes do.
type Fit = (HostFit, PathFit, usize, i32, bool);

fn lead(winner: &Fit, loser: &Fit) -> Lead {
    let better = |ordering: Ordering| ordering != Ordering::Equal;
    if better(winner.0.cmp(&loser.0)) {
        Lead::Host
    } else if better(winner.1.cmp(&loser.1)) {
        Lead::Path
    } else if better(winner.2.cmp(&loser.2)) {
        Lead::Conditions
    } else if better(winner.3.cmp(&loser.3)) {
        Lead::Priority
    } else if better(winner.4.cmp(&loser.4)) {
        Lead::Head
    } else {
        Lead::Name
    }
}

/// How far a route got, the farthest first.
fn stage(fate: &Fate) -> Reverse<u8> {
    Reverse(match fate {
        Fate::Listener => 0,
        Fate::Host => 1,
        Fate::Path => 2,
        Fate::Header(_) => 3,
        Fate::Query(_) => 4,
        Fate::Method => 5,
        Fate::LessSpecific(_) => 6,
        Fate::Wins => 7,
    })
}

impl Patterns {
    pub(super) fn of(route: &Route) -> Self {
        Self { hosts: route.hosts.as_slice().into(), path: route.path.clone() }
    }

    fn fit_host(&self, host: &str) -> Option<HostFit> {
        if self.hosts.is_empty() {
            return Some(HostFit::Any);
        }
        let fits = self.hosts.iter().filter_map(|pattern| match pattern {
            HostPattern::Exact(name) => (name == host).then_some(HostFit::Exact),
            HostPattern::Wildcard(suffix) => {
                (host.len() > suffix.len() && host.ends_with(suffix)).then_some(HostFit::Wildcard(suffix.len()))
            }
        });
        fits.max()
    }

    fn fit_path(&self, path: &str) -> Option<PathFit> {
        let segments = path.strip_prefix('/')?.split('/');
        match &self.path {
            PathPattern::Exact(exact) => (exact == path).then(|| PathFit::Whole(segments.map(|_| true).collect())),
            PathPattern::Params(pattern) => {
                let fits = |(segment, pattern): (&str, &PathSegment)| match pattern {
                    PathSegment::Literal(text) => text == segment,
                    PathSegment::Param(_) => !segment.is_empty(),
                };
                let is_literal = |segment: &PathSegment| matches!(segment, PathSegment::Literal(_));
                (segments.clone().count() == pattern.len() && segments.zip(pattern).all(fits))
                    .then(|| PathFit::Whole(pattern.iter().map(is_literal).collect()))
            }
            PathPattern::Prefix(prefix) => {
                let rest = path.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then_some(PathFit::Prefix(prefix.len()))
            }
            PathPattern::Regex(regex) => regex.is_match(path).then_some(PathFit::Regex),
        }
    }
}
