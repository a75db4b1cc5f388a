//! Decides, from a snapshot, what every node is to be told: pure, and the same for a cold start as for a small change.
//!
//! ```text
//! resources, the oldest first -> the nodes each selects, and which have tunnels -> addresses -> one NodePlan per node
//!   -> what differs
//! ```
//!
//! A mistake in one resource leaves the tunnels of others alone: each is added by itself, and where one cannot be
//! carried out as written, the node keeps the tunnel that it had of it.

use crate::addresses::{self, Addresses, Overlap};
use crate::gateways::{gateways, with_tunnels};
use crate::world::{Declared, NodeRecord, Resource, World};
use crds::node::{NodeByGateways, NodeTunnel, Role};
use crds::spec::{AnnounceMode, PodCidrSource};
use crds::{DmvpnNode, DmvpnNodeSpec};
use ipnet::IpNet;
use kube::ResourceExt as _;
use plan::{
    Gateway, HubNode, Member, NodeFacts, NodePlan, PlanError, PlanErrors, ResourceKind, ResourceName,
    by_gateways, selects,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Hubs that a `hubRef` brings along, at most; `DmvpnNode` has room for 64 in all.
const MAX_HUB_NODES: usize = 32;

/// What is to be done, and what is to be said.
#[derive(Debug, Default)]
pub struct Decision {
    /// `DmvpnNode`s that are to be made or changed.
    pub apply: Vec<Wanted>,
    /// `DmvpnNode`s that are to go: no resource selects their Node, or it is gone. With their UIDs.
    pub delete: Vec<(String, Option<String>)>,
    /// About each resource.
    pub reports: BTreeMap<ResourceName, Report>,
}

/// A `DmvpnNode` as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name, which is its Node's.
    pub name: String,
    /// UID of the Node, which owns it.
    pub owner: String,
    /// What the node does.
    pub spec: DmvpnNodeSpec,
}

/// What deciding found out about one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Nodes it selects.
    pub nodes: BTreeSet<String>,
    /// Nodes for which it cannot be carried out, and why.
    pub refused: Vec<(String, PlanError)>,
    /// What it and another resource both want.
    pub conflicts: Vec<PlanError>,
    /// Resources that give out the same addresses.
    pub overlaps: Vec<Overlap>,
    /// Nodes whose pods' ranges are to be announced, and have none.
    pub without_pod_ranges: BTreeSet<String>,
}

/// Decides.
pub fn decide(world: &World) -> Decision {
    let resources = world.resources();
    let selected = select(world, &resources);
    let tunnels = with_tunnels(world, &resources, &selected);
    let addresses = addresses::assign(&resources, &tunnels, &world.dmvpn_nodes);
    let mut decision = Decision::default();
    for resource in &resources {
        let nodes = selected.get(&resource.name).cloned().unwrap_or_default();
        decision.reports.insert(resource.name.clone(), Report { nodes, ..Report::default() });
    }
    for overlap in addresses::overlaps(&resources) {
        for name in [&overlap.older.0, &overlap.younger.0] {
            if let Some(report) = decision.reports.get_mut(name) {
                report.overlaps.push(overlap.clone());
            }
        }
    }
    let hub_refs = hub_refs(world, &resources, &tunnels, &addresses);
    let gateways = gateways(world, &resources, &tunnels, &addresses);
    let known =
        Known { world, tunnels: &tunnels, addresses: &addresses, hub_refs: &hub_refs, gateways: &gateways };
    for (name, node) in &world.nodes {
        let deciding = Deciding { known: &known, node };
        let members: Vec<&Resource<'_>> = resources
            .iter()
            .filter(|resource| selected.get(&resource.name).is_some_and(|nodes| nodes.contains(name)))
            .collect();
        let current = world.dmvpn_nodes.get(name).map(Arc::as_ref);
        let spec = deciding.spec(&members, current, &mut decision.reports);
        decision.settle(name, node, current, spec);
    }
    let gone = world.dmvpn_nodes.iter().filter(|(name, _)| !world.nodes.contains_key(*name));
    decision.delete.extend(gone.map(|(name, node)| (name.clone(), node.uid())));
    decision
}

