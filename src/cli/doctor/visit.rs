//! One version: name, addresses, certificate, a call with the signature and one without.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::Method;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;

use super::{
    judge::{self, Finding, Heard, Level},
    machine,
    told::VersionTold,
};
use crate::{
    config::{
        Loaded, changes,
        model::{Credential, EndpointHost, Function, UpstreamHttp, Version},
    },
    platform::sign::{Signer, Unsignable},
    upstream::{
        Candidates, Resolver,
        probe::{
            alpn,
            call::{Answer, Question},
            dial::{Broken, Line, Tls, dial},
            host, system_roots,
        },
    },
};

/// For a name's first answer.
const RESOLVE: Duration = Duration::from_secs(8);
/// However patient the function's own `timeouts` are.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whom each version's certificates must come from.
pub(super) struct Trusts {
    system: Result<Arc<RootCertStore>, String>,
    of_files: BTreeMap<PathBuf, Arc<RootCertStore>>,
}

impl Trusts {
    pub(super) async fn of(loaded: &Loaded) -> Self {
        let versions = || loaded.config.functions.iter().flat_map(|f| &f.versions).filter(|version| version.url.tls);
        let mut of_files = BTreeMap::new();
        for ca in versions().filter_map(|version| version.ca.as_ref()) {
            let mut roots = RootCertStore::empty();
            // The load has found that each can be used.
            roots.add_parsable_certificates(loaded.material.authority(ca).unwrap_or_default().iter().cloned());
            of_files.insert(ca.clone(), Arc::new(roots));
        }
        let mut system = Ok(Arc::new(RootCertStore::empty()));
        if versions().any(|version| version.ca.is_none()) {
            system = system_roots().await;
        }
        Self { system, of_files }
    }

    fn roots(&self, version: &Version) -> Result<Arc<RootCertStore>, String> {
        match &version.ca {
            None => self.system.clone().map_err(|why| format!("this machine's trusted certificates: {why}")),
            Some(ca) => self.of_files.get(ca).cloned().ok_or_else(|| format!("{} was not read", ca.display())),
        }
    }
}

/// A version to look at.
pub(super) struct Visit {
    pub(super) loaded: Arc<Loaded>,
    pub(super) function: usize,
    pub(super) version: usize,
    pub(super) trusts: Arc<Trusts>,
    pub(super) resolver: Resolver,
    /// Method and path; `None`: it is not called.
    pub(super) ask: Option<(Method, String)>,
}

impl Visit {
    pub(super) async fn make(self) -> VersionTold {
        let config = &self.loaded.config;
        let function = &config.functions[self.function];
        let version = &function.versions[self.version];
        let credential = version.credential.map(|id| &config.credentials[id.index()]);
        let mut told = VersionTold {
            function: function.name.to_string(),
            platform: function.platform.name.as_str(),
            version: version.name.to_string(),
            url: changes::url(&version.url),
            host: host(config, function, version, self.function),
            credential: credential.map(|credential| format!("{} ({})", credential.name, credential.kind.as_str())),
            sent: Vec::new(),
            findings: Vec::new(),
        };
        if let Some(door) = self.approach(function, version, &mut told).await {
            self.call(function, version, credential, door, &mut told).await;
        }
        told
    }

    /// Looks the name up, and connects to each address; the first that works is the one to call.
    async fn approach(&self, function: &Function, version: &Version, told: &mut VersionTold) -> Option<Door> {
        let url = &version.url;
        let (server, ips) =
            match &url.host {
                EndpointHost::Address(ip) => (ServerName::from(*ip), vec![*ip]),
                EndpointHost::Name(name) => {
                    let watched = self.resolver.watch(name);
                    if watched.wait_first(RESOLVE).await.is_err() {
                        let servers = match &*self.loaded.config.server.dns {
                            [] => "the name servers of /etc/resolv.conf".to_owned(),
                            servers => servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                        };
                        let finding =
                            Finding::new("name", Level::Problem, format!("{name} does not resolve, by {servers}"));
                        told.findings.push(finding.help(
                            "a slip in the URL, a function that is gone, or a name that only another network knows",
                        ));
                        return None;
                    }
                    let ips: Vec<IpAddr> = watched.current().to_vec();
                    let all = ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    told.findings.push(Finding::new("name", Level::Ok, format!("{name} is {all}")));
                    // The config takes no names that aren't.
                    (ServerName::try_from(name.clone()).ok()?, ips)
                }
            };
        let tls = match url.tls {
            false => None,
            true => match self.trusts.roots(version) {
                Ok(roots) => Some(Tls { roots, name: server, alpn: alpn(function.http) }),
                Err(why) => {
                    told.findings.push(Finding::new("certificate", Level::Problem, why));
                    return None;
                }
            },
        };
        let within = function.timeouts.connect.min(PATIENCE);
        let prior = function.http == UpstreamHttp::Http2;
        let mut good = None;
        let mut bad = Vec::new();
        for ip in ips.into_iter().take(Candidates::MOST) {
            let address = SocketAddr::new(ip, url.port);
            match dial(address, tls.as_ref(), prior, within).await {
                Ok(line) if good.is_none() => good = Some((line, address)),
                Ok(_) => {}
                Err(broken) => bad.push((address, broken)),
            }
        }
        let Some((line, address)) = good else {
            for (address, broken) in bad {
                told.findings.push(self.unreachable(version, address, &broken, Level::Problem));
            }
            return None;
        };
        for (address, broken) in bad {
            // gatepost goes on to the next one.
            told.findings.push(self.unreachable(version, address, &broken, Level::Warning));
        }
        let mut text = format!("{address} in {} ms", line.connect.as_millis());
        if let Some(tls) = line.tls {
            text += &format!(", TLS in {} ms", tls.as_millis());
        }
        text += &format!(", {}, leaving by {}", if line.speaks_h2 { "HTTP/2" } else { "HTTP/1.1" }, line.local.ip());
        told.findings.push(Finding::new("connect", Level::Ok, text));
        match &line.certificate {
            Some(shown) => told.findings.push(judge::certificate(shown, jiff::Timestamp::now().as_second())),
            None if !machine::is_private(address.ip()) => {
                let finding = Finding::new(
                    "certificate",
                    Level::Warning,
                    "plain HTTP to a public address: anybody on the way reads and changes it",
                );
                told.findings.push(finding.help("write the URL with https"));
            }
            None => {}
        }
        Some(Door { line, address, tls, prior, within })
    }

