//! A route's tables beside what it matches: answers of gatepost's own, edits, as they are written.

use http::Method;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{
    model::{Coding, MediaPattern, SecurityPreset},
    raw::Networks,
    read::{Map, Read, Reader, Value, Whole, read_at, read_table, table},
    source::At,
    words::{
        FilePath, HeaderOrAny, HeaderText, MediaType, OriginWord, Patience, PatienceOrNone, RemoveName, Size, Text,
    },
};

pub(super) type Status = Whole<200, 599>;

table! {
    struct HeaderEdits {
        /// Header to the one value that it has from here on.
        set: Map<HeaderText>,
        /// Header to a value that it has beside those that are there.
        add: Map<HeaderText>,
        /// Headers that go: names, or how names start (`x-debug-*`).
        remove: Vec<At<RemoveName>>,
    }
}

table! {
    struct RedirectTable {
        /// A path or URL; `{host}`, `{path}`, `{rest}` and the path's own `{param}`s are filled in. `https`: the same, by TLS.
        to: Text [required],
        /// 301, 302, 303, 307 or 308. Default `302`; of `https`, `308`.
        status: Status,
        /// Whether the request's query goes with it. Default `true`.
        keep_query: bool,
        /// Whether `{host}` may be whatever a caller writes. Default `false`: the route names its hosts.
        any_host: bool,
    }
}

table! {
    struct Respond {
        /// Default `200`.
        status: Status,
        /// The body's text.
        body: Text,
        /// A file with the body, of at most 1 MiB.
        file: FilePath,
        /// Default: by the file's ending; of a text, `text/plain; charset=utf-8`.
        content_type: MediaType,
        /// Further headers of the answer.
        headers: Map<HeaderText>,
    }
}

table! {
    struct MaintenanceTable {
        /// Default `503`.
        status: Status,
        /// When callers may come back: `Retry-After`. Default `5m`.
        retry_after: Patience,
        /// The body's text. Default: a problem document.
        body: Text,
        /// A file with the body, of at most 1 MiB.
        file: FilePath,
        /// Default: by the file's ending; of a text, `text/plain; charset=utf-8`.
        content_type: MediaType,
        /// Who gets through all the same. Default: nobody.
        allow: Networks,
    }
}

table! {
    struct Cors {
        /// Origins whose pages may read answers: `https://app.example.com`, `https://*.example.com`, or `*`.
        allow_origins: Vec<At<OriginWord>> [required],
        /// Methods that they may use. Default: the route's `methods`, else GET, HEAD and POST.
        allow_methods: Vec<At<Method>>,
        /// Headers that they may send; `*`: any. Default: those that need no permission.
        allow_headers: Vec<At<HeaderOrAny>>,
        /// Headers of answers that they may read. Default: those that need no permission.
        expose_headers: Vec<At<HeaderOrAny>>,
        /// Whether cookies and credentials go with requests. Default `false`.
        allow_credentials: bool,
        /// How long a preflight's answer is remembered. Default `10m`.
        max_age: PatienceOrNone,
    }
}

table! {
    struct CompressionTable {
        /// Which, the best first: `zstd`, `br`, `gzip`. Default: all, in this order.
        codings: Vec<At<Coding>>,
        /// Answers known to be smaller go as they are. Default `1KiB`.
        min_size: Size,
        /// Media types: exact, `text/*` or `*+json`. Default: text, JSON, XML, JavaScript, SVG and the like.
        types: Vec<At<MediaPattern>>,
    }
}

table! {
    struct SecurityTable {
        /// `basic` or `strict`.
        preset: SecurityPreset [required],
        /// Whether what the function says itself goes. Default `false`.
        replace: bool,
    }
}

/// Reads either a plain value or a table, and says of anything else what was expected.
fn plain_or_table<P: Read, T: super::read::Table>(
    value: &Value<'_>,
    reader: &mut Reader<'_>,
    is_plain: bool,
    from: impl FnOnce(At<P>) -> T,
    expected: &str,
) -> Option<T> {
    match value.get_ref() {
        DeValue::Table(_) => read_table(value, reader),
        _ if is_plain => read_at(value, reader).map(from),
        _ => {
            reader.expected(expected, value);
            None
        }
    }
}

/// A URL or path, or a table.
#[derive(Debug, Clone)]
pub(super) struct Redirect(pub(super) RedirectTable);

impl Read for Redirect {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let is_plain = matches!(value.get_ref(), DeValue::String(_));
        let from = |to| RedirectTable { to: Some(to), ..RedirectTable::default() };
        plain_or_table(value, reader, is_plain, from, "where to, or a table with `to`").map(Self)
    }

    fn schema() -> Json {
        json!({ "anyOf": [<Text as Read>::schema(), <RedirectTable as Read>::schema()] })
    }
}

/// `true`, `false` or a table.
#[derive(Debug, Clone)]
pub(super) struct Maintenance(pub(super) Option<MaintenanceTable>);

impl Read for Maintenance {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(on) => Some(Self(on.then(MaintenanceTable::default))),
            DeValue::Table(_) => read_table(value, reader).map(|table| Self(Some(table))),
            _ => {
                reader.expected("`true`, `false` or a table", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<bool as Read>::schema(), <MaintenanceTable as Read>::schema()] })
    }
}

/// A preset, or a table.
#[derive(Debug, Clone)]
pub(super) struct Security(pub(super) SecurityTable);

impl Read for Security {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let is_plain = matches!(value.get_ref(), DeValue::String(_));
        let from = |preset| SecurityTable { preset: Some(preset), ..SecurityTable::default() };
        plain_or_table(value, reader, is_plain, from, "`basic`, `strict` or a table with `preset`").map(Self)
    }

    fn schema() -> Json {
        json!({ "anyOf": [<SecurityPreset as Read>::schema(), <SecurityTable as Read>::schema()] })
    }
}

/// `true`, `false` or a table.
#[derive(Debug, Clone)]
pub(super) struct Compression(pub(super) Option<CompressionTable>);

impl Read for Compression {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(on) => Some(Self(on.then(CompressionTable::default))),
            DeValue::Table(_) => read_table(value, reader).map(|table| Self(Some(table))),
            _ => {
                reader.expected("`true`, `false` or a table", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<bool as Read>::schema(), <CompressionTable as Read>::schema()] })
    }
}
