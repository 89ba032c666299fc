//! `[function.NAME] guard`: when a canary is sent back.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{Proof, leaf::Leaf, table};
use crate::harness::{Gateway, Origin, Reply, eventually, get, origin, when};

pub(super) fn proofs() -> Vec<Proof> {
    table![
        ("function.*.guard.action = rollback", action),
        ("function.*.guard.action = alert", action),
        ("function.*.guard.tolerate", tolerate),
        ("function.*.guard.false_alarm", false_alarm),
        ("function.*.guard.max_error_ratio", max_error_ratio),
        ("function.*.guard.min_requests", min_requests),
        ("function.*.guard.min_time", min_time),
        ("function.*.guard.window", window),
        ("function.*.guard.latency", latency),
        ("function.*.guard.warmup", warmup),
    ]
}

/// Two gateposts before the same stable v1 and canary v2, half and half, that differ in a key of the guard.
struct Compared {
    both: [Gateway; 2],
    v1: Origin,
    v2: Origin,
    callers: Cell<usize>,
}

const V2: [(&str, &str); 2] = [("function", "f"), ("version", "v2")];

async fn compared(leaf: Leaf, more: &str, one: &str, other: &str) -> Compared {
    let v1 = origin().reply("v1").start().await;
    let v2 = origin().reply("v2").start().await;
    let config = format!(
        "[function.f]\nversions = {{ v1 = \"{}\", v2 = \"{}\" }}\nweights = {{ v1 = \"rest\", v2 = 50 }}\n\
         sticky = {{ by = [\"header:x-openid\"] }}\nguard = {{ LEAF{more} }}\n[route.f]\nfunction = \"f\"\n",
        v1.url(),
        v2.url()
    );
    let both = leaf.pair(&config, one, other).start().await;
    Compared { both, v1, v2, callers: Cell::new(0) }
}

impl Compared {
    /// So many new callers, of each.
    async fn callers(&self, count: usize) {
        let first = self.callers.replace(self.callers.get() + count);
        for gateway in &self.both {
            let mut connection = gateway.connect().await;
            for caller in first..first + count {
                connection.send(get("/").header("x-openid", &format!("caller-{caller}"))).await;
            }
        }
    }

    async fn is(&self, which: usize, name: &str, verdict: &[(&str, &str)]) -> f64 {
        self.both[which].metrics().await.sum(name, &[&V2[..], verdict].concat())
    }

    async fn alarms(&self, which: usize) -> f64 {
        self.is(which, "gatepost_guard_alarms_total", &[]).await
    }

    async fn says(&self, which: usize, verdict: &str) -> bool {
        self.is(which, "gatepost_guard_verdict", &[("verdict", verdict)]).await == 1.0
    }

    /// What is known of the canary there.
    async fn evidence(&self, which: usize) -> Value {
        self.both[which].ask_admin("/api/v1/status").await.json()["guards"][0]["evidence"].clone()
    }

    /// Until it has judged all that these callers met.
    async fn has_judged_all(&self, which: usize) {
        eventually("all is judged", async || when(self.judged_all(which).await)).await;
    }

    async fn judged_all(&self, which: usize) -> bool {
        let evidence = self.evidence(which).await;
        let requests = |of: &str| evidence[of]["requests"].as_u64().unwrap_or(0);
        requests("canary") + requests("baseline") >= self.callers.get() as u64
    }

    /// The one raises the alarm, and the other doesn't, though it has judged as much.
    async fn one_alone_alarms(&self) {
        eventually("an alarm", async || when(self.alarms(0).await == 1.0)).await;
        self.has_judged_all(1).await;
        assert_eq!(self.alarms(1).await, 0.0);
    }
}

fn fails(origin: &Origin) {
    origin.now_answers(|_| Reply::text("no").status(500));
}

async fn action(leaf: Leaf) {
    let c = compared(leaf, "", "action = \"rollback\"", "action = \"alert\"").await;
    fails(&c.v2);
    c.callers(60).await;
    for (which, share) in [(0, 0.0), (1, 50.0)] {
        eventually("an alarm", async || when(c.alarms(which).await == 1.0)).await;
        assert_eq!(c.is(which, "gatepost_release_share", &[]).await, share);
    }
}

