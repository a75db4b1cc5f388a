//! The table that keeps pods from the overlay. It is there only while a pod wants that, and stays when the agent ends:
//! `uninstall` removes it.

use crate::nft::{self, Chain, Elements, Expression, Hook, Kind, Set, Table, Version};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// Name of the table.
pub const TABLE: &str = "dmvpn-pods";

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Tunnel interfaces.
    pub tunnels: BTreeSet<String>,
    /// Addresses of pods that may not use them.
    pub excluded: BTreeSet<IpAddr>,
}

/// Makes the kernel follow `rules`.
pub fn apply(rules: &Rules) -> io::Result<()> {
    match table(rules) {
        Some(table) => nft::replace(&table),
        None => remove(),
    }
}

/// Did somebody remove the table that these rules need, or rules of it?
pub fn is_missing(rules: &Rules) -> io::Result<bool> {
    table(rules).map_or(Ok(false), |table| Ok(!nft::holds(&table)?))
}

/// Removes the table, if it is there. A kernel without nf_tables has none.
pub fn remove() -> io::Result<()> {
    if nft::exists(TABLE).unwrap_or(false) { nft::remove(TABLE) } else { Ok(()) }
}

/// `None`: none is needed.
fn table(rules: &Rules) -> Option<Table> {
    if rules.excluded.is_empty() {
        return None;
    }
    let v4 = rules.excluded.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let v6 = rules.excluded.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
    let set = |name: &str, elements| Set { name: name.to_owned(), elements };
    let tunnels = || "tunnels".to_owned();
    let rules_for = |is: Expression, version: Version, pods: &str| {
        let out = vec![
            is.clone(),
            Expression::ToInterfaceIn(tunnels()),
            Expression::SourceIn(version, pods.to_owned()),
            Expression::Count,
            Expression::Drop,
        ];
        let back = vec![
            is,
            Expression::FromInterfaceIn(tunnels()),
            Expression::DestinationIn(version, pods.to_owned()),
            Expression::Count,
            Expression::Drop,
        ];
        [out, back]
    };
    Some(Table {
        name: TABLE.to_owned(),
        sets: vec![
            set("tunnels", Elements::Interfaces(rules.tunnels.iter().cloned().collect())),
            set("pods4", Elements::V4(v4.collect())),
            set("pods6", Elements::V6(v6.collect())),
        ],
        chains: vec![Chain {
            name: "forward".to_owned(),
            kind: Kind::Filter,
            hook: Hook::Forward,
            // Before those who accept what belongs to a known connection.
            priority: -10,
            rules: [
                rules_for(Expression::IsV4, Version::V4, "pods4"),
                rules_for(Expression::IsV6, Version::V6, "pods6"),
            ]
            .concat(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pod_to_exclude_there_is_no_table() {
        let rules = Rules { tunnels: BTreeSet::from(["dmvpn0".to_owned()]), excluded: BTreeSet::new() };
        assert_eq!(table(&rules), None);
    }

    #[test]
    fn addresses_are_sorted_by_version_and_both_directions_are_dropped() {
        let excluded = ["10.1.0.5", "fd00::5"].map(|a| a.parse().unwrap()).into();
        let table = table(&Rules { tunnels: BTreeSet::new(), excluded }).unwrap();
        assert_eq!(table.sets[1].elements, Elements::V4(vec!["10.1.0.5".parse().unwrap()]));
        assert_eq!(table.sets[2].elements, Elements::V6(vec!["fd00::5".parse().unwrap()]));
        let rules = &table.chains[0].rules;
        assert_eq!(rules.len(), 4);
        assert!(rules.iter().all(|rule| rule.last() == Some(&Expression::Drop)));
    }
}
