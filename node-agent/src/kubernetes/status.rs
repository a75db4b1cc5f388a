//! The status of a `DmvpnNode`, from what its tunnels are like. Pure.

use crate::conditions;
use crate::control::Snapshot;
use crate::gateways::View;
use crate::source::Problem;
use crate::status as api;
use crds::conditions::{ACCEPTED, READY, reasons};
use crds::node::{
    DmvpnNodeStatus, NodeByGatewaysStatus, NodeHubStatus, NodeSummary, NodeTunnelStatus, Transition,
};
use dmvpn::view::{Role, ShortcutState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use rpc::agent;

/// What the resource's schema allows.
const MAX_HUBS: usize = 64;
const MAX_TRANSITIONS: usize = 10;
const MAX_MESSAGE: usize = 1024;

/// What a status is made from.
pub(super) struct Facts<'a> {
    /// The generation in force.
    pub(super) generation: Option<i64>,
    /// What is wrong with the configuration.
    pub(super) problems: &'a [Problem],
    /// The tunnels that run, with their last events, oldest first.
    pub(super) tunnels: &'a [(Snapshot, Vec<agent::Event>)],
    /// DMVPNs by other nodes' tunnels.
    pub(super) by_gateways: &'a [View],
    /// The moment.
    pub(super) now: Timestamp,
}

/// The status, by which `before` it was: what did not change keeps the moment it changed last.
#[must_use]
pub(super) fn build(facts: &Facts<'_>, before: &DmvpnNodeStatus) -> DmvpnNodeStatus {
    let mut tunnels: Vec<NodeTunnelStatus> =
        facts.tunnels.iter().map(|(snapshot, events)| tunnel(snapshot, events, facts, before)).collect();
    let running = |name: &str| facts.tunnels.iter().any(|(snapshot, _)| snapshot.config.name == name);
    for problem in facts.problems {
        let Some(name) = problem.tunnel.as_deref().filter(|name| !running(name)) else { continue };
        if !tunnels.iter().any(|tunnel| tunnel.name == name) {
            tunnels.push(stopped(name, problem, facts, before));
        }
    }
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    let by_gateways: Vec<NodeByGatewaysStatus> =
        facts.by_gateways.iter().map(|view| by_gateways_of(view, facts, before)).collect();
    let conditions = [ready(&tunnels, &by_gateways), accepted(facts.problems)];
    DmvpnNodeStatus {
        observed_generation: facts.generation,
        conditions: dated(conditions, &before.conditions, facts),
        summary: Some(summary(&tunnels)),
        tunnels,
        by_gateways,
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

fn tunnel(
    snapshot: &Snapshot,
    events: &[agent::Event],
    facts: &Facts<'_>,
    before: &DmvpnNodeStatus,
) -> NodeTunnelStatus {
    let old = of_name(&snapshot.config.name, before);
    let shown = api::tunnel(snapshot);
    let registrations = snapshot.peers.iter().filter(|p| p.role == Role::Registered).count();
    let shortcuts = snapshot.shortcuts.iter().filter(|s| s.state == ShortcutState::Up).count();
    NodeTunnelStatus {
        name: snapshot.config.name.clone(),
        conditions: dated(conditions::of(snapshot), old.map_or(&[][..], |old| &old.conditions), facts),
        peers: count(snapshot.peers.len()),
        registrations: count(registrations),
        shortcuts: count(shortcuts),
        mtu: u16::try_from(shown.mtu).ok(),
        hubs: shown.hubs.iter().take(MAX_HUBS).map(hub).collect(),
        transitions: transitions(events, old.map_or(&[][..], |old| &old.transitions)),
    }
}

/// A tunnel that does not run.
fn stopped(name: &str, problem: &Problem, facts: &Facts<'_>, before: &DmvpnNodeStatus) -> NodeTunnelStatus {
    let old = of_name(name, before);
    let ready = condition(READY, false, problem.reason, &problem.message);
    NodeTunnelStatus {
        name: name.to_owned(),
        conditions: dated([ready], old.map_or(&[][..], |old| &old.conditions), facts),
        transitions: transitions(&[], old.map_or(&[][..], |old| &old.transitions)),
        ..NodeTunnelStatus::default()
    }
}

fn by_gateways_of(view: &View, facts: &Facts<'_>, before: &DmvpnNodeStatus) -> NodeByGatewaysStatus {
    let View { name, gateway, problem } = view;
    let old = before.by_gateways.iter().find(|told| told.name == *name);
    let ready = match problem {
        None => condition(READY, true, reasons::FORWARDING, ""),
        Some(problem) => condition(READY, false, reasons::NO_GATEWAY, problem),
    };
    NodeByGatewaysStatus {
        name: name.clone(),
        gateway: gateway.clone(),
        conditions: dated([ready], old.map_or(&[][..], |old| &old.conditions), facts),
    }
}

fn of_name<'a>(name: &str, status: &'a DmvpnNodeStatus) -> Option<&'a NodeTunnelStatus> {
    status.tunnels.iter().find(|tunnel| tunnel.name == name)
}

