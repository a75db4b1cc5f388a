//! Out: what one read of the TAP delivered becomes the packets that it stands for.
//!
//! Linux hands over TCP and UDP super-frames of up to 64 KiB, and leaves checksums to us. [`Segments`] writes one segment
//! after another, complete in every octet, into buffers of the caller: headers copied and mended, payload copied, checksum
//! over what was copied while it is warm.

use crate::checksum::Sum;
use crate::error::{Malformed, NoRoom};
use crate::ip::{Ip, Protocol};
use crate::tcp::{self, flags};
use crate::udp;
use crate::vnet::{self, Gso};
use crate::{checksum, ipv4};

/// The packets of one frame, written one by one.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    /// All headers of the super-frame: IP, then TCP or UDP. Empty for a frame that is one packet.
    headers: &'a [u8],
    /// What is cut.
    payload: &'a [u8],
    kind: Kind,
    /// Octets of payload in each segment but the last.
    size: usize,
    /// How much of the payload has been written.
    done: usize,
    /// How many segments have been written.
    index: u16,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One packet. The checksum that is still to be computed: from where, and where it stands; is it UDP's?
    Whole { checksum: Option<(usize, usize, bool)> },
    /// A super-frame.
    Super {
        /// Where the upper layer begins.
        upper: usize,
        /// IPv4's identification; `None` for IPv6.
        id: Option<u16>,
        /// TCP's sequence number and flags; `None` for UDP.
        tcp: Option<(u32, u8)>,
        /// Pseudo header without the length, and the headers' checksum field taken out.
        pseudo: Sum,
    },
}

impl<'a> Segments<'a> {
    /// `frame` is what followed the virtio header in a read of the TAP; its IP packet begins at `l2_len`.
    pub fn new(header: &vnet::Header, frame: &'a [u8], l2_len: usize) -> Result<Self, Malformed> {
        let arrived = frame.get(l2_len..).ok_or(Malformed::Truncated)?;
        let ip = Ip::parse(arrived)?;
        let packet = arrived.get(..ip.total_len).ok_or(Malformed::TotalLength)?;
        match header.gso {
            Gso::None => Self::whole(header, &ip, packet, l2_len),
            gso => Self::super_frame(header, gso, &ip, packet, l2_len),
        }
    }

    fn whole(header: &vnet::Header, ip: &Ip, packet: &'a [u8], l2_len: usize) -> Result<Self, Malformed> {
        let checksum = if header.needs_checksum() {
            let start = usize::from(header.csum_start).checked_sub(l2_len).ok_or(Malformed::Checksum)?;
            let place = start + usize::from(header.csum_offset);
            // One that lies in the IP header would be written over it.
            if start < ip.header_len || place + 2 > packet.len() {
                return Err(Malformed::Checksum);
            }
            Some((start, place, ip.protocol == Protocol::UDP))
        } else {
            None
        };
        Ok(Self {
            headers: &[],
            payload: packet,
            kind: Kind::Whole { checksum },
            size: packet.len(),
            done: 0,
            index: 0,
            finished: false,
        })
    }

    fn super_frame(
        header: &vnet::Header,
        gso: Gso,
        ip: &Ip,
        packet: &'a [u8],
        l2_len: usize,
    ) -> Result<Self, Malformed> {
        let (v4, protocol, field) = match gso {
            Gso::TcpV4 => (true, Protocol::TCP, tcp::CHECKSUM_OFFSET),
            Gso::TcpV6 => (false, Protocol::TCP, tcp::CHECKSUM_OFFSET),
            Gso::UdpL4 => (ip.is_v4(), Protocol::UDP, udp::CHECKSUM_OFFSET),
            Gso::None => return Err(Malformed::Protocol),
        };
        if ip.is_v4() != v4 || ip.protocol != protocol || ip.fragment.is_some() {
            return Err(Malformed::Protocol);
        }
        if !header.needs_checksum() || usize::from(header.csum_start) != l2_len + ip.header_len {
            return Err(Malformed::Checksum);
        }
        let upper = ip.upper(packet);
        let (payload, tcp) = if protocol == Protocol::TCP {
            let (tcp, _, payload) = tcp::Header::parse(upper)?;
            (payload, Some((tcp.sequence.get(), tcp.flags)))
        } else {
            (upper.get(udp::HEADER_LEN..).ok_or(Malformed::Truncated)?, None)
        };
        let size = usize::from(header.gso_size);
        if size == 0 || payload.is_empty() {
            return Err(Malformed::HeaderLength);
        }
        // The field holds the sum of the pseudo header, made for the whole length. It is the kernel's to know (a routing
        // header changes the address that counts), so it is corrected rather than made anew.
        let partial = read_u16(upper, field).ok_or(Malformed::Truncated)?;
        let whole = u16::try_from(upper.len()).map_err(|_| Malformed::TotalLength)?;
        let pseudo = Sum::ZERO.with_u16(partial).without_u16(whole);
        let id = if v4 { read_u16(packet, 4) } else { None };
        let headers = packet.get(..packet.len() - payload.len()).ok_or(Malformed::Truncated)?;
        let kind = Kind::Super { upper: ip.header_len, id, tcp, pseudo };
        Ok(Self { headers, payload, kind, size, done: 0, index: 0, finished: false })
    }

