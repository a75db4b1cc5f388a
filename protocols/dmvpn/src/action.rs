//! What goes into the engine, what it wants done, and what it tells.

use ipnet::IpNet;
use nhrp::NhsId;
use packet::{Path, PeerId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What happened outside. Every input is followed by draining `poll_action` and `poll_event`.
#[derive(Clone, Debug)]
pub enum Input {
    /// An NHRP message arrived (payload of GRE protocol 0x2001).
    Nhrp {
        /// The path it came by.
        path: Path,
        /// The message.
        payload: Vec<u8>,
    },
    /// A probe or its answer arrived: a whole inner ICMP or ICMPv6 echo packet with our mark (see `probe`).
    Echo {
        /// The path it came by.
        path: Path,
        /// The inner IP packet.
        packet: Vec<u8>,
    },
    /// The kernel asked (ARP, ND) for a next hop that has no permanent neighbour; the datapath answered "by hub".
    NextHopWanted {
        /// Tunnel address asked for.
        address: IpAddr,
    },
    /// (Hub) a packet came from one peer and was sent to another: reason for a Traffic Indication.
    Hairpin {
        /// Where it came from.
        from: PeerId,
        /// Where it went.
        to: PeerId,
        /// Its first octets, inner IP header first, at most 128.
        head: Vec<u8>,
    },
    /// ICMP says that nobody listens at the end of this path. It may be forged: the path is probed, and nothing more.
    NobodyThere(Path),
    /// Peers that moved packets since the last such input.
    Activity(Vec<Activity>),
    /// A kernel route appeared, changed or went (`None`). Our own `proto nhrp` routes are never told.
    Route {
        /// Destination.
        prefix: IpNet,
        /// Where it leads.
        target: Option<RouteTarget>,
    },
    /// A hub's name was resolved (again).
    HubPaths {
        /// Which hub.
        hub: NhsId,
        /// Where it may be reached now.
        paths: Vec<Path>,
    },
    /// The node's own underlay address changed.
    UnderlayAddress(IpAddr),
    /// (Encrypted) an IKE message arrived.
    Ike {
        /// Between whom.
        address: ikev2::Address,
        /// The message, without the non-ESP marker.
        message: Vec<u8>,
    },
    /// (Encrypted) a packet of an SA that we don't have.
    UnknownSpi {
        /// The path it came by.
        path: Path,
        /// Which.
        spi: u32,
    },
    /// (Encrypted) an outbound SA reached a soft limit: it is to be replaced.
    SaLimit {
        /// Its path.
        path: Path,
        /// Which.
        spi: u32,
    },
    /// (Encrypted) an authentic packet of an inbound SA came by another path: a NAT has moved the peer.
    SaMoved {
        /// Ours.
        spi: u32,
        /// The path it came by.
        path: Path,
    },
    /// What time it is, seconds since 1970: certificates run out. Told at the start and now and then.
    WallClock(u64),
}

/// Packets moved since last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Which peer.
    pub peer: PeerId,
    /// Overlay packets sent to it.
    pub sent: u64,
    /// Overlay packets received from it, over any path.
    pub received: u64,
}

/// Where a kernel route leads, as far as the overlay cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteTarget {
    /// An address of this node.
    Local,
    /// Out by another interface.
    OffOverlay,
    /// By the tunnel interface, to this next hop; `None` for an on-link route (the tunnel network itself).
    Overlay(Option<IpAddr>),
    /// Unreachable, blackhole, prohibit.
    Nowhere,
}

/// Which inner source addresses are accepted from a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceCheck {
    /// Any: a hub, or no identities to hold anyone to.
    Any,
    /// Only these.
    Only(Vec<IpNet>),
}

/// One row of the datapath's peer table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Tunnel addresses. Probes from these are answered by the datapath itself.
    pub addresses: Vec<IpAddr>,
    /// The path packets leave by. `None`: receive only; what is addressed to the peer goes by the hub.
    pub send: Option<Path>,
    /// The paths packets are accepted from.
    pub receive: Vec<Path>,
    /// Inner source check.
    pub sources: SourceCheck,
    /// Does it understand GRE in UDP super-frames (one of ours)?
    pub ours: bool,
}

