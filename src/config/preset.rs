//! The presets of function platforms: `platform/presets/*.toml`, read as strictly as a config, once, when one is asked for.
//!
//! A preset has the keys of a `[function.NAME]`: what a function leaves out is as its preset has it. Each key, and each rule
//! by which answers are told apart, says where it is from and how sure that is.

use std::{sync::OnceLock, time::Duration};

use http::HeaderName;
use toml::de::DeTable;

use super::{
    changes,
    model::{HostPattern, NamePattern, NamePatterns, Platform, PlatformName, PlatformRequestId, Rule, Sizes},
    raw, raw_platform,
    read::{Part, Reader, Table},
    report::Report,
    source::{At, Sources, Span},
};

/// How sure a fact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Read in the vendor's documentation, or seen in an answer.
    Verified,
    /// From memory: to be checked on a live account.
    Memory,
    /// Nobody says.
    Unknown,
    /// No fact, but gatepost's choice.
    Choice,
}

impl Mark {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Memory => "memory",
            Self::Unknown => "unknown",
            Self::Choice => "choice",
        }
    }
}

/// What is known of a platform.
#[derive(Debug)]
pub struct Preset {
    pub name: PlatformName,
    pub about: String,
    /// A version's URL there, for example.
    pub example: String,
    pub facts: Vec<Fact>,
    /// What a function has that says nothing but its platform's name.
    pub platform: Platform,
    pub first_byte: Option<Duration>,
    pub total: Option<Duration>,
    pub pool_idle: Option<Duration>,
    pub pool_age: Option<Duration>,
}

/// One thing that is known, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// A key of `[function.NAME]`, or what a note is about.
    pub key: String,
    pub value: String,
    pub mark: Mark,
    pub source: String,
}

/// The preset of that name.
///
/// # Errors
///
/// What is wrong with its file; a test holds that nothing is.
pub fn preset(name: PlatformName) -> Result<&'static Preset, &'static str> {
    static READ: [OnceLock<Result<Preset, String>>; PlatformName::ALL.len()] =
        [const { OnceLock::new() }; PlatformName::ALL.len()];
    READ[name as usize].get_or_init(|| read(name)).as_ref().map_err(String::as_str)
}

fn text(name: PlatformName) -> &'static str {
    match name {
        PlatformName::AliyunFc3 => include_str!("../platform/presets/aliyun-fc3.toml"),
        PlatformName::TencentScf => include_str!("../platform/presets/tencent-scf.toml"),
        PlatformName::AwsLambdaUrl => include_str!("../platform/presets/aws-lambda-url.toml"),
        PlatformName::CloudRun => include_str!("../platform/presets/cloud-run.toml"),
        PlatformName::AzureFunctions => include_str!("../platform/presets/azure-functions.toml"),
        PlatformName::Knative => include_str!("../platform/presets/knative.toml"),
        PlatformName::OpenFaas => include_str!("../platform/presets/openfaas.toml"),
        PlatformName::Generic => include_str!("../platform/presets/generic.toml"),
    }
}

fn read(name: PlatformName) -> Result<Preset, String> {
    let text = text(name);
    let file = format!("{}.toml", name.as_str());
    let sources = Sources::new([(file, text)]);
    let mut report = Report::new(&sources);
    let table = DeTable::parse(text).map_err(|error| error.to_string())?;
    let part = Part { file: 0, key: Span::new(0, 0..0), table: table.get_ref() };
    let raw = {
        let mut reader = Reader { sources: &sources, report: &mut report, file: 0, trail: Vec::new() };
        raw_platform::Preset::read_parts(&[part], &mut reader)
    };
    if !report.is_empty() {
        return Err(report.to_string());
    }
    make(name, &raw).ok_or_else(|| "a key is missing".to_owned())
}

