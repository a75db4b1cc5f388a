//! From one peer to another without the kernel: what a hub does with most packets, as a router does it.

use crate::io::{Tap, Underlay};
use crate::lane::{Lane, protocol_of};
use crate::mtu::{self, Cut};
use crate::router::{self, Origin};
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
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
    let key = tables.tunnel.key;
    let mtu = mtu::inner(tables.tunnel.mtu, path, key, row.path_mtu.get(lane.now));
    let tos = ecn::encapsulate(ip.tos);
    let protocol = protocol_of(packet);
    let mut segments = match mtu::segments(vnet, packet, 0, mtu) {
        Ok(segments) => segments,
        Err(Cut::TooLong(segments)) => return router::too_long(lane, tables, segments, origin, path, mtu),
        Err(Cut::Malformed(_)) => {
            lane.stats.count(Counter::DropBadInner);
            return;
        }
    };
    let (mut packets, mut octets) = (0, 0);
    while let Some(length) = segments.next_len() {
        lane.gather(path, tos, protocol, key, length, |room| {
            // There is room, which is the one thing that could be missing.
            let _ = segments.write_next(room);
        });
        packets += 1;
        octets += length as u64;
    }
    lane.capture(tables, row, true, packet);
    lane.stats.add(Counter::PacketsHairpinned, packets);
    lane.stats.add(Counter::PacketsSent, packets);
    lane.stats.add(Counter::BytesSent, octets);
    if let Some(stats) = lane.peer_stats(row) {
        stats.sent(packets, octets);
    }
}
