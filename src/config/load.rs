//! Files → [`Sources`] → [`Loaded`].

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{
    Config,
    material::Material,
    parse,
    report::{Problem, Report},
    source::{At, SourceFile, Sources},
    words::Text,
};

/// A config that can be served: parsed, with what it points to read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
    pub material: Material,
    /// What does not hinder but should be known: expired certificates, and but for [`Mode::Run`] unreadable secrets.
    pub warnings: Report,
}

/// What an unreadable secret, or file, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A secret is a note: outside of the service nobody may read it.
    Check,
    /// A note, as is a certificate, key or other file that this user may not read: for questions about what the config says.
    Ask,
    /// An error.
    Run,
}

/// Reads a config: its files, what they mean, and what they point to.
///
/// # Errors
///
/// The report of every problem.
pub fn load(path: &Path, mode: Mode) -> Result<Loaded, Report> {
    let (sources, mut report) = read(path);
    let parsed = parse::parse_into(&sources, &mut report);
    let material = parsed.map(|(mut config, pointers)| {
        let material = Material::read(&pointers, mode, &mut report);
        report.watch(material.paths().map(Path::to_owned));
        config.each_content(|content| {
            if let Some(bytes) = content.file.as_deref().and_then(|file| material.content(file)) {
                content.bytes = bytes.clone();
            }
        });
        (config, material)
    });
    report.sort();
    let warnings = report.split_warnings();
    match material {
        Some((config, material)) if report.is_empty() => Ok(Loaded { config, sources, material, warnings }),
        _ => Err(report),
    }
}

/// Reads the files of a config alone: neither what they mean nor what they point to.
///
/// # Errors
///
/// The report of what can't be read.
pub fn texts(path: &Path) -> Result<Sources, Report> {
    let (sources, report) = read(path);
    if report.is_empty() { Ok(sources) } else { Err(report) }
}

/// The files that the includes of these texts would find now, beside the main file.
pub fn included(sources: &Sources) -> Vec<PathBuf> {
    let mut found = Sources { files: sources.files.first().cloned().into_iter().collect(), ..Sources::default() };
    let globs = parse::include(&found, &mut Report::new(&found));
    for glob in &globs {
        include(glob, &mut found, &mut Vec::new());
    }
    found.files.into_iter().skip(1).map(|file| file.path).collect()
}

/// The main file and its includes, with the problems of reading them.
fn read(path: &Path) -> (Sources, Report) {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    match text(path) {
        Ok(text) => sources.files.push(text),
        Err(problem) => problems.push(*problem),
    }
    let mut report = Report::new(&sources);
    let globs = parse::include(&sources, &mut report);
    for glob in &globs {
        include(glob, &mut sources, &mut problems);
    }
    report.set_files(&sources);
    for problem in problems {
        report.push(problem);
    }
    report.watch([path.to_owned()]);
    report.watch(sources.watched().into_iter().filter(|file| file != path));
    (sources, report)
}

fn text(path: &Path) -> Result<SourceFile, Box<Problem>> {
    let bytes = fs::read(path).map_err(|error| {
        let problem = Problem::new(format!("cannot read {}: {error}", path.display()));
        Box::new(match error.kind() {
            io::ErrorKind::PermissionDenied => problem.help("the service's user must be able to read it"),
            _ => problem,
        })
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let problem = Problem::new(format!("{}:{line}: not UTF-8 text", path.display()));
        Box::new(problem.help(format!("byte {at} of the file is the first that is wrong")))
    })?;
    Ok(SourceFile { path: path.to_owned(), text: text.into() })
}

/// Adds the files that a glob matches, sorted; one that is there already is not read again.
fn include(glob: &At<Text>, sources: &mut Sources, problems: &mut Vec<Problem>) {
    let home = sources.folder(0);
    let written = Path::new(&glob.value.0);
    let literal = home.join(folder_of(written));
    sources.folders.insert(if literal.as_os_str().is_empty() { PathBuf::from(".") } else { literal });
    // The main file's own folder is no pattern, whatever is in its name.
    let pattern = if written.is_absolute() || home.as_os_str().is_empty() {
        written.to_owned()
    } else {
        Path::new(&glob::Pattern::escape(&home.to_string_lossy())).join(written)
    };
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let found = match glob::glob_with(&pattern.to_string_lossy(), options) {
        Ok(found) => found,
        Err(error) => {
            problems.push(
                Problem::at(format!("the glob is broken: {}", error.msg), glob.span)
                    .label("expected such as `conf.d/*.toml`"),
            );
            return;
        }
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in found {
        match path {
            Ok(path) => paths.push(path),
            Err(error) => problems.push(Problem::at(format!("cannot read {error}"), glob.span)),
        }
    }
    paths.sort();
    let plain = !glob.value.0.contains(['*', '?', '[']);
    if paths.is_empty() && plain {
        problems.push(
            Problem::at(format!("there is no file {}", home.join(written).display()), glob.span)
                .label("a name without `*` must be there"),
        );
    }
    for path in paths {
        if path.is_dir() {
            if plain {
                problems.push(
                    Problem::at(format!("{} is a folder", path.display()), glob.span)
                        .help(format!("write `{}/*.toml`", glob.value.0.trim_end_matches('/'))),
                );
            }
            continue;
        }
        // The same file may be found by another spelling: the main file itself, or by two globs.
        let itself = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let known = itself(&path);
        if sources.files.iter().any(|file| itself(&file.path) == known) {
            continue;
        }
        match text(&path) {
            Ok(file) => sources.files.push(file),
            Err(problem) => {
                let mut problem = problem.label("included here");
                problem.span = Some(glob.span);
                problems.push(problem);
            }
        }
    }
}

/// The longest leading part of a glob without wildcards.
fn folder_of(pattern: &Path) -> PathBuf {
    pattern
        .parent()
        .unwrap_or(pattern)
        .components()
        .take_while(|part| !matches!(part, Component::Normal(name) if name.to_string_lossy().contains(['*', '?', '['])))
        .collect()
}
