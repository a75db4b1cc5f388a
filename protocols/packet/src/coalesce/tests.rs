use super::*;
use crate::testing::{SuperFrame, checksums_are_valid, cut, segments};
use proptest::prelude::*;

const ETHERNET: [u8; 14] = [0; 14];

/// What is written to the TAP when these packets arrive.
fn written(packets: &[Vec<u8>], offloads: Offloads) -> Vec<(vnet::Header, Vec<u8>)> {
    let mut coalescer = Coalescer::new(offloads);
    let mut pieces = Vec::new();
    let mut sink = Vec::new();
    let mut flush = |head: &[u8], pieces: &mut Vec<u8>| {
        if let Ok((vnet, head)) = vnet::Header::decode(head) {
            sink.push((vnet, [head, pieces].concat()));
        }
        pieces.clear();
    };
    for packet in packets {
        let piece = coalescer.offer(&ETHERNET, packet).unwrap_or_else(|| {
            flush(coalescer.finish(), &mut pieces);
            coalescer.open(&ETHERNET, packet)
        });
        pieces.extend_from_slice(&packet[piece]);
    }
    flush(coalescer.finish(), &mut pieces);
    assert!(coalescer.is_empty() && coalescer.finish().is_empty());
    sink
}

/// How many packets each write carries.
fn grouping(packets: &[Vec<u8>]) -> Vec<usize> {
    written(packets, Offloads::ALL).iter().map(|(vnet, frame)| cut(vnet, frame).len()).collect()
}

fn with_sum(mut packet: Vec<u8>) -> Vec<u8> {
    let ip = Ip::parse(&packet).unwrap();
    if ip.is_v4() {
        packet[10..12].fill(0);
        let sum = checksum::checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let at = ip.header_len + if ip.protocol == Protocol::TCP { 16 } else { 6 };
    packet[at..at + 2].fill(0);
    let sum = ip.pseudo_sum().with(ip.upper(&packet)).finish_udp();
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Three segments of 100 octets, the second with one octet changed and its checksums mended.
fn with_change(base: SuperFrame, at: usize, change: u8) -> Vec<Vec<u8>> {
    let mut packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..base });
    packets[1][at] ^= change;
    packets[1] = with_sum(std::mem::take(&mut packets[1]));
    packets
}

#[test]
fn a_stream_becomes_one_write() {
    for base in [SuperFrame::tcp_v4(), SuperFrame::tcp_v6(), SuperFrame::udp_v4(), SuperFrame::udp_v6()] {
        let frame = SuperFrame { payload: vec![5; 1000], size: 300, ..base };
        let writes = written(&segments(&frame), Offloads::ALL);
        assert_eq!(writes, [frame.build()]);
    }
}

#[test]
fn a_header_that_differs_ends_the_super_frame() {
    let tcp = SuperFrame::tcp_v4;
    let differs = |base, at, change| grouping(&with_change(base, at, change));
    assert_eq!(differs(tcp(), 20, 0), [3], "nothing changed");
    for (at, what) in [
        (1, "type of service"),
        (4, "identification"),
        (6, "flags"),
        (8, "time to live"),
        (12, "source"),
        (16, "destination"),
        (20, "source port"),
        (22, "destination port"),
        (24, "sequence"),
        (28, "acknowledgement"),
        (34, "window"),
        (38, "urgent pointer"),
        (42, "option"),
    ] {
        assert_eq!(differs(tcp(), at, 0x40), [1, 1, 1], "{what}");
    }
    assert_eq!(differs(tcp(), 33, flags::ECE), [1, 1, 1], "ECE");
    for (at, what) in [(1, "flow label"), (7, "hop limit"), (8, "source"), (30, "destination")] {
        assert_eq!(differs(SuperFrame::udp_v6(), at, 0x40), [1, 1, 1], "{what}");
    }
}

