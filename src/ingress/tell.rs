//! The end of a request's story: one line in the access log, one count in the metrics.

use std::time::Duration;

use http::{HeaderValue, Method, Uri, header};
use pingora_error::{Error, ErrorSource, ErrorType};

use super::{
    budget, cache,
    caller::Caller,
    conn::{Conn, Ended},
    ctx::{Ctx, since},
    head::{self, BadHead},
    io::Io,
    live::{self, Live},
    mirror, reply, request_id, standing,
};
use crate::{
    config::model::ListenerId,
    decide::{Class, Reason, snapshot::Refusal},
    observe::{Entry, unix_ms},
    platform::outcome::by_status,
    release::guard,
};

/// Ends the story of a request: one line, one count.
pub(super) fn tell(caller: &Caller<'_>, error: Option<&Error>, ctx: &mut Ctx) {
    let Some(live) = ctx.live.clone() else { return };
    ctx.is_logged = true;
    cache::over(caller, ctx, error.is_none());
    let total = since(ctx.started);
    let status = caller.written().map(|status| status.as_u16()).filter(|s| *s >= 200 || *s == 101);
    let class = class_of(ctx, status, error);
    mirror::over(ctx, class);
    let request = caller.req_header();
    let asked = (&request.method, &request.uri, request.headers.get(header::HOST));
    write(ctx, &live, asked, (status, class, total), caller.bytes());
}

/// The same for a request whose task was dropped: it was cut, its code panicked, or its function let it wait too long.
pub(super) fn tell_of_lost(ctx: &mut Ctx) {
    let Some((method, uri)) = ctx.asked.take() else { return };
    // Without one in the context the decision itself panicked.
    let Some(live) = ctx.live.clone().or_else(|| live::current().map(|(_, live)| live)) else { return };
    if ctx.refusal.is_none() && matches!(ctx.bounds().and_then(Conn::ended), Some(Ended::Upstream | Ended::Stuck)) {
        ctx.refusal = Some((Reason::UpstreamTimeout, "".into()));
    }
    let class = if ctx.refusal.is_some() { class_of(ctx, None, None) } else { Class::Aborted };
    mirror::over(ctx, class);
    let mut status = ctx.upstream_status;
    let mut bytes_out = 0;
    if let (Some(conn), Some((reason, _))) = (ctx.conn.as_ref().filter(|_| !ctx.is_h2), &ctx.refusal)
        && !conn.was_answered()
        && conn.ended() == Some(Ended::Stuck)
    {
        let answer = reply::answer(&(*reason).into(), None, &ctx.request_id, None).map(|mut answer| {
            if method == Method::HEAD {
                answer.body.clear();
            }
            reply::raw(&answer)
        });
        let words = answer.unwrap_or_default();
        (status, bytes_out) = (Some(reason.status()), words.len() as u64);
        conn.leave_words(words);
    }
    write(ctx, &live, (&method, &uri, None), (status, class, since(ctx.started)), (0, bytes_out));
}

fn write(
    ctx: &Ctx,
    live: &Live,
    (method, uri, host): (&Method, &Uri, Option<&HeaderValue>),
    (status, class, total): (Option<u16>, Class, Duration),
    (bytes_in, bytes_out): (u64, u64),
) {
    let picked = ctx.route.map(|route| (route, ctx.picked.map(|p| p.version)));
    live.handles.request(ctx.worker, picked, class, total);
    budget::settle(ctx, live, class);
    guarded(ctx, live, class);
    let config = &live.snapshot.config;
    standing::request_over(ctx, live, class);
    let came = match (&ctx.asked_host, uri.authority()) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(authority)) => authority.as_str().as_bytes(),
        (None, None) => host.map_or(&b""[..], |h| h.as_bytes()),
    };
    let host = match (&ctx.host, ctx.host_len) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(len)) => came.get(..len).unwrap_or(came),
        // Never decided: as it came.
        (None, None) => came,
    };
    let function = ctx.picked.map(|p| &config.functions[p.function.index()]);
    let entry = Entry {
        client_ip: ctx.client_ip,
        client: ctx.client.map(|c| &*config.clients[c.index()].name),
        method: method.as_str(),
        host,
        path: ctx.path.as_deref().unwrap_or_else(|| uri.path()).as_bytes(),
        query: uri.query().map(str::as_bytes),
        route: ctx.route.map(|r| &*config.routes[r.index()].name),
        function: function.map(|f| &*f.name),
        version: function.zip(ctx.picked).map(|(f, p)| &*f.versions[p.version.index()].name),
        picked_by: ctx.picked.map(|p| p.picked_by),
        weights_from: ctx.picked.map(|p| p.weights_from),
        status,
        upstream_status: ctx.upstream_status,
        reason: ctx.refusal.as_ref().map(|(reason, _)| *reason),
        bytes_in,
        bytes_out,
        total,
        queue: ctx.picked.map(|_| ctx.queued),
        connect: ctx.connect,
        upstream: ctx.upstream,
        attempts: ctx.attempts,
        platform_request_id: ctx.platform_request_id.as_ref().map(|id| id.as_bytes()),
        cache: cache::count(ctx),
        ..entry(live, ctx.conn.as_deref(), &ctx.request_id, class)
    };
    live::log(|port| port.write(&config.log, &entry));
}

