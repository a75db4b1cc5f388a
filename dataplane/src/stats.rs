//! Counters. Each worker writes its own and nobody else's, so that counting is a plain load and store; a reader sums
//! them up and may be a moment late, never wrong for long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// What is counted. The names are part of the interface: metrics and tests use them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name it is told by.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// Inner packets sent to peers.
    PacketsSent => "packets_sent",
    /// Their octets.
    BytesSent => "bytes_sent",
    /// Inner packets received from peers and accepted.
    PacketsReceived => "packets_received",
    /// Their octets.
    BytesReceived => "bytes_received",
    /// Inner packets that came from one peer and went to another.
    PacketsHairpinned => "packets_hairpinned",
    /// System calls that sent to the underlay.
    Sends => "sends",
    /// System calls that received from the underlay.
    Receives => "receives",
    /// Frames read from the interface, super-frames as one.
    FramesRead => "frames_read",
    /// Frames written to the interface, super-frames as one.
    FramesWritten => "frames_written",
    /// ARP requests and neighbour solicitations answered.
    NeighboursAnswered => "neighbours_answered",
    /// Probes answered here.
    ProbesAnswered => "probes_answered",
    /// Copies made of multicast and broadcast packets.
    Replicated => "replicated",
    /// Packets cut into IP fragments for a path with a small MTU.
    Fragmented => "fragmented",
    /// ICMP errors made, as a router does.
    IcmpSent => "icmp_sent",
    /// MSS options lowered.
    MssClamped => "mss_clamped",
    /// Control messages handed to the agent.
    Punted => "punted",
    /// ICMP errors about our own packets that were believed.
    PathErrors => "path_errors",
    /// Packets handed to the worker that owns their SA.
    HandedOff => "handed_off",
    /// NAT keepalives received (RFC 3948 §2.3).
    Keepalives => "keepalives",
    /// Dummy packets received by an SA (RFC 4303 §2.6).
    EspDummies => "esp_dummies",

    /// From this machine: the interface's queue was full, before a worker saw it.
    DropInterfaceQueue => "drop_interface_queue",
    /// From the underlay: a socket's queue was full, before a worker saw it.
    DropSocketQueue => "drop_socket_queue",
    /// From the interface: not a frame we understand.
    DropBadFrame => "drop_bad_frame",
    /// From the interface: neither IP nor ARP.
    DropNotIp => "drop_not_ip",
    /// From the interface: a query that is not answered (our own address, outside the networks, DAD).
    DropNotAnswered => "drop_not_answered",
    /// From the interface: to the hub, and there is none.
    DropNoHub => "drop_no_hub",
    /// From the interface: multicast, and nobody receives it.
    DropNoReceiver => "drop_no_receiver",
    /// Larger than its path; an ICMP error went to the sender where one may.
    DropTooBig => "drop_too_big",
    /// The underlay's queue was full.
    DropSendQueue => "drop_send_queue",
    /// The underlay refused it: no route, no permission.
    DropSendError => "drop_send_error",
    /// No socket of the path's IP version or encapsulation.
    DropNoSocket => "drop_no_socket",
    /// (Encrypted) no SA to send by.
    DropNoSa => "drop_no_sa",
    /// (Encrypted) the SA has no sequence number left.
    DropExhausted => "drop_exhausted",
    /// (Encrypted) the worker that owns the SA does not keep up with what others hand it.
    DropHandoffFull => "drop_handoff_full",
    /// From the underlay, encrypted: GRE in clear.
    DropClear => "drop_clear",
    /// From the underlay, encrypted: an SPI that no SA has.
    DropUnknownSpi => "drop_unknown_spi",
    /// From the underlay, encrypted: a sequence number that was seen before, or is too old.
    DropReplayed => "drop_replayed",
    /// From the underlay, encrypted: not authentic.
    DropForged => "drop_forged",
    /// From the underlay, encrypted: too short, or of a length that the cipher does not make.
    DropBadEsp => "drop_bad_esp",
    /// From the underlay, encrypted: authentic, with padding that is wrong.
    DropBadPadding => "drop_bad_padding",
    /// From the underlay, encrypted: authentic, and not GRE.
    DropNextHeader => "drop_next_header",
    /// From the underlay, encrypted: too short for an IKE message.
    DropBadIke => "drop_bad_ike",
    /// From the underlay: a GRE header that is malformed, or a wrong GRE checksum.
    DropBadGre => "drop_bad_gre",
    /// From the underlay: another GRE key, or none where there should be one.
    DropKey => "drop_gre_key",
    /// From the underlay: a GRE protocol that is none of ours.
    DropProtocol => "drop_gre_protocol",
    /// From the underlay: a path nobody is known by.
    DropUnknownPeer => "drop_unknown_peer",
    /// From the underlay: an inner packet that is malformed.
    DropBadInner => "drop_bad_inner",
    /// From the underlay: an inner source that the peer may not use.
    DropSource => "drop_inner_source",
    /// From the underlay: our own address as inner source.
    DropOwnSource => "drop_own_source",
    /// From the underlay: congestion was met and the inner packet can't say so (RFC 6040).
    DropCongested => "drop_congested",
    /// Would have gone back to the peer it came from.
    DropSplitHorizon => "drop_split_horizon",
    /// Its time to live ended here.
    DropTtl => "drop_ttl",
    /// By the hairpin, to a peer that is gone or has no path.
    DropNoPath => "drop_no_path",
    /// The interface did not take it.
    DropTapWrite => "drop_interface_write",
    /// To the agent: too many NHRP messages.
    DropPuntNhrp => "drop_punt_nhrp",
    /// To the agent: too many probes.
    DropPuntEcho => "drop_punt_echo",
    /// To the agent: too many IKE messages.
    DropIkeFlood => "drop_ike_flood",
    /// To the agent: too many notices (next hops wanted, hairpins, path MTUs).
    DropPuntNotice => "drop_punt_notice",
    /// To the agent: too many captured packets.
    DropPuntCapture => "drop_punt_capture",
    /// To the agent, and no agent is there.
    DropNoControl => "drop_no_control",
}