    /// Packets still to be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        if self.finished { 0 } else { (self.payload.len() - self.done).div_ceil(self.size.max(1)).max(1) }
    }

    /// Octets of the next packet; `None` after the last.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let piece = self.size.min(self.payload.len() - self.done);
        (!self.finished).then_some(self.headers.len() + piece)
    }

    /// Writes the next packet to the start of `out`, and returns its length; `None` after the last. Where there is no room
    /// nothing happens, and the same packet can be tried again.
    #[inline]
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<Result<usize, NoRoom>> {
        let length = self.next_len()?;
        let Some(packet) = out.get_mut(..length) else {
            return Some(Err(NoRoom { needed: length }));
        };
        let end = self.done + length - self.headers.len();
        let last = end == self.payload.len();
        let (head, body) = packet.split_at_mut_checked(self.headers.len())?;
        head.copy_from_slice(self.headers);
        body.copy_from_slice(self.payload.get(self.done..end)?);
        match self.kind {
            Kind::Whole { checksum: None } => {}
            Kind::Whole { checksum: Some((start, place, udp)) } => complete(packet, start, place, udp),
            Kind::Super { upper, id, tcp, pseudo } => {
                self.mend_ip(packet, upper, id);
                self.mend_upper(packet, upper, tcp, pseudo, last);
            }
        }
        self.done = end;
        self.index = self.index.wrapping_add(1);
        self.finished = last;
        Some(Ok(length))
    }

    /// Length, identification (as Linux counts it) and header checksum.
    #[inline]
    fn mend_ip(&self, packet: &mut [u8], upper: usize, id: Option<u16>) {
        let length = packet.len();
        if let Some(id) = id {
            put_u16(packet, 2, length as u16);
            put_u16(packet, 4, id.wrapping_add(self.index));
            put_u16(packet, 10, 0);
            let sum = checksum::checksum(packet.get(..upper).unwrap_or_default());
            put_u16(packet, 10, sum);
        } else {
            put_u16(packet, 4, (length - crate::ipv6::HEADER_LEN) as u16);
        }
    }

    /// Sequence number, flags or length, and checksum.
    #[inline]
    fn mend_upper(&self, packet: &mut [u8], upper: usize, tcp: Option<(u32, u8)>, pseudo: Sum, last: bool) {
        let Some(upper) = packet.get_mut(upper..) else { return };
        let length = upper.len() as u16;
        let pseudo = pseudo.with_u16(length);
        if let Some((sequence, all)) = tcp {
            let sequence = sequence.wrapping_add(self.done as u32);
            if let Some(field) = upper.get_mut(4..).and_then(|s| s.first_chunk_mut::<4>()) {
                *field = sequence.to_be_bytes();
            }
            // CWR tells once that the window was reduced (RFC 3168 §6.1.2); FIN and PSH belong to the last octet.
            let first_only = if self.index == 0 { 0 } else { flags::CWR };
            let last_only = if last { 0 } else { flags::FIN | flags::PSH };
            if let Some(field) = upper.get_mut(13) {
                *field = all & !first_only & !last_only;
            }
            put_u16(upper, tcp::CHECKSUM_OFFSET, 0);
            let sum = pseudo.with(upper).finish();
            put_u16(upper, tcp::CHECKSUM_OFFSET, sum);
        } else {
            put_u16(upper, 4, length);
            put_u16(upper, udp::CHECKSUM_OFFSET, 0);
            let sum = pseudo.with(upper).finish_udp();
            put_u16(upper, udp::CHECKSUM_OFFSET, sum);
        }
    }
}

