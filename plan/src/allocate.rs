//! Tunnel addresses for nodes: stable, and never twice.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why addresses could not be given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The range is used up.
    #[error(
        "no tunnel address is left in {range} for node {node}: make spec.tunnel.addresses larger, or select fewer nodes"
    )]
    Exhausted {
        /// The range.
        range: IpNet,
        /// The first node that goes without.
        node: String,
    },
    /// Two nodes are pinned to one address.
    #[error("nodes {first} and {second} are both pinned to {address}: pin one of them to another address")]
    PinnedTwice {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// The address.
        address: IpAddr,
    },
}

/// Gives each of `nodes` an address of `range`.
///
/// - A pinned node gets its pinned address, which no other ever gets, whether the pinned node exists or not.
/// - A node that holds an address of the range (`held`) keeps it, whoever comes or goes.
/// - Others, in the order of their names, get the lowest address that is neither given, pinned nor held. What a node
///   that is gone still holds in `held` stays its own: leave it out of `held` to free it.
///
/// # Errors
/// If two nodes are pinned to one address, or the range is used up. No node is left out in silence.
pub fn allocate(
    range: IpNet,
    pinned: &BTreeMap<String, IpAddr>,
    held: &BTreeMap<String, IpAddr>,
    nodes: &BTreeSet<String>,
) -> Result<BTreeMap<String, IpAddr>, AllocateError> {
    let Shares { given, without } = share(Some(range), pinned, held, nodes);
    without.into_values().next().map_or(Ok(given), Err)
}

/// What could be given out, and who goes without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Address of each node.
    pub given: BTreeMap<String, IpAddr>,
    /// Nodes that get none, and why.
    pub without: BTreeMap<String, AllocateError>,
}

/// As [`allocate`], for those who go on with what can be given: nodes that have an address keep it, although another
/// one finds the range used up. Without a range only pinned nodes get an address, and the others stand in neither map.
#[must_use]
pub fn share(
    range: Option<IpNet>,
    pinned: &BTreeMap<String, IpAddr>,
    held: &BTreeMap<String, IpAddr>,
    nodes: &BTreeSet<String>,
) -> Shares {
    let mut shares = Shares::default();
    let mut owner: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (node, address) in pinned {
        if let Some(first) = owner.get(address) {
            let (first, second) = ((*first).to_owned(), node.clone());
            let twice = AllocateError::PinnedTwice { first, second, address: *address };
            shares.without.insert(node.clone(), twice);
        } else {
            owner.insert(*address, node);
        }
    }
    for (node, address) in held {
        if !pinned.contains_key(node) && range.is_some_and(|range| range.contains(address)) {
            owner.entry(*address).or_insert(node);
        }
    }
    shares.given = owner
        .iter()
        .filter(|(_, node)| nodes.contains(**node))
        .map(|(address, node)| ((*node).to_owned(), *address))
        .collect();
    let Some(range) = range else { return shares };
    let taken: BTreeSet<IpAddr> = owner.into_keys().collect();
    let mut free = hosts(range).filter(|address| !taken.contains(address));
    for node in nodes {
        if shares.given.contains_key(node) || shares.without.contains_key(node) {
            continue;
        }
        match free.next() {
            Some(address) => shares.given.insert(node.clone(), address),
            None => {
                let exhausted = AllocateError::Exhausted { range, node: node.clone() };
                shares.without.insert(node.clone(), exhausted);
                None
            }
        };
    }
    shares
}

/// Can a node of `network` have this address? Not the network's own (IPv6: the subnet routers' anycast address, RFC
/// 4291 2.6.1), nor IPv4's broadcast address. In networks of one or two addresses all are good (RFC 3021, RFC 6164).
#[must_use]
pub fn usable(network: IpNet, address: IpAddr) -> bool {
    let host_bits = network.max_prefix_len() - network.prefix_len();
    network.contains(&address)
        && (host_bits <= 1
            || (address != network.network() && (address.is_ipv6() || address != network.broadcast())))
}

