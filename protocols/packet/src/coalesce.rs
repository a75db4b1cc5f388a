//! In: packets of one flow that arrived together become one super-frame, so that one write of the TAP delivers them and
//! the kernel's stack walks once.
//!
//! The rules are those of Linux's GRO, so that what the kernel cuts again (when it forwards) is what was sent: same
//! addresses, ports, TTL, DSCP, ECN, DF, TCP options, window and acknowledgement; consecutive sequence numbers and
//! identifications; equal sizes, and a shorter one last. A super-frame says "the checksum is right", so every packet's
//! checksum is verified before it goes in. A PSH does not end a super-frame, since Linux sets it on the last segment of
//! each of its own: the super-frame as a whole is pushed.
//!
//! Nothing is copied but headers. The caller keeps the payloads where they are, and writes them with one `writev`:
//!
//! ```
//! # use packet::coalesce::{Coalescer, Offloads};
//! # let (mut sink, ethernet, arrived) = (Vec::new(), [0; 14], [[0x45; 64]; 3]);
//! let mut coalescer = Coalescer::new(Offloads::ALL);
//! let mut pieces: Vec<&[u8]> = Vec::new(); // a fixed array in earnest
//! for packet in &arrived {
//!     let piece = coalescer.offer(&ethernet, packet).unwrap_or_else(|| {
//!         sink.push((coalescer.finish().to_vec(), std::mem::take(&mut pieces)));
//!         coalescer.open(&ethernet, packet)
//!     });
//!     pieces.push(&packet[piece]);
//! }
//! sink.push((coalescer.finish().to_vec(), pieces));
//! ```

use crate::checksum::{self, Sum};
use crate::eth;
use crate::ip::{self, Ip, Protocol};
use crate::tcp::{self, flags};
use crate::udp;
use crate::vnet::{self, Gso};
use crate::{ipv4, ipv6};
use std::ops::Range;

/// Most packets in one super-frame: as many as Linux accepts in a UDP super-frame.
pub const MAX_SEGMENTS: u16 = 64;

/// Octets of the longest head: virtio header, Ethernet header, IP header, TCP header.
pub const MAX_HEAD_LEN: usize = FRAME + ipv6::HEADER_LEN + tcp::MAX_HEADER_LEN;

/// Where the IP header begins in the head.
const FRAME: usize = vnet::HEADER_LEN + eth::HEADER_LEN;

/// Most octets of an IPv4 packet, and of what follows an IPv6 header.
const MAX_PACKET: usize = 65_535;

/// What the TAP takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offloads {
    /// TCP super-frames over IPv4 (`TUN_F_TSO4`).
    pub tcp4: bool,
    /// TCP super-frames over IPv6 (`TUN_F_TSO6`).
    pub tcp6: bool,
    /// UDP super-frames (`TUN_F_USO4` and `TUN_F_USO6`, Linux 6.2).
    pub udp: bool,
}

impl Offloads {
    /// All of them.
    pub const ALL: Self = Self { tcp4: true, tcp6: true, udp: true };
    /// None: every packet is written alone.
    pub const NONE: Self = Self { tcp4: false, tcp6: false, udp: false };

    const fn allow(self, flow: &Flow) -> bool {
        match (flow.kind, flow.v4) {
            (Kind::Tcp { .. }, true) => self.tcp4,
            (Kind::Tcp { .. }, false) => self.tcp6,
            (Kind::Udp, _) => self.udp,
        }
    }
}

/// The super-frame that is open, if any.
#[derive(Clone, Debug)]
pub struct Coalescer {
    offloads: Offloads,
    head: [u8; MAX_HEAD_LEN],
    head_len: usize,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing is open.
    Empty,
    /// A packet that nothing can follow.
    Alone,
    /// A packet, or several, that others may follow.
    Open(Open),
}

