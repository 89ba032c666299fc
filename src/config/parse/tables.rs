//! Texts → raw tables: syntax, and which table stands in which file.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::{
    raw::{self, Tables},
    raw_ramp::Freeze,
    read::{Part, Read, Reader, Table, Value, hide, is_own, read_at, unknown_key},
    report::{Problem, Report},
    source::{At, Sources, Span},
    words::Text,
};

const MAIN_ONLY: [&str; 5] = ["include", "server", "admin", "log", "cluster"];
pub(super) const TOP: [&str; 14] = [
    "include",
    "server",
    "admin",
    "log",
    "networks",
    "listener",
    "client",
    "function",
    "route",
    "limit",
    "credential",
    "freeze",
    "egress",
    "cluster",
];
/// Those that are one table, and no family of named ones.
const SINGLE: [&str; 8] = ["include", "server", "admin", "log", "networks", "freeze", "egress", "cluster"];

/// The tables of all files; `None` where one of them is not TOML, for what the others say would be judged wrongly.
pub(super) fn read(sources: &Sources, report: &mut Report) -> Option<raw::File> {
    let mut parsed = Vec::with_capacity(sources.files.len());
    let mut whole = true;
    for (number, file) in (0u32..).zip(&sources.files) {
        if file.text.starts_with('\u{feff}') {
            whole = false;
            report.push(
                Problem::at("the file starts with a byte order mark", Span::new(number, 0..0))
                    .help("save it as UTF-8 without BOM"),
            );
            continue;
        }
        match syntax(number, &file.text, report) {
            Some(table) => parsed.push((number, table)),
            None => whole = false,
        }
    }
    // A main file that could not even be read is in the report already.
    if !whole || parsed.is_empty() {
        return None;
    }
    if parsed.first().is_some_and(|(_, main)| main.is_empty()) {
        report.push(
            Problem::at("the file is empty", Span::new(0, 0..0))
                .label("nothing is configured here")
                .help("a config needs a `[listener.NAME]`, a `[function.NAME]` and a `[route.NAME]`"),
        );
        return None;
    }
    let mut reader = Reader { sources, report, file: 0, trail: Vec::new() };
    Some(Tops::gather(&parsed, &mut reader).read(&mut reader))
}

fn syntax<'t>(file: u32, text: &'t str, report: &mut Report) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut last = None;
    // A table that stands twice makes each of its keys a duplicate: only the header is told.
    let mut repeated = 0..0;
    for error in &errors {
        let range = error.span().unwrap_or(0..0);
        let span = Span::new(file, range.clone());
        let duplicate = error.message() == "duplicate key";
        // After a stray character the parser often complains once more about the same place.
        if last == Some(span) || (duplicate && repeated.contains(&range.start)) {
            continue;
        }
        last = Some(span);
        if duplicate {
            let key = text.get(range.clone()).unwrap_or_default();
            let (before, after) = text.split_at_checked(range.start).unwrap_or((text, ""));
            let line = before.rsplit('\n').next().unwrap_or_default();
            if line.trim_start().starts_with('[') {
                let end = after.find("\n[");
                repeated = range.start..end.map_or(text.len(), |at| range.start + at);
            }
            report.push(
                Problem::at(format!("`{}` is written twice", key.trim_matches(['"', '\''])), span)
                    .label("it stands above already"),
            );
            continue;
        }
        let (what, expected) = error.message().split_once(", expected ").unwrap_or_else(|| (error.message(), ""));
        let mut problem = Problem::at(format!("not valid TOML: {what}"), span);
        let rest = text.get(range.start..).unwrap_or_default();
        let unquoted = what == "string values must be quoted";
        if unquoted && (rest.is_empty() || rest.starts_with(['\n', '\r'])) {
            problem = Problem::at("not valid TOML: the value is missing", span).label("expected a value");
        } else if what == "invalid boolean" || (unquoted && !rest.starts_with(|c: char| c.is_ascii_digit())) {
            problem = problem.label("expected a value").help("a text stands in quotes: `\"…\"`");
        } else if !expected.is_empty() && expected != "nothing" {
            problem = problem.label(format!("expected {expected}"));
        }
        report.push(problem);
    }
    errors.is_empty().then(|| table.into_inner())
}

