//! From one peer to another without the kernel: what a hub does with most packets, as a router does it.

use crate::io::{Tap, Underlay};
use crate::lane::{Lane, protocol_of};
use crate::mtu::{self, Cut};
use crate::router::{self, Origin};
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
use crate::transmit::Outer;
use packet::ip::{self, Ip};
use packet::vnet;
use packet::{Path, PeerId, ecn, icmp};
use std::net::IpAddr;

/// Where an inner packet that arrived goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To our kernel.
    Kernel,
    /// To this peer.
    Peer(PeerId),
}

/// Decides by the destination. Groups and our own addresses are the kernel's, and so is what no route matches.
#[must_use]
pub fn way(tables: &Tables, destination: IpAddr) -> Way {
    if tables.hairpin.is_empty() || destination.is_multicast() || tables.is_own(destination) {
        return Way::Kernel;
    }
    tables.hairpin(destination).map_or(Way::Kernel, Way::Peer)
}

/// The last destination's way: packets of one batch mostly have one.
#[derive(Clone, Copy, Debug)]
pub struct LastWay(Option<(IpAddr, Way)>);

impl LastWay {
    /// Nothing asked yet. Good for one snapshot of the tables.
    pub const NONE: Self = Self(None);

    /// As [`way`].
    #[inline]
    pub fn way(&mut self, tables: &Tables, destination: IpAddr) -> Way {
        match self.0 {
            Some((last, way)) if last == destination => way,
            _ => {
                let way = way(tables, destination);
                self.0 = Some((destination, way));
                way
            }
        }
    }
}

