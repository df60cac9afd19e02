//! The address of this host, from the kernel's tables: a process without a network can read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route that is up, and not one that refuses.
const UP: u32 = 1;
const REJECT: u32 = 0x200;

/// The address that traffic leaves by; `None` on a host without a route.
pub(super) fn primary() -> Option<IpAddr> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    let v4 = primary_v4(&read("route"), &read("fib_trie")).map(IpAddr::V4);
    v4.or_else(|| primary_v6(&read("ipv6_route"), &read("if_inet6")).map(IpAddr::V6))
}

/// A line of `/proc/net/route`.
struct Route<'a> {
    interface: &'a str,
    destination: u32,
    gateway: u32,
    metric: u32,
    mask: u32,
}

impl<'a> Route<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // The bytes as they lie in memory, shown as a number of this machine.
        let address = |index: usize| Some(u32::from_be(u32::from_str_radix(fields.get(index)?, 16).ok()?));
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        let route = Self {
            interface: fields.first()?,
            destination: address(1)?,
            gateway: address(2)?,
            metric: fields.get(6)?.parse().ok()?,
            mask: address(7)?,
        };
        (flags & UP != 0 && flags & REJECT == 0).then_some(route)
    }
}

/// The own address in the network of the default route's gateway, or else in a network of its interface, or any.
fn primary_v4(routes: &str, trie: &str) -> Option<Ipv4Addr> {
    let routes: Vec<Route<'_>> = routes.lines().filter_map(Route::parse).collect();
    let default = routes.iter().filter(|route| route.destination == 0 && route.mask == 0);
    let default = default.min_by_key(|route| route.metric)?;
    let own = local_addresses(trie);
    let networks = routes.iter().filter(|route| route.interface == default.interface && route.mask != 0);
    let (near, far): (Vec<_>, Vec<_>) =
        networks.partition(|network| default.gateway & network.mask == network.destination);
    let within = |network: &&Route<'_>| {
        own.iter().find(|address| u32::from(**address) & network.mask == network.destination).copied()
    };
    near.iter().chain(&far).find_map(within).or_else(|| own.first().copied())
}

/// The addresses of this host that `/proc/net/fib_trie` has: each stands above what it is.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback() && !found.contains(address))
        {
            found.push(address);
        }
    }
    found
}

/// The own address of global scope at the interface of the default route.
fn primary_v6(routes: &str, interfaces: &str) -> Option<Ipv6Addr> {
    let default = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, length, .., metric, _, _, flags, interface] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = length == "00" && destination.bytes().all(|digit| digit == b'0');
        let is_usable = flags & UP != 0 && flags & REJECT == 0 && interface != "lo";
        (is_default && is_usable).then_some((u32::from_str_radix(metric, 16).ok()?, interface))
    });
    let (_, interface) = default.min()?;
    interfaces.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, _, "00", _, name] = fields[..] else { return None };
        (name == interface).then(|| u128::from_str_radix(address, 16).ok().map(Ipv6Addr::from))?
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010010AC\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000010AC\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0
eth1\t0000A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
";
    const TRIE: &str = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 172.16.0.0
        /16 link UNICAST
     |-- 172.16.3.7
        /32 host LOCAL
     |-- 192.168.0.9
        /32 host LOCAL
";

    #[test]
    fn the_address_is_that_of_the_best_default_route() {
        assert_eq!(primary_v4(ROUTES, TRIE), Some(Ipv4Addr::new(172, 16, 3, 7)));
        let other: String =
            ROUTES.lines().filter(|line| !line.starts_with("eth0")).map(|line| format!("{line}\n")).collect();
        assert_eq!(primary_v4(&other, TRIE), Some(Ipv4Addr::new(192, 168, 0, 9)));
        assert_eq!(primary_v4("", TRIE), None, "no route");
        assert_eq!(primary_v4(ROUTES, ""), None);
    }

    #[test]
    fn without_it_there_may_be_one_of_the_newer_kind() {
        let zero = "00000000000000000000000000000000";
        let routes = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n"
        );
        let interfaces = "00000000000000000000000000000001 01 80 10 80       lo\n\
            fe800000000000000000000000000007 02 40 20 80     eth0\n\
            20010db8000000000000000000000007 02 40 00 80     eth0\n";
        assert_eq!(primary_v6(&routes, interfaces), "2001:db8::7".parse().ok());
        assert_eq!(primary_v6("", interfaces), None);
    }

    #[test]
    fn this_host_has_the_address_that_it_would_use() {
        // Documentation addresses (RFC 5737) are nobody's, but routed; connecting a datagram socket sends nothing.
        let socket = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").map(|()| socket));
        let Ok(address) = socket.and_then(|socket| socket.local_addr()) else { return };
        assert_eq!(primary(), Some(address.ip()));
    }
}
