//! What people read about a hub or spoke.

use super::*;
use crate::world::{Declared, NodeRecord};
use crds::DmvpnNode;
use k8s_openapi::jiff::Timestamp;
use plan::NodeFacts;
use serde_json::{Value, json};
use std::sync::Arc;

fn declared(mode: Value, status: Option<&NetworkStatus>) -> Declared {
    let object = json!({
        "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnSpoke",
        "metadata": {"name": "s", "generation": 4},
        "spec": {
            "hubs": [{"address": "198.51.100.1"}, {"address": "198.51.100.2"}],
            "tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.16.0/24"}, "security": mode,
        },
        "status": status,
    });
    Declared::read(ResourceKind::Spoke, serde_json::from_value(object).unwrap())
}

/// A node whose tunnel reports `ready`, and the state of both hubs.
fn dmvpn_node(name: &str, ready: (&str, &str), hubs: [&str; 2]) -> DmvpnNode {
    let now = Time(Timestamp::UNIX_EPOCH);
    let (ready, reason) = ready;
    let condition = |type_: &str| json!({"type": type_, "status": ready, "reason": reason, "message": "why", "lastTransitionTime": now});
    let addresses = ["198.51.100.1", "198.51.100.2"];
    let states = [0, 1].map(|i| json!({"address": addresses[i], "state": hubs[i]}));
    let value = json!({
        "metadata": {"name": name},
        "spec": {"tunnels": [{
            "name": "s", "role": "Spoke", "interface": "dmvpn0", "networks": ["10.200.0.0/16"],
            "addresses": ["10.200.16.1"], "identity": name, "phase": 3, "ttl": 64, "underlay": {"port": 4754},
            "nhrp": {}, "security": {"mode": "None"},
            "hubs": addresses.map(|address| json!({"address": address, "port": 4754})),
        }]},
        "status": {"tunnels": [{
            "name": "s", "shortcuts": 2,
            "conditions": [condition("Ready"), condition("HubsReachable")],
            "hubs": states,
        }]},
    });
    serde_json::from_value(value).unwrap()
}

fn world(nodes: Vec<DmvpnNode>) -> (World, Report) {
    let mut world = World::default();
    let mut report = Report::default();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap();
        let record = NodeRecord { facts: NodeFacts::named(&name), ready: true, ..NodeRecord::default() };
        world.nodes.insert(name.clone(), Arc::new(record));
        report.nodes.insert(name.clone());
        world.dmvpn_nodes.insert(name, Arc::new(node));
    }
    (world, report)
}

fn said(world: &World, report: &Report, old: Option<&NetworkStatus>, second: i64) -> NetworkStatus {
    of(declared(json!({"mode": "None"}), old), world, report, None, second)
}

fn of(
    declared: Declared,
    world: &World,
    report: &Report,
    signing: Option<&Signing>,
    second: i64,
) -> NetworkStatus {
    let world = World { declared: vec![Arc::new(declared)], ..world.clone() };
    let resources = world.resources();
    let issuance = Issuance { signing, authority: None };
    status(&resources[0], report, &world, issuance, &Time(Timestamp::from_second(second).unwrap()))
}

fn condition<'a>(status: &'a NetworkStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = find(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_}"));
    (&found.status, &found.reason, &found.message)
}

const UP: (&str, &str) = ("True", "Forwarding");