#[test]
fn control_bits_of_tcp_stand_alone() {
    for flag in [flags::SYN, flags::RST, flags::URG, flags::CWR] {
        assert_eq!(grouping(&with_change(SuperFrame::tcp_v4(), 33, flag)), [1, 1, 1], "{flag:#x}");
    }
    let packets = segments(&SuperFrame { payload: vec![], ..SuperFrame::tcp_v4() });
    assert_eq!(grouping(&[packets[0].clone(), packets[0].clone()]), [1, 1], "pure acknowledgements");
}

#[test]
fn a_push_in_the_middle_is_carried_on_and_a_fin_ends() {
    let packets = with_change(SuperFrame::tcp_v4(), 33, flags::PSH);
    let writes = written(&packets, Offloads::ALL);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].1[14 + 33], flags::ACK | flags::PSH);
    assert_eq!(grouping(&with_change(SuperFrame::tcp_v4(), 33, flags::FIN)), [2, 1]);
}

#[test]
fn a_wrong_checksum_is_handed_on_untouched() {
    for at in [10, 36, 60] {
        let mut packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..SuperFrame::tcp_v4() });
        packets[1][at] ^= 1;
        let writes = written(&packets, Offloads::ALL);
        let flags: Vec<_> = writes.iter().map(|(vnet, _)| vnet.flags).collect();
        assert_eq!(flags, [vnet::flags::DATA_VALID, 0, vnet::flags::DATA_VALID], "octet {at}");
        assert_eq!(writes[1].1[14..], packets[1]);
    }
}

#[test]
fn a_short_packet_is_the_last_and_a_long_one_begins_anew() {
    let datagrams = |sizes: &[usize]| -> Vec<_> {
        sizes
            .iter()
            .zip(0..)
            .map(|(n, i)| {
                let id = SuperFrame::udp_v4().id.wrapping_add(i);
                segments(&SuperFrame { payload: vec![5; *n], id, ..SuperFrame::udp_v4() }).remove(0)
            })
            .collect()
    };
    assert_eq!(grouping(&datagrams(&[100, 100, 60, 100, 100, 101])), [3, 2, 1]);
    assert_eq!(grouping(&datagrams(&[0, 0])), [1, 1]);
}

#[test]
fn identifications_may_stand_still_only_with_dont_fragment() {
    let ids = |dont_fragment: bool, ids: [u8; 3]| {
        let mut packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..SuperFrame::udp_v4() });
        for (packet, id) in packets.iter_mut().zip(ids) {
            packet[4..6].copy_from_slice(&[0, id]);
            packet[6] = if dont_fragment { 0x40 } else { 0 };
            *packet = with_sum(std::mem::take(packet));
        }
        grouping(&packets)
    };
    assert_eq!(ids(true, [1, 2, 3]), [3]);
    assert_eq!(ids(true, [1, 1, 1]), [3]);
    assert_eq!(ids(true, [1, 1, 2]), [2, 1]);
    assert_eq!(ids(true, [1, 2, 1]), [2, 1]);
    assert_eq!(ids(false, [1, 2, 3]), [3]);
    assert_eq!(ids(false, [1, 1, 1]), [1, 1, 1]);
}

#[test]
fn datagrams_without_checksum_stand_alone() {
    let mut packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..SuperFrame::udp_v4() });
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(grouping(&packets), [1, 1, 1]);
}

#[test]
fn a_super_frame_is_no_longer_than_its_length_field_can_say() {
    for base in [SuperFrame::tcp_v4(), SuperFrame::tcp_v6()] {
        let packets = segments(&SuperFrame { payload: vec![5; 64_000], size: 1400, ..base.clone() });
        let sequence = base.sequence + 64_000;
        let id = base.id.wrapping_add(packets.len() as u16);
        let more = segments(&SuperFrame { payload: vec![5; 14_000], size: 1400, sequence, id, ..base });
        let all: Vec<_> = packets[..45].iter().chain(&more).cloned().collect();
        for (vnet, frame) in written(&all, Offloads::ALL) {
            assert!(frame.len() <= 14 + 65_535);
            assert!(cut(&vnet, &frame).iter().all(|p| checksums_are_valid(p)));
        }
    }
}