impl Decision {
    /// What has to be written so that the node is told `spec`.
    fn settle(&mut self, name: &str, node: &NodeRecord, current: Option<&DmvpnNode>, spec: DmvpnNodeSpec) {
        let wanted = || Wanted { name: name.to_owned(), owner: node.uid.clone(), spec: spec.clone() };
        match current {
            None if spec.is_empty() => {}
            None => self.apply.push(wanted()),
            Some(current) if spec.is_empty() => {
                self.delete.push((name.to_owned(), current.uid()));
            }
            Some(current) => {
                let owned = current.owner_references().iter().any(|owner| owner.uid == node.uid);
                // One that is being deleted is made anew when it is gone.
                if current.metadata.deletion_timestamp.is_none() && (!owned || current.spec != spec) {
                    self.apply.push(wanted());
                }
            }
        }
    }
}

/// The nodes of each resource. A node is either a hub or a spoke of a DMVPN: in a hub's own cluster, a spoke of `nodes: {}`
/// means the other nodes.
fn select(world: &World, resources: &[Resource<'_>]) -> BTreeMap<ResourceName, BTreeSet<String>> {
    let of = |resource: &Resource<'_>| -> BTreeSet<String> {
        let nodes = world.nodes.iter().filter(|(_, node)| selects(resource.network.nodes, &node.facts));
        nodes.map(|(name, _)| name.clone()).collect()
    };
    let mut selected: BTreeMap<ResourceName, BTreeSet<String>> =
        resources.iter().map(|resource| (resource.name.clone(), of(resource))).collect();
    let (hubs, spokes): (Vec<_>, Vec<_>) =
        resources.iter().partition(|resource| resource.network.resource == ResourceKind::Hub);
    for spoke in spokes {
        let named = |hub: &Resource<'_>| {
            spoke.network.hubs.iter().any(|entry| entry.hub_ref.as_ref() == Some(&hub.name.name))
        };
        let hubs = hubs.iter().filter(|hub| named(hub) || addresses::same_dmvpn(hub, spoke));
        let taken: BTreeSet<String> =
            hubs.filter_map(|hub| selected.get(&hub.name)).flatten().cloned().collect();
        if let Some(nodes) = selected.get_mut(&spoke.name) {
            nodes.retain(|node| !taken.contains(node));
        }
    }
    selected
}

/// The nodes of each hub, as spokes of this cluster reach them.
fn hub_refs(
    world: &World,
    resources: &[Resource<'_>],
    tunnels: &BTreeMap<ResourceName, BTreeSet<String>>,
    addresses: &Addresses,
) -> BTreeMap<String, Vec<HubNode>> {
    let hubs = resources.iter().filter(|resource| resource.network.resource == ResourceKind::Hub);
    hubs.map(|hub| {
        let nodes = tunnels.get(&hub.name).into_iter().flatten().filter_map(|name| {
            let node = world.nodes.get(name)?;
            let addresses = addresses.of(&hub.name, name)?.as_ref().ok()?;
            hub.network.hub_node(&node.facts, addresses)
        });
        (hub.name.name.clone(), nodes.take(MAX_HUB_NODES).collect())
    })
    .collect()
}

/// What the plans of all nodes are made from.
struct Known<'a> {
    world: &'a World,
    tunnels: &'a BTreeMap<ResourceName, BTreeSet<String>>,
    addresses: &'a Addresses,
    hub_refs: &'a BTreeMap<String, Vec<HubNode>>,
    gateways: &'a BTreeMap<ResourceName, Vec<Gateway>>,
}

/// What one node's plan is made from.
struct Deciding<'a> {
    known: &'a Known<'a>,
    node: &'a NodeRecord,
}