fn hub(hub: &agent::Hub) -> NodeHubStatus {
    let state = match (hub.up, hub.reason.as_str()) {
        (true, _) => "Up",
        (false, "") => "Registering",
        (false, _) => "Down",
    };
    NodeHubStatus {
        address: cut(&hub.name, 253),
        state: state.to_owned(),
        tunnel_address: hub.tunnel_address.split(' ').next().and_then(|address| address.parse().ok()),
        active: hub.by_hub,
        message: (!hub.up && !hub.reason.is_empty()).then(|| cut(&hub.reason, MAX_MESSAGE)),
    }
}

/// Newest first. An agent that has just started knows little; what is older was written by the one before it.
fn transitions(events: &[agent::Event], before: &[Transition]) -> Vec<Transition> {
    let mut all: Vec<Transition> = events.iter().rev().filter_map(transition).collect();
    let oldest = all.last().map(|transition| transition.time.clone());
    let older = before.iter().filter(|t| oldest.as_ref().is_none_or(|oldest| t.time < *oldest));
    all.extend(older.cloned());
    all.truncate(MAX_TRANSITIONS);
    all
}

fn transition(event: &agent::Event) -> Option<Transition> {
    let seconds = i64::try_from(event.time_ms / 1000).ok()?;
    Some(Transition {
        time: Time(Timestamp::from_second(seconds).ok()?),
        reason: cut(&event.reason, 64),
        message: cut(&event.message, MAX_MESSAGE),
    })
}

/// True if every tunnel forwards, and every gateway that is gone by. A node without any does all it has to.
fn ready(tunnels: &[NodeTunnelStatus], by_gateways: &[NodeByGatewaysStatus]) -> agent::Condition {
    let tunnels = tunnels.iter().map(|tunnel| (&tunnel.name, &tunnel.conditions));
    let by_gateways = by_gateways.iter().map(|told| (&told.name, &told.conditions));
    let all = tunnels.chain(by_gateways);
    let mut all = all.filter_map(|(name, conditions)| Some((name, of_kind(conditions, READY)?)));
    match all.find(|(_, ready)| ready.status != "True") {
        Some((name, ready)) => condition(READY, false, &ready.reason, &format!("{name}: {}", ready.message)),
        None => condition(READY, true, reasons::FORWARDING, ""),
    }
}

fn accepted(problems: &[Problem]) -> agent::Condition {
    let Some(first) = problems.first() else { return condition(ACCEPTED, true, reasons::APPLIED, "") };
    let said = |problem: &Problem| match &problem.tunnel {
        Some(tunnel) => format!("{tunnel}: {}", problem.message),
        None => problem.message.clone(),
    };
    let message = problems.iter().map(said).collect::<Vec<_>>().join("; ");
    condition(ACCEPTED, false, first.reason, &message)
}

fn summary(tunnels: &[NodeTunnelStatus]) -> NodeSummary {
    let up = tunnels.iter().filter(|t| of_kind(&t.conditions, READY).is_some_and(|c| c.status == "True"));
    let hubs = tunnels.iter().flat_map(|tunnel| &tunnel.hubs);
    let reachable = hubs.clone().filter(|hub| hub.state == "Up").count();
    NodeSummary {
        tunnels: format!("{}/{}", up.count(), tunnels.len()),
        hubs: format!("{reachable}/{}", hubs.count()),
        shortcuts: tunnels.iter().fold(0, |sum, tunnel| sum.saturating_add(tunnel.shortcuts)),
    }
}

