//! What a person must change before a plan can be made.

use crate::AllocateError;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// A resource as people call it: `DmvpnHub hq`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceName {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Why a node's configuration could not be made: each variant is one thing to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `nodes` selects by labels where there are no labels.
    #[error(
        "{resource}: spec.nodes selects by labels, and a machine without Kubernetes has none: leave spec.nodes out"
    )]
    SelectorWithoutKubernetes {
        /// Where.
        resource: ResourceName,
    },
    /// Two resources of one name select the same node.
    #[error(
        "{first} and {second} both select node {node}, and share a name that tells its tunnels apart: rename one"
    )]
    SameName {
        /// One.
        first: ResourceName,
        /// The other.
        second: ResourceName,
        /// The node.
        node: String,
    },
    /// Two tunnels of a node would be the same interface.
    #[error(
        "{first} and {second} both want interface {interface} on node {node}: give one another spec.tunnel.interface"
    )]
    SameInterface {
        /// One.
        first: ResourceName,
        /// The other.
        second: ResourceName,
        /// The node.
        node: String,
        /// The interface.
        interface: String,
    },
    /// Two tunnels of a node would listen on the same port.
    #[error(
        "{first} and {second} both want UDP port {port} on node {node}: give one another spec.underlay.port, on all its hubs and spokes"
    )]
    SamePort {
        /// One.
        first: ResourceName,
        /// The other.
        second: ResourceName,
        /// The node.
        node: String,
        /// The port.
        port: u16,
    },
    /// Two encrypted tunnels of a node would do IKE on the same port.
    #[error(
        "{first} and {second} both want UDP port {port} for IKE on node {node}: write spec.underlay.ikePort: 0 into one that has no foreign routers among its peers, or another port"
    )]
    SameIkePort {
        /// One.
        first: ResourceName,
        /// The other.
        second: ResourceName,
        /// The node.
        node: String,
        /// The port.
        port: u16,
    },
    /// IKE alone, and IKE with ESP in UDP, on the same port.
    #[error(
        "{resource}: spec.underlay.port and spec.underlay.ikePort are both {port}: write another into one of them (4500 and 500 are what routers expect)"
    )]
    PortsEqual {
        /// Where.
        resource: ResourceName,
        /// The port.
        port: u16,
    },
    /// Nobody signs certificates here.
    #[error(
        "{resource}: spec.security.authentication.certificates.issuedBy: {issued_by} needs Kubernetes: write issuedBy: Secret, and secret: the Secret (tls.crt, tls.key) of this node's certificate, or file:/folder (dmvpnctl pki makes them)"
    )]
    IssuerWithoutKubernetes {
        /// Where.
        resource: ResourceName,
        /// What stands there.
        issued_by: &'static str,
    },
    /// Two DMVPNs of a node use the same tunnel addresses.
    #[error(
        "{first} and {second} overlap in their tunnel networks {one} and {other} on node {node}: a node can be in both only if they are apart"
    )]
    NetworksOverlap {
        /// One.
        first: ResourceName,
        /// The other.
        second: ResourceName,
        /// The node.
        node: String,
        /// One's network.
        one: IpNet,
        /// The other's.
        other: IpNet,
    },
    /// Without an operator nobody gives addresses out.
    #[error(
        "{resource}: {field} {range} has room for several nodes, and without Kubernetes nobody gives them out: write the address of node {node} there as a single host (/{host}), or spec.tunnel.{pin}: {{{node}: ADDRESS}}"
    )]
    AddressNotChosen {
        /// Where.
        resource: ResourceName,
        /// `spec.tunnel.addresses` or its IPv6 twin.
        field: &'static str,
        /// What stands there.
        range: IpNet,
        /// This node.
        node: String,
        /// Length of a host's prefix.
        host: u8,
        /// `pinned` or its IPv6 twin.
        pin: &'static str,
    },
    /// Only other nodes are pinned.
    #[error("{resource}: no tunnel address for node {node}: add it to spec.tunnel.{pin}")]
    NotPinned {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
        /// `pinned` or its IPv6 twin.
        pin: &'static str,
    },
    /// Addresses could not be given out.
    #[error("{resource}: {source}")]
    Allocate {
        /// Where.
        resource: ResourceName,
        /// Why.
        source: AllocateError,
    },
    /// The network's own address, or its broadcast address.
    #[error(
        "{resource}: node {node} cannot have tunnel address {address}, which is {network}'s own or its broadcast address: choose another"
    )]
    UnusableAddress {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
        /// The address.
        address: IpAddr,
        /// The network.
        network: IpNet,
    },
    /// The node has no such address.
    #[error(
        "{resource}: node {node} has no address of type {kind}: write spec.underlay.interface, or another spec.underlay.addressFrom"
    )]
    NoUnderlayAddress {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
        /// `ExternalIP` or `InternalIP`.
        kind: &'static str,
    },
    /// An underlay address lies inside the overlay: packets would carry themselves.
    #[error(
        "{resource}: {field} {address} lies in the tunnel network {network}, so outer packets would go into their own tunnel: write the address on the underlay"
    )]
    UnderlayInsideOverlay {
        /// Where.
        resource: ResourceName,
        /// The field.
        field: String,
        /// The address.
        address: IpAddr,
        /// The network.
        network: IpNet,
    },
    /// `hubRef` names no hub that is known here.
    #[error("{resource}: {field} names DmvpnHub {hub}, {reason}: write the hub's address instead")]
    HubRefUnknown {
        /// Where.
        resource: ResourceName,
        /// The field.
        field: String,
        /// The hub.
        hub: String,
        /// Why it doesn't help.
        reason: &'static str,
    },
    /// Two entries are the same hub.
    #[error("{resource}: {field} is the hub {address}, which stands in the list already: remove one")]
    HubTwice {
        /// Where.
        resource: ResourceName,
        /// The second entry.
        field: String,
        /// Its address.
        address: String,
    },
    /// Pods' ranges are not known here.
    #[error(
        "{resource}: spec.announce.podCIDRs.from: {from} needs Kubernetes: write from: Static and cidrs, or leave podCIDRs out"
    )]
    PodCidrsUnknown {
        /// Where.
        resource: ResourceName,
        /// What stands there.
        from: &'static str,
    },
    /// The source of pods' ranges is not there, or has nothing for the node yet.
    #[error(
        "{resource}: spec.announce.podCIDRs.from: {from}, and this cluster has no {kind} that the operator can read: write where the pods' ranges are found (Node, Calico, Cilium, or Static and cidrs)"
    )]
    PodCidrSourceMissing {
        /// Where.
        resource: ResourceName,
        /// What stands there.
        from: &'static str,
        /// What is looked for.
        kind: &'static str,
    },
    /// More prefixes than a node announces.
    #[error(
        "{resource}: node {node} would announce {count} prefixes, and a node announces at most {most}: write the ranges that cover them, with podCIDRs.from: Static and cidrs"
    )]
    TooManyPrefixes {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
        /// How many.
        count: usize,
        /// The most.
        most: usize,
    },
    /// Nodes without a tunnel, and none that has one.
    #[error(
        "{resource}: node {node} has nobody to go by, as spec.announce.gateways selects none of the nodes that spec.nodes selects and that have an InternalIP: label one"
    )]
    NoGateway {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
    },
    /// A node without a tunnel does not know what to send by those that have one.
    #[error(
        "{resource}: node {node} is no gateway, and nothing says what it sends by one: list the other clusters' pods in spec.announce.toGateways; or let spec.nodes select the gateways alone, if your network routes to them"
    )]
    NothingByGateways {
        /// Where.
        resource: ResourceName,
        /// This node.
        node: String,
    },
    /// Gateways are of a cluster.
    #[error(
        "{resource}: spec.announce.mode: Gateways chooses among a cluster's nodes, and this is one machine: leave mode and gateways out"
    )]
    GatewaysWithoutKubernetes {
        /// Where.
        resource: ResourceName,
    },
    /// An address that is wanted by a pin belongs to another resource of the same DMVPN.
    #[error(
        "{resource}: spec.tunnel.{pin} gives node {node} the tunnel address {address}, which {owner} has in the same DMVPN: pin another address"
    )]
    PinTaken {
        /// Where.
        resource: ResourceName,
        /// `pinned` or its IPv6 twin.
        pin: &'static str,
        /// The pinned node.
        node: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// A Secret that is named is not in the folder.
    #[error(
        "{resource}: {field} names Secret {secret}, which is not among the manifests: add it, or write file:/path"
    )]
    SecretMissing {
        /// Where.
        resource: ResourceName,
        /// The field.
        field: &'static str,
        /// The Secret.
        secret: String,
    },
    /// A Secret lacks the entry that is read.
    #[error(
        "{resource}: {field} names Secret {secret}, which has no entry {entry}: add {entry} to its stringData"
    )]
    SecretEntryMissing {
        /// Where.
        resource: ResourceName,
        /// The field.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The entry.
        entry: &'static str,
    },
    /// NHRP authentication has 1 to 8 octets.
    #[error(
        "{resource}: {field}: the entry {entry} of Secret {secret} has {length} octets: NHRP authentication is 1 to 8 octets long"
    )]
    SecretLength {
        /// Where.
        resource: ResourceName,
        /// The field.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The entry.
        entry: &'static str,
        /// How long it is.
        length: usize,
    },
    /// The folder configures nothing.
    #[error("no DmvpnHub or DmvpnSpoke among the manifests: write one (docs/samples has examples)")]
    Nothing,
}

impl PlanError {
    /// The two resources that are in each other's way, if that is the mistake.
    #[must_use]
    pub const fn both(&self) -> Option<(&ResourceName, &ResourceName)> {
        match self {
            Self::SameName { first, second, .. }
            | Self::SameInterface { first, second, .. }
            | Self::SamePort { first, second, .. }
            | Self::SameIkePort { first, second, .. }
            | Self::NetworksOverlap { first, second, .. } => Some((first, second)),
            _ => None,
        }
    }
}

/// Everything that must be changed; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PlanErrors(pub Vec<PlanError>);
