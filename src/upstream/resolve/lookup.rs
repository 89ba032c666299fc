//! Names to addresses when somebody asks: for egress, whose names nobody knows ahead.
//!
//! Per worker: what one worker has found, others ask for themselves, and none waits for another. An answer is kept for its TTL, 60 s at
//! most, a failure for a second; who asks while a question is under way gets the same answer. Names are looked up as they stand: search
//! domains are for people, and would let a name that a rule allows be another one.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{TokioResolver, proto::rr::Name};
use tokio::{sync::oneshot, time::Instant};

use super::{Family, Files, Found, Source, ask, client, in_hosts};

/// What was found, or why nothing was.
pub type Answer = Result<Arc<[IpAddr]>, Arc<str>>;

/// An answer is kept no longer than this, whatever its TTL.
const LONGEST: Duration = Duration::from_secs(60);
/// A failure is kept so long; an answer at least as well, for one that is asked for a thousand times a second.
const SHORTEST: Duration = Duration::from_secs(1);
/// Names that a worker keeps.
const NAMES: usize = 4096;
/// Addresses of one name that are kept.
const ADDRESSES: usize = 512;
/// Questions that a worker has under way.
const AT_ONCE: usize = 256;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

#[derive(Default)]
struct Worker {
    client: Option<(Source, TokioResolver)>,
    names: HashMap<Box<str>, Known>,
    asking: usize,
}

enum Known {
    Asking(Vec<oneshot::Sender<Answer>>),
    Is(Answer, Instant),
}

/// The addresses of `name` (lower case, without its last dot), v4 first, each family in order. `servers`: as of
/// [`Resolver::new`](super::Resolver::new).
///
/// # Errors
///
/// Why there are none, for the caller and the log.
pub async fn addresses(name: &str, servers: &[SocketAddr], deadline: Duration) -> Answer {
    let told = WORKER.with_borrow_mut(|worker| match worker.names.get_mut(name) {
        Some(Known::Is(answer, until)) if Instant::now() < *until => Err(answer.clone()),
        Some(Known::Asking(waiting)) => {
            let (tell, told) = oneshot::channel();
            waiting.push(tell);
            Ok(told)
        }
        _ if worker.asking >= AT_ONCE => Err(Err("too many names are being looked up".into())),
        _ => {
            worker.make_room();
            worker.asking += 1;
            let (tell, told) = oneshot::channel();
            worker.names.insert(name.into(), Known::Asking(vec![tell]));
            // A task of its own: who asked first may go away, and others wait for the same.
            tokio::spawn(find(name.into(), servers.into(), deadline));
            Ok(told)
        }
    });
    match told {
        Ok(told) => told.await.unwrap_or_else(|_| Err("the lookup broke off".into())),
        Err(known) => known,
    }
}

impl Worker {
    /// For one more name.
    fn make_room(&mut self) {
        if self.names.len() < NAMES {
            return;
        }
        let now = Instant::now();
        self.names.retain(|_, known| {
            matches!(known, Known::Asking(_)) || matches!(known, Known::Is(_, until) if now < *until)
        });
        if self.names.len() >= NAMES {
            self.names.retain(|_, known| matches!(known, Known::Asking(_)));
        }
    }
}

async fn find(name: Box<str>, servers: Arc<[SocketAddr]>, deadline: Duration) {
    let found = look_up(&name, servers, deadline).await;
    let (answer, keep) = match found {
        Ok(found) => {
            let of = |family: Family| match family {
                Family::Are(ips) => ips,
                Family::Unknown => Vec::new(),
            };
            let all = of(found.v4).into_iter().chain(of(found.v6)).take(ADDRESSES);
            (Ok(all.collect()), found.ttl.clamp(SHORTEST, LONGEST))
        }
        Err(why) => (Err(Arc::from(why)), SHORTEST),
    };
    let waiting = WORKER.with_borrow_mut(|worker| {
        worker.asking -= 1;
        let until = Instant::now() + keep;
        match worker.names.entry(name) {
            Entry::Occupied(mut known) => match known.insert(Known::Is(answer.clone(), until)) {
                Known::Asking(waiting) => waiting,
                Known::Is(..) => Vec::new(),
            },
            Entry::Vacant(_) => Vec::new(),
        }
    });
    for tell in waiting {
        // It may have given up.
        let _ = tell.send(answer.clone());
    }
}

async fn look_up(text: &str, servers: Arc<[SocketAddr]>, deadline: Duration) -> Result<Found, String> {
    let mut name = Name::from_ascii(text).map_err(|e| format!("not a name: {e}"))?;
    name.set_fqdn(true);
    let files = Files::default();
    if let Some(found) = in_hosts(&files, text, &name, SHORTEST) {
        return Ok(found);
    }
    let client = WORKER.with_borrow_mut(|worker| client(&mut worker.client, servers, &files))?;
    ask(&client, name, deadline).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::tests::dns::Dns, *};

    fn ips(answer: &Answer) -> Vec<String> {
        answer.as_ref().unwrap().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_gets_the_same_answer_of_one_question() {
        let dns = Dns::start().await;
        dns.answer("a.test", &["192.0.2.2", "192.0.2.1", "2001:db8::1"], 60);
        let servers = [dns.address()];
        let ask = || addresses("a.test", &servers, Duration::from_secs(5));
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!(ips(&one), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert_eq!(one, two);
        // The name has others by now; who asks again within the TTL does not learn of it.
        dns.answer("a.test", &["127.0.0.1"], 60);
        assert_eq!(ask().await, one);
        assert_eq!(dns.asked("a.test"), 2, "once for each family");
    }

    #[tokio::test]
    async fn failures_are_told_and_bounded() {
        let dns = Dns::start().await;
        dns.fail("fails.test");
        dns.fall_silent("silent.test");
        let servers = [dns.address()];
        let why = async |name| addresses(name, &servers, Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(&*why("absent.test").await, "the name does not exist");
        assert_eq!(&*why("silent.test").await, "no answer within 300ms");
        let all: HashSet<Arc<str>> = [why("fails.test").await].into();
        assert_eq!(all.len(), 1);
        assert!(WORKER.with_borrow(|worker| worker.asking) == 0);
    }
}