#[test]
fn no_more_packets_than_linux_takes() {
    let packets = segments(&SuperFrame { payload: vec![5; 6500], size: 100, ..SuperFrame::udp_v4() });
    assert_eq!(grouping(&packets), [64, 1]);
}

#[test]
fn what_the_tap_does_not_take_is_written_one_by_one() {
    let packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..SuperFrame::udp_v4() });
    let without_udp = Offloads { udp: false, ..Offloads::ALL };
    assert_eq!(written(&packets, without_udp).len(), 3);
    assert_eq!(written(&packets, Offloads { tcp4: false, ..Offloads::ALL }).len(), 1);
    assert_eq!(written(&packets, Offloads::NONE).len(), 3);
}

#[test]
fn padding_is_not_written() {
    let mut packets = segments(&SuperFrame { payload: vec![5; 300], size: 100, ..SuperFrame::tcp_v4() });
    let clean = written(&packets, Offloads::ALL);
    for packet in &mut packets {
        packet.extend_from_slice(&[0xee; 3]);
    }
    assert_eq!(written(&packets, Offloads::ALL), clean);
    assert_eq!(written(&packets[..1], Offloads::NONE)[0].1.len(), 14 + 20 + 32 + 100);
}

/// What may change: PSH moves to the end of a super-frame, and identifications that stood still begin to count.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    let Ok(ip) = Ip::parse(&packet) else { return packet };
    if ip.is_v4() && ip.dont_fragment {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    if ip.protocol == Protocol::TCP && ip.fragment.is_none() && packet.len() >= ip.header_len + 20 {
        packet[ip.header_len + 13] &= !flags::PSH;
        packet[ip.header_len + 16..ip.header_len + 18].fill(0);
    }
    packet
}

proptest! {
    #[test]
    fn segments_coalesce_into_the_super_frame_they_came_from(frame: SuperFrame) {
        let packets = segments(&frame);
        prop_assume!(packets.len() > 1);
        let writes = written(&packets, Offloads::ALL);
        prop_assert_eq!(writes, [frame.build()]);
    }

    #[test]
    fn whatever_arrives_is_what_the_writes_stand_for(
        frames in proptest::collection::vec(any::<SuperFrame>(), 1..4),
        order in proptest::collection::vec((any::<prop::sample::Index>(), any::<Option<(u8, u8)>>()), 1..30),
    ) {
        let all: Vec<_> = frames.iter().flat_map(segments).collect();
        let mut arrived = Vec::new();
        for (index, damage) in order {
            let i = index.index(all.len());
            // Runs, so that something is coalesced; now and then damaged.
            for packet in all.iter().skip(i).take(3) {
                let mut packet = packet.clone();
                if let Some((at, bits)) = damage.filter(|(at, _)| at & 3 == 0) {
                    let at = usize::from(at) % packet.len();
                    packet[at] ^= bits;
                }
                arrived.push(packet);
            }
        }
        let mut delivered = Vec::new();
        for (vnet, frame) in written(&arrived, Offloads::ALL) {
            if vnet.gso == Gso::None {
                delivered.push(frame[14..].to_vec());
            } else {
                delivered.extend(cut(&vnet, &frame));
            }
        }
        // A damaged length field may hide the end of a packet; the kernel drops such a packet.
        let expected: Vec<_> = arrived
            .into_iter()
            .map(|p| { let n = Ip::parse(&p).map_or(p.len(), |ip| ip.total_len); p[..n].to_vec() })
            .map(comparable)
            .collect();
        let delivered: Vec<_> = delivered.into_iter().map(comparable).collect();
        prop_assert_eq!(delivered, expected);
    }

    #[test]
    fn nothing_panics_on_any_bytes(mut packets in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..100), 0..6
    ), six: bool) {
        for packet in &mut packets {
            if let Some(first) = packet.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
        }
        written(&packets, Offloads::ALL);
    }
}
