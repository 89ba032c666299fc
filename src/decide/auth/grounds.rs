//! By what somebody was let in, kept for as long as what it was let in to goes on: another config may be asked of it. No secret is kept.

use std::net::IpAddr;

use super::{Asking, Callers, Gate, header::Authorization, user_and_password};
use crate::{
    config::{Digest32, model::ClientId},
    decide::ClientCertificate,
};

/// See the module.
#[derive(Debug)]
pub struct Grounds {
    ip: IpAddr,
    /// Of user and password.
    password: Option<Digest32>,
    /// One was shown: what it said is not kept, and a config in which its client takes the same tokens would take it still.
    by_token: bool,
    /// Where some client had it.
    certificate: Option<Box<ClientCertificate>>,
}

impl Callers {
    /// What a gate has let somebody in by.
    pub fn grounds(&self, gate: &Gate, asking: &Asking<'_>) -> Grounds {
        let shown = self.shown(gate, asking);
        let (password, by_token) = match &shown.authorization {
            Authorization::Basic(pair) => {
                let digest = user_and_password(pair.user(), &Digest32::of(pair.password()));
                let known = gate.basic() && self.passwords.contains_key(&digest);
                (known.then_some(digest), !known)
            }
            Authorization::Bearer(_) => (None, true),
            Authorization::Absent | Authorization::Bad(_) => (None, false),
        };
        let known = shown.certificate.filter(|one| self.is_somebodys(one));
        Grounds { ip: asking.ip, password, by_token, certificate: known.cloned().map(Box::new) }
    }

    /// Whether `id` of this config would be let in at `gate` by the same; `takes_tokens`: the same tokens as then are that client's.
    pub fn stands(&self, gate: &Gate, grounds: &Grounds, id: ClientId, takes_tokens: bool) -> bool {
        let networks = &self.networks[id.index()];
        let shown = grounds.certificate.as_deref().filter(|_| gate.mtls());
        let has = |one: &ClientCertificate| self.is_of_client(one, id);
        let agrees = if grounds.password.is_some() || grounds.by_token {
            // One that no client has says nothing against the rest.
            let known = shown.filter(|one| self.is_somebodys(one));
            grounds.password.is_none_or(|digest| self.passwords.get(&digest) == Some(&id))
                && (!grounds.by_token || takes_tokens)
                && known.is_none_or(has)
        } else if let Some(certificate) = shown {
            has(certificate)
        } else {
            self.by_network(grounds.ip) == Some(id)
        };
        agrees && gate.lets_in(id) && (networks.is_empty() || networks.contains(grounds.ip))
    }
}
