//! A request's phases ↔ `decide`: what was decided once is kept in [`Ctx`], and every later phase reads it. [`request`](super::request) calls them, and pingora.

use std::{borrow::Cow, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Method, Version, header};
use pingora_core::{modules::http::HttpModules, upstreams::peer::HttpPeer};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::{
    answer, attempt,
    body_coding::Wish,
    budget, cache,
    caller::Caller,
    conn::{self, Certificate, Conn, Ended, Phase, ip_value},
    ctx::{Ctx, Picked, since},
    exchange, forward,
    h2_head::check_h2,
    io::Io,
    live::{self, Live},
    mirror, on_platform,
    own::Way,
    reply::{X_REQUEST_ID, X_REQUEST_ID_NAME},
    request_id, retry, sign,
    tell::tell,
    turn,
};
use crate::{
    decide::{
        Reason,
        auth::{Denied, Gate},
        snapshot::{Asker, Goes, Refusal, Request},
    },
    observe::unix_ms,
    upstream::classify_error,
};

/// The platform's own name for a call, for callers.
const X_PLATFORM_REQUEST_ID: &str = "X-Platform-Request-Id";

/// What pingora is given: one per worker.
pub struct Ingress;

/// A worker's proxy, with its pools.
pub type Proxy = HttpProxy<Ingress>;

