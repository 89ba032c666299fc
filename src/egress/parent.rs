//! A parent proxy: how it is reached, and asked to connect (CONNECT, RFC 9110 §9.3.6).

use std::{
    fmt::Display,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{
    answer::Refusal,
    here,
    live::Live,
    record::Record,
    serve::Stream,
    way::{self, Course},
};
use crate::{
    config::model::{EgressRule, EndpointHost, Parent as Config, ResolvedBy},
    decide::{
        Reason,
        egress::{Authority, Host, via},
        http1::answer::{self, LookAnswer},
    },
    upstream::resolve::lookup,
};

/// What a rule's parent needs beyond what the config says.
pub struct Parent {
    /// Of an https parent.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// `Proxy-Authorization`.
    pub credentials: Option<HeaderValue>,
}

/// What a record tells of a parent.
#[derive(Debug)]
pub struct Through {
    /// Its URL.
    pub url: String,
    /// What it was asked to connect to.
    pub asked: String,
    /// That, where it is an address.
    pub address: Option<SocketAddr>,
}

/// How this process calls itself in `Via`: another one, though it has the same config, is another proxy.
pub static OWN_NAME: LazyLock<String> = LazyLock::new(|| {
    // Its keys come from the system's randomness.
    let number = RandomState::new().hash_one(std::process::id());
    format!("gatepost-{:08x}", number & 0xffff_ffff)
});

/// A request that has been here already.
///
/// # Errors
///
/// 508.
pub fn no_circle(headers: &HeaderMap) -> Result<(), Refusal> {
    match via::has_passed(headers, &OWN_NAME) {
        false => Ok(()),
        true => Err(Refusal::new(
            Reason::LoopDetected,
            "this gatepost has sent the request on already: a parent proxy leads back to it",
        )),
    }
}

/// The rule's parent.
pub fn of(record: &Record) -> Option<&Config> {
    way::terms(record).0?.parent.as_ref()
}

/// Whether a forwarded request is sent to the parent as it came, in absolute form. Else the parent is asked for a tunnel to an address that was judged:
/// in absolute form it would look the name up, and go where nobody has looked.
pub fn takes_absolute_form(parent: &Config, to: &Authority<'_>) -> bool {
    parent.resolve == ResolvedBy::Parent || matches!(to.host, Host::Address(_))
}

/// Whether the parent is asked for the name, so that its addresses are not looked at here.
pub fn looks_up(rule: Option<&EgressRule>, to: &Authority<'_>) -> bool {
    matches!(to.host, Host::Name(_))
        && rule.and_then(|rule| rule.parent.as_ref()).is_some_and(|parent| parent.resolve == ResolvedBy::Parent)
}

/// Connects to the parent, from where the client leaves.
///
/// # Errors
///
/// What the client is told.
pub async fn reach(record: &mut Record) -> Result<Stream, Refusal> {
    let live = record.live.clone();
    let (rule, egress, timeouts) = way::terms(record);
    let Some((config, parent)) = rule.and_then(|rule| rule.parent.clone()).zip(made(&live, record)) else {
        return Err(Refusal::new(Reason::UpstreamUnreachable, "the rule's parent proxy is not ready"));
    };
    let most = timeouts.connect;
    let addresses: Vec<IpAddr> = match &config.host {
        EndpointHost::Address(ip) => vec![*ip],
        EndpointHost::Name(name) => lookup::addresses(name, &egress.resolver.servers, egress.resolver.timeout)
            .await
            .map_err(|why| of_parent(&config, Reason::UpstreamUnreachable, why))?
            .to_vec(),
    };
    // Its addresses are as the config's author wants them, private ones too; but not our own.
    if addresses.iter().any(|ip| live.own.has(*ip, config.port, &here::has)) {
        return Err(of_parent(&config, Reason::LoopDetected, "it is this gatepost itself"));
    }
    let socket = way::dial_first(record, &addresses, config.port).await.map_err(|refusal| match refusal.reason {
        Reason::UpstreamUnreachable | Reason::UpstreamTimeout => of_parent(&config, refusal.reason, &refusal.detail),
        // Of the source, not of the parent.
        _ => refusal,
    })?;
    let Some((connector, name)) = &parent.tls else { return Ok(Stream::Tcp(socket)) };
    match tokio::time::timeout(most, connector.connect(name.clone(), socket)).await {
        Ok(Ok(stream)) => Ok(Stream::Other(Box::new(stream))),
        Ok(Err(error)) => Err(of_parent(&config, Reason::UpstreamUnreachable, format_args!("TLS: {error}"))),
        Err(_) => Err(of_parent(&config, Reason::UpstreamTimeout, format_args!("no TLS within {most:?}"))),
    }
}

fn made(live: &Live, record: &Record) -> Option<Arc<Parent>> {
    live.parents.get(record.rule?.index())?.clone()
}

fn of_parent(parent: &Config, reason: Reason, why: impl Display) -> Refusal {
    Refusal::new(reason, format!("the parent proxy {parent}: {why}"))
}

/// `Proxy-Authorization`, as a line of a head.
pub fn credentials(record: &Record, out: &mut Vec<u8>) {
    if let Some(value) = made(&record.live, record).as_ref().and_then(|parent| parent.credentials.as_ref()) {
        out.extend_from_slice(b"Proxy-Authorization: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// What the parent's 407 means for a client, who must not send its own credentials there.
pub fn unknown_there(record: &Record) -> Refusal {
    match of(record) {
        Some(parent) => of_parent(
            parent,
            Reason::CredentialUnavailable,
            "it wants other credentials than gatepost shows: see the rule's `parent`",
        ),
        None => Refusal::new(Reason::UpstreamReset, "407 of what is no parent proxy"),
    }
}

/// Asks the parent for a connection to each of a course's destinations, until it gives one. `via`: what [`via::with_ours`] made. With the
/// stream comes what was read behind the parent's answer.
///
/// # Errors
///
/// What the client is told: of the last destination that was tried.
pub async fn connect(record: &mut Record, course: &Course, via: &[u8]) -> Result<(Stream, BytesMut), Refusal> {
    let Some(parent) = of(record).cloned() else {
        return Err(Refusal::new(Reason::UpstreamUnreachable, "the rule has no parent proxy"));
    };
    let most = record.live.snapshot.config.egress.timeouts.first_byte;
    let began = Instant::now();
    let mut refusal = Refusal::new(Reason::NameNotResolved, "the name has no addresses");
    for (asked, address) in course.asked() {
        record.through = Some(Arc::new(Through { url: parent.to_string(), asked: asked.clone(), address }));
        let mut stream = reach(record).await?;
        let mut head = format!("CONNECT {asked} HTTP/1.1\r\nHost: {asked}\r\n").into_bytes();
        credentials(record, &mut head);
        head.extend_from_slice(via);
        head.extend_from_slice(b"\r\n");
        let answered = answered(&mut stream, &head, most).await;
        record.connect = Some(began.elapsed());
        let told = |reason, why: &dyn Display| of_parent(&parent, reason, why);
        let status = match answered {
            Ok((200..300, rest)) => return Ok((stream, rest)),
            Ok((status, _)) => status,
            Err((reason, why)) => return Err(told(reason, &why)),
        };
        refusal = match status {
            // tinyproxy says 401 to who shows wrong ones.
            401 | 407 => return Err(unknown_there(record)),
            508 => return Err(told(Reason::LoopDetected, &"it says that the request goes in a circle (508)")),
            300..=399 => return Err(told(Reason::UpstreamReset, &format_args!("it answered CONNECT with {status}"))),
            // It could not get there: perhaps it can to the next address.
            504 => told(Reason::UpstreamTimeout, &format_args!("it had no answer from {asked} in time (504)")),
            429 | 500.. => told(Reason::UpstreamUnreachable, &format_args!("it did not connect to {asked} ({status})")),
            _ => return Err(told(Reason::DestinationNotAllowed, &format_args!("it refuses {asked} ({status})"))),
        };
    }
    Err(refusal)
}

/// Interim answers that are skipped (RFC 9110 §15.2).
const INTERIM: usize = 8;

/// Sends a head, and reads the head of the answer: its status, and what was read behind it.
async fn answered(stream: &mut Stream, head: &[u8], most: Duration) -> Result<(u16, BytesMut), (Reason, String)> {
    let reset = |error: std::io::Error| (Reason::UpstreamReset, error.to_string());
    let exchange = async {
        stream.write_all(head).await.map_err(reset)?;
        stream.flush().await.map_err(reset)?;
        let (mut inbox, mut searched, mut interim) = (BytesMut::new(), 0, 0);
        loop {
            match answer::look(&inbox, searched, false) {
                LookAnswer::Answer(found) if found.status < 200 && interim < INTERIM => {
                    inbox.advance(found.end);
                    (searched, interim) = (0, interim + 1);
                    continue;
                }
                LookAnswer::Answer(found) if found.status < 200 => {
                    return Err((Reason::UpstreamReset, "it answers, and answers, and never ends".to_owned()));
                }
                LookAnswer::Answer(found) => {
                    // RFC 9110 §9.3.6: what frames an answer to CONNECT means nothing where it is 2xx.
                    inbox.advance(found.end);
                    return Ok((found.status, inbox));
                }
                LookAnswer::Bad(why) => return Err((Reason::UpstreamReset, format!("its answer to CONNECT: {why}"))),
                LookAnswer::Partial(at) => searched = at,
            }
            inbox.reserve(1024);
            if stream.read_buf(&mut inbox).await.map_err(reset)? == 0 {
                return Err((
                    Reason::UpstreamReset,
                    "it closed the connection without an answer to CONNECT".to_owned(),
                ));
            }
        }
    };
    let late = || Err((Reason::UpstreamTimeout, format!("no answer to CONNECT within {most:?}")));
    tokio::time::timeout(most, exchange).await.unwrap_or_else(|_| late())
}
