//! The parent proxies of the way out's rules: whom to trust, and what to show them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::{
    config::{
        Loaded, Material,
        model::{EndpointHost, Parent as Config},
    },
    egress::{live::Parents as Made, parent::Parent},
};

/// By whom is trusted (`None`: the system's roots): a session with a parent goes on over reloads, and the system's roots are read once.
type Connectors = Vec<(Option<Vec<CertificateDer<'static>>>, TlsConnector)>;

/// What a config's rules need for their parents.
#[derive(Default, Clone)]
pub struct Parents {
    pub by_rule: Made,
    connectors: Connectors,
}

impl Parents {
    /// Those of `loaded`; TLS as in `self`, where the trust is the same.
    ///
    /// # Errors
    ///
    /// Which rule's parent can't be used, and why.
    pub fn of(&self, loaded: &Loaded) -> Result<Self, String> {
        let mut connectors = Connectors::new();
        let by_rule = loaded.config.egress.rules.iter().map(|rule| {
            let parent = rule.parent.as_ref().map(|parent| self.one(parent, &loaded.material, &mut connectors));
            parent.transpose().map_err(|why| format!("egress rule {}: its parent: {why}", rule.name))
        });
        let by_rule = by_rule.collect::<Result<Vec<_>, _>>()?.into();
        Ok(Self { by_rule, connectors })
    }

    fn one(&self, config: &Config, material: &Material, connectors: &mut Connectors) -> Result<Arc<Parent>, String> {
        let tls = match config.tls {
            false => None,
            true => {
                let name = match &config.host {
                    EndpointHost::Address(ip) => ServerName::from(*ip),
                    EndpointHost::Name(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
                };
                let trust = match config.ca.as_deref() {
                    None => None,
                    Some(ca) => Some(material.authority(ca).ok_or("its `ca` was not read")?.to_vec()),
                };
                Some((self.connector(trust, connectors)?, name))
            }
        };
        let credentials = match &config.credentials {
            None => None,
            Some((user, password)) => {
                let password = material.value(password).ok_or("its password was not read")?;
                let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|error| error.to_string())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Arc::new(Parent { tls, credentials }))
    }

    fn connector(
        &self,
        trust: Option<Vec<CertificateDer<'static>>>,
        connectors: &mut Connectors,
    ) -> Result<TlsConnector, String> {
        let known = connectors.iter().find(|(known, _)| *known == trust);
        if let Some((_, connector)) = known {
            return Ok(connector.clone());
        }
        let connector = match self.connectors.iter().find(|(known, _)| *known == trust) {
            Some((_, connector)) => connector.clone(),
            None => TlsConnector::from(Arc::new(client(trust.as_deref())?)),
        };
        connectors.push((trust, connector.clone()));
        Ok(connector)
    }
}

fn client(trust: Option<&[CertificateDer<'static>]>) -> Result<ClientConfig, String> {
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
