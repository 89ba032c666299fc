//! An explanation, and how it reads.

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use super::{
    again::{HealthTold, RetriesTold},
    cached::Cached,
    on_platform::PlatformTold,
    queue::QueueTold,
    watched::{GuardTold, MirrorTold},
};
use crate::{
    cli::{
        failure::Outcome,
        term::{Ink, Terminal},
    },
    config::{Config, model::ClientId},
    decide::Reason,
};

/// What would happen to a request; filled as far as the request comes.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) method: String,
    pub(super) host: String,
    /// The host as the caller wrote it, port and all.
    #[serde(skip)]
    pub(super) authority: String,
    /// Normalised, as routes and functions see it.
    pub(super) path: String,
    pub(super) listener: String,
    pub(super) listener_address: String,
    /// The socket's peer.
    pub(super) from: IpAddr,
    /// The caller, as trusted proxies tell it.
    pub(super) client_ip: IpAddr,
    pub(super) client: Option<String>,
    /// Who answers for the client: whom to ask.
    pub(super) owner: Option<String>,
    pub(super) route: Option<String>,
    pub(super) others: Vec<Lost>,
    pub(super) refused: Option<Refused>,
    pub(super) limits: Vec<LimitTold>,
    /// The largest body that it may have.
    pub(super) body: Option<String>,
    /// What the route does to heads and answers, a line each.
    pub(super) edits: Vec<String>,
    /// The route answers itself.
    pub(super) answered: Option<Answered>,
    pub(super) function: Option<String>,
    /// What its platform makes of the request.
    pub(super) platform: Option<PlatformTold>,
    /// What its route's cache makes of it.
    pub(super) cache: Option<Cached>,
    /// Where it may have to wait.
    pub(super) queue: Option<QueueTold>,
    /// Who gets a copy of it.
    pub(super) mirror: Option<MirrorTold>,
    /// Who watches the canaries that it may meet.
    pub(super) guard: Option<GuardTold>,
    /// When it would be sent again.
    pub(super) retries: Option<RetriesTold>,
    /// When a version would be out of traffic.
    pub(super) health: Option<HealthTold>,
    pub(super) picked_by: Option<&'static str>,
    pub(super) weights_from: Option<&'static str>,
    /// What is not as the file alone would have it: ramps and latches of the function.
    pub(super) releases: Vec<crate::release::Told>,
    /// Of 10,000, for sticky callers.
    pub(super) bucket: Option<u16>,
    pub(super) sticky_key: Option<String>,
    pub(super) issues_cookie: bool,
    /// Several where the weights decide anew for each request.
    pub(super) destinations: Vec<Destination>,
}

impl Default for Told {
    fn default() -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            method: String::new(),
            host: String::new(),
            authority: String::new(),
            path: String::new(),
            listener: String::new(),
            listener_address: String::new(),
            from: nobody,
            client_ip: nobody,
            client: None,
            owner: None,
            route: None,
            others: Vec::new(),
            refused: None,
            limits: Vec::new(),
            body: None,
            edits: Vec::new(),
            answered: None,
            function: None,
            platform: None,
            cache: None,
            queue: None,
            mirror: None,
            guard: None,
            retries: None,
            health: None,
            picked_by: None,
            weights_from: None,
            releases: Vec::new(),
            bucket: None,
            sticky_key: None,
            issues_cookie: false,
            destinations: Vec::new(),
        }
    }
}

/// A route that the request doesn't take.
#[derive(Debug, Serialize)]
pub(super) struct Lost {
    pub(super) route: String,
    pub(super) why: String,
    /// Listener, host and path match.
    pub(super) close: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) status: u16,
    pub(super) detail: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitTold {
    /// The name of its `[limit]`.
    pub(super) shared: Option<String>,
    pub(super) rate: String,
    pub(super) burst: u32,
    pub(super) per: String,
    pub(super) key: String,
    pub(super) dry_run: bool,
    /// It counts for all members of the cluster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cluster: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Destination {
    pub(super) version: String,
    /// Where the weights decide anew for each request.
    pub(super) percent: Option<String>,
    pub(super) url: String,
    /// The Host that the function sees.
    pub(super) host: String,
    /// What the call is signed with.
    pub(super) credential: Option<String>,
}

impl Told {
    pub(super) fn known_as(&mut self, client: Option<ClientId>, config: &Config) {
        let client = client.map(|id| &config.clients[id.index()]);
        self.client = client.map(|client| client.name.to_string());
        self.owner = client.and_then(|client| client.owner.clone());
    }

    pub(super) fn refuse(&mut self, reason: Reason, detail: String) {
        self.refused = Some(Refused { reason: reason.as_str(), status: reason.status(), detail });
    }