/// Completes in place the checksum of a frame that is one packet, if the virtio header asks for it. `frame` is what
/// followed the virtio header. A place outside the frame is [`Malformed::Checksum`].
pub fn complete_checksum(header: &vnet::Header, frame: &mut [u8], l2_len: usize) -> Result<(), Malformed> {
    if !header.needs_checksum() {
        return Ok(());
    }
    let start = usize::from(header.csum_start);
    let place = start + usize::from(header.csum_offset);
    let packet = frame.get(l2_len..).ok_or(Malformed::Truncated)?;
    let ip = Ip::parse(packet)?;
    // Padding behind the packet is not covered.
    let packet = frame.get_mut(l2_len..l2_len + ip.total_len).ok_or(Malformed::TotalLength)?;
    let (start, place) = match (start.checked_sub(l2_len), place.checked_sub(l2_len)) {
        (Some(start), Some(place)) if place + 2 <= packet.len() => (start, place),
        _ => return Err(Malformed::Checksum),
    };
    complete(packet, start, place, ip.protocol == Protocol::UDP);
    Ok(())
}

fn complete(packet: &mut [u8], start: usize, place: usize, udp: bool) {
    let sum = Sum::ZERO.with(packet.get(start..).unwrap_or_default());
    put_u16(packet, place, if udp { sum.finish_udp() } else { sum.finish() });
}

#[inline]
fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
}

#[inline]
fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *place = value.to_be_bytes();
    }
}

