//! What was decided of a request, kept for the phases that follow.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Method, Uri};
use pingora_error::{Error, ErrorType, Result};

use super::{
    conn::Conn,
    live::{self, Live},
    sign,
    tell::tell_of_lost,
};
use crate::{
    config::model::{ClientId, FunctionId, RouteId, VersionId},
    decide::{Now, PickedBy, Reason, WeightsFrom, split::StickyId},
    upstream::Candidates,
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
    /// A kept connection failed this request: the next attempt takes a fresh one.
    pub(super) wants_fresh: bool,
    pub(super) is_upgrade: bool,
    /// The request's body, where it was read before its head could be signed.
    pub(super) body: Option<sign::Body>,
    pub(super) is_preflight: bool,
    /// Of a route with `cors`: the caller's Origin, as it came.
    pub(super) origin: Option<HeaderValue>,
    /// The bound of the body, and how much of it is left; `None`: no bound.
    pub(super) body_left: Option<(u64, u64)>,
    /// pingora was given the whole answer.
    pub(super) is_whole: bool,
    pub(super) attempts: u32,
    pub(super) attempt_started: Now,
    pub(super) connect: Option<Duration>,
    pub(super) sent_at: Option<Now>,
    pub(super) upstream: Option<Duration>,
    pub(super) upstream_status: Option<u16>,
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
            wants_fresh: false,
            is_upgrade: false,
            body: None,
            is_preflight: false,
            origin: None,
            body_left: None,
            is_whole: false,
            attempts: 0,
            attempt_started: Now(0),
            connect: None,
            sent_at: None,
            upstream: None,
            upstream_status: None,
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
        }
        if self.is_counted {
            live::request_ends();
        }
        if let (Some(live), Some(picked)) = (&self.live, &self.picked) {
            live.handles.leave(self.worker, picked.function, picked.version);
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
