//! Who of a resource's nodes has a tunnel, and who goes by whom (`announce.mode: Gateways`). Pure.

use crate::addresses::Addresses;
use crate::world::{Resource, World};
use crds::conditions::READY;
use crds::spec::AnnounceMode;
use plan::{Gateway, ResourceName};
use std::collections::{BTreeMap, BTreeSet};

/// Of the nodes that each resource selects, those that have a tunnel.
pub fn with_tunnels(
    world: &World,
    resources: &[Resource<'_>],
    selected: &BTreeMap<ResourceName, BTreeSet<String>>,
) -> BTreeMap<ResourceName, BTreeSet<String>> {
    let of = |resource: &Resource<'_>| {
        let nodes = selected.get(&resource.name).into_iter().flatten();
        let has_tunnel = |name: &&String| {
            world.nodes.get(*name).is_some_and(|node| resource.network.has_tunnel(&node.facts))
        };
        nodes.filter(has_tunnel).cloned().collect()
    };
    resources.iter().map(|resource| (resource.name.clone(), of(resource))).collect()
}

/// The gateways of each resource that has some, in the order in which others go by them.
pub fn gateways(
    world: &World,
    resources: &[Resource<'_>],
    with_tunnels: &BTreeMap<ResourceName, BTreeSet<String>>,
    addresses: &Addresses,
) -> BTreeMap<ResourceName, Vec<Gateway>> {
    let gatewayed = |resource: &&Resource<'_>| resource.network.announce.mode == AnnounceMode::Gateways;
    let of = |resource: &Resource<'_>| {
        let nodes = with_tunnels.get(&resource.name).into_iter().flatten();
        let gateway = |name: &String| {
            let tunnel = addresses.of(&resource.name, name)?.as_ref().ok()?;
            let facts = &world.nodes.get(name)?.facts;
            Gateway::new(&resource.network, facts, tunnel, forwards(world, resource, name))
        };
        let mut gateways: Vec<Gateway> = nodes.filter_map(gateway).collect();
        gateways.sort();
        gateways
    };
    resources.iter().filter(gatewayed).map(|resource| (resource.name.clone(), of(resource))).collect()
}

/// What a node's agent said last is worth nothing when the Node is not ready.
fn forwards(world: &World, resource: &Resource<'_>, name: &str) -> bool {
    let reported = world.dmvpn_nodes.get(name).and_then(|node| node.status.as_ref());
    let mut tunnels = reported.into_iter().flat_map(|status| &status.tunnels);
    let tunnel = tunnels.find(|tunnel| tunnel.name == resource.name.name);
    let mut conditions = tunnel.into_iter().flat_map(|tunnel| &tunnel.conditions);
    world.nodes.get(name).is_some_and(|node| node.ready)
        && conditions.any(|condition| condition.type_ == READY && condition.status == "True")
}
