//! `gatepost egress learn LOG`

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    path::PathBuf,
};

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use super::lines::{self, Line};
use crate::{
    cli::{
        ConfigFile, check,
        failure::Outcome,
        term::{Terminal, clean},
    },
    config::{
        Config, Loaded,
        model::{ClientId, DestinationHost, EgressMode, EgressRule},
        special::special,
    },
    decide::{
        Now, Reason,
        egress::{self, Authority, Choice, Host, Policy},
    },
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Logs with egress lines, the oldest first; `-` is stdin.
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// Leave out what the rules of this config allow already, and take over the keys of those that only watch.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this client.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// So many destinations are kept: a client that tries more is looking for something, and is not learned from.
const MOST: usize = 100_000;

#[derive(Debug, Default, Serialize)]
struct Told {
    /// By client and destination.
    rules: BTreeMap<String, BTreeMap<String, Seen>>,
    /// Lines that no rule can be made of: without a client, or of what is no destination.
    left_out: u64,
    /// How calls left, by client and by the rule that let them through.
    #[serde(skip)]
    ways: BTreeMap<(String, Option<String>), Way>,
    #[serde(skip)]
    kept: usize,
}

#[derive(Debug, Default, Serialize)]
struct Seen {
    times: u64,
    first: String,
    last: String,
    /// The destination is an address that is not public, and that no `private` of its rule exempts: what it is.
    special: Option<&'static str>,
    /// The rule in report mode that let it through, at last; `None`: no rule took it.
    rule: Option<String>,
    /// Times that it was let through, and nothing came between.
    worked: u64,
    /// Why it was refused, or failed, although nothing was enforced; at last.
    failed: Option<String>,
    /// Times that the TLS client asked for another name.
    other_names: u64,
    /// The rule in report mode that names this very destination: a second one would tie with it.
    named_by: Option<String>,
}

/// As the newest line has it.
#[derive(Debug, Default)]
struct Way {
    source: Option<String>,
    parent: Option<String>,
}

/// The config that the rules are for.
struct Known {
    loaded: Loaded,
    policy: Policy,
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let known = match &options.config {
        Some(config) => Some(Known::new(check::asked(&ConfigFile { config: config.clone() }, term)?)),
        None => None,
    };
    let mut told = Told::default();
    let mut clients = BTreeSet::new();
    lines::each(&options.logs, term, |line| {
        if options.client.is_some() {
            clients.extend(line.client.clone());
        }
        if options.client.is_none() || options.client == line.client {
            told.learn(&line, known.as_ref());
        }
    })?;
    let stranger = options.client.as_ref().filter(|client| !clients.contains(*client));
    let nobody = stranger.map(|client| no_line_of(client, &clients));
    match (nobody, options.json) {
        (Some(nobody), false) => term.line(format_args!("# {nobody}"))?,
        (None, false) => term.line(told.toml(known.as_ref()))?,
        (nobody, true) => {
            term.json(&serde_json::to_value(&told)?)?;
            nobody.into_iter().for_each(|nobody| term.warn(nobody));
        }
    }
    if told.left_out > 0 {
        term.warn(format_args!("{} lines are left out: no client, or no destination", told.left_out));
    }
    if told.kept >= MOST {
        term.warn(format_args!("only the first {MOST} destinations are told"));
    }
    Ok(())
}

fn no_line_of(client: &str, clients: &BTreeSet<String>) -> String {
    let names: Vec<&str> = clients.iter().map(String::as_str).collect();
    let there = if names.is_empty() { "it names none".to_owned() } else { format!("it has: {}", names.join(", ")) };
    clean(&format!("the log has no line of client `{client}`; {there}")).into_owned()
}

impl Told {
    fn learn(&mut self, line: &Line, known: Option<&Known>) {
        // What a parent proxy refuses had a rule here.
        let is_refused =
            line.reason.as_deref() == Some(Reason::DestinationNotAllowed.as_str()) && line.parent.is_none();
        if !is_refused && line.would_refuse.is_none() {
            return;
        }
        let target = line.target.as_deref().and_then(|target| egress::connect(target.as_bytes()).ok());
        let (Some(client), Some(to)) = (&line.client, target) else {
            self.left_out += 1;
            return;
        };
        let rule = known.and_then(|known| known.rule(client, &to));
        if rule.is_some_and(|rule| rule.mode == EgressMode::Enforce) {
            return;
        }
        let to_text = to.to_string();
        let destinations = self.rules.entry(client.clone()).or_default();
        if !destinations.contains_key(&to_text) {
            if self.kept >= MOST {
                return;
            }
            self.kept += 1;
        }
        let seen = destinations.entry(to_text).or_default();
        seen.rule = rule.map(|rule| rule.name.to_string()).or_else(|| line.rule.clone());
        seen.named_by = rule.filter(|rule| names(rule, &to)).map(|rule| rule.name.to_string());
        if let Host::Address(ip) = to.host {
            let is_exempted = rule.is_some_and(|rule| rule.private.contains(ip));
            seen.special = special(ip).filter(|_| !is_exempted).map(|what| what.words());
        }
        seen.count(line);
        let way = self.ways.entry((client.clone(), seen.rule.clone())).or_default();
        // A call that failed before it was dialled tells neither.
        if line.source.is_some() || line.reason.is_none() {
            way.source.clone_from(&line.source);
            way.parent.clone_from(&line.parent);
        }
    }

    /// Rules to paste. What would be refused all the same stands there as a comment, for a person to think about.
    fn toml(&self, known: Option<&Known>) -> String {
        let mut groups: BTreeMap<(&str, Option<&str>), Vec<Entry<'_>>> = BTreeMap::new();
        for (client, destinations) in &self.rules {
            for (to, seen) in destinations {
                groups.entry((client, seen.rule.as_deref())).or_default().push((to, seen));
            }
        }
        let mut taken: HashSet<String> = known.into_iter().flat_map(Known::rule_names).collect();
        let mut out = String::new();
        for ((client, rule), destinations) in groups {
            let way = self.ways.get(&(client.to_owned(), rule.map(str::to_owned)));
            let group = Group { client, rule, destinations, keys: keys(rule, way, known) };
            out.push_str(&group.toml(&mut taken));
        }
        match out.is_empty() {
            true => "# nothing was refused, or let through in report mode, for its destination".to_owned(),
            false => out.trim_end().to_owned(),
        }
    }
}

impl Seen {
    fn count(&mut self, line: &Line) {
        if self.times == 0 {
            self.first.clone_from(&line.ts);
        }
        self.times += 1;
        self.last.clone_from(&line.ts);
        let Some(would_refuse) = &line.would_refuse else { return };
        self.other_names += u64::from(would_refuse == Reason::ServerNameMismatch.as_str());
        match &line.reason {
            None => self.worked += 1,
            Some(reason) => self.failed = Some(reason.clone()),
        }
    }

    /// Why it can't stand in a rule as it is.
    fn hindrance(&self) -> Option<String> {
        if let Some(rule) = &self.named_by {
            return Some(format!("rule `{rule}` names it already: take `mode = \"report\"` from that one"));
        }
        if let Some(what) = self.special {
            return Some(format!("{what}: needs `private` as well"));
        }
        self.failed.as_ref().filter(|_| self.worked == 0).map(|reason| format!("let through, and failed: {reason}"))
    }

    fn comment(&self) -> String {
        let mut comment = match self.times {
            1 => format!("once, {}", self.last),
            n => format!("{n} times, last {}", self.last),
        };
        if let Some(reason) = self.failed.as_ref().filter(|_| self.worked > 0) {
            let _ = write!(comment, "; not always: {reason}");
        }
        if self.other_names > 0 {
            comment.push_str("; its TLS client asks for another name, which needs `tls_name = \"any\"`");
        }
        comment
    }
}

/// A destination, and what was seen of it.
type Entry<'t> = (&'t str, &'t Seen);

/// Destinations of a client that become one rule.
struct Group<'t> {
    client: &'t str,
    /// That let them through.
    rule: Option<&'t str>,
    destinations: Vec<Entry<'t>>,
    keys: Keys,
}

