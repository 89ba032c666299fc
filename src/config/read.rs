//! Reads raw tables from TOML values: every problem of every key, not only a table's first.
//!
//! The [`table!`] macro writes a table's struct, its reader and its JSON Schema from one description, so that none can
//! differ from the others.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    report::{Problem, Report, nearest},
    source::{At, Sources, Span},
};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Where values are read from, and where their problems go.
pub(super) struct Reader<'s> {
    pub(super) sources: &'s Sources,
    pub(super) report: &'s mut Report,
    /// The number of the file that the value at hand stands in.
    pub(super) file: u32,
    /// The keys that lead to the value at hand.
    pub(super) trail: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn span<T>(&self, value: &Spanned<T>) -> Span {
        Span::new(self.file, value.span())
    }

    /// The dotted name of the value at hand.
    pub(super) fn name(&self) -> String {
        self.trail.join(".")
    }

    #[cold]
    pub(super) fn expected(&mut self, what: &str, value: &Value<'_>) {
        let message = format!(
            "`{}` is of the wrong type: {}",
            self.name(),
            match value.get_ref() {
                DeValue::Integer(_) => "an integer",
                DeValue::Array(_) => "an array",
                other => other.type_str(),
            }
        );
        let span = self.span(value);
        self.report.push(Problem::at(message, span).label(format!("expected {what}")));
    }
}

/// What can stand behind an equals sign.
pub(super) trait Read: Sized {
    /// `None`: it was wrong, and the report says so.
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self>;
    fn schema() -> Json;

    /// Adds what subtables in another file say of the same value; `false`: this is no value that can be written in parts.
    fn extend(&mut self, _value: &Value<'_>, _reader: &mut Reader<'_>) -> bool {
        false
    }
}

/// A table that few have: where it is absent it takes a pointer's place. Ten thousand routes are read at once.
impl<T: Read> Read for Box<T> {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(value, reader).map(Self::new)
    }

    fn schema() -> Json {
        T::schema()
    }

    fn extend(&mut self, value: &Value<'_>, reader: &mut Reader<'_>) -> bool {
        T::extend(self, value, reader)
    }
}

// Out of line: hundreds of keys come by here, and each would have a copy of its value's reader.
#[inline(never)]
pub(super) fn read_at<T: Read>(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<At<T>> {
    let span = reader.span(value);
    T::read(value, reader).map(|value| At { value, span })
}

/// What is wrong with a word, and the way out.
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Whether the text must not be shown.
    pub(super) secret: bool,
}

impl Complaint {
    #[cold]
    #[inline(never)]
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, secret: false }
    }

    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value that is written as a string of a certain form.
pub(super) trait Word: Sized {
    /// For `expected …`.
    const EXPECTED: &'static str;
    /// Whether its text must never be shown.
    const SECRET: bool = false;

    fn parse(text: &str) -> Result<Self, Complaint>;

    /// What the JSON Schema says beyond `"type": "string"`.
    fn form() -> Json {
        json!({})
    }
}

