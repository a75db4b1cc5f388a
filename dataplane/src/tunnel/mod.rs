//! One tunnel: its interface, its sockets, its workers, its tables, and what the agent left to remember. It lives on when
//! the agent goes, and is what the next one finds.

mod handover;
mod losses;
mod sas;

pub use handover::{TunnelNumbers, TunnelState, Unfit};

use crate::directory::{Directory, Refused, Secrets};
use crate::exchange::{self, MAX_WORKERS};
use crate::io::Sockets;
use crate::mailbox::Order;
use crate::messages::{HairpinRoute, Peer, PeerCounters, TunnelSettings};
use crate::punt::PuntSource;
use crate::sa::Parked;
use crate::stats::{Counter, WorkerStats};
use crate::tables::{PeerRow, Published, Tables};
use crate::transmit::Outer;
use crate::worker::{Handle, Parts};
use linux_io::link::{self, LinkSettings};
use linux_io::raw::{Carries, RawSocket};
use linux_io::udp::UdpSocket;
use linux_io::{Outgoing, Sender, TapQueue, poll, steer};
use packet::peer::OWN_MAC;
use packet::{Instant, Path, PeerId, gre};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The most underlay addresses it may be bound to: what a worker can wait for.
const MAX_BINDS: usize = 8;
/// DSCP class selector 6, which routing protocols have: NHRP passes before data.
const CONTROL_TOS: u8 = 0xc0;

