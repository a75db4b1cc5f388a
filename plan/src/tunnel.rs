//! One resource and one node to one tunnel. Specs are taken apart without `..`, so that a new field can't be forgotten.

use crate::error::{PlanError, ResourceName};
use crate::node::HubRefs;
use crate::{AddressKind, HubNode, NodeFacts, selects, usable};
use crds::node::{NodeBgp, NodeHub, NodeTunnel, NodeUnderlay, Role};
use crds::spec::{
    AddressFrom, AdmissionClass, Announce, AnnounceMode, Authentication, HubEntry, Nhrp, Phase,
    PodCidrSource, Routing, Security, SecurityMode, StaticPeer, Tunnel, Underlay,
};
use crds::{DmvpnHubSpec, DmvpnSpokeSpec};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// UDP port when everything is encrypted: NAT traversal of IKEv2 and ESP (RFC 3948).
pub const ENCRYPTED_PORT: u16 = 4500;
/// UDP port for IKE alone (RFC 7296 §2), with peers that send ESP without UDP.
pub(crate) const IKE_PORT: u16 = 500;
/// UDP port when nothing is: GRE in UDP (RFC 8086).
pub const CLEAR_PORT: u16 = 4754;
/// Prefixes that one node announces, at most, as `DmvpnNode` says.
const MAX_ANNOUNCED: usize = 512;

/// A hub's or a spoke's spec: what both have, with the rest as it differs.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// Hub or spoke.
    pub resource: ResourceKind,
    /// The nodes it selects.
    pub nodes: Option<&'a LabelSelector>,
    /// The overlay.
    pub tunnel: &'a Tunnel,
    underlay: &'a Underlay,
    /// Encryption and identity.
    pub security: &'a Security,
    pub(crate) nhrp: &'a Nhrp,
    admission: &'a [AdmissionClass],
    /// Hubs it registers with.
    pub hubs: &'a [HubEntry],
    /// Peers that don't speak NHRP.
    pub static_peers: &'a [StaticPeer],
    routing: &'a Routing,
    /// What its nodes announce.
    pub announce: &'a Announce,
    protected_prefixes: &'a [IpNet],
}

/// Which kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// `DmvpnHub`.
    Hub,
    /// `DmvpnSpoke`.
    Spoke,
}

impl ResourceKind {
    /// How people call the resource of this kind and name.
    #[must_use]
    pub fn named(self, name: &str) -> ResourceName {
        let kind = match self {
            Self::Hub => "DmvpnHub",
            Self::Spoke => "DmvpnSpoke",
        };
        ResourceName { kind, name: name.to_owned() }
    }

    /// What its nodes are.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Hub => Role::Hub,
            Self::Spoke => Role::Spoke,
        }
    }
}

impl<'a> From<&'a DmvpnHubSpec> for Network<'a> {
    fn from(spec: &'a DmvpnHubSpec) -> Self {
        let DmvpnHubSpec {
            nodes,
            tunnel,
            underlay,
            security,
            nhrp,
            admission,
            hubs,
            static_peers,
            routing,
            announce,
            protected_prefixes,
        } = spec;
        Self {
            resource: ResourceKind::Hub,
            nodes: nodes.as_ref(),
            tunnel,
            underlay,
            security,
            nhrp,
            admission,
            hubs,
            static_peers,
            routing,
            announce,
            protected_prefixes,
        }
    }
}

impl<'a> From<&'a DmvpnSpokeSpec> for Network<'a> {
    fn from(spec: &'a DmvpnSpokeSpec) -> Self {
        let DmvpnSpokeSpec {
            nodes,
            hubs,
            tunnel,
            underlay,
            security,
            nhrp,
            static_peers,
            routing,
            announce,
            protected_prefixes,
        } = spec;
        Self {
            resource: ResourceKind::Spoke,
            nodes: nodes.as_ref(),
            tunnel,
            underlay,
            security,
            nhrp,
            admission: &[],
            hubs,
            static_peers,
            routing,
            announce,
            protected_prefixes,
        }
    }
}

