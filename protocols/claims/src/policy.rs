//! The decisions: who may register, answer, announce and send what.

use crate::{Class, matches};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// What peers of one tunnel may claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    networks: Vec<IpNet>,
    classes: Vec<Class>,
}

/// Why a claim is not believed. Its text is for people: it names the claim, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No admission class matches.
    #[error("{} matches no class of `admission`", Who(.identity))]
    NotAdmitted {
        /// Who.
        identity: Option<String>,
    },
    /// The address is not one of the tunnel's.
    #[error("{address} is not inside the tunnel's networks ({})", List(.networks))]
    NotOfTheTunnel {
        /// What was claimed.
        address: IpNet,
        /// What the tunnel has.
        networks: Vec<IpNet>,
    },
    /// The tunnel address is not one that its classes allow.
    #[error("{} may not use tunnel address {address}; its classes allow {}", Who(.identity), List(.allowed))]
    TunnelAddress {
        /// Who.
        identity: Option<String>,
        /// What was claimed.
        address: IpNet,
        /// What would be believed.
        allowed: Vec<IpNet>,
    },
    /// The prefix is not one that its classes allow.
    #[error("{} may not claim {prefix}; its classes allow {}", Who(.identity), List(.allowed))]
    Prefix {
        /// Who.
        identity: Option<String>,
        /// What was claimed.
        prefix: IpNet,
        /// What would be believed.
        allowed: Vec<IpNet>,
    },
    /// Part of the tunnel's own network, claimed by one of its members for more than itself.
    #[error("{prefix} belongs to the tunnel's own network: only single addresses of it may be answered")]
    TunnelNetwork {
        /// What was claimed.
        prefix: IpNet,
    },
}

impl Policy {
    /// A policy for the tunnel that has these networks. Without classes anyone may claim addresses of the networks
    /// and any prefix.
    #[must_use]
    pub const fn new(networks: Vec<IpNet>, classes: Vec<Class>) -> Self {
        Self { networks, classes }
    }

    /// May `identity` be reached by `prefix`, a tunnel address or, rarely, a prefix behind it?
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_registration(&self, identity: Option<&str>, prefix: IpNet) -> Result<(), Denied> {
        if !is_host(prefix) && !self.in_networks(prefix) {
            return self.authorize_prefix(identity, prefix);
        }
        self.authorize_tunnel_address(identity, prefix)
    }

    /// May the station with tunnel address `responder` answer for `prefix`? Its own tunnel address always lies within
    /// its claims, if it may have it at all; everything else is a prefix it must be allowed.
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_answer(
        &self,
        identity: Option<&str>,
        responder: IpAddr,
        prefix: IpNet,
    ) -> Result<(), Denied> {
        self.authorize_tunnel_address(identity, responder.into())?;
        if self.in_networks(prefix) {
            return if is_host(prefix) { Ok(()) } else { Err(Denied::TunnelNetwork { prefix }) };
        }
        self.authorize_prefix(identity, prefix)
    }

    /// May `identity` announce `prefix`, by BGP or as a static map?
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_prefix(&self, identity: Option<&str>, prefix: IpNet) -> Result<(), Denied> {
        match self.prefixes(identity)? {
            None => Ok(()),
            Some(allowed) if allowed.iter().any(|a| a.contains(&prefix)) => Ok(()),
            Some(allowed) => Err(Denied::Prefix { identity: identity.map(Into::into), prefix, allowed }),
        }
    }

    /// The prefixes that `identity` may claim beyond its tunnel address; `None` is "any", which is so when there are
    /// no classes.
    ///
    /// # Errors
    /// There are classes, and none matches.
    pub fn prefixes(&self, identity: Option<&str>) -> Result<Option<Vec<IpNet>>, Denied> {
        if self.classes.is_empty() {
            return Ok(None);
        }
        let mut allowed: Vec<IpNet> =
            self.classes_of(identity)?.flat_map(|c| c.prefixes.iter().copied()).collect();
        allowed.sort_unstable();
        allowed.dedup();
        Ok(Some(allowed))
    }

