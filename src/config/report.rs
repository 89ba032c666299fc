//! What is wrong with a config: every problem, each at its place, with the way out.

use std::{fmt, ops::Range, path::PathBuf, sync::OnceLock};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::source::{SourceFile, Sources, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    pub severity: Severity,
    /// What is wrong: lower case, no full stop, with the name and the value.
    pub message: String,
    /// Where; `None` where no file could be read.
    pub span: Option<Span>,
    /// What was expected there.
    pub label: Option<String>,
    /// Another place that has to do with it.
    pub also: Option<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
}

// Out of line: hundreds of places say what is wrong with these, and none of them need be fast.
impl Problem {
    #[cold]
    #[inline(never)]
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), span: None, label: None, also: None, help: None }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn at(message: impl Into<String>, span: Span) -> Self {
        Self { span: Some(span), ..Self::new(message) }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

/// A place as people count it: lines and columns (in characters) from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
    pub column: usize,
}

/// Every problem of a config.
#[derive(Debug, Clone, Default)]
pub struct Report {
    files: Vec<SourceFile>,
    problems: Vec<Problem>,
    /// Values that nobody may read in a report: secrets that were written inline.
    masks: Vec<Span>,
    watched: Vec<PathBuf>,
    /// Where each file's lines start; found when the first place is asked for.
    lines: OnceLock<Box<[Vec<usize>]>>,
}

