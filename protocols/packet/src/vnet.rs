//! The virtio network header (VIRTIO 1.3 §5.1.6, `struct virtio_net_hdr` in Linux) that a TAP with `IFF_VNET_HDR`
//! puts before every frame: what of the checksum is still to be done, and how a super-frame is to be cut.
//!
//! A TAP speaks the machine's own byte order unless told otherwise (`TUNSETVNETLE`, `TUNSETVNETBE`); so do we.

use crate::error::Malformed;

/// Octets of the header, as TAPs have it by default (without `num_buffers`).
pub const HEADER_LEN: usize = 10;

/// Bits of [`Header::flags`].
pub mod flags {
    /// The checksum from `csum_start` on is to be computed; the field holds the sum of the pseudo header.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was verified.
    pub const DATA_VALID: u8 = 2;
}

/// How a super-frame is cut: `gso_type` without the ECN bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gso {
    /// It is no super-frame.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams, each with its own header (USO).
    UdpL4,
}

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The TCP super-frame has CWR set, which belongs into its first segment only.
const GSO_ECN: u8 = 0x80;

/// The header. Offsets count from the first octet of the Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// See [`flags`].
    pub flags: u8,
    /// How to cut.
    pub gso: Gso,
    /// CWR is set in a TCP super-frame.
    pub ecn: bool,
    /// Octets of all headers; a hint.
    pub hdr_len: u16,
    /// Octets of upper-layer payload in each segment.
    pub gso_size: u16,
    /// Where the checksum begins to count.
    pub csum_start: u16,
    /// Where the checksum stands, from `csum_start` on.
    pub csum_offset: u16,
}

impl Header {
    /// A whole packet with nothing left to do.
    pub const NONE: Self =
        Self { flags: 0, gso: Gso::None, ecn: false, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// A whole packet whose checksum was verified.
    pub const VALID: Self = Self { flags: flags::DATA_VALID, ..Self::NONE };

    /// Reads the header at the start of what a TAP delivered, and what follows it. A kind of super-frame that we never
    /// asked for (UFO) is [`Malformed::Protocol`].
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (header, frame) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let [flags, gso, a, b, c, d, e, f, g, h] = *header;
        let header = Self {
            flags,
            gso: match gso & !GSO_ECN {
                GSO_NONE => Gso::None,
                GSO_TCPV4 => Gso::TcpV4,
                GSO_TCPV6 => Gso::TcpV6,
                GSO_UDP_L4 => Gso::UdpL4,
                _ => return Err(Malformed::Protocol),
            },
            ecn: gso & GSO_ECN != 0,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        };
        Ok((header, frame))
    }

    /// The header as a TAP wants it.
    #[inline]
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let gso = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::UdpL4 => GSO_UDP_L4,
        };
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, if self.ecn { gso | GSO_ECN } else { gso }, a, b, c, d, e, f, g, h]
    }

    /// Is the upper layer's checksum still to be computed?
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & flags::NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        for gso in [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4] {
            for ecn in [false, true] {
                let header = Header {
                    flags: flags::NEEDS_CSUM,
                    gso,
                    ecn,
                    hdr_len: 66,
                    gso_size: 1368,
                    csum_start: 34,
                    csum_offset: 16,
                };
                let bytes = header.encode();
                assert_eq!(Header::decode(&bytes), Ok((header, &[][..])));
            }
        }
    }

    #[test]
    fn a_kind_never_asked_for_is_refused() {
        assert_eq!(Header::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Protocol));
        assert_eq!(Header::decode(&[0; 9]), Err(Malformed::Truncated));
    }
}