/// What the engine wants done, in this order; the next is not begun before the one before it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Datapath: add or replace a row.
    SetPeer(PeerId, PeerEntry),
    /// Datapath: remove a row.
    RemovePeer(PeerId),
    /// Datapath: who carries what has no direct path. `None`: nobody, such frames are dropped and counted.
    SetByHub(Option<PeerId>),
    /// Datapath: who receives multicast and broadcast.
    SetMulticast(Vec<PeerId>),
    /// Datapath: send a control message over exactly this path.
    Transmit {
        /// Where to.
        path: Path,
        /// GRE protocol type: 0x2001 NHRP, 0x0800 or 0x86dd a probe.
        protocol: u16,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Datapath: receive by this SA.
    AddInboundSa {
        /// Packets opened with it count as come by this path.
        path: Path,
        /// Its secrets.
        keys: esp::Keys,
    },
    /// Datapath: no longer receive by this SA.
    RemoveInboundSa {
        /// Ours.
        spi: u32,
    },
    /// Datapath: send by this SA instead of the one before it on the same path and lane.
    SetOutboundSa {
        /// Which path.
        path: Path,
        /// The worker that owns it.
        lane: u16,
        /// Its secrets.
        keys: esp::Keys,
        /// Packets and octets after which we want [`Input::SaLimit`].
        soft: (u64, u64),
    },
    /// Datapath: no longer send by this SA.
    RemoveOutboundSa {
        /// Which path.
        path: Path,
        /// The peer's.
        spi: u32,
    },
    /// Datapath: send an IKE message or a NAT keepalive.
    TransmitIke(ikev2::Transmit),
    /// Kernel: install a permanent neighbour on the tunnel interface.
    SetNeighbour {
        /// Tunnel address.
        address: IpAddr,
        /// The peer whose MAC it gets; `None`: the by-hub MAC.
        peer: Option<PeerId>,
    },
    /// Kernel: give it up; the next use of the address makes the kernel ask again. To delete an entry in use would
    /// lose packets: replace it with a stale one that has the by-hub MAC, which carries on while the kernel asks.
    RemoveNeighbour {
        /// Tunnel address.
        address: IpAddr,
    },
    /// Kernel: a shortcut route, `proto nhrp`, better than any other of the same prefix. Replaces, in one step, a
    /// shortcut of the same prefix by another next hop.
    AddRoute {
        /// Destination.
        prefix: IpNet,
        /// Next hop (a tunnel address).
        via: IpAddr,
    },
    /// Kernel: remove a shortcut route.
    RemoveRoute {
        /// Destination.
        prefix: IpNet,
        /// Next hop.
        via: IpAddr,
    },
}

/// What the engine tells people. Each becomes a log line, and a Kubernetes Event where it is a transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Registered with a hub and its path proven.
    HubUp {
        /// Hub as configured.
        hub: String,
        /// Its tunnel address.
        address: IpAddr,
        /// How it is reached.
        path: Path,
        /// Where it sees us, when behind a NAT.
        observed: Option<Path>,
    },
    /// A hub stopped answering, never did, or refuses us.
    HubDown {
        /// Hub as configured.
        hub: String,
        /// Why, in a person's words.
        reason: String,
    },
    /// Our tunnel address is registered by somebody else (code 14).
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Hub that said so.
        hub: String,
    },
    /// (Hub) a peer registered, or moved.
    PeerRegistered {
        /// Its tunnel address.
        address: IpAddr,
        /// Its identity, as asserted.
        identity: Option<String>,
        /// How it is reached.
        path: Path,
        /// The path before, when it moved.
        moved_from: Option<Path>,
    },
    /// (Hub) a registration ended.
    PeerUnregistered {
        /// Its tunnel address.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// (Hub) a registration was refused.
    RegistrationDenied {
        /// Tunnel address wanted.
        address: IpAddr,
        /// From where.
        path: Path,
        /// Why.
        reason: String,
    },
    /// A direct path has proven itself and carries.
    ShortcutUp {
        /// What it is for (a host prefix of the next hop in phase 2).
        prefix: IpNet,
        /// Next hop.
        via: IpAddr,
        /// How it is reached.
        path: Path,
    },
    /// A direct path no longer carries; the hub does.
    ShortcutDown {
        /// What it was for.
        prefix: IpNet,
        /// Next hop.
        via: IpAddr,
        /// Why.
        reason: String,
    },
    /// A direct path could not be made; the hub carries on.
    ShortcutFailed {
        /// What was wanted.
        destination: IpAddr,
        /// Why, in a person's words, with what could be done.
        reason: String,
    },
    /// A shortcut was refused because its route would carry the tunnel's own outer packets.
    RecursiveRoute {
        /// The offending prefix.
        prefix: IpNet,
        /// The NBMA address it covers.
        nbma: IpAddr,
    },
    /// A peer was authenticated on a path, for the first time or anew.
    SessionUp {
        /// Which path.
        path: Path,
        /// Who.
        identity: claims::Identity,
    },
    /// A session ended.
    SessionDown {
        /// Which path.
        path: Path,
        /// Why.
        reason: ikev2::Failure,
    },
    /// A handshake came to nothing.
    SessionFailed {
        /// Which path.
        path: Path,
        /// Did we begin?
        initiator: bool,
        /// Why.
        reason: ikev2::Failure,
    },
    /// Secrets of an IKE SA, for a capture's reader; only when asked for.
    IkeKeys {
        /// A line of Wireshark's `ikev2_decryption_table`.
        line: String,
    },
}
