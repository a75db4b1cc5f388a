//! A tunnel that passes to another process: what it is, as plain data, and its descriptors in a fixed order.

use super::{Error, Tunnel};
use crate::directory::{Directory, Secrets};
use crate::io::Sockets;
use crate::messages::{HairpinRoute, Peer, PeerCounters, TunnelSettings};
use crate::punt::PuntSource;
use crate::sa::{InboundNumbers, OutboundNumbers, Parked};
use esp::BadKeys;
use linux_io::TapQueue;
use linux_io::raw::RawSocket;
use linux_io::udp::UdpSocket;
use packet::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use zeroize::Zeroizing;

/// All of a tunnel that is neither a descriptor nor changes with every packet. It is told while packets still pass.
#[derive(Serialize, Deserialize)]
pub struct TunnelState {
    name: String,
    settings: Option<TunnelSettings>,
    peers: Vec<(PeerId, Peer)>,
    by_hub: Option<PeerId>,
    multicast: Vec<PeerId>,
    hairpin: Vec<HairpinRoute>,
    checkpoint: Option<Zeroizing<Vec<u8>>>,
    secrets: Secrets,
    queues: usize,
    sockets: Vec<SocketAddresses>,
}

/// The rest, when none pass any more.
#[derive(Serialize, Deserialize)]
pub struct TunnelNumbers {
    name: String,
    inbound: Vec<InboundNumbers>,
    outbound: Vec<OutboundNumbers>,
    /// Counters, and what is known of the path's MTU.
    peers: Vec<(PeerId, PeerCounters, u64)>,
    totals: BTreeMap<String, u64>,
}

/// What one worker's sockets are bound to.
#[derive(Serialize, Deserialize)]
struct SocketAddresses {
    udp: Vec<SocketAddr>,
    raw: Vec<SocketAddr>,
    ike: Vec<SocketAddr>,
}

/// Why a tunnel of another process can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The kernel does not like a descriptor.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No SA can be made of the keys.
    #[error("{0}")]
    Keys(#[from] BadKeys),
    /// It was taken over, and can't go on.
    #[error("{0}")]
    Tunnel(#[from] Error),
    /// Fewer descriptors than the tunnel has.
    #[error("a descriptor is missing")]
    Missing,
}

impl TunnelState {
    /// Whose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many descriptors belong to it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let of = |s: &SocketAddresses| s.udp.len() + s.raw.len() + s.ike.len();
        self.queues + self.sockets.iter().map(of).sum::<usize>()
    }
}

impl Tunnel {
    /// Ends the workers: nothing is sent or received from here on, and what arrives waits in the kernel's queues.
    pub fn suspend(&mut self) {
        self.stop();
    }

    /// Goes on after [`Self::suspend`], as if nothing had been.
    ///
    /// # Errors
    /// When the process is out of threads or descriptors.
    pub fn resume(&mut self) -> Result<(), Error> {
        if self.settings.is_none() || self.sockets.is_empty() { Ok(()) } else { self.start() }
    }

    /// Another process has the tunnel now: forgets the SAs, so that no nonce can be used twice.
    pub fn surrender(&mut self) {
        self.workers.clear();
        self.parked = Parked::default();
        self.directory = Directory::default();
        self.settings = None;
        self.checkpoint = None;
    }

    /// What a successor can know before the workers end.
    #[must_use]
    pub fn state(&self) -> TunnelState {
        let addresses = |sockets: &Arc<Sockets>| SocketAddresses {
            udp: sockets.udp.iter().map(|(at, _)| *at).collect(),
            raw: sockets.raw.iter().map(|(at, _)| *at).collect(),
            ike: sockets.ike.iter().map(|(at, _)| *at).collect(),
        };
        TunnelState {
            name: self.name.clone(),
            settings: self.settings.clone(),
            peers: self.peers(),
            by_hub: self.tables.by_hub,
            multicast: self.tables.multicast.to_vec(),
            hairpin: self.tables.hairpin_routes(),
            checkpoint: self.checkpoint.clone(),
            secrets: self.directory.secrets(),
            queues: self.taps.len(),
            sockets: self.sockets.iter().map(addresses).collect(),
        }
    }

