//! Keeps the source of what goes by the overlay. Other programs' rules masquerade whatever leaves for an address that
//! they don't know, and peers refuse packets from addresses that are not this node's.
//!
//! The kernel asks NAT chains by priority, and the first that binds a connection decides. So a rule of ours that binds a
//! connection's source to what it is, before the others are asked, keeps it; no rule of others is touched. Only sources
//! that this node announces are kept: what else an administrator rewrites stays rewritten. What comes in for announced
//! addresses keeps its source too.
//!
//! A packet that another table's chain drops, ours can't save: `diagnose` says what to change there.

use crate::config::TunnelConfig;
use crate::nft::{self, Chain, Expression, Hook, Kind, Table, Version};
use crds::node::NodeByGateways;
use ipnet::IpNet;
use std::io;
use std::net::IpAddr;

/// Name of the table, in the family `inet`.
pub const TABLE: &str = "dmvpn";
/// Before `srcnat` (100), where the rules of others are, and kindnet's, which are ten before that. Of two chains of one
/// priority the kernel asks the younger first, so none may be shared.
const PRIORITY: i32 = 50;
/// More prefixes than this, which no aggregation makes fewer, are taken for all addresses: a rule each would be slow.
const MAX_PREFIXES: usize = 100;

/// The rules in force.
#[derive(Debug, Default)]
pub struct Sources {
    /// `None`: an agent before this one may have left others.
    rules: Option<Vec<Vec<Expression>>>,
    /// The kernel's ruleset when ours was seen in it last.
    seen: Option<u32>,
}

impl Sources {
    /// Makes the kernel keep sources on the way into exactly these tunnels, and to these gateways.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn follow(&mut self, tunnels: &[TunnelConfig], by_gateways: &[NodeByGateways]) -> io::Result<()> {
        let tunnels = tunnels.iter().flat_map(|tunnel| keep(tunnel.interface(), &tunnel.announce));
        let rules: Vec<Vec<Expression>> =
            tunnels.chain(by_gateways.iter().flat_map(keep_by_gateways)).collect();
        if self.rules.as_ref() != Some(&rules) {
            apply(&rules)?;
            self.rules = Some(rules);
        }
        Ok(())
    }

    /// Puts the table back if somebody removed it, or rules of it. True: somebody had. Cheap while nobody changes
    /// anything.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn repair(&mut self) -> io::Result<bool> {
        let Some(rules) = self.rules.as_ref().filter(|rules| !rules.is_empty()) else { return Ok(false) };
        let generation = nft::generation()?;
        if self.seen == Some(generation) {
            return Ok(false);
        }
        if nft::holds(&table(rules))? {
            self.seen = Some(generation);
            return Ok(false);
        }
        // Looked at again, as the generation is another one then.
        apply(rules).map(|()| true)
    }
}

/// Removes the table, if it is there. A kernel without nf_tables has none.
///
/// # Errors
/// What the kernel says.
pub fn remove() -> io::Result<()> {
    if nft::exists(TABLE).unwrap_or(false) { nft::remove(TABLE) } else { Ok(()) }
}

fn apply(rules: &[Vec<Expression>]) -> io::Result<()> {
    if rules.is_empty() { remove() } else { nft::replace(&table(rules)) }
}

fn table(rules: &[Vec<Expression>]) -> Table {
    let chain = Chain {
        name: "keep-source".to_owned(),
        kind: Kind::Nat,
        hook: Hook::Postrouting,
        priority: PRIORITY,
        rules: rules.to_vec(),
    };
    Table { name: TABLE.to_owned(), sets: Vec::new(), chains: vec![chain] }
}

/// The rules for one tunnel. Pure.
fn keep(interface: &str, announced: &[IpNet]) -> Vec<Vec<Expression>> {
    let rules = |prefix: IpNet| {
        let out = [Expression::ToInterface(interface.to_owned()), Expression::SourceWithin(prefix)];
        let back = [Expression::FromInterface(interface.to_owned()), Expression::DestinationWithin(prefix)];
        [out, back].map(|[way, address]| keeping(prefix, [way, address]))
    };
    few(announced).into_iter().flat_map(rules).collect()
}

