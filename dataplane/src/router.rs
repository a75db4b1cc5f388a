//! What a router owes to packets that it can't simply pass on: fragments where the sender allows them, ICMP errors to
//! the sender where not.

use crate::io::{Tap, Underlay};
use crate::lane::{Lane, protocol_of};
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
use crate::transmit::Outer;
use packet::ip::Ip;
use packet::segment::Segments;
use packet::{Path, ecn, gre, icmp, ipv4, ipv6};
use std::net::IpAddr;

/// Where a packet came from, and an error about it goes.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// From our own kernel, to this peer: the error comes back as if from the peer's side of the LAN.
    Kernel(&'a PeerRow),
    /// From a peer, by this path.
    Peer(&'a PeerRow, Path),
}

/// Tells the sender of `packet` what went wrong with it, where that may be said.
pub fn tell<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    origin: Origin<'_>,
    error: icmp::Error,
    packet: &[u8],
) {
    let Ok(ip) = Ip::parse(packet) else { return };
    if !lane.icmp.pass(lane.now, ip.source) {
        return;
    }
    // Our kernel would take an error from one of its own addresses for a forgery, so that what it sent is answered
    // by the far end.
    let own = |addresses: &[IpAddr]| addresses.iter().copied().find(|a| a.is_ipv4() == ip.is_v4());
    let from = match origin {
        Origin::Kernel(row) => own(&row.peer.addresses).unwrap_or(ip.destination),
        Origin::Peer(..) => match own(&tables.tunnel.addresses) {
            Some(address) => address,
            None => return,
        },
    };
    let mut message = [0; icmp::MAX_LEN];
    let Ok(length) = icmp::write_error(error, packet, from, &mut message) else { return };
    let message = &message[..length];
    match origin {
        Origin::Kernel(row) => lane.deliver(row.mac, message),
        Origin::Peer(row, arrived_by) => {
            let path = row.peer.send.unwrap_or(arrived_by);
            let outer = Outer::with_tos(ecn::encapsulate(Ip::parse(message).map_or(0, |ip| ip.tos)));
            let write = |room: &mut [u8]| room.copy_from_slice(message);
            if lane.gather(tables, path, outer, protocol_of(message), length, write).is_err() {
                return;
            }
        }
    }
    lane.stats.count(Counter::IcmpSent);
}

/// Packets longer than `mtu`, on their way by `path`: fragments, or an error to their sender.
pub fn too_long<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    mut segments: Segments<'_>,
    origin: Origin<'_>,
    path: Path,
    mtu: u16,
) {
    // The packets are written to the lane's scratch while the lane is used to send them.
    let mut scratch = std::mem::take(&mut lane.scratch);
    while let Some(Ok(length)) = segments.write_next(&mut scratch) {
        one_too_long(lane, tables, origin, path, mtu, scratch.get(..length).unwrap_or_default());
    }
    lane.scratch = scratch;
}

fn one_too_long<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    origin: Origin<'_>,
    path: Path,
    mtu: u16,
    packet: &[u8],
) {
    let Ok(ip) = Ip::parse(packet) else {
        lane.stats.count(Counter::DropBadInner);
        return;
    };
    if !ip.is_v4() && ip.total_len <= ipv6::MIN_MTU {
        // IPv6 has no smaller packets to ask for: the tunnel must carry these, in pieces if need be (RFC 2473 §7.1).
        let outer = Outer { fragmentable: true, ..Outer::with_tos(ecn::encapsulate(ip.tos)) };
        let protocol = gre::Protocol::IPV6;
        let write = |room: &mut [u8]| room.copy_from_slice(packet);
        if lane.gather(tables, path, outer, protocol, packet.len(), write).is_ok() {
            lane.stats.count(Counter::Fragmented);
        }
    } else if ip.dont_fragment || !fragment(lane, tables, path, mtu, packet, &ip) {
        lane.stats.count(Counter::DropTooBig);
        let mtu = if ip.is_v4() { mtu } else { mtu.max(ipv6::MIN_MTU as u16) };
        tell(lane, tables, origin, icmp::Error::TooBig { mtu }, packet);
    }
}

/// Sends an IPv4 packet as fragments (RFC 791 §3.2). False: it can't be.
fn fragment<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    path: Path,
    mtu: u16,
    packet: &[u8],
    ip: &Ip,
) -> bool {
    const OPTION_END: u8 = 0;
    const OPTION_NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let Some((header, payload)) = packet.get(..ip.total_len).and_then(|p| p.split_at_checked(ip.header_len))
    else {
        return false;
    };
    let size = usize::from(mtu).saturating_sub(header.len()) & !7;
    if size == 0 || !ip.is_v4() {
        return false;
    }
    let (offset, more) = ip.fragment.map_or((0, false), |f| (usize::from(f.offset), f.more));
    let count = payload.len().div_ceil(size);
    let outer = Outer::with_tos(ecn::encapsulate(ip.tos));
    for (i, piece) in payload.chunks(size).enumerate() {
        let length = header.len() + piece.len();
        let at = ((offset + i * size) / 8) as u16;
        let more = more || i + 1 < count;
        let gathered = lane.gather(tables, path, outer, gre::Protocol::IPV4, length, |room| {
            let (head, body) = room.split_at_mut(header.len());
            head.copy_from_slice(header);
            body.copy_from_slice(piece);
            if i > 0 {
                // Options that are not to be copied become padding.
                let mut rest = head.get_mut(ipv4::HEADER_LEN..).unwrap_or_default();
                while let Some(&kind) = rest.first() {
                    let length = match kind {
                        OPTION_END => break,
                        OPTION_NOP => 1,
                        _ => rest.get(1).map_or(1, |n| usize::from(*n)).clamp(1, rest.len()),
                    };
                    let (option, after) = std::mem::take(&mut rest).split_at_mut(length);
                    if kind & COPIED == 0 {
                        option.fill(OPTION_NOP);
                    }
                    rest = after;
                }
            }
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            let flags = if more { ipv4::MORE_FRAGMENTS } else { 0 };
            head[6..8].copy_from_slice(&(flags | at).to_be_bytes());
            head[10..12].fill(0);
            let sum = packet::checksum::checksum(head);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
        });
        if gathered.is_err() {
            return true;
        }
    }
    lane.stats.count(Counter::Fragmented);
    true
}
