//! What each version's calls are signed with: every `[credential]`, with the secrets of this load.

use std::sync::Arc;

use super::tokens::Tokens;
use crate::{
    config::{
        Loaded,
        model::{CredentialKind, Version},
    },
    ingress::live::Signers,
    platform::sign::Signer,
};

/// By function, then version. A secret that changed makes a new signer, for it is a load of its own.
///
/// # Errors
///
/// Where a credential cannot be used. A version that names one never goes without.
pub fn signers(loaded: &Loaded, tokens: &Tokens) -> Result<Signers, String> {
    let made = loaded.config.credentials.iter().map(|credential| {
        if matches!(credential.kind, CredentialKind::GcpIdToken(_)) {
            // One for each audience, below.
            return Ok(None);
        }
        let signer = Signer::new(credential, &loaded.material);
        signer.map(|signer| Some(Arc::new(signer))).map_err(|e| format!("credential {}: {e}", credential.name))
    });
    let made = made.collect::<Result<Vec<_>, _>>()?;
    let of = |version: &Version| {
        let Some(id) = version.credential else { return Ok(None) };
        let credential = &loaded.config.credentials[id.index()];
        match (&credential.kind, &made[id.index()]) {
            (CredentialKind::GcpIdToken(token), _) => {
                let slot = tokens.slot(loaded, version);
                let slot = slot.ok_or_else(|| format!("credential {}: its token has no place", credential.name))?;
                Ok(Some(Arc::new(Signer::bearer(credential, token.header.clone(), slot))))
            }
            (_, signer) => Ok(signer.clone()),
        }
    };
    loaded.config.functions.iter().map(|f| f.versions.iter().map(of).collect()).collect()
}