fn of_kind<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> agent::Condition {
    agent::Condition {
        r#type: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// With the moment each came to its status.
fn dated(
    conditions: impl IntoIterator<Item = agent::Condition>,
    before: &[Condition],
    facts: &Facts<'_>,
) -> Vec<Condition> {
    let dated = |condition: agent::Condition| {
        let agent::Condition { r#type: type_, status, reason, message } = condition;
        let same = of_kind(before, &type_).filter(|old| old.status == status);
        Condition {
            last_transition_time: same
                .map_or_else(|| Time(whole(facts.now)), |old| old.last_transition_time.clone()),
            message: cut(&message, 32 * MAX_MESSAGE),
            observed_generation: facts.generation,
            reason,
            status,
            type_,
        }
    };
    conditions.into_iter().map(dated).collect()
}

/// The API server keeps whole seconds; what it gives back must equal what it was given.
fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot_for_tests;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn facts<'a>(
        tunnels: &'a [(Snapshot, Vec<agent::Event>)],
        problems: &'a [Problem],
        seconds: i64,
    ) -> Facts<'a> {
        Facts { generation: Some(3), problems, tunnels, by_gateways: &[], now: at(seconds) }
    }

    fn event(seconds: u64, reason: &str) -> agent::Event {
        agent::Event {
            time_ms: (1_800_000_000 + seconds) * 1000 + 7,
            reason: reason.to_owned(),
            ..agent::Event::default()
        }
    }

    fn ready_of(status: &DmvpnNodeStatus) -> (&str, &str, &str, Timestamp) {
        let ready = of_kind(&status.conditions, READY).unwrap();
        (&ready.status, &ready.reason, &ready.message, ready.last_transition_time.0)
    }

    #[test]
    fn a_condition_keeps_the_moment_it_turned() {
        let mut tunnels = [(snapshot_for_tests(), Vec::new())];
        let first = build(&facts(&tunnels, &[], 0), &DmvpnNodeStatus::default());
        let second = build(&facts(&tunnels, &[], 60), &first);
        assert_eq!(second, first);
        tunnels[0].0.up = false;
        let third = build(&facts(&tunnels, &[], 90), &second);
        assert_eq!(ready_of(&third), ("False", "Starting", "site: no hub has answered yet", at(90)));
        assert_eq!(third.summary.unwrap().tunnels, "0/1");
    }

    #[test]
    fn a_tunnel_that_can_t_run_says_why() {
        let problem =
            Problem::of_tunnel("site", reasons::REFERENCE_MISSING, "Secret kube-dmvpn/psk is not there");
        let status = build(&facts(&[], &[problem], 0), &DmvpnNodeStatus::default());
        assert_eq!(status.tunnels[0].name, "site");
        assert_eq!(ready_of(&status).1, reasons::REFERENCE_MISSING);
        assert_eq!(of_kind(&status.conditions, ACCEPTED).unwrap().status, "False");
    }

    #[test]
    fn a_node_whose_gateways_are_silent_is_not_ready_and_says_so() {
        let view = |problem: Option<&str>| View {
            name: "site".to_owned(),
            gateway: Some("a-2".to_owned()),
            problem: problem.map(str::to_owned),
        };
        let (good, bad) = ([view(None)], [view(Some("none of a-2 answers"))]);
        let first = build(&Facts { by_gateways: &good, ..facts(&[], &[], 0) }, &DmvpnNodeStatus::default());
        assert_eq!(ready_of(&first).0, "True");
        assert_eq!(first.by_gateways[0].gateway.as_deref(), Some("a-2"));
        let second = build(&Facts { by_gateways: &bad, ..facts(&[], &[], 60) }, &first);
        assert_eq!(ready_of(&second), ("False", "NoGateway", "site: none of a-2 answers", at(60)));
    }

    #[test]
    fn transitions_survive_a_restart_of_the_agent() {
        let before = transitions(&[event(1, "HubUp"), event(2, "HubDown")], &[]);
        let after = transitions(&[event(5, "Resumed")], &before);
        let reasons: Vec<_> = after.iter().map(|t| t.reason.as_str()).collect();
        assert_eq!(reasons, ["Resumed", "HubDown", "HubUp"]);
    }

    #[test]
    fn transitions_are_the_last_ten() {
        let events: Vec<_> = (0..30).map(|second| event(second, &second.to_string())).collect();
        let last = transitions(&events, &transitions(&events[..20], &[]));
        assert_eq!((last.len(), last[0].reason.as_str(), last[9].reason.as_str()), (10, "29", "20"));
    }
}