#[derive(Clone, Copy, Debug)]
struct Open {
    flow: Flow,
    /// Octets of payload in each packet but the last.
    size: usize,
    /// Octets of payload so far.
    payload: usize,
    count: u16,
    ids: Ids,
    /// A short packet or a FIN was the last.
    closed: bool,
}

/// How IPv4's identification goes on. Packets with DF may all have the same one (RFC 6864 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ids {
    Unknown,
    Counting,
    Fixed,
}

/// What can be coalesced at all: a packet whose headers are as plain as nearly all are.
#[derive(Clone, Copy, Debug)]
struct Flow {
    v4: bool,
    /// Octets of the IP header; no options, no extension headers.
    ip_len: usize,
    /// Octets of IP and upper header.
    headers: usize,
    kind: Kind,
    payload: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl Coalescer {
    /// Nothing is open.
    #[must_use]
    pub const fn new(offloads: Offloads) -> Self {
        Self { offloads, head: [0; MAX_HEAD_LEN], head_len: 0, state: State::Empty }
    }

    /// Is nothing open?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.state, State::Empty)
    }

    /// Puts a packet into what is open, or opens with it. Returns which part of the packet the caller has to append to
    /// the pieces; `None` when the packet doesn't fit what is open: then write that ([`finish`](Self::finish)), and
    /// [`open`](Self::open) with the packet.
    ///
    /// `ethernet` is the header of the frame if this packet begins one. Packets of different peers must not be offered
    /// to the same super-frame.
    #[inline]
    pub fn offer(&mut self, ethernet: &[u8; eth::HEADER_LEN], packet: &[u8]) -> Option<Range<usize>> {
        match self.state {
            State::Empty => Some(self.open(ethernet, packet)),
            State::Alone => None,
            State::Open(open) => self.extend(open, packet),
        }
    }

    /// Begins with a packet; whatever was open is forgotten. Returns which part of the packet is the first piece.
    #[inline]
    pub fn open(&mut self, ethernet: &[u8; eth::HEADER_LEN], packet: &[u8]) -> Range<usize> {
        let (_, after) = self.head.split_at_mut(vnet::HEADER_LEN);
        if let Some(place) = after.first_chunk_mut() {
            *place = *ethernet;
        }
        let headers = Flow::of(packet).filter(|f| self.offloads.allow(f) && f.is_verified(packet));
        if let Some(flow) = headers
            && let Some(source) = packet.get(..flow.headers)
            && let Some(place) = self.head.get_mut(FRAME..FRAME + flow.headers)
        {
            place.copy_from_slice(source);
            self.head_len = FRAME + flow.headers;
            self.state = State::Open(Open {
                flow,
                size: flow.payload,
                payload: flow.payload,
                count: 1,
                ids: Ids::Unknown,
                closed: flow.ends(),
            });
            return flow.headers..flow.headers + flow.payload;
        }
        self.head_len = FRAME;
        self.state = State::Alone;
        // Padding behind the packet ends here; what can't be read is for the kernel to count.
        0..Ip::parse(packet).map_or(packet.len(), |ip| ip.total_len)
    }

    fn extend(&mut self, mut open: Open, packet: &[u8]) -> Option<Range<usize>> {
        if open.closed || open.count >= MAX_SEGMENTS {
            return None;
        }
        let flow = Flow::of(packet)?;
        let total = open.payload + flow.payload;
        let fits = flow.payload <= open.size && flow.headers + total <= MAX_PACKET;
        let first = self.head.get(FRAME..self.head_len)?;
        if !fits || !flow.continues(&open, first, packet) {
            return None;
        }
        if flow.v4 {
            open.ids = open.next_id(first, packet)?;
        }
        if !flow.is_verified(packet) {
            return None;
        }
        if let Kind::Tcp { flags, .. } = flow.kind
            && let Some(all) = self.head.get_mut(FRAME + flow.ip_len + 13)
        {
            *all |= flags & (flags::PSH | flags::FIN);
        }
        open.payload = total;
        open.count += 1;
        open.closed = flow.ends() || flow.payload < open.size;
        self.state = State::Open(open);
        Some(flow.headers..flow.headers + flow.payload)
    }