impl Ingress {
    /// The whole decision. Sync: what it needs is gone before anything waits.
    pub(super) fn decide(caller: &mut Caller<'_>, ctx: &mut Ctx) -> Result<Way, Refusal> {
        let (Some((worker, live)), Some(conn)) = (live::current(), caller.conn()) else {
            return if ctx.gives_back.is_some() { Ok(Way::Function) } else { Err(Reason::Overloaded.into()) };
        };
        conn.is_asked();
        ctx.worker = worker;
        ctx.is_h2 = caller.req_header().version == Version::HTTP_2;
        if ctx.is_h2 {
            conn.stream_begins();
            ctx.stream = conn::present_stream();
        }
        ctx.is_upgrade = forward::asks_for_websocket(caller.req_header());
        if !ctx.is_upgrade && caller.req_header().headers.contains_key(header::UPGRADE) {
            // Nothing behind reads the request as one that asks for a tunnel.
            caller.req_header_mut().remove_header(&header::UPGRADE);
        }
        if caller.io().is_some_and(|io| io.closes) || conn.is_last() {
            caller.is_last();
        }
        if caller.req_header().version == Version::HTTP_10 {
            // RFC 9110 §15.2: an HTTP/1.0 caller knows no 1xx.
            caller.knows_no_interim();
        }
        let request = caller.req_header();
        ctx.asked = Some((request.method.clone(), request.uri.clone()));
        let snapshot = &live.snapshot;
        let peer = conn.info.ip();
        let from_trusted = snapshot.config.server.trusted_proxies.contains(peer);
        ctx.request_id = Some(&request.headers)
            .filter(|_| from_trusted)
            .and_then(|h| h.get(X_REQUEST_ID))
            .filter(|id| request_id::is_good(id))
            .cloned()
            .unwrap_or_else(request_id::fresh);

        // h2 has `:authority` in the URI; HTTP/1 is in origin-form behind the gate, and has Host.
        let authority = match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers.get(header::HOST).map(|h| h.to_str().unwrap_or("\u{fffd}")),
        };
        let facts = Request {
            listener: live.listener(conn.info.listener),
            peer,
            certificate: conn.certificate().map(|c| &c.identity),
            method: &request.method,
            authority,
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
        };
        if let Some(way) = Self::before_routes(request, &live, &conn, ctx) {
            ctx.client_ip = Some(peer);
            ctx.live = Some(live);
            ctx.conn = Some(conn);
            return way;
        }
        let unix = || i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
        let tokens = live::tokens();
        let asker = Asker { worker, now: ctx.started, dice: &live::roll_128, unix: &unix, tokens: tokens.as_deref() };
        let decision = snapshot.decide(&facts, asker);
        match decision.host {
            Cow::Borrowed(host) => ctx.host_len = Some(host.len()),
            Cow::Owned(host) => ctx.host = Some(host.into()),
        }
        ctx.client_ip = Some(decision.client_ip);
        ctx.client = decision.client;
        ctx.route = decision.route;
        if decision.route.is_some_and(|id| snapshot.config.routes[id.index()].handling.cors.is_some()) {
            ctx.origin = facts.headers.get(header::ORIGIN).cloned();
        }
        let outcome = decision.outcome;
        if let (Ok(Goes::Function(pick)), Some(route)) = (&outcome, decision.route)
            && let route = &snapshot.config.routes[route.index()]
            && let Some(id) = route.function()
        {
            let function = &snapshot.config.functions[id.index()];
            let url = &function.versions[pick.version.index()].url;
            ctx.target = forward::target(&decision.path, facts.path, facts.query, route, url);
            ctx.picked = Some(Picked::of(id, pick));
            if let Some(compression) = route.handling.compression.as_ref().filter(|_| !ctx.is_upgrade) {
                ctx.wish = Some(Wish::of(request, compression));
            }
            // What a tunnel carries is nobody's body.
            let bound = snapshot.config.body_bound(route).into_iter().chain(function.platform.sizes.body).min();
            ctx.body_left = bound.filter(|_| !ctx.is_upgrade).map(|bound| (bound, bound));
            live.handles.enter(worker, id, pick.version);
            ctx.stream.as_deref().unwrap_or(&conn).bound_total(function.timeouts.total);
        }
        if ctx.target.is_some() || decision.path != facts.path {
            ctx.path = Some(decision.path.into());
        }
        if let (Err(Refusal { limit: Some(refused), .. }), Some(route)) = (&outcome, ctx.route) {
            live.handles.limit(route, refused.index).refused(worker);
        }
        if let Err(Refusal { denied: Some(Denied { failure: Some(failure), .. }), .. }) = &outcome {
            live.handles.auth_failed(worker, *failure);
        }
        let outcome = outcome.and_then(|goes| {
            Self::edit(caller.req_header_mut(), ctx, &live, &conn, from_trusted)?;
            Ok(match goes {
                Goes::Function(_) => Way::Function,
                goes => Way::Route(goes),
            })
        });
        ctx.live = Some(live);
        ctx.conn = Some(conn);
        outcome
    }

    /// What is settled without a look at the routes; `None`: nothing is.
    fn before_routes(request: &RequestHeader, live: &Live, conn: &Conn, ctx: &mut Ctx) -> Option<Result<Way, Refusal>> {
        if ctx.is_h2
            && let Err(refusal) = check_h2(request)
        {
            return Some(Err(refusal));
        }
        let method = &request.method;
        if matches!(*method, Method::TRACE | Method::CONNECT) {
            // What TRACE would echo (RFC 9110 §9.3.8) is what gatepost added for the function alone.
            return Some(Err(Refusal { detail: "it is not served here".into(), ..Reason::MethodNotAllowed.into() }));
        }
        let path = request.uri.path();
        if !conn.info.tls
            && matches!(*method, Method::GET | Method::HEAD)
            && let Some(answer) = live.challenges.answer(path)
        {
            return Some(Ok(Way::Challenge(answer)));
        }
        ctx.is_counted = !live.shedding.is_on() && live::request_begins(live.max_requests);
        if !ctx.is_counted {
            return Some(Err(Reason::Overloaded.into()));
        }
        if *method == Method::OPTIONS && (path == "*" || forward::hops_left(&request.headers) == Some(0)) {
            return Some(Ok(Way::Options));
        }
        None
    }

    /// Makes the request what the function gets: once, before any attempt copies it.
    fn edit(
        request: &mut RequestHeader,
        ctx: &mut Ctx,
        live: &Live,
        conn: &Conn,
        from_trusted: bool,
    ) -> Result<(), Refusal> {
        let Some(picked) = ctx.picked else { return Ok(()) };
        ctx.asked_host = match request.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => request.headers.get(header::HOST).cloned(),
        };
        let client_ip = ctx.client_ip.unwrap_or_else(|| conn.info.ip());
        let config = &live.snapshot.config;
        let tells = ctx.route.is_some_and(|route| config.routes[route.index()].forward_client_cert);
        let from = forward::Caller {
            ip: if client_ip == conn.info.ip() { conn.ip_value().clone() } else { ip_value(client_ip) },
            is_trusted: from_trusted,
            tls: conn.info.tls,
            version: request.version,
            host: ctx.asked_host.clone(),
            is_websocket: ctx.is_upgrade,
            request_id: &ctx.request_id,
            certificate: conn.certificate().filter(|_| tells).map(Certificate::header),
            max_hops: config.server.max_hops,
        };
        // What was read here says nothing to the function, and is not its to know.
        for name in ctx.route.and_then(|route| live.snapshot.callers.gate(route)).map_or(&[][..], Gate::taken) {
            request.remove_header(name);
        }
        let function = &config.functions[picked.function.index()];
        let own_host = if function.preserve_host { None } else { Some(live.host(picked.function, picked.version)) };
        let platform = &function.platform;
        forward::edit(request, from, own_host, ctx.target.as_deref(), &platform.strip)?;
        let edits = ctx.route.and_then(|id| live.snapshot.config.routes[id.index()].handling.request_headers.as_ref());
        if let Some(edits) = edits {
            answer::edit_request(request, edits).map_err(|_| Refusal::from(Reason::BadRequest))?;
            // What the route says is there by now.
            forward::strip_aliases(request, &platform.strip);
        }
        on_platform::fits(request, platform, live.signer(picked.function, picked.version).map(AsRef::as_ref))
    }

    /// [`forward::edit_response`], and why nothing of the answer goes on; before it, what of the answer is taken down.
    fn edit_response(response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) else {
            return Error::e_explain(ErrorType::InternalError, "an answer to a request that went nowhere");
        };
        let function = &live.snapshot.config.functions[picked.function.index()];
        let platform = &function.platform;
        if !response.status.is_informational() {
            let names = &platform.request_id.headers;
            ctx.platform_request_id = names.iter().find_map(|name| response.headers.get(name).cloned());
            let status = response.status.as_u16();
            let judged = on_platform::judge(response, platform)?;
            (ctx.outcome, ctx.again.of) = judged.map(|outcome| (outcome.class, outcome.retry)).unzip();
            ctx.billed = judged.and_then(|outcome| outcome.billed);
            turn::saw(ctx, status);
        }
        let from = &function.versions[picked.version.index()].url.host;
        forward::edit_response(response, platform, from).map_err(|what| {
            ctx.refusal = Some((Reason::UpstreamReset, "the function's answer is framed badly".into()));
            Error::explain(ErrorType::InvalidHTTPHeader, what)
        })
    }

    /// A piece of the request's body on its way to the function; `None`, at its end: nothing.
    pub(super) fn pass_body(body: &mut Option<bytes::Bytes>, end_of_stream: bool, ctx: &mut Ctx) -> Result<()> {
        if sign::replay(ctx, body, end_of_stream) {
            // Counted while it was read.
            return Ok(());
        }
        if let (Some((bound, left)), Some(body)) = (&mut ctx.body_left, &body) {
            match left.checked_sub(body.len() as u64) {
                Some(rest) => *left = rest,
                None => {
                    let refusal = on_platform::body_too_large(ctx.live.as_deref(), ctx.picked, *bound);
                    ctx.refusal = Some((refusal.reason, refusal.detail));
                    // The caller's fault: of the function's, pingora would go on waiting for the answer.
                    return Error::e_explain(ErrorType::ReadError, "the body is too large").map_err(|e| e.into_down());
                }
            }
        }
        mirror::body(ctx, body.as_ref(), end_of_stream);
        if end_of_stream && body.as_ref().is_some_and(bytes::Bytes::is_empty) {
            // pingora writes an empty last piece (h2 callers end a body with it) as the last chunk, and then the last
            // chunk once more: the function would take that for the next request.
            *body = None;
        }
        Ok(())
    }

    /// A piece of the answer's body on its way to the caller.
    pub(super) fn pass_answer(
        caller: &mut Caller<'_>,
        body: &mut Option<bytes::Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.is_whole = end_of_stream;
        cache::body(caller, ctx, body.as_ref(), end_of_stream);
        if let Some(page) = &mut ctx.swap {
            *body = Some(std::mem::take(page)).filter(|page| !page.is_empty());
        }
        if let Some(coder) = &mut ctx.coder {
            Self::compress(coder, body, end_of_stream)?;
        }
        if let Some(stream) = &ctx.stream {
            stream.moved();
        }
        if ctx.total.is_some_and(|total| since(ctx.started) > total) {
            return Error::e_explain(ErrorType::ReadTimedout, "the request took longer than timeouts.total");
        }
        Ok(())
    }

    /// The head of the function's answer, on its way to the caller.
    pub(super) fn pass_head(caller: &mut Caller<'_>, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        let status = response.status.as_u16();
        if response.status.is_informational() && status != 101 {
            return Self::edit_response(response, ctx);
        }
        if status == 101 && !ctx.is_upgrade {
            // RFC 9110 §15.2.2: what the caller did not ask for it can't read.
            ctx.refusal = Some((Reason::UpstreamReset, "the function switched protocols unasked".into()));
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "a 101 that nobody asked for");
        }
        attempt::speaks(ctx, response.version);
        ctx.upstream_status = Some(status);
        Self::edit_response(response, ctx)?;
        retry::answered(caller, ctx, response)?;
        cache::head(caller, ctx, response)?;
        if let Some(sent) = ctx.sent_at {
            ctx.upstream = Some(since(sent));
        }
        let (Some(live), Some(picked), Some(conn)) = (&ctx.live, ctx.picked, &ctx.conn) else {
            return Ok(());
        };
        let function = &live.snapshot.config.functions[picked.function.index()];
        let timeouts = &function.timeouts;
        ctx.stream.as_ref().unwrap_or(conn).bound_silence(Some(timeouts.idle));
        if status == 101 {
            conn.tunnel.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        ctx.total = timeouts.total;
        if caller.req_header().version == Version::HTTP_10 && response.headers.contains_key(header::TRANSFER_ENCODING) {
            // RFC 9112 §6.1: not to an HTTP/1.0 caller; the body ends with the connection.
            response.remove_header(&header::TRANSFER_ENCODING);
            caller.is_last();
        }
        let mut id = ctx.request_id.clone();
        // Each is another: not for h2's table of fields (RFC 7541 §7.1.3), where it would displace those that come again.
        id.set_sensitive(ctx.is_h2);
        response.insert_header(X_REQUEST_ID_NAME, id)?;
        if let Some(id) = ctx.platform_request_id.as_ref().filter(|_| function.platform.request_id.expose) {
            let mut id = id.clone();
            id.set_sensitive(ctx.is_h2);
            response.insert_header(X_PLATFORM_REQUEST_ID, id)?;
        }
        Self::dress(caller, ctx, response)?;
        if let Some(cookie) = picked.cookie {
            response.append_header(header::SET_COOKIE, cookie.set_cookie(conn.info.tls))?;
        }
        if conn.closing.load(std::sync::atomic::Ordering::Relaxed) {
            caller.is_last();
        }
        Self::recast(caller, ctx, response)
    }

    /// Why a request came to nothing: the gate and the sweeper know more than pingora's error.
    fn reason_of(caller: &Caller<'_>, ctx: &Ctx, error: &Error) -> Option<(Reason, Cow<'static, str>)> {
        if let Some((reason, detail)) = &ctx.refusal {
            return Some((*reason, detail.clone()));
        }
        if let Some(what) = caller.io().and_then(Io::broken) {
            return Some((Reason::BadRequest, what.into()));
        }
        match ctx.bounds().and_then(Conn::ended) {
            Some(Ended::Upstream | Ended::Stuck) => return Some((Reason::UpstreamTimeout, "".into())),
            Some(Ended::Overdue(Phase::Body)) => {
                return Some((Reason::RequestTimeout, "the body did not arrive in time".into()));
            }
            _ => {}
        }
        if *error.esource() == ErrorSource::Downstream && matches!(error.etype(), ErrorType::InvalidHTTPHeader) {
            return Some((Reason::BadRequest, "".into()));
        }
        classify_error(error).map(|failure| (failure.reason, "".into()))
    }

    /// What comes before the function: an answer of gatepost's own, or of the cache. `false`: the function is to be asked.
    pub(super) async fn begin(caller: &mut Caller<'_>, ctx: &mut Ctx, way: Result<Way, Refusal>) -> Result<bool> {
        // Answers of our own are large, and not for ordinary requests: in a box each.
        match way {
            Ok(Way::Function) => {
                if cache::is_on(ctx) && Box::pin(cache::answer(caller, ctx)).await? {
                    return Ok(true);
                }
                // Behind the cache: what that answers is no call, and costs nothing.
                if let Err(refusal) = budget::take(ctx) {
                    Box::pin(Self::refuse(caller, ctx, refusal)).await?;
                    return Ok(true);
                }
                if !sign::wants_body(caller, ctx) {
                    return Ok(false);
                }
                match Box::pin(sign::keep_body(caller, ctx)).await? {
                    Ok(()) => return Ok(false),
                    Err(refusal) => Box::pin(Self::refuse(caller, ctx, refusal)).await?,
                }
            }
            Ok(Way::Route(goes)) => Box::pin(Self::answer_itself(caller, ctx, goes)).await?,
            Ok(Way::Options) => Box::pin(Self::answer_options(caller, ctx)).await?,
            Ok(Way::Challenge(answer)) => Box::pin(Self::answer_challenge(caller, ctx, &answer)).await?,
            Err(refusal) => Box::pin(Self::refuse(caller, ctx, refusal)).await?,
        }
        Ok(true)
    }

    /// A request came to nothing: its caller is told, where that can be, and by which status. 0: by none.
    pub(super) async fn fail(caller: &mut Caller<'_>, error: &Error, ctx: &mut Ctx) -> u16 {
        if ctx.asked.is_none() {
            // Nobody made this request, and nobody waits for an answer.
            return 0;
        }
        if let Some(page) = ctx.page.take() {
            // No connection is kept after an error.
            caller.is_last();
            ctx.is_paged = Box::pin(Self::write(caller, ctx, *page)).await.is_ok();
            return 0;
        }
        let Some((reason, detail)) = Self::reason_of(caller, ctx, error) else {
            return 0;
        };
        if let (Some(live), Some(picked)) = (&ctx.live, ctx.picked) {
            let function = &live.snapshot.config.functions[picked.function.index()];
            if let Some(failure) = classify_error(error) {
                tracing::warn!(
                    function = &*function.name,
                    version = &*function.versions[picked.version.index()].name,
                    reason = reason.as_str(),
                    detail = failure.detail,
                    request_id = ctx.request_id.to_str().unwrap_or("-"),
                    "a function's call failed",
                );
            }
        }
        ctx.refusal = Some((reason, detail.clone()));
        cache::broken(ctx, reason);
        if caller.written().is_some_and(|status| !status.is_informational()) {
            // Too late for an answer: the caller sees the connection (or stream) end early.
            return 0;
        }
        caller.is_last();
        let refusal = Refusal { detail, ..reason.into() };
        // The caller may be gone: the line in the log tells so.
        let _ = Box::pin(Self::refuse(caller, ctx, refusal)).await;
        reason.status()
    }
}

