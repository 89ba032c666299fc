//! `[credential.NAME]`: which keys go with which kind.

use http::header::AUTHORIZATION;

use super::Scope;
use crate::config::{
    model::{AccessKey, Credential, CredentialId, CredentialKind, IdToken, Name},
    raw,
    report::Problem,
    secret::SecretRef,
    source::{At, Span},
    words::{CredentialWord, Text},
};

/// 6 MiB: what the smaller platforms take at most.
const SIGN_BODY_MAX: usize = 6 << 20;

impl Scope<'_> {
    pub(super) fn credential(&mut self, name: &Name, span: Span, raw: &raw::Credential) -> Option<Credential> {
        use CredentialWord as K;
        let kind = raw.kind.as_ref()?;
        let word = kind.value;
        let keyed = !matches!(word, K::Header | K::GcpIdToken);
        let is_token = word == K::GcpIdToken;
        let given = [
            ("access_key_id", raw.access_key_id.as_ref().map(|at| at.span), keyed),
            ("access_key_secret", raw.access_key_secret.as_ref().map(|at| at.span), keyed),
            ("session_token", raw.session_token.as_ref().map(|at| at.span), keyed),
            ("region", raw.region.as_ref().map(|at| at.span), word == K::SigV4),
            ("service", raw.service.as_ref().map(|at| at.span), matches!(word, K::SigV4 | K::Tc3)),
            ("uin", raw.uin.as_ref().map(|at| at.span), word == K::Tc3),
            ("sign_body", raw.sign_body.as_ref().map(|at| at.span), keyed),
            ("sign_body_max", raw.sign_body_max.as_ref().map(|at| at.span), keyed),
            ("header", raw.header.as_ref().map(|at| at.span), !keyed),
            ("secret", raw.secret.as_ref().map(|at| at.span), word == K::Header),
            ("previous", raw.previous.as_ref().map(|at| at.span), word == K::Header),
            ("service_account", raw.service_account.as_ref().map(|at| at.span), is_token),
            ("audience", raw.audience.as_ref().map(|at| at.span), is_token),
            ("token_url", raw.token_url.as_ref().map(|at| at.span), is_token),
            ("ca", raw.ca.as_ref().map(|at| at.span), is_token),
        ];
        for (key, at, fits) in given {
            if let (Some(at), false) = (at, fits) {
                self.report.push(
                    Problem::at(format!("`{key}` says nothing to a credential of this kind"), at)
                        .label("not a key of it")
                        .also(kind.span, "this kind"),
                );
            }
        }
        let sign_body = raw.sign_body.as_ref().map(|at| at.value);
        let needs = |scope: &mut Self, key: &str| scope.lacks(raw, name, span, kind.span, key);
        let kind = match word {
            K::SigV4 => {
                let keys = self.access_key(raw, needs);
                let region = match &raw.region {
                    Some(at) => self.scope_word(at),
                    None => {
                        needs(self, "region");
                        None
                    }
                };
                let service = self.service(raw, "lambda");
                CredentialKind::SigV4 {
                    keys: keys?,
                    region: region?,
                    service: service?,
                    sign_body: sign_body.unwrap_or(true),
                }
            }
            K::Acs3 => {
                CredentialKind::Acs3 { keys: self.access_key(raw, needs)?, sign_body: sign_body.unwrap_or(false) }
            }
            K::Tc3 => {
                let keys = self.access_key(raw, needs);
                let service = self.service(raw, "scf");
                let uin = match &raw.uin {
                    None => None,
                    Some(at) => Some(self.scope_word(at)?),
                };
                CredentialKind::Tc3 { keys: keys?, service: service?, uin, sign_body: sign_body.unwrap_or(true) }
            }
            K::GcpIdToken => CredentialKind::GcpIdToken(Box::new(self.id_token(raw)?)),
            K::Header => {
                let header = match &raw.header {
                    Some(at) => Some(at.value.0.clone()),
                    None => {
                        needs(self, "header");
                        None
                    }
                };
                let secret = self.needed(raw.secret.as_ref(), "secret", needs);
                let previous = raw.previous.as_ref().map(|at| self.followed(at));
                CredentialKind::Header { header: header?, secret: secret?, previous }
            }
        };
        let sign_body_max = raw.sign_body_max.as_ref().map(|at| usize::try_from(at.value.0).unwrap_or(usize::MAX));
        Some(Credential { name: name.clone(), kind, sign_body_max: sign_body_max.unwrap_or(SIGN_BODY_MAX) })
    }

    fn id_token(&mut self, raw: &raw::Credential) -> Option<IdToken> {
        const SERVERLESS: &str = "x-serverless-authorization";
        let before = self.report.len();
        let header = raw.header.as_ref().map(|at| (at.value.0.clone(), at.span));
        if let Some((name, span)) = header.as_ref().filter(|(name, _)| *name != AUTHORIZATION && name != SERVERLESS) {
            self.report.push(
                Problem::at(format!("`{name}` is no field in which Google looks for a token"), *span)
                    .label(format!("expected `authorization` or `{SERVERLESS}`")),
            );
        }
        let url = raw.token_url.as_ref();
        if let Some(url) = url.filter(|url| !url.value.tls && raw.service_account.is_some()) {
            self.report.push(
                Problem::at("a service account's tokens are fetched over https only", url.span)
                    .label("whoever listens could call the function"),
            );
        }
        if let Some(ca) = raw.ca.as_ref().filter(|_| url.is_none_or(|url| !url.value.tls)) {
            self.report
                .push(Problem::at("`ca` says nothing without an https `token_url`", ca.span).label("not needed here"));
        }
        let ca = raw.ca.as_ref().map(|at| {
            let path = self.path(at);
            self.pointers.anchors.push(At { value: path.clone(), span: at.span });
            path
        });
        let service_account = raw.service_account.as_ref().map(|at| self.followed(at));
        (self.report.len() == before).then(|| IdToken {
            service_account,
            audience: raw.audience.as_ref().map(|at| at.value.0.clone()),
            token_url: url.map(|at| at.value.clone()),
            ca,
            header: header.map_or(AUTHORIZATION, |(name, _)| name),
        })
    }

    /// The credential that a function or version names.
    pub(super) fn credential_id(&mut self, name: &At<Text>) -> Option<CredentialId> {
        let file = self.file;
        self.find("credential", name, &file.credentials).map(CredentialId)
    }

    fn access_key(&mut self, raw: &raw::Credential, needs: impl Fn(&mut Self, &str) + Copy) -> Option<AccessKey> {
        let id = self.needed(raw.access_key_id.as_ref(), "access_key_id", needs);
        let secret = self.needed(raw.access_key_secret.as_ref(), "access_key_secret", needs);
        let token = raw.session_token.as_ref().map(|at| self.followed(at));
        Some(AccessKey { id: id?, secret: secret?, token })
    }

    fn needed(&mut self, at: Option<&At<SecretRef>>, key: &str, needs: impl Fn(&mut Self, &str)) -> Option<SecretRef> {
        match at {
            Some(at) => Some(self.followed(at)),
            None => {
                needs(self, key);
                None
            }
        }
    }

    /// What is there but wrong is in the report already.
    fn lacks(&mut self, raw: &raw::Credential, name: &Name, span: Span, kind: Span, key: &str) {
        if !raw.broken {
            self.report.push(
                Problem::at(format!("credential `{name}` has no `{key}`"), span)
                    .label(format!("expected `{key} = \"…\"`"))
                    .also(kind, "its kind needs it"),
            );
        }
    }

    fn service(&mut self, raw: &raw::Credential, default: &str) -> Option<String> {
        match &raw.service {
            Some(at) => self.scope_word(at),
            None => Some(default.to_owned()),
        }
    }

    /// A part of a signature's scope: what stands between its slashes.
    fn scope_word(&mut self, at: &At<Text>) -> Option<String> {
        let text = &at.value.0;
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Some(text.clone());
        }
        self.report.push(
            Problem::at(format!("`{}` cannot stand in a signature", text.escape_debug()), at.span)
                .label("expected letters, digits, `-`, `_` or `.`"),
        );
        None
    }
}