fn make(name: PlatformName, raw: &raw_platform::Preset) -> Option<Preset> {
    let function = &raw.function.as_ref()?.value;
    let rules: Vec<_> = raw.rule.iter().flat_map(|list| &list.value).map(|at| &at.value).collect();
    let mut keys = Keys::of(function);
    keys.classify =
        rules.iter().filter_map(|r| rule((&r.status, &r.header), &r.class, &r.answer, &r.retry, &r.billed)).collect();
    let example = function.versions.as_ref()?.value.0.first()?.1.as_ref()?.value.0.url.as_ref()?;
    let timeouts = function.timeouts.as_ref().map(|at| &at.value);
    let pool = function.pool.as_ref().map(|at| &at.value);
    let mut preset = Preset {
        name,
        about: raw.about.as_ref()?.value.0.clone(),
        example: changes::url(&example.value),
        facts: Vec::new(),
        platform: keys.over(name, None),
        first_byte: timeouts.and_then(|t| t.first_byte.as_ref()).map(|at| at.value.0),
        total: timeouts.and_then(|t| t.total.as_ref()).map(|at| at.value.0),
        pool_idle: pool.and_then(|p| p.idle.as_ref()).map(|at| at.value.0),
        pool_age: pool.and_then(|p| p.age.as_ref()).map(|at| at.value.0),
    };
    let values = preset.values();
    for fact in raw.fact.iter().flat_map(|list| &list.value).map(|at| &at.value) {
        for key in fact.keys.iter().flat_map(|list| &list.value) {
            let value = values.iter().find(|(known, _)| *known == key.value.0)?.1.clone();
            let (mark, source) = (fact.mark.as_ref()?.value, fact.source.as_ref()?.value.0.clone());
            preset.facts.push(Fact { key: key.value.0.clone(), value, mark, source });
        }
    }
    for (raw, rule) in rules.into_iter().zip(preset.platform.classify.iter()) {
        let (mark, source) = (raw.mark.as_ref()?.value, raw.source.as_ref()?.value.0.clone());
        preset.facts.push(Fact { key: "classify".to_owned(), value: changes::rule(rule), mark, source });
    }
    for note in raw.note.iter().flat_map(|list| &list.value).map(|at| &at.value) {
        preset.facts.push(Fact {
            key: note.about.as_ref()?.value.0.clone(),
            value: note.says.as_ref()?.value.0.clone(),
            mark: note.mark.as_ref()?.value,
            source: note.source.as_ref()?.value.0.clone(),
        });
    }
    Some(preset)
}

impl Preset {
    /// The keys that it has a word on, rules left out, and the word.
    fn values(&self) -> Vec<(&'static str, String)> {
        let times = [
            ("timeouts.first_byte", self.first_byte),
            ("timeouts.total", self.total),
            ("pool.idle", self.pool_idle),
            ("pool.age", self.pool_age),
        ];
        let times = times.into_iter().filter_map(|(key, time)| Some((key, changes::duration(time?))));
        changes::platform(&self.platform)
            .into_iter()
            .filter(|(key, _)| self.platform.own.contains(key) && *key != "classify")
            .chain(times)
            .collect()
    }
}

/// The keys about a platform, as far as a table has them.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) classify: Vec<Rule>,
    map_status: Option<bool>,
    request_id_headers: Option<Vec<HeaderName>>,
    expose_request_id: Option<bool>,
    max_headers: Option<Option<u64>>,
    max_uri: Option<Option<u64>>,
    max_body: Option<Option<u64>>,
    strip: Option<Vec<NamePattern>>,
    hide: Option<Vec<NamePattern>>,
    drop_attachment: Option<Vec<HostPattern>>,
}

impl Keys {
    pub(super) fn of(raw: &raw::Function) -> Self {
        let patterns = |at: &Option<At<raw_platform::Removed>>| {
            let list = at.as_ref()?.value.remove.as_ref()?;
            Some(list.value.iter().map(|at| at.value.clone()).collect())
        };
        let id = raw.platform_request_id.as_ref().map(|at| &at.value);
        Self {
            classify: (raw.classify.iter().flat_map(|list| &list.value))
                .filter_map(|at| {
                    let raw_platform::Rule { status, header, class, answer, retry, billed, broken: _ } = &at.value;
                    rule((status, header), class, answer, retry, billed)
                })
                .collect(),
            map_status: raw.map_status.as_ref().map(|at| at.value),
            request_id_headers: id
                .and_then(|id| id.header.as_ref())
                .map(|at| at.value.0.iter().map(|name| name.value.0.clone()).collect()),
            expose_request_id: id.and_then(|id| id.expose.as_ref()).map(|at| at.value),
            max_headers: raw.max_headers.as_ref().map(|at| at.value.0),
            max_uri: raw.max_uri.as_ref().map(|at| at.value.0),
            max_body: raw.max_body.as_ref().map(|at| at.value.0),
            strip: patterns(&raw.request_headers),
            hide: patterns(&raw.response_headers),
            drop_attachment: raw
                .drop_attachment
                .as_ref()
                .map(|list| list.value.iter().map(|at| at.value.clone()).collect()),
        }
    }

