//! The datapath of a station, as far as control can see it: the peer table, by-hub, the source check, the hairpin, and
//! probes answered on the spot. It outlives control.

use crate::kernel::Kernel;
use crate::sa::Sas;
use crate::underlay::Packet;
use dmvpn::{Activity, Input, PeerEntry, RouteTarget, SourceCheck};
use packet::gre::Protocol;
use packet::ip::{self, Ip};
use packet::peer::{BY_HUB_MAC, Mac};
use packet::probe::{self, Probe};
use packet::{Instant, Path, PeerId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// The datapath tells of the same next hop no oftener than this.
const WANTED_EVERY: Duration = Duration::from_millis(100);
/// The datapath tells of hairpins between the same two no oftener than this.
const HAIRPIN_EVERY: Duration = Duration::from_millis(250);
/// How much of a hairpinned packet is told.
const HEAD: usize = 128;

/// The tables.
#[derive(Default)]
pub(crate) struct Datapath {
    rows: BTreeMap<u32, Row>,
    by_path: HashMap<Path, PeerId>,
    by_address: HashMap<IpAddr, PeerId>,
    by_hub: Option<PeerId>,
    multicast: Vec<PeerId>,
    own: HashSet<IpAddr>,
    drops: BTreeMap<&'static str, u64>,
    active: BTreeMap<PeerId, (u64, u64)>,
    wanted: HashMap<IpAddr, Instant>,
    hairpins: HashMap<(IpAddr, IpAddr), Instant>,
    /// What control left for the one after it.
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) indicates_hairpins: bool,
    /// `None`: a tunnel in clear.
    pub(crate) sas: Option<Sas>,
}

struct Row {
    id: PeerId,
    entry: PeerEntry,
}

/// What becomes of a packet that arrived.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// For control.
    Punt(Input),
    /// Out again, over this path.
    Send(Path, Packet),
    /// The same, and control is told.
    Hairpin { path: Path, packet: Packet, tell: Option<Input> },
    /// Into the kernel.
    ToKernel(Packet),
    /// Nowhere.
    Dropped,
}

impl Datapath {
    pub(crate) fn new(own: impl IntoIterator<Item = IpAddr>, indicates_hairpins: bool) -> Self {
        Self { own: own.into_iter().collect(), indicates_hairpins, ..Self::default() }
    }

    /// The node's tunnel addresses, at which it answers probes.
    pub(crate) fn set_own(&mut self, own: impl IntoIterator<Item = IpAddr>) {
        self.own = own.into_iter().collect();
    }

    pub(crate) fn set_peer(&mut self, id: PeerId, entry: PeerEntry) {
        self.forget(id.index);
        for path in &entry.receive {
            self.by_path.insert(*path, id);
        }
        for address in &entry.addresses {
            self.by_address.insert(*address, id);
        }
        self.rows.insert(id.index, Row { id, entry });
    }

    pub(crate) fn remove_peer(&mut self, id: PeerId) {
        if self.row(id).is_some() {
            self.forget(id.index);
        }
    }

    fn forget(&mut self, index: u32) {
        if let Some(old) = self.rows.remove(&index) {
            // Another row may have taken a path or an address over.
            for path in &old.entry.receive {
                if self.by_path.get(path) == Some(&old.id) {
                    self.by_path.remove(path);
                }
            }
            for address in &old.entry.addresses {
                if self.by_address.get(address) == Some(&old.id) {
                    self.by_address.remove(address);
                }
            }
        }
    }

    pub(crate) const fn set_by_hub(&mut self, peer: Option<PeerId>) {
        self.by_hub = peer;
    }

    pub(crate) fn set_multicast(&mut self, peers: Vec<PeerId>) {
        self.multicast = peers;
    }

    pub(crate) fn peers(&self) -> BTreeMap<PeerId, PeerEntry> {
        self.rows.values().map(|row| (row.id, row.entry.clone())).collect()
    }

    pub(crate) const fn by_hub(&self) -> Option<PeerId> {
        self.by_hub
    }

    pub(crate) fn multicast(&self) -> &[PeerId] {
        &self.multicast
    }

