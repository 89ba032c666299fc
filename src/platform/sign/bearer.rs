//! A token that somebody else fetches: calls carry the one that is good now, or don't go.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};

use super::{Fields, Unsignable, sensitive};

/// Where a token is put by who fetches it.
#[derive(Default)]
pub struct TokenSlot(ArcSwapOption<Token>);

struct Token {
    /// With its `Bearer`.
    value: HeaderValue,
    /// Seconds since 1970: from then on nobody takes it.
    until: u64,
}

impl fmt::Debug for TokenSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSlot").field("until", &self.until()).finish_non_exhaustive()
    }
}

impl TokenSlot {
    /// # Errors
    ///
    /// When it cannot stand in a header field.
    pub fn put(&self, token: &str, until: u64) -> Result<(), Unsignable> {
        let value = sensitive(&format!("Bearer {token}"))?;
        self.0.store(Some(Arc::new(Token { value, until })));
        Ok(())
    }

    /// The present one and its end, for another process; `None`: there is none.
    pub fn handed(&self) -> Option<(String, u64)> {
        let token = self.0.load_full()?;
        let text = token.value.to_str().ok()?.strip_prefix("Bearer ")?;
        Some((text.to_owned(), token.until))
    }

    /// When the present one ends, in seconds since 1970; `None`: there is none.
    pub fn until(&self) -> Option<u64> {
        self.0.load().as_ref().map(|token| token.until)
    }
}

pub(super) struct Bearer {
    pub(super) header: HeaderName,
    pub(super) slot: Arc<TokenSlot>,
}

impl Bearer {
    pub(super) fn sign(&self, now: u64) -> Result<Fields, Unsignable> {
        let token = self.slot.0.load();
        // Never past its end, whatever became of the refresh.
        let token = token.as_ref().filter(|token| now < token.until).ok_or(Unsignable::NoToken)?;
        Ok(vec![(self.header.clone(), token.value.clone())])
    }
}