/// What a learned rule takes over from the one that let its calls through.
enum Keys {
    /// Nothing is to be taken over.
    None,
    /// All of them, as the config has them.
    All(Vec<String>),
    /// As far as a log tells.
    Some(Vec<String>),
}

impl Group<'_> {
    fn toml(&self, taken: &mut HashSet<String>) -> String {
        let (plain, hindered): (Vec<_>, Vec<_>) =
            self.destinations.iter().partition(|(_, seen)| seen.hindrance().is_none());
        // A rule that leads nowhere is no rule.
        let dead = if plain.is_empty() { "# " } else { "" };
        let name = self.name(if plain.is_empty() { None } else { Some(taken) });
        let mut out = self.origin();
        let _ = writeln!(out, "{dead}[egress.rule.{}]", quoted_key(&name));
        let _ = writeln!(out, "{dead}clients = [{}]", quoted(self.client));
        let _ = writeln!(out, "{dead}to = [");
        let width = plain.iter().map(|(to, _)| written(to).len()).max().unwrap_or(0) + 3;
        for (to, seen) in plain {
            let word = format!("\"{}\",", written(to));
            let _ = writeln!(out, "  {word:<width$} # {}", clean(&seen.comment()));
        }
        for (to, seen) in hindered {
            let why = format!("{}; {}", seen.hindrance().unwrap_or_default(), seen.comment());
            let _ = writeln!(out, "  # \"{}\",  # {}", written(to), clean(&why));
        }
        let _ = writeln!(out, "{dead}]");
        if let Keys::All(keys) | Keys::Some(keys) = &self.keys {
            for key in keys {
                let _ = writeln!(out, "{dead}{key}");
            }
        }
        out.push('\n');
        out
    }

    /// Its own, among those that are `taken`.
    fn name(&self, taken: Option<&mut HashSet<String>>) -> String {
        let of = self.rule.map_or_else(String::new, |rule| format!("-{rule}"));
        let whole = format!("learned-{}{of}", self.client);
        let first = shortened(&whole, "");
        let Some(taken) = taken else { return first };
        let others = (2u32..).map(|nth| shortened(&whole, &format!("-{nth}")));
        let free = std::iter::once(first).chain(others).find(|name| taken.insert(name.clone()));
        free.unwrap_or(whole)
    }

    /// A comment on the rule that let the calls through.
    fn origin(&self) -> String {
        let Some(rule) = self.rule else { return String::new() };
        let rule = clean(rule);
        match &self.keys {
            Keys::None => String::new(),
            Keys::All(_) => format!("# Let through by rule `{rule}`, in report mode; its other keys are copied.\n"),
            Keys::Some(_) => format!(
                "# Let through by rule `{rule}`, in report mode. A log does not have its other keys: copy those that it has of {OTHERS}.\n"
            ),
        }
    }
}