impl Network<'_> {
    /// How people call the resource of this name.
    #[must_use]
    pub fn name(&self, name: &str) -> ResourceName {
        self.resource.named(name)
    }

    /// Does this node, which it selects, have a tunnel? Otherwise it goes by nodes that have one.
    #[must_use]
    pub fn has_tunnel(&self, node: &NodeFacts) -> bool {
        match self.announce.mode {
            AnnounceMode::EveryNode => true,
            AnnounceMode::Gateways => selects(self.announce.gateways.as_ref(), node),
        }
    }

    /// The tunnel's networks: one of each IP version it uses.
    #[must_use]
    pub fn networks(&self) -> Vec<IpNet> {
        [Some(self.tunnel.network), self.tunnel.network_v6].into_iter().flatten().collect()
    }

    /// UDP port that its nodes use.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.underlay.port.unwrap_or(match self.security.mode {
            SecurityMode::Encrypted => ENCRYPTED_PORT,
            SecurityMode::None => CLEAR_PORT,
        })
    }

    /// One of its nodes, as spokes of the same cluster reach it; `None` if no underlay address of it is known.
    #[must_use]
    pub fn hub_node(&self, node: &NodeFacts, addresses: &[IpAddr]) -> Option<HubNode> {
        let of =
            |wanted| node.addresses.iter().find(|(kind, _)| *kind == wanted).map(|(_, address)| *address);
        let (internal, external) = (of(AddressKind::InternalIP), of(AddressKind::ExternalIP));
        let asked_for = match self.underlay.address_from {
            Some(AddressFrom::ExternalIP) => external,
            Some(AddressFrom::InternalIP) => internal,
            None => None,
        };
        Some(HubNode {
            address: self.underlay.address.or(asked_for).or(internal).or(external)?,
            port: self.port(),
            tunnel_address: *addresses.first()?,
            identity: identity(&node.name, self.security.domain.as_deref()),
        })
    }

    /// UDP port for IKE alone.
    #[must_use]
    pub fn ike_port(&self) -> Option<u16> {
        match self.security.mode {
            SecurityMode::Encrypted => {
                Some(self.underlay.ike_port.unwrap_or(IKE_PORT)).filter(|port| *port > 0)
            }
            SecurityMode::None => None,
        }
    }
}

/// The Secret that `{node}` in a name stands for, at this node.
pub(crate) fn of_node(secret: &str, node: &str) -> String {
    secret.replace("{node}", node)
}

/// The name a node asserts: its own, in the resource's domain.
#[must_use]
pub fn identity(node: &str, domain: Option<&str>) -> String {
    match domain {
        Some(domain) if node != domain && !node.ends_with(&format!(".{domain}")) => {
            format!("{node}.{domain}")
        }
        _ => node.to_owned(),
    }
}

/// The tunnel of `node`, whose tunnel addresses are `addresses` (one of each network, in order).
pub(crate) fn build(
    name: &str,
    network: Network<'_>,
    node: &NodeFacts,
    addresses: &[IpAddr],
    hub_refs: HubRefs<'_>,
    errors: &mut Vec<PlanError>,
) -> NodeTunnel {
    let resource = network.name(name);
    let Network {
        resource: kind,
        nodes: _,
        tunnel,
        underlay,
        security,
        nhrp,
        admission,
        hubs,
        static_peers,
        routing,
        announce,
        protected_prefixes,
    } = network;
    let Tunnel {
        network: _,
        network_v6: _,
        addresses: _,
        addresses_v6: _,
        pinned: _,
        pinned_v6: _,
        key,
        phase,
        mtu,
        ttl,
        interface,
    } = tunnel;
    let networks = network.networks();
    for (network, address) in networks.iter().zip(addresses) {
        if !usable(*network, *address) {
            let (node, network, address) = (node.name.clone(), *network, *address);
            errors.push(PlanError::UnusableAddress { resource: resource.clone(), node, address, network });
        }
    }
    let identity = identity(&node.name, security.domain.as_deref());
    let port = network.port();
    let plan = Checks { resource: &resource, networks: &networks };
    let hubs = plan.hubs(hubs, port, &identity, hub_refs, errors);
    for (index, peer) in static_peers.iter().enumerate() {
        plan.on_underlay(&format!("spec.staticPeers[{index}].nbma"), peer.nbma, errors);
    }
    NodeTunnel {
        name: name.to_owned(),
        role: kind.role(),
        interface: interface.clone(),
        bgp: bgp(routing, kind, *phase, !hubs.is_empty(), &networks, addresses, &identity),
        static_routes: routing.static_routes.clone(),
        networks: networks.clone(),
        addresses: addresses.to_vec(),
        identity,
        key: *key,
        phase: *phase,
        mtu: *mtu,
        ttl: *ttl,
        underlay: plan.underlay(underlay, (port, network.ike_port()), node, errors),
        security: self::security(security, node),
        nhrp: nhrp.clone(),
        hubs,
        admission: admission.to_vec(),
        static_peers: static_peers.to_vec(),
        announce: announced(&resource, announce, node, errors),
        protected_prefixes: protected_prefixes.to_vec(),
    }
}