#[test]
fn all_nodes_ready_is_ready_with_counts() {
    let (world, report) =
        world(vec![dmvpn_node("a-1", UP, ["Up", "Up"]), dmvpn_node("a-2", UP, ["Up", "Down"])]);
    let status = said(&world, &report, None, 0);
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(condition(&status, "Accepted").1, "Planned");
    let summary = status.summary.unwrap();
    assert_eq!((summary.nodes.as_str(), summary.hubs.as_deref(), summary.shortcuts), ("2/2", Some("1/2"), 4));
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn a_node_that_is_not_ready_is_named_with_its_reason() {
    let (world, report) = world(vec![
        dmvpn_node("a-1", UP, ["Up", "Up"]),
        dmvpn_node("a-2", ("False", "NoHub"), ["Down", "Down"]),
    ]);
    let status = said(&world, &report, None, 0);
    assert_eq!(
        condition(&status, "Ready"),
        ("False", "SomeNodesNotReady", "1 of 2 nodes are not ready; a-2: why")
    );
    assert_eq!(condition(&status, "HubsReachable"), ("False", "NoHub", "node a-2: why"));
    assert_eq!(status.not_ready.iter().map(|node| node.reason.as_str()).collect::<Vec<_>>(), ["NoHub"]);
}

#[test]
fn a_node_whose_kubelet_is_gone_does_not_count_as_ready_by_what_it_said_last() {
    let (mut world, report) = world(vec![dmvpn_node("a-1", UP, ["Up", "Up"])]);
    world.nodes.insert("a-1".into(), Arc::new(NodeRecord::default()));
    let status = said(&world, &report, None, 0);
    assert_eq!(status.not_ready[0].reason, "NodeNotReady");
    assert_eq!(condition(&status, "Ready").1, "NoNodeReady");
}

#[test]
fn a_node_whose_agent_never_came_is_said_to_have_none() {
    let (world, report) = world(vec![DmvpnNode { status: None, ..dmvpn_node("a-1", UP, ["Up", "Up"]) }]);
    let status = said(&world, &report, None, 0);
    assert_eq!(status.not_ready[0].reason, "NotReported");
    assert_eq!(condition(&status, "HubsReachable").0, "Unknown");
}

#[test]
fn the_time_of_the_last_transition_changes_with_the_status_alone() {
    let (good, report) = world(vec![dmvpn_node("a-1", UP, ["Up", "Up"])]);
    let first = said(&good, &report, None, 100);
    let same = said(&good, &report, Some(&first), 200);
    assert_eq!(first, same, "nothing to write");
    let (bad, _) = world(vec![dmvpn_node("a-1", ("False", "NoHub"), ["Down", "Down"])]);
    let changed = said(&bad, &report, Some(&first), 200);
    let since = |type_: &str| find(&changed.conditions, type_).unwrap().last_transition_time.0.as_second();
    assert_eq!((since("Ready"), since("Accepted")), (200, 100));
}

#[test]
fn counts_and_messages_alone_can_wait() {
    let down = |reason: &str, why: &str| {
        let mut node = dmvpn_node("a-1", ("False", reason), ["Down", "Down"]);
        for condition in &mut node.status.as_mut().unwrap().tunnels[0].conditions {
            condition.message = why.to_owned();
        }
        let (world, report) = world(vec![node]);
        said(&world, &report, None, 0)
    };
    let old = down("NoHub", "hub 198.51.100.1: no answer for 3 s");
    assert!(turned(None, &old), "what was never said");
    let later = down("NoHub", "hub 198.51.100.1: no answer for 9 s");
    assert_ne!(later, old, "written some time");
    assert!(!turned(Some(&old), &later));
    let mut counted = later;
    counted.summary.as_mut().unwrap().shortcuts = 99;
    assert!(!turned(Some(&old), &counted));

    assert!(turned(Some(&old), &down("Unproven", "hub 198.51.100.1: no answer for 3 s")), "another reason");
    let (good, report) = world(vec![dmvpn_node("a-1", UP, ["Up", "Up"])]);
    assert!(turned(Some(&old), &said(&good, &report, Some(&old), 0)));
}

#[test]
fn a_thousand_mistakes_fit_into_a_message() {
    let (world, mut report) = world(vec![]);
    for number in 0..1000 {
        let (resource, node) = (ResourceKind::Spoke.named("s"), format!("n-{number}"));
        report.nodes.insert(node.clone());
        report.refused.push((node.clone(), PlanError::NotPinned { resource, node, pin: "pinned" }));
    }
    let status = said(&world, &report, None, 0);
    let (value, reason, message) = condition(&status, "Accepted");
    assert_eq!((value, reason), ("False", "Invalid"));
    assert!(message.ends_with("; and 997 more of the kind") && message.len() <= MAX_MESSAGE, "{message}");
    assert_eq!(status.not_ready.len(), MAX_NAMED);
}

#[test]
fn no_selected_node_is_said() {
    let status = said(&World::default(), &Report::default(), None, 0);
    assert_eq!(condition(&status, "Ready").1, "NoNodeSelected");
    assert_eq!(status.summary.unwrap().nodes, "0/0");
}

#[test]
fn what_signing_found_out_survives_a_restart_of_the_operator() {
    let (world, report) = world(vec![dmvpn_node("a-1", UP, ["Up", "Up"])]);
    let certificates = || json!({"authentication": {"certificates": {"caSecret": "ca", "trust": "roots"}}});
    let failed = Signing::Failed(reasons::CA_UNUSABLE, "Secret ca is not there".into());
    let first = of(declared(certificates(), None), &world, &report, Some(&failed), 0);
    assert_eq!(condition(&first, "CertificatesIssued"), ("False", "CAUnusable", "Secret ca is not there"));
    let later = of(declared(certificates(), Some(&first)), &world, &report, None, 9);
    assert_eq!(first, later);
}

#[test]
fn what_is_wrong_with_a_ca_is_said_and_stands_while_the_api_server_is_silent() {
    let (world, report) = world(vec![dmvpn_node("a-1", UP, ["Up", "Up"])]);
    let certificates = || json!({"authentication": {"certificates": {"caSecret": "ca", "trust": "roots"}}});
    let told = |old: Option<&NetworkStatus>, authority: Option<&Finding>| {
        let world = World { declared: vec![Arc::new(declared(certificates(), old))], ..world.clone() };
        let issuance = Issuance { signing: None, authority };
        status(&world.resources()[0], &report, &world, issuance, &Time(Timestamp::UNIX_EPOCH))
    };
    let first = told(None, Some(&Finding::Bad(reasons::CA_EXPIRES_SOON, "in a week".into())));
    assert_eq!(condition(&first, "AuthorityHealthy"), ("False", "CAExpiresSoon", "in a week"));
    assert_eq!(told(Some(&first), None), first);
    let mended = told(Some(&first), Some(&Finding::Usable));
    assert_eq!(condition(&mended, "AuthorityHealthy").0, "True");
    assert!(find(&told(None, None).conditions, "AuthorityHealthy").is_none(), "nothing is known yet");
}

#[test]
fn a_message_is_cut_between_characters() {
    let long = short("ä".repeat(2000));
    assert!(long.len() <= MAX_MESSAGE && long.ends_with(" ..."));
}
