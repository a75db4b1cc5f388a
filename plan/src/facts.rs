//! What is known of nodes, wherever it comes from.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels; without Kubernetes there are none.
    pub labels: BTreeMap<String, String>,
    /// Its underlay addresses, as a Node object lists them.
    pub addresses: Vec<(AddressKind, IpAddr)>,
    /// Address ranges of its pods, from the source that the resource names; `None` if they are not known.
    pub pod_cidrs: Option<Vec<IpNet>>,
}

impl NodeFacts {
    /// A node of which only the name is known.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Which kind of address, as Node objects call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Reachable from outside the cluster.
    ExternalIP,
    /// Reachable within the cluster.
    InternalIP,
}

/// A node of a `DmvpnHub`, as spokes of the same cluster reach it (`hubRef`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubNode {
    /// Underlay address.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Tunnel address.
    pub tunnel_address: IpAddr,
    /// The identity it asserts.
    pub identity: String,
}
