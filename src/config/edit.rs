//! Weights, changed where they are written: of a config's texts only the characters of the numbers that are asked for change.

use std::ops::Range;

use super::{
    model::{Function, Share, in_proportion},
    parse::{parse, read_tables},
    raw,
    report::{Report, nearest},
    source::Sources,
    words::Weight,
};

/// What a version is asked to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Percent(Share),
    /// What the others leave.
    Rest,
}

/// New text for one of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which of [`Sources::files`].
    pub file: usize,
    pub text: String,
}

/// Weights that are to be, and the edit that makes them so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// By name, as they are and as they will be.
    pub versions: Vec<(String, Share, Share)>,
    /// `None`: that is what the files say already.
    pub edit: Option<Edit>,
}

/// Why weights can't be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum CannotEdit {
    /// The files are wrong as they are, or would be.
    #[error("{0}")]
    Wrong(Box<Report>),
    /// What is asked for makes no sense; for people.
    #[error("{0}")]
    Asked(String),
}

fn asked<T>(why: impl Into<String>) -> Result<T, CannotEdit> {
    Err(CannotEdit::Asked(why.into()))
}

/// Gives versions of a function the weights that are asked for. The `"rest"` version takes or gives the difference; where it
/// can't, the others do in proportion.
///
/// # Errors
///
/// The files are wrong already, the function or version is not there, or the numbers don't come to 100.
pub fn shift(sources: &Sources, function: &str, wanted: &[(String, Asked)]) -> Result<Weights, CannotEdit> {
    change(sources, function, |function, words| shifted(function, words, wanted))
}

/// Gives the baseline of a function everything.
///
/// # Errors
///
/// The files are wrong already, the function is not there, or it has no baseline.
pub fn to_baseline(sources: &Sources, function: &str) -> Result<Weights, CannotEdit> {
    change(sources, function, |function, words| {
        let Some(baseline) = function.baseline.map(|id| id.index()) else {
            let name = &function.name;
            return asked(format!(
                "function `{name}` has no baseline: say which version gets everything, as `gatepost shift {name} VERSION=100`"
            ));
        };
        let mut words = words.to_vec();
        for (at, word) in words.iter_mut().enumerate() {
            match word {
                // What is left for it is nothing, if it is not the baseline itself.
                Some(Asked::Rest) => {}
                _ if at == baseline => *word = Some(Asked::Percent(Share::WHOLE)),
                Some(Asked::Percent(_)) => *word = Some(Asked::Percent(Share(0))),
                None => {}
            }
        }
        Ok(words)
    })
}

/// A word for each version, in the order of their names; `None`: it is not written.
type Words = Vec<Option<Asked>>;

fn change(
    sources: &Sources,
    name: &str,
    wish: impl FnOnce(&Function, &[Option<Asked>]) -> Result<Words, CannotEdit>,
) -> Result<Weights, CannotEdit> {
    let config = parse(sources).map_err(|report| CannotEdit::Wrong(Box::new(report)))?;
    let Some(function) = config.functions.iter().find(|function| &*function.name == name) else {
        let known: Vec<&str> = config.functions.iter().map(|function| &*function.name).collect();
        return asked(unknown("function", name, &known));
    };
    // What could be parsed can be read.
    let Some(written) = read_tables(sources).and_then(|mut file| file.functions.remove(name)).map(|(_, raw)| raw)
    else {
        return asked(format!("function `{name}` cannot be read"));
    };
    let names: Vec<&str> = function.versions.iter().map(|version| &*version.name).collect();
    let before = words(&written, &names);
    let after = wish(function, &before)?;
    let edit = write(sources, &written, &names, &before, &after)?;
    let mut now = function.weights.clone();
    if let Some(edit) = &edit {
        let mut sources = sources.clone();
        sources.files[edit.file].text = edit.text.as_str().into();
        let config = parse(&sources).map_err(|report| CannotEdit::Wrong(Box::new(report)))?;
        let edited = config.functions.into_iter().find(|function| &*function.name == name);
        now = edited.map_or(now, |function| function.weights);
    }
    let versions = names.iter().zip(function.weights.iter().zip(&now));
    Ok(Weights { versions: versions.map(|(name, (was, is))| ((*name).to_owned(), *was, *is)).collect(), edit })
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let problem = format!("no {kind} is called `{}`", name.escape_debug());
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("{problem}: did you mean `{near}`?"),
        None => format!("{problem}; there are: {}", known.join(", ")),
    }
}

fn words(written: &raw::Function, names: &[&str]) -> Words {
    let mut words = vec![None; names.len()];
    for (name, weight) in written.weights.iter().flat_map(|at| &at.value.0) {
        let at = names.iter().position(|known| *known == name.value);
        if let (Some(at), Some(weight)) = (at, weight) {
            words[at] = Some(match weight.value {
                Weight::Percent(share) => Asked::Percent(share),
                Weight::Rest => Asked::Rest,
            });
        }
    }
    words
}

