//! Traffic selectors: GRE between the two addresses, and nothing else (RFC 7296 §2.9, §2.23.1).

use crate::payload::{AddressRange, TrafficSelector};
use std::net::IpAddr;

/// What we propose, for one end.
pub(crate) fn propose(end: IpAddr) -> Vec<TrafficSelector> {
    vec![AddressRange::gre(end).into()]
}

/// Narrows what an initiator proposes for one end to GRE of that end; `seen` is its address as the outer header has
/// it. `None`: it proposes something else.
///
/// Initiators that were triggered by a packet put the selector of that packet first (`[gre/42]`: the halves of the GRE
/// key stand where ports would), and the wide one behind it. We choose the widest.
pub(crate) fn narrow(proposed: &[TrafficSelector], seen: IpAddr, nat: bool) -> Option<AddressRange> {
    let ranges = || proposed.iter().filter_map(as_range);
    let widest = |candidates: &mut dyn Iterator<Item = &AddressRange>| {
        candidates.max_by_key(|r| r.ports.1.saturating_sub(r.ports.0)).map(|r| r.ports)
    };
    let ports = widest(&mut ranges().filter(|r| r.covers_gre(seen))).or_else(|| {
        // RFC 7296 §2.23.1: in transport mode through a NAT the addresses of the selectors are replaced by those seen here.
        // The address within is one from the other side of the NAT, and no more than one.
        let substituted = |r: &&AddressRange| r.single_address().is_some_and(|a| r.covers_gre(a));
        nat.then(|| widest(&mut ranges().filter(substituted))).flatten()
    })?;
    Some(AddressRange { ports, ..AddressRange::gre(seen) })
}

/// Is this answer within what we proposed for one end?
pub(crate) fn within_ours(answer: &[TrafficSelector], ours: IpAddr, nat: bool) -> bool {
    !answer.is_empty()
        && answer.iter().all(|selector| {
            as_range(selector).is_some_and(|range| {
                let address = range.single_address();
                range.protocol == AddressRange::gre(ours).protocol
                    && address.is_some_and(|a| a == ours || (nat && a.is_ipv4() == ours.is_ipv4()))
            })
        })
}

const fn as_range(selector: &TrafficSelector) -> Option<&AddressRange> {
    match selector {
        TrafficSelector::Range(range) => Some(range),
        TrafficSelector::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(protocol: u8, ports: (u16, u16), first: &str, last: &str) -> TrafficSelector {
        AddressRange { protocol, ports, addresses: (ip(first), ip(last)) }.into()
    }

    #[test]
    fn a_trap_initiators_packet_does_not_narrow_the_sa() {
        let proposed =
            [range(47, (42, 42), "192.0.2.1", "192.0.2.1"), range(47, (0, 65535), "192.0.2.1", "192.0.2.1")];
        assert_eq!(narrow(&proposed, ip("192.0.2.1"), false), Some(AddressRange::gre(ip("192.0.2.1"))));
    }

    #[test]
    fn a_wide_proposal_is_narrowed_to_gre_of_that_end() {
        let proposed = [range(0, (0, 65535), "0.0.0.0", "255.255.255.255")];
        assert_eq!(narrow(&proposed, ip("192.0.2.1"), false), Some(AddressRange::gre(ip("192.0.2.1"))));
    }

    #[test]
    fn the_inside_address_is_believed_only_behind_a_nat() {
        let proposed = [range(47, (0, 65535), "10.0.0.1", "10.0.0.1")];
        assert_eq!(narrow(&proposed, ip("192.0.2.1"), false), None);
        assert_eq!(narrow(&proposed, ip("192.0.2.1"), true), Some(AddressRange::gre(ip("192.0.2.1"))));
    }

    #[test]
    fn another_protocol_is_refused() {
        let proposed = [range(6, (0, 65535), "192.0.2.1", "192.0.2.1")];
        assert_eq!(narrow(&proposed, ip("192.0.2.1"), true), None);
        assert!(!within_ours(&proposed, ip("192.0.2.1"), true));
    }

    #[test]
    fn an_answer_for_another_address_is_accepted_only_through_a_nat() {
        let answer = [AddressRange::gre(ip("192.0.2.9")).into()];
        assert!(!within_ours(&answer, ip("192.0.2.1"), false));
        assert!(within_ours(&answer, ip("192.0.2.1"), true));
        assert!(!within_ours(&[], ip("192.0.2.1"), true));
    }
}
