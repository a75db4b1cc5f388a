//! What is decided for whole clusters.

use super::*;
use crate::world::Declared;
use crds::kubernetes::FINALIZER;
use plan::AllocateError;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::IpAddr;

fn declared(kind: &str, name: &str, second: u32, spec: Value) -> Declared {
    let object = json!({
        "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {
            "name": name, "uid": format!("{kind}-{name}"), "generation": 1, "finalizers": [FINALIZER],
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        },
    });
    let kind = if kind == "DmvpnHub" { ResourceKind::Hub } else { ResourceKind::Spoke };
    Declared::read(kind, serde_json::from_value(object).unwrap())
}

fn hub(name: &str, second: u32, more: Value) -> Declared {
    let spec = json!({
        "nodes": {"matchLabels": {"hub": "true"}},
        "tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.0.0/24"},
        "security": {"mode": "None"},
    });
    declared("DmvpnHub", name, second, merged(spec, more))
}

fn spoke(name: &str, second: u32, more: Value) -> Declared {
    let spec = json!({
        "nodes": {},
        "hubs": [{"address": "198.51.100.1"}],
        "tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.16.0/20"},
        "security": {"mode": "None"},
        "announce": {"podCIDRs": {"from": "Node"}},
    });
    declared("DmvpnSpoke", name, second, merged(spec, more))
}

fn merged(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        match base.get_mut(&key) {
            Some(inner @ Value::Object(_)) if value.is_object() => *inner = merged(inner.clone(), value),
            _ => base[key] = value,
        }
    }
    base
}

fn node(number: usize, labels: &[(&str, &str)]) -> (String, Arc<NodeRecord>) {
    let name = format!("n-{number:04}");
    let record = NodeRecord {
        facts: NodeFacts {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            addresses: vec![(
                plan::AddressKind::InternalIP,
                IpAddr::from([192, 168, (number / 250) as u8, (number % 250 + 1) as u8]),
            )],
            ..NodeFacts::named(&name)
        },
        uid: format!("uid-{number}"),
        pod_cidrs: vec![format!("10.{}.{}.0/24", 1 + number / 256, number % 256).parse().unwrap()],
        ready: true,
    };
    (name, Arc::new(record))
}

fn world(declared: Vec<Declared>, nodes: impl IntoIterator<Item = (String, Arc<NodeRecord>)>) -> World {
    World {
        declared: declared.into_iter().map(Arc::new).collect(),
        nodes: nodes.into_iter().collect(),
        ..World::default()
    }
}

/// The world after everything that was decided was written.
fn settled(world: &World) -> (World, Decision) {
    let decision = decide(world);
    let mut next = world.clone();
    for Wanted { name, owner, spec } in &decision.apply {
        let mut node = DmvpnNode::new(name, spec.clone());
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner});
        node.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
        next.dmvpn_nodes.insert(name.clone(), Arc::new(node));
    }
    for (name, _) in &decision.delete {
        next.dmvpn_nodes.remove(name);
    }
    (next, decision)
}

fn tunnel<'a>(world: &'a World, node: &str, name: &str) -> &'a NodeTunnel {
    world.dmvpn_nodes[node].spec.tunnels.iter().find(|tunnel| tunnel.name == name).unwrap()
}

fn report<'a>(decision: &'a Decision, kind: ResourceKind, name: &str) -> &'a Report {
    &decision.reports[&kind.named(name)]
}

const HUB: &[(&str, &str)] = &[("hub", "true")];

#[test]
fn a_decision_that_was_written_is_not_written_again() {
    let hubs = json!({"hubs": [{"hubRef": "hq"}]});
    let (after, first) = settled(&world(
        vec![hub("hq", 0, json!({})), spoke("hq-spokes", 1, hubs)],
        [node(1, HUB), node(2, &[])],
    ));
    assert_eq!(first.apply.len(), 2);
    let (_, second) = settled(&after);
    assert_eq!((second.apply, second.delete), (vec![], vec![]));
}