#[async_trait]
impl ProxyHttp for Ingress {
    // In a box: pingora moves it from future to future.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new())
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // None: pingora's own compression module would run for every request.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        let mut caller = Caller::Pingora(session);
        let way = match caller.io().and_then(Io::take_handed) {
            Some(handed) => handed.over_to(&mut caller, ctx),
            None => Self::decide(&mut caller, ctx),
        };
        Self::begin(&mut caller, ctx, way).await
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        let caller = &mut Caller::Pingora(session);
        if !turn::pass(caller, ctx).await? {
            return Ok(false);
        }
        // pingora goes on with all others: to h2, and with upgrades.
        let is_ours = exchange::fits(ctx);
        if is_ours {
            exchange::run(caller, ctx).await?;
        }
        Ok(!is_ours)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        if let Some(peer) = ctx.gives_back.take() {
            return Ok(peer);
        }
        attempt::next(ctx).await?.peer(&mut Caller::Pingora(session), ctx)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<bytes::Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        Self::pass_body(body, end_of_stream, ctx)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        fd: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        attempt::connected(&mut Caller::Pingora(session), ctx, reused, fd)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        // pingora takes the one field away that gRPC asks for (RFC 9113 §8.2.2); `forward::edit` has left only what may pass.
        if request.version == Version::HTTP_2
            && let Some(te) = session.req_header().headers.get(header::TE)
        {
            let te = te.clone();
            request.insert_header(header::TE, te)?;
        }
        let caller = &mut Caller::Pingora(session);
        mirror::offer(caller, ctx);
        sign::attempt(request, caller, ctx)
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        cache::framing(ctx, head);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        Self::pass_head(&mut Caller::Pingora(session), response, ctx)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<bytes::Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        Self::pass_answer(&mut Caller::Pingora(session), body, end_of_stream, ctx)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        _trailers: &mut http::HeaderMap,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<bytes::Bytes>> {
        cache::trailers(ctx);
        // The coding's last bytes stand in the trailers' place (RFC 9110 §6.5.1 lets them go): these were not announced.
        let Some(coder) = &mut ctx.coder else { return Ok(None) };
        let mut last = None;
        Self::compress(coder, &mut last, true)?;
        ctx.is_whole = true;
        Ok(last)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Ctx>,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::not_connected(ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Box<Ctx>,
        client_reused: bool,
    ) -> Box<Error> {
        retry::broken(&Caller::Pingora(session), ctx, &mut error, client_reused);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        let error_code = Self::fail(&mut Caller::Pingora(session), error, ctx).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Ctx>) {
        tell(&Caller::Pingora(session), error, ctx);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Ctx>, _error: &Error) -> bool {
        // `fail_to_proxy` says what matters, and who it is about.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Box<Ctx>,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
