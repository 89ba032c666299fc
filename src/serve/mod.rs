//! The composition root: sockets, TLS, reload, drain. Everything that lives is made and ended here.
//!
//! Threads: one per worker ([`workers`]), each with a runtime, a proxy and pools of its own; this one, which owns the
//! [`service`] and takes signals, reloads and admin calls, and on whose runtime names are resolved; one that accepts,
//! where there are several workers; one each for watching files and writing the access log.

mod acme;
mod admin_port;
pub mod bind;
mod board;
mod budgets;
mod certificate;
mod checks;
pub mod client_tls;
mod cluster;
mod connection;
pub mod echo;
mod egress;
pub mod generations;
mod guards;
mod h2;
pub mod hand_over;
mod hooks;
mod identity;
mod inherited;
pub mod jwks;
mod listener;
mod listeners;
mod logs;
mod made;
mod memory;
pub mod notify;
mod outliers;
mod parents;
mod per_ip;
pub mod present;
pub mod receipt;
mod releases;
pub mod requests;
mod resting;
mod service;
mod signers;
mod tickets;
mod tls;
mod tokens;
pub mod watch;
mod way_out;
mod workers;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch as channel},
};

pub use receipt::{Receipt, ReloadResult};

use crate::{
    config::{
        self, Mode,
        model::{ListenAddress, Name},
    },
    serve::{
        generations::Author,
        hand_over::{
            new::{self, Arrival},
            old::{News, Program},
        },
        inherited::Inherited,
        requests::{Kind, Request},
        service::{Service, upgrade::Coming},
        watch::{Watch, WatchEvent},
    },
};

/// Called with where everything listens.
pub type OnReady = Box<dyn FnOnce(&Ready) + Send>;
/// Called with what a reload did.
pub type OnReceipt = Box<dyn Fn(&Receipt) + Send + Sync>;

/// What is served with.
#[derive(Default)]
pub struct Options {
    /// The main config file.
    pub config: PathBuf,
    /// Called once, when everything listens.
    pub on_ready: Option<OnReady>,
    /// Called after each reload.
    pub on_receipt: Option<OnReceipt>,
    /// Turns true to drain and stop, like SIGTERM; `None`: signals alone.
    pub stop: Option<channel::Receiver<bool>>,
    /// What an upgrade starts; and this process may have been started by one, or by systemd's socket unit. `None`: this is a part of
    /// another program, and none of that.
    pub program: Option<Program>,
}

/// Where it listens.
#[derive(Debug, Clone)]
pub struct Ready {
    pub generation: u64,
    pub listeners: Vec<(Name, ListenAddress)>,
    pub admin: ListenAddress,
}

/// What the service is asked by other threads and tasks.
enum Order {
    Reload(Author, Option<oneshot::Sender<Receipt>>),
    /// A file changed.
    Look,
    /// Requests wait in the state directory.
    Requests,
    /// A ramp's hook has answered.
    Answered(hooks::Answered),
    /// What becomes of an upgrade.
    Successor(News),
}

/// Serves until it is told to stop: SIGTERM, SIGINT or `stop`.
///
/// # Errors
///
/// A [`Report`](crate::config::Report) where the config is wrong; else what the system refused at the start.
pub fn run(options: Options) -> Result<()> {
    if options.program.is_none() {
        return serve(options, Coming::default());
    }
    let program = options.program.clone();
    if !new::is_announced() {
        let inherited = Inherited::from_systemd().map_err(|e| anyhow!(e))?.into();
        return serve(options, Coming { inherited, arrival: None, program });
    }
    let mut arrival = Arrival::receive().map_err(|e| anyhow!(e))?;
    let inherited = arrival.inherited();
    let arrival = Arc::new(arrival);
    let served = inherited.map_err(|e| anyhow!(e)).and_then(|inherited| {
        serve(options, Coming { inherited: inherited.into(), arrival: Some(arrival.clone()), program })
    });
    if let Err(error) = &served {
        arrival.fails(&format!("{error:#}"));
    }
    served
}

fn serve(options: Options, coming: Coming) -> Result<()> {
    let loaded = config::load(&options.config, Mode::Run)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(control(options, loaded, coming))
}

