//! Segmentation and coalescing of any bytes. Shared by the fuzz target and the replay of its corpus.

use crate::views::mended;
use packet::checksum::Sum;
use packet::coalesce::{Coalescer, Offloads};
use packet::ip::{Ip, Protocol};
use packet::segment::{self, Segments};
use packet::tcp::flags;
use packet::vnet::{self, Gso};

const ETHERNET: [u8; 14] = [0; 14];

/// Cuts the bytes as what a TAP delivered, and delivers what they hold as packets that arrived together.
pub fn check(bytes: &[u8]) {
    cut_anything(bytes);
    arrive(&packets(bytes));
}

/// Segments of a frame that says what it likes end, fit, and are packets.
fn cut_anything(bytes: &[u8]) {
    let Ok((header, frame)) = vnet::Header::decode(bytes) else { return };
    let mut whole = frame.to_vec();
    let _ = segment::complete_checksum(&header, &mut whole, ETHERNET.len());
    let Ok(mut segments) = Segments::new(&header, frame, ETHERNET.len()) else { return };
    let mut out = vec![0; 70_000];
    while let Some(expected) = segments.next_len() {
        let length = segments.write_next(&mut out).expect("there is one").expect("there is room");
        assert_eq!(length, expected);
        assert!(Ip::parse(&out[..length]).is_ok());
    }
    assert!(segments.write_next(&mut out).is_none());
}

/// Whatever arrives is what the writes to the TAP stand for.
fn arrive(arrived: &[Vec<u8>]) {
    let mut delivered = Vec::new();
    for (header, frame) in written(arrived) {
        if header.gso == Gso::None {
            delivered.push(comparable(frame[ETHERNET.len()..].to_vec()));
            continue;
        }
        let mut segments = Segments::new(&header, &frame, ETHERNET.len()).expect("we write what can be cut");
        let mut out = vec![0; 70_000];
        while let Some(length) = segments.write_next(&mut out) {
            delivered.push(comparable(out[..length.expect("there is room")].to_vec()));
        }
    }
    // A length field may hide the end of a packet; the kernel drops that end.
    let shown = |p: &Vec<u8>| p[..Ip::parse(p).map_or(p.len(), |ip| ip.total_len)].to_vec();
    let expected: Vec<_> = arrived.iter().map(|p| comparable(shown(p))).collect();
    assert_eq!(delivered, expected);
}

fn written(packets: &[Vec<u8>]) -> Vec<(vnet::Header, Vec<u8>)> {
    let mut coalescer = Coalescer::new(Offloads::ALL);
    let (mut pieces, mut sink) = (Vec::new(), Vec::new());
    let mut flush = |head: &[u8], pieces: &mut Vec<u8>| {
        if let Ok((header, head)) = vnet::Header::decode(head) {
            sink.push((header, [head, pieces].concat()));
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
    sink
}

/// The bytes as packets: an octet says how long the next is, and whether it is another one of its flow: then it is what
/// would follow the one before, so that something is coalesced.
fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut rest) = (Vec::<Vec<u8>>::new(), bytes);
    while let Some((first, tail)) = rest.split_first()
        && packets.len() < 100
    {
        if first & 0x80 != 0
            && let Some(next) = packets.last().and_then(|p| following(p, *first))
        {
            packets.push(next);
            rest = tail;
            continue;
        }
        let (packet, tail) = tail.split_at(tail.len().min(usize::from(first & 0x7f)));
        packets.push(if first & 1 == 0 { packet.to_vec() } else { mended(packet) });
        rest = tail;
    }
    packets
}

/// The packet after this one in its flow, with something else about it that `change` says.
fn following(packet: &[u8], change: u8) -> Option<Vec<u8>> {
    let ip = Ip::parse(packet).ok()?;
    let mut next = packet.get(..ip.total_len)?.to_vec();
    if ip.is_v4() && change & 1 != 0 {
        let id = u16::from_be_bytes([next[4], next[5]]).wrapping_add(1);
        next[4..6].copy_from_slice(&id.to_be_bytes());
    }
    if ip.protocol == Protocol::TCP {
        let (header, _, payload) = packet::tcp::Header::parse(ip.upper(packet)).ok()?;
        let sequence = header.sequence.get().wrapping_add(payload.len() as u32);
        next.get_mut(ip.header_len + 4..ip.header_len + 8)?.copy_from_slice(&sequence.to_be_bytes());
    }
    if change & 2 != 0 {
        *next.last_mut()? ^= change;
    }
    Some(mended(&next))
}

/// What may change: PSH moves to the end of a super-frame, identifications that stood still begin to count, and a
/// checksum of 0xffff may be written as 0.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    let Ok(ip) = Ip::parse(&packet) else { return packet };
    if ip.is_v4() && Sum::ZERO.with(&packet[..ip.header_len]).is_valid() {
        packet[10..12].fill(0);
        if ip.dont_fragment {
            packet[4..6].fill(0);
        }
    }
    if ip.protocol == Protocol::TCP && ip.fragment.is_none() && packet.len() >= ip.header_len + 20 {
        packet[ip.header_len + 13] &= !flags::PSH;
        packet[ip.header_len + 16..ip.header_len + 18].fill(0);
    }
    packet
}
