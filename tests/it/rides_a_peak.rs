//! A peak onto a platform that throttles: with the queue the platform is kept busy and hardly a caller sees a throttle.
//!
//! The full run is the one of `docs/performance.md`: for that build both with optimisation, and ask for it with `GATEPOST_FULL=1`.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::{
    Gateway, eventually, full, gateway,
    peak::{Callers, Plan, Platform, come},
    ports::free,
    process::Process,
    when,
};

fn config(platform: &Platform, concurrency: &str) -> String {
    format!(
        "[log]\naccess = \"off\"\n[function.f]\nversions = {{ v1 = \"http://{}\" }}\n{concurrency}\n[route.f]\nfunction = \"f\"\n",
        platform.address
    )
}

async fn before(platform: &Platform, concurrency: &str) -> Gateway {
    gateway(config(platform, concurrency)).start().await
}

/// Whatever this machine's speed: the cap counts what the platform counts and a little more, so that it never has one too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_cap_nobody_is_throttled_and_everybody_is_served_or_told_to_come_again() {
    let plan = Plan { call: Duration::from_millis(50), throttle: Duration::from_millis(5), limit: 20, growth: 0 };
    let platform = Platform::start(plan).await;
    let gateway = before(&platform, "concurrency = { max = 20, queue = 40, wait = \"500ms\" }").await;
    let rate = |now: Duration| if now.as_millis() < 300 { 100.0 } else { 1500.0 };
    let callers = come(gateway.address("in"), Duration::from_millis(1500), rate).await;
    assert_eq!((platform.throttled(), callers.throttled), (0, 0), "{callers:?}");
    assert!(platform.most() <= 20, "{} at a time", platform.most());
    assert_eq!(callers.ok + callers.overloaded, callers.sent, "{:?}", callers.others);
    assert_eq!(callers.ok, platform.served());
    assert!(callers.ok > 0);
    let of = [("function", "f")];
    gateway.counts("gatepost_concurrency_in_use", &of, 0.0).await;
    let metrics = gateway.metrics().await;
    let results =
        ["late", "full", "displaced"].map(|result| metrics.sum("gatepost_queue_total", &[of[0], ("result", result)]));
    assert_eq!(results.iter().sum::<f64>(), callers.overloaded as f64, "every 503 has its cause: {results:?}");
    assert_eq!(metrics.sum("gatepost_queue_length", &of), 0.0);
}

/// What the platform takes is found out by its throttles, and held to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_the_platforms_limit_finds_it() {
    let plan = Plan { call: Duration::from_millis(40), throttle: Duration::from_millis(1), limit: 20, growth: 0 };
    let platform = Platform::start(plan).await;
    let concurrency =
        "concurrency = { queue = 300, wait = \"10s\", adaptive = { min = 5, decrease = 10, increase = \"1/s\" } }";
    let gateway = before(&platform, concurrency).await;
    // All at once, until it has complained.
    let address = gateway.address("in");
    let mut throttled = 0;
    while throttled == 0 {
        throttled += come(address, Duration::from_millis(100), |_| 2000.0).await.throttled;
    }
    assert!(platform.throttled() > 0);
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("gatepost_concurrency_decreases_total", &[("function", "f")]) >= 1.0);
    // It comes down to what the platform takes, however far above it began.
    eventually("it has found the limit", async || {
        come(address, Duration::from_millis(50), |_| 2000.0).await;
        let limit = gateway.metrics().await.sum("gatepost_concurrency_adaptive_limit", &[("function", "f")]);
        when((5.0..=40.0).contains(&limit))
    })
    .await;
}

