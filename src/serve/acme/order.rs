//! One certificate, from the account to the last byte of the chain (RFC 8555 §7).

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};

use super::{
    client::Https,
    store::{Store, StoredAccount, held},
};
use crate::{config::model::Acme, ingress::challenge::Challenges, serve::certificate::Held};

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum Failure {
    /// The authority could not be asked: nothing of ours is at fault, and nothing was counted against us.
    Unreachable(String),
    /// It said no, or the order came to nothing.
    Refused(String),
}

impl Failure {
    /// What the authority answered, or that it didn't.
    fn of(error: &Error, doing: &str) -> Self {
        let text = format!("{doing}: {error}");
        match error {
            // RFC 8555 §6.5: nonces run out under load; §6.7: and its own trouble is not ours.
            Error::Api(problem)
                if problem.status.is_some_and(|status| status >= 500)
                    || problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce") =>
            {
                Self::Unreachable(text)
            }
            Error::Api(_) | Error::Timeout(_) => Self::Refused(text),
            _ => Self::Unreachable(text),
        }
    }
}

/// How often the authority is asked what became of an order: at 0.25, 0.75, 1.75 s and so on.
const POLL: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));

pub(super) async fn account(settings: &Acme, store: &Store, https: &Https) -> Result<Account, Failure> {
    let failed = |e: Error| Failure::of(&e, "the account");
    let contact: Vec<String> = settings.email.iter().map(|email| format!("mailto:{email}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let builder = Account::builder_with_http(Box::new(https.clone()));
    let kept = |e| Failure::Refused(format!("cannot keep the account's key under server.state_dir: {e}"));
    if let Some(stored) = store.account() {
        let again = serde_json::to_value(&stored.credentials).and_then(serde_json::from_value);
        let account = builder.from_credentials(stored.credentials).await.map_err(failed)?;
        if stored.email != settings.email
            && let Ok(credentials) = again
        {
            account.update_contacts(&contact).await.map_err(failed)?;
            store.keep_account(&StoredAccount { email: settings.email.clone(), credentials }).map_err(kept)?;
        }
        return Ok(account);
    }
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let made = builder.create(&new, settings.directory.clone(), None).await;
    let (account, credentials) = made.map_err(failed)?;
    // Before the first order: accounts are counted.
    store.keep_account(&StoredAccount { email: settings.email.clone(), credentials }).map_err(kept)?;
    Ok(account)
}

/// Orders a certificate, proves that its names are ours, and keeps it.
pub(super) async fn obtain(
    settings: &Acme,
    store: &Store,
    https: &Https,
    challenges: &Arc<Challenges>,
) -> Result<Held, Failure> {
    let account = account(settings, store, https).await?;
    let names: Vec<_> = settings.domains.iter().cloned().map(Identifier::Dns).collect();
    let failed = |doing: &'static str| move |e: Error| Failure::of(&e, doing);
    let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(failed("the order"))?;
    let mut live = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed("an authorization"))?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(Failure::Refused(format!("an authorization is {other:?}"))),
        }
        let mut challenge = authorization
            .challenge(ChallengeType::Http01)
            .ok_or_else(|| Failure::Refused("the authority offers no HTTP-01".to_owned()))?;
        live.push(challenges.put(&challenge.token, challenge.key_authorization().as_str()));
        challenge.set_ready().await.map_err(failed("a challenge"))?;
    }
    let ready = order.poll_ready(&POLL).await;
    drop(live);
    if !matches!(ready, Ok(OrderStatus::Ready)) {
        let mut why = match ready {
            Ok(status) => format!("the order is {status:?}"),
            Err(error) => error.to_string(),
        };
        // What the authority saw when it asked is the best hint there is.
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { break };
            for problem in state.challenges.iter().filter_map(|c| c.error.as_ref()) {
                why = format!("{why}; {}: {problem}", state.identifier());
            }
        }
        return Err(Failure::Refused(why));
    }
    let key = order.finalize().await.map_err(failed("the request for the certificate"))?;
    let chain = order.poll_certificate(&POLL).await.map_err(failed("the certificate"))?;
    let held = held(format!("{chain}\n{key}").as_bytes())
        .map_err(|why| Failure::Refused(format!("what the authority gave cannot be used: {why}")))?;
    if let Some(missing) = settings.domains.iter().find(|name| !held.names.contains(name)) {
        return Err(Failure::Refused(format!("the authority gave a certificate that is not for {missing}")));
    }
    if let Err(error) = store.keep_certificate(&chain, &key) {
        // It is served all the same; only a restart would have to ask again.
        tracing::warn!(%error, "degraded: a certificate of acme is not kept under server.state_dir");
    }
    Ok(held)
}
