//! The values that are written as strings, each from its text.

mod budget;
mod cache;
mod caller;
mod cluster;
mod coding;
mod cors;
mod egress;
mod guard;
mod handling;
mod http_words;
mod net;
mod path;
mod platform;
mod probe;
mod ramp;
mod size;
mod time;

pub(super) use budget::{Money, ZoneWord};
pub(super) use caller::{BasicUser, Fingerprint, JwksWord, KeyHeader};
pub(super) use cluster::{KeyPrefix, MemberName};
pub(super) use cors::{HeaderOrAny, OriginWord};
pub(super) use egress::{Bandwidth, EchoUrl, ParentUrl, SourceAddress, ToWord};
pub(super) use guard::{ErrorShare, FalseAlarm, Times};
pub(super) use handling::{AddPrefix, HeaderText, MediaType, RemoveName};
pub(super) use http_words::{
    Condition, CookieIs, HeaderCondition, HeaderIs, RegexText, SecretField, StickyBy, header_name,
};
pub(super) use net::{DirectoryUrl, Email, NameServer, NetworkRef};
pub(super) use path::{PathWord, Strip};
pub(super) use platform::{AnswerHeader, SizeOrNone, Statuses};
pub(super) use probe::ProbePath;
pub(super) use ramp::{DaysWord, HoursWord, Moment, Percent, Zone};
pub(super) use size::{ByteRate, Size};
pub(super) use time::{Patience, PatienceOrNone};

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{
    model::{
        BudgetAction, Class, ClientAuthNeed, Coding, Criticality, EncodedSlash, GuardAction, LimitScope, LogFormat,
        PlatformName, ProbeMethod, RetryOf, Share, TlsProfile, UpstreamHttp,
    },
    preset::Mark,
    read::{Complaint, Read, Reader, Value, Word, words},
    report::Problem,
    secret::SecretRef,
};

/// Any text that is not empty.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) String);

impl Word for Text {
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() {
            return Err(Complaint::new("an empty string says nothing"));
        }
        Ok(Self(text.to_owned()))
    }

    fn form() -> Json {
        json!({ "minLength": 1 })
    }
}

/// A path of a file or folder; a relative one starts from the folder of the config file that it stands in.
#[derive(Debug, Clone)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Word for FilePath {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() || text.contains('\0') {
            return Err(Complaint::new("a path cannot be empty or hold a NUL"));
        }
        Ok(Self(text.into()))
    }

    fn form() -> Json {
        json!({ "minLength": 1 })
    }
}

/// `"stdout"`, `"off"`, or a path.
#[derive(Debug, Clone)]
pub(super) enum Access {
    Stdout,
    Off,
    File(PathBuf),
}

impl Word for Access {
    const EXPECTED: &'static str = "a path, `stdout` or `off`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            "none" | "false" => Err(Complaint::new(format!("`{text}` is not a path"))
                .help("to log nothing write `access = \"off\"`; a file of that name is `./none`")),
            path => FilePath::parse(path).map(|path| Self::File(path.0)),
        }
    }

    fn form() -> Json {
        json!({ "minLength": 1, "examples": ["stdout", "off", "/var/log/gatepost/access.log"] })
    }
}

/// One of a few words.
macro_rules! choices {
    ($($type:ty, $expected:literal: { $($word:literal => $value:expr),* $(,)? })*) => {$(
        impl Word for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Complaint> {
                match text {
                    $($word => Ok($value),)*
                    other => {
                        let complaint = Complaint::new(format!("`{}` is none of the choices", other.escape_debug()));
                        Err(match super::report::nearest(other, [$($word),*]) {
                            Some(near) => complaint.help(format!("did you mean `{near}`?")),
                            None => complaint,
                        })
                    }
                }
            }

            fn form() -> Json {
                json!({ "enum": [$($word),*] })
            }
        }
    )*};
}

choices! {
    LimitScope, "`instance` or `cluster`": { "instance" => Self::Instance, "cluster" => Self::Cluster }
    LogFormat, "`json` or `text`": { "json" => Self::Json, "text" => Self::Text }
    UpstreamHttp, "`auto`, `1.1` or `2`": {
        "auto" => Self::Auto, "1.1" => Self::Http1, "2" => Self::Http2,
    }
    PlatformName, "`aliyun-fc3`, `tencent-scf`, `aws-lambda-url`, `cloud-run`, `azure-functions`, `knative`, `openfaas` or `generic`": {
        "aliyun-fc3" => Self::AliyunFc3, "tencent-scf" => Self::TencentScf, "aws-lambda-url" => Self::AwsLambdaUrl,
        "cloud-run" => Self::CloudRun, "azure-functions" => Self::AzureFunctions, "knative" => Self::Knative,
        "openfaas" => Self::OpenFaas, "generic" => Self::Generic,
    }
    // Those that an answer of a function can have; the others are gatepost's to give.
    Class, "`ok`, `client_error`, `throttled`, `function`, `platform`, `config`, `account` or `timeout`": {
        "ok" => Self::Ok, "client_error" => Self::ClientError, "throttled" => Self::Throttled,
        "function" => Self::Function, "platform" => Self::Platform, "config" => Self::Config,
        "account" => Self::Account, "timeout" => Self::Timeout,
    }
    RetryOf, "`any`, `idempotent` or `never`": {
        "any" => Self::Any, "idempotent" => Self::Idempotent, "never" => Self::Never,
    }
    Mark, "`verified`, `memory`, `unknown` or `choice`": {
        "verified" => Self::Verified, "memory" => Self::Memory, "unknown" => Self::Unknown, "choice" => Self::Choice,
    }
    TlsProfile, "`intermediate` or `modern`": { "intermediate" => Self::Intermediate, "modern" => Self::Modern }
    ClientAuthNeed, "`required` or `optional`": { "required" => Self::Required, "optional" => Self::Optional }
    CredentialWord, "`sigv4`, `acs3`, `tc3`, `gcp_id_token` or `header`": {
        "gcp_id_token" => Self::GcpIdToken,
        "sigv4" => Self::SigV4, "acs3" => Self::Acs3, "tc3" => Self::Tc3, "header" => Self::Header,
    }
    Coding, "`zstd`, `br` or `gzip`": { "zstd" => Self::Zstd, "br" => Self::Br, "gzip" => Self::Gzip }
    BudgetAction, "`alert`, `shed`, `fallback` or `stop`": {
        "alert" => Self::Alert, "shed" => Self::Shed, "fallback" => Self::Fallback, "stop" => Self::Stop,
    }
    ProbeMethod, "`HEAD` or `GET`": { "HEAD" => Self::Head, "GET" => Self::Get }
    GuardAction, "`rollback` or `alert`": { "rollback" => Self::Rollback, "alert" => Self::Alert }
    Criticality, "`critical`, `normal` or `bulk`": {
        "critical" => Self::Critical, "normal" => Self::Normal, "bulk" => Self::Bulk,
    }
    EncodedSlash, "`refuse` or `keep`": { "refuse" => Self::Refuse, "keep" => Self::Keep }
}

