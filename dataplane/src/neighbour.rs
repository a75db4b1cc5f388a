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
