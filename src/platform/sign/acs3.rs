//! ACS3-HMAC-SHA256, Alibaba Cloud's signature V3.
//!
//! In two forms. An HTTP trigger of Function Compute with signature authentication documents a short one: the fields `x-acs-date` and
//! `x-acs-security-token`, and nothing in the body's place, so that bodies stream. With `sign_body` it is the full form of the OpenAPI
//! gateways: host, content type and the body's hash as well.

use super::{
    Call, Fields, Key, Unsignable, authorization,
    canon::{self, hmac},
    field,
    time::Moment,
};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";
const X_ACS_DATE: &str = "x-acs-date";
const X_ACS_CONTENT_SHA256: &str = "x-acs-content-sha256";
const X_ACS_SECURITY_TOKEN: &str = "x-acs-security-token";

pub(super) struct Acs3 {
    key: Key,
    pub(super) sign_body: bool,
}

impl Acs3 {
    pub(super) fn new(key: Key, sign_body: bool) -> Self {
        Self { key, sign_body }
    }

    pub(super) fn sign(&self, call: &Call<'_>, now: u64) -> Result<Fields, Unsignable> {
        let date = Moment::at(now)?.extended();
        let payload = if self.sign_body { call.payload.words("") } else { String::new() };
        let mut signed = vec![(X_ACS_DATE, date.clone())];
        signed.extend(self.key.token.as_ref().map(|token| (X_ACS_SECURITY_TOKEN, token.trim().to_owned())));
        if self.sign_body {
            signed.push(("host", call.host.trim().to_owned()));
            signed.push((X_ACS_CONTENT_SHA256, payload.clone()));
            signed.extend(call.content_type.map(|value| ("content-type", value.trim().to_owned())));
        }
        let word = self.authorization(call, signed, &payload);

        let mut fields: Fields = vec![field(X_ACS_DATE, &date)?];
        if self.sign_body {
            fields.push(field(X_ACS_CONTENT_SHA256, &payload)?);
        }
        if let Some(token) = &self.key.token {
            fields.push(field(X_ACS_SECURITY_TOKEN, token)?);
        }
        fields.push(authorization(&word)?);
        Ok(fields)
    }

    pub(super) fn authorization(&self, call: &Call<'_>, signed: Vec<(&str, String)>, payload: &str) -> String {
        let (list, names) = canon::headers(signed);
        let (path, query) = (canon::path(call.path), canon::query(call.query));
        let request = format!("{}\n{path}\n{query}\n{list}\n{names}\n{payload}", call.method);
        let string_to_sign = format!("{ALGORITHM}\n{}", canon::sha256_hex(&request));
        // The secret itself is the key: nothing to derive.
        let signature = canon::hex(hmac(self.key.secret.as_bytes(), &string_to_sign).as_ref());
        format!("{ALGORITHM} Credential={},SignedHeaders={names},Signature={signature}", self.key.id)
    }
}