    pub(crate) const fn drops(&self) -> &BTreeMap<&'static str, u64> {
        &self.drops
    }

    pub(crate) fn drop(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Peers that moved packets since this was last asked.
    pub(crate) fn take_activity(&mut self) -> Vec<Activity> {
        std::mem::take(&mut self.active)
            .into_iter()
            .map(|(peer, (sent, received))| Activity { peer, sent, received })
            .collect()
    }

    fn row(&self, id: PeerId) -> Option<&PeerEntry> {
        self.rows.get(&id.index).filter(|row| row.id == id).map(|row| &row.entry)
    }

    fn send_path(&self, id: PeerId) -> Option<Path> {
        self.row(id)?.send
    }

    /// The answer to the kernel's question for a next hop, and what control is told.
    pub(crate) fn answer(&mut self, now: Instant, address: IpAddr) -> (Mac, Option<Input>) {
        if let Some(id) = self.by_address.get(&address)
            && self.send_path(*id).is_some()
        {
            return (id.mac(), None);
        }
        let tell = limited(&mut self.wanted, address, now, WANTED_EVERY);
        (BY_HUB_MAC, tell.then_some(Input::NextHopWanted { address }))
    }

    /// A frame from the kernel: which path it leaves by.
    pub(crate) fn outbound(&mut self, mac: Mac) -> Option<Path> {
        let direct = PeerId::from_mac(mac).filter(|id| self.send_path(*id).is_some());
        let Some(id) = direct.or(self.by_hub) else {
            self.drop("no_hub");
            return None;
        };
        let path = self.send_path(id);
        match path {
            Some(_) => self.active.entry(id).or_default().0 += 1,
            None => self.drop("no_hub"),
        }
        path
    }

    /// A packet from the underlay.
    pub(crate) fn inbound(
        &mut self,
        now: Instant,
        path: Path,
        protocol: Protocol,
        packet: Packet,
        kernel: &Kernel,
    ) -> Verdict {
        if protocol == Protocol::NHRP {
            return Verdict::Punt(Input::Nhrp { path, payload: packet.bytes });
        }
        let probe = probe::maybe(&packet.bytes).then(|| Probe::parse(&packet.bytes)).flatten();
        let ours = probe.filter(|p| self.own.contains(&p.destination));
        let Some(from) = self.by_path.get(&path).copied() else {
            if ours.is_some() {
                return Verdict::Punt(Input::Echo { path, packet: packet.bytes });
            }
            self.drop("unknown_peer");
            return Verdict::Dropped;
        };
        if let Some(probe) = ours {
            // Who asks by the path of another is control's to find out.
            let its_own = self.row(from).is_some_and(|row| row.addresses.contains(&probe.source));
            return match probe.kind {
                probe::Kind::Request if its_own => {
                    Verdict::Send(path, Packet { bytes: probe.reply().to_vec(), journey: None })
                }
                _ => Verdict::Punt(Input::Echo { path, packet: packet.bytes }),
            };
        }
        let Ok(ip) = Ip::parse(&packet.bytes) else {
            self.drop("malformed");
            return Verdict::Dropped;
        };
        let accepted = self.row(from).is_some_and(|row| match &row.sources {
            SourceCheck::Any => true,
            SourceCheck::Only(nets) => nets.iter().any(|n| n.contains(&ip.source)),
        });
        if !accepted {
            self.drop("source");
            return Verdict::Dropped;
        }
        self.active.entry(from).or_default().1 += 1;
        match self.hairpin_peer(kernel, ip.destination) {
            Some(to) => self.hairpin(now, from, to, &ip, packet),
            None => Verdict::ToKernel(packet),
        }
    }

    /// The peer that a packet goes on to without the kernel: as the hairpin's snapshot of the routes says.
    fn hairpin_peer(&self, kernel: &Kernel, destination: IpAddr) -> Option<PeerId> {
        let RouteTarget::Overlay(via) = kernel.lookup(destination) else { return None };
        let peer = self.by_address.get(&via.unwrap_or(destination)).copied()?;
        self.send_path(peer).map(|_| peer)
    }

    fn hairpin(&mut self, now: Instant, from: PeerId, to: PeerId, ip: &Ip, mut packet: Packet) -> Verdict {
        if from == to {
            self.drop("split_horizon");
            return Verdict::Dropped;
        }
        let head = packet.bytes.get(..HEAD).unwrap_or(&packet.bytes).to_vec();
        if ip::decrement_ttl(&mut packet.bytes).is_err() {
            self.drop("ttl_exceeded");
            return Verdict::Dropped;
        }
        let Some(path) = self.send_path(to) else { return Verdict::Dropped };
        self.active.entry(to).or_default().0 += 1;
        let pair = (ip.source, ip.destination);
        let tell = self.indicates_hairpins && limited(&mut self.hairpins, pair, now, HAIRPIN_EVERY);
        let tell = tell.then_some(Input::Hairpin { from, to, head });
        Verdict::Hairpin { path, packet, tell }
    }
}

/// Has it been long enough since this was last told?
fn limited<K: std::hash::Hash + Eq>(
    told: &mut HashMap<K, Instant>,
    key: K,
    now: Instant,
    every: Duration,
) -> bool {
    match told.get(&key) {
        Some(at) if now.since(*at) < every => false,
        _ => {
            told.insert(key, now);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, send: Option<Path>, receive: &[Path]) -> PeerEntry {
        PeerEntry {
            addresses: vec![address.parse().unwrap()],
            send,
            receive: receive.to_vec(),
            sources: SourceCheck::Any,
            ours: true,
        }
    }

    fn path(last: u8) -> Path {
        Path::udp(IpAddr::from([203, 0, 113, last]), 4754)
    }

    const A: PeerId = PeerId { index: 1, generation: 0 };
    const B: PeerId = PeerId { index: 2, generation: 0 };

    #[test]
    fn a_frame_to_a_peer_without_send_path_goes_by_the_hub() {
        let mut datapath = Datapath::default();
        datapath.set_peer(A, entry("10.200.0.1", Some(path(1)), &[path(1)]));
        datapath.set_peer(B, entry("10.200.16.2", None, &[path(2)]));
        assert_eq!(datapath.outbound(B.mac()), None);
        datapath.set_by_hub(Some(A));
        assert_eq!(datapath.outbound(B.mac()), Some(path(1)));
        datapath.set_peer(B, entry("10.200.16.2", Some(path(2)), &[path(2)]));
        assert_eq!(datapath.outbound(B.mac()), Some(path(2)));
        let stale = PeerId { generation: 9, ..B };
        assert_eq!(datapath.outbound(stale.mac()), Some(path(1)));
    }

    #[test]
    fn a_path_taken_over_by_another_row_stays_with_it() {
        let mut datapath = Datapath::default();
        datapath.set_peer(A, entry("10.200.16.1", None, &[path(1)]));
        datapath.set_peer(B, entry("10.200.16.2", None, &[path(1)]));
        datapath.remove_peer(A);
        assert_eq!(datapath.by_path.get(&path(1)), Some(&B));
    }
}
