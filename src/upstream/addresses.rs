//! What is known about a name's addresses: read by requests without a lock, written by one background task.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, oneshot};

/// The addresses of one name, followed by its [`Resolver`](super::Resolver) for as long as anybody holds this.
pub struct Addresses {
    name: Box<str>,
    known: ArcSwap<Known>,
    /// Rung at every outcome of a lookup, so that requests that came before the first one go on.
    outcome: Notify,
    /// Dropped with the last holder: what ends the background task.
    _held: Option<oneshot::Sender<Infallible>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Families alternate, IPv6 first (see [`interleaved`]); empty: none.
    ips: Box<[IpAddr]>,
    /// Whether any lookup has ended, well or badly.
    asked: bool,
}

/// The addresses at one moment; borrowed from [`Addresses`], to be dropped soon.
pub struct CurrentAddresses(Guard<Arc<Known>>);

impl std::ops::Deref for CurrentAddresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0.ips
    }
}

/// The name has no addresses: it does not exist, or no name server has answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name does not resolve")]
pub struct NotResolved;

impl Addresses {
    /// Of a name that nobody has looked up yet, and the receiver that ends when the last holder lets go.
    pub(super) fn unknown(name: &str) -> (Self, oneshot::Receiver<Infallible>) {
        let (held, released) = oneshot::channel();
        let addresses =
            Self { name: name.into(), known: ArcSwap::default(), outcome: Notify::new(), _held: Some(held) };
        (addresses, released)
    }

    /// Of an address that was written as such: nothing to look up.
    pub(super) fn literal(ip: IpAddr) -> Self {
        Self {
            name: ip.to_string().into(),
            known: ArcSwap::from_pointee(Known { ips: Box::new([ip]), asked: true }),
            outcome: Notify::new(),
            _held: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses now; empty where the name does not resolve (yet).
    pub fn current(&self) -> CurrentAddresses {
        CurrentAddresses(self.known.load())
    }

    /// Waits for the outcome of the name's first lookup, where that has not ended yet; at once otherwise.
    ///
    /// # Errors
    ///
    /// [`NotResolved`] where the lookup failed, or took longer than `within`.
    pub async fn wait_first(&self, within: Duration) -> Result<(), NotResolved> {
        let asked = async {
            loop {
                let mut rung = pin!(self.outcome.notified());
                // From here on no outcome is missed; only then look.
                rung.as_mut().enable();
                if self.known.load().asked {
                    return;
                }
                rung.await;
            }
        };
        // Late or not, what counts is whether there are addresses.
        let _ = tokio::time::timeout(within, asked).await;
        if self.current().is_empty() { Err(NotResolved) } else { Ok(()) }
    }

    /// The outcome of a lookup: `ips` are the addresses from now on (none, where it failed and there is nothing to fall back to).
    pub(super) fn store(&self, ips: &[IpAddr]) {
        self.known.store(Arc::new(Known { ips: interleaved(ips), asked: true }));
        self.outcome.notify_waiters();
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("name", &self.name).field("ips", &self.known.load().ips).finish()
    }
}

/// Sorted, without repetitions, IPv6 and IPv4 taking turns: a few attempts in a row then always try both families.
fn interleaved(ips: &[IpAddr]) -> Box<[IpAddr]> {
    let mut v6: Vec<Ipv6Addr> = Vec::new();
    let mut v4: Vec<Ipv4Addr> = Vec::new();
    for ip in ips {
        match ip.to_canonical() {
            IpAddr::V4(ip) => v4.push(ip),
            IpAddr::V6(ip) => v6.push(ip),
        }
    }
    v6.sort_unstable();
    v6.dedup();
    v4.sort_unstable();
    v4.dedup();
    let mut all = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        let (six, four) = (v6.next(), v4.next());
        if six.is_none() && four.is_none() {
            return all.into();
        }
        all.extend(six.map(IpAddr::V6));
        all.extend(four.map(IpAddr::V4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_repetitions_go() {
        let ips: Vec<IpAddr> = ["10.0.0.2", "2001:db8::2", "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "2001:db8::1"]
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect();
        let shown: Vec<String> = interleaved(&ips).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3"]);
    }
}