    fn unreachable(&self, version: &Version, address: SocketAddr, broken: &Broken, level: Level) -> Finding {
        match &broken.distrust {
            Some(distrust) => {
                let mut finding = judge::distrust(distrust, &version.url.host.to_string(), version.ca.is_some());
                finding.text = format!("{address}: {}", finding.text);
                finding.level = level;
                finding
            }
            None => Finding::new("connect", level, format!("{address}: {}", broken.what)),
        }
    }

    async fn call(
        &self,
        function: &Function,
        version: &Version,
        credential: Option<&Credential>,
        door: Door,
        told: &mut VersionTold,
    ) {
        let Some((method, path)) = &self.ask else { return };
        let signer = match credential.map(|credential| Signer::new(credential, &self.loaded.material)) {
            None => None,
            Some(Ok(signer)) => Some(signer),
            Some(Err(why)) => {
                let finding = Finding::new("signature", Level::Warning, format!("not tried: {why}"));
                told.findings.push(finding.help(match why {
                    Unsignable::Fetched => "`gatepost_token_fetches_total` and the service's log tell how that goes",
                    _ => "secrets of the service are read as the service: run doctor as its user, with its environment",
                }));
                None
            }
        };
        let target = format!("{}{path}", version.url.base_path);
        let host = told.host.clone();
        let question = Question { method, target: &target, host: &host, agent: "gatepost-doctor" };
        let within = function.timeouts.first_byte.min(PATIENCE);
        let private = machine::is_private(door.address.ip());
        let address = door.address;
        let (mut line, door) = door.open();
        let mut signed = None;
        if let Some(signer) = &signer {
            match question.put(line, Some(signer), within, told, address).await {
                Ok(answer) => {
                    let heard = self.heard(function, &answer, told);
                    told.findings
                        .push(judge::clock(answer.ahead, credential.is_some_and(|c| judge::tells_time(&c.kind))));
                    signed = Some(heard);
                }
                Err(why) => {
                    told.findings.push(Finding::new("answer", Level::Problem, why));
                    return;
                }
            }
            line = match door.again(address).await {
                Ok(line) => line,
                Err(broken) => {
                    told.findings.push(Finding::new(
                        "bypass",
                        Level::Warning,
                        format!("not tried: {address}: {}", broken.what),
                    ));
                    return;
                }
            };
        }
        match question.put(line, None, within, told, address).await {
            Ok(answer) => {
                let heard = match signed {
                    Some(_) => Heard::new(&function.platform, answer.status, &answer.headers),
                    None if credential.is_some() => {
                        let heard = Heard::new(&function.platform, answer.status, &answer.headers);
                        told.findings.push(judge::clock(answer.ahead, true));
                        heard
                    }
                    None => {
                        let heard = self.heard(function, &answer, told);
                        told.findings.push(judge::clock(answer.ahead, false));
                        heard
                    }
                };
                // A credential that could not be tried is no reason to find that there is none.
                match (signed, credential) {
                    (None, Some(_)) => told.findings.extend(judge::without(heard)),
                    _ => told.findings.extend(judge::signature(signed, heard, private)),
                }
            }
            Err(why) if signed.is_some() => {
                // Closing on whoever has no signature is a way to refuse.
                told.findings.push(Finding::new(
                    "bypass",
                    Level::Ok,
                    format!("no answer without the signature: {why}"),
                ));
            }
            Err(why) => told.findings.push(Finding::new("answer", Level::Problem, why)),
        }
    }

    fn heard(&self, function: &Function, answer: &Answer, told: &mut VersionTold) -> Heard {
        let heard = Heard::new(&function.platform, answer.status, &answer.headers);
        told.findings.extend(judge::answer(heard, answer.took.as_millis()));
        heard
    }
}

/// A version's address that can be connected to.
struct Door {
    line: Line,
    address: SocketAddr,
    tls: Option<Tls>,
    prior: bool,
    within: Duration,
}

struct Again {
    tls: Option<Tls>,
    prior: bool,
    within: Duration,
}

impl Door {
    fn open(self) -> (Line, Again) {
        let Self { line, address: _, tls, prior, within } = self;
        (line, Again { tls, prior, within })
    }
}

impl Again {
    async fn again(&self, address: SocketAddr) -> Result<Line, Broken> {
        dial(address, self.tls.as_ref(), self.prior, self.within).await
    }
}

impl Question<'_> {
    /// Asks, and writes down what was asked.
    async fn put(
        &self,
        line: Line,
        signer: Option<&Signer>,
        within: Duration,
        told: &mut VersionTold,
        address: SocketAddr,
    ) -> Result<Answer, String> {
        let fields = self.fields(signer).map_err(|error| error.to_string())?;
        let mut words = format!("{} {} to {address}, Host: {}", self.method, self.target, self.host);
        for (name, value) in &fields {
            // What signs is sensitive.
            let value = if value.is_sensitive() { "…" } else { value.to_str().unwrap_or("…") };
            words += &format!(", {name}: {value}");
        }
        told.sent.push(words);
        self.ask(line, fields, within).await
    }
}
