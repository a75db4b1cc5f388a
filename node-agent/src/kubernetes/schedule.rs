//! When to write the status: at once when something turned, seldom when only numbers did, never when nothing did. Pure.

use crds::node::{DmvpnNodeStatus, NodeByGatewaysStatus, NodeHubStatus, NodeSummary, NodeTunnelStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use packet::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Numbers are written so often.
const NUMBERS: Duration = Duration::from_secs(60);
/// What turned is written this long after the last write, so that what turns together is written together...
const SHORT: Duration = Duration::from_secs(1);
/// ... and this long when there were [`MANY`] writes within [`NUMBERS`]: something goes back and forth.
const LONG: Duration = Duration::from_secs(10);
const MANY: usize = 6;

/// When the last writes were.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    writes: VecDeque<Instant>,
}

impl Schedule {
    /// When `wanted` is to be written over `stored`; `None`: not as long as it stays like this.
    #[must_use]
    pub(super) fn when(&self, stored: &DmvpnNodeStatus, wanted: &DmvpnNodeStatus) -> Option<Instant> {
        if stored == wanted {
            return None;
        }
        let Some(last) = self.writes.back() else { return Some(Instant::ZERO) };
        let turned = skeleton(stored) != skeleton(wanted);
        let recent = self.writes.iter().filter(|at| last.since(**at) < NUMBERS).count();
        Some(match (turned, recent) {
            (false, _) => *last + NUMBERS,
            (true, ..MANY) => *last + SHORT,
            (true, _) => *last + LONG,
        })
    }

    /// A write was tried now.
    pub(super) fn written(&mut self, now: Instant) {
        if self.writes.len() == MANY {
            self.writes.pop_front();
        }
        self.writes.push_back(now);
    }
}

/// What of a status is worth a write at once.
fn skeleton(status: &DmvpnNodeStatus) -> DmvpnNodeStatus {
    let DmvpnNodeStatus { observed_generation, conditions, summary, tunnels, by_gateways, agent_version } =
        status;
    let by_gateways = by_gateways.iter().map(|told| NodeByGatewaysStatus {
        conditions: told.conditions.iter().map(bare).collect(),
        ..told.clone()
    });
    DmvpnNodeStatus {
        observed_generation: *observed_generation,
        conditions: conditions.iter().map(bare).collect(),
        summary: summary.clone().map(|summary| NodeSummary { shortcuts: 0, ..summary }),
        tunnels: tunnels.iter().map(tunnel).collect(),
        by_gateways: by_gateways.collect(),
        agent_version: agent_version.clone(),
    }
}

fn tunnel(status: &NodeTunnelStatus) -> NodeTunnelStatus {
    let NodeTunnelStatus {
        name,
        conditions,
        peers: _,
        registrations: _,
        shortcuts: _,
        mtu,
        hubs,
        transitions: _,
    } = status;
    NodeTunnelStatus {
        name: name.clone(),
        conditions: conditions.iter().map(bare).collect(),
        mtu: *mtu,
        hubs: hubs.iter().map(|hub| NodeHubStatus { message: None, ..hub.clone() }).collect(),
        ..NodeTunnelStatus::default()
    }
}

fn bare(condition: &Condition) -> Condition {
    Condition { message: String::new(), ..condition.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1000 + seconds)
    }

    fn status(hub: &str, peers: u32) -> DmvpnNodeStatus {
        let hub =
            NodeHubStatus { address: "hub".to_owned(), state: hub.to_owned(), ..NodeHubStatus::default() };
        let tunnel = NodeTunnelStatus { hubs: vec![hub], peers, ..NodeTunnelStatus::default() };
        DmvpnNodeStatus { tunnels: vec![tunnel], ..DmvpnNodeStatus::default() }
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let schedule = Schedule::default();
        assert_eq!(schedule.when(&status("Up", 1), &status("Up", 1)), None);
    }

    #[test]
    fn a_hub_that_went_down_is_written_at_once_and_a_count_within_the_minute() {
        let mut schedule = Schedule::default();
        schedule.written(at(0));
        assert_eq!(schedule.when(&status("Up", 1), &status("Down", 1)), Some(at(1)));
        assert_eq!(schedule.when(&status("Up", 1), &status("Up", 2)), Some(at(60)));
    }

    #[test]
    fn what_goes_back_and_forth_is_written_seldom() {
        let mut schedule = Schedule::default();
        (0..6).for_each(|second| schedule.written(at(second)));
        assert_eq!(schedule.when(&status("Up", 1), &status("Down", 1)), Some(at(15)));
        let mut calm = Schedule::default();
        (0..6).for_each(|minute| calm.written(at(minute * 60)));
        assert_eq!(calm.when(&status("Up", 1), &status("Down", 1)), Some(at(301)));
    }
}
