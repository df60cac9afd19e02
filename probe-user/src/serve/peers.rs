//! How many connections each address has: one client alone must not be able to take all that there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections by address.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    peers: Arc<Peers>,
    key: IpAddr,
}

impl Peers {
    /// Half of all connections are the most that one address gets, but at least one.
    pub(super) fn new(connections: usize) -> Arc<Self> {
        Arc::new(Self { most: (connections / 2).max(1), open: Mutex::default() })
    }

    /// Counts a connection; `None` where the address has as many as it gets.
    pub(super) fn hold(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let key = key(address);
        let mut open = self.open();
        let count = open.entry(key).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Held { peers: Arc::clone(self), key })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

/// Who has one address of IPv6 has a whole network of them.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_half_and_gives_it_back() {
        let peers = Peers::new(5);
        let hold = |address: &str| peers.hold(address.parse().expect("an address"));
        let (one, two) = (hold("192.0.2.1"), hold("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && hold("192.0.2.1").is_none());
        assert!(hold("192.0.2.2").is_some(), "others are not concerned");
        drop(one);
        let again = hold("192.0.2.1");
        assert!(again.is_some() && hold("192.0.2.1").is_none());
        let network = [hold("2001:db8::1"), hold("2001:db8::2")];
        assert!(network.iter().all(Option::is_some) && hold("2001:db8::3").is_none());
        assert!(hold("2001:db8:0:1::3").is_some());
        drop((again, two, network));
        assert!(peers.open().is_empty(), "nothing is kept of who is gone");
        assert!(Peers::new(1).hold("::1".parse().expect("an address")).is_some(), "at least one");
    }
}