/// Why a request can't be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict themselves.
    #[error("{0}")]
    Settings(&'static str),
    /// It has to be configured first.
    #[error("the tunnel is not configured yet")]
    NotConfigured,
    /// A slot number beyond the table.
    #[error("peer {0:?} has an index beyond {max}", max = PeerId::MAX_INDEX)]
    Index(PeerId),
    /// Only where everything is encrypted.
    #[error("the tunnel is not encrypted")]
    NotEncrypted,
    /// An SA that can't be.
    #[error("{0}")]
    Sa(#[from] Refused),
    /// Nothing leaves an encrypted tunnel but by an SA.
    #[error("there is no SA for {0}")]
    NoSa(Path),
    /// No socket for IKE.
    #[error("no socket for IKE to {0}: the tunnel is not bound to such an address, or has no port for it")]
    NoIkeSocket(SocketAddr),
    /// No socket of the path's kind.
    #[error("no socket for {0}: the tunnel is not bound to such an address, or does not listen for raw GRE")]
    NoSocket(Path),
    /// The kernel refused.
    #[error("{0}")]
    Kernel(#[from] io::Error),
}

/// See the module.
pub struct Tunnel {
    /// Also that of its interface.
    name: String,
    settings: Option<TunnelSettings>,
    tables: Tables,
    published: Published,
    changed: bool,
    /// It has keys in it.
    checkpoint: Option<Zeroizing<Vec<u8>>>,
    punts: PuntSource,
    sender: Sender,
    /// The workers' counters; they stay when a worker is replaced by one of the same number.
    stats: Vec<Arc<WorkerStats>>,
    /// Control's own.
    own_stats: WorkerStats,
    /// What the kernel had lost when we began to count.
    losses: Option<losses::Losses>,
    directory: Directory,
    /// SAs that have no worker now.
    parked: Parked,
    /// Those of a predecessor that has not stopped yet.
    inherited: Secrets,
    /// The workers that have orders which they were not woken for yet.
    posted: BTreeSet<usize>,
    // Workers stand before what they use, so that they end first.
    workers: Vec<Handle>,
    taps: Vec<Arc<TapQueue>>,
    sockets: Vec<Arc<Sockets>>,
}

impl Tunnel {
    /// A tunnel that is not configured yet.
    #[must_use]
    pub fn new(name: &str, punts: PuntSource) -> Self {
        Self {
            name: name.to_owned(),
            settings: None,
            tables: Tables::default(),
            published: Published::default(),
            changed: false,
            checkpoint: None,
            punts,
            sender: Sender::new(),
            stats: Vec::new(),
            own_stats: WorkerStats::default(),
            losses: None,
            directory: Directory::default(),
            parked: Parked::default(),
            inherited: Secrets::default(),
            posted: BTreeSet::new(),
            workers: Vec::new(),
            taps: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was last configured with.
    #[must_use]
    pub const fn settings(&self) -> Option<&TunnelSettings> {
        self.settings.as_ref()
    }

    /// The peers it holds.
    #[must_use]
    pub fn peers(&self) -> Vec<(PeerId, Peer)> {
        self.tables.peers.iter().map(|row| (row.id, row.peer.clone())).collect()
    }

    /// What the last agent left.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Vec<u8>> {
        self.checkpoint.as_deref()
    }

    /// Keeps this for the next agent.
    pub fn store_checkpoint(&mut self, checkpoint: Zeroizing<Vec<u8>>) {
        self.checkpoint = Some(checkpoint);
    }

    /// Makes the tunnel what `settings` say. Where that fails, what was before goes on.
    ///
    /// # Errors
    /// [`Error::Settings`], or what the kernel refused.
    pub fn configure(&mut self, settings: TunnelSettings) -> Result<(), Error> {
        validate(&settings)?;
        if settings.interface != self.name {
            return Err(Error::Settings("a tunnel's interface has the tunnel's name"));
        }
        if self.settings.as_ref().is_some_and(|before| before.encrypted != settings.encrypted) {
            return Err(Error::Settings(
                "whether a tunnel is encrypted can't be changed while it is there: remove it first",
            ));
        }
        self.open_queues(&settings)?;
        let link = |s: &TunnelSettings| (s.interface.clone(), s.mtu);
        if self.settings.as_ref().map(link) != Some(link(&settings)) || self.workers.is_empty() {
            link::configure(&settings.interface, LinkSettings { mtu: settings.mtu, mac: OWN_MAC })?;
        }
        self.tables.configure(&settings);
        self.changed = true;
        self.publish();
        let wire = |s: &TunnelSettings| {
            let watched = s.gre_key.filter(|_| s.encrypted);
            (s.workers, s.bind.clone(), s.udp_port, s.ike_port, s.raw_gre, s.ttl, watched)
        };
        if self.workers.is_empty() || self.settings.as_ref().map(wire) != Some(wire(&settings)) {
            let before = self.settings.replace(settings);
            if let Err(error) = self.restart() {
                // What worked before still does.
                self.settings = before;
                if self.settings.is_some() {
                    self.restart()?;
                }
                return Err(error);
            }
        } else {
            self.settings = Some(settings);
        }
        Ok(())
    }

    /// Opens the queues that are missing, and all again when the interface was deleted under us.
    fn open_queues(&mut self, settings: &TunnelSettings) -> Result<(), Error> {
        if self.taps.iter().any(|tap| !tap.is_alive()) {
            self.stop();
            self.taps.clear();
        }
        while self.taps.len() < usize::from(settings.workers) {
            let tap = TapQueue::open(&settings.interface)
                .map_err(|e| io::Error::new(e.kind(), format!("interface {}: {e}", settings.interface)))?;
            if self.taps.is_empty() {
                tracing::info!(interface = settings.interface, offloads = ?tap.offloads(), "interface opened");
            }
            self.taps.push(Arc::new(tap));
        }
        Ok(())
    }

    /// Replaces all sockets and workers. The port is free only when the old sockets are closed, so that what arrives in
    /// between is lost; it is done only when the wire changes.
    fn restart(&mut self) -> Result<(), Error> {
        self.stop();
        self.keep_losses();
        let Some(settings) = &self.settings else { return Err(Error::NotConfigured) };
        self.sockets.clear();
        for number in 0..settings.workers {
            self.sockets.push(Arc::new(open_sockets(settings, number)?));
        }
        if let Some(first) = self.sockets.first() {
            steer(settings, first)?;
        }
        self.taps.truncate(usize::from(settings.workers));
        self.watch_losses();
        self.start()
    }

    /// Starts workers on the queues and sockets there are.
    fn start(&mut self) -> Result<(), Error> {
        let Some(settings) = &self.settings else { return Err(Error::NotConfigured) };
        let workers = usize::from(settings.workers);
        let other_number = |row: &&PeerRow| row.stats.len() != workers;
        let changed = self.tables.peers.iter().filter(other_number).map(|row| (row.id, row.peer.clone()));
        for (id, peer) in changed.collect::<Vec<_>>() {
            self.tables.set_peer(id, peer, workers);
        }
        self.directory.rehome(workers, &mut self.tables.outbound);
        self.changed = true;
        self.publish();
        let Some(settings) = &self.settings else { return Err(Error::NotConfigured) };
        while self.stats.len() < workers {
            self.stats.push(Arc::default());
        }
        let ports = exchange::ports(workers)?;
        let sas = self.parked.distribute(workers);
        let owned = self.taps.iter().zip(&self.sockets).zip(&self.stats).zip(sas).enumerate();
        for (number, (((tap, sockets), stats), sas)) in owned {
            let parts = Parts {
                number,
                ports: ports.clone(),
                sas: settings.encrypted.then_some(sas),
                tap: tap.clone(),
                sockets: sockets.clone(),
                tables: self.published.reader(),
                punts: self.punts.worker(),
                stats: stats.clone(),
            };
            self.workers.push(Handle::start(parts, &format!("{}-{number}", settings.interface))?);
        }
        tracing::info!(
            interface = settings.interface,
            workers,
            port = settings.udp_port,
            encrypted = settings.encrypted,
            without_udp = settings.raw_gre,
            "tunnel is up"
        );
        Ok(())
    }

    /// Ends the workers, and keeps their SAs for the next.
    fn stop(&mut self) {
        // What they were told before is done.
        self.settle();
        for worker in self.workers.drain(..) {
            self.parked.park(worker.stop());
        }
    }

    /// Adds or replaces a peer.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn set_peer(&mut self, id: PeerId, peer: Peer) -> Result<(), Error> {
        if id.index >= PeerId::MAX_INDEX {
            return Err(Error::Index(id));
        }
        self.tables.set_peer(id, peer, self.taps.len().max(1));
        self.changed = true;
        Ok(())
    }

    /// Removes a peer.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.tables.remove_peer(id);
        self.changed = true;
    }

    /// Who carries what has no direct path.
    pub const fn set_by_hub(&mut self, id: Option<PeerId>) {
        self.tables.by_hub = id;
        self.changed = true;
    }

    /// Who receives multicast and broadcast.
    pub fn set_multicast(&mut self, ids: Vec<PeerId>) {
        self.tables.multicast = ids.into();
        self.changed = true;
    }

    /// Replaces the hairpin's routes.
    pub fn set_hairpin(&mut self, routes: &[HairpinRoute]) {
        self.tables.set_hairpin(routes);
        self.changed = true;
    }

    /// Somebody captures, or no longer.
    pub const fn set_capture(&mut self, on: bool) {
        self.tables.capture = on;
        self.changed = true;
    }

    /// Lets workers see what changed. To be called after a run of changes and before they are acknowledged.
    pub fn publish(&mut self) {
        // First the owners have their SAs, then others hand them packets.
        self.settle();
        if std::mem::take(&mut self.changed) {
            self.published.publish(&self.tables);
        }
    }

    /// Sends a control message over exactly this path.
    ///
    /// # Errors
    /// [`Error::NoSocket`], [`Error::NoSa`], or what the kernel says.
    pub fn transmit(&mut self, path: Path, protocol: u16, payload: Vec<u8>) -> Result<(), Error> {
        let sockets = self.sockets.first().ok_or(Error::NotConfigured)?;
        let (socket, to) = sockets.towards(path).ok_or(Error::NoSocket(path))?;
        let protocol = gre::Protocol(protocol);
        let tos = if protocol == gre::Protocol::NHRP { CONTROL_TOS } else { 0 };
        if self.settings.as_ref().is_none_or(|settings| settings.encrypted) {
            let owner = self.tables.outbound.owner(path, 0).ok_or_else(|| {
                self.own_stats.count(Counter::DropNoSa);
                Error::NoSa(path)
            })?;
            return self.post(owner, Order::Transmit(path, Outer::with_tos(tos), protocol, payload));
        }
        let key = self.tables.tunnel.key;
        let header = gre::encoded_len(key);
        let mut packet = vec![0; header];
        packet.extend_from_slice(&payload);
        // There is room: `header` octets of it.
        let _ = gre::encode(&mut packet, header, protocol, key);
        let message = || [Outgoing { to, tos, segment: None, data: &packet }].into_iter();
        // The first error may be that of an earlier packet.
        self.sender.send(socket, message()).or_else(|_| self.sender.send(socket, message()))?;
        Ok(())
    }

    /// What was counted: of the tunnel by name, and of each peer.
    #[must_use]
    pub fn counters(&self) -> (BTreeMap<String, u64>, Vec<(PeerId, PeerCounters)>) {
        let mut totals = BTreeMap::new();
        for stats in &self.stats {
            stats.add_to(&mut totals);
        }
        self.own_stats.add_to(&mut totals);
        for (counter, lost) in self.losses() {
            *totals.entry(counter.name().to_owned()).or_default() += lost;
        }
        let now = Instant::from_nanos(poll::now());
        let peers =
            self.tables.peers.iter().map(|row| {
                (row.id, PeerCounters { narrowed: self.tables.narrowed(row, now), ..row.counters() })
            });
        (totals, peers.collect())
    }

    /// What was counted of each peer.
    pub fn peer_counters(&self) -> impl Iterator<Item = (PeerId, PeerCounters)> + '_ {
        self.tables.peers.iter().map(|row| (row.id, row.counters()))
    }

    /// Closes the queues and sockets and forgets peers and checkpoint; deletes the interface if that is wanted, also one
    /// that a datapath before this one left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn close(&mut self, delete_interface: bool) -> Result<(), Error> {
        self.workers.clear();
        self.parked = Parked::default();
        self.directory = Directory::default();
        self.keep_losses();
        self.sockets.clear();
        self.taps.clear();
        self.settings = None;
        self.checkpoint = None;
        self.tables = Tables::default();
        self.changed = true;
        if delete_interface {
            // Opening tells whether it is an interface of ours; it goes with its last queue, which this is.
            TapQueue::open(&self.name)?.release()?;
        }
        Ok(())
    }
}