/// Forwards a packet, or a super-frame if `vnet` says so, that came from one peer by `arrived_by` to another.
pub fn forward<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    (from, arrived_by): (&PeerRow, Path),
    to: PeerId,
    vnet: &vnet::Header,
    packet: &mut [u8],
    ip: &Ip,
) {
    if to == from.id {
        lane.stats.count(Counter::DropSplitHorizon);
        return;
    }
    let origin = Origin::Peer(from, arrived_by);
    let Some((row, path)) = tables.sendable(to) else {
        lane.stats.count(Counter::DropNoPath);
        router::tell(lane, tables, origin, icmp::Error::HostUnreachable, packet);
        return;
    };
    if ip::decrement_ttl(packet).is_err() {
        lane.stats.count(Counter::DropTtl);
        router::tell(lane, tables, origin, icmp::Error::TimeExceeded, packet);
        return;
    }
    if tables.tunnel.indicate_hairpins {
        let (between, flow) = ((from.id, to), (ip.source, ip.destination));
        lane.punts.hairpin(between, flow, packet, lane.now, &lane.stats);
    }
    let mtu = tables.inner_mtu(row, path, lane.now);
    let outer = Outer::with_tos(ecn::encapsulate(ip.tos));
    let protocol = protocol_of(packet);
    let mut segments = match mtu::segments(vnet, packet, 0, mtu) {
        Ok(segments) => segments,
        Err(Cut::TooLong(segments)) => return router::too_long(lane, tables, segments, origin, path, mtu),
        Err(Cut::Malformed(_)) => {
            lane.stats.count(Counter::DropBadInner);
            return;
        }
    };
    lane.capture_segments(tables, row, &segments);
    let (packets, octets) = lane.gather_segments(tables, path, (outer, protocol), &mut segments, |_| {});
    lane.stats.add(Counter::PacketsHairpinned, packets);
    lane.stats.add(Counter::PacketsSent, packets);
    lane.stats.add(Counter::BytesSent, octets);
    if let Some(stats) = lane.peer_stats(row) {
        stats.sent(packets, octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromDatapath, HairpinRoute, Peer};
    use crate::testing::*;

    /// A hub whose hairpin leads to each peer's networks; 10.1.0.0/16 is its own LAN.
    fn hub() -> Bench {
        let mut bench = Bench::new();
        let route = |prefix: &str, peer| HairpinRoute { prefix: prefix.parse().unwrap(), peer };
        bench.tables.set_hairpin(&[
            route("10.0.0.0/8", Some(id(9))),
            route("10.11.0.0/16", Some(id(1))),
            route("10.12.0.0/16", Some(id(2))),
            route("10.1.0.0/16", None),
            route("10.200.0.0/16", Some(id(9))),
            route("10.200.0.12/32", Some(id(2))),
        ]);
        bench
    }

    #[test]
    fn a_packet_for_another_peer_never_meets_the_kernel() {
        let mut bench = hub();
        let packet = packet("10.11.0.5", "10.12.0.5", 200);
        bench.peer_sends(path(1), std::slice::from_ref(&packet));
        let sent = bench.sent().remove(0);
        assert_eq!((sent.path, sent.packet[8]), (path(2), packet[8] - 1));
        assert!(packet::ipv4::is_checksum_valid(&sent.packet));
        assert_eq!(sent.packet[12..], packet[12..]);
        assert_eq!((bench.delivered(), bench.count(Counter::PacketsHairpinned)), (vec![], 1));
    }

    #[test]
    fn our_own_and_what_no_route_matches_is_the_kernels() {
        let mut bench = hub();
        for destination in [OWN, "10.1.2.3", "192.168.0.1", "224.0.0.5"] {
            bench.peer_sends(path(1), &[packet("10.11.0.5", destination, 200)]);
            assert_eq!((bench.delivered().len(), bench.sent().len()), (1, 0), "{destination}");
        }
    }

    #[test]
    fn no_packet_goes_back_to_the_peer_it_came_from() {
        let mut bench = hub();
        bench.peer_sends(path(1), &[packet("10.12.0.5", "10.11.0.5", 200)]);
        assert_eq!((bench.sent(), bench.delivered()), (vec![], vec![]));
        assert_eq!(bench.count(Counter::DropSplitHorizon), 1);
    }

    #[test]
    fn a_packet_whose_time_is_up_is_answered() {
        let mut bench = hub();
        bench.peer_sends(path(1), &[with_protocol("10.11.0.5", "10.12.0.5", 17, 1, &[0; 20])]);
        let sent = bench.sent().remove(0);
        assert_eq!((sent.path, icmp_error(&sent.packet)), (path(1), (11, 0, 0)));
        assert_eq!(Ip::parse(&sent.packet).unwrap().source, OWN.parse::<IpAddr>().unwrap());
        assert_eq!(bench.count(Counter::DropTtl), 1);
    }

    #[test]
    fn errors_are_not_made_without_bounds() {
        let mut bench = hub();
        let packets = vec![with_protocol("10.11.0.5", "10.12.0.5", 17, 1, &[0; 20]); 500];
        bench.peer_sends(path(1), &packets);
        assert_eq!((bench.sent().len(), bench.count(Counter::DropTtl)), (100, 500));
    }

    #[test]
    fn what_the_next_path_does_not_take_is_answered() {
        let mut bench = hub();
        bench.tables.peer(id(2)).unwrap().path_mtu.set(path(2), 1280, bench.lane.now);
        bench.peer_sends(path(1), &[packet("10.11.0.5", "10.12.0.5", 1300)]);
        let sent = bench.sent().remove(0);
        assert_eq!((sent.path, icmp_error(&sent.packet)), (path(1), (3, 4, 1244)));
        let prefix = "fd00:12::/32".parse().unwrap();
        bench.tables.set_hairpin(&[HairpinRoute { prefix, peer: Some(id(2)) }]);
        bench.peer_sends(path(1), &[packet("fd00:11::5", "fd00:12::5", 1300)]);
        assert_eq!(icmp_error(&bench.sent()[0].packet).0, 2);
    }

    #[test]
    fn a_peer_without_a_path_is_unreachable() {
        let mut bench = hub();
        bench.tables.set_peer(id(2), Peer { send: None, ..peer(2) }, 1);
        bench.peer_sends(path(1), &[packet("10.11.0.5", "10.12.0.5", 200)]);
        assert_eq!(icmp_error(&bench.sent()[0].packet).0, 3);
        assert_eq!(bench.count(Counter::DropNoPath), 1);
    }

    #[test]
    fn the_agent_is_told_once_a_second_of_each_flow() {
        let mut bench = hub();
        let mut settings = settings();
        settings.indicate_hairpins = true;
        bench.tables.configure(&settings);
        let one = packet("10.11.0.5", "10.12.0.5", 300);
        bench.peer_sends(path(1), &[one.clone(), one, packet("10.11.0.5", "10.12.0.6", 300)]);
        let heads: Vec<_> = bench
            .punted()
            .iter()
            .map(|m| match m {
                FromDatapath::Hairpin { from, to, head } => {
                    assert_eq!((*from, *to, head.len()), (id(1), id(2), 128));
                    head[19]
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(heads, [5, 6]);
    }
}
