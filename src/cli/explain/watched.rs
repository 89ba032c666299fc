//! Who else has a say in a release: the mirror that gets a copy, and the guard that watches the canaries.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::told::{Told, row};
use crate::{
    cli::{failure::Outcome, http, term::Terminal},
    config::{
        Config,
        model::{Function, GuardAction, Mirror},
    },
    release,
};

/// How long the running gatepost may take to say what its guard thinks.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct MirrorTold {
    version: String,
    share: String,
    methods: Vec<String>,
    /// Why this request is not copied; `None`: it is, when it is its turn.
    not: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct GuardTold {
    action: &'static str,
    tolerate: f64,
    baseline: String,
    /// Who is judged now: versions beside the baseline that have a share.
    canaries: Vec<Canary>,
    /// Why no verdict is known.
    unknown: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Canary {
    #[serde(skip_serializing)]
    function: String,
    version: String,
    verdict: String,
    says: String,
}

/// Tells of both, where the function has them and the request comes so far.
pub(super) fn explain(told: &mut Told, config: &Config, function: &Function) {
    if told.refused.is_some() {
        return;
    }
    told.mirror = function.mirror.as_deref().map(|mirror| self::mirror(told, function, mirror));
    let asks = function.ramp.as_ref().is_some_and(|ramp| ramp.before_step.is_some());
    if function.guard.is_none() && !asks {
        return;
    }
    // Neither verdicts nor what hooks say are written down: the running gatepost knows.
    let said = ask(config);
    if let Ok(status) = &said {
        for release in &mut told.releases {
            let is_it = |other: &&release::Told| other.function == release.function && other.version == release.version;
            if let Some(held) = status.releases.iter().filter(is_it).find(|other| other.state == "held") {
                release.clone_from(held);
            }
        }
    }
    told.guard = guard(said, function);
}

/// What of a status is looked at.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    guards: Vec<Canary>,
    #[serde(default)]
    releases: Vec<release::Told>,
}

fn ask(config: &Config) -> Result<Status, String> {
    let answer = http::get(&config.admin.address, "/api/v1/status", PATIENCE).map_err(|error| format!("{error:#}"))?;
    serde_json::from_str(&answer.body).map_err(|error| format!("{} gave no status: {error}", config.admin.address))
}

fn mirror(told: &Told, function: &Function, mirror: &Mirror) -> MirrorTold {
    let version = function.versions[mirror.version.index()].name.to_string();
    let methods: Vec<_> = mirror.methods.iter().map(ToString::to_string).collect();
    let not = if !methods.contains(&told.method) {
        Some(format!("{} is not among its methods", told.method))
    } else if told.destinations.iter().all(|to| to.version == version) {
        Some(format!("it goes to {version} itself"))
    } else {
        None
    };
    MirrorTold { version, share: mirror.share.to_string(), methods, not }
}

fn guard(said: Result<Status, String>, function: &Function) -> Option<GuardTold> {
    let guard = function.guard.as_ref()?;
    let baseline = function.baseline?;
    let (canaries, unknown) = match said {
        Ok(status) => (status.guards.into_iter().filter(|canary| *canary.function == *function.name).collect(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let action = match guard.action {
        GuardAction::Rollback => "rollback",
        GuardAction::Alert => "alert",
    };
    let baseline = function.versions[baseline.index()].name.to_string();
    Some(GuardTold { action, tolerate: guard.tolerate, baseline, canaries, unknown })
}

impl MirrorTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        let Self { version, share, methods, not } = self;
        match not {
            None => {
                row(term, "mirror", format_args!("{version} gets a copy of {share} % of what goes to other versions"))
            }
            Some(why) => {
                let methods = methods.join(", ");
                row(term, "mirror", format_args!("not to {version} ({share} % of {methods} to other versions): {why}"))
            }
        }
    }
}

impl GuardTold {
    pub(super) fn print(&self, term: &mut Terminal) -> Outcome {
        let Self { action, tolerate, baseline, canaries, unknown } = self;
        let then = if *action == "rollback" { "is sent back" } else { "is told of" };
        let more = format_args!("with more than {tolerate} times the errors of {baseline}");
        row(term, "guard", format_args!("a canary {more} {then}"))?;
        for Canary { version, verdict, says, .. } in canaries {
            row(term, "", format_args!("{version} {verdict}: {says}"))?;
        }
        match unknown {
            Some(why) => row(term, "", format_args!("what it thinks now is not known: {why}")),
            None if canaries.is_empty() => row(term, "", "it judges nobody now: no canary has a share"),
            None => Ok(()),
        }
    }
}
