//! What survives a restart of the process: everything but the kernel's routes, which are told anew.

use crate::config::{Config, Phase};
use crate::gate::Gate;
use crate::hub::Hubs;
use crate::outside::{Outside, Standing};
use crate::peer::Peer;
use crate::peers::Peers;
use crate::shortcut::{Shortcut, Shortcuts};
use crate::slots::Slots;
use crate::timer::Timer;
use crate::tunnel::{Tunnel, station};
use nhrp::Node;
use packet::Instant;
use postcard::ser_flavors::Size;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Of what follows. Another version's checkpoint is not read.
const VERSION: u32 = 5;

/// A checkpoint could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by another version, or damaged.
    #[error("the checkpoint can't be read")]
    Unreadable,
    /// Written for another identity or other tunnel addresses.
    #[error("the checkpoint is of another station")]
    OtherStation,
    /// The settings of IKE can't be used.
    #[error("{0}")]
    Security(#[from] ikev2::ConfigError),
}

#[derive(Serialize, Deserialize)]
struct Checkpoint<'a> {
    version: u32,
    identity: Cow<'a, str>,
    addresses: Cow<'a, [IpAddr]>,
    nbma_address: IpAddr,
    next_probe: u64,
    slots: Cow<'a, Slots>,
    peers: Vec<Cow<'a, Peer>>,
    hubs: Cow<'a, Hubs>,
    shortcuts: Vec<Cow<'a, Shortcut>>,
    standing: Cow<'a, Standing>,
    node: nhrp::Checkpoint,
    #[serde(borrow, with = "serde_bytes")]
    sessions: Option<Cow<'a, [u8]>>,
}

/// Plain data, written into memory of its size: were that to grow, copies of keys would stay behind.
pub(crate) fn written(data: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let size = postcard::serialize_with_flavor(data, Size::default());
    let room = Vec::with_capacity(size.unwrap_or_default());
    // This can't fail; if it ever did, the next process would start anew.
    Zeroizing::new(postcard::to_extend(data, room).unwrap_or_default())
}

impl Tunnel {
    /// What [`Self::restore`] needs. Take one after a drain that had actions; on a hub with many spokes, not more
    /// often than a few times a second, since it holds them all.
    #[must_use]
    pub fn checkpoint(&self, now: Instant) -> Zeroizing<Vec<u8>> {
        let _ = now;
        let sessions = self.gate.as_ref().map(Gate::checkpoint);
        let checkpoint = Checkpoint {
            version: VERSION,
            identity: Cow::Borrowed(&self.config.identity),
            addresses: Cow::Borrowed(&self.config.addresses),
            nbma_address: self.config.nbma_address,
            next_probe: self.next_probe,
            slots: Cow::Borrowed(&self.peers.slots),
            peers: self.peers.iter().map(Cow::Borrowed).collect(),
            hubs: Cow::Borrowed(&self.hubs),
            shortcuts: self.shortcuts.iter().map(Cow::Borrowed).collect(),
            standing: Cow::Borrowed(&self.outside.standing),
            node: self.node.checkpoint(),
            sessions: sessions.as_ref().map(|octets| Cow::Borrowed(octets.as_slice())),
        };
        written(&checkpoint)
    }

    /// The engine that wrote `checkpoint`, as it was. It emits no action for what still stands
    /// ([`Self::standing`]); paths that carry are probed at once. Tell it the kernel's routes before anything else,
    /// then drive it as a new one.
    ///
    /// # Errors
    /// The checkpoint can't be used; make a new engine.
    pub fn restore(
        config: Config,
        checkpoint: &[u8],
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, RestoreError> {
        let old: Checkpoint<'_> = postcard::from_bytes(checkpoint).map_err(|_| RestoreError::Unreadable)?;
        if old.version != VERSION {
            return Err(RestoreError::Unreadable);
        }
        if *old.identity != config.identity
            || *old.addresses != config.addresses
            || old.sessions.is_some() != config.security.is_some()
        {
            return Err(RestoreError::OtherStation);
        }
        let mut random = StdRng::from_seed(seed);
        let mut node_seed = [0; 32];
        random.fill_bytes(&mut node_seed);
        let station = nhrp::Config { nbma_address: old.nbma_address, ..station(&config) };
        let node = Node::restore(station, old.node, node_seed);
        let mut tunnel = Self::around(config, node, random);
        if let (Some(security), Some(sessions)) = (tunnel.config.security.clone(), old.sessions) {
            let sessions = postcard::from_bytes(&sessions).map_err(|_| RestoreError::Unreadable)?;
            tunnel.gate = Some(Gate::restore(&security, sessions, tunnel.seed(), now)?);
            tunnel.watch_sessions(now);
        }
        tunnel.next_probe = old.next_probe;
        tunnel.learning_routes = true;
        tunnel.hubs = old.hubs.into_owned();
        let peers = old.peers.into_iter().map(Cow::into_owned).collect();
        tunnel.peers = Peers::resumed(old.slots.into_owned(), peers);
        tunnel.shortcuts = Shortcuts::resumed(old.shortcuts.into_iter().map(Cow::into_owned).collect());
        tunnel.outside = Outside::resumed(old.standing.into_owned());
        for id in tunnel.peers.ids() {
            if let Some(peer) = tunnel.peers.get_mut(id) {
                peer.resume();
            }
            tunnel.touch(now, id);
        }
        tunnel.retime_all(now);
        tunnel.multicast_changed();
        tunnel.timers.set(Timer::Hubs, now);
        // What was changed meanwhile.
        let config = tunnel.config.clone();
        tunnel.config.nbma_address = old.nbma_address;
        tunnel.underlay_changed(now, config.nbma_address);
        if config.phase == Phase::One {
            tunnel.clear_shortcuts(now, None);
        }
        tunnel.apply_peers(now, &config, &[]);
        tunnel.settle(now);
        Ok(tunnel)
    }
}