/// The security of one node: with its own Secret.
fn security(security: &Security, node: &NodeFacts) -> Security {
    let mut security = security.clone();
    if let Some(Authentication { certificates: Some(certificates), .. }) = &mut security.authentication
        && let Some(secret) = &mut certificates.secret
    {
        *secret = of_node(secret, &node.name);
    }
    security
}

fn bgp(
    routing: &Routing,
    kind: ResourceKind,
    phase: Phase,
    has_hubs: bool,
    networks: &[IpNet],
    addresses: &[IpAddr],
    identity: &str,
) -> Option<NodeBgp> {
    let Routing { bgp, static_routes: _ } = routing;
    let hub = kind == ResourceKind::Hub;
    bgp.as_ref().map(|settings| NodeBgp {
        settings: settings.clone(),
        dynamic_neighbors: if hub { networks.to_vec() } else { Vec::new() },
        neighbors_are_hubs: has_hubs,
        preserve_next_hop: hub && phase == Phase::Two,
        router_id: router_id(addresses, identity),
    })
}

/// BGP identifiers have 32 bits and must differ: the IPv4 tunnel address does; with IPv6 alone, a hash of the
/// identity (FNV-1a), which is the same after every restart.
pub(crate) fn router_id(addresses: &[IpAddr], identity: &str) -> Ipv4Addr {
    let first = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    first.unwrap_or_else(|| {
        let hash = identity
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Ipv4Addr::from(hash.max(1))
    })
}

/// What the parts of one resource are checked against.
struct Checks<'a> {
    resource: &'a ResourceName,
    networks: &'a [IpNet],
}