/// The top-level tables by name, with all the places where they stand.
struct Tops<'v, 'i> {
    single: BTreeMap<&'static str, Vec<Part<'v, 'i>>>,
    /// `function` → `orders` → where it stands.
    named: BTreeMap<&'static str, BTreeMap<&'v str, Vec<Part<'v, 'i>>>>,
    any_listener: bool,
}

impl<'v, 'i> Tops<'v, 'i> {
    fn gather(parsed: &'v [(u32, DeTable<'i>)], reader: &mut Reader<'_>) -> Self {
        let mut tops = Self { single: BTreeMap::new(), named: BTreeMap::new(), any_listener: false };
        for (file, table) in parsed {
            reader.file = *file;
            for (key, value) in table {
                tops.gather_one(key, value, reader);
            }
        }
        tops
    }

    fn gather_one(
        &mut self,
        key: &'v toml::Spanned<toml::de::DeString<'i>>,
        value: &'v Value<'i>,
        reader: &mut Reader<'_>,
    ) {
        let span = reader.span(key);
        let name: &str = key.get_ref();
        let Some(top) = TOP.into_iter().find(|top| *top == name) else {
            let problem = unknown_key(name, &TOP, span);
            reader.report.push(problem);
            hide(name, value, reader);
            return;
        };
        if MAIN_ONLY.contains(&top) && reader.file != 0 {
            reader
                .report
                .push(Problem::at(format!("`{top}` belongs to the main file"), span).label("not in an included file"));
            return;
        }
        // It is read before everything else, by `include`.
        if top == "include" {
            return;
        }
        self.any_listener |= top == "listener";
        reader.trail.push(top.to_owned());
        let Some(table) = value.get_ref().as_table() else {
            if SINGLE.contains(&top) {
                reader.expected("a table", value);
            } else {
                reader.expected(&format!("a table: write `[{top}.NAME]`"), value);
            }
            reader.trail.pop();
            return;
        };
        if SINGLE.contains(&top) {
            let part = Part { file: reader.file, key: span, table };
            add(self.single.entry(top).or_default(), part, value, reader);
        } else {
            for (key, value) in table {
                let span = reader.span(key);
                let name: &str = key.get_ref();
                reader.trail.push(name.to_owned());
                if let Some(problem) = bad_name(name, span) {
                    reader.report.push(problem);
                }
                match value.get_ref().as_table() {
                    Some(table) => {
                        let part = Part { file: reader.file, key: span, table };
                        let tables = self.named.entry(top).or_default();
                        add(tables.entry(name).or_default(), part, value, reader);
                    }
                    None => reader.expected(&format!("a table: write `[{top}.NAME]`"), value),
                }
                reader.trail.pop();
            }
        }
        reader.trail.pop();
    }

    fn read(&self, reader: &mut Reader<'_>) -> raw::File {
        raw::File {
            server: self.one("server", reader),
            admin: self.one("admin", reader),
            log: self.one("log", reader),
            networks: self.networks(reader),
            any_listener: self.any_listener,
            listeners: self.all("listener", reader),
            clients: self.all("client", reader),
            functions: self.all("function", reader),
            routes: self.all("route", reader),
            limits: self.all("limit", reader),
            credentials: self.all("credential", reader),
            freeze: self.freeze(reader),
            egress: self.one("egress", reader),
            cluster: self.single.contains_key("cluster").then(|| self.one("cluster", reader)),
        }
    }

    /// Only where it stands has it keys that are missing.
    fn freeze(&self, reader: &mut Reader<'_>) -> Freeze {
        if self.single.contains_key("freeze") { self.one("freeze", reader) } else { Freeze::default() }
    }

    fn one<T: Table>(&self, top: &'static str, reader: &mut Reader<'_>) -> T {
        let parts = self.single.get(top).map_or(&[][..], Vec::as_slice);
        reader.trail = vec![top.to_owned()];
        T::read_parts(parts, reader)
    }

    fn all<T: Table>(&self, top: &'static str, reader: &mut Reader<'_>) -> Tables<T> {
        let mut tables = Tables::new();
        for (name, parts) in self.named.get(top).into_iter().flatten() {
            let Some(first) = parts.first() else {
                continue;
            };
            reader.trail = vec![top.to_owned(), (*name).to_owned()];
            let table = T::read_parts(parts, reader);
            tables.insert((*name).to_owned(), (first.key, table));
        }
        tables
    }

    fn networks(&self, reader: &mut Reader<'_>) -> crate::config::read::Map<raw::Networks> {
        let mut lists: Vec<(At<String>, Option<At<raw::Networks>>)> = Vec::new();
        for part in self.single.get("networks").into_iter().flatten() {
            reader.file = part.file;
            for (key, value) in part.table {
                let span = reader.span(key);
                let name: &str = key.get_ref();
                reader.trail = vec!["networks".to_owned(), name.to_owned()];
                if let Some(problem) = bad_name(name, span) {
                    reader.report.push(problem);
                }
                let name = At { value: name.to_owned(), span };
                lists.push((name, read_at(value, reader)));
            }
        }
        crate::config::read::Map(lists)
    }
}

