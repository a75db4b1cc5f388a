//! Which node has which tunnel address: stable, and never twice, also between resources of one DMVPN.
//!
//! What nodes hold is read back from the `DmvpnNode`s, those of Nodes that are gone among them: an address is free when
//! nobody is told any more that it is theirs.

use crate::world::Resource;
use crds::DmvpnNode;
use crds::spec::Tunnel;
use ipnet::IpNet;
use plan::{PlanError, ResourceKind, ResourceName, share};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// One address of each network, or why not.
pub type Given = Result<Vec<IpAddr>, Vec<PlanError>>;

/// Addresses of each resource's nodes.
#[derive(Debug, Default)]
pub struct Addresses(BTreeMap<ResourceName, BTreeMap<String, Given>>);

impl Addresses {
    /// Those of a node that the resource selects.
    pub fn of(&self, resource: &ResourceName, node: &str) -> Option<&Given> {
        self.0.get(resource)?.get(node)
    }
}

/// Two resources of one DMVPN that give out the same addresses. No address is given twice all the same, but whoever
/// reads them cannot tell whose node an address is, and a CA that is confined to one covers the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The older resource, and its range.
    pub older: (ResourceName, IpNet),
    /// The younger one.
    pub younger: (ResourceName, IpNet),
}

/// Resources (the oldest first) that give out the same addresses.
pub fn overlaps(resources: &[Resource<'_>]) -> Vec<Overlap> {
    let mut found = Vec::new();
    for (index, younger) in resources.iter().enumerate() {
        for older in resources.iter().take(index).filter(|older| same_dmvpn(older, younger)) {
            let ranges = |resource: &Resource<'_>| {
                let Tunnel { addresses, addresses_v6, .. } = resource.network.tunnel;
                [*addresses, *addresses_v6].into_iter().flatten().collect::<Vec<_>>()
            };
            let pair = ranges(older).into_iter().find_map(|a| {
                ranges(younger).into_iter().find(|b| a.contains(b) || b.contains(&a)).map(|b| (a, b))
            });
            if let Some((a, b)) = pair {
                found.push(Overlap { older: (older.name.clone(), a), younger: (younger.name.clone(), b) });
            }
        }
    }
    found
}

/// Are they about one DMVPN? The same network with another GRE key is another one.
pub fn same_dmvpn(one: &Resource<'_>, other: &Resource<'_>) -> bool {
    one.network.tunnel.key == other.network.tunnel.key
        && one.network.networks().iter().any(|a| other.network.networks().contains(a))
}

/// Gives addresses to the nodes that each of `resources` (the oldest first) selects.
pub fn assign(
    resources: &[Resource<'_>],
    selected: &BTreeMap<ResourceName, BTreeSet<String>>,
    dmvpn_nodes: &BTreeMap<String, Arc<DmvpnNode>>,
) -> Addresses {
    let held = held(dmvpn_nodes);
    let mut all = Addresses::default();
    let mut earlier: Vec<Claim> = Vec::new();
    for (index, resource) in resources.iter().enumerate() {
        let later = resources.get(index + 1..).unwrap_or_default();
        let none = BTreeSet::new();
        let nodes = selected.get(&resource.name).unwrap_or(&none);
        let mut given: BTreeMap<String, Given> =
            nodes.iter().map(|node| (node.clone(), Ok(Vec::new()))).collect();
        for family in Family::of(resource) {
            for (node, address) in family.assign(nodes, &held, &earlier, later) {
                match (given.get_mut(&node), address) {
                    (Some(Ok(addresses)), Ok(address)) => addresses.push(address),
                    (Some(Err(errors)), Err(error)) => errors.push(error),
                    (Some(all @ Ok(_)), Err(error)) => *all = Err(vec![error]),
                    (Some(Err(_)) | None, _) => {}
                }
            }
            // Whoever comes later gets neither what was given nor what is kept by a pin.
            earlier.extend(family.pins());
        }
        for (node, addresses) in &given {
            earlier.extend(addresses.iter().flatten().map(|address| Claim {
                owner: resource.name.clone(),
                node: node.clone(),
                key: resource.network.tunnel.key,
                address: *address,
            }));
        }
        all.0.insert(resource.name.clone(), given);
    }
    all
}

/// An address that a node has, or that is kept for it.
#[derive(Clone, Debug)]
struct Claim {
    owner: ResourceName,
    node: String,
    key: Option<u32>,
    address: IpAddr,
}

fn held(dmvpn_nodes: &BTreeMap<String, Arc<DmvpnNode>>) -> Vec<Claim> {
    let tunnels =
        dmvpn_nodes.iter().flat_map(|(node, held)| held.spec.tunnels.iter().map(move |t| (node, t)));
    tunnels
        .flat_map(|(node, tunnel)| {
            let kind = if tunnel.is_hub() { ResourceKind::Hub } else { ResourceKind::Spoke };
            let owner = kind.named(&tunnel.name);
            tunnel.addresses.iter().map(move |address| Claim {
                owner: owner.clone(),
                node: node.clone(),
                key: tunnel.key,
                address: *address,
            })
        })
        .collect()
}

/// One of a resource's networks, IPv4 or IPv6.
struct Family<'a> {
    resource: &'a Resource<'a>,
    network: IpNet,
    range: Option<IpNet>,
    pinned: &'a BTreeMap<String, IpAddr>,
    pin: &'static str,
}

