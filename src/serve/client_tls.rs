//! TLS towards the way out's parents and echoes: one set-up for each trust, kept over reloads, so that sessions go on and the system's roots are read once.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsConnector;

use crate::config::Material;

/// By the certificates that are trusted; `None`: the system's roots.
type Known = Vec<(Option<Vec<CertificateDer<'static>>>, TlsConnector)>;

/// Those of a config.
#[derive(Default)]
pub struct Connectors {
    known: Known,
    /// Of the config before.
    old: Known,
}

impl Connectors {
    /// For the next config; what it needs again is taken from here.
    pub fn next(&self) -> Self {
        Self { known: Known::new(), old: self.known.clone() }
    }

    /// For peers that `ca` vouches for.
    ///
    /// # Errors
    ///
    /// Why there can be none.
    pub fn get(&mut self, ca: Option<&Path>, material: &Material) -> Result<TlsConnector, String> {
        let trust = match ca {
            None => None,
            Some(ca) => Some(material.authority(ca).ok_or("its `ca` was not read")?.to_vec()),
        };
        if let Some((_, connector)) = self.known.iter().find(|(known, _)| *known == trust) {
            return Ok(connector.clone());
        }
        let connector = match self.old.iter().find(|(known, _)| *known == trust) {
            Some((_, connector)) => connector.clone(),
            None => TlsConnector::from(Arc::new(client(trust.as_deref())?)),
        };
        self.known.push((trust, connector.clone()));
        Ok(connector)
    }
}

/// A set-up that trusts these alone; `None`: the system's roots, which it reads.
///
/// # Errors
///
/// Why there can be none.
pub(super) fn client(trust: Option<&[CertificateDer<'static>]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match trust {
        Some(trust) => {
            for certificate in trust {
                roots.add(certificate.clone()).map_err(|error| format!("its `ca`: {error}"))?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs()
                .map_err(|error| format!("the system's trusted certificates: {error}"))?;
            roots.add_parsable_certificates(system);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