/// Keys of a rule that act on what it takes.
const OTHERS: &str = "`parent`, `private`, `limits`, `mixed_answers`, `tls_name` and `timeouts`";

fn keys(rule: Option<&str>, way: Option<&Way>, known: Option<&Known>) -> Keys {
    let Some(rule) = rule else { return Keys::None };
    if let Some(all) = known.and_then(|known| known.keys_of(rule)) {
        return Keys::All(all);
    }
    let key = |key: &str, value: &Option<String>| Some(format!("{key} = {}", quoted(value.as_ref()?)));
    let way = way.into_iter().flat_map(|way| [key("source", &way.source), key("parent", &way.parent)]);
    Keys::Some(way.flatten().collect())
}

impl Known {
    fn new(loaded: Loaded) -> Self {
        let policy = Policy::new(&loaded.config, None, Now::default());
        Self { loaded, policy }
    }

    /// The rule that takes a client there now.
    fn rule(&self, client: &str, to: &Authority<'_>) -> Option<&EgressRule> {
        let Config { clients, egress, .. } = &self.loaded.config;
        let id = clients.iter().position(|one| *one.name == *client).and_then(|at| u32::try_from(at).ok())?;
        match self.policy.choose(ClientId(id), to) {
            Choice::Rule(id) => egress.rules.get(id.index()),
            Choice::Unlisted | Choice::Refused => None,
        }
    }

    fn rule_names(&self) -> impl Iterator<Item = String> {
        self.loaded.config.egress.rules.iter().map(|rule| rule.name.to_string())
    }

    /// What a rule's table has beside those whom it is for, where it leads, and its mode; as TOML. `None`: the config has no such rule.
    fn keys_of(&self, rule: &str) -> Option<Vec<String>> {
        let tables = self.loaded.sources.files.iter().filter_map(|file| {
            let file: toml::Table = toml::from_str(&file.text).ok()?;
            file.get("egress")?.get("rule")?.get(rule)?.as_table().cloned()
        });
        let tables: Vec<toml::Table> = tables.collect();
        let keys = tables.iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "clients" | "to" | "mode"));
        (!tables.is_empty()).then(|| keys.map(|(key, value)| format!("{key} = {value}")).collect())
    }
}

/// Whether a rule has a destination word for word.
fn names(rule: &EgressRule, to: &Authority<'_>) -> bool {
    rule.to.iter().any(|one| {
        let host = match (&one.host, &to.host) {
            (DestinationHost::Name(one), Host::Name(name)) => one == name,
            (DestinationHost::Net(net), Host::Address(ip)) => *net == IpNet::from(*ip),
            _ => false,
        };
        host && one.port == to.port
    })
}

/// As long as names may be.
fn shortened(name: &str, end: &str) -> String {
    let room = 64 - end.len().min(64);
    format!("{}{end}", name.get(..room).unwrap_or(name))
}

/// Without the port that need not be written.
fn written(to: &str) -> &str {
    to.strip_suffix(":443").unwrap_or(to)
}

/// A string of TOML: the escapes of JSON are some of its own.
fn quoted(text: &str) -> String {
    let text = serde_json::Value::from(text).to_string();
    clean(&text).into_owned()
}

/// A name with a dot is more than one key of TOML.
fn quoted_key(name: &str) -> String {
    let is_bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}
