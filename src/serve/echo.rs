//! What the world sees of the addresses to leave from: an echo is asked from each, and what it says is compared with what partners were told.
//!
//! A task per address on this thread's runtime. What it finds is told, in the log, the metrics and the status, and refuses nothing: an echo that is wrong,
//! or not there, must not stop payments.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::client_tls::Connectors;
use crate::{
    config::{
        Loaded,
        model::{EndpointHost, Name, Resolver, Source, SourceCheck},
    },
    egress::{Side, dial::dial},
    observe::metrics::{EgressHandles, Seen, SourceCounts},
    upstream::resolve::lookup,
};

/// The whole of a question.
const WHOLE: Duration = Duration::from_secs(15);
/// TCP and TLS to one address, and to so many.
const CONNECT: Duration = Duration::from_secs(4);
const ADDRESSES: usize = 3;
/// An address, and some words around it.
const LARGEST: usize = 4096;
/// After a failure it is asked again no later than this.
const RETRY: Duration = Duration::from_secs(60);

/// One address and whom it asks.
#[derive(Clone)]
pub struct Question {
    pub source: Name,
    pub bind: IpAddr,
    /// What partners were told.
    pub public: IpAddr,
    pub check: SourceCheck,
    pub resolver: Resolver,
    connector: Option<TlsConnector>,
}