/// The rules for what is routed to gateways. What is meant for such a node itself is the cluster's own. Pure.
fn keep_by_gateways(told: &NodeByGateways) -> Vec<Vec<Expression>> {
    let gateways = || told.via.iter().flat_map(|gateway| &gateway.addresses).copied();
    let own = gateways()
        .map(|address| vec![is(address), Expression::DestinationWithin(address.into()), Expression::Accept]);
    let through = few(&told.sources).into_iter().flat_map(|prefix| {
        let same_version = move |address: &IpAddr| address.is_ipv4() == prefix.addr().is_ipv4();
        gateways().filter(same_version).map(move |address| {
            keeping(prefix, [Expression::NextHop(address), Expression::SourceWithin(prefix)])
        })
    });
    own.chain(through).collect()
}

/// A rule that keeps the source of what both say.
fn keeping(prefix: IpNet, [one, other]: [Expression; 2]) -> Vec<Expression> {
    vec![is(prefix.addr()), one, other, Expression::KeepSource(Version::of(prefix.addr()))]
}

fn is(address: IpAddr) -> Expression {
    match Version::of(address) {
        Version::V4 => Expression::IsV4,
        Version::V6 => Expression::IsV6,
    }
}

/// The prefixes in as few as there can be, IPv4 first.
fn few(prefixes: &[IpNet]) -> Vec<IpNet> {
    let prefixes = IpNet::aggregate(&prefixes.to_vec());
    let of_version = |version: Version| {
        let prefixes: Vec<IpNet> =
            prefixes.iter().filter(|p| Version::of(p.addr()) == version).copied().collect();
        if prefixes.len() > MAX_PREFIXES {
            return prefixes.first().and_then(|p| IpNet::new(p.addr(), 0).ok()).into_iter().collect();
        }
        prefixes
    };
    [Version::V4, Version::V6].into_iter().flat_map(of_version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn sources_are_kept_of_what_is_announced_and_of_nothing_else() {
        assert!(keep("dmvpn0", &[]).is_empty());
        let rules = keep("dmvpn0", &prefixes(&["10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64"]));
        let sources = rules.iter().flatten().filter(|e| matches!(e, Expression::SourceWithin(_)));
        let found: Vec<_> = sources.cloned().collect();
        let wanted = prefixes(&["10.1.0.0/23", "fd00:1::/64"]);
        assert_eq!(found, wanted.into_iter().map(Expression::SourceWithin).collect::<Vec<_>>());
        assert!(rules.iter().all(|rule| matches!(rule.last(), Some(Expression::KeepSource(_)))));
    }

    #[test]
    fn on_the_way_to_a_gateway_a_pods_address_is_kept_and_the_gateways_own_traffic_is_not_touched() {
        let told: NodeByGateways = serde_json::from_value(serde_json::json!({
            "name": "s", "role": "Spoke", "prefixes": ["10.3.0.0/16", "fd00:3::/48"],
            "via": [{"node": "a-2", "addresses": ["192.0.2.2", "2001:db8::2"]}],
            "sources": ["10.2.1.0/24", "fd00:2:1::/64"],
        }))
        .unwrap();
        let rules = keep_by_gateways(&told);
        let gateway: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(rules.len(), 4);
        assert_eq!(
            rules[0],
            [Expression::IsV4, Expression::DestinationWithin(gateway.into()), Expression::Accept]
        );
        let kept = [
            Expression::IsV4,
            Expression::NextHop(gateway),
            Expression::SourceWithin("10.2.1.0/24".parse().unwrap()),
            Expression::KeepSource(Version::V4),
        ];
        assert_eq!(rules[2], kept);
        assert!(rules[3].contains(&Expression::NextHop("2001:db8::2".parse().unwrap())));
    }

    #[test]
    fn very_many_prefixes_are_all_addresses() {
        let many: Vec<IpNet> = (0..=200u8)
            .map(|n| format!("10.{n}.0.0/24").parse().unwrap())
            .filter(|p: &IpNet| {
                // Every other one, so that none can be put together.
                matches!(p, IpNet::V4(net) if net.addr().octets()[1] % 2 == 0)
            })
            .collect();
        let rules = keep("dmvpn0", &many);
        assert_eq!(rules.len(), 2);
        let any = Expression::SourceWithin("10.0.0.0/0".parse().unwrap());
        assert!(rules.iter().any(|rule| rule.contains(&any)), "{rules:?}");
    }
}
