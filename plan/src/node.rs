//! All resources that select a node to that node's spec.

use crate::error::{PlanError, PlanErrors, ResourceName};
use crate::tunnel::{Network, build};
use crate::{HubNode, NodeFacts};
use crds::DmvpnNodeSpec;
use crds::node::{NodeByGateways, NodeTunnel};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A resource that selects the node, with the tunnel addresses that the node has there.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Name of the resource.
    pub name: &'a str,
    /// Its spec.
    pub network: Network<'a>,
    /// The node's tunnel addresses: one of each of the resource's networks, in the same order.
    pub addresses: Vec<IpAddr>,
}

/// Nodes of the hubs in this cluster, by the hub's name; `None` where there is no cluster.
pub type HubRefs<'a> = Option<&'a BTreeMap<String, Vec<HubNode>>>;

/// What a node does, from the resources that select it.
///
/// # Errors
/// With everything that must be changed before the node can do it.
pub fn node(
    node: &NodeFacts,
    members: &[Member<'_>],
    hub_refs: HubRefs<'_>,
) -> Result<DmvpnNodeSpec, PlanErrors> {
    let mut errors = Vec::new();
    let mut tunnels: Vec<(ResourceName, NodeTunnel)> = Vec::new();
    for member in members {
        let resource = member.network.name(member.name);
        let tunnel = build(member.name, member.network, node, &member.addresses, hub_refs, &mut errors);
        for (other, earlier) in &tunnels {
            conflicts(&node.name, (other, earlier), (&resource, &tunnel), &mut errors);
        }
        tunnels.push((resource, tunnel));
    }
    if !errors.is_empty() {
        return Err(PlanErrors(errors));
    }
    Ok(spec(tunnels, Vec::new()))
}

/// The tunnels of one node, added one by one: what is wrong with one does not touch those that stand already.
#[derive(Clone, Debug)]
pub struct NodePlan<'a> {
    node: &'a str,
    tunnels: Vec<(ResourceName, NodeTunnel)>,
    by_gateways: Vec<(ResourceName, NodeByGateways)>,
}

impl<'a> NodePlan<'a> {
    /// A node without tunnels.
    #[must_use]
    pub const fn new(node: &'a str) -> Self {
        Self { node, tunnels: Vec::new(), by_gateways: Vec::new() }
    }

    /// Adds the tunnel of a resource. `facts` are those of this node, with the pods' ranges that the resource asks for.
    ///
    /// # Errors
    /// With everything that must be changed; nothing is added then.
    pub fn add(
        &mut self,
        facts: &NodeFacts,
        member: &Member<'_>,
        hub_refs: HubRefs<'_>,
    ) -> Result<(), PlanErrors> {
        let mut errors = Vec::new();
        let tunnel = build(member.name, member.network, facts, &member.addresses, hub_refs, &mut errors);
        self.place(member.network.name(member.name), tunnel, errors)
    }

    /// Adds a tunnel as it was made earlier, when its resource made sense.
    ///
    /// # Errors
    /// If it conflicts with those that stand; nothing is added then.
    pub fn keep(&mut self, resource: ResourceName, tunnel: NodeTunnel) -> Result<(), PlanErrors> {
        self.place(resource, tunnel, Vec::new())
    }

    /// Adds a DMVPN that the node is in by others' tunnels.
    ///
    /// # Errors
    /// If another has its name; nothing is added then.
    pub fn add_by_gateways(
        &mut self,
        resource: ResourceName,
        by_gateways: NodeByGateways,
    ) -> Result<(), PlanErrors> {
        if let Some(error) = self.same_name(&resource) {
            return Err(PlanErrors(vec![error]));
        }
        self.by_gateways.push((resource, by_gateways));
        Ok(())
    }

    /// What the node does.
    #[must_use]
    pub fn finish(self) -> DmvpnNodeSpec {
        spec(self.tunnels, self.by_gateways)
    }

    fn place(
        &mut self,
        resource: ResourceName,
        tunnel: NodeTunnel,
        mut errors: Vec<PlanError>,
    ) -> Result<(), PlanErrors> {
        for (other, earlier) in &self.tunnels {
            conflicts(self.node, (other, earlier), (&resource, &tunnel), &mut errors);
        }
        if errors.is_empty() {
            errors.extend(self.same_name(&resource));
        }
        if !errors.is_empty() {
            return Err(PlanErrors(errors));
        }
        self.tunnels.push((resource, tunnel));
        Ok(())
    }

    fn same_name(&self, second: &ResourceName) -> Option<PlanError> {
        let all = self.tunnels.iter().map(|(first, _)| first);
        let mut all = all.chain(self.by_gateways.iter().map(|(first, _)| first));
        let first = all.find(|first| first.name == second.name)?.clone();
        Some(PlanError::SameName { first, second: second.clone(), node: self.node.to_owned() })
    }
}

fn spec(
    tunnels: Vec<(ResourceName, NodeTunnel)>,
    by_gateways: Vec<(ResourceName, NodeByGateways)>,
) -> DmvpnNodeSpec {
    let mut tunnels: Vec<NodeTunnel> = tunnels.into_iter().map(|(_, tunnel)| tunnel).collect();
    let mut by_gateways: Vec<NodeByGateways> = by_gateways.into_iter().map(|(_, told)| told).collect();
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    by_gateways.sort_by(|a, b| a.name.cmp(&b.name));
    DmvpnNodeSpec { tunnels, by_gateways }
}

/// Two tunnels of one node share its interfaces, ports and addresses.
fn conflicts(
    node: &str,
    (first, one): (&ResourceName, &NodeTunnel),
    (second, other): (&ResourceName, &NodeTunnel),
    errors: &mut Vec<PlanError>,
) {
    let (first, second, node) = (first.clone(), second.clone(), node.to_owned());
    if one.name == other.name {
        errors.push(PlanError::SameName { first, second, node });
        return;
    }
    let overlapping = one
        .networks
        .iter()
        .find_map(|a| other.networks.iter().find(|b| a.contains(*b) || b.contains(a)).map(|b| (*a, *b)));
    if let Some((one, other)) = overlapping {
        let (first, second, node) = (first.clone(), second.clone(), node.clone());
        errors.push(PlanError::NetworksOverlap { first, second, node, one, other });
    }
    let ports = |tunnel: &NodeTunnel| {
        [(Some(tunnel.underlay.port), "port"), (tunnel.underlay.ike_port, "ikePort")]
            .map(|(port, field)| port.map(|port| (port, field)))
    };
    for (port, _) in ports(one).into_iter().flatten() {
        for (_, field) in ports(other).into_iter().flatten().filter(|(taken, _)| *taken == port) {
            let (first, second, node) = (first.clone(), second.clone(), node.clone());
            errors.push(match field {
                "ikePort" => PlanError::SameIkePort { first, second, node, port },
                _ => PlanError::SamePort { first, second, node, port },
            });
        }
    }
    if one.interface == other.interface {
        errors.push(PlanError::SameInterface { first, second, node, interface: one.interface.clone() });
    }
}