impl Question {
    /// Whether asking this is asking the other.
    fn is(&self, other: &Self) -> bool {
        let connectors = match (&self.connector, &other.connector) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a.config(), b.config()),
            _ => false,
        };
        connectors
            && (&self.source, self.bind, self.public) == (&other.source, other.bind, other.public)
            && (&self.check, &self.resolver) == (&other.check, &other.resolver)
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// Why there is no answer, for the log.
    pub async fn ask(&self) -> Result<IpAddr, String> {
        timeout(WHOLE, self.get()).await.unwrap_or_else(|_| Err(format!("no answer within {WHOLE:?}")))
    }

    async fn get(&self) -> Result<IpAddr, String> {
        let mut last = format!("it has no address that {} could reach", self.bind);
        let url = &self.check.url;
        let (name, ips) = match &url.host {
            EndpointHost::Address(ip) => (ServerName::from(*ip), vec![*ip]),
            EndpointHost::Name(name) => {
                let found = lookup::addresses(name, &self.resolver.servers, self.resolver.timeout).await;
                let found = found.map_err(|why| format!("{name}: {why}"))?;
                (ServerName::try_from(name.clone()).map_err(|error| error.to_string())?, found.to_vec())
            }
        };
        for ip in ips.into_iter().filter(|ip| ip.is_ipv4() == self.bind.is_ipv4()).take(ADDRESSES) {
            let address = SocketAddr::new(ip, url.port);
            let connected = async {
                let stream = dial(address, Some(self.bind)).await.map_err(|error| error.to_string())?;
                let stream: Box<dyn Side> = match &self.connector {
                    None => Box::new(stream),
                    Some(tls) => {
                        Box::new(tls.connect(name.clone(), stream).await.map_err(|error| format!("TLS: {error}"))?)
                    }
                };
                Ok::<_, String>(stream)
            };
            match timeout(CONNECT, connected).await {
                Ok(Ok(stream)) => return self.over(stream).await,
                Ok(Err(why)) => last = format!("{address}: {why}"),
                Err(_) => last = format!("{address}: no connection within {CONNECT:?}"),
            }
        }
        Err(last)
    }

    async fn over(&self, stream: Box<dyn Side>) -> Result<IpAddr, String> {
        let told = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        // It ends with `sender`, or with the peer.
        let driven = tokio::spawn(connection);
        let path = &self.check.url.base_path;
        let request = Request::get(if path.is_empty() { "/" } else { path })
            .header(header::HOST, &self.check.url.authority)
            .header(header::ACCEPT, "text/plain, application/json")
            .header(header::USER_AGENT, "gatepost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(told)?;
            if answer.status() != 200 {
                return Err(format!("it answered {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| format!("its body: {error}"))?.to_bytes();
            address_in(&String::from_utf8_lossy(&body)).ok_or_else(|| "its answer does not hold one address".to_owned())
        }
        .await;
        driven.abort();
        answer
    }
}

/// The one address in a text: alone, or in some words, or in JSON. Two are none: nobody could say which is meant.
fn address_in(text: &str) -> Option<IpAddr> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
    let mut found = words.filter_map(|word| word.trim_end_matches(['.', ':']).parse::<IpAddr>().ok());
    let first = found.next()?.to_canonical();
    found.all(|other| other.to_canonical() == first).then_some(first)
}

/// All questions of a config; the tasks that ask them end with the last that has them.
#[derive(Default)]
pub struct Checks(Vec<Arc<Followed>>);

struct Followed {
    question: Question,
    counts: Arc<SourceCounts>,
    /// Dropped to end the task.
    _held: oneshot::Sender<Infallible>,
}

/// Everything that `loaded` wants to be asked, by address.
///
/// # Errors
///
/// Which source's check can't be used, and why.
pub fn questions(loaded: &Loaded, connectors: &mut Connectors) -> Result<Vec<Question>, String> {
    let egress = &loaded.config.egress;
    let mut all = Vec::new();
    for source in &egress.sources {
        let Some(check) = &source.check else { continue };
        let connector = match check.url.tls {
            false => None,
            true => Some(
                connectors
                    .get(check.ca.as_deref(), &loaded.material)
                    .map_err(|why| format!("egress source {}: its check: {why}", source.name))?,
            ),
        };
        all.extend(of_source(source, check, &egress.resolver, connector.as_ref()));
    }
    Ok(all)
}

fn of_source(
    source: &Source,
    check: &SourceCheck,
    resolver: &Resolver,
    connector: Option<&TlsConnector>,
) -> impl Iterator<Item = Question> {
    source.bind.iter().enumerate().map(move |(at, bind)| Question {
        source: source.name.clone(),
        bind: *bind,
        public: source.public_of(at).unwrap_or(*bind),
        check: check.clone(),
        resolver: resolver.clone(),
        connector: connector.cloned(),
    })
}

impl Checks {
    /// Asks `questions` from now on: those of `self` go on.
    pub fn follow(&self, questions: Vec<Question>, handles: &EgressHandles) -> Self {
        for gone in self.0.iter().filter(|kept| !questions.iter().any(|question| kept.question.is(question))) {
            gone.counts.forget_seen();
        }
        let all = questions.into_iter().filter_map(|question| {
            let mut sources = handles.sources();
            let (_, _, counts) = sources.find(|(name, ip, _)| **name == question.source && *ip == question.bind)?;
            let kept = self.0.iter().find(|kept| kept.question.is(&question) && Arc::ptr_eq(&kept.counts, counts));
            Some(kept.cloned().unwrap_or_else(|| follow(question, counts.clone())))
        });
        Self(all.collect())
    }
}

fn follow(question: Question, counts: Arc<SourceCounts>) -> Arc<Followed> {
    let (held, released) = oneshot::channel();
    let task = run(question.clone(), counts.clone());
    tokio::spawn(async move {
        tokio::select! {
            // Whoever is released says nothing more: what it said has been forgotten.
            biased;
            _ = released => {}
            never = task => match never {},
        }
    });
    Arc::new(Followed { question, counts, _held: held })
}

async fn run(question: Question, counts: Arc<SourceCounts>) -> Infallible {
    let every = question.check.every;
    let mut last = Seen::Unknown;
    loop {
        let seen = match question.ask().await {
            Ok(ip) if ip == question.public => Seen::Agrees,
            Ok(ip) => Seen::Differs(ip),
            Err(why) => Seen::Failed(why),
        };
        tell(&question, &last, &seen);
        let pause = if matches!(seen, Seen::Failed(_)) { every.min(RETRY) } else { every };
        last = seen.clone();
        counts.seen(seen);
        sleep(pause).await;
    }
}

/// Once, where it has become another.
fn tell(question: &Question, last: &Seen, seen: &Seen) {
    let Question { source, bind, public, check, .. } = question;
    let url = &check.url.authority;
    match (last, seen) {
        (Seen::Differs(before), Seen::Differs(now)) if before == now => {}
        (_, Seen::Differs(now)) => tracing::warn!(
            %source, address = %bind, %public, seen = %now, by = %url,
            "the world sees another address than `public`: partners may refuse what leaves from it"
        ),
        (Seen::Failed(_), Seen::Failed(_)) | (Seen::Agrees, Seen::Agrees) => {}
        (_, Seen::Failed(why)) => tracing::warn!(
            %source, address = %bind, by = %url, error = %why, "cannot ask what the world sees of the source's address"
        ),
        (_, Seen::Agrees) => {
            tracing::info!(%source, address = %bind, %public, by = %url, "the world sees the source's address as partners were told")
        }
        (_, Seen::Unknown) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_says_one_address() {
        let found = |text: &str| address_in(text).map(|ip| ip.to_string());
        for (text, ip) in [
            ("203.0.113.11\n", "203.0.113.11"),
            ("Current IP Address: 203.0.113.11.", "203.0.113.11"),
            ("{\"ip\":\"203.0.113.11\"}", "203.0.113.11"),
            ("{\"ip\": \"2001:db8::1\", \"again\": \"2001:DB8:0::1\"}", "2001:db8::1"),
            ("::ffff:203.0.113.11", "203.0.113.11"),
        ] {
            assert_eq!(found(text).as_deref(), Some(ip), "{text}");
        }
        for text in ["", "hello", "203.0.113", "203.0.113.11, 203.0.113.12", "<html>404</html>", "1.2.3.4.5"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