    /// The inner source addresses to accept from a peer that has these tunnel addresses: those, what it may claim,
    /// and link-local ones, which routing protocols send from. `None`: any. Nothing for a peer that isn't admitted.
    #[must_use]
    pub fn sources(&self, identity: Option<&str>, addresses: &[IpAddr]) -> Option<Vec<IpNet>> {
        let mut sources = match self.prefixes(identity) {
            Ok(None) => return None,
            Ok(Some(prefixes)) => prefixes,
            Err(_) => return Some(Vec::new()),
        };
        sources.extend(addresses.iter().map(|&a| IpNet::from(a)));
        sources.extend("fe80::/10".parse::<IpNet>());
        sources.sort_unstable();
        sources.dedup();
        Some(sources)
    }

    fn authorize_tunnel_address(&self, identity: Option<&str>, address: IpNet) -> Result<(), Denied> {
        if !self.in_networks(address) {
            return Err(Denied::NotOfTheTunnel { address, networks: self.networks.clone() });
        }
        if self.classes.is_empty() {
            return Ok(());
        }
        let mut allowed = Vec::new();
        for class in self.classes_of(identity)? {
            if class.tunnel_addresses.is_empty()
                || class.tunnel_addresses.iter().any(|t| t.contains(&address))
            {
                return Ok(());
            }
            allowed.extend_from_slice(&class.tunnel_addresses);
        }
        Err(Denied::TunnelAddress { identity: identity.map(Into::into), address, allowed })
    }

    fn classes_of<'a>(
        &'a self,
        identity: Option<&'a str>,
    ) -> Result<impl Iterator<Item = &'a Class>, Denied> {
        let mut classes = self.classes.iter().filter(move |c| matches(&c.identity, identity)).peekable();
        match classes.peek() {
            Some(_) => Ok(classes),
            None => Err(Denied::NotAdmitted { identity: identity.map(Into::into) }),
        }
    }

    fn in_networks(&self, prefix: IpNet) -> bool {
        self.networks.iter().any(|n| n.contains(&prefix))
    }
}

fn is_host(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

struct Who<'a>(&'a Option<String>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(identity) => write!(f, "`{identity}`"),
            None => f.write_str("a peer without identity"),
        }
    }
}

struct List<'a>(&'a [IpNet]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, net) in self.0.iter().enumerate() {
            write!(f, "{}{net}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn class(identity: &str, addresses: &[&str], prefixes: &[&str]) -> Class {
        Class {
            identity: identity.into(),
            tunnel_addresses: addresses.iter().map(|s| net(s)).collect(),
            prefixes: prefixes.iter().map(|s| net(s)).collect(),
        }
    }

    fn branches() -> Policy {
        Policy::new(
            vec![net("10.200.0.0/16"), net("fd00:200::/64")],
            vec![
                class("*.branch.example.com", &["10.200.16.0/20"], &["10.0.0.0/8"]),
                class("a.branch.example.com", &["10.200.32.7/32"], &["192.168.7.0/24"]),
                class("*.hq.example.com", &[], &[]),
            ],
        )
    }

    const A: Option<&str> = Some("a.branch.example.com");
    const B: Option<&str> = Some("b.branch.example.com");

    #[test]
    fn without_classes_anyone_may_have_an_address_of_the_tunnel_and_no_other() {
        let open = Policy::new(vec![net("10.200.0.0/16")], vec![]);
        assert_eq!(open.authorize_registration(None, net("10.200.1.1/32")), Ok(()));
        assert_eq!(
            open.authorize_registration(None, net("10.201.1.1/32")),
            Err(Denied::NotOfTheTunnel {
                address: net("10.201.1.1/32"),
                networks: vec![net("10.200.0.0/16")]
            })
        );
        assert_eq!(open.authorize_answer(None, ip("10.200.1.1"), net("172.16.0.0/12")), Ok(()));
        assert_eq!(open.sources(None, &[ip("10.200.1.1")]), None);
    }

