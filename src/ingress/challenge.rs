//! Answers to ACME's HTTP-01 challenges (RFC 8555 §8.3): an authority asks for a token by plain HTTP, whatever the routes say.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

/// Where authorities ask (RFC 8555 §8.3).
const PREFIX: &str = "/.well-known/acme-challenge/";

/// The tokens that are asked for just now. Nearly always none.
#[derive(Debug, Default)]
pub struct Challenges {
    count: AtomicUsize,
    live: ArcSwap<HashMap<String, Arc<str>>>,
}

impl Challenges {
    /// Answers for `token` until what is returned is dropped.
    pub fn put(self: &Arc<Self>, token: &str, answer: &str) -> Live {
        self.change(|live| {
            live.insert(token.to_owned(), answer.into());
        });
        Live { all: self.clone(), token: token.to_owned() }
    }

    fn change(&self, change: impl Fn(&mut HashMap<String, Arc<str>>)) {
        self.live.rcu(|live| {
            let mut live = (**live).clone();
            change(&mut live);
            live
        });
        self.count.store(self.live.load().len(), Relaxed);
    }

    /// The answer for a path; `None`: it is a route's matter.
    pub fn answer(&self, path: &str) -> Option<Arc<str>> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let token = path.strip_prefix(PREFIX)?;
        self.live.load().get(token).cloned()
    }
}

/// A token while it is asked for.
#[derive(Debug)]
pub struct Live {
    all: Arc<Challenges>,
    token: String,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.all.change(|live| {
            live.remove(&self.token);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_for_while_it_lives_and_nothing_else_is() {
        let all = Arc::new(Challenges::default());
        assert_eq!(all.answer("/.well-known/acme-challenge/a"), None);
        let a = all.put("a", "a.key");
        let b = all.put("b", "b.key");
        assert_eq!(all.answer("/.well-known/acme-challenge/a").as_deref(), Some("a.key"));
        for other in
            ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/a/", "/a", "/.well-known/acme-challenge/c"]
        {
            assert_eq!(all.answer(other), None, "{other}");
        }
        drop(a);
        assert_eq!(all.answer("/.well-known/acme-challenge/a"), None);
        assert_eq!(all.answer("/.well-known/acme-challenge/b").as_deref(), Some("b.key"));
        drop(b);
        assert_eq!(all.answer("/.well-known/acme-challenge/b"), None);
    }
}
