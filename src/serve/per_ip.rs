//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of one listener. Entered and left once per connection, never per request; nobody holds its lock while anything waits.
#[derive(Debug, Default)]
pub struct PerIp {
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection's place: given back when dropped.
#[derive(Debug)]
pub struct Place {
    of: Arc<PerIp>,
    who: IpAddr,
}

impl PerIp {
    /// A place for one more from `ip`; `None`: it has `max` already.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, max: u32) -> Option<Place> {
        let who = counted_as(ip);
        let mut open = self.open();
        let count = open.entry(who).or_insert(0);
        if *count >= max {
            // A count that is there is not 0, unless no place is left for anybody.
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), who })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open();
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// Whoever has one IPv6 address has its whole /64.
fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places_and_gets_them_back() {
        let all = Arc::new(PerIp::default());
        let enter = |ip: &str| all.enter(ip.parse().unwrap(), 2);
        let (one, two) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(one);
        assert!(enter("192.0.2.1").is_some());
        let neighbours = [enter("2001:db8::1"), enter("2001:db8::ffff:1")];
        assert!(enter("2001:db8:0:0:9::").is_none() && enter("2001:db8:0:1::1").is_some());
        drop((two, neighbours));
        assert!(all.open().is_empty());
    }
}