/// The kind of a `[credential]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialWord {
    SigV4,
    Acs3,
    Tc3,
    GcpIdToken,
    Header,
}

/// `"0660"`: the permission bits of a unix socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode(pub(super) u32);

impl Word for Mode {
    const EXPECTED: &'static str = "permission bits in octal such as `0660`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| (3..=4).contains(&text.len()) && *mode <= 0o777 && !text.starts_with('+'))
            .map(Self)
            .ok_or_else(|| Complaint::new(format!("`{}` is not a mode", text.escape_debug())))
    }

    fn form() -> Json {
        json!({ "pattern": "^0?[0-7]{3}$" })
    }
}

impl Word for SecretRef {
    const EXPECTED: &'static str = "a reference to a secret";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Complaint> {
        const FORMS: &str = "write `env:NAME`, `file:/path` or `credential:name`";
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(Complaint::new("a secret stands in the file itself").help(FORMS));
        };
        let complaint = |why: &str| Err(Complaint::new(why.to_owned()).help(FORMS));
        match kind {
            "env" if rest.is_empty() || rest.contains(['=', '\0']) => {
                complaint("that is not the name of an environment variable")
            }
            "env" => Ok(Self::Env(rest.to_owned())),
            "file" if rest.is_empty() || rest.contains('\0') => complaint("`file:` names no file"),
            "file" => Ok(Self::File(rest.into())),
            "credential" if rest.is_empty() || rest.contains(['/', '\0']) || rest == ".." => {
                complaint("that is not the name of a credential")
            }
            "credential" => Ok(Self::Credential(rest.to_owned())),
            _ => complaint("a secret stands in the file itself"),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(env:[^=]+|file:.+|credential:[^/]+)$" })
    }
}

words!(
    Text,
    FilePath,
    Access,
    Coding,
    LimitScope,
    LogFormat,
    UpstreamHttp,
    PlatformName,
    Class,
    RetryOf,
    Mark,
    BudgetAction,
    TlsProfile,
    ClientAuthNeed,
    Criticality,
    EncodedSlash,
    GuardAction,
    ProbeMethod,
    Mode,
    SecretRef,
    CredentialWord
);

/// A version's weight: percent with at most two decimals, or `"rest"`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weight {
    Percent(Share),
    Rest,
}

const WEIGHT: &str = "a percentage from 0 to 100 with at most two decimals, or `rest`";

impl Read for Weight {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (read, written) = match value.get_ref() {
            DeValue::String(text) if text == "rest" => return Some(Self::Rest),
            DeValue::Integer(number) if number.radix() == 10 => (Share::percent(number.as_str()), number.to_string()),
            DeValue::Float(number) => (Share::percent(number.as_str()), number.to_string()),
            DeValue::Integer(number) => (None, number.to_string()),
            DeValue::String(text) => (None, text.escape_debug().to_string()),
            _ => {
                reader.expected(WEIGHT, value);
                return None;
            }
        };
        if read.is_none() {
            let span = reader.span(value);
            reader
                .report
                .push(Problem::at(format!("`{written}` is not a weight"), span).label(format!("expected {WEIGHT}")));
        }
        read.map(Self::Percent)
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01 },
            { "const": "rest" },
        ] })
    }
}

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fraction(pub(super) f64);

impl Read for Fraction {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const EXPECTED: &str = "a share from 0.0 to 1.0";
        let (number, written) = match value.get_ref() {
            DeValue::Integer(number) => (number.as_str().parse().ok(), number.to_string()),
            DeValue::Float(number) => (number.as_str().parse().ok(), number.to_string()),
            _ => {
                reader.expected(EXPECTED, value);
                return None;
            }
        };
        let read = number.filter(|number: &f64| (0.0..=1.0).contains(number));
        if read.is_none() {
            let span = reader.span(value);
            reader
                .report
                .push(Problem::at(format!("`{written}` is not a share"), span).label(format!("expected {EXPECTED}")));
        }
        read.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}
