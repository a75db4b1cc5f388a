//! What is done to stations.

use super::Net;
use crate::flow::datagram;
use crate::station::{Station, StationId, Step};
use crate::underlay::Packet;
use dmvpn::{Input, RouteTarget, Tunnel};
use ipnet::IpNet;
use packet::Instant;
use rand::RngExt;
use std::net::IpAddr;

/// What time of day it is, seconds since 1970.
pub const EPOCH: u64 = 1_800_000_000;

impl Net {
    /// Sets, changes or removes a route of a station's kernel.
    pub fn set_route(&mut self, id: StationId, prefix: IpNet, target: Option<RouteTarget>) {
        self.station_mut(id).kernel.set_route(prefix, target);
        if self.station(id).booted {
            self.tell(id, Input::Route { prefix, target });
        }
    }

    /// A route by another station's tunnel address.
    pub fn set_route_via(&mut self, id: StationId, prefix: IpNet, via: StationId) {
        let via = self.tunnel_address(via);
        self.set_route(id, prefix, Some(RouteTarget::Overlay(Some(via))));
    }

    /// Control is killed; the datapath goes on.
    pub fn kill_control(&mut self, id: StationId) {
        self.station_mut(id).stop_control();
    }

    /// Control starts again, from the checkpoint that the datapath kept.
    ///
    /// # Panics
    /// When the checkpoint can't be used: that is a finding.
    pub fn restart_control(&mut self, id: StationId) {
        let (now, seed) = (self.now, self.seed());
        let station = self.station_mut(id);
        let checkpoint = station.datapath.checkpoint.clone();
        let mut tunnel = match checkpoint {
            Some(checkpoint) => Tunnel::restore(station.config.clone(), &checkpoint, seed, now)
                .unwrap_or_else(|error| panic!("{}: {error}", station.name)),
            None => engine(station, seed, now),
        };
        let differs = station.reconcile(tunnel.standing());
        station.steps.extend(differs.into_iter().map(Step::Do));
        tunnel.handle_input(now, Input::WallClock(EPOCH));
        for (prefix, target) in station.kernel.routes() {
            tunnel.handle_input(now, Input::Route { prefix, target: Some(target) });
        }
        station.tunnel = Some(tunnel);
        self.drain(id);
    }

    /// The power of a station fails.
    pub fn power_off(&mut self, id: StationId) {
        self.station_mut(id).lose_power();
    }

    /// A station boots.
    pub fn power_on(&mut self, id: StationId) {
        let (now, seed) = (self.now, self.seed());
        let station = self.station_mut(id);
        station.powered = true;
        station.booted = true;
        let mut tunnel = engine(station, seed, now);
        tunnel.handle_input(now, Input::WallClock(EPOCH));
        for (prefix, target) in station.kernel.routes() {
            tunnel.handle_input(now, Input::Route { prefix, target: Some(target) });
        }
        station.tunnel = Some(tunnel);
        self.drain(id);
    }

    /// A station takes its leave: it deregisters and withdraws what it answered. It runs on until it is switched off.
    pub fn shut_down(&mut self, id: StationId) {
        let now = self.now;
        if let Some(tunnel) = &mut self.station_mut(id).tunnel {
            tunnel.shutdown(now);
            self.drain(id);
        }
    }

    /// A station gets another underlay address, as one does that moves.
    pub fn move_to(&mut self, id: StationId, address: IpAddr) {
        self.underlay.attach(id, address, None);
        let station = self.station_mut(id);
        station.config.nbma_address = address;
        self.tell(id, Input::UnderlayAddress(address));
    }

    /// A multicast packet from this station's own kernel.
    pub fn send_multicast(&mut self, id: StationId) {
        let source = self.tunnel_address(id);
        let bytes = datagram(source, IpAddr::from([224, 0, 0, 5]), 60);
        let peers = self.station(id).datapath.multicast().to_vec();
        for peer in peers {
            let packet = Packet { bytes: bytes.clone(), journey: None };
            self.frame(id, peer.mac(), packet);
        }
    }

    /// The datapath crashes and starts again at once: it knows nothing, and control tells it what stands.
    pub fn crash_datapath(&mut self, id: StationId) {
        let now = self.now;
        let station = self.station_mut(id);
        station.datapath = crate::station::datapath(&station.config);
        let differs = station.tunnel.as_ref().map(|tunnel| station.reconcile(tunnel.standing()));
        station.steps.extend(differs.into_iter().flatten().map(Step::Do));
        if let Some(tunnel) = &mut station.tunnel {
            tunnel.datapath_lost(now);
            self.drain(id);
        }
    }

    fn seed(&mut self) -> [u8; 32] {
        self.rng.random()
    }
}

/// # Panics
/// When the configuration is wrong.
fn engine(station: &Station, seed: [u8; 32], now: Instant) -> Tunnel {
    Tunnel::new(station.config.clone(), seed, now, station.request_id)
        .unwrap_or_else(|error| panic!("{}: {error}", station.name))
}
