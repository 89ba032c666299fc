//! What was decided of a request, kept for the phases that follow.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Method, Uri};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};

use super::{
    body_coding::{Coder, Wish},
    cache,
    conn::Conn,
    left,
    live::{self, Live},
    mirror,
    reply::Answer,
    retry, sign,
    tell::tell_of_lost,
};
use crate::{
    config::model::{ClientId, FunctionId, RouteId, VersionId},
    decide::{
        Class, Now, PickedBy, Reason, WeightsFrom,
        budget::Taken,
        split::{Pick, StickyId},
    },
    observe::metrics::CacheResult,
    upstream::{Candidates, concurrency::Place},
};

/// A request's context.
pub struct Ctx {
    pub(super) started: Now,
    pub(super) worker: usize,
    pub(super) live: Option<Arc<Live>>,
    pub(super) conn: Option<Arc<Conn>>,
    /// Of h2: the request's own bounds; those of HTTP/1 are the connection's.
    pub(super) stream: Option<Arc<Conn>>,
    pub(super) is_h2: bool,
    /// What was asked, for a request that comes to no proper end.
    pub(super) asked: Option<(Method, Uri)>,
    /// The Host as it came: what goes on is another.
    pub(super) asked_host: Option<HeaderValue>,
    /// For the log: the host as decided, where it isn't the first [`host_len`](Self::host_len) bytes of what came.
    pub(super) host: Option<Box<str>>,
    pub(super) host_len: Option<usize>,
    pub(super) request_id: HeaderValue,
    pub(super) client_ip: Option<IpAddr>,
    pub(super) client: Option<ClientId>,
    pub(super) route: Option<RouteId>,
    pub(super) picked: Option<Picked>,
    /// What goes to the function as target, where that isn't what came.
    pub(super) target: Option<Box<str>>,
    /// For the log: the path as decided, where that isn't what came.
    pub(super) path: Option<Box<str>>,
    pub(super) refusal: Option<(Reason, Cow<'static, str>)>,
    pub(super) candidates: Option<Candidates>,
    pub(super) address: Option<SocketAddr>,
    /// Of the connection to it, where that is in pingora's pools.
    pub(super) group_key: Option<u64>,
    /// A request that nobody made: it gives a connection of this peer back ([`left`]).
    pub(super) gives_back: Option<Box<HttpPeer>>,
    /// A kept connection failed this request: the next attempt takes a fresh one.
    pub(super) wants_fresh: bool,
    pub(super) again: retry::Again,
    pub(super) is_upgrade: bool,
    /// The request's body, where it was read before its head could be signed.
    pub(super) body: Option<sign::Body>,
    pub(super) is_preflight: bool,
    /// A page that goes out in place of the function's answer.
    pub(super) page: Option<Box<Answer>>,
    /// Such a page's body, which goes out as the function's comes.
    pub(super) swap: Option<bytes::Bytes>,
    /// The page went out alone.
    pub(super) is_paged: bool,
    /// Of a route with `compression`: what the caller may have.
    pub(super) wish: Option<Wish>,
    pub(super) coder: Option<Box<Coder>>,
    /// Of a route with `cors`: the caller's Origin, as it came.
    pub(super) origin: Option<HeaderValue>,
    /// Of a route with `cache`: what that did, and what is left of it to do.
    pub(super) cache_result: Option<CacheResult>,
    pub(super) asking: Option<Box<cache::Asking>>,
    /// The bound of the body, and how much of it is left; `None`: no bound.
    pub(super) body_left: Option<(u64, u64)>,
    /// Of a function with a budget: that this call was let in.
    pub(super) taken: Option<Taken>,
    /// What its function's mirror gets of it.
    pub(super) mirror: Option<mirror::Copy>,
    /// pingora was given the whole answer.
    pub(super) is_whole: bool,
    /// Where the function has only so many.
    pub(super) place: Option<Place>,
    /// How long it was waited for.
    pub(super) queued: Duration,
    pub(super) attempts: u32,
    pub(super) attempt_started: Now,
    pub(super) connect: Option<Duration>,
    pub(super) sent_at: Option<Now>,
    pub(super) upstream: Option<Duration>,
    pub(super) upstream_status: Option<u16>,
    /// How the call ended, where rules say so.
    pub(super) outcome: Option<Class>,
    /// Whether the platform bills the call, where a rule says so.
    pub(super) billed: Option<bool>,
    pub(super) platform_request_id: Option<HeaderValue>,
    pub(super) total: Option<Duration>,
    pub(super) is_logged: bool,
    /// Among those under way.
    pub(super) is_counted: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Picked {
    pub(super) function: FunctionId,
    pub(super) version: VersionId,
    pub(super) picked_by: PickedBy,
    pub(super) weights_from: WeightsFrom,
    pub(super) cookie: Option<StickyId>,
    /// Of a sticky caller: the hash of his key.
    pub(super) caller: Option<u64>,
}

impl Picked {
    pub(super) fn of(function: FunctionId, pick: &Pick) -> Self {
        let Pick { version, picked_by, weights_from, issue_cookie: cookie, caller } = *pick;
        Self { function, version, picked_by, weights_from, cookie, caller }
    }
}

impl Ctx {
    pub(super) fn new() -> Self {
        Self {
            started: live::now(),
            worker: 0,
            live: None,
            conn: None,
            stream: None,
            is_h2: false,
            asked: None,
            asked_host: None,
            host: None,
            host_len: None,
            request_id: HeaderValue::from_static("-"),
            client_ip: None,
            client: None,
            route: None,
            picked: None,
            target: None,
            path: None,
            refusal: None,
            candidates: None,
            address: None,
            group_key: None,
            gives_back: left::next(),
            wants_fresh: false,
            again: retry::Again::default(),
            is_upgrade: false,
            body: None,
            is_preflight: false,
            page: None,
            swap: None,
            is_paged: false,
            wish: None,
            coder: None,
            origin: None,
            cache_result: None,
            asking: None,
            body_left: None,
            taken: None,
            mirror: None,
            is_whole: false,
            place: None,
            queued: Duration::ZERO,
            attempts: 0,
            attempt_started: Now(0),
            connect: None,
            sent_at: None,
            upstream: None,
            upstream_status: None,
            outcome: None,
            billed: None,
            platform_request_id: None,
            total: None,
            is_logged: false,
            is_counted: false,
        }
    }

    /// What bounds this request: of h2 its own, of HTTP/1 its connection's.
    pub(super) fn bounds(&self) -> Option<&Conn> {
        self.stream.as_deref().or(self.conn.as_deref())
    }

    pub(super) fn live(&self) -> Result<&Arc<Live>> {
        self.live.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "a request outside of a worker"))
    }
}

