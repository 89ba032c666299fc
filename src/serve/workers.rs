//! The threads that serve: each with a tokio runtime, a proxy and pools of its own, so that no request waits for a lock
//! that another one holds.

use std::{
    cell::RefCell,
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use pingora_core::{
    apps::HttpServerOptions,
    connectors::{ConnectorOptions, TransportConnector},
    server::configuration::ServerConf,
};
use pingora_proxy::http_proxy;
use tokio::{runtime, sync::watch};

use super::logs::Logs;
use crate::{
    egress,
    ingress::{
        Ingress, Proxy,
        conn::{self, ListenerKey, SWEEP},
        live::{self, Live},
        mirror,
    },
    upstream::{Candidates, lines},
};

/// Idle connections to functions that a worker keeps, all functions together.
const POOL: usize = 4096;
/// The same to mirrors.
const MIRRORS_POOL: usize = 128;

/// How long requests have to notice that they are cut: 500 ms in all.
const CUT: Duration = Duration::from_millis(10);
const CUTS: usize = 50;

/// One worker, as others see it.
#[derive(Debug)]
pub struct Worker {
    handle: runtime::Handle,
    /// Its connections.
    pub open: AtomicUsize,
    /// When it moved last, in nanoseconds since boot.
    seen: AtomicU64,
}

impl Worker {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    all: Vec<Arc<Worker>>,
    next: AtomicUsize,
}

thread_local! {
    static PROXY: RefCell<Option<Arc<Proxy>>> = const { RefCell::new(None) };
}

/// The proxy of this worker.
pub fn proxy() -> Option<Arc<Proxy>> {
    PROXY.with_borrow(Clone::clone)
}

/// Ends the threads when dropped.
pub struct Running {
    stop: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Ends the threads, with whatever they still serve.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// The system has no room for a thread or its poller.
    pub fn start(
        count: usize,
        live: &Arc<ArcSwap<Live>>,
        egress: &Arc<ArcSwap<egress::Live>>,
        logs: &Logs,
    ) -> io::Result<(Arc<Self>, Running)> {
        let (stop, stopping) = watch::channel(false);
        let mut all = Vec::new();
        let mut threads = Vec::new();
        for number in 0..count {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let seen = AtomicU64::new(live::now().0);
            let worker = Arc::new(Worker { handle: runtime.handle().clone(), open: AtomicUsize::new(0), seen });
            all.push(worker.clone());
            let (live, ports, mut stopping) = (live.clone(), logs.ports(), stopping.clone());
            let egress = egress.clone();
            let seed = RandomState::new().hash_one(number);
            threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                live::enter(number, live, ports.ingress, seed);
                egress::enter(number, egress, ports.shared, ports.own);
                runtime.block_on(async {
                    conn::sweep(live::now());
                    egress::sweep();
                    let mut tick = tokio::time::interval(SWEEP);
                    loop {
                        tokio::select! {
                            _ = stopping.wait_for(|stop| *stop) => break,
                            _ = tick.tick() => {
                                conn::sweep(live::now());
                                lines::sweep(live::now());
                                egress::sweep();
                                live::go_on(live::now());
                                worker.seen.store(live::now().0, Relaxed);
                            }
                        }
                    }
                    // What is cut still has its line in the log.
                    for _ in 0..CUTS {
                        // Both, whatever the first says.
                        if !(conn::cut() | egress::conn::cut()) {
                            break;
                        }
                        tokio::time::sleep(CUT).await;
                    }
                });
            })?);
        }
        Ok((Arc::new(Self { all, next: AtomicUsize::new(0) }), Running { stop, threads }))
    }

    /// The worker with the fewest connections; of several, they take turns.
    pub fn least_busy(&self) -> &Arc<Worker> {
        let first = self.next.fetch_add(1, Relaxed) % self.all.len();
        let (before, from) = self.all.split_at(first);
        from.iter().chain(before).min_by_key(|w| w.open.load(Relaxed)).unwrap_or(&self.all[0])
    }

    /// The runtime that accepts: with one worker, its own.
    pub fn only(&self) -> Option<&runtime::Handle> {
        match &*self.all {
            [one] => Some(&one.handle),
            _ => None,
        }
    }

    /// When each moved last, in nanoseconds since boot.
    pub fn seen(&self) -> impl Iterator<Item = u64> {
        self.all.iter().map(|worker| worker.seen.load(Relaxed))
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Lets connections end: of one listener, or all.
    pub fn drain(&self, listener: Option<ListenerKey>) {
        for worker in &self.all {
            worker.spawn(async move { conn::drain(listener) });
        }
    }

    /// Ready when each worker has done what it was told before.
    pub fn heard(&self) -> impl Future<Output = ()> + use<> {
        let all: Vec<_> = self.all.iter().map(|worker| worker.handle.spawn(async {})).collect();
        async move {
            for one in all {
                // One that is gone needs to hear nothing.
                let _ = one.await;
            }
        }
    }

    /// The same on the way out: tunnels go on.
    pub fn drain_egress(&self, listener: Option<u32>) {
        for worker in &self.all {
            worker.spawn(async move { egress::conn::drain(listener) });
        }
    }

    /// The same where the listener takes or believes others from now on.
    pub fn doubt_egress(&self, listener: u32) {
        for worker in &self.all {
            worker.spawn(async move { egress::conn::doubt(listener) });
        }
    }

    /// Lets each connection have one more request; tunnels go on.
    pub fn retire(&self) {
        for worker in &self.all {
            worker.spawn(async {
                conn::retire();
                egress::conn::retire();
            });
        }
    }

    /// Gives each worker a new proxy, with empty pools; requests under way keep the one that they have.
    ///
    /// # Errors
    ///
    /// What pingora panics with where it can't read the system's trusted certificates.
    pub fn renew_proxies(&self, roots: Roots) -> Result<(), String> {
        let new = move || {
            let mut options = ConnectorOptions::new(0);
            options.ca_file = no_roots(roots);
            (Arc::new(new_proxy(roots)), Arc::new(TransportConnector::new(Some(options))))
        };
        self.renew(new, |(proxy, connector)| {
            PROXY.set(Some(proxy));
            lines::enter(connector);
        })
    }

    /// Gives each worker new connections to mirrors.
    ///
    /// # Errors
    ///
    /// Like [`renew_proxies`](Self::renew_proxies).
    pub fn renew_mirrors(&self, roots: Roots) -> Result<(), String> {
        let new = move || {
            let mut options = ConnectorOptions::new(MIRRORS_POOL);
            options.ca_file = no_roots(roots);
            Arc::new(mirror::Connector::new(Some(options)))
        };
        self.renew(new, mirror::enter)
    }

    fn renew<T: Send + 'static>(&self, new: impl Fn() -> T + Copy + Send + 'static, put: fn(T)) -> Result<(), String> {
        // Loading the system's certificates takes a while: all at once.
        let (send, made) = mpsc::channel();
        for worker in &self.all {
            let (send, worker) = (send.clone(), worker.clone());
            let made = thread::spawn(move || {
                // Nobody listens only if the reload was given up.
                let _ = send.send((worker, new()));
            });
            made.join().map_err(|_| "the system's trusted certificates can't be loaded".to_owned())?;
        }
        drop(send);
        for (worker, made) in made {
            let (done, is_done) = mpsc::channel();
            worker.spawn(async move {
                put(made);
                let _ = done.send(());
            });
            // No connection may come before it.
            let _ = is_done.recv();
        }
        Ok(())
    }
}

/// Whom connections to functions trust that name no `ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Roots {
    /// Nobody: there is no such function, and loading takes a fifth of a second.
    None,
    System,
}

/// pingora loads the system's where it is given no file.
fn no_roots(roots: Roots) -> Option<String> {
    (roots == Roots::None).then(|| "/dev/null".to_owned())
}

fn new_proxy(roots: Roots) -> Proxy {
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: POOL,
        // Never reached: `ingress::retry` says when it is enough. Five rounds at most, each over all addresses and a dead connection.
        max_retries: 5 * (Candidates::MOST + 2) + 1,
        ca_file: no_roots(roots),
        ..ServerConf::default()
    };
    let mut proxy = http_proxy(&Arc::new(conf), Ingress);
    let mut options = HttpServerOptions::default();
    // Not to proxy them: pingora would answer 405 before any hook, and nobody would know.
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    proxy
}
