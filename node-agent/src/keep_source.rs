//! Keeps the source of what goes into the overlay. A cluster's own network masquerades whatever leaves its pods' prefix,
//! and peers would see the node instead of the pod. For what this node announces a rule comes first that translates the
//! source to itself: a connection is translated once, so no later rule touches it.

use crate::config::TunnelConfig;
use crate::nft::{self, Chain, Elements, Expression, Hook, Kind, Set, Table, Version};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::io;

/// Name of the table.
pub const TABLE: &str = "dmvpn";

/// Just before those who translate sources (`srcnat`, 100).
const PRIORITY: i32 = 99;

/// Makes the kernel keep the sources that these tunnels announce.
pub fn apply(tunnels: &[TunnelConfig]) -> io::Result<()> {
    let interfaces = tunnels.iter().map(|tunnel| tunnel.interface().to_owned()).collect();
    match table(interfaces, tunnels.iter().flat_map(|tunnel| tunnel.announce.iter().copied()).collect()) {
        Some(table) => nft::replace(&table),
        None => remove(),
    }
}

/// Removes the table, if it is there. A kernel without nf_tables has none.
pub fn remove() -> io::Result<()> {
    if nft::exists(TABLE).unwrap_or(false) { nft::remove(TABLE) } else { Ok(()) }
}

/// `None`: none is needed.
fn table(interfaces: Vec<String>, announced: BTreeSet<IpNet>) -> Option<Table> {
    if announced.is_empty() {
        return None;
    }
    let rule = |prefix: IpNet| {
        let (is, version) = match prefix {
            IpNet::V4(_) => (Expression::IsV4, Version::V4),
            IpNet::V6(_) => (Expression::IsV6, Version::V6),
        };
        vec![
            is,
            Expression::ToInterfaceIn("tunnels".to_owned()),
            Expression::SourceWithin(prefix),
            Expression::Count,
            Expression::KeepSource(version),
        ]
    };
    Some(Table {
        name: TABLE.to_owned(),
        sets: vec![Set { name: "tunnels".to_owned(), elements: Elements::Interfaces(interfaces) }],
        chains: vec![Chain {
            name: "postrouting".to_owned(),
            kind: Kind::Nat,
            hook: Hook::Postrouting,
            priority: PRIORITY,
            rules: announced.into_iter().map(rule).collect(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_announces_nothing_has_no_table() {
        assert_eq!(table(vec!["dmvpn0".to_owned()], BTreeSet::new()), None);
    }

    #[test]
    fn each_announced_prefix_keeps_its_source_before_others_translate() {
        let announced = ["10.1.0.0/24", "fd00:1::/64"].map(|p| p.parse().unwrap()).into();
        let table = table(vec!["dmvpn0".to_owned()], announced).unwrap();
        let chain = &table.chains[0];
        assert!(chain.priority < 100);
        let kept: Vec<_> = chain.rules.iter().filter_map(|rule| rule.last()).collect();
        assert_eq!(kept, [&Expression::KeepSource(Version::V4), &Expression::KeepSource(Version::V6)]);
    }
}