    /// What is in force: what is written here, or else what `preset` has.
    pub(super) fn over(self, name: PlatformName, preset: Option<&Platform>) -> Platform {
        let nothing = Platform::default();
        let preset = preset.unwrap_or(&nothing);
        let own = [
            ("classify", !self.classify.is_empty()),
            ("map_status", self.map_status.is_some()),
            ("platform_request_id.header", self.request_id_headers.is_some()),
            ("platform_request_id.expose", self.expose_request_id.is_some()),
            ("max_headers", self.max_headers.is_some()),
            ("max_uri", self.max_uri.is_some()),
            ("max_body", self.max_body.is_some()),
            ("request_headers.remove", self.strip.is_some()),
            ("response_headers.remove", self.hide.is_some()),
            ("drop_attachment", self.drop_attachment.is_some()),
        ];
        Platform {
            name,
            classify: self.classify.into_iter().chain(preset.classify.iter().cloned()).collect(),
            map_status: self.map_status.unwrap_or(preset.map_status),
            request_id: PlatformRequestId {
                headers: self.request_id_headers.map_or_else(|| preset.request_id.headers.clone(), Into::into),
                expose: self.expose_request_id.unwrap_or(preset.request_id.expose),
            },
            sizes: Sizes {
                headers: self.max_headers.unwrap_or(preset.sizes.headers),
                uri: self.max_uri.unwrap_or(preset.sizes.uri),
                body: self.max_body.unwrap_or(preset.sizes.body),
            },
            strip: self.strip.map_or_else(|| preset.strip.clone(), NamePatterns::new),
            hide: self.hide.map_or_else(|| preset.hide.clone(), NamePatterns::new),
            drop_attachment: self.drop_attachment.map_or_else(|| preset.drop_attachment.clone(), Into::into),
            own: own.into_iter().filter(|(_, is_own)| *is_own).map(|(key, _)| key).collect(),
        }
    }
}

/// `None`: something in it was wrong, and the report says so.
fn rule(
    (status, header): (&Option<At<super::words::Statuses>>, &Option<At<super::words::HeaderIs>>),
    class: &Option<At<super::model::Class>>,
    answer: &Option<At<super::read::Whole<400, 599>>>,
    retry: &Option<At<super::model::RetryOf>>,
    billed: &Option<At<bool>>,
) -> Option<Rule> {
    Some(Rule {
        statuses: status.as_ref().map_or_else(Vec::new, |at| at.value.0.clone()),
        header: header.as_ref().map(|at| (at.value.0.clone(), at.value.1.clone())),
        class: class.as_ref()?.value,
        answer: answer.as_ref().and_then(|at| u16::try_from(at.value.0).ok()),
        retry: retry.as_ref().map(|at| at.value),
        billed: billed.as_ref().map(|at| at.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_read_and_each_of_its_keys_says_where_it_is_from() {
        for name in PlatformName::ALL {
            let preset = preset(name).unwrap_or_else(|why| panic!("{}: {why}", name.as_str()));
            assert_eq!(PlatformName::ALL[name as usize], name);
            for (key, value) in preset.values() {
                let told: Vec<_> = preset.facts.iter().filter(|fact| fact.key == key).collect();
                assert_eq!(told.len(), 1, "{}: {key} has one source: {told:?}", name.as_str());
                assert_eq!(told[0].value, value);
            }
            let rules = preset.facts.iter().filter(|fact| fact.key == "classify").count();
            assert_eq!(rules, preset.platform.classify.len(), "{}", name.as_str());
            assert!(preset.facts.iter().all(|fact| fact.source.len() > 3), "{}", name.as_str());
            for rule in preset.platform.classify.iter() {
                assert!(!rule.statuses.is_empty() || rule.header.is_some(), "{}: {rule:?}", name.as_str());
            }
        }
    }

    #[test]
    fn the_generic_one_knows_nothing() {
        let generic = preset(PlatformName::Generic).unwrap();
        assert_eq!(generic.platform, Platform::default());
        assert_eq!((generic.first_byte, generic.total, generic.pool_idle, generic.pool_age), (None, None, None, None));
    }
}