impl<'a> Family<'a> {
    fn of(resource: &'a Resource<'a>) -> impl Iterator<Item = Self> {
        let Tunnel { network, network_v6, addresses, addresses_v6, pinned, pinned_v6, .. } =
            resource.network.tunnel;
        let first = Self { resource, network: *network, range: *addresses, pinned, pin: "pinned" };
        let second = network_v6.map(|network| Self {
            resource,
            network,
            range: *addresses_v6,
            pinned: pinned_v6,
            pin: "pinnedV6",
        });
        std::iter::once(first).chain(second)
    }

    /// An address for each of `nodes`, or why not.
    fn assign(
        &self,
        nodes: &BTreeSet<String>,
        held: &[Claim],
        earlier: &[Claim],
        later: &[Resource<'_>],
    ) -> Vec<(String, Result<IpAddr, PlanError>)> {
        let ours = |claim: &&Claim| {
            claim.key == self.resource.network.tunnel.key && self.network.contains(&claim.address)
        };
        let earlier: BTreeMap<IpAddr, &Claim> =
            earlier.iter().filter(ours).map(|claim| (claim.address, claim)).collect();
        let (own, others): (Vec<_>, Vec<_>) =
            held.iter().filter(ours).partition(|claim| claim.owner == self.resource.name);
        let mut taken: BTreeMap<IpAddr, &Claim> =
            others.into_iter().map(|claim| (claim.address, claim)).collect();
        let own: BTreeMap<String, IpAddr> = own
            .into_iter()
            .filter(|claim| !earlier.contains_key(&claim.address))
            .map(|claim| (claim.node.clone(), claim.address))
            .collect();
        taken.extend(earlier);
        let (free_pins, lost_pins): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .pinned
            .iter()
            .map(|(node, address)| (node.clone(), *address))
            .partition(|(_, address)| !taken.contains_key(address));
        let seekers: BTreeSet<String> =
            nodes.iter().filter(|node| !lost_pins.contains_key(*node)).cloned().collect();
        let mut kept = own;
        let held_by_us: BTreeSet<IpAddr> = kept.values().copied().collect();
        let reserved = taken.keys().copied().chain(self.fixed()).chain(self.pins_of(later));
        // No node's name has a space in it.
        kept.extend(
            reserved.filter(|a| !held_by_us.contains(a)).map(|address| (format!(" {address}"), address)),
        );
        let shares = share(self.range, &free_pins, &kept, &seekers);
        let resource = || self.resource.name.clone();
        nodes
            .iter()
            .map(|node| {
                let address = match (shares.given.get(node), lost_pins.get(node)) {
                    (_, Some(address)) => Err(PlanError::PinTaken {
                        resource: resource(),
                        pin: self.pin,
                        node: node.clone(),
                        address: *address,
                        owner: taken.get(address).map_or_else(String::new, |claim| {
                            format!("node {} of {}", claim.node, claim.owner)
                        }),
                    }),
                    (Some(address), None) => Ok(*address),
                    (None, None) => Err(match shares.without.get(node) {
                        Some(source) => PlanError::Allocate { resource: resource(), source: source.clone() },
                        None => {
                            PlanError::NotPinned { resource: resource(), node: node.clone(), pin: self.pin }
                        }
                    }),
                };
                (node.clone(), address)
            })
            .collect()
    }

    fn pins(&self) -> impl Iterator<Item = Claim> {
        self.pinned.iter().map(|(node, address)| Claim {
            owner: self.resource.name.clone(),
            node: node.clone(),
            key: self.resource.network.tunnel.key,
            address: *address,
        })
    }

    /// Addresses that the resource itself says are others'.
    fn fixed(&self) -> impl Iterator<Item = IpAddr> {
        let hubs = self.resource.network.hubs.iter().filter_map(|hub| hub.tunnel_address);
        hubs.chain(self.resource.network.static_peers.iter().map(|peer| peer.tunnel_address))
    }

    fn pins_of<'b>(&self, later: &'b [Resource<'_>]) -> impl Iterator<Item = IpAddr> + 'b {
        let key = self.resource.network.tunnel.key;
        later
            .iter()
            .map(|resource| resource.network.tunnel)
            .filter(move |tunnel| tunnel.key == key)
            .flat_map(|tunnel| tunnel.pinned.values().chain(tunnel.pinned_v6.values()).copied())
    }
}