/// The usable addresses of a range, lowest first, without walking to the end of an IPv6 network.
fn hosts(range: IpNet) -> impl Iterator<Item = IpAddr> {
    let mut next = Some(range.network());
    std::iter::from_fn(move || {
        let address = next.filter(|address| range.contains(address))?;
        next = successor(address);
        Some(address)
    })
    .filter(move |address| usable(range, *address))
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|n| Ipv6Addr::from(n).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, IpAddr> {
        entries.iter().map(|(node, address)| ((*node).to_owned(), address.parse().unwrap())).collect()
    }

    fn set(nodes: &[&str]) -> BTreeSet<String> {
        nodes.iter().map(|n| (*n).to_owned()).collect()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_nodes_get_the_lowest_addresses() {
        let given = allocate(net("10.200.16.0/24"), &map(&[]), &map(&[]), &set(&["b", "a"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.1"), ("b", "10.200.16.2")]));
    }

    #[test]
    fn a_node_keeps_its_address_when_others_come_and_go() {
        let held = map(&[("b", "10.200.16.2")]);
        let given = allocate(net("10.200.16.0/24"), &map(&[]), &held, &set(&["a", "b", "c"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.1"), ("b", "10.200.16.2"), ("c", "10.200.16.3")]));
    }

    #[test]
    fn a_pinned_address_is_kept_for_a_node_that_does_not_exist_yet() {
        let given =
            allocate(net("10.200.16.0/24"), &map(&[("z", "10.200.16.1")]), &map(&[]), &set(&["a"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.2")]));
    }

    #[test]
    fn who_holds_an_address_that_is_pinned_to_another_moves() {
        let held = map(&[("a", "10.200.16.5")]);
        let given =
            allocate(net("10.200.16.0/24"), &map(&[("b", "10.200.16.5")]), &held, &set(&["a", "b"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.1"), ("b", "10.200.16.5")]));
    }

    #[test]
    fn an_address_outside_a_changed_range_is_replaced() {
        let held = map(&[("a", "10.200.99.5")]);
        let given = allocate(net("10.200.16.0/24"), &map(&[]), &held, &set(&["a"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.1")]));
    }

    #[test]
    fn what_an_absent_node_holds_is_not_given_away() {
        let held = map(&[("gone", "10.200.16.1")]);
        let given = allocate(net("10.200.16.0/24"), &map(&[]), &held, &set(&["a"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.2")]));
    }

    #[test]
    fn a_full_range_names_the_node_that_goes_without() {
        let error =
            allocate(net("10.200.16.0/30"), &map(&[]), &map(&[]), &set(&["a", "b", "c"])).unwrap_err();
        assert_eq!(error, AllocateError::Exhausted { range: net("10.200.16.0/30"), node: "c".into() });
    }

    #[test]
    fn a_full_range_takes_nobodys_address_away() {
        let held = map(&[("b", "10.200.16.2"), ("c", "10.200.16.1")]);
        let shares = share(Some(net("10.200.16.0/30")), &map(&[]), &held, &set(&["a", "b", "c"]));
        assert_eq!(shares.given, held);
        assert_eq!(shares.without.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn the_second_of_two_pins_on_one_address_goes_without_and_the_first_does_not() {
        let pinned = map(&[("a", "10.200.16.1"), ("b", "10.200.16.1")]);
        let shares = share(Some(net("10.200.16.0/24")), &pinned, &map(&[]), &set(&["a", "b", "c"]));
        assert_eq!(shares.given, map(&[("a", "10.200.16.1"), ("c", "10.200.16.2")]));
        assert_eq!(shares.without.into_keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn without_a_range_only_pinned_nodes_get_an_address() {
        let shares = share(None, &map(&[("a", "10.200.16.1")]), &map(&[]), &set(&["a", "b"]));
        assert_eq!(shares.given, map(&[("a", "10.200.16.1")]));
        assert!(shares.without.is_empty());
    }

    #[test]
    fn two_pins_on_one_address_are_refused() {
        let pinned = map(&[("a", "10.200.16.1"), ("b", "10.200.16.1")]);
        let error = allocate(net("10.200.16.0/24"), &pinned, &map(&[]), &set(&[])).unwrap_err();
        assert!(matches!(error, AllocateError::PinnedTwice { .. }));
    }

    #[test]
    fn a_range_of_one_host_has_one_address() {
        let given = allocate(net("10.200.16.7/32"), &map(&[]), &map(&[]), &set(&["a"])).unwrap();
        assert_eq!(given, map(&[("a", "10.200.16.7")]));
    }

    #[test]
    fn ipv6_ranges_are_not_walked_to_their_end() {
        let given = allocate(net("fd00:c8::/64"), &map(&[]), &map(&[]), &set(&["a"])).unwrap();
        assert_eq!(given, map(&[("a", "fd00:c8::1")]));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_nobody_moves(
            first in proptest::collection::btree_set("[a-h]", 0..8),
            second in proptest::collection::btree_set("[a-h]", 0..8),
            pins in proptest::collection::btree_map("[a-h]", 1u8..14, 0..4),
        ) {
            let range = net("10.200.16.0/27");
            let pinned: BTreeMap<String, IpAddr> =
                pins.into_iter().map(|(n, h)| (n, IpAddr::from([10, 200, 16, h]))).collect();
            prop_assume!(pinned.values().collect::<BTreeSet<_>>().len() == pinned.len());
            let before = allocate(range, &pinned, &BTreeMap::new(), &first).unwrap();
            let after = allocate(range, &pinned, &before, &second).unwrap();
            for given in [&before, &after] {
                prop_assert_eq!(given.values().collect::<BTreeSet<_>>().len(), given.len());
                prop_assert!(given.values().all(|a| usable(range, *a)));
                for (node, address) in &pinned {
                    prop_assert!(given.iter().all(|(n, a)| a != address || n == node));
                }
            }
            prop_assert_eq!(after.keys().collect::<BTreeSet<_>>(), second.iter().collect::<BTreeSet<_>>());
            for (node, address) in &after {
                prop_assert!(before.get(node).is_none_or(|held| held == address));
            }
        }
    }
}
