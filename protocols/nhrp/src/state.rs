//! What a station holds, and how it survives a restart of its process.

use crate::answered::Answered;
use crate::cache::{Registrations, Resolved};
use crate::config::{Config, NhsId, StaticEntry};
use crate::counters::Counters;
use crate::event::ResolutionId;
use crate::forward::Forwards;
use crate::limits::Limits;
use crate::node::Node;
use crate::purge::Purge;
use crate::registration::Nhs;
use crate::resolution::Resolution;
use crate::timer::Timers;
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Request IDs skipped when starting from a checkpoint, which may be older than the last request.
const SKIPPED_IDS: u32 = 1024;

/// What survives a restart of the process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) next_request_id: u32,
    /// Used for all registrations and purges where [`crate::Quirks::fixed_request_id`] is set.
    pub(crate) fixed_request_id: u32,
    pub(crate) token: u64,
    pub(crate) next_resolution: u32,
    pub(crate) nhs: BTreeMap<NhsId, Nhs>,
    pub(crate) preferred: Option<NhsId>,
    pub(crate) registered: Registrations,
    pub(crate) statics: BTreeMap<IpAddr, StaticEntry>,
    pub(crate) resolved: BTreeMap<IpNet, Resolved>,
    pub(crate) resolutions: BTreeMap<ResolutionId, Resolution>,
    /// IDs of the last resolutions, so that a repeated answer isn't taken for an unsolicited one.
    pub(crate) finished: VecDeque<u32>,
    pub(crate) answered: Answered,
    pub(crate) purges: BTreeMap<u32, Purge>,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
}

/// A station's state, to be written down and given to the [`Node`] that comes after it. Moments in it are of the
/// host's monotonic clock: it is of no use after a reboot.
#[derive(Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    addresses: Vec<IpAddr>,
    state: State,
}

impl Node {
    /// A station that knows nobody yet. The seed must be random; it feeds jitter and the probe token.
    ///
    //= rfc2332#5.2.3
    /// Registration request IDs must not repeat over restarts: pass a `first_request_id` ahead of all used before
    /// (see [`Node::request_id`]).
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], first_request_id: u32) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let state = State {
            next_request_id: first_request_id,
            fixed_request_id: first_request_id,
            token: rng.next_u64(),
            next_resolution: 0,
            nhs: BTreeMap::new(),
            preferred: None,
            registered: Registrations::default(),
            statics: BTreeMap::new(),
            resolved: BTreeMap::new(),
            resolutions: BTreeMap::new(),
            finished: VecDeque::new(),
            answered: Answered::default(),
            purges: BTreeMap::new(),
            timers: Timers::default(),
            counters: Counters::default(),
        };
        Self::with(config, rng, state)
    }

    /// The station that wrote the checkpoint, gone on. Nothing is announced again: what it knew, it still knows.
    /// When our tunnel addresses have changed since, servers are registered with anew.
    #[must_use]
    pub fn restore(config: Config, checkpoint: Checkpoint, seed: [u8; 32]) -> Self {
        let Checkpoint { addresses, mut state } = checkpoint;
        state.next_request_id = state.next_request_id.wrapping_add(SKIPPED_IDS);
        if addresses != config.protocol_addresses {
            state.nhs.clear();
        }
        Self::with(config, StdRng::from_seed(seed), state)
    }

    fn with(config: Config, rng: StdRng, state: State) -> Self {
        let limits = Limits::new(config.max_entries);
        let forwards = Forwards::new(config.max_entries);
        let (transmits, events) = (VecDeque::new(), VecDeque::new());
        Self { config, state, limits, forwards, rng, transmits, events }
    }

    /// All that must be written down for [`Node::restore`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { addresses: self.config.protocol_addresses.clone(), state: self.state.clone() }
    }

    /// The ID that the next request will have. Written down where it survives a reboot; the next start skips ahead.
    #[must_use]
    pub const fn request_id(&self) -> u32 {
        self.state.next_request_id
    }

    /// Our probe token: goes to every station of ours with each request and reply, and stays the same while the
    /// state lives. Probes between two of ours carry the exclusive or of both tokens.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.state.token
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }
}
