//! Traffic: packets from a host to another at a rate, and what became of each.

use crate::station::StationId;
use crate::underlay::{Journey, Packet};
use packet::{Instant, ip::Protocol, ipv4, ipv6};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A flow's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub(crate) usize);

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) from: StationId,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) interval: Duration,
    /// Octets of each packet.
    pub(crate) size: usize,
    pub(crate) running: bool,
    sent: Vec<Instant>,
    arrivals: Vec<Arrival>,
}

#[derive(Clone, Debug)]
struct Arrival {
    sequence: u64,
    at: Instant,
    stations: Vec<StationId>,
}

/// What became of a flow's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Which did not arrive, and when they were sent.
    pub lost: Vec<(u64, Instant)>,
    /// Which arrived more than once.
    pub duplicated: Vec<u64>,
    /// How many arrived after one that was sent later.
    pub reordered: u64,
    /// Which ways they took, in the order sent: the first packet of each stretch, and the stations between the ends.
    pub ways: Vec<(u64, Vec<StationId>)>,
}

impl Flow {
    pub(crate) const fn new(
        from: StationId,
        source: IpAddr,
        destination: IpAddr,
        interval: Duration,
        size: usize,
    ) -> Self {
        Self {
            from,
            source,
            destination,
            interval,
            size,
            running: true,
            sent: Vec::new(),
            arrivals: Vec::new(),
        }
    }

    /// The next packet.
    pub(crate) fn packet(&mut self, now: Instant, flow: usize) -> Packet {
        let sequence = self.sent.len() as u64;
        self.sent.push(now);
        let journey = Some(Journey { flow, sequence, stations: Vec::new() });
        Packet { bytes: datagram(self.source, self.destination, self.size), journey }
    }

    pub(crate) fn arrived(&mut self, now: Instant, journey: Journey) {
        self.arrivals.push(Arrival { sequence: journey.sequence, at: now, stations: journey.stations });
    }

    pub(crate) fn report(&self) -> Report {
        let mut first: BTreeMap<u64, &Arrival> = BTreeMap::new();
        let mut duplicated = Vec::new();
        let (mut reordered, mut highest) = (0, None);
        for arrival in &self.arrivals {
            if first.contains_key(&arrival.sequence) {
                duplicated.push(arrival.sequence);
                continue;
            }
            first.insert(arrival.sequence, arrival);
            if highest > Some(arrival.sequence) {
                reordered += 1;
            }
            highest = highest.max(Some(arrival.sequence));
        }
        let mut ways: Vec<(u64, Vec<StationId>)> = Vec::new();
        for (sequence, arrival) in &first {
            let between = arrival.between();
            if ways.last().is_none_or(|(_, way)| way != between) {
                ways.push((*sequence, between.to_vec()));
            }
        }
        let lost = (0u64..)
            .zip(&self.sent)
            .filter(|(sequence, _)| !first.contains_key(sequence))
            .map(|(sequence, at)| (sequence, *at))
            .collect();
        Report {
            sent: self.sent.len() as u64,
            received: first.len() as u64,
            lost,
            duplicated,
            reordered,
            ways,
        }
    }

    /// The way of the packet that arrived last.
    pub(crate) fn last_way(&self) -> Option<&[StationId]> {
        self.arrivals.last().map(Arrival::between)
    }

    /// How long the last packet that arrived took.
    pub(crate) fn last_delay(&self) -> Option<Duration> {
        let arrival = self.arrivals.last()?;
        let sent = self.sent.get(usize::try_from(arrival.sequence).ok()?)?;
        Some(arrival.at - *sent)
    }
}

impl Arrival {
    /// The stations between the ends.
    fn between(&self) -> &[StationId] {
        match self.stations.as_slice() {
            [_, between @ .., _] => between,
            _ => &[],
        }
    }
}

impl Report {
    /// Nothing lost, nothing twice?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sent > 0 && self.lost.is_empty() && self.duplicated.is_empty()
    }

    /// The way that the last packets took.
    #[must_use]
    pub fn last_way(&self) -> Option<&[StationId]> {
        self.ways.last().map(|(_, way)| way.as_slice())
    }

    /// Only the ways, one after another.
    #[must_use]
    pub fn way_by_way(&self) -> Vec<Vec<StationId>> {
        self.ways.iter().map(|(_, way)| way.clone()).collect()
    }

    /// From the first lost packet to the last, as sent.
    #[must_use]
    pub fn outage(&self) -> Duration {
        match (self.lost.first(), self.lost.last()) {
            (Some((_, first)), Some((_, last))) => *last - *first,
            _ => Duration::ZERO,
        }
    }
}

/// A UDP packet of `size` octets between two hosts.
pub(crate) fn datagram(source: IpAddr, destination: IpAddr, size: usize) -> Vec<u8> {
    use zerocopy::IntoBytes;
    let mut bytes = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let payload = size.saturating_sub(ipv4::HEADER_LEN).max(8) as u16;
            ipv4::Header::new(a, b, Protocol::UDP.0, 0, 64, payload).as_bytes().to_vec()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let payload = size.saturating_sub(ipv6::HEADER_LEN).max(8) as u16;
            ipv6::Header::new(a, b, Protocol::UDP.0, 0, 64, payload).as_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    bytes.resize(size.max(bytes.len() + 8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_lost_twice_late_and_which_way() {
        let (a, hub, b) = (StationId(0), StationId(1), StationId(2));
        let host = |n| IpAddr::from([10, 1, 1, n]);
        let mut flow = Flow::new(a, host(1), host(2), Duration::from_millis(1), 60);
        for i in 0..5 {
            flow.packet(Instant::from_nanos(i), 0);
        }
        for (sequence, way) in
            [(0, vec![a, hub, b]), (2, vec![a, b]), (1, vec![a, hub, b]), (2, vec![a, b]), (4, vec![a, b])]
        {
            flow.arrived(Instant::from_nanos(9), Journey { flow: 0, sequence, stations: way });
        }
        let report = flow.report();
        assert_eq!((report.sent, report.received, report.reordered), (5, 4, 1));
        assert_eq!(report.lost, [(3, Instant::from_nanos(3))]);
        assert_eq!(report.duplicated, [2]);
        assert_eq!(report.ways, [(0, vec![hub]), (2, vec![])]);
        assert!(!report.is_whole());
    }
}