/// The counters of one worker.
#[derive(Debug)]
#[repr(align(128))] // Two workers never share a cache line, nor the pair the prefetcher takes.
pub struct WorkerStats {
    values: [AtomicU64; Counter::ALL.len()],
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self { values: [const { AtomicU64::new(0) }; Counter::ALL.len()] }
    }
}

impl WorkerStats {
    /// Adds `n`. Only the worker that owns these counters may.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        add(&self.values[counter as usize], n);
    }

    /// Adds one. Only the worker that owns these counters may.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }

    /// Takes over what another process counted; names we don't know are left out. Only the owner may.
    pub fn resume(&self, totals: &BTreeMap<String, u64>) {
        for &counter in Counter::ALL {
            self.add(counter, totals.get(counter.name()).copied().unwrap_or(0));
        }
    }

    /// Adds these to `totals`, by name.
    pub fn add_to(&self, totals: &mut BTreeMap<String, u64>) {
        for &counter in Counter::ALL {
            *totals.entry(counter.name().to_owned()).or_default() += self.get(counter);
        }
    }
}

/// One worker's share of a peer's counters.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PeerStats {
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
}

impl PeerStats {
    /// Inner packets sent and their octets.
    #[inline]
    pub fn sent(&self, packets: u64, octets: u64) {
        add(&self.sent[0], packets);
        add(&self.sent[1], octets);
    }

    /// Inner packets received and their octets.
    #[inline]
    pub fn received(&self, packets: u64, octets: u64) {
        add(&self.received[0], packets);
        add(&self.received[1], octets);
    }

    /// Packets and octets sent, packets and octets received.
    #[must_use]
    pub fn get(&self) -> [u64; 4] {
        let [a, b] = &self.sent;
        let [c, d] = &self.received;
        [a, b, c, d].map(|v| v.load(Ordering::Relaxed))
    }
}

/// A single writer needs no atomic addition.
#[inline]
fn add(value: &AtomicU64, n: u64) {
    value.store(value.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        for (i, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, i);
            let is_drop = format!("{counter:?}").starts_with("Drop");
            assert_eq!(counter.name().starts_with("drop_"), is_drop, "{counter:?}");
        }
    }

    #[test]
    fn totals_are_sums_over_workers() {
        let (a, b) = (WorkerStats::default(), WorkerStats::default());
        a.add(Counter::BytesSent, 5);
        b.add(Counter::BytesSent, 7);
        let mut totals = BTreeMap::new();
        a.add_to(&mut totals);
        b.add_to(&mut totals);
        assert_eq!(totals["bytes_sent"], 12);
    }
}