async fn control(options: Options, loaded: config::Loaded, coming: Coming) -> Result<()> {
    let Options { config, on_ready, on_receipt, stop, program: _ } = options;
    // Before anything listens: a signal that comes early must not kill.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let mut stopped = Stop(stop);

    let (orders, mut received) = mpsc::unbounded_channel();
    let took_over = coming.arrival.is_some();
    let mut service = Service::start(config, loaded, orders.clone(), coming).await?;
    if took_over {
        // It may have changed while two processes had other things to do.
        let _ = orders.send(Order::Look);
    }
    let tells = orders.clone();
    let watching = Watch::start(service.watch_set(), move |event| {
        // The service ends before its watch.
        let _ = tells.send(match event {
            WatchEvent::Config => Order::Look,
            WatchEvent::Requests => Order::Requests,
        });
    })
    .context("cannot watch the config")?;

    let ready = service.ready();
    tracing::info!(generation = ready.generation, "ready");
    notify::ready(&service.summary());
    if let Some(on_ready) = on_ready {
        on_ready(&ready);
    }
    let tell = |receipt: &Receipt| {
        if let Some(on_receipt) = &on_receipt {
            on_receipt(receipt);
        }
    };
    let mut beat = tokio::time::interval(notify::watchdog_interval().map_or(BEAT, |i| i / 2));
    let mut ramps = tokio::time::interval(releases::LOOK);
    ramps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut addresses = tokio::time::interval(LOOK_AT_ADDRESSES);
    addresses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The start has told already.
    let mut ends = tokio::time::interval_at(tokio::time::Instant::now() + TELL_OF_ENDS, TELL_OF_ENDS);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut around = tokio::time::interval(LOOK_AROUND);
    around.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut judging = tokio::time::interval(JUDGE);
    judging.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut postponed = Vec::new();
    loop {
        let order = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = stopped.wait() => break,
            _ = hangup.recv() => {
                service.reopen_log();
                Order::Reload(Author { by: Some("SIGHUP".to_owned()), reason: None }, None)
            }
            _ = upgrade.recv() => {
                let by = Author { by: Some("SIGUSR2".to_owned()), reason: None };
                service.begin_upgrade(None, &Request::new(Kind::Upgrade, by));
                continue;
            }
            _ = ramps.tick() => {
                service.hear_counts();
                if service.is_frozen() {
                    continue;
                }
                service.pass_time();
                service.look_at_health();
                service.look_at_resting();
                service.send_checks();
                continue;
            }
            _ = ends.tick() => {
                service.warn_of_ends();
                continue;
            }
            _ = second.tick(), if service.has_books() && !service.is_frozen() => {
                service.keep_books();
                continue;
            }
            _ = judging.tick(), if service.is_judging() && !service.is_frozen() => {
                service.judge();
                continue;
            }
            _ = addresses.tick() => {
                service.look_at_addresses();
                continue;
            }
            _ = around.tick() => {
                service.look_around();
                continue;
            }
            _ = beat.tick() => {
                service.show_life();
                continue;
            }
            Some(order) = received.recv() => order,
        };
        // One thing at a time: what is asked for meanwhile is for whoever serves then.
        if service.is_upgrading() && matches!(order, Order::Look | Order::Reload(..)) {
            postponed.push(order);
            continue;
        }
        match order {
            Order::Successor(news) => {
                if service.hear_of_successor(news) {
                    drop(watching);
                    drop(postponed);
                    let hurry = hurry(&mut terminate, &mut interrupt);
                    service.leave(hurry, received).await;
                    return Ok(());
                }
                if !service.is_upgrading() {
                    let _ = orders.send(Order::Requests);
                    for order in postponed.drain(..) {
                        let _ = orders.send(order);
                    }
                }
            }
            Order::Look => {
                // Several files of one change, or one that was changed back.
                if let Some(receipt) = service.reload(&Author::default(), false).await {
                    tell(&receipt);
                }
                // It may be what a command announced.
                service.answer_requests().await;
            }
            Order::Reload(author, answer) => {
                if let Some(receipt) = service.reload(&author, true).await {
                    tell(&receipt);
                    if let Some(answer) = answer {
                        // The admin call may have been given up.
                        let _ = answer.send(receipt);
                    }
                }
            }
            Order::Answered(answered) => {
                service.hook_answered(answered);
                continue;
            }
            Order::Requests => {
                for receipt in service.answer_requests().await {
                    tell(&receipt);
                }
            }
        }
        // Requests that wait for the end of an upgrade would be told of again, and again.
        if !service.is_upgrading() {
            watching.set(service.watch_set());
        }
    }
    drop(watching);
    notify::stopping("draining");
    service.stop(hurry(&mut terminate, &mut interrupt)).await;
    Ok(())
}

/// A second signal ends the wait.
async fn hurry(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// How often the service shows that it lives, where nobody says how often.
const BEAT: Duration = Duration::from_secs(10);

/// How often the service looks at itself.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How often guards judge.
const JUDGE: Duration = Duration::from_secs(1);
/// How often it is looked whether the addresses to listen on and to leave from are there.
const LOOK_AT_ADDRESSES: Duration = Duration::from_secs(1);

/// How often certificates that end soon are told of.
const TELL_OF_ENDS: Duration = Duration::from_secs(12 * 3600);

struct Stop(Option<channel::Receiver<bool>>);

impl Stop {
    async fn wait(&mut self) {
        let told = match &mut self.0 {
            Some(stop) => stop.wait_for(|stop| *stop).await.is_ok(),
            None => false,
        };
        // An owner that is gone can't say stop any more.
        if !told {
            std::future::pending().await
        }
    }
}
