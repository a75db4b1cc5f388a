//! The language between control (`dmvpn-agent`) and `dmvpn-datapath`: plain data over a unix stream socket, each
//! message a little-endian u32 length and its postcard encoding. One connection drives one tunnel.

use ipnet::IpNet;
use packet::{Path, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version of this language. Control and datapath of different versions refuse each other with a clear message.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest message either side accepts, in octets.
pub const MAX_MESSAGE: usize = 16 << 20;

/// From control to datapath. Every request is answered in order by [`FromDatapath::Done`] with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDatapath {
    /// Chosen by control, echoed in the answer.
    pub number: u64,
    /// What to do.
    pub request: Request,
}

/// What control asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First message of a connection: which tunnel. Answered by [`FromDatapath::Attached`].
    Attach {
        /// Must equal [`PROTOCOL_VERSION`].
        version: u32,
        /// Name of the tunnel; equals the interface's name.
        tunnel: String,
    },
    /// Make the tunnel, or change it. What did not change is not touched.
    Configure(TunnelSettings),
    /// Add or replace a peer.
    SetPeer(PeerId, Peer),
    /// Remove a peer.
    RemovePeer(PeerId),
    /// Who carries frames to the by-hub MAC and to stale MACs.
    SetByHub(Option<PeerId>),
    /// Who receives multicast and broadcast.
    SetMulticast(Vec<PeerId>),
    /// Replace the hairpin's routes: what leaves by the tunnel interface, and what inside it does not.
    SetHairpin(Vec<HairpinRoute>),
    /// Send a control message over exactly this path: GRE header with `protocol`, then `payload`.
    Transmit {
        /// Where to.
        path: Path,
        /// GRE protocol type.
        protocol: u16,
        /// What.
        payload: Vec<u8>,
    },
    /// Keep this for the next control process. Opaque; in memory only.
    StoreCheckpoint(Vec<u8>),
    /// Answered by [`FromDatapath::Counters`].
    GetCounters,
    /// Start or stop sending [`FromDatapath::Captured`].
    Capture(bool),
    /// Tear this tunnel down: close the queues and sockets; with `delete_interface`, the TAP goes as well.
    Remove {
        /// Delete the persistent interface too.
        delete_interface: bool,
    },
}

/// One tunnel as the datapath needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSettings {
    /// Interface name, at most 15 octets; equals the tunnel's.
    pub interface: String,
    /// Worker threads: a TAP queue and a UDP socket each. At least 1.
    pub workers: u16,
    /// Our tunnel addresses: probes to them are answered, ARP for them is not.
    pub addresses: Vec<IpAddr>,
    /// The tunnel's networks: only addresses in them are answered on ARP and ND.
    pub networks: Vec<IpNet>,
    /// Underlay addresses to bind to; unspecified addresses bind to all.
    pub bind: Vec<IpAddr>,
    /// UDP port for GRE in UDP.
    pub udp_port: u16,
    /// Listen for raw GRE too.
    pub raw_gre: bool,
    /// GRE key; `None` is no key, which is not key 0.
    pub gre_key: Option<u32>,
    /// MTU of the interface, octets of inner IP packet. Outer packets are kept within underlay limits.
    pub mtu: u16,
    /// TTL of outer packets.
    pub ttl: u8,
    /// Tell control of hairpinned packets (phase 3 hub).
    pub indicate_hairpins: bool,
}

/// A peer as the datapath needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its tunnel addresses. Probes from these are answered at once, others by its paths are control's.
    pub addresses: Vec<IpAddr>,
    /// The path packets leave by; `None`: receive only, what is addressed to it goes by the hub.
    pub send: Option<Path>,
    /// The paths packets are accepted from.
    pub receive: Vec<Path>,
    /// Accepted inner sources; `None`: any.
    pub sources: Option<Vec<IpNet>>,
    /// One of ours.
    pub ours: bool,
}

/// A route of the hairpin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HairpinRoute {
    /// Destination.
    pub prefix: IpNet,
    /// `Some`: by the tunnel to this peer. `None`: not by the tunnel, hand it to the kernel.
    pub peer: Option<PeerId>,
}

/// From datapath to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDatapath {
    /// Answer to `Attach`.
    Attached {
        /// The datapath's version.
        version: u32,
        /// What the control process before left, when this tunnel is alive.
        checkpoint: Option<Vec<u8>>,
        /// What the tunnel was last configured with, when it is alive.
        settings: Option<TunnelSettings>,
        /// The peers it holds.
        peers: Vec<(PeerId, Peer)>,
    },
    /// A request was carried out, or not.
    Done {
        /// Its number.
        number: u64,
        /// What went wrong, in a person's words.
        error: Option<String>,
    },
    /// A control message arrived.
    Received {
        /// The path it came by.
        path: Path,
        /// What it is.
        kind: ReceivedKind,
        /// From the GRE payload on.
        payload: Vec<u8>,
    },
    /// The kernel asked for a next hop that has no permanent neighbour. Limited to one per address and 100 ms.
    NextHopWanted(IpAddr),
    /// A packet was hairpinned. Limited per source and destination.
    Hairpin {
        /// Where it came from.
        from: PeerId,
        /// Where it went.
        to: PeerId,
        /// Its first octets, at most 128.
        head: Vec<u8>,
    },
    /// Peers that moved packets since last told, and how many: (peer, inner packets sent to it, inner packets received
    /// from it). Every 100 ms, only those that did.
    Activity(Vec<(PeerId, u64, u64)>),
    /// Answer to `GetCounters`.
    Counters {
        /// The request's number.
        number: u64,
        /// Totals of the tunnel by name (`packets_sent`, `drop_unknown_peer`, ...).
        totals: BTreeMap<String, u64>,
        /// Per peer.
        peers: Vec<(PeerId, PeerCounters)>,
    },
    /// An ICMP "too big" for what we sent was believed: the path's MTU (outer packet, octets).
    PathMtu {
        /// Which path.
        path: Path,
        /// Octets.
        mtu: u16,
    },
    /// A captured overlay packet (while capturing), whole inner IP packet.
    Captured {
        /// Nanoseconds of the realtime clock.
        time: u64,
        /// The peer it came from or went to.
        peer: Option<PeerId>,
        /// True: towards the peer.
        outbound: bool,
        /// Inner IP packet.
        packet: Vec<u8>,
    },
}

/// What a punted message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceivedKind {
    /// GRE protocol 0x2001.
    Nhrp,
    /// An inner ICMP echo packet with our mark that the datapath did not answer itself.
    Echo,
}

/// Counters of a peer since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounters {
    /// Inner packets sent.
    pub packets_sent: u64,
    /// Inner octets sent.
    pub bytes_sent: u64,
    /// Inner packets received.
    pub packets_received: u64,
    /// Inner octets received.
    pub bytes_received: u64,
}
