//! Which addresses may be dialled: what names resolve to, and what clients write out.

use std::{fmt, net::IpAddr, net::SocketAddr};

use crate::config::{
    Config,
    model::{EgressRule, ListenAddress, MixedAnswers, Networks},
    special::{Special, behind_nat64, special},
};

/// So many addresses of one name are tried.
pub const MOST_DIALLED: usize = 8;

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotAllowed {
    /// It is not public, and no `private` of the rule has it.
    Special(Special),
    /// It is gatepost's own.
    Own,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(what) => f.write_str(what.words()),
            Self::Own => f.write_str("gatepost's own"),
        }
    }
}

/// Where gatepost itself listens, and is seen: nobody is sent there.
#[derive(Debug, Clone, Default)]
pub struct Own {
    listening: Vec<SocketAddr>,
    /// The addresses of sources, and what the world sees in their place.
    sources: Vec<IpAddr>,
}

impl Own {
    /// By where gatepost really listens, listeners, egress listeners and admin: a config may leave the port to the system.
    pub fn new(config: &Config, listening: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listening = listening.into_iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())).collect();
        let sources = config.egress.sources.iter().flat_map(|source| source.bind.iter().chain(&source.public)).copied();
        Self { listening, sources: sources.collect() }
    }

    /// By what the config says.
    pub fn of(config: &Config) -> Self {
        let listeners = config.listeners.iter().chain(&config.egress.listeners).map(|listener| &listener.address);
        let listening = listeners.chain([&config.admin.address]).filter_map(|address| match address {
            ListenAddress::Tcp(at) => Some(*at),
            ListenAddress::Unix(_) => None,
        });
        Self::new(config, listening)
    }

    /// `is_local`: whether an address is one of this machine's; asked only where a listener on all addresses has that port.
    pub fn has(&self, ip: IpAddr, port: u16, is_local: &dyn Fn(IpAddr) -> bool) -> bool {
        let ip = ip.to_canonical();
        let mut on_port = self.listening.iter().filter(|at| at.port() == port).peekable();
        on_port.peek().is_some()
            && (self.sources.contains(&ip)
                || on_port.any(|at| at.ip() == ip || (at.ip().is_unspecified() && (ip.is_loopback() || is_local(ip)))))
    }
}

/// What decides over the addresses of a destination.
#[derive(Clone, Copy)]
pub struct Judge<'p> {
    /// What the rule exempts.
    pub private: Option<&'p Networks>,
    pub mixed: MixedAnswers,
    pub own: &'p Own,
    pub is_local: &'p dyn Fn(IpAddr) -> bool,
}

/// Why no address of a destination is dialled: the first that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub address: IpAddr,
    pub why: NotAllowed,
}

impl<'p> Judge<'p> {
    /// `None`: a destination that no rule takes, in report mode.
    pub fn of(rule: Option<&'p EgressRule>, own: &'p Own, is_local: &'p dyn Fn(IpAddr) -> bool) -> Self {
        Self {
            private: rule.map(|rule| &rule.private),
            mixed: rule.map_or(MixedAnswers::Deny, |rule| rule.mixed_answers),
            own,
            is_local,
        }
    }

    /// Whether one address may be dialled.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn one(&self, ip: IpAddr, port: u16) -> Result<(), NotAllowed> {
        let ip = ip.to_canonical();
        if self.own.has(ip, port, self.is_local) {
            return Err(NotAllowed::Own);
        }
        let Some(what) = special(ip) else { return Ok(()) };
        let refused = Err(NotAllowed::Special(what));
        let exempt = |ip| self.private.is_some_and(|nets| nets.contains(ip));
        if what.is_unreachable() || !exempt(ip) {
            return refused;
        }
        // A translator's prefix may be exempted; where it leads is judged all the same.
        match behind_nat64(ip) {
            None => Ok(()),
            Some(v4) if self.own.has(v4.into(), port, self.is_local) => Err(NotAllowed::Own),
            Some(v4) => match special(v4.into()) {
                None => Ok(()),
                Some(_) if exempt(v4.into()) => Ok(()),
                Some(_) => refused,
            },
        }
    }

    /// Which of a name's addresses to dial, in the order of the answers: at most [`MOST_DIALLED`], none twice. All answers are judged, however
    /// many there are.
    ///
    /// # Errors
    ///
    /// The first address that is refused, where one is and mixed answers are not to be told apart, or where no other is left. Without
    /// answers there is nothing to dial, and the list is empty.
    pub fn all(&self, answers: &[IpAddr], port: u16) -> Result<Vec<IpAddr>, Refused> {
        let mut dial = Vec::with_capacity(answers.len().min(MOST_DIALLED));
        let mut refused = None;
        for answer in answers {
            let address = answer.to_canonical();
            match self.one(address, port) {
                Ok(()) if dial.len() < MOST_DIALLED && !dial.contains(&address) => dial.push(address),
                Ok(()) => {}
                Err(why) => {
                    refused.get_or_insert(Refused { address, why });
                }
            }
        }
        match refused {
            Some(refused) if self.mixed == MixedAnswers::Deny || dial.is_empty() => Err(refused),
            _ => Ok(dial),
        }
    }
}
