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
//!    a SYN gets an MSS that fits ([`encapsulate`]). In an encrypted tunnel room is left around it, and it is sealed
//!    where it lies; a worker that has no SA for the path hands it to the one that has ([`Lane::gather`]).
//! 6. Segments of one size to one path are one run, and one run is one send: at the end of the batch all runs leave in
//!    one system call ([`Lane::flush`]).

use crate::io::{Tap, Underlay};
use crate::lane::{Lane, protocol_of};
use crate::mtu::{self, Cut};
use crate::neighbour;
use crate::router::{self, Origin};
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
use crate::transmit::Outer;
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
    let mtu = tables.inner_mtu(row, path, lane.now);
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
    let outer = Outer::with_tos(ecn::encapsulate(ip.tos));
    let whole = vnet.gso == Gso::None;
    lane.capture_segments(tables, row, &segments);
    let mut clamped = false;
    let (packets, octets) = lane.gather_segments(tables, path, (outer, protocol), &mut segments, |packet| {
        if whole {
            clamped = mss::clamp(packet, mtu);
        }
    });
    lane.stats.add(Counter::PacketsSent, packets);
    lane.stats.add(Counter::BytesSent, octets);
    if clamped {
        lane.stats.count(Counter::MssClamped);
    }
    if let Some(stats) = lane.peer_stats(row) {
        stats.sent(packets, octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use packet::peer::BY_HUB_MAC;
    use packet::{Instant, PeerId};

    #[test]
    fn a_frame_goes_to_the_peer_its_mac_names() {
        let mut bench = Bench::new();
        let packet = packet(OWN, "10.200.0.11", 100);
        bench.kernel_sends(id(1).mac(), &packet);
        assert_eq!(bench.sent(), [Sent { path: path(1), tos: 0, packet }]);
        assert_eq!(bench.count(Counter::PacketsSent), 1);
        assert_eq!(bench.tables.peer(id(1)).unwrap().counters().bytes_sent, 100);
    }

    #[test]
    fn a_frame_for_nobody_in_particular_goes_by_the_hub() {
        let mut bench = Bench::new();
        let stale = PeerId { index: 1, generation: 7 };
        for mac in [BY_HUB_MAC, stale.mac(), id(5).mac(), [2, 0, 0, 0, 0, 1]] {
            bench.kernel_sends(mac, &packet(OWN, "10.200.0.77", 100));
            assert_eq!(bench.sent()[0].path, path(9), "{mac:x?}");
        }
        bench.tables.by_hub = None;
        bench.kernel_sends(BY_HUB_MAC, &packet(OWN, "10.200.0.77", 100));
        assert_eq!(bench.sent(), []);
        assert_eq!(bench.count(Counter::DropNoHub), 1);
    }

    #[test]
    fn a_super_frame_is_one_send_of_complete_segments() {
        let mut bench = Bench::new();
        let (vnet, packet) = super_frame("10.200.0.11", 50_000, 1360);
        bench.frame(&vnet, id(1).mac(), 0x0800, &packet);
        assert_eq!(bench.runs(), [37]);
        let sent = bench.sent();
        assert!(sent.iter().all(|s| s.packet.len() <= usize::from(MTU)));
        for sent in &sent {
            let ip = Ip::parse(&sent.packet).unwrap();
            assert!(ip.pseudo_sum().with(ip.upper(&sent.packet)).is_valid());
        }
        assert_eq!(sent.iter().map(|s| s.packet.len() - 40).sum::<usize>(), 50_000);
    }

    #[test]
    fn dscp_and_ecn_are_copied_to_the_outer_header() {
        let mut bench = Bench::new();
        let mut packet = packet(OWN, "10.200.0.11", 100);
        packet::ip::set_tos(&mut packet, 0xb9);
        bench.kernel_sends(id(1).mac(), &packet);
        assert_eq!(bench.sent()[0].tos, 0xb9);
    }

    #[test]
    fn multicast_goes_to_everybody_who_receives_it() {
        let mut bench = Bench::new();
        let hello = packet(OWN, "224.0.0.5", 64);
        let mac = [1, 0, 0x5e, 0, 0, 5];
        bench.kernel_sends(mac, &hello);
        assert_eq!((bench.sent(), bench.count(Counter::DropNoReceiver)), (vec![], 1));
        bench.tables.multicast = [id(1), id(2), id(77)].into();
        bench.kernel_sends(mac, &hello);
        let to: Vec<_> = bench.sent().iter().map(|s| s.path).collect();
        assert_eq!(to, [path(1), path(2)]);
        assert_eq!(bench.count(Counter::Replicated), 2);
    }

    #[test]
    fn a_syn_is_told_what_fits_though_its_checksum_was_left_to_us() {
        let mut bench = Bench::new();
        let mut syn = tcp(OWN, "10.200.0.11", 1, true, &[]);
        let ip = Ip::parse(&syn).unwrap();
        let partial = ip.pseudo_sum().fold();
        syn[36..38].copy_from_slice(&partial.to_be_bytes());
        let vnet = vnet::Header {
            flags: vnet::flags::NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 16,
            ..vnet::Header::NONE
        };
        bench.frame(&vnet, id(1).mac(), 0x0800, &syn);
        let sent = bench.sent().remove(0).packet;
        assert_eq!(sent[42..44], (MTU - 40).to_be_bytes());
        let ip = Ip::parse(&sent).unwrap();
        assert!(ip.pseudo_sum().with(ip.upper(&sent)).is_valid());
        assert_eq!(bench.count(Counter::MssClamped), 1);
    }

    fn narrow(bench: &Bench, mtu: u32) {
        bench.tables.peer(id(1)).unwrap().path_mtu.set(path(1), mtu, bench.lane.now);
    }

    #[test]
    fn what_a_narrow_path_does_not_take_is_answered_as_a_router_does() {
        let mut bench = Bench::new();
        narrow(&bench, 1280);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.11.0.1", 1300));
        assert_eq!((bench.sent(), bench.count(Counter::DropTooBig)), (vec![], 1));
        let told = bench.delivered().remove(0);
        // 1280 less IP 20, UDP 8 and GRE with key 8; from the peer's side of the LAN.
        assert_eq!(icmp_error(&told.packet), (3, 4, 1244));
        assert_eq!(Ip::parse(&told.packet).unwrap().source, std::net::IpAddr::from([10, 200, 0, 11]));
        assert_eq!((told.from, told.to), (id(1).mac(), packet::peer::OWN_MAC));
    }

    #[test]
    fn what_may_be_fragmented_is() {
        let mut bench = Bench::new();
        narrow(&bench, 1280);
        let mut packet = packet(OWN, "10.11.0.1", 1300);
        packet[6] = 0; // no DF
        bench.kernel_sends(id(1).mac(), &packet);
        let sent = bench.sent();
        let seen: Vec<_> = sent
            .iter()
            .map(|s| {
                assert!(packet::ipv4::is_checksum_valid(&s.packet));
                let ip = Ip::parse(&s.packet).unwrap();
                let fragment = ip.fragment.unwrap();
                (fragment.offset, fragment.more, ip.total_len)
            })
            .collect();
        assert_eq!(seen, [(0, true, 1244), (1224, false, 76)]);
        assert_eq!(bench.count(Counter::Fragmented), 1);
    }

    #[test]
    fn a_super_frame_is_cut_smaller_for_a_narrow_path() {
        let mut bench = Bench::new();
        narrow(&bench, 1280);
        let (vnet, packet) = super_frame("10.11.0.1", 5000, 1360);
        bench.frame(&vnet, id(1).mac(), 0x0800, &packet);
        let lengths: Vec<_> = bench.sent().iter().map(|s| s.packet.len()).collect();
        assert_eq!(lengths, [1244, 1244, 1244, 1244, 224]);
    }

    #[test]
    fn a_narrow_path_is_tried_again_later() {
        let mut bench = Bench::new();
        narrow(&bench, 1280);
        bench.lane.now += std::time::Duration::from_secs(601);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.11.0.1", 1300));
        assert_eq!(bench.sent().len(), 1);
        assert!(bench.lane.now > Instant::ZERO);
    }

    #[test]
    fn nonsense_is_counted() {
        let mut bench = Bench::new();
        bench.read(&[0; 5]);
        bench.read(&[0; 20]);
        bench.frame(&vnet::Header::NONE, id(1).mac(), 0x88cc, &[0; 60]);
        bench.frame(&vnet::Header::NONE, id(1).mac(), 0x0800, &[0x45; 10]);
        assert_eq!((bench.count(Counter::DropBadFrame), bench.count(Counter::DropNotIp)), (3, 1));
        assert_eq!(bench.sent(), []);
    }

    #[test]
    fn a_capture_shows_each_packet_as_it_leaves() {
        let mut bench = Bench::new();
        bench.tables.capture = true;
        let (vnet, packet) = super_frame("10.200.0.11", 3000, 1360);
        bench.frame(&vnet, id(1).mac(), 0x0800, &packet);
        let sent: Vec<_> = bench.sent().into_iter().map(|s| s.packet).collect();
        let shown: Vec<_> = bench
            .punted()
            .into_iter()
            .map(|m| match m {
                crate::messages::FromDatapath::Captured { packet, outbound: true, .. } => packet,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, sent);
    }
}