    /// Closes what is open, and returns what stands before the pieces in the write: virtio header, Ethernet header, and
    /// the headers of the super-frame (of a packet that stands alone they are in its piece). Empty if nothing was open.
    #[inline]
    pub fn finish(&mut self) -> &[u8] {
        let header = match self.state {
            State::Empty => return &[],
            State::Alone => vnet::Header::NONE,
            State::Open(open) if open.count == 1 => vnet::Header::VALID,
            State::Open(open) => self.super_header(&open),
        };
        self.state = State::Empty;
        if let Some(place) = self.head.first_chunk_mut() {
            *place = header.encode();
        }
        self.head.get(..self.head_len).unwrap_or_default()
    }

    /// Makes the headers say the whole length, and leaves the upper checksum to the kernel.
    fn super_header(&mut self, open: &Open) -> vnet::Header {
        let flow = open.flow;
        let upper_len = flow.headers - flow.ip_len + open.payload;
        let (gso, csum_offset) = match (flow.kind, flow.v4) {
            (Kind::Tcp { .. }, true) => (Gso::TcpV4, tcp::CHECKSUM_OFFSET),
            (Kind::Tcp { .. }, false) => (Gso::TcpV6, tcp::CHECKSUM_OFFSET),
            (Kind::Udp, _) => (Gso::UdpL4, udp::CHECKSUM_OFFSET),
        };
        if let Some(packet) = self.head.get_mut(FRAME..self.head_len) {
            if flow.v4 {
                put_u16(packet, 2, flow.ip_len + upper_len);
                put_u16(packet, 10, 0);
                let sum = checksum::checksum(packet.get(..flow.ip_len).unwrap_or_default());
                put_u16(packet, 10, usize::from(sum));
            } else {
                put_u16(packet, 4, upper_len);
            }
            if matches!(flow.kind, Kind::Udp) {
                put_u16(packet, flow.ip_len + 4, upper_len);
            }
            let pseudo = flow.pseudo(packet, upper_len).fold();
            put_u16(packet, flow.ip_len + csum_offset, usize::from(pseudo));
        }
        vnet::Header {
            flags: vnet::flags::NEEDS_CSUM,
            gso,
            ecn: false,
            hdr_len: (eth::HEADER_LEN + flow.headers) as u16,
            gso_size: open.size as u16,
            csum_start: (eth::HEADER_LEN + flow.ip_len) as u16,
            csum_offset: csum_offset as u16,
        }
    }
}

impl Open {
    /// How the identifications go on with this packet; `None` if they don't.
    fn next_id(&self, first: &[u8], packet: &[u8]) -> Option<Ids> {
        let (start, this) = (read_u16(first, 4)?, read_u16(packet, 4)?);
        let counting = this == start.wrapping_add(self.count);
        let fixed = this == start && read_u16(packet, 6)? & ipv4::DONT_FRAGMENT != 0;
        match self.ids {
            Ids::Unknown | Ids::Counting if counting => Some(Ids::Counting),
            Ids::Unknown | Ids::Fixed if fixed => Some(Ids::Fixed),
            _ => None,
        }
    }
}

