//! `[client.NAME]` as leaves.

use super::{Leaf, duration, quoted, secret};
use crate::config::{
    model::{ApiKey, Basic, Client, JwksSource, JwksUrl, Jwt, Mtls},
    source::hex,
};

pub(in crate::config::changes) fn client_leaves(client: &Client) -> Vec<Leaf> {
    let Client { name: _, owner, networks, api_key, basic, jwt, mtls } = client;
    let (key, header) = match api_key {
        None => (None, None),
        Some(ApiKey { header, sha256 }) => (Some(secret(sha256)), Some(header)),
    };
    let (user, password) = match basic {
        None => (None, None),
        Some(Basic { user, sha256 }) => (Some(user), Some(secret(sha256))),
    };
    let mut leaves = vec![
        Leaf::option("owner", "nobody", owner.as_ref().map(quoted)),
        Leaf::list("networks", "any", networks.as_slice()),
        Leaf::option("api_key.sha256", "off", key),
        Leaf::option("api_key.header", "off", header),
        Leaf::option("basic.user", "off", user.map(quoted)),
        Leaf::option("basic.sha256", "off", password),
    ];
    leaves.extend(jwt_leaves(jwt.as_ref()));
    let (subject, san, sha256) = match mtls {
        None => Default::default(),
        Some(Mtls { subject, san, sha256 }) => (&subject[..], &san[..], &sha256[..]),
    };
    let none = if mtls.is_some() { "any" } else { "off" };
    leaves.extend([
        Leaf::list("mtls.subject", none, subject.iter().map(quoted)),
        Leaf::list("mtls.san", none, san),
        Leaf::list("mtls.sha256", none, sha256.iter().map(|print| hex(print))),
    ]);
    leaves
}

fn jwt_leaves(jwt: Option<&Jwt>) -> Vec<Leaf> {
    // Taken apart in a function, so that an absent table has the same leaves.
    let parts = jwt.map(|jwt| {
        let Jwt { issuer, audience, keys, algorithms, subject, claims, leeway } = jwt;
        (issuer, audience, keys, algorithms, subject, claims, *leeway)
    });
    let claim = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={}", quoted(value)),
        None => format!("{name}=*"),
    };
    let ca = parts.and_then(|(_, _, keys, ..)| match keys {
        JwksSource::Url(JwksUrl { ca, .. }) => ca.as_ref(),
        JwksSource::File(_) => None,
    });
    vec![
        Leaf::option("jwt.issuer", "off", parts.map(|(issuer, ..)| quoted(issuer))),
        Leaf::list("jwt.audience", "off", parts.iter().flat_map(|(_, audience, ..)| audience.iter().map(quoted))),
        Leaf::option("jwt.jwks", "off", parts.map(|(_, _, keys, ..)| keys)),
        Leaf::option("jwt.ca", "the system's", ca.map(|path| path.display())),
        Leaf::list(
            "jwt.algorithms",
            "off",
            parts.iter().flat_map(|(_, _, _, algorithms, ..)| algorithms.iter().map(|one| one.as_str())),
        ),
        Leaf::list("jwt.subject", "any", parts.iter().flat_map(|(_, _, _, _, subject, ..)| subject.iter().map(quoted))),
        Leaf::list("jwt.claims", "any", parts.iter().flat_map(|(_, _, _, _, _, claims, _)| claims.iter().map(claim))),
        Leaf::option("jwt.leeway", "off", parts.map(|(.., leeway)| duration(leeway))),
    ]
}