impl Deciding<'_> {
    fn spec(
        &self,
        members: &[&Resource<'_>],
        current: Option<&DmvpnNode>,
        reports: &mut BTreeMap<ResourceName, Report>,
    ) -> DmvpnNodeSpec {
        let name = self.node.facts.name.as_str();
        let had = Had(current.map(|node| &node.spec));
        // Whoever has its interface, ports and networks already keeps them from those who only now want them.
        let mut members = members.to_vec();
        members.sort_by_key(|member| !had.tunnel(&member.name).is_some_and(|tunnel| settled(member, tunnel)));
        let mut plan = NodePlan::new(name);
        for member in members {
            let Err(PlanErrors(errors)) = self.add(&mut plan, member, reports) else { continue };
            report(&member.name, name, errors, reports);
            had.keep(&member.name, &mut plan);
        }
        let unreadable = self.known.world.declared.iter().filter(|declared| !declared.is_deleted());
        for declared in unreadable.filter(|declared| matches!(***declared, Declared::Unreadable { .. })) {
            had.keep(&declared.name(), &mut plan);
        }
        plan.finish()
    }

    fn add(
        &self,
        plan: &mut NodePlan<'_>,
        member: &Resource<'_>,
        reports: &mut BTreeMap<ResourceName, Report>,
    ) -> Result<(), PlanErrors> {
        let (facts, name) = (self.facts(member, reports)?, member.name.name.as_str());
        if !member.network.has_tunnel(&facts) {
            let gateways = self.known.gateways.get(&member.name).map(Vec::as_slice).unwrap_or_default();
            let told = by_gateways(name, member.network, &facts, gateways)?;
            return plan.add_by_gateways(member.name.clone(), told);
        }
        let addresses = match self.known.addresses.of(&member.name, &facts.name) {
            Some(Ok(addresses)) => addresses.clone(),
            Some(Err(errors)) => return Err(PlanErrors(errors.clone())),
            None => Vec::new(),
        };
        let member = Member { name, network: member.network, addresses };
        plan.add(&facts, &member, Some(self.known.hub_refs))
    }

    /// What is known of the node, with the pods' ranges that the resource wants announced of it.
    fn facts(
        &self,
        member: &Resource<'_>,
        reports: &mut BTreeMap<ResourceName, Report>,
    ) -> Result<NodeFacts, PlanErrors> {
        let (facts, announce) = (&self.node.facts, member.network.announce);
        let (world, from) = (self.known.world, announce.pod_cidrs.from);
        let gateways = self.known.tunnels.get(&member.name).filter(|nodes| nodes.contains(&facts.name));
        let pod_cidrs = match (announce.mode, gateways) {
            (AnnounceMode::Gateways, Some(gateways)) => of_cluster(world, from, &facts.name, gateways),
            _ => of_node(world, from, &facts.name),
        };
        let pod_cidrs = pod_cidrs.map_err(|(from, kind)| {
            let resource = member.name.clone();
            PlanErrors(vec![PlanError::PodCidrSourceMissing { resource, from, kind }])
        })?;
        if pod_cidrs.as_ref().is_some_and(Vec::is_empty)
            && let Some(report) = reports.get_mut(&member.name)
        {
            report.without_pod_ranges.insert(facts.name.clone());
        }
        Ok(NodeFacts { pod_cidrs, ..facts.clone() })
    }
}

/// What a node was told before.
#[derive(Clone, Copy)]
struct Had<'a>(Option<&'a DmvpnNodeSpec>);

impl<'a> Had<'a> {
    fn tunnel(self, resource: &ResourceName) -> Option<&'a NodeTunnel> {
        let mut tunnels = self.0.into_iter().flat_map(|spec| &spec.tunnels);
        tunnels.find(|tunnel| is_of(&tunnel.name, tunnel.role, resource))
    }

    fn by_gateways(self, resource: &ResourceName) -> Option<&'a NodeByGateways> {
        let mut all = self.0.into_iter().flat_map(|spec| &spec.by_gateways);
        all.find(|told| is_of(&told.name, told.role, resource))
    }

    /// Leaves it as it was. It may be in the way of another by now, which has been said then.
    fn keep(self, resource: &ResourceName, plan: &mut NodePlan<'_>) {
        if let Some(tunnel) = self.tunnel(resource) {
            let _ = plan.keep(resource.clone(), tunnel.clone());
        } else if let Some(told) = self.by_gateways(resource) {
            let _ = plan.add_by_gateways(resource.clone(), told.clone());
        }
    }
}

