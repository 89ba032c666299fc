//! A request in absolute form, passed on to where a rule leads; the answer passed back. Both are framed in one way only, and that is checked here
//! byte by byte; what is between client and proxy alone stays there.

use std::{
    borrow::Cow,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    answer::Refusal,
    conn::{Conn, End},
    heads::{Told, answer_head, hops_left, request_head},
    here,
    parent::{self, Through},
    pass::{Fault, Pass, Side as At},
    pool::{self, Kept, Key},
    record::Record,
    serve::{Caller, Stream},
    way,
};
use crate::{
    decide::{
        Reason,
        egress::{Absolute, Authority, Direction, via},
        http1::{
            answer::{self, Answer, Ends, LookAnswer},
            head::{Framing, Head},
        },
    },
    observe::clock::now,
};

/// Answers before one that are passed on.
const INTERIM: u32 = 100;

/// What becomes of the client's connection.
pub enum After {
    /// A further request may come.
    Keep,
    Close,
    /// The client has some of an answer that only its end would tell from a whole one.
    Cut,
    /// Nothing was answered yet.
    Refuse(Refusal),
}

/// A request that may be passed on.
pub struct Asked<'r> {
    pub head: Head,
    pub method: &'r [u8],
    pub headers: &'r HeaderMap,
    pub to: Authority<'static>,
    pub absolute: &'r Absolute<'r>,
}

/// Why a request is not passed on at all, whoever asks.
pub fn unfit(method: &[u8], headers: &HeaderMap) -> Option<Refusal> {
    if method == b"TRACE" {
        return Some(Refusal::new(Reason::MethodNotAllowed, "TRACE would show what the proxy adds"));
    }
    // RFC 9110 §7.8: what it would become is nothing that could be judged here.
    headers
        .contains_key(header::UPGRADE)
        .then(|| Refusal::new(Reason::BadRequest, "Upgrade is not forwarded: use CONNECT for other protocols"))
}

/// Passes a request on, and its answer back. `inbox`: what the client has sent behind the head.
pub async fn forward(caller: &mut Caller, record: &mut Record, asked: &Asked<'_>, inbox: &mut BytesMut) -> After {
    let key = Key {
        generation: record.live.snapshot.generation,
        client: record.client,
        rule: record.rule,
        target: record.target.clone().unwrap_or_default(),
    };
    let conn = caller.conn.clone();
    let (_, _, timeouts) = way::terms(record);
    let (idle, total, first_byte) = (timeouts.idle, timeouts.total, timeouts.first_byte);
    conn.tunnel(now(), idle, total);
    let by_parent = parent::of(record).is_some_and(|parent| parent::takes_absolute_form(parent, &asked.to));
    // One that left from an address that went away leads nowhere, and says nothing of it.
    let mut kept = pool::take(&key).filter(|kept| kept.source.is_none_or(|(_, from)| here::has(from)));
    loop {
        let is_fresh = kept.is_none();
        let one = match kept.take() {
            Some(one) => one,
            None => match dial(&conn, record, asked, by_parent).await {
                Ok(one) => one,
                Err(after) => return after,
            },
        };
        (record.address, record.source) = (one.address, one.source);
        record.through.clone_from(&one.through);
        let mut exchange = Exchange {
            request: Pass::new(asked.head.framing, request_head(record, asked, by_parent)),
            by_parent,
            answer: Answering::Head(BytesMut::new(), 0),
            is_head: asked.method == b"HEAD",
            is_1_0: asked.head.is_1_0,
            keeps: !asked.head.closes && !asked.head.is_1_0,
            reusable: true,
            status: None,
            is_answered: false,
            is_open_ended: false,
            interim: 0,
            first_byte,
            waits: false,
            has_ended: false,
        };
        let Kept { mut stream, through, address, source, left } = one;
        let done =
            conn.within(poll_fn(|cx| exchange.poll(cx, &mut caller.stream, &mut stream, record, &conn, inbox))).await;
        conn.no_step();
        match done {
            Ok(Ok(())) => {
                conn.no_tunnel();
                record.status = exchange.status;
                if exchange.reusable && exchange.request.is_done() {
                    pool::put(key, Kept { stream, through, address, source, left });
                }
                let keeps = exchange.keeps && exchange.request.is_done();
                return if keeps { After::Keep } else { After::Close };
            }
            // RFC 9112 §9.3.1: a kept connection may have been closed as the request was on its way.
            Ok(Err(Fault(At::Origin, _)))
                if !is_fresh && !exchange.is_answered && exchange.is_untouched() && is_repeatable(asked) =>
            {
                continue;
            }
            Ok(Err(fault)) => return faulty(record, &exchange, &fault),
            Err(end) => return ended(record, &exchange, end),
        }
    }
}

