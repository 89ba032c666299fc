//! AWS Signature Version 4, as Lambda function URLs with `AuthType: AWS_IAM` check it.

use super::{
    Call, Fields, Key, Unsignable, authorization,
    canon::{self, DayKey},
    field,
    time::Moment,
};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const X_AMZ_DATE: &str = "x-amz-date";
const X_AMZ_CONTENT_SHA256: &str = "x-amz-content-sha256";
const X_AMZ_SECURITY_TOKEN: &str = "x-amz-security-token";
/// Where the service lets a body stream. Lambda does not.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

pub(super) struct SigV4 {
    key: Key,
    region: String,
    service: String,
    pub(super) sign_body: bool,
    derived: DayKey,
}

impl SigV4 {
    pub(super) fn new(key: Key, region: &str, service: &str, sign_body: bool) -> Self {
        Self { key, region: region.to_owned(), service: service.to_owned(), sign_body, derived: DayKey::default() }
    }

    pub(super) fn sign(&self, call: &Call<'_>, now: u64) -> Result<Fields, Unsignable> {
        let moment = Moment::at(now)?;
        let date = moment.basic();
        let payload = call.payload.words(UNSIGNED);
        let mut signed = vec![
            ("host", canon::folded(call.host)),
            (X_AMZ_CONTENT_SHA256, payload.clone()),
            (X_AMZ_DATE, date.clone()),
        ];
        signed.extend(call.content_type.map(|value| ("content-type", canon::folded(value))));
        signed.extend(self.key.token.as_ref().map(|token| (X_AMZ_SECURITY_TOKEN, token.clone())));
        let (list, names) = canon::headers(signed);
        let request = canonical(call, &path(call.path, true), &list, &names, &payload);
        let word = self.authorization(moment, &request, &names);

        let mut fields: Fields = vec![field(X_AMZ_DATE, &date)?, field(X_AMZ_CONTENT_SHA256, &payload)?];
        if let Some(token) = &self.key.token {
            fields.push(field(X_AMZ_SECURITY_TOKEN, token)?);
        }
        fields.push(authorization(&word)?);
        Ok(fields)
    }

    pub(super) fn authorization(&self, moment: Moment, request: &str, names: &str) -> String {
        let date = moment.date();
        let signature = self.signature(&date, &self.string_to_sign(moment, request));
        format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            self.key.id,
            self.scope(&date)
        )
    }

    fn scope(&self, date: &str) -> String {
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }

    pub(super) fn string_to_sign(&self, moment: Moment, request: &str) -> String {
        format!("{ALGORITHM}\n{}\n{}\n{}", moment.basic(), self.scope(&moment.date()), canon::sha256_hex(request))
    }

    pub(super) fn signature(&self, date: &str, string_to_sign: &str) -> String {
        self.derived.sign(date, string_to_sign, || {
            canon::chain(&format!("AWS4{}", self.key.secret), &[date, &self.region, &self.service, "aws4_request"])
        })
    }
}

pub(super) fn canonical(call: &Call<'_>, path: &str, list: &str, names: &str, payload: &str) -> String {
    format!("{}\n{path}\n{}\n{list}\n{names}\n{payload}", call.method, canon::query(call.query))
}

/// The path as sent, encoded once more, as all services but S3 have it; `normal`: without dot segments and empty ones.
pub(super) fn path(path: &str, normal: bool) -> String {
    let mut out = String::with_capacity(path.len() + 16);
    if !normal {
        canon::encode(&mut out, path.as_bytes(), true);
        return if out.is_empty() { "/".to_owned() } else { out };
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push('/');
        canon::encode(&mut out, segment.as_bytes(), false);
    }
    // What ends in a slash is a folder still; so is what ended in a dot segment (RFC 3986 §5.2.4).
    if segments.is_empty() || ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) {
        out.push('/');
    }
    out
}
