//! The language between control (`dmvpn-agent`) and `dmvpn-datapath`: plain data over a unix stream socket, each
//! message a little-endian u32 length and its postcard encoding. One connection drives one tunnel.

use ipnet::IpNet;
use packet::{Path, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use zeroize::Zeroizing;

/// Version of this language. Control and datapath of different versions refuse each other with a clear message.
pub const PROTOCOL_VERSION: u32 = 4;

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
    /// (Encrypted) receive by this SA from now on. Packets opened with it count as come by `path`.
    AddInboundSa {
        /// Which path.
        path: Path,
        /// Its secrets; the owner is `spi & (workers.next_power_of_two() - 1)`.
        keys: esp::Keys,
    },
    /// (Encrypted) no longer receive by this SA.
    RemoveInboundSa {
        /// Ours.
        spi: u32,
    },
    /// (Encrypted) send by this SA from now on, instead of the one before it on the same path and lane.
    SetOutboundSa {
        /// Which path.
        path: Path,
        /// The worker that owns it. Others hand it their packets when they have none of their own for the path.
        lane: u16,
        /// Its secrets.
        keys: esp::Keys,
        /// When control wants to be told that it should be replaced.
        soft: SaLimits,
    },
    /// (Encrypted) no longer send by this SA.
    RemoveOutboundSa {
        /// Which path.
        path: Path,
        /// The peer's.
        spi: u32,
    },
    /// (Encrypted) send an IKE message, or a NAT keepalive (`None`).
    TransmitIke {
        /// Where to.
        remote: SocketAddr,
        /// From the port shared with ESP in UDP (with the non-ESP marker), or from the one for IKE alone?
        nat_traversal: bool,
        /// The message without the marker.
        message: Option<Vec<u8>>,
    },
    /// Answered by [`FromDatapath::Sas`].
    GetSas,
    /// Send a control message over exactly this path: GRE header with `protocol`, then `payload`. In an encrypted tunnel
    /// it leaves by the path's SA, or not at all.
    Transmit {
        /// Where to.
        path: Path,
        /// GRE protocol type.
        protocol: u16,
        /// What.
        payload: Vec<u8>,
    },
    /// Keep this for the next control process. Opaque; in memory only.
    StoreCheckpoint(#[serde(with = "in_one_piece")] Zeroizing<Vec<u8>>),
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
    /// UDP port for GRE in UDP; of an encrypted tunnel, for IKE and ESP in UDP.
    pub udp_port: u16,
    /// Is everything ESP, and nothing in clear sent or accepted? A tunnel that was made so stays so.
    pub encrypted: bool,
    /// (Encrypted) UDP port for IKE alone; `None`: none.
    pub ike_port: Option<u16>,
    /// Listen for packets without UDP too: GRE (IP protocol 47), or bare ESP (50) when encrypted.
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
        #[serde(with = "serde_bytes")]
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
    /// (Encrypted) an IKE message arrived.
    Ike {
        /// From where.
        remote: SocketAddr,
        /// At the port shared with ESP in UDP (the non-ESP marker is removed), or at the one for IKE alone?
        nat_traversal: bool,
        /// The message.
        message: Vec<u8>,
    },
    /// (Encrypted) a packet of an SA that does not exist. Limited.
    UnknownSpi {
        /// The path it came by.
        path: Path,
        /// Which.
        spi: u32,
    },
    /// (Encrypted) an outbound SA reached a soft limit. Said once of each.
    SaLimit {
        /// The path it is for.
        path: Path,
        /// Which.
        spi: u32,
    },
    /// (Encrypted) an authentic packet of this SA came by another path than the SA's. Limited.
    SaMoved {
        /// Ours.
        spi: u32,
        /// The path it came by.
        path: Path,
    },
    /// Answer to `GetSas`: what each SA has done so far.
    Sas {
        /// The request's number.
        number: u64,
        /// Inbound SAs, then outbound ones.
        sas: Vec<SaCounters>,
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
        /// Octets of the longest inner packet that is left room for.
        inner: u16,
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
    /// ICMP says, quoting what we sent by this path, that nobody listens at its other end. Anybody who sees our packets
    /// can say so: it is a reason to ask, and no proof. Limited to one per path and 100 ms.
    NobodyThere(Path),
}

/// Soft limits of an outbound SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaLimits {
    /// Packets sent.
    pub packets: u64,
    /// Octets sent.
    pub octets: u64,
}

/// What an SA has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaCounters {
    /// Its SPI.
    pub spi: u32,
    /// Do we send by it?
    pub outbound: bool,
    /// Its path.
    pub path: Path,
    /// The worker that owns it.
    pub owner: u16,
    /// The sequence number last sent, or the highest received.
    pub sequence: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Octets of ESP payload that passed.
    pub octets: u64,
    /// (Inbound) dropped: seen before, or too old.
    pub replayed: u64,
    /// (Inbound) dropped: not authentic.
    pub forged: u64,
}

/// What a punted message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceivedKind {
    /// GRE protocol 0x2001.
    Nhrp,
    /// An inner ICMP echo packet with our mark that the datapath did not answer itself.
    Echo,
}

/// Counters of a peer since it was made, and what its path takes now.
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
    /// Octets of the longest inner packet its path takes, while that is less than what the interface does: ICMP said so.
    pub narrowed: Option<u16>,
}
/// Secrets that are long: serde takes a `Vec<u8>` octet by octet, into memory that grows and leaves copies behind.
mod in_one_piece {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::ByteBuf;
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(octets: &Zeroizing<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(octets)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        ByteBuf::deserialize(from).map(|octets| Zeroizing::new(octets.into_vec()))
    }
}
