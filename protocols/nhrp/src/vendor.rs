//! Vendor extensions (type 8, RFC 2332 §5.3.5): ours, and Cisco's NHRP group.
//!
//! NHRP knows no UDP port and no identity, so a station of ours describes itself in a vendor extension without the
//! C bit, which every router returns unchanged. One extension describes one station and says by its tunnel address
//! which; so a reply carries the requester's (echoed) and the responder's. The first server a message passes notes
//! there where it saw the station.
//!
//! Value: OUI `02 6b 64` (locally administered), version 1, then fields of type (1 octet), length (1) and value:
//!
//! | type | value |
//! |---|---|
//! | 1 | tunnel address of the station |
//! | 2 | identity, UTF-8 |
//! | 3 | token, 8 octets |
//! | 4 | private (bound) underlay address |
//! | 5 | UDP port on which it receives GRE in UDP |
//! | 6 | observed by the first server: 0 for GRE or 1 for UDP, port (2), address |
//! | 7 | capabilities, 4 octets of bits |
//!
//! Unknown fields are skipped; of a repeated field, or a repeated station, the first counts.

use crate::extension::{Extension, ExtensionType};
use crate::packet::Packet;
use crate::packet::address;
use crate::packet::reader::Reader;
use packet::{Encapsulation, Path};
use std::net::IpAddr;

const OUR_OUI: [u8; 3] = [0x02, b'k', b'd'];
const VERSION: u8 = 1;
const CISCO_OUI: [u8; 3] = [0x00, 0x00, 0x0c];
/// Type of the group attribute within Cisco's extension. Cisco publishes no layout: this is ours to ourselves.
const CISCO_GROUP: u8 = 1;

/// Most octets of an identity.
pub const MAX_IDENTITY: usize = 253;

/// Bits of [`Station::capabilities`].
pub mod capability {
    /// Answers marked echo requests on its tunnel address.
    pub const PROBES: u32 = 1;
}

/// What a station of ours says of itself, and what its first server adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its tunnel address.
    pub address: IpAddr,
    /// Its identity as it asserts it.
    pub identity: Option<String>,
    /// Its probe token.
    pub token: Option<u64>,
    /// Its bound underlay address, as it is before any NAT.
    pub private: Option<IpAddr>,
    /// UDP port on which it receives.
    pub udp_port: Option<u16>,
    /// Where the first server saw it.
    pub observed: Option<Path>,
    /// Bits of [`capability`].
    pub capabilities: u32,
}