const CALICO: (&str, &str) = ("Calico", "BlockAffinity (crd.projectcalico.org/v1)");
const CILIUM: (&str, &str) = ("Cilium", "CiliumNode (cilium.io/v2)");

/// `None`: the source is not Kubernetes. Otherwise what is looked for and was not found.
type Found = Result<Option<Vec<IpNet>>, (&'static str, &'static str)>;

/// A node's pods' ranges.
fn of_node(world: &World, from: PodCidrSource, node: &str) -> Found {
    let of = |map: &Option<BTreeMap<String, Vec<IpNet>>>, missing| {
        let map = map.as_ref().ok_or(missing)?;
        Ok(Some(map.get(node).cloned().unwrap_or_default()))
    };
    match from {
        PodCidrSource::None | PodCidrSource::Static => Ok(None),
        PodCidrSource::Node => {
            Ok(Some(world.nodes.get(node).map(|node| node.pod_cidrs.clone()).unwrap_or_default()))
        }
        PodCidrSource::Calico => of(&world.calico, CALICO),
        PodCidrSource::Cilium => of(&world.cilium, CILIUM),
    }
}

/// What a gateway announces: all that the cluster has, in as few ranges as there can be, but for the pods of the other
/// gateways. Those send by their own tunnels, and what comes back should not come by another's.
fn of_cluster(world: &World, from: PodCidrSource, gateway: &str, gateways: &BTreeSet<String>) -> Found {
    let is_other = |node: &str| node != gateway && gateways.contains(node);
    let whole = |ranges: Vec<IpNet>| Ok(Some(IpNet::aggregate(&ranges)));
    let of = |map: &Option<BTreeMap<String, Vec<IpNet>>>, missing| {
        let map = map.as_ref().ok_or(missing)?;
        let ranges = map.iter().filter(|(node, _)| !is_other(node)).flat_map(|(_, ranges)| ranges);
        whole(ranges.copied().collect())
    };
    match from {
        PodCidrSource::None | PodCidrSource::Static => Ok(None),
        PodCidrSource::Node => {
            let nodes = world.nodes.iter().filter(|(name, _)| !is_other(name));
            whole(nodes.flat_map(|(_, node)| node.pod_cidrs.iter().copied()).collect())
        }
        PodCidrSource::Calico => of(&world.calico, CALICO),
        PodCidrSource::Cilium => of(&world.cilium, CILIUM),
    }
}

/// Is what a node is told by this name, as a hub's or a spoke's, of this resource?
pub fn is_of(name: &str, role: Role, resource: &ResourceName) -> bool {
    let kind = match role {
        Role::Hub => ResourceKind::Hub,
        Role::Spoke => ResourceKind::Spoke,
    };
    kind.named(name) == *resource
}

/// Does the tunnel have already what nodes have only once?
fn settled(resource: &Resource<'_>, tunnel: &NodeTunnel) -> bool {
    let network = &resource.network;
    tunnel.interface == network.tunnel.interface
        && tunnel.underlay.port == network.port()
        && tunnel.underlay.ike_port == network.ike_port()
        && tunnel.networks == network.networks()
}

/// Notes why a resource cannot be carried out on a node; a conflict stands at the other resource too.
fn report(
    resource: &ResourceName,
    node: &str,
    errors: Vec<PlanError>,
    reports: &mut BTreeMap<ResourceName, Report>,
) {
    for error in errors {
        if let Some((first, second)) = error.both() {
            for name in [first, second] {
                if let Some(report) = reports.get_mut(name) {
                    report.conflicts.push(error.clone());
                }
            }
        }
        if let Some(report) = reports.get_mut(resource) {
            report.refused.push((node.to_owned(), error));
        }
    }
}

#[cfg(test)]
mod tests;
