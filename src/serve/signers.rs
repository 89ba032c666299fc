//! What each version's calls are signed with: every `[credential]`, with the secrets of this load.

use std::sync::Arc;

use crate::{config::Loaded, ingress::live::Signers, platform::sign::Signer};

/// By function, then version. A secret that changed makes a new signer, for it is a load of its own.
///
/// # Errors
///
/// Where a credential cannot be used. A version that names one never goes without.
pub fn signers(loaded: &Loaded) -> Result<Signers, String> {
    let made = loaded.config.credentials.iter().map(|credential| {
        let signer = Signer::new(credential, &loaded.material);
        signer.map(Arc::new).map_err(|e| format!("credential {}: {e}", credential.name))
    });
    let made = made.collect::<Result<Vec<_>, _>>()?;
    let functions = loaded.config.functions.iter();
    Ok(functions
        .map(|f| f.versions.iter().map(|v| v.credential.map(|id| made[id.index()].clone())).collect())
        .collect())
}