const _: () = assert!(ipv4::HEADER_LEN == 20, "mend_ip writes at the offsets of RFC 791");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SuperFrame, checksums_are_valid, segments};
    use proptest::prelude::*;

    #[test]
    fn a_tcp_super_frame_becomes_segments_with_fin_and_psh_on_the_last() {
        let frame = SuperFrame {
            flags: flags::ACK | flags::PSH | flags::FIN | flags::CWR,
            payload: (0..=255).cycle().take(3000).collect(),
            size: 1400,
            ..SuperFrame::tcp_v4()
        };
        let out = segments(&frame);
        let seen: Vec<_> = out
            .iter()
            .map(|p| {
                let ip = Ip::parse(p).unwrap();
                let (tcp, _, payload) = tcp::Header::parse(ip.upper(p)).unwrap();
                assert!(checksums_are_valid(p));
                (read_u16(p, 4).unwrap(), tcp.sequence.get() - frame.sequence, tcp.flags, payload.len())
            })
            .collect();
        let ack = flags::ACK;
        assert_eq!(
            seen,
            [
                (frame.id, 0, ack | flags::CWR, 1400),
                (frame.id.wrapping_add(1), 1400, ack, 1400),
                (frame.id.wrapping_add(2), 2800, ack | flags::PSH | flags::FIN, 200),
            ]
        );
    }

    #[test]
    fn a_udp_super_frame_becomes_datagrams_with_lengths_of_their_own() {
        for base in [SuperFrame::udp_v4(), SuperFrame::udp_v6()] {
            let frame = SuperFrame { payload: vec![9; 2500], size: 1200, ..base };
            let lengths: Vec<_> = segments(&frame)
                .iter()
                .map(|p| {
                    assert!(checksums_are_valid(p));
                    let ip = Ip::parse(p).unwrap();
                    udp::Header::parse(ip.upper(p)).unwrap().1.len()
                })
                .collect();
            assert_eq!(lengths, [1200, 1200, 100]);
        }
    }

    #[test]
    fn a_packet_that_left_its_checksum_to_the_device_gets_it() {
        for base in [SuperFrame::tcp_v4(), SuperFrame::tcp_v6(), SuperFrame::udp_v4(), SuperFrame::udp_v6()] {
            let frame = SuperFrame { payload: vec![3; 101], size: 0, ..base };
            let (vnet, bytes) = frame.build();
            assert_eq!(vnet.gso, Gso::None);
            let out = segments(&frame);
            assert_eq!(out.len(), 1);
            assert!(checksums_are_valid(&out[0]));
            let mut in_place = bytes.clone();
            in_place.extend_from_slice(&[0xee; 5]); // Ethernet padding
            complete_checksum(&vnet, &mut in_place, 14).unwrap();
            assert_eq!(in_place[14..bytes.len()], out[0]);
        }
    }

    #[test]
    fn no_room_leaves_the_same_segment_to_be_tried_again() {
        let frame = SuperFrame { payload: vec![1; 100], size: 60, ..SuperFrame::udp_v4() };
        let (vnet, bytes) = frame.build();
        let mut segments = Segments::new(&vnet, &bytes, 14).unwrap();
        assert_eq!((segments.remaining(), segments.next_len()), (2, Some(88)));
        assert_eq!(segments.write_next(&mut [0; 87]), Some(Err(NoRoom { needed: 88 })));
        let mut out = [0; 88];
        assert_eq!(segments.write_next(&mut out), Some(Ok(88)));
        assert_eq!((segments.remaining(), segments.next_len()), (1, Some(68)));
        assert_eq!(segments.write_next(&mut out), Some(Ok(68)));
        assert_eq!((segments.remaining(), segments.next_len()), (0, None));
        assert_eq!(segments.write_next(&mut out), None);
    }

    #[test]
    fn a_header_that_contradicts_the_frame_is_refused() {
        let frame = SuperFrame { payload: vec![1; 100], size: 60, ..SuperFrame::tcp_v4() };
        let (vnet, bytes) = frame.build();
        let refused = |vnet: vnet::Header| Segments::new(&vnet, &bytes, 14).map(|_| ()).unwrap_err();
        assert_eq!(refused(vnet::Header { gso: Gso::TcpV6, ..vnet }), Malformed::Protocol);
        assert_eq!(refused(vnet::Header { gso: Gso::UdpL4, ..vnet }), Malformed::Protocol);
        assert_eq!(refused(vnet::Header { gso_size: 0, ..vnet }), Malformed::HeaderLength);
        assert_eq!(refused(vnet::Header { csum_start: 35, ..vnet }), Malformed::Checksum);
        assert_eq!(refused(vnet::Header { flags: 0, ..vnet }), Malformed::Checksum);
        let whole = vnet::Header { gso: Gso::None, ..vnet };
        assert_eq!(refused(vnet::Header { csum_offset: 2000, ..whole }), Malformed::Checksum);
        assert_eq!(refused(vnet::Header { csum_start: 2, ..whole }), Malformed::Checksum);
        assert_eq!(Segments::new(&vnet, &bytes[..13], 14).map(|_| ()), Err(Malformed::Truncated));
    }

    proptest! {
        #[test]
        fn the_segments_carry_the_payload_and_right_checksums(frame: SuperFrame) {
            let mut payload = Vec::new();
            for packet in segments(&frame) {
                prop_assert!(checksums_are_valid(&packet));
                let ip = Ip::parse(&packet).unwrap();
                prop_assert_eq!(ip.total_len, packet.len());
                payload.extend_from_slice(&packet[ip.header_len + frame.upper_header_len()..]);
            }
            prop_assert_eq!(payload, frame.payload);
        }

        #[test]
        fn nothing_panics_on_any_bytes(
            head: [u8; 10], mut frame in proptest::collection::vec(any::<u8>(), 14..200), six: bool
        ) {
            if let Some(first) = frame.get_mut(14) {
                *first = if six { 0x60 } else { 0x45 };
            }
            if let Ok((vnet, _)) = vnet::Header::decode(&head) {
                let mut out = vec![0; 300];
                if let Ok(mut segments) = Segments::new(&vnet, &frame, 14) {
                    let mut left = segments.remaining();
                    while let Some(Ok(_)) = segments.write_next(&mut out) {
                        left -= 1;
                        prop_assert_eq!(segments.remaining(), left);
                    }
                }
                let _ = complete_checksum(&vnet, &mut frame, 14);
            }
        }
    }
}
