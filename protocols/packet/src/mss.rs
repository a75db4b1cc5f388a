//! The MSS clamp: a TCP connection through the tunnel is told at its start how long its segments may be, so that it
//! needs no "too big" later (RFC 4459 §3.2 describes the practice).

use crate::checksum;
use crate::ip::{self, Protocol};
use crate::{ipv4, ipv6, tcp};

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// The MSS that fits a packet of `mtu` octets: no options (RFC 6691).
#[must_use]
pub const fn for_mtu(mtu: u16, v4: bool) -> u16 {
    mtu.saturating_sub(if v4 { 40 } else { 60 })
}

/// Lowers the MSS option of a SYN to what packets of `mtu` octets hold, and mends the checksum, which must be complete
/// (not left to the device). Anything but a SYN with a larger MSS is left as it is. Returns whether it was changed.
#[inline]
pub fn clamp(packet: &mut [u8], mtu: u16) -> bool {
    // Cheap answers first: nearly no packet is a SYN.
    let (offset, v4) = match (ip::version(packet), packet.get(9), packet.get(6)) {
        (Some(4), Some(&protocol), _) if Protocol(protocol) == Protocol::TCP => {
            match ipv4::Header::parse(packet) {
                Ok((header, _)) if header.fragment_offset() == 0 => (header.header_len(), true),
                _ => return false,
            }
        }
        (Some(6), _, Some(&next)) if Protocol(next) == Protocol::TCP => (ipv6::HEADER_LEN, false),
        _ => return false,
    };
    let Some(segment) = packet.get_mut(offset..) else { return false };
    if segment.get(13).is_none_or(|flags| flags & tcp::flags::SYN == 0) {
        return false;
    }
    clamp_segment(segment, for_mtu(mtu, v4)).is_some()
}

fn clamp_segment(segment: &mut [u8], mss: u16) -> Option<()> {
    let (header, options, _) = tcp::Header::parse(segment).ok()?;
    let old_checksum = header.checksum.get();
    let at = tcp::HEADER_LEN + find(options)?;
    let field = segment.get_mut(at..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*field);
    if old <= mss {
        return None;
    }
    *field = mss.to_be_bytes();
    // A word at an odd offset counts with its octets swapped.
    let swap = |word: u16| if at % 2 == 1 { word.swap_bytes() } else { word };
    let sum = checksum::update(old_checksum, swap(old), swap(mss));
    let place = segment.get_mut(tcp::CHECKSUM_OFFSET..)?.first_chunk_mut::<2>()?;
    *place = sum.to_be_bytes();
    Some(())
}

/// Where in the options the value of the MSS option stands.
fn find(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match (*options.get(at)?, options.get(at + 1)) {
            (OPTION_END, _) => return None,
            (OPTION_NOP, _) => at += 1,
            (OPTION_MSS, Some(4)) if at + 4 <= options.len() => return Some(at + 2),
            (_, Some(&length)) if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Ip;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn syn(v4: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[12] = ((20 + options.len()) as u8 / 4) << 4;
        segment[13] = flags;
        segment.extend_from_slice(options);
        let n = segment.len() as u16;
        let mut packet = if v4 {
            let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
            ipv4::Header::new(a, b, 6, 0, 64, n).as_bytes().to_vec()
        } else {
            let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
            ipv6::Header::new(a, b, 6, 0, 64, n).as_bytes().to_vec()
        };
        let at = packet.len();
        packet.extend_from_slice(&segment);
        let ip = Ip::parse(&packet).unwrap();
        let sum = ip.pseudo_sum().with(ip.upper(&packet)).finish();
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn valid(packet: &[u8]) -> bool {
        let ip = Ip::parse(packet).unwrap();
        ip.pseudo_sum().with(ip.upper(packet)).is_valid()
    }

    #[test]
    fn a_syn_is_clamped_and_its_checksum_stays_right() {
        for (v4, expected) in [(true, 1380u16), (false, 1360)] {
            let mut packet = syn(v4, tcp::flags::SYN, &[2, 4, 0x05, 0xb4, 1, 1, 4, 2]);
            assert!(clamp(&mut packet, 1420));
            let at = packet.len() - 6;
            assert_eq!(packet[at..at + 2], expected.to_be_bytes());
            assert!(valid(&packet));
        }
    }

    #[test]
    fn an_option_at_an_odd_offset_is_clamped_too() {
        let mut packet = syn(true, tcp::flags::SYN | tcp::flags::ACK, &[1, 2, 4, 0x05, 0xb4, 1, 1, 0]);
        assert!(clamp(&mut packet, 1420));
        assert_eq!(packet[43..45], 1380u16.to_be_bytes());
        assert!(valid(&packet));
    }

    #[test]
    fn a_small_mss_and_a_packet_without_syn_are_left_alone() {
        for mut packet in [
            syn(true, tcp::flags::SYN, &[2, 4, 2, 0]),
            syn(true, tcp::flags::ACK, &[2, 4, 0x05, 0xb4]),
            syn(true, tcp::flags::SYN, &[3, 0, 2, 4, 5, 0xb4, 0, 0]), // an option of length 0
        ] {
            let before = packet.clone();
            assert!(!clamp(&mut packet, 1420));
            assert_eq!(packet, before);
        }
    }

    proptest! {
        #[test]
        fn clamping_never_panics(options in proptest::collection::vec(0u8..8, 0..10), v4: bool, mtu: u16) {
            let mut options = options;
            options.resize(options.len().next_multiple_of(4), 0);
            let mut packet = syn(v4, tcp::flags::SYN, &options);
            clamp(&mut packet, mtu);
            prop_assert!(valid(&packet));
        }
    }
}