#[test]
fn other_nodes_of_the_hubs_cluster_become_its_spokes_by_hub_ref() {
    let hubs = json!({"hubs": [{"hubRef": "hq"}]});
    let (world, _) =
        settled(&world(vec![spoke("s", 0, hubs), hub("hq", 1, json!({}))], [node(1, HUB), node(2, &[])]));
    let names = |node: &str| -> Vec<String> {
        world.dmvpn_nodes[node].spec.tunnels.iter().map(|tunnel| tunnel.name.clone()).collect()
    };
    assert_eq!(names("n-0001"), ["hq"], "a hub is no spoke of itself");
    assert_eq!(names("n-0002"), ["s"]);
    let registered = &tunnel(&world, "n-0002", "s").hubs;
    let [hub] = registered.as_slice() else { panic!("{registered:?}") };
    assert_eq!((hub.address.as_str(), hub.port), ("192.168.0.2", plan::CLEAR_PORT));
    assert_eq!(hub.tunnel_address, Some(tunnel(&world, "n-0001", "hq").addresses[0]));
}

#[test]
fn a_hub_of_the_same_network_is_no_spoke_of_it_whatever_selects_it() {
    let (world, decision) = settled(&world(
        vec![spoke("s", 0, json!({})), hub("hq", 1, json!({}))],
        [node(1, HUB), node(2, &[])],
    ));
    assert_eq!(world.dmvpn_nodes["n-0001"].spec.tunnels.len(), 1);
    assert!(tunnel(&world, "n-0001", "hq").is_hub());
    assert!(decision.reports.values().all(|report| report.refused.is_empty()));
}