/// Adds a place where a table stands. Its header, or keys of its own, it may have in one file only.
fn add<'v, 'i>(parts: &mut Vec<Part<'v, 'i>>, part: Part<'v, 'i>, value: &Value<'i>, reader: &mut Reader<'_>) {
    if is_own(value, reader) {
        // The one with the header is always the first.
        if let Some(first) = parts.first().filter(|first| first.key.file != part.file && first_is_own(first, reader)) {
            let name = reader.name();
            reader.report.push(
                Problem::at(format!("table `{name}` is written twice"), part.key)
                    .label("written again here")
                    .also(first.key, "first written here")
                    .help("a table stands once over all files; only its subtables may stand in another"),
            );
            return;
        }
        parts.insert(0, part);
    } else {
        parts.push(part);
    }
}

fn first_is_own(part: &Part<'_, '_>, reader: &Reader<'_>) -> bool {
    let header = reader
        .sources
        .files
        .get(part.file as usize)
        .is_some_and(|file| header_before(&file.text, part.key.start as usize, part.key.end as usize));
    header || part.table.values().any(|value| !matches!(value.get_ref(), DeValue::Table(_)))
}

/// Whether the key is the last in a `[header]`.
fn header_before(text: &str, start: usize, end: usize) -> bool {
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    text[line..].trim_start().starts_with('[') && text[end..].trim_start().starts_with(']')
}

/// Names become labels of metrics and words of commands (`gatepost shift orders v42=10`).
pub(super) fn bad_name(name: &str, span: Span) -> Option<Problem> {
    let valid = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (!valid).then(|| {
        Problem::at(format!("`{}` is not a name", name.escape_debug()), span)
            .label("expected up to 64 letters, digits, `-`, `_` or `.`")
    })
}

/// The globs of the main file's `include`; problems with the file's syntax are found later, by `read`.
pub(in crate::config) fn include(sources: &Sources, report: &mut Report) -> Vec<At<Text>> {
    // The whole file is parsed for it: not where the word isn't even there.
    let main = sources.files.first();
    let Some(main) = main.filter(|main| main.text.contains("include")) else {
        return Vec::new();
    };
    let (table, _) = DeTable::parse_recoverable(&main.text);
    let Some(value) = table.get_ref().get("include") else {
        return Vec::new();
    };
    let mut reader = Reader { sources, report, file: 0, trail: vec!["include".to_owned()] };
    Vec::<At<Text>>::read(value, &mut reader).unwrap_or_default()
}