impl Drop for Ctx {
    /// Also of a request that was cut off, or whose code panicked: no gauge may keep it.
    fn drop(&mut self) {
        if !self.is_logged {
            tell_of_lost(self);
            if let (Some(live), Some(picked), Some(address), Some(group_key), Some(_)) =
                (&self.live, self.picked, self.address, self.group_key, self.sent_at)
            {
                left::leave(live.target(picked.function, picked.version), address, group_key);
            }
        }
        if self.is_counted {
            live::request_ends();
        }
        if let (Some(live), Some(picked)) = (&self.live, &self.picked) {
            live.handles.leave(self.worker, picked.function, picked.version);
            if let Some((place, places)) = self.place.take().zip(live.places(picked.function)) {
                places.give_back(place, live::now());
            }
        }
        if let Some(conn) = self.conn.as_ref().filter(|_| self.is_h2) {
            conn.stream_ends();
        }
    }
}

/// How long ago that was.
pub(super) fn since(then: Now) -> Duration {
    Duration::from_nanos(live::now().0.saturating_sub(then.0))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::Duration};

    use arc_swap::ArcSwap;

    use super::*;
    use crate::{
        config::{Sources, model::AccessSink, parse},
        decide::compile,
        ingress::conn::{Info, ListenerKey},
        observe::{AccessLog, Metrics},
    };

    /// A request as far as its function works on it.
    fn under_way(path: &str) -> Ctx {
        let (worker, live) = live::current().unwrap();
        let peer: SocketAddr = "192.0.2.7:5000".parse().unwrap();
        let listener = ListenerKey(0);
        let conn = Conn::new(
            Info { listener, peer: Some(peer), tls: false, is_told: false },
            live.snapshot.config.listeners[0].timeouts,
        );
        let mut ctx = Ctx::new();
        ctx.asked = Some((Method::GET, path.parse().unwrap()));
        ctx.is_counted = live::request_begins(live.max_requests);
        assert!(ctx.is_counted, "there is a place for {path}");
        ctx.worker = worker;
        ctx.client_ip = Some(peer.ip());
        ctx.route = Some(RouteId(0));
        let (function, version) = (FunctionId(0), VersionId(0));
        let (picked_by, weights_from) = (PickedBy::Weight, WeightsFrom::File);
        ctx.picked = Some(Picked { function, version, picked_by, weights_from, cookie: None, caller: None });
        live.handles.enter(worker, function, version);
        (ctx.live, ctx.conn) = (Some(live), Some(conn));
        ctx
    }

    /// No request can be made to panic from outside, so that this one does it itself, on a worker's kind of runtime.
    #[test]
    fn a_panic_ends_its_own_request_with_a_line_and_the_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = { v1 = \"http://f.test\" }\n\
                    [route.f]\nfunction = \"f\"\n";
        let mut config =
            parse(&Sources::new([("t.toml", text.to_owned())])).unwrap_or_else(|report| panic!("{report}"));
        let path = dir.path().join("access.log");
        config.log.access = AccessSink::File(path.clone());
        let log = AccessLog::start(&config.log).unwrap();
        let metrics = Metrics::new(1);
        let handles = metrics.resolve(&config);
        metrics.install(handles.clone(), 1);
        let live = Live {
            snapshot: compile(config, 1, "hash".to_owned(), 1, None, live::now()),
            caches: Arc::default(),
            places: Arc::default(),
            targets: Arc::default(),
            hosts: Arc::default(),
            signers: Arc::default(),
            handles: handles.clone(),
            guards: Arc::default(),
            mirrors: Arc::default(),
            listeners: vec![Some(crate::config::model::ListenerId(0))],
            // As many as there are here: a place that a panic kept would be missed.
            max_requests: 2,
            shedding: Arc::default(),
            challenges: Arc::default(),
        };
        live::enter(0, Arc::new(ArcSwap::from_pointee(live)), log.port(), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let goes_on = tokio::spawn(async {
                let ctx = under_way("/goes-on");
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                ctx.attempts
            });
            for _ in 0..5 {
                let panics = tokio::spawn(async {
                    let _ctx = under_way("/panics");
                    tokio::task::yield_now().await;
                    panic!("a slip of the code");
                });
                assert!(panics.await.unwrap_err().is_panic());
            }
            assert_eq!(goes_on.await.unwrap(), 0, "it came to its end");
        });
        let in_flight: i64 = handles.versions().map(|(.., in_flight)| in_flight).sum();
        assert_eq!(in_flight, 0);
        assert!(live::request_begins(1), "no place is kept");
        assert!(log.close(Duration::from_secs(10)));
        let lines = std::fs::read_to_string(path).unwrap();
        assert_eq!(lines.matches("\"path\":\"/panics\"").count(), 5, "{lines}");
        assert_eq!(lines.matches("\"class\":\"aborted\"").count(), 6, "{lines}");
        assert!(metrics.render().contains("class=\"aborted\"} 6"), "{}", metrics.render());
    }
}
