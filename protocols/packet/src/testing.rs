//! Super-frames for the tests of segmentation and coalescing, made the way Linux makes them.

use crate::checksum::Sum;
use crate::ip::Ip;
use crate::segment::Segments;
use crate::vnet::{self, Gso};
use crate::{ipv4, ipv6, tcp};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// What a super-frame is made from.
#[derive(Clone, Debug)]
pub(crate) struct SuperFrame {
    pub(crate) v4: bool,
    pub(crate) tcp: bool,
    pub(crate) id: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A multiple of 4, at most 40.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// 0: a single packet.
    pub(crate) size: u16,
}

impl SuperFrame {
    pub(crate) fn tcp_v4() -> Self {
        Self {
            v4: true,
            tcp: true,
            id: 0xfffe,
            tos: 2,
            ttl: 63,
            sequence: 1_000_000,
            flags: tcp::flags::ACK,
            window: 500,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: vec![7; 100],
            size: 0,
        }
    }

    pub(crate) fn tcp_v6() -> Self {
        Self { v4: false, ..Self::tcp_v4() }
    }

    pub(crate) fn udp_v4() -> Self {
        Self { tcp: false, options: vec![], ..Self::tcp_v4() }
    }

    pub(crate) fn udp_v6() -> Self {
        Self { v4: false, ..Self::udp_v4() }
    }

    pub(crate) fn upper_header_len(&self) -> usize {
        if self.tcp { tcp::HEADER_LEN + self.options.len() } else { 8 }
    }

    /// The virtio header and the frame, an Ethernet header of zeros first; the upper checksum is left to the device.
    pub(crate) fn build(&self) -> (vnet::Header, Vec<u8>) {
        let length = self.upper_header_len() + self.payload.len();
        let mut packet = if self.v4 {
            let (a, b) = ("10.1.0.1".parse().unwrap(), "10.2.0.2".parse().unwrap());
            let protocol = if self.tcp { 6 } else { 17 };
            let mut header = ipv4::Header::new(a, b, protocol, self.tos, self.ttl, length as u16);
            header.id.set(self.id);
            header.checksum.set(0);
            header.checksum.set(crate::checksum::checksum(header.as_bytes()));
            header.as_bytes().to_vec()
        } else {
            let (a, b) = ("fd00:1::1".parse().unwrap(), "fd00:2::2".parse().unwrap());
            let next = if self.tcp { 6 } else { 17 };
            ipv6::Header::new(a, b, next, self.tos, self.ttl, length as u16).as_bytes().to_vec()
        };
        let upper = packet.len();
        packet.extend_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
        if self.tcp {
            packet.extend_from_slice(&self.sequence.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 77, ((20 + self.options.len()) as u8 / 4) << 4, self.flags]);
            packet.extend_from_slice(&self.window.to_be_bytes());
            packet.extend_from_slice(&[0; 4]);
            packet.extend_from_slice(&self.options);
        } else {
            packet.extend_from_slice(&(length as u16).to_be_bytes());
            packet.extend_from_slice(&[0; 2]);
        }
        packet.extend_from_slice(&self.payload);
        let offset = if self.tcp { 16 } else { 6 };
        let pseudo = Ip::parse(&packet).unwrap().pseudo_sum().fold();
        packet[upper + offset..upper + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
        let vnet = vnet::Header {
            flags: vnet::flags::NEEDS_CSUM,
            gso: match (self.size, self.tcp, self.v4) {
                (0, ..) => Gso::None,
                (_, true, true) => Gso::TcpV4,
                (_, true, false) => Gso::TcpV6,
                (_, false, _) => Gso::UdpL4,
            },
            ecn: false,
            hdr_len: if self.size == 0 { 0 } else { (14 + upper + self.upper_header_len()) as u16 },
            gso_size: self.size,
            csum_start: (14 + upper) as u16,
            csum_offset: offset as u16,
        };
        (vnet, [&[0; 14][..], &packet].concat())
    }
}

impl Arbitrary for SuperFrame {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let first = (any::<bool>(), any::<bool>(), any::<u16>(), any::<u8>(), 1u8..);
        let flags = prop_oneof![Just(0x10u8), Just(0x18), Just(0x11), Just(0x50)];
        let second = (any::<u32>(), flags, any::<u16>(), vec(any::<u8>(), 0..10));
        let third = (vec(any::<u8>(), 1..3000), 100u16..1400);
        (first, second, third)
            .prop_map(|((v4, tcp, id, tos, ttl), (sequence, flags, window, options), (payload, size))| {
                // Data in an option of unknown kind, so that any bytes will do.
                let mut words = options.into_iter().flat_map(|b| [254, 4, b, b]).collect::<Vec<_>>();
                if !tcp {
                    words.clear();
                }
                Self { v4, tcp, id, tos, ttl, sequence, flags, window, options: words, payload, size }
            })
            .boxed()
    }
}

/// The packets that a super-frame stands for.
pub(crate) fn segments(frame: &SuperFrame) -> Vec<Vec<u8>> {
    let (vnet, bytes) = frame.build();
    cut(&vnet, &bytes)
}

/// The packets that a frame of the TAP stands for.
pub(crate) fn cut(vnet: &vnet::Header, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(vnet, frame, 14).unwrap();
    let mut packets = Vec::new();
    let mut out = vec![0; 70_000];
    while let Some(length) = segments.write_next(&mut out) {
        packets.push(out[..length.unwrap()].to_vec());
    }
    packets
}

/// Are IP and upper-layer checksum right?
pub(crate) fn checksums_are_valid(packet: &[u8]) -> bool {
    let ip = Ip::parse(packet).unwrap();
    let header = !ip.is_v4() || Sum::ZERO.with(&packet[..ip.header_len]).is_valid();
    header && ip.pseudo_sum().with(ip.upper(packet)).is_valid()
}
