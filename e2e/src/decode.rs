//! What is on the wire, read for assertions.
//!
//! This reads packets on its own, without the product's parsers: a story that asked the product whether the product
//! is right would prove little.

pub mod nhrp;

pub use nhrp::Nhrp;

use crate::keys::Keyring;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The UDP port of GRE in UDP, RFC 8086.
pub const GRE_IN_UDP: u16 = 4754;
/// The UDP port of IKE.
pub const IKE: u16 = 500;
/// The UDP port of IKE and of ESP in UDP, RFC 3948.
pub const NAT_TRAVERSAL: u16 = 4500;

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
    /// UDP that is nothing of the others.
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
    /// GRE, over IP, in UDP, or in ESP whose key is known.
    Gre(Gre),
    /// ESP that can't be read.
    Esp(Esp),
    /// IKE.
    Ike(Ike),
    /// Anything else, or cut off.
    Other,
}

/// An ESP packet, RFC 4303.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// UDP source and destination port, when in UDP.
    pub ports: Option<(u16, u16)>,
    /// Which SA.
    pub spi: u32,
    /// The low half of the sequence number.
    pub sequence: u32,
}

/// The header of an IKE message, RFC 7296 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ike {
    /// UDP source and destination port.
    pub ports: (u16, u16),
    /// SPIs of the initiator and the responder.
    pub spis: (u64, u64),
    /// Type of the first payload: 46 is encrypted, 53 an encrypted fragment.
    pub first: u8,
    /// Exchange type, see [`exchange`].
    pub exchange: u8,
    /// 0x20 is a response, 0x08 was sent by who began the IKE SA.
    pub flags: u8,
    /// Number of the request that this is, or answers.
    pub id: u32,
}

/// Exchange types of IKE, RFC 7296 §3.1.
pub mod exchange {
    /// IKE_SA_INIT.
    pub const INIT: u8 = 34;
    /// IKE_AUTH.
    pub const AUTH: u8 = 35;
    /// CREATE_CHILD_SA.
    pub const CREATE_CHILD: u8 = 36;
    /// INFORMATIONAL.
    pub const INFORMATIONAL: u8 = 37;
}

/// First payload of a fragment, RFC 7383 §2.5.
pub const FRAGMENT: u8 = 53;

/// A GRE packet, RFC 2784 and 2890.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gre {
    /// UDP source and destination port, when in UDP.
    pub ports: Option<(u16, u16)>,
    /// The ESP that it was in.
    pub esp: Option<Esp>,
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
    /// The IP packet in an Ethernet frame; with the keys, what ESP hides as well.
    #[must_use]
    pub fn in_frame(frame: &[u8], keys: &Keyring) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] | [0x86, 0xdd] => Self::parse(frame.get(14..)?, keys),
            _ => None,
        }
    }

    /// An IP packet.
    #[must_use]
    pub fn parse(packet: &[u8], keys: &Keyring) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet, keys),
            6 => Self::parse_v6(packet, keys),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8], keys: &Keyring) -> Option<Self> {
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
            payload: if later_fragment { Payload::Other } else { Payload::parse(protocol, rest, keys) },
        })
    }

    fn parse_v6(packet: &[u8], keys: &Keyring) -> Option<Self> {
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
            payload: Payload::parse(protocol, packet.get(40..)?, keys),
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

    /// The ESP packet that it is, whether it can be read or not.
    #[must_use]
    pub const fn esp(&self) -> Option<&Esp> {
        match &self.payload {
            Payload::Esp(esp) => Some(esp),
            Payload::Gre(gre) => gre.esp.as_ref(),
            _ => None,
        }
    }

    /// The IKE message in it.
    #[must_use]
    pub const fn ike(&self) -> Option<&Ike> {
        match &self.payload {
            Payload::Ike(ike) => Some(ike),
            _ => None,
        }
    }

    /// It is an overlay packet that anybody can read.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.gre().is_some_and(|gre| gre.esp.is_none())
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
    fn parse(protocol: u8, data: &[u8], keys: &Keyring) -> Self {
        let parsed = match protocol {
            6 => ports(data).map(|(source, destination)| Self::Tcp { source, destination }),
            17 => Self::parse_udp(data, keys),
            1 | 58 => data.get(..4).map(|head| Self::Icmp {
                kind: head[0],
                code: head[1],
                data: data[4..].to_vec(),
            }),
            47 => Gre::parse(data).map(Self::Gre),
            50 => Self::parse_esp(None, data, keys),
            _ => None,
        };
        parsed.unwrap_or(Self::Other)
    }

    fn parse_udp(data: &[u8], keys: &Keyring) -> Option<Self> {
        let (source, destination) = ports(data)?;
        let content = data.get(8..)?;
        let uses = |port| source == port || destination == port;
        let both = Some((source, destination));
        let parsed = if uses(GRE_IN_UDP) {
            Gre::parse(content).map(|gre| Self::Gre(Gre { ports: both, ..gre }))
        } else if uses(NAT_TRAVERSAL) {
            match content.strip_prefix(&[0; 4]) {
                Some(message) => Ike::parse((source, destination), message).map(Self::Ike),
                None => Self::parse_esp(both, content, keys),
            }
        } else if uses(IKE) {
            Ike::parse((source, destination), content).map(Self::Ike)
        } else {
            None
        };
        parsed.or_else(|| Some(Self::Udp { source, destination, data: content.to_vec() }))
    }

    fn parse_esp(ports: Option<(u16, u16)>, data: &[u8], keys: &Keyring) -> Option<Self> {
        let head = data.first_chunk::<8>()?;
        let [a, b, c, d, e, f, g, h] = *head;
        let esp =
            Esp { ports, spi: u32::from_be_bytes([a, b, c, d]), sequence: u32::from_be_bytes([e, f, g, h]) };
        let gre = keys.open(data, Gre::parse);
        Some(gre.map_or(Self::Esp(esp), |gre| Self::Gre(Gre { ports, esp: Some(esp), ..gre })))
    }
}

impl Ike {
    fn parse(ports: (u16, u16), message: &[u8]) -> Option<Self> {
        let head = message.first_chunk::<28>()?;
        let spi = |at: usize| head.get(at..)?.first_chunk().map(|spi| u64::from_be_bytes(*spi));
        Some(Self {
            ports,
            spis: (spi(0)?, spi(8)?),
            first: head[16],
            exchange: head[18],
            flags: head[19],
            id: u32::from_be_bytes([head[20], head[21], head[22], head[23]]),
        })
    }

    /// Is it an answer?
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & 0x20 != 0
    }
}

impl Gre {
    fn parse(data: &[u8]) -> Option<Self> {
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
            IPV4 | IPV6 => Ip::parse(rest, &Keyring::default()).map(|ip| Content::Ip(Box::new(ip))),
            NHRP => Nhrp::parse(rest).map(Content::Nhrp),
            _ => None,
        };
        Some(Self { ports: None, esp: None, key, protocol, content: content.unwrap_or(Content::Other) })
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