    pub(super) fn print(&self, all: bool, term: &mut Terminal) -> Outcome {
        term.line(format_args!("{} {}{}", term.ink(Ink::Bold, &self.method), self.host, self.path))?;
        row(term, "listener", format_args!("{} ({})", self.listener, self.listener_address))?;
        let by_proxy = if self.from == self.client_ip { String::new() } else { format!(", told by {}", self.from) };
        match &self.client {
            Some(client) => {
                let owner = self.owner.as_ref().map_or_else(String::new, |owner| format!(" ({owner})"));
                row(term, "caller", format_args!("{}{by_proxy}, client {client}{owner}", self.client_ip))?;
            }
            None => row(term, "caller", format_args!("{}{by_proxy}", self.client_ip))?,
        }
        match &self.route {
            Some(route) => row(term, "route", term.ink(Ink::Green, route))?,
            None if self.path.is_empty() => {}
            None => row(term, "route", term.ink(Ink::Yellow, "none"))?,
        }
        let shown: Vec<&Lost> = self.others.iter().filter(|lost| all || lost.close).collect();
        for lost in &shown {
            row(term, "  not", format_args!("{}: {}", lost.route, lost.why))?;
        }
        let hidden = self.others.len() - shown.len();
        if hidden > 0 {
            let words = if hidden == 1 { "1 other route is" } else { &format!("{hidden} other routes are") };
            row(term, "", term.ink(Ink::Dim, format!("{words} for another host, path or listener (--all shows why)")))?;
        }
        for (index, limit) in self.limits.iter().enumerate() {
            let label = if index == 0 { "limits" } else { "" };
            let shared = limit.shared.as_ref().map_or_else(String::new, |name| format!(" (shared: {name})"));
            let dry = if limit.dry_run { ", only counted (dry_run)" } else { "" };
            let all = if limit.cluster { ", of all members of the cluster" } else { "" };
            let (rate, burst, per, key) = (&limit.rate, limit.burst, &limit.per, &limit.key);
            row(term, label, format_args!("{rate}, burst {burst}, per {per}, counted by {key}{shared}{all}{dry}"))?;
        }
        for (index, edit) in self.edits.iter().enumerate() {
            row(term, if index == 0 { "edits" } else { "" }, edit)?;
        }
        if let Some(Answered { status, location }) = &self.answered {
            match location {
                Some(to) => row(term, "answer", format_args!("{status} to {to}, by the route itself"))?,
                None => row(term, "answer", format_args!("{status}, by the route itself"))?,
            }
        }
        if let Some(function) = &self.function {
            row(term, "function", function)?;
        }
        if let Some(platform) = &self.platform {
            platform.print(term)?;
        }
        if let Some(cache) = &self.cache {
            cache.print(term)?;
        }
        self.print_release(term)?;
        if let Some(guard) = &self.guard {
            guard.print(term)?;
        }
        if let Some(mirror) = &self.mirror {
            mirror.print(term)?;
        }
        if let Some(queue) = &self.queue {
            queue.print(term)?;
        }
        if let Some(retries) = &self.retries {
            retries.print(term)?;
        }
        if let Some(health) = &self.health {
            health.print(term)?;
        }
        if let Some(Refused { reason, status, detail }) = &self.refused {
            let answer = term.ink(Ink::Red, format!("{status} {reason}"));
            row(term, "answer", format_args!("{answer}: {detail}"))?;
        }
        Ok(())
    }

    fn print_release(&self, term: &mut Terminal) -> Outcome {
        let how = match (self.picked_by, self.bucket, &self.sticky_key) {
            (Some("sticky"), Some(bucket), Some(key)) => format!("sticky by {key}, bucket {bucket} of 10000"),
            (Some("sticky"), ..) => "no sticky key: a cookie is issued, and keeps the caller".to_owned(),
            (Some("weight"), ..) => match self.weights_from {
                None | Some("file") => "dealt by weight".to_owned(),
                Some(other) => format!("dealt by weight, as the {other} has it"),
            },
            (Some("override"), ..) => "by override, whatever the weights".to_owned(),
            (Some("pin"), ..) => "pinned by the route".to_owned(),
            _ => return Ok(()),
        };
        match self.destinations.as_slice() {
            [one] if one.percent.is_none() => {
                row(term, "version", format_args!("{} ({how})", term.ink(Ink::Green, &one.version)))?;
            }
            _ => row(term, "version", how)?,
        }
        for (index, to) in self.destinations.iter().enumerate() {
            let label = if index == 0 { "goes to" } else { "" };
            let share = to.percent.as_ref().map_or_else(String::new, |percent| format!("{} {percent} %  ", to.version));
            let signed =
                to.credential.as_ref().map_or_else(String::new, |name| format!(", signed with credential {name}"));
            row(term, label, format_args!("{share}{}  with Host {}{signed}", to.url, to.host))?;
        }
        for (index, told) in self.releases.iter().enumerate() {
            let label = if index == 0 { "release" } else { "" };
            row(term, label, format_args!("{} {}: {}", told.version, told.state, told.detail))?;
        }
        Ok(())
    }
}

pub(super) fn row(term: &mut Terminal, label: &str, text: impl std::fmt::Display) -> Outcome {
    term.line(format_args!("  {label:<10}{text}"))?;
    Ok(())
}