impl Checks<'_> {
    fn on_underlay(&self, field: &str, address: IpAddr, errors: &mut Vec<PlanError>) {
        if let Some(network) = self.networks.iter().find(|network| network.contains(&address)) {
            errors.push(PlanError::UnderlayInsideOverlay {
                resource: self.resource.clone(),
                field: field.to_owned(),
                address,
                network: *network,
            });
        }
    }

    fn underlay(
        &self,
        underlay: &Underlay,
        (port, ike_port): (u16, Option<u16>),
        node: &NodeFacts,
        errors: &mut Vec<PlanError>,
    ) -> NodeUnderlay {
        let Underlay { address_from, interface, address, port: _, ike_port: _, advertise } = underlay;
        let from_node = address_from.and_then(|from| {
            let (wanted, kind) = match from {
                AddressFrom::ExternalIP => (AddressKind::ExternalIP, "ExternalIP"),
                AddressFrom::InternalIP => (AddressKind::InternalIP, "InternalIP"),
            };
            let found = node.addresses.iter().find(|(kind, _)| *kind == wanted).map(|(_, address)| *address);
            if found.is_none() {
                let (resource, node) = (self.resource.clone(), node.name.clone());
                errors.push(PlanError::NoUnderlayAddress { resource, node, kind });
            }
            found
        });
        if let Some(address) = address {
            self.on_underlay("spec.underlay.address", *address, errors);
        }
        let advertise = advertise.get(&node.name).copied();
        if let Some(address) = advertise {
            self.on_underlay(&format!("spec.underlay.advertise.{}", node.name), address, errors);
        }
        if ike_port == Some(port) {
            errors.push(PlanError::PortsEqual { resource: self.resource.clone(), port });
        }
        NodeUnderlay {
            address: address.or(from_node),
            interface: interface.clone(),
            port,
            ike_port,
            advertise,
        }
    }

    /// The hubs to register with, best first; a hub that is among its own hubs (as a node of `hubRef`) is left out.
    fn hubs(
        &self,
        entries: &[HubEntry],
        port: u16,
        own_identity: &str,
        hub_refs: HubRefs<'_>,
        errors: &mut Vec<PlanError>,
    ) -> Vec<NodeHub> {
        let mut hubs = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let HubEntry {
                address,
                hub_ref,
                tunnel_address,
                port: hub_port,
                priority,
                identity,
                encapsulation,
            } = entry;
            if let Some(address) = address {
                let hub = NodeHub {
                    address: address.trim_end_matches('.').to_ascii_lowercase(),
                    port: hub_port.unwrap_or(port),
                    tunnel_address: *tunnel_address,
                    priority: *priority,
                    identity: identity.clone(),
                    encapsulation: *encapsulation,
                };
                if let Some(literal) = hub.literal() {
                    self.on_underlay(&format!("spec.hubs[{index}].address"), literal, errors);
                }
                hubs.push((index, hub));
            }
            let Some(hub_ref) = hub_ref else { continue };
            let Some(nodes) = hub_refs.and_then(|refs| refs.get(hub_ref)) else {
                errors.push(PlanError::HubRefUnknown {
                    resource: self.resource.clone(),
                    field: format!("spec.hubs[{index}].hubRef"),
                    hub: hub_ref.clone(),
                    reason: match hub_refs {
                        None => "whose nodes only Kubernetes knows",
                        Some(_) => "which is not in this cluster",
                    },
                });
                continue;
            };
            hubs.extend(nodes.iter().filter(|node| node.identity != own_identity).map(|node| {
                let hub = NodeHub {
                    address: node.address.to_string(),
                    port: node.port,
                    tunnel_address: Some(node.tunnel_address),
                    priority: *priority,
                    identity: Some(identity.clone().unwrap_or_else(|| node.identity.clone())),
                    encapsulation: *encapsulation,
                };
                (index, hub)
            }));
        }
        let mut seen = BTreeSet::new();
        for (index, hub) in &hubs {
            if !seen.insert((hub.address.clone(), hub.port)) {
                let field = format!("spec.hubs[{index}]");
                errors.push(PlanError::HubTwice {
                    resource: self.resource.clone(),
                    field,
                    address: hub.address.clone(),
                });
            }
        }
        hubs.sort_by_key(|(_, hub)| hub.priority);
        hubs.into_iter().map(|(_, hub)| hub).collect()
    }
}

/// What is announced of a node. Whether the node does that itself, [`Network::has_tunnel`] says.
pub(crate) fn announced(
    resource: &ResourceName,
    announce: &Announce,
    node: &NodeFacts,
    errors: &mut Vec<PlanError>,
) -> Vec<IpNet> {
    let Announce { mode: _, gateways: _, to_gateways: _, pod_cidrs, prefixes } = announce;
    let mut all: BTreeSet<IpNet> = prefixes.iter().copied().collect();
    let from = match pod_cidrs.from {
        PodCidrSource::None => None,
        PodCidrSource::Static => {
            all.extend(&pod_cidrs.cidrs);
            None
        }
        PodCidrSource::Node => Some("Node"),
        PodCidrSource::Calico => Some("Calico"),
        PodCidrSource::Cilium => Some("Cilium"),
    };
    match (from, &node.pod_cidrs) {
        (Some(from), None) => errors.push(PlanError::PodCidrsUnknown { resource: resource.clone(), from }),
        (Some(_), Some(cidrs)) => all.extend(cidrs),
        (None, _) => {}
    }
    if all.len() > MAX_ANNOUNCED {
        let (resource, node) = (resource.clone(), node.name.clone());
        errors.push(PlanError::TooManyPrefixes { resource, node, count: all.len(), most: MAX_ANNOUNCED });
    }
    all.into_iter().collect()
}