    /// What a successor must know when the workers have ended, and may not know before.
    #[must_use]
    pub fn numbers(&self) -> TunnelNumbers {
        let (inbound, outbound) = self.parked.numbers();
        let peers = self.tables.peers.iter().map(|row| (row.id, row.counters(), row.path_mtu.state()));
        let (name, totals) = (self.name.clone(), self.counters().0);
        TunnelNumbers { name, inbound, outbound, peers: peers.collect(), totals }
    }

    /// Its descriptors: the queues, then each worker's sockets.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all: Vec<_> = self.taps.iter().map(|tap| tap.as_fd()).collect();
        for sockets in &self.sockets {
            all.extend(sockets.udp.iter().map(|(_, socket)| socket.as_fd()));
            all.extend(sockets.raw.iter().map(|(_, socket)| socket.as_fd()));
            all.extend(sockets.ike.iter().map(|(_, socket)| socket.as_fd()));
        }
        all
    }

    /// A tunnel that another process still has, with its `descriptors`. It does nothing before [`Self::inherit`].
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn adopt(
        state: TunnelState,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
        punts: PuntSource,
    ) -> Result<Self, Unfit> {
        let mut tunnel = Self::new(&state.name, punts);
        for _ in 0..state.queues {
            let tap = TapQueue::adopt(&state.name, next(descriptors)?)?;
            tunnel.taps.push(Arc::new(tap));
        }
        let encrypted = state.settings.as_ref().is_some_and(|settings| settings.encrypted);
        for addresses in state.sockets {
            let mut sockets = Sockets::default();
            for at in addresses.udp {
                sockets.udp.push((at, UdpSocket::adopt(next(descriptors)?)));
            }
            for at in addresses.raw {
                let socket = RawSocket::adopt(super::carries(encrypted), at.ip(), next(descriptors)?);
                sockets.raw.push((at, socket));
            }
            for at in addresses.ike {
                sockets.ike.push((at, UdpSocket::adopt(next(descriptors)?)));
            }
            // Nothing waits in the predecessor's that would matter.
            if let Some(settings) = state.settings.as_ref().filter(|_| tunnel.sockets.is_empty()) {
                sockets.clear = super::watch_clear(settings)?;
            }
            tunnel.sockets.push(Arc::new(sockets));
        }
        if let Some(settings) = &state.settings {
            tunnel.tables.configure(settings);
        }
        let workers = tunnel.sockets.len().max(1);
        for (id, peer) in state.peers {
            tunnel.tables.set_peer(id, peer, workers);
        }
        tunnel.tables.by_hub = state.by_hub;
        tunnel.tables.multicast = state.multicast.into();
        tunnel.tables.set_hairpin(&state.hairpin);
        tunnel.inherited = state.secrets;
        tunnel.checkpoint = state.checkpoint;
        tunnel.settings = state.settings;
        tunnel.changed = true;
        Ok(tunnel)
    }

    /// The other process has stopped, and so far it came: goes on from there.
    ///
    /// # Errors
    /// [`Unfit`], or what the kernel says.
    pub fn inherit(&mut self, numbers: TunnelNumbers) -> Result<(), Unfit> {
        let secrets = std::mem::take(&mut self.inherited);
        let (workers, owners) = (self.sockets.len(), &mut self.tables.outbound);
        let numbers_of_sas = (numbers.inbound, numbers.outbound);
        self.parked = self.directory.inherit(secrets, numbers_of_sas, workers, owners)?;
        for (id, counters, path_mtu) in numbers.peers {
            let Some(row) = self.tables.peer(id) else { continue };
            row.path_mtu.resume(path_mtu);
            if let Some(stats) = row.stats.first() {
                stats.sent(counters.packets_sent, counters.bytes_sent);
                stats.received(counters.packets_received, counters.bytes_received);
            }
        }
        self.own_stats.resume(&numbers.totals);
        self.watch_losses();
        Ok(self.resume()?)
    }
}

impl TunnelNumbers {
    /// Whose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn next(descriptors: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, Unfit> {
    descriptors.next().ok_or(Unfit::Missing)
}