fn shifted(function: &Function, before: &[Option<Asked>], wanted: &[(String, Asked)]) -> Result<Words, CannotEdit> {
    let names: Vec<&str> = function.versions.iter().map(|version| &*version.name).collect();
    let mut words = before.to_vec();
    let mut fixed = vec![false; names.len()];
    for (name, word) in wanted {
        let Some(at) = names.iter().position(|known| known == name) else {
            return asked(unknown(&format!("version of function `{}`", function.name), name, &names));
        };
        if std::mem::replace(&mut fixed[at], true) {
            return asked(format!("`{name}` is asked for twice"));
        }
        words[at] = Some(*word);
    }
    let rest_before = before.iter().position(|word| *word == Some(Asked::Rest));
    let rests: Vec<usize> = (0..words.len()).filter(|at| words[*at] == Some(Asked::Rest)).collect();
    if let [_, _, ..] = *rests {
        return match rest_before.filter(|rest| !fixed[*rest]) {
            Some(rest) => asked(format!("`{}` has the rest now: give it a number as well", names[rest])),
            None => asked("only one version can have the rest"),
        };
    }
    let number = |word: &Option<Asked>| match word {
        Some(Asked::Percent(share)) => u32::from(share.0),
        Some(Asked::Rest) | None => 0,
    };
    let total =
        |which: bool| -> u32 { (0..words.len()).filter(|at| fixed[*at] == which).map(|at| number(&words[at])).sum() };
    let (asked_for, others) = (total(true), total(false));
    let whole = u32::from(Share::WHOLE.0);
    let Some(left) = whole.checked_sub(asked_for).and_then(|left| u16::try_from(left).ok()) else {
        return asked(format!("that is {} % in all: more than there is", f64::from(asked_for) / 100.0));
    };
    // Numbers that stay as they are leave enough, or the very remainder, for who has the rest.
    let fits = if rests.is_empty() { others == u32::from(left) } else { others <= u32::from(left) };
    if !fits {
        let free: Vec<usize> = (0..words.len()).filter(|at| !fixed[*at] && !rests.contains(at)).collect();
        let mut shares: Vec<Share> = free.iter().map(|at| Share(number(&words[*at]) as u16)).collect();
        if others > 0 {
            in_proportion(&mut shares, Share(left));
        } else if let Some(baseline) = function.baseline.and_then(|id| free.iter().position(|at| *at == id.index())) {
            shares[baseline] = Share(left);
        } else {
            return asked(format!(
                "the weights would total {} %: say which version gets the other {} %",
                f64::from(asked_for) / 100.0,
                Share(left)
            ));
        }
        for (at, share) in free.into_iter().zip(shares) {
            if number(&words[at]) != u32::from(share.0) {
                words[at] = Some(Asked::Percent(share));
            }
        }
    }
    // A number for who has the rest is what the others leave it: the word may stay.
    if let Some(rest) = rest_before.filter(|_| rests.is_empty()) {
        words[rest] = Some(Asked::Rest);
    }
    Ok(words)
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Percent(share) => share.fmt(f),
            Self::Rest => f.write_str("\"rest\""),
        }
    }
}

/// Puts words in their places. All weights of a function stand in one file, unless its table is in parts.
fn write(
    sources: &Sources,
    written: &raw::Function,
    names: &[&str],
    before: &[Option<Asked>],
    after: &[Option<Asked>],
) -> Result<Option<Edit>, CannotEdit> {
    let changed: Vec<usize> = (0..names.len()).filter(|at| before[*at] != after[*at]).collect();
    if changed.is_empty() {
        return Ok(None);
    }
    let entries: Vec<_> = written.weights.iter().flat_map(|at| &at.value.0).collect();
    let Some((last_name, Some(last))) = entries.last() else {
        return asked("the function has a single version: there is nothing to shift");
    };
    let file = last.span.file as usize;
    let Some(text) = sources.files.get(file).map(|file| &*file.text) else { return Ok(None) };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut behind = String::new();
    for at in changed {
        let Some(word) = after[at] else { continue };
        match entries.iter().find(|(name, _)| name.value == names[at]) {
            Some((_, Some(weight))) if weight.span.file as usize == file => {
                edits.push((weight.span.start as usize..weight.span.end as usize, word.to_string()));
            }
            Some(_) => return asked("the weights stand in several files: change them by hand"),
            None => behind += &entry(text, last_name.span.start as usize, last.span.end as usize, names[at], word),
        }
    }
    if !behind.is_empty() {
        let at = insert_at(text, last.span.end as usize);
        edits.push((at..at, behind));
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut edited = String::with_capacity(text.len() + 64);
    let mut from = 0;
    for (range, word) in edits {
        edited.push_str(&text[from..range.start]);
        edited.push_str(&word);
        from = range.end;
    }
    edited.push_str(&text[from..]);
    Ok(Some(Edit { file, text: edited }))
}

/// Whether the value that ends here stands in an inline table.
fn is_inline(text: &str, end: usize) -> bool {
    text[end..].trim_start_matches([' ', '\t']).starts_with([',', '}'])
}

/// Where a further entry goes: right behind the last in an inline table, on a line of its own elsewhere.
fn insert_at(text: &str, end: usize) -> usize {
    if is_inline(text, end) {
        return end;
    }
    text[end..].find('\n').map_or(text.len(), |at| end + at)
}

/// A further entry, written like the last one, whose name and value are given.
fn entry(text: &str, name: usize, end: usize, version: &str, word: Asked) -> String {
    let plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let key = if plain { version.to_owned() } else { format!("\"{version}\"") };
    if is_inline(text, end) {
        return format!(", {key} = {word}");
    }
    // Indented as it is, and under the same dotted name.
    let line = text[..name].rfind('\n').map_or(0, |at| at + 1);
    let quoted = text[..name].ends_with(['"', '\'']);
    let before = &text[line..name - usize::from(quoted)];
    let ends = if text.contains("\r\n") { "\r\n" } else { "\n" };
    // `insert_at` stands before the line's `\n`, and so behind its `\r`.
    match ends {
        "\r\n" => format!("\n{before}{key} = {word}\r"),
        _ => format!("\n{before}{key} = {word}"),
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
