//! How an answer of gatepost's own goes out: a refusal, a redirect, a route's own words; and what a route does to the
//! headers of every answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, header};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;

use super::{
    answer,
    body_coding::{self, Coder},
    budget, cache,
    caller::Caller,
    ctx::Ctx,
    fallback,
    proxy::Ingress,
    reply::{self, Answer, X_REQUEST_ID},
};
use crate::{
    config::model::Serves,
    decide::{
        Reason, content_length, cors,
        snapshot::{Goes, Refusal},
    },
};

/// Where a request goes.
pub(super) enum Way {
    Function,
    /// To what its route says in a function's place.
    Route(Goes),
    /// It asks gatepost itself what it can do.
    Options,
    /// To the answer to an ACME challenge.
    Challenge(Arc<str>),
}

impl Ingress {
    /// RFC 8555 §8.3: the key authorization, and nothing else.
    pub(super) async fn answer_challenge(caller: &mut Caller<'_>, ctx: &Ctx, answer: &str) -> Result<()> {
        let mut head = ResponseHeader::build(200, Some(4))?;
        head.insert_header(X_REQUEST_ID, ctx.request_id.clone())?;
        head.insert_header(header::CONTENT_TYPE, "application/octet-stream")?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::CONTENT_LENGTH, answer.len().to_string())?;
        let is_head = caller.req_header().method == Method::HEAD;
        let body = if is_head { Bytes::new() } else { Bytes::copy_from_slice(answer.as_bytes()) };
        Self::write_unread(caller, Answer { header: head, body }).await
    }

    /// RFC 9110 §7.6.2, §9.3.7: an OPTIONS for the server as a whole, or one that may go no further.
    pub(super) async fn answer_options(caller: &mut Caller<'_>, ctx: &Ctx) -> Result<()> {
        let header = reply::options(&ctx.request_id)?;
        Self::write_unread(caller, Answer { header, body: Bytes::new() }).await
    }

    /// Writes an answer to a request whose body nobody reads.
    async fn write_unread(caller: &mut Caller<'_>, answer: Answer) -> Result<()> {
        if !caller.is_body_done() {
            caller.is_last();
        }
        Self::put(caller, answer).await
    }

    /// Answers with a refusal.
    pub(super) async fn refuse(caller: &mut Caller<'_>, ctx: &mut Ctx, refusal: Refusal) -> Result<()> {
        // A spent budget is no failure, but what is kept costs nothing.
        if (refusal.reason.is_failure() || refusal.reason == Reason::BudgetSpent)
            && let Some(stale) = cache::failed(caller, ctx)?
        {
            ctx.refusal = Some((refusal.reason, refusal.detail));
            return Self::write(caller, ctx, stale).await;
        }
        let limiter = match (&ctx.live, ctx.route, &refusal.limit) {
            (Some(live), Some(route), Some(refused)) => {
                Some(live.snapshot.limits[route.index()][refused.index].clone())
            }
            _ => None,
        };
        let mut answer = reply::answer(&refusal, limiter.as_deref(), &ctx.request_id, Some(caller.req_header()))?;
        if let (Some(live), Some(route), Some(denied)) = (&ctx.live, ctx.route, &refusal.denied) {
            reply::challenge(&mut answer, denied, live.snapshot.callers.gate(route))?;
        }
        if refusal.reason == Reason::Maintenance
            && let Some((live, route)) = ctx.live.as_ref().zip(ctx.route)
            && let Some(maintenance) = live.snapshot.maintenance(route)
        {
            answer::maintenance(&mut answer, maintenance, caller.req_header())?;
        }
        if let Some(live) = &ctx.live {
            let route = ctx.route.map(|id| &live.snapshot.config.routes[id.index()]);
            answer::put_page(&mut answer, &live.snapshot.config, route, caller.req_header())?;
            budget::dress(&mut answer, ctx, refusal.reason)?;
            if refusal.reason.is_failure() || budget::falls_back(ctx, refusal.reason) {
                fallback::in_place_of(&mut answer, route, caller.req_header())?;
            }
        }
        if refusal.reason == Reason::BadRequest {
            // Who sent one request that could be read in two ways is not asked for another.
            caller.is_last();
            if let Some(conn) = ctx.conn.as_ref().filter(|_| ctx.is_h2) {
                conn.h2.request_is_malformed();
                conn.wake();
            }
        }
        ctx.refusal = Some((refusal.reason, refusal.detail));
        Self::send(caller, ctx, answer).await
    }

    /// Answers in a function's place: the route redirects, or has an answer of its own.
    pub(super) async fn answer_itself(caller: &mut Caller<'_>, ctx: &mut Ctx, goes: Goes) -> Result<()> {
        let live = ctx.live()?.clone();
        let Some(route) = ctx.route.map(|id| &live.snapshot.config.routes[id.index()]) else { return Ok(()) };
        let method = &caller.req_header().method;
        let answer = match (goes, &route.serves) {
            (Goes::Redirect(to), Serves::Redirect(redirect)) => {
                answer::redirect(&to, redirect.status, &ctx.request_id)?
            }
            (Goes::Respond, Serves::Respond(respond)) => answer::respond(respond, method, &ctx.request_id)?,
            (Goes::Preflight, _) if let Some(cors) = &route.handling.cors => {
                ctx.is_preflight = true;
                let is_known = cors::allows(cors, ctx.origin.as_ref());
                answer::preflight(cors, is_known, caller.req_header(), &ctx.request_id)?
            }
            _ => return Error::e_explain(ErrorType::InternalError, "the route has no such answer"),
        };
        Self::send(caller, ctx, answer).await
    }

    /// What the caller's route does to the headers of every answer. Nothing where no route was found.
    pub(super) fn dress(caller: &Caller<'_>, ctx: &Ctx, head: &mut ResponseHeader) -> Result<()> {
        let (Some(live), Some(route), Some(conn)) = (&ctx.live, ctx.route, &ctx.conn) else { return Ok(()) };
        let config = &live.snapshot.config;
        let handling = &config.routes[route.index()].handling;
        if handling.response_headers.is_none() && handling.security_headers.is_none() && handling.cors.is_none() {
            return Ok(());
        }
        let is_secure = conn.info.tls
            || (config.server.trusted_proxies.contains(conn.info.ip())
                && caller.req_header().headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https"));
        let asked_by = answer::Caller { is_secure, origin: ctx.origin.as_ref(), is_preflight: ctx.is_preflight };
        answer::dress(head, handling, &asked_by)
    }

    /// Makes another body of a function's answer, where the route wants it: a page, or its compressed form.
    pub(super) fn recast(caller: &mut Caller<'_>, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
        let (Some(live), Some(route)) = (ctx.live.clone(), ctx.route) else { return Ok(()) };
        let config = &live.snapshot.config;
        let route = &config.routes[route.index()];
        let status = head.status.as_u16();
        let mut page = cache::stands_in(caller, ctx, head)?;
        if page.is_none() {
            page = fallback::for_answer(ctx, head, route, caller.req_header())?;
            if let Some(page) = &mut page {
                ctx.refusal = Some((Reason::FunctionFailed, "".into()));
                Self::dress(caller, ctx, &mut page.header)?;
            } else if status >= 400 {
                page = answer::intercept(head, config, route, caller.req_header())?;
            }
        }
        if let Some(page) = page {
            if !answer::has_short_body(head, &caller.req_header().method) {
                ctx.page = Some(Box::new(page));
                // The rest of the answer is not wanted, nor known to come or to end: `fail_to_proxy` sends the page.
                return Error::e_explain(ErrorType::HTTPStatus(status), "a page stands in for the function's answer");
            }
            *head = page.header;
            ctx.swap = Some(page.body);
        }
        if let (Some(wish), Some(compression)) = (ctx.wish, &route.handling.compression) {
            ctx.coder = body_coding::begin(head, caller.req_header(), compression, wish)?;
        }
        Ok(())
    }

    /// The next piece of an answer, compressed.
    pub(super) fn compress(coder: &mut Coder, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let piece = body.take().unwrap_or_default();
        let coded = coder.code(&piece, end).or_err(ErrorType::InternalError, "compressing an answer")?;
        *body = Some(coded).filter(|coded| !coded.is_empty());
        Ok(())
    }

    /// Sends an answer of gatepost's own, dressed as the route wants it.
    pub(super) async fn send(caller: &mut Caller<'_>, ctx: &mut Ctx, mut answer: Answer) -> Result<()> {
        Self::dress(caller, ctx, &mut answer.header)?;
        Self::write(caller, ctx, answer).await
    }

    /// Writes an answer of gatepost's own; the connection may be kept if the request was read to its end.
    pub(super) async fn write(caller: &mut Caller<'_>, ctx: &Ctx, answer: Answer) -> Result<()> {
        // A small body that is on its way is read, so that the connection can be kept.
        // Not one that has come to its end already: it is what the refusal is about.
        let is_over = ctx.bounds().is_some_and(|c| c.ended().is_some());
        if !is_over && !caller.is_body_done() && Self::body_is_small(caller) && caller.drain_body().await.is_err() {
            caller.is_last();
        }
        Self::put(caller, answer).await
    }

    async fn put(caller: &mut Caller<'_>, answer: Answer) -> Result<()> {
        let is_end = answer.body.is_empty();
        caller.write_head(Box::new(answer.header)).await?;
        if is_end { caller.finish_body().await } else { caller.write_body(answer.body, true).await }
    }

    pub(super) fn body_is_small(caller: &Caller<'_>) -> bool {
        let headers = &caller.req_header().headers;
        // Who waits for 100 Continue sends nothing before it.
        content_length(headers).is_some_and(|l| l <= 64 * 1024) && !headers.contains_key(header::EXPECT)
    }
}
