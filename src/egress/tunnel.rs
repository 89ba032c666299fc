//! CONNECT: a tunnel to where a rule leads, and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answer::Refusal,
    conn::{Conn, End},
    record::Record,
    relay::{Ended, relay},
    serve::Stream,
    standing::Standing,
    way::{self, terms},
};
use crate::{
    config::model::EgressMode,
    decide::{
        Reason,
        auth::Grounds,
        egress::{Authority, Hello, HelloReader, hello_agrees, wanted_name},
    },
    observe::clock::now,
};

/// A tunnel that stands: what is left is to move bytes.
pub struct Tunnel {
    pub client: Stream,
    upstream: Stream,
    record: Box<Record>,
    conn: Arc<Conn>,
}

/// Opens a tunnel: dials, answers 200, and compares the TLS client's name. `via`: for a parent; `ahead`: what the client has sent behind its
/// request; `grounds`: what it was let in by.
///
/// # Errors
///
/// The refusal, with the client's side: before 200.
pub async fn open(
    mut client: Stream,
    mut record: Box<Record>,
    to: Authority<'static>,
    via: &[u8],
    mut ahead: BytesMut,
    grounds: Option<Grounds>,
    conn: Arc<Conn>,
) -> Result<Option<Tunnel>, (Refusal, Stream, Box<Record>)> {
    let dialled = conn
        .within(async {
            let course = way::course(&mut record, &to).await?;
            way::connect(&mut record, &course, via).await
        })
        .await;
    let (mut upstream, back) = match dialled {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(refusal)) => return Err((refusal, client, record)),
        Err(end) => {
            record.ended = Some(end.as_str());
            return Ok(None);
        }
    };
    let (rule, egress, timeouts) = terms(&record);
    let wanted = wanted_name(rule, &to).map(str::to_owned);
    let is_reported = rule.map_or(egress.mode, |rule| rule.mode) == EgressMode::Report;
    let (hello_most, idle, total) = (timeouts.tls_name, timeouts.idle, timeouts.total);
    let standing = Standing::of(&record, &to, grounds);
    if standing.is_overtaken(conn.is_doubted()) {
        // No rule of the config that holds now would have had it dialled.
        let refusal = Refusal::new(Reason::DestinationNotAllowed, "a reload took it away while it was dialled");
        return Err((refusal, client, record));
    }
    // Under `keep` as well: a later config may say `close`.
    conn.set_allowed(Box::new(standing));

    let answer = format!("HTTP/1.1 200 Connection established\r\nX-Request-Id: {}\r\n\r\n", record.id.as_str());
    record.status = Some(200);
    conn.tunnel(now(), idle, total);
    match conn.within(client.write_all(answer.as_bytes())).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => {
            record.ended = Some("client_gone");
            return Ok(None);
        }
        Err(end) => {
            record.ended = Some(end.as_str());
            return Ok(None);
        }
    }
    if let Some(wanted) = wanted {
        conn.step(now(), hello_most);
        let hello = conn.within(hello(&mut client, &mut ahead)).await;
        conn.no_step();
        let hello = match hello {
            Ok(Some(hello)) => hello,
            Err(End::Late) => Hello::NeedMore,
            Ok(None) => {
                record.ended = Some("client_gone");
                return Ok(None);
            }
            Err(end) => {
                record.ended = Some(end.as_str());
                return Ok(None);
            }
        };
        let agrees = hello_agrees(&hello, &wanted);
        if !agrees {
            record.detail = hello.words();
        }
        if !agrees && is_reported {
            conn.forgives_late();
            record.would_refuse = Some(Reason::ServerNameMismatch);
        } else if !agrees {
            // It was told 200: the log has the reason.
            record.reason = Some(Reason::ServerNameMismatch);
            return Ok(None);
        }
    }
    // What a parent has sent behind its answer.
    let there = pass_on(&mut upstream, &mut ahead, &conn, &record.moved.sent, "upstream_gone").await;
    let back = match there {
        Ok(()) => pass_on(&mut client, &mut { back }, &conn, &record.moved.received, "client_gone").await,
        gone => gone,
    };
    if let Err(ended) = back {
        record.ended = Some(ended);
        return Ok(None);
    }
    Ok(Some(Tunnel { client, upstream, record, conn }))
}

/// Writes what was read ahead; else says how the tunnel ended.
async fn pass_on(
    to: &mut Stream,
    bytes: &mut BytesMut,
    conn: &Conn,
    count: &AtomicU64,
    gone: &'static str,
) -> Result<(), &'static str> {
    while bytes.has_remaining() {
        match conn.within(to.write(bytes)).await {
            Ok(Ok(n @ 1..)) => {
                bytes.advance(n);
                count.fetch_add(n as u64, Relaxed);
            }
            Ok(_) => return Err(gone),
            Err(end) => return Err(end.as_str()),
        }
    }
    Ok(())
}

/// Reads until the name that the client asks for is known, or cannot be; `None`: it has ended before.
async fn hello(client: &mut Stream, ahead: &mut BytesMut) -> Option<Hello> {
    let mut reader = HelloReader::default();
    let mut seen = 0;
    loop {
        match reader.feed(&ahead[seen..]) {
            Hello::NeedMore => {}
            known => return Some(known),
        }
        seen = ahead.len();
        // The reader bounds it.
        match client.read_buf(ahead).await {
            Ok(1..) => {}
            _ => return None,
        }
    }
}

impl Tunnel {
    /// Moves bytes until it ends.
    pub async fn run(mut self) {
        let (record, conn) = (&mut self.record, &self.conn);
        let (moved, ticket) = (&record.moved, record.ticket.as_ref());
        let ended = match (&mut self.client, &mut self.upstream) {
            (Stream::Tcp(client), Stream::Tcp(upstream)) => relay(client, upstream, conn, moved, ticket, true).await,
            (client, upstream) => relay(client.as_side(), upstream.as_side(), conn, moved, ticket, false).await,
        };
        record.ended = match ended {
            Ended::Well => None,
            Ended::Broken => Some("reset"),
            Ended::By(end) => Some(end.as_str()),
        };
    }
}
