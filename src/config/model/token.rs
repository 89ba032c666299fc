//! `[credential.NAME] kind = "gcp_id_token"`.

use std::path::PathBuf;

use http::HeaderName;

use super::Endpoint;
use crate::config::secret::SecretRef;

/// A Google-signed ID token, which says that a service account is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdToken {
    /// Where the service account's key (JSON) is; `None`: this machine's metadata server vouches for it.
    pub service_account: Option<SecretRef>,
    /// For whom the token is; `None`: each version's URL.
    pub audience: Option<String>,
    /// Who is asked for it; `None`: Google, or the metadata server.
    pub token_url: Option<Endpoint>,
    /// PEM bundle that alone is trusted for `token_url`; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// `authorization` (the default) or `x-serverless-authorization`.
    pub header: HeaderName,
}