async fn tolerate(leaf: Leaf) {
    let c = compared(leaf, "", "tolerate = 1.5", "tolerate = 100").await;
    fails(&c.v2);
    c.callers(60).await;
    c.one_alone_alarms().await;
}

/// Sixteen errors and nothing else make odds of some hundred to one; on a machine so slow that they fall into many seconds, of less.
async fn false_alarm(leaf: Leaf) {
    let c = compared(leaf, "", "false_alarm = 5", "false_alarm = 0.0001").await;
    fails(&c.v2);
    for errors in [16, 24, 32] {
        while c.v2.requests() < 2 * errors {
            c.callers(1).await;
        }
        // Where it has seen enough before all had called, it judges no more: what comes then goes to v1.
        eventually("an alarm, or all is judged", async || when(c.alarms(0).await == 1.0 || c.judged_all(0).await))
            .await;
        if c.alarms(0).await == 1.0 {
            break;
        }
    }
    c.one_alone_alarms().await;
}

async fn max_error_ratio(leaf: Leaf) {
    let c = compared(leaf, "", "max_error_ratio = 20", "max_error_ratio = 90").await;
    for version in [&c.v1, &c.v2] {
        let asked = AtomicUsize::new(0);
        version.now_answers(move |_| match asked.fetch_add(1, Relaxed) % 2 {
            0 => Reply::text("no").status(500),
            _ => "yes".into(),
        });
    }
    c.callers(120).await;
    eventually("too many", async || when(c.says(0, "too_many_errors").await)).await;
    c.has_judged_all(1).await;
    assert!(c.says(1, "not_enough_data").await);
}

/// Enough without a failure.
async fn healthy(c: &Compared) {
    c.callers(1200).await;
    eventually("healthy", async || when(c.says(0, "healthy").await)).await;
    c.has_judged_all(1).await;
    assert!(c.says(1, "not_enough_data").await);
}

async fn min_requests(leaf: Leaf) {
    healthy(&compared(leaf, ", min_time = \"0s\"", "min_requests = 1", "min_requests = 100000").await).await;
}

async fn min_time(leaf: Leaf) {
    healthy(&compared(leaf, ", min_requests = 1", "min_time = \"1s\"", "min_time = \"1h\"").await).await;
}

/// One caller who fails again and again.
async fn window(leaf: Leaf) {
    let c = compared(leaf, "", "window = \"1s\"", "window = \"1h\"").await;
    fails(&c.v2);
    // Whoever that is: both place him alike.
    let mut unlucky = 0;
    while c.both[0].send(get("/").header("x-openid", &format!("u{unlucky}"))).await.status == 200 {
        unlucky += 1;
    }
    let counted = async |which| c.evidence(which).await["canary"]["errors_counted"].as_u64().unwrap_or(0);
    eventually("the second error counts", async || {
        for gateway in &c.both {
            gateway.send(get("/").header("x-openid", &format!("u{unlucky}"))).await;
        }
        when(counted(0).await >= 2 && counted(1).await >= 1)
    })
    .await;
    assert_eq!(counted(1).await, 1);
}

/// A canary that becomes slow once it is known how long the baseline takes.
async fn slow(c: &Compared) {
    c.callers(900).await;
    for which in [0, 1] {
        eventually("it is known what is slow", async || {
            c.callers(1).await;
            when(c.evidence(which).await["canary"]["timed"].as_u64() > Some(0))
        })
        .await;
    }
    c.v2.now_answers(|_| {
        thread::sleep(Duration::from_millis(60));
        "v2".into()
    });
    eventually("an alarm", async || {
        c.callers(20).await;
        when(c.is(0, "gatepost_guard_alarms_total", &[("verdict", "slower")]).await == 1.0)
    })
    .await;
    assert_eq!(c.alarms(1).await, 0.0);
}

async fn latency(leaf: Leaf) {
    slow(&compared(leaf, ", warmup = \"0s\"", "latency = 2", "latency = 100").await).await;
}

async fn warmup(leaf: Leaf) {
    slow(&compared(leaf, ", latency = 2", "warmup = \"0s\"", "warmup = \"1h\"").await).await;
}
