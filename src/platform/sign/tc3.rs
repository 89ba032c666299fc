//! TC3-HMAC-SHA256, Tencent Cloud's signature V3, as function URLs of SCF with CAM authentication check it.
//!
//! The signature wants a Content-Type (it is one of the two fields that it always covers): a request that has none gets one.

use super::{
    Call, Fields, Key, Payload, Unsignable, authorization,
    canon::{self, DayKey},
    field,
    time::Moment,
};

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const X_TC_TIMESTAMP: &str = "x-tc-timestamp";
const X_TC_TOKEN: &str = "x-tc-token";
const X_TC_CONTENT_SHA256: &str = "x-tc-content-sha256";
const X_SCF_CAM_TIMESTAMP: &str = "x-scf-cam-timestamp";
const X_SCF_CAM_UIN: &str = "x-scf-cam-uin";
/// Its hash stands where a body's would.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const SOME_BYTES: &str = "application/octet-stream";

pub(super) struct Tc3 {
    key: Key,
    service: String,
    uin: Option<String>,
    pub(super) sign_body: bool,
    derived: DayKey,
}

impl Tc3 {
    pub(super) fn new(key: Key, service: &str, uin: Option<String>, sign_body: bool) -> Self {
        Self { key, service: service.to_owned(), uin, sign_body, derived: DayKey::default() }
    }

    pub(super) fn sign(&self, call: &Call<'_>, now: u64) -> Result<Fields, Unsignable> {
        let moment = Moment::at(now)?;
        let timestamp = now.to_string();
        let content_type = call.content_type.unwrap_or(SOME_BYTES);
        let payload = match call.payload {
            Payload::Unread => canon::sha256_hex(UNSIGNED),
            read => read.words(UNSIGNED),
        };
        let word = self.authorization(call, moment, &timestamp, content_type, &payload);

        let mut fields: Fields = vec![field(X_TC_TIMESTAMP, &timestamp)?, field(X_SCF_CAM_TIMESTAMP, &timestamp)?];
        if call.content_type.is_none() {
            fields.push(field("content-type", SOME_BYTES)?);
        }
        if call.payload == Payload::Unread {
            fields.push(field(X_TC_CONTENT_SHA256, UNSIGNED)?);
        }
        if let Some(uin) = &self.uin {
            fields.push(field(X_SCF_CAM_UIN, uin)?);
        }
        if let Some(token) = &self.key.token {
            fields.push(field(X_TC_TOKEN, token)?);
        }
        fields.push(authorization(&word)?);
        Ok(fields)
    }

    pub(super) fn authorization(
        &self,
        call: &Call<'_>,
        moment: Moment,
        timestamp: &str,
        content_type: &str,
        payload: &str,
    ) -> String {
        let lower = |value: &str| value.trim().to_ascii_lowercase();
        let (list, names) = canon::headers(vec![("content-type", lower(content_type)), ("host", lower(call.host))]);
        let (path, query) = (call.path, call.query.unwrap_or_default());
        let request = format!("{}\n{path}\n{query}\n{list}\n{names}\n{payload}", call.method);
        let date = moment.date_with_hyphens();
        let scope = format!("{date}/{}/tc3_request", self.service);
        let string_to_sign = format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", canon::sha256_hex(&request));
        let signature = self.derived.sign(&date, &string_to_sign, || {
            canon::chain(&format!("TC3{}", self.key.secret), &[&date, &self.service, "tc3_request"])
        });
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.key.id)
    }
}
