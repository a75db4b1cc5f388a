//! Who has which address: the plan that all virtual networks follow.
//!
//! | what | hubs | spokes |
//! |---|---|---|
//! | underlay | 198.51.100.N, 2001:db8:1::N | 203.0.X.Y, 2001:db8:2::N |
//! | tunnel | 10.200.0.N, fd00:c8::N | 10.200.(16 + X).Y, fd00:c8::1:N |
//! | LAN | 10.100.N.0/24, fd00:64:N::/64 | 10.(1 + X).Y.0/24, fd00:1:N::/64 |

use dmvpn::{Config, HubConfig, NhrpConfig, Phase};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nhrp::{NhsId, Quirks};
use packet::Path;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The port of GRE in UDP.
pub const PORT: u16 = 4754;

/// What a station is, and its number among its like, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Hub(u16),
    Spoke(u16),
}

impl Place {
    pub(crate) fn underlay(self, v6: bool) -> IpAddr {
        match (self, v6) {
            (Self::Hub(n), false) => v4([198, 51, 100, low(n)]),
            (Self::Spoke(n), false) => v4([203, 0, high(n), low(n)]),
            (Self::Hub(n), true) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n)),
            (Self::Spoke(n), true) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n)),
        }
    }

    /// An address behind a translator.
    pub(crate) fn private(self) -> IpAddr {
        match self {
            Self::Hub(n) => v4([192, 168, 100, low(n)]),
            Self::Spoke(n) => v4([192, 168, high(n), low(n)]),
        }
    }

    pub(crate) fn tunnel(self) -> (IpAddr, IpAddr) {
        match self {
            Self::Hub(n) => {
                (v4([10, 200, 0, low(n)]), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc8, 0, 0, 0, 0, 0, n)))
            }
            Self::Spoke(n) => (
                v4([10, 200, 16 + high(n), low(n)]),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc8, 0, 0, 0, 0, 1, n)),
            ),
        }
    }

    pub(crate) fn lan(self) -> (IpNet, IpNet) {
        let (a, b) = match self {
            Self::Hub(n) => ([10, 100, low(n), 0], Ipv6Addr::new(0xfd00, 0x64, n, 0, 0, 0, 0, 0)),
            Self::Spoke(n) => ([10, 1 + high(n), low(n), 0], Ipv6Addr::new(0xfd00, 1, n, 0, 0, 0, 0, 0)),
        };
        (IpNet::V4(net4(a, 24)), IpNet::V6(Ipv6Net::new_assert(b, 64)))
    }
}

/// Everything that lies behind any station.
pub(crate) fn everything() -> (IpNet, IpNet) {
    (
        IpNet::V4(net4([10, 0, 0, 0], 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 16)),
    )
}

/// The networks of the tunnel.
pub(crate) fn networks(v6: bool) -> Vec<IpNet> {
    let mut networks = vec![IpNet::V4(net4([10, 200, 0, 0], 16))];
    if v6 {
        let address = Ipv6Addr::new(0xfd00, 0xc8, 0, 0, 0, 0, 0, 0);
        networks.push(IpNet::V6(Ipv6Net::new_assert(address, 64)));
    }
    networks
}

/// What a station is configured with, but for its hubs.
pub(crate) fn config(name: &str, place: Place, phase: Phase, v6: bool, nbma_address: IpAddr) -> Config {
    let (four, six) = place.tunnel();
    Config {
        identity: format!("{name}.example.com"),
        networks: networks(v6),
        addresses: if v6 { vec![four, six] } else { vec![four] },
        phase,
        hub: matches!(place, Place::Hub(_)),
        nbma_address,
        udp_port: PORT,
        hubs: Vec::new(),
        static_peers: Vec::new(),
        nhrp: NhrpConfig {
            holding_time: Duration::from_secs(600),
            authentication: None,
            unique: true,
            group: None,
            quirks: Quirks::default(),
        },
        admission: Vec::new(),
        mtu: 1400,
        behind: None,
        idle_timeout: Duration::from_secs(60),
        security: None,
    }
}

/// How a hub is named in the configuration of those who register with it.
pub(crate) fn hub_config(number: usize, name: &str, address: IpAddr, port: u16) -> HubConfig {
    HubConfig {
        id: NhsId(number as u32),
        name: name.to_owned(),
        tunnel_address: None,
        priority: number as u32,
        paths: vec![Path::udp(address, port)],
        identity: None,
    }
}

const fn v4(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
}

const fn net4(octets: [u8; 4], len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), len)
}

const fn low(n: u16) -> u8 {
    n.to_be_bytes()[1]
}

const fn high(n: u16) -> u8 {
    n.to_be_bytes()[0]
}
