//! The parent proxies of the way out's rules: whom to trust, and what to show them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use rustls_pki_types::ServerName;

use super::client_tls::Connectors;
use crate::{
    config::{
        Loaded, Material,
        model::{EndpointHost, Parent as Config},
    },
    egress::{live::Parents, parent::Parent},
};

/// What the rules of `loaded` need for their parents.
///
/// # Errors
///
/// Which rule's parent can't be used, and why.
pub fn of(loaded: &Loaded, connectors: &mut Connectors) -> Result<Parents, String> {
    let parents = loaded.config.egress.rules.iter().map(|rule| {
        let parent = rule.parent.as_ref().map(|parent| one(parent, &loaded.material, connectors));
        parent.transpose().map_err(|why| format!("egress rule {}: its parent: {why}", rule.name))
    });
    Ok(parents.collect::<Result<Vec<_>, _>>()?.into())
}

fn one(config: &Config, material: &Material, connectors: &mut Connectors) -> Result<Arc<Parent>, String> {
    let tls = match config.tls {
        false => None,
        true => {
            let name = match &config.host {
                EndpointHost::Address(ip) => ServerName::from(*ip),
                EndpointHost::Name(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            };
            Some((connectors.get(config.ca.as_deref(), material)?, name))
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
