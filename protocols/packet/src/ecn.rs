//! ECN and DSCP through a tunnel: RFC 6040 in normal mode, RFC 2983 in the pipe model on the way out.

use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// The mask of the ECN field in a TOS octet or traffic class.
pub const MASK: u8 = 3;
/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0;
/// ECN-capable transport, codepoint 1.
pub const ECT1: u8 = 1;
/// ECN-capable transport, codepoint 0.
pub const ECT0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// Congestion was met by a packet whose sender wouldn't understand the mark: it must be dropped, which is what the
/// mark stands for (RFC 6040 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("congestion experienced by a packet that is not ECN-capable")]
pub struct Congested;

/// The TOS octet of the outer header for an inner packet: DSCP and ECN are copied (RFC 6040 §4.1, normal mode).
#[inline]
#[must_use]
pub const fn encapsulate(inner_tos: u8) -> u8 {
    inner_tos
}

/// The TOS octet that the inner packet goes on with. DSCP stays the inner one's (RFC 2983 §4.2), since the underlay may
/// have re-marked the outer; ECN is combined by the table of RFC 6040 §4.2.
#[inline]
pub const fn decapsulate(outer_tos: u8, inner_tos: u8) -> Result<u8, Congested> {
    let ecn = match (inner_tos & MASK, outer_tos & MASK) {
        (NOT_ECT, CE) => return Err(Congested),
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (ECT0, ECT1) => ECT1,
        (inner, _) => inner,
    };
    Ok(inner_tos & !MASK | ecn)
}

/// Applies [`decapsulate`] to an inner packet. A packet that doesn't parse is left as it is.
#[inline]
pub fn apply(outer_tos: u8, packet: &mut [u8]) -> Result<(), Congested> {
    // The usual case first: an outer header that says nothing changes nothing.
    if outer_tos & MASK == NOT_ECT {
        return Ok(());
    }
    let inner = match ip::version(packet) {
        Some(4) => ipv4::Header::parse(packet).map(|(h, _)| h.tos),
        Some(6) => ipv6::Header::parse(packet).map(|(h, _)| h.traffic_class()),
        _ => return Ok(()),
    };
    if let Ok(inner) = inner {
        let tos = decapsulate(outer_tos, inner)?;
        if tos != inner {
            ip::set_tos(packet, tos);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn the_table_of_rfc_6040_holds() {
        //= rfc6040#4.2
        let n = Err(Congested);
        let table = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), n]),
            (ECT0, [Ok(ECT0), Ok(ECT0), Ok(ECT1), Ok(CE)]),
            (ECT1, [Ok(ECT1), Ok(ECT1), Ok(ECT1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
                let expected = expected.map(|e| 0x28 | e);
                assert_eq!(decapsulate(0xb8 | outer, 0x28 | inner), expected, "{inner} {outer}");
            }
        }
    }

    #[test]
    fn a_mark_reaches_the_inner_packet_and_its_checksum() {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let header = ipv4::Header::new(a, b, 6, 0x28 | ECT0, 64, 0);
        let mut packet = header.as_bytes().to_vec();
        assert_eq!(apply(CE, &mut packet), Ok(()));
        assert_eq!(packet[1], 0x28 | CE);
        assert!(ipv4::is_checksum_valid(&packet));
        let mut packet = ipv4::Header::new(a, b, 6, 0, 64, 0).as_bytes().to_vec();
        assert_eq!(apply(CE, &mut packet), Err(Congested));
    }
}
