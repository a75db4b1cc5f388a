//! The walk of a frame from the kernel to the underlay:
//!
//! 1. The worker reads one frame from the interface: a virtio header, an Ethernet header, and a packet or a
//!    super-frame of up to 64 KiB ([`frame`]).
//! 2. ARP and neighbour solicitations are answered here and end ([`neighbour`]).
//! 3. The destination MAC says who gets it: a peer, the hub for a peer without a direct path, or everybody who receives
//!    multicast ([`frame`]).
//! 4. What the path takes is compared with what the frame needs: TCP is cut smaller, a packet is fragmented or
//!    answered with "too big" ([`encapsulate`], [`router::oversize`]).
//! 5. Each segment is written, complete with checksums and behind a GRE header, into the buffer of what is to be sent;
//!    a SYN gets an MSS that fits ([`encapsulate`]).
//! 6. Segments of one size to one path are one run, and one run is one send: at the end of the batch all runs leave in
//!    one system call ([`Lane::flush`]).

use crate::io::{Tap, Underlay};
use crate::lane::{Lane, protocol_of};
use crate::mtu::{self, Cut};
use crate::neighbour;
use crate::router::{self, Origin};
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
use packet::eth::{self, EtherType};
use packet::ip::Ip;
use packet::vnet::{self, Gso};
use packet::{Path, ecn, mss};

/// One read of the interface.
pub fn frame<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, tables: &Tables, read: &[u8]) {
    lane.stats.count(Counter::FramesRead);
    let Ok((vnet, frame)) = vnet::Header::decode(read) else {
        lane.stats.count(Counter::DropBadFrame);
        return;
    };
    let Ok((ethernet, payload)) = eth::Header::parse(frame) else {
        lane.stats.count(Counter::DropBadFrame);
        return;
    };
    match ethernet.ethertype {
        EtherType::IPV4 => {}
        EtherType::IPV6 => {
            if neighbour::nd(lane, tables, ethernet.source, payload) {
                return;
            }
        }
        EtherType::ARP => return neighbour::arp(lane, tables, payload),
        _ => {
            lane.stats.count(Counter::DropNotIp);
            return;
        }
    }
    if !ethernet.is_multicast() {
        match tables.towards(ethernet.destination) {
            Some((row, path)) => encapsulate(lane, tables, vnet, frame, row, path),
            None => lane.stats.count(Counter::DropNoHub),
        }
        return;
    }
    let mut copies = 0;
    for (row, path) in tables.multicast.iter().filter_map(|id| tables.sendable(*id)) {
        encapsulate(lane, tables, vnet, frame, row, path);
        copies += 1;
    }
    lane.stats.add(if copies == 0 { Counter::DropNoReceiver } else { Counter::Replicated }, copies.max(1));
}

/// Sends a frame's packets to one peer.
fn encapsulate<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    vnet: vnet::Header,
    frame: &[u8],
    row: &PeerRow,
    path: Path,
) {
    let packet = frame.get(eth::HEADER_LEN..).unwrap_or_default();
    let key = tables.tunnel.key;
    let mtu = mtu::inner(tables.tunnel.mtu, path, key, row.path_mtu.get(lane.now));
    let mut segments = match mtu::segments(&vnet, frame, eth::HEADER_LEN, mtu) {
        Ok(segments) => segments,
        Err(Cut::TooLong(segments)) => {
            return router::too_long(lane, tables, segments, Origin::Kernel(row), path, mtu);
        }
        Err(Cut::Malformed(_)) => {
            lane.stats.count(Counter::DropBadFrame);
            return;
        }
    };
    let Ok(ip) = Ip::parse(packet) else { return };
    let protocol = protocol_of(packet);
    let tos = ecn::encapsulate(ip.tos);
    let whole = vnet.gso == Gso::None;
    let (mut packets, mut octets, mut clamped) = (0, 0, false);
    while let Some(length) = segments.next_len() {
        lane.gather(path, tos, protocol, key, length, |room| {
            // There is room, which is the one thing that could be missing.
            let _ = segments.write_next(room);
            if whole {
                clamped = mss::clamp(room, mtu);
            }
        });
        packets += 1;
        octets += length as u64;
    }
    lane.capture(tables, row, true, packet);
    lane.stats.add(Counter::PacketsSent, packets);
    lane.stats.add(Counter::BytesSent, octets);
    if clamped {
        lane.stats.count(Counter::MssClamped);
    }
    if let Some(stats) = lane.peer_stats(row) {
        stats.sent(packets, octets);
    }
}
