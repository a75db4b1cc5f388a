//! The network: stations, what lies between them, and the clock.

mod build;
mod control;
pub(crate) mod orders;
mod traffic;
mod view;
mod walk;

use crate::flow::{Flow, FlowId};
use crate::plan;
use crate::queue::Queue;
use crate::station::{Station, StationId};
use crate::underlay::{Datagram, Site, Underlay};
use dmvpn::{Input, Phase, RouteTarget};
use ipnet::IpNet;
use packet::Instant;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A virtual network.
///
/// Add stations, then let time pass by [`run_for`](Self::run_for): they boot, register, and carry the traffic of
/// [`flow`](Self::flow)s. Everything that happens follows from the seed.
pub struct Net {
    now: Instant,
    rng: StdRng,
    queue: Queue<Happening>,
    underlay: Underlay,
    stations: Vec<Station>,
    flows: Vec<Flow>,
    phase: Phase,
    overlay_v6: bool,
    underlay_v6: bool,
    encrypted: bool,
    checkpoints: bool,
    loops: Vec<(usize, u64, Vec<StationId>)>,
    drops: BTreeMap<&'static str, u64>,
    spins: (Instant, u32),
    counts: (u16, u16, u16),
}

enum Happening {
    Arrives(Site, Box<Datagram>),
    /// The datapath tells control, if it is still the same process.
    Told(StationId, u32, Box<Input>),
    /// The first step in the queue is done.
    Stepped(StationId, u32),
    Timer(StationId, Instant),
    Activity(StationId),
    Sends(FlowId),
}

/// Time.
impl Net {
    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        self.boot();
        while let Some((at, happening)) = self.queue.pop(until) {
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Lets time pass until something is so, at most this long. Tells whether it became so.
    pub fn run_until(&mut self, most: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + most;
        while self.now < end && !is_so(self) {
            self.run_for(Duration::from_millis(10));
        }
        is_so(self)
    }

    /// Boots what was added.
    fn boot(&mut self) {
        let new: Vec<_> =
            (0..self.stations.len()).map(StationId).filter(|id| !self.station(*id).booted).collect();
        if new.is_empty() {
            return;
        }
        for id in &new {
            for (prefix, target) in self.station(*id).own_routes() {
                self.station_mut(*id).kernel.set_route(prefix, Some(target));
            }
        }
        for id in &new {
            self.spread_routes(*id);
        }
        for id in new {
            self.power_on(id);
        }
    }

    /// What a routing protocol would do once a station has joined.
    fn spread_routes(&mut self, id: StationId) {
        let is_hub = |net: &Self, id: StationId| net.station(id).config.hub;
        let (lans, addresses) = (self.station(id).lans.clone(), self.station(id).config.addresses.clone());
        let hubs = self.station(id).hubs.clone();
        // Its LANs, at every hub it registers with, and, through those, at the hubs above.
        let mut next = hubs.clone();
        let mut via = addresses.clone();
        while let Some(first) = next.first().copied() {
            for hub in &next {
                self.routes_via(*hub, &lans, &via);
            }
            via = self.station(first).config.addresses.clone();
            next = self.station(first).hubs.clone();
        }
        // Everything else, by its first hub.
        if let Some(hub) = hubs.first().copied()
            && (self.phase != Phase::Two || is_hub(self, id))
        {
            let (four, six) = plan::everything();
            let via = self.station(hub).config.addresses.clone();
            self.routes_via(id, &[four, six], &via);
        }
        if self.phase == Phase::Two && !is_hub(self, id) {
            for other in (0..self.stations.len()).map(StationId).filter(|other| *other != id) {
                let (theirs, at) =
                    (self.station(other).lans.clone(), self.station(other).config.addresses.clone());
                self.routes_via(id, &theirs, &at);
                if !is_hub(self, other) {
                    self.routes_via(other, &lans, &addresses);
                }
            }
        }
    }

    /// Routes by next hops of the same IP version.
    fn routes_via(&mut self, id: StationId, prefixes: &[IpNet], via: &[IpAddr]) {
        for prefix in prefixes {
            let via = via.iter().find(|a| a.is_ipv4() == prefix.addr().is_ipv4()).copied();
            if via.is_some() {
                self.set_route(id, *prefix, Some(RouteTarget::Overlay(via)));
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(site, datagram) => self.arrives(site, *datagram),
            Happening::Told(id, epoch, input) => {
                if self.station(id).epoch == epoch {
                    self.tell(id, *input);
                }
            }
            Happening::Stepped(id, epoch) => {
                if self.station(id).epoch == epoch {
                    self.stepped(id);
                }
            }
            Happening::Timer(id, at) => self.timer(id, at),
            Happening::Activity(id) => self.activity(id),
            Happening::Sends(flow) => self.sends(flow),
        }
    }

    fn sends(&mut self, id: FlowId) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(id.0).filter(|f| f.running) else { return };
        let packet = flow.packet(now, id.0);
        let (from, interval) = (flow.from, flow.interval);
        self.queue.push(now + interval, Happening::Sends(id));
        if self.station(from).powered {
            self.forward(from, packet);
        }
    }

    pub(super) fn station(&self, id: StationId) -> &Station {
        &self.stations[id.0]
    }

    pub(super) fn station_mut(&mut self, id: StationId) -> &mut Station {
        &mut self.stations[id.0]
    }
}
