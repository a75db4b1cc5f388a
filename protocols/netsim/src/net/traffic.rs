//! Traffic, and what became of it.

use super::{Happening, Net};
use crate::flow::{Flow, FlowId, Report};
use crate::station::StationId;
use std::net::IpAddr;
use std::time::Duration;

impl Net {
    /// Starts to send packets of 100 octets from a host behind one station to a host behind another, this many a second.
    pub fn flow(&mut self, from: StationId, to: StationId, rate: u32) -> FlowId {
        let (source, destination) = (self.host(from), self.host(to));
        self.flow_between(from, source, destination, rate, 100)
    }

    /// The same over IPv6.
    ///
    /// # Panics
    /// When the stations have no IPv6.
    pub fn flow_v6(&mut self, from: StationId, to: StationId, rate: u32) -> FlowId {
        let ends = self.station(from).host(false).zip(self.station(to).host(false));
        let Some((source, destination)) = ends else { panic!("the overlay has no IPv6") };
        self.flow_between(from, source, destination, rate, 100)
    }

    /// The same between any two addresses, with packets of any size.
    pub fn flow_between(
        &mut self,
        from: StationId,
        source: IpAddr,
        destination: IpAddr,
        rate: u32,
        size: usize,
    ) -> FlowId {
        let id = FlowId(self.flows.len());
        let interval = Duration::from_secs(1) / rate.max(1);
        self.flows.push(Flow::new(from, source, destination, interval, size));
        self.queue.push(self.now, Happening::Sends(id));
        id
    }

    /// Ends a flow, waits for what is under way, and tells what became of it.
    pub fn finish(&mut self, flow: FlowId) -> Report {
        if let Some(flow) = self.flows.get_mut(flow.0) {
            flow.running = false;
        }
        self.run_for(Duration::from_secs(1));
        self.report(flow)
    }

    /// What has become of a flow so far; what is under way counts as lost.
    ///
    /// # Panics
    /// When the flow is of another network.
    #[must_use]
    pub fn report(&self, flow: FlowId) -> Report {
        self.flows[flow.0].report()
    }

    /// The stations between the ends that the packet passed which arrived last.
    #[must_use]
    pub fn last_way(&self, flow: FlowId) -> Option<&[StationId]> {
        self.flows.get(flow.0)?.last_way()
    }

    /// Did the packet that arrived last come straight from the other end?
    #[must_use]
    pub fn is_direct(&self, flow: FlowId) -> bool {
        self.last_way(flow) == Some(&[])
    }

    /// How long the last packet of a flow took.
    #[must_use]
    pub fn delay(&self, flow: FlowId) -> Option<Duration> {
        self.flows.get(flow.0)?.last_delay()
    }

    /// Packets that came to a station where they had been: flow, number, stations. There must never be any.
    #[must_use]
    pub fn loops(&self) -> &[(usize, u64, Vec<StationId>)] {
        &self.loops
    }
}