    #[test]
    fn a_tunnel_address_outside_of_the_class_is_denied_with_what_would_do() {
        let denied = branches().authorize_registration(B, net("10.200.32.7/32")).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "`b.branch.example.com` may not use tunnel address 10.200.32.7/32; its classes allow 10.200.16.0/20"
        );
    }

    #[test]
    fn classes_add_up() {
        assert_eq!(branches().authorize_registration(A, net("10.200.32.7/32")), Ok(()));
        assert_eq!(branches().authorize_prefix(A, net("192.168.7.0/25")), Ok(()));
        assert!(branches().authorize_prefix(B, net("192.168.7.0/25")).is_err());
    }

    #[test]
    fn a_stranger_is_not_admitted() {
        let denied = branches().authorize_registration(Some("x.example.org"), net("10.200.16.1/32"));
        assert_eq!(denied.unwrap_err().to_string(), "`x.example.org` matches no class of `admission`");
        assert_eq!(
            branches().authorize_registration(None, net("10.200.16.1/32")),
            Err(Denied::NotAdmitted { identity: None })
        );
        assert_eq!(branches().sources(None, &[ip("10.200.16.1")]), Some(vec![]));
    }

    #[test]
    fn an_answer_wider_than_the_claim_is_denied() {
        let denied = branches().authorize_answer(B, ip("10.200.16.2"), net("8.0.0.0/5"));
        assert!(matches!(denied, Err(Denied::Prefix { prefix, .. }) if prefix == net("8.0.0.0/5")));
        assert_eq!(branches().authorize_answer(B, ip("10.200.16.2"), net("10.2.3.0/24")), Ok(()));
    }

    #[test]
    fn nobody_answers_for_a_part_of_the_tunnel_network() {
        let (open, part) = (Policy::new(vec![net("10.200.0.0/16")], vec![]), net("10.200.16.0/24"));
        let denied = open.authorize_answer(None, ip("10.200.16.2"), part);
        assert_eq!(denied, Err(Denied::TunnelNetwork { prefix: part }));
        assert_eq!(open.authorize_answer(None, ip("10.200.16.2"), net("10.200.16.2/32")), Ok(()));
    }

    #[test]
    fn a_class_without_prefixes_sends_from_its_tunnel_address_only() {
        let sources = branches().sources(Some("h.hq.example.com"), &[ip("10.200.0.1"), ip("fd00:200::1")]);
        assert_eq!(sources, Some(vec![net("10.200.0.1/32"), net("fd00:200::1/128"), net("fe80::/10")]));
    }

    #[test]
    fn a_registered_prefix_must_be_claimed() {
        assert_eq!(branches().authorize_registration(B, net("10.2.0.0/16")), Ok(()));
        assert!(branches().authorize_registration(B, net("172.16.0.0/16")).is_err());
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        (any::<u32>(), 0u8..=32).prop_map(|(a, len)| {
            IpNet::new(IpAddr::V4(a.into()), len).map(|n| n.trunc()).unwrap_or_else(|_| net("0.0.0.0/0"))
        })
    }

    proptest! {
        #[test]
        fn what_is_inside_an_allowed_prefix_is_allowed(outer in any_net(), inner in any_net()) {
            let policy = Policy::new(vec![], vec![class("*", &[], &[&outer.to_string()])]);
            prop_assert_eq!(policy.authorize_prefix(None, inner).is_ok(), outer.contains(&inner));
        }

        #[test]
        fn a_further_class_never_takes_away(prefix in any_net(), one in any_net(), two in any_net()) {
            let first = class("*", &[], &[&one.to_string()]);
            let small = Policy::new(vec![], vec![first.clone()]);
            let large = Policy::new(vec![], vec![first, class("*.x", &[], &[&two.to_string()])]);
            if small.authorize_prefix(Some("a.x"), prefix).is_ok() {
                prop_assert!(large.authorize_prefix(Some("a.x"), prefix).is_ok());
            }
        }
    }
}
