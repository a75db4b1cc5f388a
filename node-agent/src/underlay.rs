//! Which underlay address this node has: the one it binds to, and the one it tells others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// How the address is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Configured.
    Fixed(IpAddr),
    /// The first global address of this interface.
    Interface(String),
    /// The source address of the route to one of these (the hubs), else to anywhere.
    RouteTo(Vec<IpAddr>),
}

impl Source {
    /// The address now. `interface`: looks up an interface's addresses.
    #[must_use]
    pub fn resolve(&self, interface: impl Fn(&str) -> Vec<IpAddr>) -> Option<IpAddr> {
        match self {
            Self::Fixed(address) => Some(*address),
            Self::Interface(name) => interface(name).into_iter().find(is_usable),
            Self::RouteTo(hubs) => hubs.iter().copied().chain(ANYWHERE).find_map(source_to),
        }
    }
}

/// Addresses of the Internet, of which any will do: nothing is sent.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The source address that packets to `destination` would have. Connecting a UDP socket asks the routing table and
/// sends nothing.
fn source_to(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|a| destination.is_loopback() || is_usable(a))
}

fn is_usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !(a.is_unspecified() || a.is_loopback() || a.is_link_local()),
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_loopback() || a.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_address_is_taken_as_it_is() {
        let address: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(Source::Fixed(address).resolve(|_| vec![]), Some(address));
    }

    #[test]
    fn an_interface_gives_its_first_global_address() {
        let addresses = || ["fe80::1", "192.0.2.7", "192.0.2.8"].map(|a| a.parse().unwrap()).to_vec();
        let source = Source::Interface("eth0".to_owned());
        assert_eq!(source.resolve(|_| addresses()), Some("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn the_route_to_a_hub_decides() {
        let hub: IpAddr = "127.0.0.9".parse().unwrap();
        assert_eq!(Source::RouteTo(vec![hub]).resolve(|_| vec![]), Some("127.0.0.1".parse().unwrap()));
    }
}