/// Counts the request for the guard of its function.
fn guarded(ctx: &Ctx, live: &Live, class: Class) {
    let Some(picked) = ctx.picked else { return };
    let Some(Some(watch)) = live.guards.get(picked.function.index()) else { return };
    watch.count(
        ctx.worker,
        &guard::Ended {
            version: picked.version,
            picked_by: picked.picked_by,
            class,
            began: ctx.started,
            took: ctx.upstream,
            caller: picked.caller,
            client_ip: ctx.client_ip,
        },
    );
}

fn class_of(ctx: &Ctx, status: Option<u16>, error: Option<&Error>) -> Class {
    if let Some((reason, _)) = &ctx.refusal {
        return match reason {
            Reason::RateLimited => Class::RateLimited,
            Reason::UpstreamTimeout => Class::Timeout,
            Reason::UpstreamUnreachable | Reason::NameNotResolved => Class::Unreachable,
            Reason::UpstreamReset => Class::Function,
            Reason::NoVersion => Class::Config,
            Reason::FunctionFailed => {
                ctx.outcome.unwrap_or_else(|| ctx.upstream_status.map_or(Class::Function, by_status))
            }
            _ => Class::Refused,
        };
    }
    // Whoever is answered early may keep the rest of its request.
    let is_early = |e: &&Error| ctx.is_whole && *e.esource() == ErrorSource::Downstream && !is_of_writing(e.etype());
    match (ctx.upstream_status.or(status), error.filter(|e| !ctx.is_paged && !is_early(e))) {
        // The answer was cut short, or never came, since the caller went away.
        (_, Some(_)) | (None, None) => Class::Aborted,
        // No function was asked: a `respond` says so.
        (Some(status), None) if ctx.picked.is_none() && status >= 500 => Class::Config,
        (Some(429), None) if ctx.picked.is_none() => Class::ClientError,
        (Some(status), None) => ctx.outcome.unwrap_or_else(|| by_status(status)),
    }
}

fn is_of_writing(etype: &ErrorType) -> bool {
    matches!(etype, ErrorType::WriteError | ErrorType::WriteTimedout)
}

/// Answers a head that pingora is not to see: the bytes to write. Logged and counted like any other request.
pub fn refuse_head(io: &Io, bad: BadHead) -> Vec<u8> {
    let Some((worker, live)) = live::current() else { return Vec::new() };
    let request_id = request_id::fresh();
    let refusal = Refusal { detail: bad.detail.into(), ..bad.reason.into() };
    let bytes = reply::answer(&refusal, None, &request_id, None).map(|a| reply::raw(&a)).unwrap_or_default();
    let (method, host, path) = head::describe(io.inbox());
    tell_of_refused(worker, &live, &io.conn, bad.reason, &request_id, (&method, &host, &path), bytes.len() as u64);
    bytes
}

/// Tells of a request that pingora has answered or reset itself, before it asked: its target, host or lengths are malformed.
pub fn refuse_stream(conn: &Conn) {
    if let Some((worker, live)) = live::current() {
        tell_of_refused(worker, &live, conn, Reason::BadRequest, &request_id::fresh(), ("", "", ""), 0);
    }
}

fn tell_of_refused(
    worker: usize,
    live: &Live,
    conn: &Conn,
    reason: Reason,
    request_id: &HeaderValue,
    (method, host, path): (&str, &str, &str),
    bytes_out: u64,
) {
    live.handles.request(worker, None, Class::Refused, Duration::ZERO);
    let entry = Entry {
        method,
        host: host.as_bytes(),
        path: path.as_bytes(),
        status: Some(reason.status()),
        reason: Some(reason),
        bytes_out,
        ..entry(live, Some(conn), request_id, Class::Refused)
    };
    live::log(|port| port.write(&live.snapshot.config.log, &entry));
}

/// What is known of every request.
fn entry<'e>(live: &'e Live, conn: Option<&Conn>, request_id: &'e HeaderValue, class: Class) -> Entry<'e> {
    let listener = conn.map_or(ListenerId(u32::MAX), |c| live.listener(c.info.listener));
    Entry {
        ts: unix_ms(),
        request_id: request_id.to_str().unwrap_or("-"),
        generation: live.snapshot.generation,
        listener: live.snapshot.config.listeners.get(listener.index()).map_or("", |l| &l.name),
        client_ip: conn.map(|c| c.info.ip()),
        client: None,
        method: "",
        host: b"",
        path: b"",
        query: None,
        route: None,
        function: None,
        version: None,
        picked_by: None,
        weights_from: None,
        status: None,
        upstream_status: None,
        class,
        reason: None,
        bytes_in: 0,
        bytes_out: 0,
        total: Duration::ZERO,
        queue: None,
        connect: None,
        upstream: None,
        attempts: 0,
        platform_request_id: None,
        cache: None,
    }
}