pub(super) fn read_word<T: Word>(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<T> {
    let span = reader.span(value);
    let DeValue::String(text) = value.get_ref() else {
        if T::SECRET {
            reader.report.mask(span);
        }
        reader.expected(T::EXPECTED, value);
        return None;
    };
    match T::parse(text) {
        Ok(word) => Some(word),
        Err(complaint) => {
            if T::SECRET || complaint.secret {
                reader.report.mask(span);
            }
            let mut problem = Problem::at(complaint.message, span).label(format!("expected {}", T::EXPECTED));
            problem.help = complaint.help;
            reader.report.push(problem);
            None
        }
    }
}

pub(super) fn word_schema<T: Word>() -> Json {
    let mut schema = T::form();
    schema["type"] = json!("string");
    schema
}

macro_rules! words {
    ($($word:ty),* $(,)?) => {$(
        impl $crate::config::read::Read for $word {
            fn read(
                value: &$crate::config::read::Value<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                $crate::config::read::read_word(value, reader)
            }

            fn schema() -> serde_json::Value {
                $crate::config::read::word_schema::<Self>()
            }
        }
    )*};
}
pub(super) use words;

impl Read for bool {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            reader.expected("`true` or `false`", value);
        }
        read
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<const MIN: i64, const MAX: i64>(pub(super) i64);

impl<const MIN: i64, const MAX: i64> Read for Whole<MIN, MAX> {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let expected = format!("a whole number from {MIN} to {MAX}");
        let Some(integer) = value.get_ref().as_integer() else {
            reader.expected(&expected, value);
            return None;
        };
        let read =
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| (MIN..=MAX).contains(number));
        if read.is_none() {
            let message = format!("`{}` is out of range: {integer}", reader.name());
            let span = reader.span(value);
            reader.report.push(Problem::at(message, span).label(format!("expected {expected}")));
        }
        read.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A list. A wrong entry is reported and left out.
impl<T: Read> Read for Vec<At<T>> {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            reader.expected("an array", value);
            return None;
        };
        let read: Self = array.iter().filter_map(|entry| read_at(entry, reader)).collect();
        // With an entry missing, what follows (is it empty, do they add up) would be judged wrongly.
        (read.len() == array.len()).then_some(read)
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// One, or a list of them.
#[derive(Debug, Clone)]
pub(super) struct OneOrMany<T>(pub(super) Vec<At<T>>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if value.get_ref().is_array() {
            Vec::read(value, reader).map(Self)
        } else {
            read_at(value, reader).map(|one| Self(vec![one]))
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema(), "minItems": 1 }] })
    }
}

/// A table with keys of the user's own choice, in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Map<T>(pub(super) Vec<(At<String>, Option<At<T>>)>);

