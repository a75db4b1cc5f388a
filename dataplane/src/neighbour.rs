//! ARP and neighbour discovery: whom the kernel asks for is answered at once and by us, without asking anybody.
//!
//! An address whose peer has a direct path gets that peer's MAC. Any other inside the tunnel's networks gets the MAC
//! that means "by the hub", and the agent is told that the next hop is wanted. Our own addresses, others' networks and
//! probes for duplicates are not answered: silence is what those who ask want.

use crate::io::{Tap, Underlay};
use crate::lane::Lane;
use crate::stats::Counter;
use crate::tables::Tables;
use packet::peer::{BY_HUB_MAC, Mac};
use packet::{arp, nd, vnet};
use std::io::IoSlice;
use std::net::IpAddr;

/// Answers an ARP packet from the kernel, if it is a request to answer.
pub fn arp<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, tables: &Tables, payload: &[u8]) {
    let request = arp::Request::parse(payload).filter(|request| !request.is_duplicate_probe());
    let answer = request.and_then(|request| {
        let mac = mac_of(lane, tables, IpAddr::V4(request.target))?;
        let mut frame = [0; arp::FRAME_LEN];
        request.write_reply(mac, &mut frame).ok().map(|_| frame)
    });
    match answer {
        Some(frame) => send(lane, &frame),
        None => lane.stats.count(Counter::DropNotAnswered),
    }
}

/// Answers a neighbour solicitation from the kernel. False: it is none, and goes the way of all packets.
pub fn nd<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, tables: &Tables, asker: Mac, packet: &[u8]) -> bool {
    const NEXT_HEADER_ICMPV6: u8 = 58;
    // A look before the full parse: nearly no packet is one.
    if packet.get(6) != Some(&NEXT_HEADER_ICMPV6) {
        return false;
    }
    let Some(solicitation) = nd::Solicitation::parse(packet) else { return false };
    let answer = Some(solicitation).filter(|s| !s.is_duplicate_probe()).and_then(|solicitation| {
        let mac = mac_of(lane, tables, IpAddr::V6(solicitation.target))?;
        let mut frame = [0; nd::FRAME_LEN];
        solicitation.write_advertisement(asker, mac, &mut frame).ok().map(|_| frame)
    });
    match answer {
        Some(frame) => send(lane, &frame),
        None => lane.stats.count(Counter::DropNotAnswered),
    }
    true
}

fn mac_of<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, tables: &Tables, target: IpAddr) -> Option<Mac> {
    let inside = tables.tunnel.networks.iter().any(|network| network.contains(&target));
    if !inside || tables.is_own(target) {
        return None;
    }
    let direct = tables.peers.by_address(target).filter(|row| row.peer.send.is_some());
    Some(direct.map_or_else(
        || {
            lane.punts.next_hop_wanted(target, lane.now, &lane.stats);
            BY_HUB_MAC
        },
        |row| row.mac,
    ))
}

fn send<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, frame: &[u8]) {
    let vnet = vnet::Header::NONE.encode();
    lane.write(&[IoSlice::new(&vnet), IoSlice::new(frame)]);
    lane.stats.count(Counter::NeighboursAnswered);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromDatapath, Peer};
    use crate::testing::*;
    use packet::eth;
    use packet::peer::OWN_MAC;

    fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
        [&fixed[..], &OWN_MAC, &sender, &[0; 6], &target].concat()
    }

    /// Who answers, and how.
    fn asked(bench: &mut Bench, target: [u8; 4]) -> Option<Mac> {
        bench.frame(&vnet::Header::NONE, eth::BROADCAST, 0x0806, &request([10, 200, 0, 1], target));
        let mac = bench.delivered().first().map(|d| d.packet[8..14].try_into().unwrap());
        assert_eq!(bench.sent(), [], "never sent to peers");
        mac
    }

    #[test]
    fn an_address_with_a_direct_path_has_its_peers_mac() {
        let mut bench = Bench::new();
        assert_eq!(asked(&mut bench, [10, 200, 0, 11]), Some(id(1).mac()));
        assert_eq!(bench.punted(), []);
    }

    #[test]
    fn any_other_address_inside_is_reached_by_the_hub_and_wanted() {
        let mut bench = Bench::new();
        bench.tables.set_peer(id(2), Peer { send: None, ..peer(2) }, 1);
        for last in [77, 12] {
            assert_eq!(asked(&mut bench, [10, 200, 0, last]), Some(BY_HUB_MAC));
            let wanted = FromDatapath::NextHopWanted([10, 200, 0, last].into());
            assert_eq!(bench.punted(), [wanted]);
        }
    }

    #[test]
    fn our_own_addresses_and_other_networks_are_not_answered() {
        let mut bench = Bench::new();
        assert_eq!(asked(&mut bench, [10, 200, 0, 1]), None);
        assert_eq!(asked(&mut bench, [10, 201, 0, 1]), None);
        assert_eq!(bench.count(Counter::DropNotAnswered), 2);
    }

    #[test]
    fn a_probe_for_duplicates_is_not_answered() {
        let mut bench = Bench::new();
        let probe = request([0; 4], [10, 200, 0, 77]);
        bench.frame(&vnet::Header::NONE, eth::BROADCAST, 0x0806, &probe);
        assert_eq!(bench.delivered(), []);
    }

    fn solicitation(source: &str, target: &str) -> Vec<u8> {
        let target: std::net::Ipv6Addr = target.parse().unwrap();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        with_protocol(source, "ff02::1:ff00:10", 58, 255, &message)
    }

    #[test]
    fn a_solicitation_is_advertised_to_whoever_asked() {
        let mut bench = Bench::new();
        let group = [0x33, 0x33, 0xff, 0, 0, 0x10];
        bench.tables.multicast = [id(1)].into();
        bench.kernel_sends(group, &solicitation("fd00:200::1", "fd00:200::10"));
        let answer = bench.delivered().remove(0);
        assert_eq!((answer.from, answer.to), (id(1).mac(), OWN_MAC));
        assert_eq!(answer.packet[66..72], id(1).mac());
        bench.kernel_sends(group, &solicitation("::", "fd00:200::10"));
        assert_eq!((bench.delivered(), bench.sent()), (vec![], vec![]));
    }
}
