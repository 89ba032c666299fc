//! Every leaf of the schema acts: two configs that differ in it alone, and a difference that is observed from outside.
//!
//! The leaves are read from the schema. A leaf without a proof fails by its name, and so does a proof whose leaf is gone. That
//! two configs differ in the leaf alone is checked as well: see [`Leaf::pair`].

mod budget;
mod cache;
mod caller;
mod cluster;
mod concurrency;
mod credential;
mod egress;
mod egress_listener;
mod egress_parent;
mod function;
mod guard;
mod handling;
mod health;
mod id_token;
mod leaf;
mod limit;
mod listener;
mod mirror;
mod platform;
mod ramp;
mod release;
mod retries;
mod route;
mod server;
mod timeouts;

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use self::leaf::{Leaf, Way, leaves};
use crate::harness::{Origin, Reply, full, origin};

type Proof = (&'static str, fn(Leaf));

/// `table![("leaf", proof), …]`: what each module proves.
macro_rules! table {
    ($(($leaf:literal, $proof:path)),* $(,)?) => {
        vec![$(($leaf, |leaf| super::alone($proof(leaf)))),*]
    };
}
use table;

fn proofs() -> Vec<Proof> {
    [
        server::proofs(),
        listener::proofs(),
        cache::proofs(),
        caller::proofs(),
        credential::proofs(),
        id_token::proofs(),
        function::proofs(),
        budget::proofs(),
        guard::proofs(),
        release::proofs(),
        ramp::proofs(),
        mirror::proofs(),
        platform::proofs(),
        retries::proofs(),
        health::proofs(),
        timeouts::proofs(),
        concurrency::proofs(),
        route::proofs(),
        handling::proofs(),
        limit::proofs(),
        cluster::proofs(),
        egress::proofs(),
        egress_listener::proofs(),
        egress_parent::proofs(),
    ]
    .concat()
}

/// So many proofs at a time: they wait more than they work.
const AT_ONCE: usize = 6;
/// No proof takes longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs a proof to its end on a runtime of its own.
fn alone(proof: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let in_time = tokio::time::timeout(LONGEST, proof).await.is_ok();
        assert!(in_time, "no end within {LONGEST:?}");
    });
}

/// Why the leaf does not act, if it doesn't.
fn refuted((name, run): Proof, way: Way) -> Option<String> {
    let leaf = Leaf::new(name, way);
    let compared = leaf.was_compared.clone();
    // A thread of its own: its panic is this leaf's alone.
    let proof = thread::Builder::new().name(name.to_owned()).spawn(move || run(leaf)).unwrap();
    match proof.join() {
        Ok(()) if compared.load(Relaxed) => None,
        Ok(()) => Some("no two configs were compared".to_owned()),
        Err(panic) => Some(match panic.downcast::<String>() {
            Ok(why) => *why,
            Err(other) => other.downcast::<&str>().map_or_else(|_| "it panicked".to_owned(), |why| (*why).to_owned()),
        }),
    }
}

/// Runs all proofs, or those of the leaves that begin with `GATEPOST_LEAF`.
fn prove(way: Way) {
    let only = std::env::var("GATEPOST_LEAF").unwrap_or_default();
    let queue: Vec<Proof> = proofs().into_iter().filter(|(name, _)| name.starts_with(&only)).collect();
    let queue = Mutex::new(queue.into_iter());
    let failed = Mutex::new(String::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(proof) = next else { return };
                    let started = Instant::now();
                    let why = refuted(proof, way);
                    if full() {
                        println!("{:9.3?} {}", started.elapsed(), proof.0);
                    }
                    if let Some(why) = why {
                        let _ = write!(failed.lock().unwrap(), "\n--- {}: {why}", proof.0);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these leaves don't act ({way:?}):{failed}");
}

#[test]
fn every_leaf_has_its_proof_and_every_proof_its_leaf() {
    let leaves = leaves();
    assert!(leaves.len() > 80, "the schema was walked: {leaves:#?}");
    let all = proofs();
    let proven: BTreeSet<String> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(proven.len(), all.len(), "two proofs for one leaf");
    let without: Vec<_> = leaves.difference(&proven).collect();
    assert!(without.is_empty(), "leaves without a proof: {without:#?}");
    let stale: Vec<_> = proven.difference(&leaves).collect();
    assert!(stale.is_empty(), "proofs of what is no leaf: {stale:#?}");
}

#[test]
fn every_leaf_acts_from_the_start() {
    prove(Way::Start);
}

#[test]
fn every_leaf_acts_by_a_reload() {
    prove(Way::Reload);
}

/// A function that answers with its name.
async fn named(name: &'static str) -> Origin {
    origin().reply(Reply::text(name)).start().await
}

/// `[function.f]` with one version, and a route to it that has these lines too.
fn one_function(url: &str, route: &str) -> String {
    format!("[function.f]\nversions = {{ v1 = \"{url}\" }}\n[route.f]\nfunction = \"f\"\n{route}\n")
}