fn validate(settings: &TunnelSettings) -> Result<(), Error> {
    if settings.workers == 0 || settings.workers > MAX_WORKERS {
        return Err(Error::Settings("a tunnel has 1 to 64 workers"));
    }
    if settings.bind.is_empty() || settings.bind.len() > MAX_BINDS {
        return Err(Error::Settings("a tunnel is bound to 1 to 8 underlay addresses"));
    }
    if settings.mtu < 576 {
        return Err(Error::Settings("the MTU is below 576"));
    }
    if settings.ike_port.is_some() && !settings.encrypted {
        return Err(Error::Settings("a port for IKE, and no encryption"));
    }
    if settings.ike_port == Some(settings.udp_port) {
        return Err(Error::Settings("IKE alone, and IKE with ESP, at the same port"));
    }
    if settings.ttl == 0 {
        return Err(Error::Settings("the TTL of outer packets is 0"));
    }
    Ok(())
}

fn open_sockets(settings: &TunnelSettings, number: u16) -> Result<Sockets, Error> {
    let mut sockets = Sockets::default();
    let carries = carries(settings.encrypted);
    for &address in &settings.bind {
        let at = SocketAddr::new(address, settings.udp_port);
        sockets.udp.push((at, UdpSocket::bind(at, settings.ttl)?));
        if settings.raw_gre {
            let share = (number, settings.workers);
            let socket = RawSocket::bind(carries, address, settings.ttl, share)?;
            sockets.raw.push((SocketAddr::new(address, 0), socket));
        }
        if let Some(port) = settings.ike_port.filter(|_| number == 0) {
            let at = SocketAddr::new(address, port);
            sockets.ike.push((at, UdpSocket::bind(at, settings.ttl)?));
        }
    }
    if number == 0 {
        sockets.clear = watch_clear(settings)?;
    }
    Ok(sockets)
}

/// GRE in clear by its IP protocol would be dropped by the kernel, which tells nobody. Of an encrypted tunnel it is seen,
/// and counted, and goes no further.
fn watch_clear(settings: &TunnelSettings) -> Result<Vec<RawSocket>, Error> {
    let seen = settings.encrypted && settings.raw_gre;
    let bound = settings.bind.iter().filter(|_| seen);
    Ok(bound.map(|address| RawSocket::watch_gre(*address, settings.gre_key)).collect::<io::Result<_>>()?)
}

const fn carries(encrypted: bool) -> Carries {
    if encrypted { Carries::Esp } else { Carries::Gre }
}

/// Lets the kernel give each ESP packet in UDP to the worker that owns its SA, and IKE to the first.
fn steer(settings: &TunnelSettings, first: &Sockets) -> Result<(), Error> {
    if settings.encrypted && settings.workers > 1 {
        let mask = u32::from(settings.workers.next_power_of_two()) - 1;
        for (_, socket) in &first.udp {
            steer::reuseport_by_first_word(socket, mask)?;
        }
    }
    Ok(())
}

/// Is this a sensible name for a tunnel? It becomes an interface's.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 15 && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}
