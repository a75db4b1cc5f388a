//! What is on the wire, read for assertions.
//!
//! This reads packets on its own, without the product's parsers: a story that asked the product whether the product
//! is right would prove little.

pub mod nhrp;

pub use nhrp::Nhrp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The UDP port of GRE in UDP, RFC 8086.
pub const GRE_IN_UDP: u16 = 4754;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// GRE protocol of NHRP.
pub const NHRP: u16 = 0x2001;

/// An IP packet and what is in it, as far as the lab cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// The whole packet's length by its header.
    pub length: usize,
    /// Don't Fragment is set (always, for IPv6).
    pub dont_fragment: bool,
    /// It is a fragment.
    pub fragment: bool,
    /// What it carries.
    pub payload: Payload,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// UDP that is not GRE.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// As much of the data as was captured.
        data: Vec<u8>,
    },
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The octets after the checksum.
        data: Vec<u8>,
    },
    /// GRE, over IP or in UDP.
    Gre(Gre),
    /// Anything else, or cut off.
    Other,
}

/// A GRE packet, RFC 2784 and 2890.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gre {
    /// UDP source and destination port, when in UDP.
    pub ports: Option<(u16, u16)>,
    /// The key, if there is one.
    pub key: Option<u32>,
    /// Ethertype of what it carries.
    pub protocol: u16,
    /// What it carries.
    pub content: Content,
}

/// What GRE carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An overlay packet.
    Ip(Box<Ip>),
    /// Resolution.
    Nhrp(Nhrp),
    /// Anything else, or cut off.
    Other,
}

impl Ip {
    /// The IP packet in an Ethernet frame.
    #[must_use]
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] | [0x86, 0xdd] => Self::parse(frame.get(14..)?),
            _ => None,
        }
    }

    /// An IP packet.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..20)?;
        let protocol = header[9];
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let later_fragment = flags & 0x1fff != 0;
        let rest = packet.get(usize::from(header[0] & 0xf) * 4..)?;
        Some(Self {
            source: v4(&header[12..16]),
            destination: v4(&header[16..20]),
            ttl: header[8],
            tos: header[1],
            protocol,
            length: u16::from_be_bytes([header[2], header[3]]).into(),
            dont_fragment: flags & 0x4000 != 0,
            fragment: flags & 0x3fff != 0,
            payload: if later_fragment { Payload::Other } else { Payload::parse(protocol, rest) },
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..40)?;
        let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let protocol = header[6];
        Some(Self {
            source: v6(&header[8..24])?,
            destination: v6(&header[24..40])?,
            ttl: header[7],
            tos: (first >> 20) as u8,
            protocol,
            length: 40 + usize::from(u16::from_be_bytes([header[4], header[5]])),
            dont_fragment: true,
            fragment: protocol == 44,
            payload: Payload::parse(protocol, packet.get(40..)?),
        })
    }

    /// The GRE packet in it.
    #[must_use]
    pub const fn gre(&self) -> Option<&Gre> {
        match &self.payload {
            Payload::Gre(gre) => Some(gre),
            _ => None,
        }
    }

    /// The overlay packet in it.
    #[must_use]
    pub fn inner(&self) -> Option<&Self> {
        match &self.gre()?.content {
            Content::Ip(inner) => Some(inner),
            _ => None,
        }
    }

    /// The NHRP message in it.
    #[must_use]
    pub fn nhrp(&self) -> Option<&Nhrp> {
        match &self.gre()?.content {
            Content::Nhrp(message) => Some(message),
            _ => None,
        }
    }

    /// It goes from one address to the other.
    #[must_use]
    pub fn goes(&self, from: &str, to: &str) -> bool {
        from.parse() == Ok(self.source) && to.parse() == Ok(self.destination)
    }

    /// It is an overlay packet between these two hosts, in this direction.
    #[must_use]
    pub fn carries(&self, from: &str, to: &str) -> bool {
        self.inner().is_some_and(|inner| inner.goes(from, to))
    }
}

impl Payload {
    fn parse(protocol: u8, data: &[u8]) -> Self {
        let parsed = match protocol {
            6 => ports(data).map(|(source, destination)| Self::Tcp { source, destination }),
            17 => Self::parse_udp(data),
            1 | 58 => data.get(..4).map(|head| Self::Icmp {
                kind: head[0],
                code: head[1],
                data: data[4..].to_vec(),
            }),
            47 => Gre::parse(None, data).map(Self::Gre),
            _ => None,
        };
        parsed.unwrap_or(Self::Other)
    }

    fn parse_udp(data: &[u8]) -> Option<Self> {
        let (source, destination) = ports(data)?;
        let content = data.get(8..)?;
        if (source == GRE_IN_UDP || destination == GRE_IN_UDP)
            && let Some(gre) = Gre::parse(Some((source, destination)), content)
        {
            return Some(Self::Gre(gre));
        }
        Some(Self::Udp { source, destination, data: content.to_vec() })
    }
}

impl Gre {
    fn parse(ports: Option<(u16, u16)>, data: &[u8]) -> Option<Self> {
        let flags = u16::from_be_bytes([*data.first()?, *data.get(1)?]);
        let protocol = u16::from_be_bytes([*data.get(2)?, *data.get(3)?]);
        if flags & 0x4fff != 0 {
            return None;
        }
        let mut at = 4;
        if flags & 0x8000 != 0 {
            at += 4;
        }
        let mut key = None;
        if flags & 0x2000 != 0 {
            key = Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
            at += 4;
        }
        if flags & 0x1000 != 0 {
            at += 4;
        }
        let rest = data.get(at..)?;
        let content = match protocol {
            IPV4 | IPV6 => Ip::parse(rest).map(|ip| Content::Ip(Box::new(ip))),
            NHRP => Nhrp::parse(rest).map(Content::Nhrp),
            _ => None,
        };
        Some(Self { ports, key, protocol, content: content.unwrap_or(Content::Other) })
    }
}

fn ports(data: &[u8]) -> Option<(u16, u16)> {
    let head = data.get(..4)?;
    Some((u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]])))
}

fn v4(octets: &[u8]) -> IpAddr {
    let octets: [u8; 4] = octets.try_into().unwrap_or_default();
    Ipv4Addr::from(octets).into()
}

fn v6(octets: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = octets.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}