struct Nginx {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: its workers must go with it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

async fn nginx(platform: &Platform) -> Nginx {
    let dir = TempDir::with_prefix("nginx-").unwrap();
    let address = free("127.0.0.1");
    let text = format!(
        "daemon off; user root; worker_processes 2; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 16000; }}\n\
         http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0}; uwsgi_temp_path {0};\n\
         scgi_temp_path {0}; upstream f {{ server {1}; keepalive 2000; }}\n\
         server {{ listen {2}; keepalive_requests 1000000; location / {{ proxy_pass http://f; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
        dir.path().display(),
        platform.address,
        address
    );
    let file = dir.path().join("nginx.conf");
    fs::write(&file, text).unwrap();
    let child = Command::new("nginx")
        .args(["-p", &dir.path().display().to_string(), "-c"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs nginx: apt-get install nginx");
    eventually("nginx listens", async || when(tokio::net::TcpStream::connect(address).await.is_ok())).await;
    Nginx { child, address, _dir: dir }
}

/// For a machine that is too slow or too busy: `GATEPOST_PEAK=0.1` makes it a tenth of everything but times.
fn scaled(n: f64) -> f64 {
    let scale = std::env::var("GATEPOST_PEAK").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    (n * scale).round().max(1.0)
}

/// 200 a second, then in one second up to 5,000.
fn peak(now: Duration) -> f64 {
    scaled((200.0 + (now.as_secs_f64() - CALM).clamp(0.0, 1.0) * 4800.0).min(5000.0))
}

/// How long there are 200 a second, and how long all of it takes.
const CALM: f64 = 2.0;
const ALL: Duration = Duration::from_secs(20);

fn plan() -> Plan {
    let call = Duration::from_millis(100);
    Plan { call, throttle: Duration::from_millis(5), limit: scaled(300.0) as usize, growth: scaled(500.0) as usize }
}

/// One line of the table.
async fn ride(name: &str, platform: Platform, address: SocketAddr, process: Option<Process>) -> (Callers, f64) {
    let memory = Arc::<Mutex<Vec<u64>>>::default();
    let taken = memory.clone();
    let meter = tokio::spawn(async move {
        while let Some(process) = process {
            taken.lock().unwrap().push(process.rss() >> 20);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    // What it can carry is counted from when it is asked for more than that: 3,000/s of 5,000.
    let from = Instant::now() + Duration::from_secs_f64(CALM + 0.6);
    let counts = tokio::spawn(async move {
        tokio::time::sleep_until(from).await;
        let before = platform.served();
        tokio::time::sleep_until(from + ALL - Duration::from_secs_f64(CALM + 0.6)).await;
        let carried = (platform.served() - before) as f64 / platform.capacity(from);
        // It serves until the last caller has its answer.
        (100.0 * carried, platform)
    });
    let callers = come(address, ALL, peak).await;
    let (carried, platform) = counts.await.unwrap();
    let (limit, throttled) = (platform.limit(), platform.throttled());
    meter.abort();
    let memory = std::mem::take(&mut *memory.lock().unwrap());
    // At rest, five seconds into the peak, and at its end.
    let memory = [0, 35, memory.len().saturating_sub(1)].map(|at| memory.get(at).copied().unwrap_or_default());
    println!(
        "| {name} | {} | {} | {carried:.1} % | {} ({:.2} %) | {} ({:.1} %) | {} | {:.0} / {:.0} | {memory:?} | {limit}, {throttled} |",
        callers.sent,
        callers.ok,
        callers.throttled,
        callers.share(callers.throttled),
        callers.overloaded,
        callers.share(callers.overloaded),
        callers.others.iter().map(|(what, n)| format!("{what}: {n}")).collect::<Vec<_>>().join(", "),
        callers.quantile(0.5),
        callers.quantile(0.99),
    );
    (callers, carried)
}

/// The figure of the issue, and its neighbours. Only with `GATEPOST_FULL=1`: it wants a machine that carries 5,000 requests a second three times over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_200_to_5000_a_second() {
    if !full() {
        return;
    }
    println!(
        "| | sent | served | of what the platform can carry | throttled (429) | 503 `overloaded` | other | ms p50 / p99 | MiB at rest, in the peak, at its end | platform's limit at the end, throttles |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let platform = Platform::start(plan()).await;
    let through = nginx(&platform).await;
    ride("nginx", platform, through.address, None).await;
    drop(through);
    let queue = format!("queue = {}, wait = \"800ms\"", scaled(1000.0));
    let growth =
        |rate: f64, burst: f64| format!("growth = {{ rate = \"{}/min\", burst = {} }}", scaled(rate), scaled(burst));
    let adaptive = format!("adaptive = {{ decrease = 2, increase = \"{}/s\" }}", scaled(20.0));
    let rows = [
        ("gatepost, without", String::new()),
        ("`growth`, the platform's own figures", format!("concurrency = {{ {queue}, {} }}", growth(500.0, 300.0))),
        ("`adaptive`, nothing known", format!("concurrency = {{ {queue}, {adaptive} }}")),
        ("both, `growth` with air", format!("concurrency = {{ {queue}, {}, {adaptive} }}", growth(600.0, 330.0))),
    ];
    for (name, concurrency) in rows {
        let platform = Platform::start(plan()).await;
        let gateway = before(&platform, &concurrency).await;
        ride(name, platform, gateway.address("in"), Some(gateway.process())).await;
    }
}