async fn dial(conn: &Conn, record: &mut Record, asked: &Asked<'_>, by_parent: bool) -> Result<Kept, After> {
    let dialled = conn
        .within(async {
            let course = way::course(record, &asked.to).await?;
            if by_parent {
                let url = parent::of(record).map(ToString::to_string).unwrap_or_default();
                let (asked, address) = (asked.to.to_string(), course.literal());
                record.through = Some(Arc::new(Through { url, asked, address }));
                return Box::pin(parent::reach(record)).await;
            }
            let ours = |_| via::with_ours(asked.headers, asked.head.is_1_0, &parent::OWN_NAME);
            let via = parent::of(record).map(ours).unwrap_or_default();
            match way::connect(record, &course, &via).await? {
                (stream, behind) if behind.is_empty() => Ok(stream),
                _ => Err(Refusal::new(Reason::UpstreamReset, "it speaks before it is asked")),
            }
        })
        .await;
    match dialled {
        Ok(Ok(stream)) => Ok(Kept {
            stream,
            through: record.through.clone(),
            address: record.address,
            source: record.source,
            left: record.left_from.take(),
        }),
        Ok(Err(refusal)) => Err(After::Refuse(refusal)),
        Err(End::Idle | End::Total | End::Late) => {
            Err(After::Refuse(Refusal::new(Reason::UpstreamTimeout, "it took too long to connect")))
        }
        Err(end) => {
            record.ended = Some(end.as_str());
            Err(After::Close)
        }
    }
}

/// Answers an OPTIONS that may go no further; `None`: it may.
pub async fn answered_here(caller: &mut Caller, record: &mut Record, asked: &Asked<'_>) -> Option<After> {
    let left = hops_left(asked.method, asked.headers.get(header::MAX_FORWARDS)?.as_bytes());
    if left != Some(0) {
        return None;
    }
    let closes = asked.head.closes || asked.head.is_1_0 || asked.head.framing != Framing::None;
    let bytes = super::answer::options(record.id.as_str(), closes);
    record.status = Some(204);
    caller.conn.step(now(), caller.timeouts.header);
    let written = caller.conn.within(caller.stream.write_all(&bytes)).await;
    caller.conn.no_step();
    Some(if closes || !matches!(written, Ok(Ok(()))) { After::Close } else { After::Keep })
}

