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
use ipnet::IpNet;
use std::io;

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
    /// Makes the kernel keep sources for exactly these tunnels.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn follow(&mut self, tunnels: &[TunnelConfig]) -> io::Result<()> {
        self.keep(tunnels.iter().map(|tunnel| (tunnel.interface(), tunnel.announce.as_slice())))
    }

    /// The same, by interfaces and what is announced by them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep<'a>(&mut self, all: impl IntoIterator<Item = (&'a str, &'a [IpNet])>) -> io::Result<()> {
        let rules: Vec<Vec<Expression>> =
            all.into_iter().flat_map(|(interface, announced)| keep(interface, announced)).collect();
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
    let prefixes = IpNet::aggregate(&announced.to_vec());
    let of_version = |version: Version| {
        let mut prefixes: Vec<IpNet> =
            prefixes.iter().filter(|p| Version::of(p.addr()) == version).copied().collect();
        if prefixes.len() > MAX_PREFIXES {
            prefixes = prefixes.first().and_then(|p| IpNet::new(p.addr(), 0).ok()).into_iter().collect();
        }
        let rules = move |prefix: IpNet| {
            let is = if version == Version::V4 { Expression::IsV4 } else { Expression::IsV6 };
            let keep = Expression::KeepSource(version);
            let out = [Expression::ToInterface(interface.to_owned()), Expression::SourceWithin(prefix)];
            let back =
                [Expression::FromInterface(interface.to_owned()), Expression::DestinationWithin(prefix)];
            [out, back].map(|[way, address]| vec![is.clone(), way, address, keep.clone()])
        };
        prefixes.into_iter().flat_map(rules)
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
