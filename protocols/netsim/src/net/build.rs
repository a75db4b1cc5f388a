//! Building a network.

use super::Net;
use crate::link::Link;
use crate::nat::NatKind;
use crate::plan::{self, Place};
use crate::queue::Queue;
use crate::security;
use crate::station::{Station, StationId};
use crate::underlay::{NatId, Underlay};
use dmvpn::{Config, Phase};
use ipnet::IpNet;
use packet::Instant;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

impl Net {
    /// An empty network, whose stations will be configured for this phase.
    #[must_use]
    pub fn new(seed: u64, phase: Phase) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            rng: StdRng::seed_from_u64(seed),
            queue: Queue::new(),
            underlay: Underlay::default(),
            stations: Vec::new(),
            flows: Vec::new(),
            phase,
            overlay_v6: false,
            underlay_v6: false,
            encrypted: false,
            checkpoints: true,
            loops: Vec::new(),
            drops: BTreeMap::new(),
            spins: (Instant::ZERO, 0),
            counts: (0, 0, 0),
        }
    }

    /// Stations get IPv6 tunnel addresses and LANs as well.
    #[must_use]
    pub fn with_overlay_v6(self) -> Self {
        Self { overlay_v6: true, ..self }
    }

    /// Stations get IPv6 underlay addresses instead of IPv4.
    #[must_use]
    pub fn with_underlay_v6(self) -> Self {
        Self { underlay_v6: true, ..self }
    }

    /// Stations speak IKE with a pre-shared key, and nothing passes in clear.
    #[must_use]
    pub fn with_encryption(self) -> Self {
        Self { encrypted: true, ..self }
    }

    /// Control keeps no checkpoints: for networks too large to write one after every message.
    #[must_use]
    pub fn without_checkpoints(self) -> Self {
        Self { checkpoints: false, ..self }
    }

    /// Adds a hub that registers with nobody.
    pub fn hub(&mut self, name: &str) -> StationId {
        self.chained_hub(name, &[])
    }

    /// Adds a hub that registers with other hubs.
    pub fn chained_hub(&mut self, name: &str, hubs: &[StationId]) -> StationId {
        self.counts.0 += 1;
        self.add(name, Place::Hub(self.counts.0), hubs, None)
    }

    /// Adds a hub behind a translator that maps one to one.
    pub fn hub_behind(&mut self, name: &str, nat: NatId) -> StationId {
        self.counts.0 += 1;
        self.add(name, Place::Hub(self.counts.0), &[], Some(nat))
    }

    /// Adds a spoke; the first hub is the best.
    pub fn spoke(&mut self, name: &str, hubs: &[StationId]) -> StationId {
        self.counts.1 += 1;
        self.add(name, Place::Spoke(self.counts.1), hubs, None)
    }

    /// Adds a spoke behind a translator.
    pub fn spoke_behind(&mut self, name: &str, nat: NatId, hubs: &[StationId]) -> StationId {
        self.counts.1 += 1;
        self.add(name, Place::Spoke(self.counts.1), hubs, Some(nat))
    }

    /// Adds a translator.
    pub fn nat(&mut self, kind: NatKind) -> NatId {
        self.add_nat(kind, false)
    }

    /// Adds a translator that turns back what its inside sends to its outside.
    pub fn nat_with_hairpin(&mut self, kind: NatKind) -> NatId {
        self.add_nat(kind, true)
    }

    fn add_nat(&mut self, kind: NatKind, hairpin: bool) -> NatId {
        self.counts.2 += 1;
        let public = IpAddr::from([192, 0, 2, self.counts.2.to_be_bytes()[1]]);
        self.underlay.add_nat(public, kind, hairpin)
    }

    fn add(&mut self, name: &str, place: Place, hubs: &[StationId], nat: Option<NatId>) -> StationId {
        let id = StationId(self.stations.len());
        let address = match nat {
            Some(_) => place.private(),
            None => place.underlay(self.underlay_v6),
        };
        self.underlay.attach(id, address, nat);
        let public = nat.and_then(|nat| self.underlay.public_address(nat));
        // A hub behind a translator is told its address outside; a spoke doesn't know it.
        let nbma = match place {
            Place::Hub(_) => public.unwrap_or(address),
            Place::Spoke(_) => address,
        };
        let mut config = plan::config(name, place, self.phase, self.overlay_v6, nbma);
        let port = if self.encrypted { security::PORT } else { plan::PORT };
        if self.encrypted {
            config.udp_port = port;
            config.security = Some(security::shared_key(&config.identity, address));
        }
        config.hubs = (0..)
            .zip(hubs)
            .map(|(n, hub)| {
                let hub = self.station(*hub);
                plan::hub_config(n, &hub.name, hub.config.nbma_address, port)
            })
            .collect();
        let (four, six) = place.lan();
        let lans = if self.overlay_v6 { vec![four, six] } else { vec![four] };
        self.stations.push(Station::new(name, config, lans, hubs.to_vec()));
        id
    }

    /// Changes a station's configuration. A running engine is told.
    pub fn configure(&mut self, id: StationId, change: impl FnOnce(&mut Config)) {
        let now = self.now;
        let station = self.station_mut(id);
        change(&mut station.config);
        let config = station.config.clone();
        station.datapath.set_own(config.addresses.iter().copied());
        if let Some(tunnel) = &mut station.tunnel {
            tunnel.reconfigure(now, config);
            self.drain(id);
        }
    }

    /// The link that two sites have if nothing else is said.
    pub const fn set_default_link(&mut self, link: Link) {
        self.underlay.set_default_link(link);
    }

    /// Sets the link between two stations (between their translators, if they are behind one), both ways.
    pub fn set_link(&mut self, a: StationId, b: StationId, link: Link) {
        self.underlay.set_link(a, b, link);
    }

    /// Sets the link from one station to another in that direction only.
    pub fn set_link_one_way(&mut self, from: StationId, to: StationId, link: Link) {
        self.underlay.set_link_one_way(from, to, link);
    }

    /// What lies behind a station, instead of what the plan says; the first is where its host is.
    pub fn set_lans(&mut self, id: StationId, lans: &[IpNet]) {
        self.station_mut(id).lans = lans.to_vec();
    }

    /// Nothing passes between these two any more.
    pub fn cut(&mut self, a: StationId, b: StationId) {
        let link = self.underlay.link(a, b).cut();
        self.underlay.set_link(a, b, link);
    }

    /// The link between them works again.
    pub fn mend(&mut self, a: StationId, b: StationId) {
        let link = Link { down: false, ..self.underlay.link(a, b) };
        self.underlay.set_link(a, b, link);
    }
}