impl Report {
    pub(super) fn new(sources: &Sources) -> Self {
        Self { files: sources.files.clone(), ..Self::default() }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn push(&mut self, mut problem: Problem) {
        problem.message = scrubbed(problem.message);
        problem.help = problem.help.map(scrubbed);
        self.problems.push(problem);
    }

    pub(super) fn set_files(&mut self, sources: &Sources) {
        self.files.clone_from(&sources.files);
        self.lines = OnceLock::new();
    }

    pub(super) fn mask(&mut self, span: Span) {
        self.masks.push(span);
    }

    /// By file and place; what has no place comes first.
    pub(super) fn sort(&mut self) {
        self.problems.sort_by_key(|problem| problem.span.map(|span| (span.file, span.start)));
    }

    /// Takes the warnings out, so that the report is empty if and only if nothing is wrong.
    pub(super) fn split_warnings(&mut self) -> Self {
        let (warnings, errors) =
            std::mem::take(&mut self.problems).into_iter().partition(|problem| problem.severity == Severity::Warning);
        self.problems = errors;
        Self {
            files: self.files.clone(),
            problems: warnings,
            masks: self.masks.clone(),
            watched: self.watched.clone(),
            lines: OnceLock::new(),
        }
    }

    /// What a watcher should follow to see the config mended: its files, its includes' folders, and what it points to.
    pub fn watched(&self) -> &[PathBuf] {
        &self.watched
    }

    pub(super) fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.watched.extend(paths);
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are; where it grew, what was read meanwhile is not to be judged further.
    pub(super) fn len(&self) -> usize {
        self.problems.len()
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The number of the line that holds byte `at`, and where it starts.
    fn line(&self, file: u32, at: usize) -> (usize, usize) {
        let lines = self.lines.get_or_init(|| {
            self.files
                .iter()
                .map(|file| {
                    let ends = file.text.match_indices('\n').map(|(at, _)| at + 1);
                    std::iter::once(0).chain(ends).collect()
                })
                .collect()
        });
        let starts = lines.get(file as usize).map_or(&[0][..], Vec::as_slice);
        let number = starts.partition_point(|start| *start <= at);
        (number, starts.get(number.saturating_sub(1)).copied().unwrap_or_default())
    }

    /// Where a problem is.
    pub fn place(&self, span: Span) -> Place {
        let Some(file) = self.files.get(span.file as usize) else {
            return Place { file: String::new(), line: 1, column: 1 };
        };
        let start = floor(&file.text, span.start as usize);
        let (line, line_start) = self.line(span.file, start);
        Place { file: file.path.display().to_string(), line, column: file.text[line_start..start].chars().count() + 1 }
    }

    /// For people, with or without colour.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            if !out.is_empty() {
                out.push('\n');
            }
            let drawn = renderer.render(&self.groups(problem));
            out.push_str(drawn.trim_end());
            out.push('\n');
        }
        out
    }

    fn groups<'a>(&self, problem: &'a Problem) -> Vec<Group<'a>> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        let mut group = Group::with_title(title);
        // One snippet a file: two places in one file are drawn together, in their order.
        let mut marks: Vec<(Span, AnnotationKind, Option<&'a str>)> =
            problem.span.map(|span| (span, AnnotationKind::Primary, problem.label.as_deref())).into_iter().collect();
        if let Some((span, label)) = &problem.also {
            marks.push((*span, AnnotationKind::Context, Some(label.as_str())));
        }
        let mut done: Vec<u32> = Vec::new();
        for (span, ..) in &marks {
            if !done.contains(&span.file) {
                done.push(span.file);
                let same: Vec<_> = marks.iter().filter(|mark| mark.0.file == span.file).collect();
                if let Some(snippet) = self.snippet(span.file, &same) {
                    group = group.element(snippet);
                }
            }
        }
        let mut groups = vec![group];
        if let Some(help) = &problem.help {
            groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
        }
        groups
    }

    /// The lines around the marks only: a whole file would be walked for every problem.
    fn snippet<'a>(
        &self,
        file: u32,
        marks: &[&(Span, AnnotationKind, Option<&'a str>)],
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let source = self.files.get(file as usize)?;
        let text: &str = &source.text;
        let ranges: Vec<Range<usize>> = marks
            .iter()
            .map(|(span, ..)| {
                let start = floor(text, span.start as usize);
                // A table's or a long array's first line says enough.
                let end = floor(text, span.end as usize).max(start);
                let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
                start..end.min(line_end.max(start))
            })
            .collect();
        let from = ranges.iter().map(|range| range.start).min()?;
        let to = ranges.iter().map(|range| range.end).max()?;
        let (line, from) = self.line(file, from);
        let to = text[to..].find('\n').map_or(text.len(), |at| to + at);
        let shown = Masked::new(&text[from..to], &self.masks_within(file, from, to));
        let mut snippet = Snippet::source(shown.text.clone()).line_start(line).path(source.path.display().to_string());
        for ((_, kind, label), range) in marks.iter().zip(ranges) {
            let range = shown.moved(range.start - from)..shown.moved(range.end - from);
            snippet = snippet.annotation(kind.span(range).label(*label));
        }
        Some(snippet)
    }

    fn masks_within(&self, file: u32, from: usize, to: usize) -> Vec<Range<usize>> {
        let text: &str = &self.files[file as usize].text;
        let mut masks: Vec<Range<usize>> = self
            .masks
            .iter()
            .filter(|mask| mask.file == file)
            .map(|mask| floor(text, mask.start as usize)..floor(text, mask.end as usize))
            .filter(|mask| mask.start < to && mask.end > from)
            .map(|mask| mask.start.max(from) - from..mask.end.min(to) - from)
            .collect();
        masks.extend(suspicious(&text[from..to]));
        masks.sort_by_key(|mask| mask.start);
        masks.dedup_by(|next, kept| {
            let overlap = next.start < kept.end;
            if overlap {
                kept.end = kept.end.max(next.end);
            }
            overlap
        });
        masks
    }

    /// For machines: `[{ severity, message, file, line, column, label, help, also }]`.
    pub fn to_json(&self) -> Value {
        let place = |span: Option<Span>| {
            span.map_or_else(
                || json!({}),
                |span| {
                    let place = self.place(span);
                    json!({ "file": place.file, "line": place.line, "column": place.column })
                },
            )
        };
        self.problems
            .iter()
            .map(|problem| {
                let mut entry = place(problem.span);
                entry["severity"] = json!(problem.severity.as_str());
                entry["message"] = json!(problem.message);
                if let Some(label) = &problem.label {
                    entry["label"] = json!(label);
                }
                if let Some(help) = &problem.help {
                    entry["help"] = json!(help);
                }
                if let Some((span, label)) = &problem.also {
                    entry["also"] = place(Some(*span));
                    entry["also"]["message"] = json!(label);
                }
                entry
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// The next border of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text with parts of it replaced by `***`, and where the rest went.
struct Masked {
    text: String,
    masks: Vec<Range<usize>>,
}

impl Masked {
    const STARS: &'static str = "***";

    fn new(text: &str, masks: &[Range<usize>]) -> Self {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for mask in masks {
            out.push_str(&text[from..mask.start]);
            out.push_str(Self::STARS);
            from = mask.end;
        }
        out.push_str(&text[from..]);
        Self { text: out, masks: masks.to_vec() }
    }

    fn moved(&self, at: usize) -> usize {
        let mut moved = at;
        for mask in &self.masks {
            if at >= mask.end {
                moved = moved + Self::STARS.len() - mask.len();
            } else if at > mask.start {
                moved -= at - mask.start;
            }
        }
        moved.min(self.text.len())
    }
}

/// What looks like a secret, wherever it stands: a report goes to logs and chats.
fn suspicious(text: &str) -> Vec<Range<usize>> {
    const KEYS: [&str; 5] = ["token", "secret", "password", "passwd", "api_key"];
    let mut found = logins(text);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(equals) = line.find('=') {
            let key = line[..equals].to_ascii_lowercase();
            let value = line[equals + 1..].trim();
            let quoted = value.trim_start_matches(['"', '\'']);
            let reference = ["env:", "file:", "credential:"].iter().any(|form| quoted.starts_with(form));
            if KEYS.iter().any(|word| key.contains(word)) && !reference && !value.is_empty() {
                let blanks = line[equals + 1..].len() - line[equals + 1..].trim_start().len();
                let at = start + equals + 1 + blanks;
                found.push(at..at + value.len());
            }
        }
        start += line.len();
    }
    found
}

/// User and password of the URLs in a text (RFC 3986 §3.2.1).
fn logins(text: &str) -> Vec<Range<usize>> {
    text.match_indices("://")
        .filter_map(|(at, scheme)| {
            let start = at + scheme.len();
            let rest = &text[start..];
            let end = rest.find(['/', '"', '\'', ' ', '\n']).unwrap_or(rest.len());
            let login = rest[..end].rfind('@')?;
            (login > 0).then_some(start..start + login)
        })
        .collect()
}

fn scrubbed(text: String) -> String {
    let logins = logins(&text);
    if logins.is_empty() {
        return text;
    }
    Masked::new(&text, &logins).text
}

/// The nearest of `names`, if one is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count().max(3) / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}