impl Station {
    /// Nothing known but the tunnel address.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self {
            address,
            identity: None,
            token: None,
            private: None,
            udp_port: None,
            observed: None,
            capabilities: 0,
        }
    }

    /// The station in its extension.
    #[must_use]
    pub fn to_extension(&self) -> Extension {
        let mut value = OUR_OUI.to_vec();
        value.push(VERSION);
        let mut field = |kind: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
            value.extend_from_slice(&[kind, length]);
            value.extend_from_slice(content.get(..usize::from(length)).unwrap_or(content));
        };
        field(field::ADDRESS, &octets(self.address));
        if let Some(identity) = self.identity.as_ref().filter(|i| i.len() <= MAX_IDENTITY) {
            field(field::IDENTITY, identity.as_bytes());
        }
        if let Some(token) = self.token {
            field(field::TOKEN, &token.to_be_bytes());
        }
        if let Some(private) = self.private {
            field(field::PRIVATE, &octets(private));
        }
        if let Some(port) = self.udp_port {
            field(field::UDP_PORT, &port.to_be_bytes());
        }
        if let Some(observed) = self.observed {
            let mut content = match observed.encapsulation {
                Encapsulation::Gre => vec![0, 0, 0],
                Encapsulation::Udp { port } => vec![1, port.to_be_bytes()[0], port.to_be_bytes()[1]],
            };
            content.extend(octets(observed.remote));
            field(field::OBSERVED, &content);
        }
        if self.capabilities != 0 {
            field(field::CAPABILITIES, &self.capabilities.to_be_bytes());
        }
        Extension { kind: ExtensionType::VENDOR, compulsory: false, value }
    }

    /// Reads an extension; `None` when it is not ours, or malformed.
    #[must_use]
    pub fn from_extension(extension: &Extension) -> Option<Self> {
        if extension.kind != ExtensionType::VENDOR {
            return None;
        }
        let fields = extension.value.strip_prefix(&OUR_OUI)?.strip_prefix(&[VERSION])?;
        let mut reader = Reader::new(fields);
        let mut address = None;
        let mut station = Self::new(IpAddr::from([0, 0, 0, 0]));
        let mut capabilities = None;
        while !reader.is_empty() {
            let kind = reader.u8().ok()?;
            let length = usize::from(reader.u8().ok()?);
            let content = reader.take(length).ok()?;
            let mut content = Reader::new(content);
            match kind {
                field::ADDRESS => first(&mut address, || content.address(length).ok()?),
                field::IDENTITY => first(&mut station.identity, || {
                    let text = std::str::from_utf8(content.rest()).ok()?;
                    (text.len() <= MAX_IDENTITY && !text.contains(char::is_control)).then(|| text.to_owned())
                }),
                field::TOKEN => first(&mut station.token, || content.u64().ok()),
                field::PRIVATE => first(&mut station.private, || content.address(length).ok()?),
                field::UDP_PORT => first(&mut station.udp_port, || content.u16().ok().filter(|p| *p != 0)),
                field::OBSERVED => first(&mut station.observed, || {
                    let (wrapped, port) = (content.u8().ok()?, content.u16().ok()?);
                    let remote = content.address(content.rest().len()).ok()??;
                    match wrapped {
                        0 => Some(Path::gre(remote)),
                        1 if port != 0 => Some(Path::udp(remote, port)),
                        _ => None,
                    }
                }),
                field::CAPABILITIES => first(&mut capabilities, || content.u32().ok()),
                _ => {}
            }
        }
        station.address = address?;
        station.capabilities = capabilities.unwrap_or(0);
        Some(station)
    }

    /// The station with this tunnel address as a message describes it.
    #[must_use]
    pub fn find(packet: &Packet, address: IpAddr) -> Option<Self> {
        packet.extensions.iter().filter_map(Self::from_extension).find(|s| s.address == address)
    }

    /// Notes in a message where the station with this address was seen, and who it has proven to be; nothing when it is
    /// not described there.
    pub fn observe(packet: &mut Packet, address: IpAddr, observed: Path, proven: Option<&str>) {
        for extension in &mut packet.extensions {
            if let Some(mut station) = Self::from_extension(extension)
                && station.address == address
            {
                station.observed = Some(observed);
                if let Some(name) = proven {
                    station.identity = Some(name.to_owned());
                }
                *extension = station.to_extension();
                return;
            }
        }
    }
}

mod field {
    pub(super) const ADDRESS: u8 = 1;
    pub(super) const IDENTITY: u8 = 2;
    pub(super) const TOKEN: u8 = 3;
    pub(super) const PRIVATE: u8 = 4;
    pub(super) const UDP_PORT: u8 = 5;
    pub(super) const OBSERVED: u8 = 6;
    pub(super) const CAPABILITIES: u8 = 7;
}

/// Fills a field unless it has been filled.
fn first<T>(slot: &mut Option<T>, read: impl FnOnce() -> Option<T>) {
    if slot.is_none() {
        *slot = read();
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    address::write(Some(address), &mut out);
    out
}

/// An NHRP group in Cisco's vendor extension.
#[must_use]
pub fn group_extension(group: &str) -> Extension {
    let mut value = CISCO_OUI.to_vec();
    let length = group.len().min(usize::from(u8::MAX));
    value.extend_from_slice(&[CISCO_GROUP, length as u8]);
    value.extend_from_slice(&group.as_bytes()[..length]);
    Extension { kind: ExtensionType::VENDOR, compulsory: false, value }
}

/// The NHRP group a message names.
#[must_use]
pub fn group(packet: &Packet) -> Option<String> {
    packet.extensions.iter().filter(|e| e.kind == ExtensionType::VENDOR).find_map(|e| {
        let rest = e.value.strip_prefix(&CISCO_OUI)?.strip_prefix(&[CISCO_GROUP])?;
        let (length, text) = rest.split_first()?;
        let text = std::str::from_utf8(text.get(..usize::from(*length))?).ok()?;
        (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
    })
}