impl<T: Read> Read for Map<T> {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !value.get_ref().is_table() {
            reader.expected("a table", value);
            return None;
        }
        let mut read = Self(Vec::new());
        read.extend(value, reader);
        Some(read)
    }

    fn extend(&mut self, value: &Value<'_>, reader: &mut Reader<'_>) -> bool {
        for (key, value) in value.get_ref().as_table().into_iter().flatten() {
            let name = At { value: key.get_ref().to_string(), span: reader.span(key) };
            reader.trail.push(name.value.clone());
            match self.0.iter().find(|(first, _)| first.value == name.value) {
                Some((first, _)) => {
                    let first = first.span;
                    written_twice(name.span, first, reader);
                }
                None => self.0.push((name, read_at(value, reader))),
            }
            reader.trail.pop();
        }
        self.0.sort_by_key(|(name, _)| (name.span.file, name.span.start));
        true
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// One of the places in which a table's keys stand: a subtable may stand in another file than its parent.
#[derive(Clone, Copy)]
pub(super) struct Part<'v, 'i> {
    pub(super) file: u32,
    /// The table's own name, in its header.
    pub(super) key: Span,
    pub(super) table: &'v DeTable<'i>,
}

/// A table with keys of gatepost's choice.
pub(super) trait Table: Default {
    fn read_parts(parts: &[Part<'_, '_>], reader: &mut Reader<'_>) -> Self;
    fn schema() -> Json;
}

fn written_twice(again: Span, first: Span, reader: &mut Reader<'_>) {
    let message = format!("`{}` is written twice", reader.name());
    reader.report.push(
        Problem::at(message, again)
            .label("written again here")
            .also(first, "first written here")
            .help("a table stands once over all files: keep one of the two"),
    );
}

/// Whether a table is written here (with a header, inline, or by keys of its own), not only named on the way to a subtable.
pub(super) fn is_own(value: &Value<'_>, reader: &Reader<'_>) -> bool {
    let Some(table) = value.get_ref().as_table() else {
        return true;
    };
    let text = reader.sources.files.get(reader.file as usize).map(|file| file.text.as_bytes());
    let header = text.and_then(|text| text.get(value.span().start)).is_some_and(|byte| matches!(byte, b'[' | b'{'));
    header || table.values().any(|value| !value.get_ref().is_table())
}

/// Calls `take` with every key that `known` has, and reports the others. Gives back which keys were there. Where a key's subtables
/// stand in another file than the key itself, `take` gets it again, told so; it says whether it could add them.
pub(super) fn each_key<'v, 'i>(
    parts: &[Part<'v, 'i>],
    known: &[&'static str],
    reader: &mut Reader<'_>,
    take: &mut dyn FnMut(&'static str, &'v Value<'i>, bool, &mut Reader<'_>) -> bool,
) -> BTreeMap<&'static str, Span> {
    let mut seen = BTreeMap::<&'static str, Span>::new();
    let mut own = Vec::new();
    let mut misspelt = Vec::new();
    for part in parts {
        reader.file = part.file;
        for (key, value) in part.table {
            let span = reader.span(key);
            let Some(known) = known.iter().find(|name| **name == key.get_ref().as_ref()) else {
                let problem = unknown_key(key.get_ref(), known, span);
                reader.report.push(problem);
                hide(key.get_ref(), value, reader);
                // It is not missing as well.
                if let Some(near) = nearest(key.get_ref(), known.iter().copied()) {
                    misspelt.push((near, span));
                }
                continue;
            };
            reader.trail.push((*known).to_owned());
            let both_own = is_own(value, reader) && own.contains(known);
            if is_own(value, reader) {
                own.push(known);
            }
            let first = seen.get(known).copied();
            if both_own || !take(known, value, first.is_some(), reader) {
                written_twice(span, first.unwrap_or(span), reader);
            }
            seen.entry(known).or_insert(span);
            reader.trail.pop();
        }
    }
    for (key, span) in misspelt {
        seen.entry(key).or_insert(span);
    }
    seen
}

/// Keys of the contract that do not act yet.
const LATER: [&str; 1] = ["alarm"];

pub(super) fn unknown_key(key: &str, known: &[&str], span: Span) -> Problem {
    let problem =
        Problem::at(format!("unknown key `{}`", key.escape_debug()), span).label(format!("expected {}", one_of(known)));
    match nearest(key, known.iter().copied()) {
        _ if LATER.contains(&key) => problem.help(format!("`{key}` comes with a later version of gatepost")),
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// Masks what stands behind an unknown key that may have been meant for a secret.
pub(super) fn hide(key: &str, value: &Value<'_>, reader: &mut Reader<'_>) {
    const SECRETS: [&str; 13] = [
        "access_key_id",
        "access_key_secret",
        "api_key",
        "basic",
        "credential",
        "jwt",
        "mtls",
        "password",
        "secret",
        "secret_access_key",
        "secret_key",
        "session_token",
        "token",
    ];
    // A table with a header stands on lines of its own, which the report doesn't show.
    let span = reader.span(value);
    let inline = !value.get_ref().is_table()
        || (reader.sources.files.get(reader.file as usize))
            .is_some_and(|file| file.text.as_bytes().get(value.span().start) == Some(&b'{'));
    if inline && nearest(key, SECRETS).is_some() {
        reader.report.mask(span);
    }
}

/// `a`, `b` or `c`.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => format!("`{one}`"),
        [rest @ .., last] => {
            format!("{} or `{last}`", rest.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

pub(super) fn missing(
    required: &[&'static str],
    seen: &BTreeMap<&'static str, Span>,
    place: Option<Span>,
    reader: &mut Reader<'_>,
) {
    for key in required {
        if !seen.contains_key(key) {
            let name = reader.name();
            let mut problem = Problem::new(format!("`{name}` has no `{key}`")).label(format!("`{key}` is needed here"));
            problem.span = place;
            reader.report.push(problem);
        }
    }
}

/// Reads a table that stands in one place.
pub(super) fn read_table<T: Table>(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<T> {
    let Some(table) = value.get_ref().as_table() else {
        reader.expected("a table", value);
        return None;
    };
    let part = Part { file: reader.file, key: reader.span(value), table };
    Some(T::read_parts(&[part], reader))
}

/// Reads a key's value into its field; `again`: adds what stands elsewhere of the same table. One function for all fields of a type.
#[inline(never)]
pub(super) fn take<T: Read>(
    field: &mut Option<At<T>>,
    value: &Value<'_>,
    again: bool,
    reader: &mut Reader<'_>,
) -> bool {
    if again && let Some(field) = field {
        return field.value.extend(value, reader);
    }
    *field = read_at(value, reader);
    true
}

/// A key of a table and its [`take`].
pub(super) type Field<T> = (&'static str, fn(&mut T, &Value<'_>, bool, &mut Reader<'_>) -> bool);

/// What the JSON Schema says of a key.
pub(super) struct Shape {
    pub(super) key: &'static str,
    /// In lines.
    pub(super) about: &'static [&'static str],
    pub(super) of: fn() -> Json,
}

/// The JSON Schema of a table, from data: one function for all tables.
pub(super) fn table_schema(shapes: &[Shape], required: &[&str]) -> Json {
    let described = |shape: &Shape| {
        let mut schema = (shape.of)();
        schema["description"] = shape.about.join("\n").trim().into();
        (shape.key.to_owned(), schema)
    };
    json!({
        "type": "object",
        "properties": shapes.iter().map(described).collect::<serde_json::Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}

/// A table's description: `/// doc` then `key: Type`, with `[required]` behind it where it is.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        struct $name:ident {
            $( $(#[doc = $doc:literal])* $field:ident : $type:ty $([$required:ident])? ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Default)]
        pub(super) struct $name {
            $( $(#[doc = $doc])* pub(super) $field: Option<$crate::config::source::At<$type>>, )*
            /// Whether something in it was wrong: what is absent may have been meant.
            pub(super) broken: bool,
        }

        impl $name {
            const REQUIRED: &[&str] = &[$($(
                { let _ = stringify!($required); $crate::config::read::plain(stringify!($field)) },
            )?)*];
        }

        impl $crate::config::read::Table for $name {
            fn read_parts(
                parts: &[$crate::config::read::Part<'_, '_>],
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Self {
                const KEYS: &[&str] = &[$( $crate::config::read::plain(stringify!($field)) ),*];
                const FIELDS: &[$crate::config::read::Field<$name>] = &[$( (
                    $crate::config::read::plain(stringify!($field)),
                    |table, value, again, reader| $crate::config::read::take(&mut table.$field, value, again, reader),
                ) ),*];
                let mut read = Self::default();
                let before = reader.report.len();
                let seen = $crate::config::read::each_key(parts, KEYS, reader, &mut |key, value, again, reader| {
                    let field = FIELDS.iter().find(|(name, _)| *name == key);
                    field.is_none_or(|(_, take)| take(&mut read, value, again, reader))
                });
                let place = parts.first().map(|part| part.key);
                $crate::config::read::missing(Self::REQUIRED, &seen, place, reader);
                read.broken = reader.report.len() > before;
                read
            }

            fn schema() -> serde_json::Value {
                $crate::config::read::table_schema(
                    &[$( $crate::config::read::Shape {
                        key: $crate::config::read::plain(stringify!($field)),
                        about: &[$($doc),*],
                        of: <$type as $crate::config::read::Read>::schema,
                    } ),*],
                    Self::REQUIRED,
                )
            }
        }

        impl $crate::config::read::Read for $name {
            fn read(
                value: &$crate::config::read::Value<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                $crate::config::read::read_table(value, reader)
            }

            fn schema() -> serde_json::Value {
                <Self as $crate::config::read::Table>::schema()
            }
        }
    };
}
pub(super) use table;

/// The key that a field's name means: `r#use` is `use`.
pub(super) const fn plain(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