impl Flow {
    /// Looks whether a packet can be coalesced, by its headers alone.
    #[inline]
    fn of(packet: &[u8]) -> Option<Self> {
        let (v4, ip_len, protocol, total) = match ip::version(packet)? {
            4 => {
                let (header, _) = ipv4::Header::parse(packet).ok()?;
                if header.header_len() != ipv4::HEADER_LEN || header.is_fragment() {
                    return None;
                }
                (true, ipv4::HEADER_LEN, header.protocol, header.total_len())
            }
            6 => {
                let (header, _) = ipv6::Header::parse(packet).ok()?;
                (false, ipv6::HEADER_LEN, header.next_header, header.total_len())
            }
            _ => return None,
        };
        let upper = packet.get(ip_len..total)?;
        let (upper_header, kind) = match Protocol(protocol) {
            Protocol::TCP => {
                let (header, options, _) = tcp::Header::parse(upper).ok()?;
                // Nothing but data of an established connection. CWR must reach the first segment only.
                let plain = flags::ACK | flags::PSH | flags::FIN | flags::ECE;
                if header.flags & !plain != 0 || header.flags & flags::ACK == 0 {
                    return None;
                }
                let kind = Kind::Tcp { sequence: header.sequence.get(), flags: header.flags };
                (tcp::HEADER_LEN + options.len(), kind)
            }
            Protocol::UDP => {
                let (header, _) = udp::Header::parse(upper).ok()?;
                if usize::from(header.length.get()) != upper.len() || header.checksum.get() == 0 {
                    return None;
                }
                (udp::HEADER_LEN, Kind::Udp)
            }
            _ => return None,
        };
        let payload = upper.len() - upper_header;
        (payload > 0).then_some(Self { v4, ip_len, headers: ip_len + upper_header, kind, payload })
    }

    /// Does nothing follow this packet in its super-frame?
    const fn ends(&self) -> bool {
        matches!(self.kind, Kind::Tcp { flags, .. } if flags & flags::FIN != 0)
    }

    /// Does this packet go on where the open super-frame is? `first` is the first packet's headers.
    #[inline]
    fn continues(&self, open: &Open, first: &[u8], packet: &[u8]) -> bool {
        let same = |range: Range<usize>| {
            first.get(range.clone()).is_some_and(|a| packet.get(range).is_some_and(|b| a == b))
        };
        // All of the IP header but length, identification and checksum.
        let same_ip =
            if self.v4 { same(0..2) && same(6..10) && same(12..20) } else { same(0..4) && same(6..40) };
        if self.v4 != open.flow.v4 || self.headers != open.flow.headers || !same_ip {
            return false;
        }
        let at = self.ip_len;
        match (self.kind, open.flow.kind) {
            (Kind::Tcp { sequence, flags }, Kind::Tcp { sequence: start, flags: before }) => {
                // Ports, acknowledgement and offset, window, urgent pointer and options; ECE must not change.
                sequence == start.wrapping_add(open.payload as u32)
                    && (flags ^ before) & flags::ECE == 0
                    && same(at..at + 4)
                    && same(at + 8..at + 13)
                    && same(at + 14..at + 16)
                    && same(at + 18..self.headers)
            }
            (Kind::Udp, Kind::Udp) => same(at..at + 4),
            _ => false,
        }
    }

    /// Are its checksums right?
    #[inline]
    fn is_verified(&self, packet: &[u8]) -> bool {
        let Some((header, rest)) = packet.split_at_checked(self.ip_len) else { return false };
        let length = self.headers - self.ip_len + self.payload;
        let upper = rest.get(..length).unwrap_or_default();
        (!self.v4 || Sum::ZERO.with(header).is_valid()) && self.pseudo(header, length).with(upper).is_valid()
    }

    /// The pseudo header for an upper layer of this length.
    #[inline]
    fn pseudo(&self, header: &[u8], length: usize) -> Sum {
        let addresses = if self.v4 { 12..20 } else { 8..40 };
        let protocol = match self.kind {
            Kind::Tcp { .. } => Protocol::TCP,
            Kind::Udp => Protocol::UDP,
        };
        Sum::ZERO
            .with(header.get(addresses).unwrap_or_default())
            .with_u16(u16::from(protocol.0))
            .with_u32(length as u32)
    }
}

#[inline]
fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
}

/// Writes the low 16 bits: every length here is below [`MAX_PACKET`].
#[inline]
fn put_u16(bytes: &mut [u8], at: usize, value: usize) {
    if let Some(place) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *place = (value as u16).to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
