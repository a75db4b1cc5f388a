//! What a raw socket does not tell.
//!
//! Between two kernels on one machine, or after a network card's GRO, a GRE packet may arrive that never was on a wire
//! like this: its inner checksum is left to a device that will not come, and it may be a TCP super-frame. For UDP the
//! kernel puts that right, for raw sockets it neither does nor says so. It is recognised by the checksum field, which
//! then holds the sum of the pseudo header.

use packet::checksum::Sum;
use packet::ip::{Ip, Protocol};
use packet::vnet::{self, Gso, flags};
use packet::{Malformed, eth, tcp, udp};

/// Completes the checksum of a packet that was left without, or says how the super-frame it is must be cut. Offsets in
/// the header that is returned count from the IP header.
///
/// # Errors
/// [`Malformed::TotalLength`] for a super-frame of anything but TCP: where it is to be cut, nobody knows.
pub fn recover(packet: &mut [u8], ip: &Ip, mtu: u16) -> Result<vnet::Header, Malformed> {
    let field = match ip.protocol {
        Protocol::TCP => tcp::CHECKSUM_OFFSET,
        Protocol::UDP => udp::CHECKSUM_OFFSET,
        _ => return Ok(vnet::Header::NONE),
    };
    let pseudo = ip.pseudo_sum();
    let place = ip.header_len + field;
    let said = packet.get(place..).and_then(|p| p.first_chunk()).map(|b| u16::from_be_bytes(*b));
    if ip.fragment.is_some() || said != Some(pseudo.fold()) || pseudo.with(ip.upper(packet)).is_valid() {
        return Ok(vnet::Header::NONE);
    }
    if packet.len() <= usize::from(mtu) {
        let sum = Sum::ZERO.with(ip.upper(packet));
        let sum = if ip.protocol == Protocol::UDP { sum.finish_udp() } else { sum.finish() };
        if let Some(place) = packet.get_mut(place..).and_then(|p| p.first_chunk_mut()) {
            *place = sum.to_be_bytes();
        }
        return Ok(vnet::Header::NONE);
    }
    if ip.protocol != Protocol::TCP {
        return Err(Malformed::TotalLength);
    }
    let (_, options, _) = tcp::Header::parse(ip.upper(packet))?;
    let headers = ip.header_len + tcp::HEADER_LEN + options.len();
    let size = usize::from(mtu).checked_sub(headers).filter(|s| *s > 0).ok_or(Malformed::TotalLength)?;
    Ok(vnet::Header {
        flags: flags::NEEDS_CSUM,
        gso: if ip.is_v4() { Gso::TcpV4 } else { Gso::TcpV6 },
        ecn: false,
        hdr_len: headers as u16,
        gso_size: size as u16,
        csum_start: ip.header_len as u16,
        csum_offset: field as u16,
    })
}

/// The same header for a frame, whose offsets count from the Ethernet header.
#[must_use]
pub const fn in_frame(header: &vnet::Header) -> vnet::Header {
    let mut header = *header;
    header.hdr_len += eth::HEADER_LEN as u16;
    header.csum_start += eth::HEADER_LEN as u16;
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OWN, tcp, with_protocol};
    use packet::segment::Segments;

    /// As it arrives when the sender left the checksum to a device.
    fn without_checksum(mut packet: Vec<u8>, field: usize) -> Vec<u8> {
        let ip = Ip::parse(&packet).unwrap();
        let at = ip.header_len + field;
        packet[at..at + 2].copy_from_slice(&ip.pseudo_sum().fold().to_be_bytes());
        packet
    }

    fn is_right(packet: &[u8]) -> bool {
        let ip = Ip::parse(packet).unwrap();
        ip.pseudo_sum().with(ip.upper(packet)).is_valid()
    }

    fn recovered(packet: &mut [u8]) -> Result<vnet::Header, Malformed> {
        let ip = Ip::parse(packet).unwrap();
        recover(packet, &ip, 1400)
    }

    #[test]
    fn a_checksum_left_to_a_device_is_completed() {
        let mut segment = without_checksum(tcp("10.11.0.5", OWN, 1, false, &[5; 99]), 16);
        assert_eq!((recovered(&mut segment), is_right(&segment)), (Ok(vnet::Header::NONE), true));
        let datagram = [&[0, 9, 0, 9, 0, 13, 0, 0][..], b"hello"].concat();
        for (a, b) in [("10.11.0.5", OWN), ("fd00::1", "fd00::2")] {
            let mut datagram = without_checksum(with_protocol(a, b, 17, 64, &datagram), 6);
            assert_eq!((recovered(&mut datagram), is_right(&datagram)), (Ok(vnet::Header::NONE), true));
        }
    }

    #[test]
    fn a_super_frame_is_recognised_and_can_be_cut() {
        let mut packet = without_checksum(tcp("10.11.0.5", OWN, 1, false, &[5; 5000]), 16);
        let vnet = recovered(&mut packet).unwrap();
        let mut segments = Segments::new(&vnet, &packet, 0).unwrap();
        let (mut out, mut payload) = ([0; 2000], 0);
        while let Some(Ok(length)) = segments.write_next(&mut out) {
            assert!(length <= 1400 && is_right(&out[..length]));
            payload += length - 40;
        }
        assert_eq!(payload, 5000);
    }

    #[test]
    fn what_was_on_a_wire_is_not_touched() {
        let good = tcp("10.11.0.5", OWN, 1, false, &[5; 99]);
        let mut wrong = good.clone();
        wrong[50] ^= 1;
        for packet in [good, wrong, with_protocol("10.11.0.5", OWN, 1, 64, &[8, 0, 0, 0])] {
            let mut seen = packet.clone();
            assert_eq!((recovered(&mut seen), seen), (Ok(vnet::Header::NONE), packet));
        }
    }

    #[test]
    fn datagrams_glued_without_seams_are_refused() {
        let datagram = [&[0, 9, 0, 9, 8, 0, 0, 0][..], &[7; 2040]].concat();
        let mut packet = without_checksum(with_protocol("10.11.0.5", OWN, 17, 64, &datagram), 6);
        assert_eq!(recovered(&mut packet), Err(Malformed::TotalLength));
    }
}
