//! A past release before the guard: the requests of an access log, judged as they were told.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Deserialize;

use super::{Ended, Evidence, Panel, Ruling};
use crate::{
    config::{
        Config, Sources,
        model::{Class, Guard, Share, VersionId},
        parse,
    },
    decide::{Now, PickedBy, WeightsFrom, split::InForce},
};

/// What of a line of the access log (JSON) the guard looks at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Line {
    /// RFC 3339.
    pub ts: String,
    pub function: Option<String>,
    pub version: Option<String>,
    pub picked_by: Option<String>,
    pub class: String,
    pub upstream_ms: Option<f64>,
    pub client_ip: Option<IpAddr>,
}

/// What happened to one function, in order.
#[derive(Debug)]
pub struct Replay {
    config: Config,
    panel: Panel,
    versions: BTreeMap<String, VersionId>,
    shares: InForce,
    begun: u64,
    looked: u64,
}

const SECOND: u64 = 1_000_000_000;

/// After a gap of more seconds than this the seconds in it are looked at as one.
const LONGEST_GAP: u64 = 600;

impl Replay {
    /// For a log that begins at `at` (milliseconds of any clock). `versions`: all that the log names.
    ///
    /// # Errors
    ///
    /// Why these are no versions to compare: a name that no version can have, a baseline that isn't there.
    pub fn new(versions: &[String], baseline: &str, guard: Option<&Guard>, at: u64) -> Result<Self, String> {
        if !versions.iter().any(|version| version == baseline) {
            return Err(format!("the log has no request of the baseline `{}`", baseline.escape_debug()));
        }
        // The guard's own way in: a config, with what the log names.
        let urls: Vec<_> = versions.iter().map(|version| format!("{version:?} = \"http://replay.invalid\"")).collect();
        let text = format!(
            "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ {} }}\nweights = {{ {baseline:?} = \"rest\" }}\n\
             guard = {{}}\n[route.f]\nfunction = \"f\"\n",
            urls.join(", ")
        );
        let mut config = parse(&Sources::new([("replay", text)]))
            .map_err(|_| format!("these can't be versions of a function: {}", versions.join(", ").escape_debug()))?;
        let function = &mut config.functions[0];
        if let Some(guard) = guard {
            function.guard = Some(guard.clone());
        }
        let versions =
            function.versions.iter().map(|version| version.name.to_string()).zip((0..).map(VersionId)).collect();
        // Whatever their shares were: all take part.
        let shares = InForce { shares: vec![Share(1); function.versions.len()], from: WeightsFrom::File };
        let begun = at * 1_000_000;
        let panel = Panel::of(&config, &config.functions[0], 1, None, Now(begun)).ok_or("there is no baseline")?;
        Ok(Self { config, panel, versions, shares, begun, looked: begun })
    }

    /// Takes in a line that was written at `at`; says what the guard said in the seconds before it.
    pub fn line(&mut self, at: u64, line: &Line) -> Vec<(u64, Ruling)> {
        let at = (at * 1_000_000).max(self.begun);
        let said = self.until(at);
        let ended = line.version.as_ref().and_then(|version| self.versions.get(version)).and_then(|version| {
            Some(Ended {
                version: *version,
                picked_by: match line.picked_by.as_deref()? {
                    "weight" => PickedBy::Weight,
                    "sticky" => PickedBy::Sticky,
                    _ => return None,
                },
                class: Class::ALL.into_iter().find(|class| class.as_str() == line.class)?,
                began: Now(at),
                took: line.upstream_ms.filter(|ms| *ms >= 0.0).map(|ms| Duration::from_secs_f64(ms.min(1e9) / 1e3)),
                caller: None,
                client_ip: line.client_ip,
            })
        });
        if let Some(ended) = ended {
            self.panel.watch().count(0, &ended);
        }
        said
    }

    /// The log is over.
    pub fn end(&mut self) -> Vec<(u64, Ruling)> {
        self.until(self.looked + SECOND)
    }

    /// Looks at every second up to then.
    fn until(&mut self, at: u64) -> Vec<(u64, Ruling)> {
        let mut said = Vec::new();
        while at >= self.looked + SECOND {
            let gap = (at - self.looked) / SECOND;
            self.looked += if gap > LONGEST_GAP { (gap - 1) * SECOND } else { SECOND };
            let rulings = self.panel.look(Now(self.looked), &self.config.functions[0], &self.shares);
            said.extend(rulings.into_iter().map(|ruling| (self.looked / 1_000_000, ruling)));
        }
        said
    }

    pub fn name(&self, version: VersionId) -> &str {
        &self.config.functions[0].versions[version.index()].name
    }

    /// What is known of each canary by now.
    pub fn evidence(&self) -> impl Iterator<Item = (VersionId, Evidence)> {
        self.panel.evidence()
    }
}
