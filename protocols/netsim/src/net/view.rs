//! Looking at a network.

use super::Net;
use crate::station::StationId;
use dmvpn::{Action, Event, Tunnel};
use ipnet::IpNet;
use packet::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Net {
    /// Now.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The engine of a station.
    ///
    /// # Panics
    /// When its control is not running.
    #[must_use]
    pub fn tunnel(&self, id: StationId) -> &Tunnel {
        let station = self.station(id);
        match &station.tunnel {
            Some(tunnel) => tunnel,
            None => panic!("control of {} is not running", station.name),
        }
    }

    /// Takes a station's engine away, as [`kill_control`](Self::kill_control) does, to look at what it holds.
    pub fn take_tunnel(&mut self, id: StationId) -> Option<Tunnel> {
        let tunnel = self.station_mut(id).tunnel.take();
        self.station_mut(id).stop_control();
        tunnel
    }

    /// What a station told people, and when.
    #[must_use]
    pub fn events(&self, id: StationId) -> &[(Instant, Event)] {
        &self.station(id).events
    }

    /// Is there an event like this since `since`?
    pub fn told(&self, id: StationId, since: Instant, like: impl Fn(&Event) -> bool) -> bool {
        self.events(id).iter().any(|(at, event)| *at >= since && like(event))
    }

    /// What a station's datapath dropped, by reason.
    #[must_use]
    pub fn drops(&self, id: StationId) -> &BTreeMap<&'static str, u64> {
        self.station(id).datapath.drops()
    }

    /// How many inbound and outbound SAs a station's datapath has.
    #[must_use]
    pub fn sas(&self, id: StationId) -> (usize, usize) {
        self.station(id).datapath.sas.as_ref().map(crate::sa::Sas::count).unwrap_or_default()
    }

    /// What the underlay dropped, by reason.
    #[must_use]
    pub const fn underlay_drops(&self) -> &BTreeMap<&'static str, u64> {
        &self.drops
    }

    /// Multicast packets that reached a station's kernel.
    #[must_use]
    pub fn multicast_received(&self, id: StationId) -> u64 {
        self.station(id).multicast_received
    }

    /// The shortcut routes in a station's kernel.
    #[must_use]
    pub fn shortcuts(&self, id: StationId) -> BTreeMap<IpNet, IpAddr> {
        self.station(id).kernel.shortcuts()
    }

    /// The IPv4 tunnel address of a station.
    ///
    /// # Panics
    /// When it was configured without any.
    #[must_use]
    pub fn tunnel_address(&self, id: StationId) -> IpAddr {
        self.station(id).config.addresses[0]
    }

    /// The IPv4 LAN of a station.
    #[must_use]
    pub fn lan(&self, id: StationId) -> IpNet {
        self.station(id).lans[0]
    }

    /// The first host of a station's IPv4 LAN.
    ///
    /// # Panics
    /// Never: every station has one.
    #[must_use]
    pub fn host(&self, id: StationId) -> IpAddr {
        self.station(id).host(true).expect("every station has an IPv4 LAN")
    }

    /// The underlay address of a station, as it knows it itself.
    #[must_use]
    pub fn underlay_address(&self, id: StationId) -> Option<IpAddr> {
        self.underlay.addresses().get(&id).copied()
    }

    /// What in the datapath and the kernel of a station is not as its engine believes: what would have to be ordered to
    /// make it so. `None`: control is not running, or what it ordered is not done yet.
    #[must_use]
    pub fn differences(&self, id: StationId) -> Option<Vec<Action>> {
        let station = self.station(id);
        let tunnel = station.tunnel.as_ref().filter(|_| station.steps.is_empty())?;
        Some(station.reconcile(tunnel.standing()))
    }
}