/// RFC 9110 §9.2.2, and nothing of it that could be half sent.
fn is_repeatable(asked: &Asked<'_>) -> bool {
    asked.head.framing == Framing::None && matches!(asked.method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE")
}

fn faulty(record: &mut Record, exchange: &Exchange, fault: &Fault) -> After {
    record.status = exchange.status;
    let Fault(at, why) = fault;
    match at {
        At::Client => {
            record.ended = Some("client_gone");
            After::Close
        }
        At::Request if !exchange.is_answered => After::Refuse(Refusal::new(Reason::BadRequest, why.clone())),
        At::Origin if !exchange.is_answered => After::Refuse(Refusal::new(Reason::UpstreamReset, why.clone())),
        At::Parent => After::Refuse(parent::unknown_there(record)),
        At::Request | At::Origin => {
            record.reason = Some(if *at == At::Origin { Reason::UpstreamReset } else { Reason::BadRequest });
            record.detail.clone_from(why);
            exchange.breaks_off()
        }
    }
}

fn ended(record: &mut Record, exchange: &Exchange, end: End) -> After {
    record.status = exchange.status;
    if !exchange.is_answered && matches!(end, End::Late | End::Idle | End::Total) {
        return After::Refuse(if exchange.request.is_done() {
            Refusal::new(Reason::UpstreamTimeout, "no answer in time")
        } else {
            Refusal::new(Reason::RequestTimeout, "the body did not arrive in time")
        });
    }
    record.ended = Some(end.as_str());
    exchange.breaks_off()
}

enum Answering {
    /// What has come of the head, and how far it was searched.
    Head(BytesMut, usize),
    Body(Box<Pass>),
    Done,
}

struct Exchange {
    request: Pass,
    /// The origin is a parent proxy, asked in absolute form.
    by_parent: bool,
    answer: Answering,
    is_head: bool,
    is_1_0: bool,
    /// The client's connection, behind this.
    keeps: bool,
    /// The origin's.
    reusable: bool,
    status: Option<u16>,
    /// Something of the final answer's head may be with the client.
    is_answered: bool,
    /// And that answer ends with the connection.
    is_open_ended: bool,
    /// Answers before the final one.
    interim: u32,
    first_byte: std::time::Duration,
    /// The request is there, its answer is not.
    waits: bool,
    /// The client has said its last.
    has_ended: bool,
}

impl Exchange {
    /// Nothing of an answer has come.
    fn is_untouched(&self) -> bool {
        matches!(&self.answer, Answering::Head(bytes, _) if bytes.is_empty())
    }

    /// Hears whether the client is gone, while an answer is waited for; what it sends meanwhile is its next request. One that has only ended its
    /// side waits still.
    fn listen(&mut self, cx: &mut Context<'_>, client: &mut Stream, inbox: &mut BytesMut) -> Result<(), Fault> {
        while inbox.is_empty() {
            let mut room = [0; 1024];
            let mut buffer = ReadBuf::new(&mut room);
            match Pin::new(&mut *client).poll_read(cx, &mut buffer).map_err(client_gone)? {
                Poll::Ready(()) if buffer.filled().is_empty() => {
                    self.has_ended = true;
                    break;
                }
                Poll::Ready(()) => inbox.extend_from_slice(buffer.filled()),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// It ends here, and not by its own end.
    fn breaks_off(&self) -> After {
        if self.is_answered && self.is_open_ended { After::Cut } else { After::Close }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        origin: &mut Stream,
        record: &mut Record,
        conn: &Conn,
        inbox: &mut BytesMut,
    ) -> Poll<Result<(), Fault>> {
        let ticket = record.ticket.as_ref().filter(|ticket| ticket.is_paced());
        if !self.request.is_done() {
            let sent = self.request.poll(cx, client, origin, inbox, &record.moved.sent, conn, ticket, Direction::Up);
            match sent {
                // An origin may answer before it has read everything, and close: its answer counts.
                Poll::Ready(Err(Fault(At::Origin, _))) => {
                    self.request.give_up();
                    (self.keeps, self.reusable) = (false, false);
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if self.request.is_done() && !self.waits && matches!(self.answer, Answering::Head(..)) {
            self.waits = true;
            conn.step(now(), self.first_byte);
        }
        if self.waits && !self.is_answered && !self.has_ended {
            self.listen(cx, client, inbox)?;
        }
        loop {
            match &mut self.answer {
                Answering::Head(bytes, searched) => {
                    let mut room = [0; 4096];
                    if bytes.is_empty()
                        || matches!(answer::look(bytes, *searched, self.is_head), LookAnswer::Partial(_))
                    {
                        let mut buffer = ReadBuf::new(&mut room);
                        match Pin::new(&mut *origin).poll_read(cx, &mut buffer) {
                            Poll::Pending => {
                                // What TLS towards a parent has made of the request.
                                return match Pin::new(&mut *origin).poll_flush(cx) {
                                    Poll::Ready(Err(e)) => origin_fault(e.to_string()),
                                    _ => Poll::Pending,
                                };
                            }
                            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                                return origin_fault("it closed the connection without an answer");
                            }
                            Poll::Ready(Ok(())) => bytes.extend_from_slice(buffer.filled()),
                            Poll::Ready(Err(e)) => return origin_fault(e.to_string()),
                        }
                        conn.moved();
                    }
                    match answer::look(bytes, *searched, self.is_head) {
                        LookAnswer::Partial(at) => *searched = at,
                        LookAnswer::Bad(why) => return origin_fault(why),
                        LookAnswer::Answer(found) if found.status == 101 => {
                            return origin_fault("it switches protocols, which nobody asked for");
                        }
                        LookAnswer::Answer(found) if found.status == 407 && self.by_parent => {
                            return Poll::Ready(Err(Fault(At::Parent, "".into())));
                        }
                        LookAnswer::Answer(found) if found.status < 200 && self.interim == INTERIM => {
                            return origin_fault("interim answers without end");
                        }
                        LookAnswer::Answer(found) => {
                            let mut bytes = std::mem::take(bytes);
                            let head = bytes.split_to(found.end).freeze();
                            self.head(&head, &found, bytes, conn, record.id.as_str());
                        }
                    }
                }
                Answering::Body(pass) => {
                    let mut none = BytesMut::new();
                    let moved =
                        pass.poll(cx, origin, client, &mut none, &record.moved.received, conn, ticket, Direction::Down);
                    match moved {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault.turned())),
                        Poll::Ready(Ok(())) => {}
                    }
                    if Pin::new(&mut *client).poll_flush(cx).map_err(client_gone)?.is_pending() {
                        return Poll::Pending;
                    }
                    let over = pass.take_over();
                    self.answer = if self.is_answered {
                        // Nobody asked for what is behind an answer.
                        self.reusable &= over.is_empty();
                        Answering::Done
                    } else {
                        Answering::Head(over, 0)
                    };
                }
                Answering::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// A head is there: what is passed back of it, and what is to follow.
    fn head(&mut self, bytes: &Bytes, found: &Answer, rest: BytesMut, conn: &Conn, request_id: &str) {
        self.status = Some(found.status);
        if found.status < 200 {
            self.interim += 1;
            // RFC 9110 §15.2: a client of HTTP/1.0 knows no interim answers.
            let head = if self.is_1_0 { Vec::new() } else { answer_head(bytes, found, &Told::default()) };
            self.answer = Answering::Body(Box::new(Pass::over_read(Framing::None, head, rest)));
            return;
        }
        conn.no_step();
        self.is_answered = true;
        self.keeps &= found.ends != Ends::WithConnection && self.request.is_done() && !conn.is_draining();
        self.reusable &= !found.closes;
        // RFC 9112 §6.1: a client of HTTP/1.0 knows no chunks.
        let unchunks = self.is_1_0 && found.ends == Ends::By(Framing::Chunked);
        self.is_open_ended = unchunks || found.ends == Ends::WithConnection;
        let told = Told { closes: !self.keeps, unchunks, request_id: Some(request_id) };
        let head = answer_head(bytes, found, &told);
        let pass = match found.ends {
            Ends::By(_) if unchunks => Pass::unchunked(head, rest),
            Ends::By(framing) => Pass::over_read(framing, head, rest),
            Ends::WithConnection => Pass::to_end(head, rest),
        };
        self.answer = Answering::Body(Box::new(pass));
    }
}

fn origin_fault(why: impl Into<Cow<'static, str>>) -> Poll<Result<(), Fault>> {
    Poll::Ready(Err(Fault(At::Origin, why.into())))
}

fn client_gone(error: io::Error) -> Fault {
    Fault(At::Client, error.to_string().into())
}