#[test]
fn a_node_is_in_two_networks() {
    let other = json!({
        "tunnel": {"network": "10.201.0.0/16", "addresses": "10.201.1.0/24", "interface": "dmvpn1"},
        "underlay": {"port": 4755},
    });
    let (world, decision) =
        settled(&world(vec![spoke("a", 0, json!({})), spoke("b", 1, other)], [node(1, &[])]));
    assert_eq!(tunnel(&world, "n-0001", "a").addresses, ["10.200.16.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(tunnel(&world, "n-0001", "b").addresses, ["10.201.1.1".parse::<IpAddr>().unwrap()]);
    assert!(decision.reports.values().all(|report| report.conflicts.is_empty()));
}

#[test]
fn an_address_is_free_only_when_nobody_is_told_that_it_is_theirs() {
    let resources = || vec![spoke("s", 0, json!({}))];
    let (before, _) = settled(&world(resources(), [node(1, &[])]));
    // Node 1 is replaced by node 0 at once: what it held is not given away in the same breath.
    let replaced = World { nodes: [node(0, &[])].into(), ..before };
    let (after, decision) = settled(&replaced);
    assert_eq!(decision.delete.len(), 1);
    assert_eq!(tunnel(&after, "n-0000", "s").addresses, ["10.200.16.2".parse::<IpAddr>().unwrap()]);
    let (last, _) = settled(&World { nodes: [node(0, &[]), node(5, &[])].into(), ..after });
    assert_eq!(tunnel(&last, "n-0005", "s").addresses, ["10.200.16.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn two_resources_of_one_network_never_give_out_the_same_address() {
    let same = json!({"tunnel": {"addresses": "10.200.0.0/24"}, "nodes": {"matchLabels": {"x": "y"}}});
    let (world, decision) = settled(&world(
        vec![hub("hq", 0, json!({})), spoke("s", 1, same)],
        [node(1, HUB), node(2, &[("x", "y")])],
    ));
    let given = [tunnel(&world, "n-0001", "hq").addresses[0], tunnel(&world, "n-0002", "s").addresses[0]];
    assert_eq!(given, ["10.200.0.1".parse::<IpAddr>().unwrap(), "10.200.0.2".parse().unwrap()]);
    assert_eq!(report(&decision, ResourceKind::Hub, "hq").overlaps.len(), 1);
    assert_eq!(report(&decision, ResourceKind::Spoke, "s").overlaps.len(), 1);
}

#[test]
fn a_hubs_address_in_the_range_is_not_given_to_a_spoke() {
    let hubs = json!({"hubs": [{"address": "198.51.100.1", "tunnelAddress": "10.200.16.1"}]});
    let (world, _) = settled(&world(vec![spoke("s", 0, hubs)], [node(1, &[])]));
    assert_eq!(tunnel(&world, "n-0001", "s").addresses, ["10.200.16.2".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_pin_does_not_take_an_address_from_another_resource() {
    let older = json!({"nodes": {"matchLabels": {"x": "y"}}});
    let (before, _) = settled(&world(vec![spoke("old", 0, older.clone())], [node(1, &[("x", "y")])]));
    let pins = json!({
        "nodes": {"matchLabels": {"p": "q"}},
        "tunnel": {"addresses": "10.200.40.0/24", "pinned": {"n-0002": "10.200.16.1"}},
    });
    let declared = [spoke("old", 0, older), spoke("new", 1, pins)].map(Arc::new).to_vec();
    let nodes = [node(1, &[("x", "y")]), node(2, &[("p", "q")]), node(3, &[("p", "q")])].into();
    let (after, decision) = settled(&World { declared, nodes, ..before });
    assert_eq!(tunnel(&after, "n-0001", "old").addresses, ["10.200.16.1".parse::<IpAddr>().unwrap()]);
    assert!(!after.dmvpn_nodes.contains_key("n-0002"));
    assert_eq!(tunnel(&after, "n-0003", "new").addresses, ["10.200.40.1".parse::<IpAddr>().unwrap()]);
    let refused = &report(&decision, ResourceKind::Spoke, "new").refused;
    assert_eq!(
        refused[0].1.to_string(),
        "DmvpnSpoke new: spec.tunnel.pinned gives node n-0002 the tunnel address 10.200.16.1, which node n-0001 of DmvpnSpoke old has in the same DMVPN: pin another address"
    );
}

#[test]
fn a_range_that_is_used_up_takes_no_tunnel_away() {
    let small = json!({"tunnel": {"addresses": "10.200.16.0/30"}});
    let resources = || vec![spoke("s", 0, small.clone())];
    let (before, _) = settled(&world(resources(), [node(7, &[]), node(8, &[])]));
    let (after, decision) =
        settled(&World { nodes: [node(1, &[]), node(7, &[]), node(8, &[])].into(), ..before.clone() });
    assert_eq!(after.dmvpn_nodes, before.dmvpn_nodes);
    let refused = &report(&decision, ResourceKind::Spoke, "s").refused;
    let exhausted = matches!(
        refused.as_slice(),
        [(node, PlanError::Allocate { source: AllocateError::Exhausted { .. }, .. })] if node == "n-0001"
    );
    assert!(exhausted, "{refused:?}");
}

#[test]
fn a_mistake_keeps_the_tunnel_that_was_there_and_touches_no_other() {
    let other = json!({
        "tunnel": {"network": "10.201.0.0/16", "addresses": "10.201.1.0/24", "interface": "dmvpn1"},
        "underlay": {"port": 4755},
    });
    let good = vec![spoke("a", 0, json!({})), spoke("b", 1, other.clone())];
    let (before, _) = settled(&world(good, [node(1, &[])]));
    // The older resource is edited so that it wants the younger one's interface.
    let bad = spoke("a", 0, json!({"tunnel": {"interface": "dmvpn1"}}));
    let declared = [bad, spoke("b", 1, other)].map(Arc::new).to_vec();
    let (after, decision) = settled(&World { declared, ..before.clone() });
    assert_eq!(after.dmvpn_nodes, before.dmvpn_nodes);
    let (a, b) = (report(&decision, ResourceKind::Spoke, "a"), report(&decision, ResourceKind::Spoke, "b"));
    assert_eq!((a.refused.len(), b.refused.len()), (1, 0));
    assert_eq!((a.conflicts.len(), b.conflicts.len()), (1, 1), "said at both");
}

#[test]
fn a_resource_that_cannot_be_read_any_more_keeps_its_tunnels() {
    let (before, _) = settled(&world(vec![spoke("s", 0, json!({}))], [node(1, &[])]));
    let broken = declared("DmvpnSpoke", "s", 0, json!({"tunnel": "?"}));
    assert!(matches!(broken, Declared::Unreadable { .. }));
    let (after, _) = settled(&World { declared: vec![Arc::new(broken)], ..before.clone() });
    assert_eq!(after.dmvpn_nodes, before.dmvpn_nodes);
}

#[test]
fn a_hub_that_is_deleted_under_a_spoke_leaves_the_spokes_tunnels() {
    let resources = || [hub("hq", 0, json!({})), spoke("s", 1, json!({"hubs": [{"hubRef": "hq"}]}))];
    let (before, _) = settled(&world(resources().into(), [node(1, HUB), node(2, &[])]));
    let [_, spoke] = resources();
    let (after, decision) = settled(&World { declared: vec![Arc::new(spoke)], ..before.clone() });
    assert_eq!(tunnel(&after, "n-0002", "s"), tunnel(&before, "n-0002", "s"));
    let refused = &report(&decision, ResourceKind::Spoke, "s").refused;
    assert!(refused[0].1.to_string().contains("which is not in this cluster"), "{refused:?}");
}

#[test]
fn without_a_resource_a_node_is_told_nothing() {
    let (before, _) = settled(&world(vec![spoke("s", 0, json!({}))], [node(1, &[])]));
    let (after, decision) = settled(&World { declared: vec![], ..before });
    assert_eq!(decision.delete, [("n-0001".to_owned(), None)]);
    assert!(after.dmvpn_nodes.is_empty());
}

#[test]
fn a_node_that_was_made_anew_owns_its_dmvpn_node_again() {
    let (before, _) = settled(&world(vec![spoke("s", 0, json!({}))], [node(1, &[])]));
    let (name, record) = node(1, &[]);
    let anew = NodeRecord { uid: "another".into(), ..NodeRecord::clone(&record) };
    let (after, decision) = settled(&World { nodes: [(name, Arc::new(anew))].into(), ..before.clone() });
    assert_eq!(decision.apply.len(), 1);
    assert_eq!(tunnel(&after, "n-0001", "s"), tunnel(&before, "n-0001", "s"));
}

fn gatewayed(more: Value) -> Declared {
    let spec = json!({
        "announce": {
            "mode": "Gateways", "gateways": {"matchLabels": {"gw": "yes"}}, "podCIDRs": {"from": "Node"},
            "toGateways": ["10.9.0.0/16"],
        },
    });
    spoke("s", 0, merged(spec, more))
}

const GATEWAY: &[(&str, &str)] = &[("gw", "yes")];

fn gateways_of(world: &World, node: &str) -> Vec<String> {
    let told = &world.dmvpn_nodes[node].spec.by_gateways;
    told.iter().flat_map(|told| &told.via).map(|gateway| gateway.node.clone()).collect()
}

/// Says of a gateway that it forwards.
fn forwarding(world: &mut World, name: &str) {
    let mut node = DmvpnNode::clone(&world.dmvpn_nodes[name]);
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Forwarding", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    node.status = serde_json::from_value(json!({"tunnels": [{"name": "s", "conditions": [ready]}]})).unwrap();
    world.dmvpn_nodes.insert(name.to_owned(), Arc::new(node));
}

#[test]
fn gateways_announce_for_the_whole_cluster_but_for_each_others_pods() {
    let nodes = (0..256).map(|number| node(number, if [7, 9].contains(&number) { GATEWAY } else { &[] }));
    let (world, _) = settled(&world(vec![gatewayed(json!({}))], nodes));
    let announced = &tunnel(&world, "n-0007", "s").announce;
    let covers = |prefix: &str| announced.iter().any(|p| p.contains(&prefix.parse::<IpNet>().unwrap()));
    assert!(covers("10.1.7.0/24") && covers("10.1.8.0/24") && covers("10.1.128.0/17"), "{announced:?}");
    assert!(!covers("10.1.9.0/24"));
    assert_eq!(announced.len(), 8, "as few as there can be");
}

#[test]
fn nodes_that_are_no_gateways_have_no_tunnel_and_no_address_and_go_by_those_that_have() {
    let nodes = [node(1, &[]), node(2, GATEWAY), node(3, GATEWAY)];
    let (before, decision) = settled(&world(vec![gatewayed(json!({}))], nodes));
    let told = &before.dmvpn_nodes["n-0001"].spec;
    assert!(told.tunnels.is_empty() && decision.reports.values().all(|report| report.refused.is_empty()));
    assert_eq!(told.by_gateways[0].sources, ["10.1.1.0/24".parse::<IpNet>().unwrap()]);
    assert_eq!(gateways_of(&before, "n-0001"), ["n-0002", "n-0003"]);
    assert_eq!(tunnel(&before, "n-0002", "s").addresses, ["10.200.16.1".parse::<IpAddr>().unwrap()]);
    let (_, second) = settled(&before);
    assert_eq!(second.apply, vec![]);
}

#[test]
fn a_gateway_that_does_not_forward_is_the_last_to_go_by() {
    let nodes = [node(1, &[]), node(2, GATEWAY), node(3, GATEWAY)];
    let (mut before, _) = settled(&world(vec![gatewayed(json!({}))], nodes));
    forwarding(&mut before, "n-0003");
    let (mut after, decision) = settled(&before);
    assert_eq!(decision.apply.len(), 1, "nobody else is told anything new");
    assert_eq!(gateways_of(&after, "n-0001"), ["n-0003", "n-0002"]);
    // What a Node's agent said before the Node went away is worth nothing.
    forwarding(&mut after, "n-0002");
    let record = NodeRecord { ready: false, ..NodeRecord::clone(&after.nodes["n-0003"]) };
    after.nodes.insert("n-0003".to_owned(), Arc::new(record));
    assert_eq!(gateways_of(&settled(&after).0, "n-0001"), ["n-0002", "n-0003"]);
}

#[test]
fn a_node_that_does_not_know_what_to_send_by_gateways_is_said_and_the_gateways_have_their_tunnels() {
    let nothing = json!({"announce": {"toGateways": []}});
    let (world, decision) = settled(&world(vec![gatewayed(nothing)], [node(1, &[]), node(2, GATEWAY)]));
    let refused = &report(&decision, ResourceKind::Spoke, "s").refused;
    assert!(matches!(refused.as_slice(), [(node, PlanError::NothingByGateways { .. })] if node == "n-0001"));
    assert!(!world.dmvpn_nodes.contains_key("n-0001"));
    assert!(!tunnel(&world, "n-0002", "s").announce.is_empty());
}

#[test]
fn a_gateway_that_is_none_any_more_gives_its_tunnel_up_and_goes_by_the_others() {
    let nodes = [node(1, GATEWAY), node(2, GATEWAY)];
    let (before, _) = settled(&world(vec![gatewayed(json!({}))], nodes));
    let (after, _) = settled(&World { nodes: [node(1, &[]), node(2, GATEWAY)].into(), ..before });
    assert!(after.dmvpn_nodes["n-0001"].spec.tunnels.is_empty());
    assert_eq!(gateways_of(&after, "n-0001"), ["n-0002"]);
    let (last, _) = settled(&World { nodes: [node(1, &[]), node(2, &[])].into(), ..after });
    assert_eq!(gateways_of(&last, "n-0001"), ["n-0002"], "nobody is left: what was told stands");
}

#[test]
fn calicos_blocks_are_announced_by_their_nodes_and_waited_for() {
    let announce = json!({"announce": {"podCIDRs": {"from": "Calico"}}});
    let unknown = world(vec![spoke("s", 0, announce)], [node(1, &[])]);
    let (_, decision) = settled(&unknown);
    let refused = &report(&decision, ResourceKind::Spoke, "s").refused;
    assert!(matches!(refused[0].1, PlanError::PodCidrSourceMissing { .. }), "{refused:?}");
    let blocks = vec!["10.4.1.0/26".parse().unwrap(), "10.4.9.64/26".parse().unwrap()];
    let known = World { calico: Some([("n-0001".to_owned(), blocks.clone())].into()), ..unknown };
    let (before, _) = settled(&known);
    assert_eq!(tunnel(&before, "n-0001", "s").announce, blocks);
    // After a restart of the operator, before Calico's blocks are listed, nothing is withdrawn.
    let (after, _) = settled(&World { calico: None, ..before.clone() });
    assert_eq!(after.dmvpn_nodes, before.dmvpn_nodes);
}

#[test]
fn a_node_without_pod_ranges_is_said_and_has_its_tunnel() {
    let (name, record) = node(1, &[]);
    let bare = NodeRecord { pod_cidrs: vec![], ..NodeRecord::clone(&record) };
    let (world, decision) = settled(&world(vec![spoke("s", 0, json!({}))], [(name, Arc::new(bare))]));
    assert_eq!(tunnel(&world, "n-0001", "s").announce, []);
    assert_eq!(report(&decision, ResourceKind::Spoke, "s").without_pod_ranges.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// A thousand nodes come and go, are labelled and unlabelled, also while writes fail; nobody moves, and no two
    /// have one address.
    #[test]
    fn in_a_thousand_nodes_that_come_and_go_nobody_moves_and_no_address_is_given_twice(
        rounds in proptest::collection::vec((any::<u64>(), 0usize..200), 3..6),
    ) {
        let resources = || vec![
            hub("hq", 0, json!({"tunnel": {"addresses": "10.200.0.0/20", "pinned": {"n-0003": "10.200.1.3"}}})),
            spoke("s", 1, json!({"hubs": [{"hubRef": "hq"}], "tunnel": {"addresses": "10.200.0.0/20"}})),
        ];
        let population = |seed: u64| {
            (0..1200).filter_map(move |number| {
                let draw = seed.wrapping_mul(number as u64 * 2 + 1).rotate_left(17) % 12;
                (draw < 10).then(|| node(number, if draw == 0 { HUB } else { &[] }))
            })
        };
        let mut now = world(resources(), population(1));
        for (seed, lost) in rounds {
            let before = now.clone();
            now.nodes = population(seed).collect();
            let (mut after, decision) = settled(&now);
            // Some writes fail: those nodes are told what they were told before.
            for wanted in decision.apply.iter().take(lost) {
                match before.dmvpn_nodes.get(&wanted.name) {
                    Some(old) => after.dmvpn_nodes.insert(wanted.name.clone(), Arc::clone(old)),
                    None => after.dmvpn_nodes.remove(&wanted.name),
                };
            }
            let told = after.dmvpn_nodes.iter().flat_map(|(node, told)| told.spec.tunnels.iter().map(move |t| (node, t)));
            let mut seen = BTreeMap::new();
            for (node, tunnel) in told {
                let other = seen.insert(tunnel.addresses[0], node);
                prop_assert!(other.is_none(), "{} is told to {node} and {other:?}", tunnel.addresses[0]);
                let had = before.dmvpn_nodes.get(node).into_iter().flat_map(|old| &old.spec.tunnels);
                for old in had.filter(|old| old.name == tunnel.name) {
                    prop_assert_eq!(&old.addresses, &tunnel.addresses);
                }
            }
            now = after;
        }
    }
}
