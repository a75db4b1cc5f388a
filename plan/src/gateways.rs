//! A node that has no tunnel (`announce.mode: Gateways`): the nodes it goes by.

use crate::error::{PlanError, PlanErrors};
use crate::tunnel::{self, Network};
use crate::{AddressKind, NodeFacts};
use crds::node::{NodeByGateways, NodeGateway};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Gateways that a node is told of, at most.
pub const MAX_GATEWAYS: usize = 16;

/// A node that has a tunnel, as the others of its cluster see it. The order is that in which they go by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// One that forwards comes before one that does not.
    idle: bool,
    /// Between ways as good as each other BGP prefers the lower identifier. Who goes by the same one has the answers come
    /// back by it too, and a firewall on the way sees both directions.
    bgp_identifier: Ipv4Addr,
    node: String,
    addresses: Vec<IpAddr>,
}

impl Gateway {
    /// A node of this network with these tunnel addresses; `None`: no address of it within the cluster is known.
    #[must_use]
    pub fn new(network: &Network<'_>, node: &NodeFacts, tunnel: &[IpAddr], forwards: bool) -> Option<Self> {
        let internal = |v4: bool| {
            let mut all = node.addresses.iter().filter(|(kind, _)| *kind == AddressKind::InternalIP);
            all.find(|(_, address)| address.is_ipv4() == v4).map(|(_, address)| *address)
        };
        let addresses: Vec<IpAddr> = [internal(true), internal(false)].into_iter().flatten().collect();
        let identity = tunnel::identity(&node.name, network.security.domain.as_deref());
        (!addresses.is_empty()).then(|| Self {
            idle: !forwards,
            bgp_identifier: tunnel::router_id(tunnel, &identity),
            node: node.name.clone(),
            addresses,
        })
    }
}

/// What a node without a tunnel is told. `node` has the ranges of its own pods; `gateways` are in order.
///
/// # Errors
/// With everything that must be changed.
pub fn by_gateways(
    name: &str,
    network: Network<'_>,
    node: &NodeFacts,
    gateways: &[Gateway],
) -> Result<NodeByGateways, PlanErrors> {
    let resource = network.name(name);
    let mut errors = Vec::new();
    let sources = tunnel::announced(&resource, network.announce, node, &mut errors);
    if gateways.is_empty() {
        errors.push(PlanError::NoGateway { resource: resource.clone(), node: node.name.clone() });
    }
    let prefixes: BTreeSet<IpNet> = network.announce.to_gateways.iter().map(IpNet::trunc).collect();
    if prefixes.is_empty() {
        errors.push(PlanError::NothingByGateways { resource, node: node.name.clone() });
    }
    if !errors.is_empty() {
        return Err(PlanErrors(errors));
    }
    let via = gateways.iter().take(MAX_GATEWAYS);
    Ok(NodeByGateways {
        name: name.to_owned(),
        role: network.resource.role(),
        via: via.map(|g| NodeGateway { node: g.node.clone(), addresses: g.addresses.clone() }).collect(),
        prefixes: prefixes.into_iter().collect(),
        sources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::DmvpnSpoke;

    fn spoke(to_gateways: &str) -> DmvpnSpoke {
        let text = format!(
            "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {{name: s}}
spec:
  nodes: {{}}
  hubs: [{{address: 198.51.100.1}}]
  tunnel: {{network: 10.200.0.0/16, addresses: 10.200.16.0/20}}
  security: {{mode: None}}
  announce:
    mode: Gateways
    gateways: {{matchLabels: {{gw: 'yes'}}}}
    podCIDRs: {{from: Node}}
    prefixes: [192.168.7.0/24]
    toGateways: [{to_gateways}]
"
        );
        crds::manifest::read_text("t", &text).unwrap().spokes.remove(0)
    }

    fn facts(name: &str, addresses: &[&str]) -> NodeFacts {
        let internal = |text: &&str| (AddressKind::InternalIP, text.parse().unwrap());
        NodeFacts {
            addresses: addresses.iter().map(internal).collect(),
            pod_cidrs: Some(vec!["10.1.1.0/24".parse().unwrap()]),
            ..NodeFacts::named(name)
        }
    }

    fn gateway(spoke: &DmvpnSpoke, name: &str, tunnel: &str, forwards: bool) -> Gateway {
        let node = facts(name, &["fd00::7", "192.0.2.7", "192.0.2.8"]);
        Gateway::new(&Network::from(&spoke.spec), &node, &[tunnel.parse().unwrap()], forwards).unwrap()
    }

    #[test]
    fn who_forwards_comes_first_and_then_whom_bgp_prefers() {
        let spoke = spoke("10.2.0.0/16");
        let mut gateways = [
            gateway(&spoke, "a", "10.200.16.9", true),
            gateway(&spoke, "b", "10.200.16.10", true),
            gateway(&spoke, "c", "10.200.16.1", false),
            gateway(&spoke, "d", "10.200.16.2", true),
        ];
        gateways.sort();
        assert_eq!(gateways.each_ref().map(|gateway| gateway.node.as_str()), ["d", "a", "b", "c"]);
    }

    #[test]
    fn a_node_without_a_tunnel_is_told_the_way_and_whose_addresses_to_keep() {
        let spoke = spoke("10.2.0.0/16, 10.3.0.0/16");
        let gateways = [gateway(&spoke, "a", "10.200.16.1", true)];
        let told = by_gateways("s", Network::from(&spoke.spec), &facts("n", &[]), &gateways).unwrap();
        assert_eq!(told.via[0].addresses, ["192.0.2.7", "fd00::7"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(told.prefixes, ["10.2.0.0/16", "10.3.0.0/16"].map(|p| p.parse::<IpNet>().unwrap()));
        assert_eq!(told.sources, ["10.1.1.0/24", "192.168.7.0/24"].map(|p| p.parse::<IpNet>().unwrap()));
    }

    #[test]
    fn without_a_gateway_or_a_prefix_there_is_no_way() {
        let spoke = spoke("");
        let told = by_gateways("s", Network::from(&spoke.spec), &facts("n", &[]), &[]);
        let PlanErrors(errors) = told.unwrap_err();
        assert!(
            matches!(errors.as_slice(), [PlanError::NoGateway { .. }, PlanError::NothingByGateways { .. }]),
            "{errors:?}"
        );
    }

    #[test]
    fn a_node_of_which_no_address_is_known_is_nobodys_gateway() {
        let spoke = spoke("");
        let tunnel = ["10.200.16.1".parse().unwrap()];
        assert_eq!(Gateway::new(&Network::from(&spoke.spec), &facts("n", &[]), &tunnel, true), None);
    }
}
