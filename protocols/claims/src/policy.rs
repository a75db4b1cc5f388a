//! The decisions: who may register, answer, announce and send what.

use crate::{Claimant, Class, matches};
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
    /// The tunnel address is not one of its certificate's.
    #[error(
        "{} may not use tunnel address {address}; its certificate is for {}: use that one, or issue a certificate for this one",
        Who(.identity), List(.certified)
    )]
    CertifiedAddress {
        /// Who.
        identity: Option<String>,
        /// What was claimed.
        address: IpNet,
        /// What its certificate says.
        certified: Vec<IpNet>,
    },
    /// The prefix is not one of its certificate's.
    #[error(
        "{} may not claim {prefix}; its certificate allows {}: issue one that names it, by a CA that may",
        Who(.identity), List(.certified)
    )]
    CertifiedPrefix {
        /// Who.
        identity: Option<String>,
        /// What was claimed.
        prefix: IpNet,
        /// What its certificate says.
        certified: Vec<IpNet>,
    },
    /// Nobody has said which prefixes a foreign router may claim.
    #[error(
        "{} may not claim {prefix}: its certificate names no prefixes, so that only a hub that checked it, or a class of `admission`, can allow it",
        Who(.identity)
    )]
    NoVoucher {
        /// Who.
        identity: Option<String>,
        /// What was claimed.
        prefix: IpNet,
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

    /// May `who` be reached by `prefix`, a tunnel address or, rarely, a prefix behind it?
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_registration<'a>(
        &self,
        who: impl Into<Claimant<'a>>,
        prefix: IpNet,
    ) -> Result<(), Denied> {
        let who = who.into();
        if !is_host(prefix) && !self.in_networks(prefix) {
            return self.authorize_prefix(who, prefix);
        }
        self.authorize_tunnel_address(who, prefix)
    }

    /// May the station with tunnel address `responder` answer for `prefix`? Its own tunnel address always lies within
    /// its claims, if it may have it at all; everything else is a prefix it must be allowed.
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_answer<'a>(
        &self,
        who: impl Into<Claimant<'a>>,
        responder: IpAddr,
        prefix: IpNet,
    ) -> Result<(), Denied> {
        let who = who.into();
        self.authorize_tunnel_address(who, responder.into())?;
        if self.in_networks(prefix) {
            return if is_host(prefix) { Ok(()) } else { Err(Denied::TunnelNetwork { prefix }) };
        }
        self.authorize_prefix(who, prefix)
    }

    /// May `who` announce `prefix`, by BGP or as a static map?
    ///
    /// # Errors
    /// Why not.
    pub fn authorize_prefix<'a>(&self, who: impl Into<Claimant<'a>>, prefix: IpNet) -> Result<(), Denied> {
        let who = who.into();
        let identity = || who.name().map(Into::into);
        let classes = self.class_prefixes(who)?;
        if let Some(allowed) = classes.as_ref().filter(|allowed| !covers(allowed, prefix)) {
            return Err(Denied::Prefix { identity: identity(), prefix, allowed: allowed.clone() });
        }
        match who.certified_prefixes() {
            Some(certified) if !covers(certified, prefix) => {
                Err(Denied::CertifiedPrefix { identity: identity(), prefix, certified: certified.to_vec() })
            }
            None if classes.is_none() && who.needs_a_voucher() => {
                Err(Denied::NoVoucher { identity: identity(), prefix })
            }
            _ => Ok(()),
        }
    }

    /// The prefixes that `who` may claim beyond its tunnel address: what its classes and its certificate have in
    /// common. `None` is "any", which is so when there are no classes and nothing was proven by certificate.
    ///
    /// # Errors
    /// There are classes, and none matches.
    pub fn prefixes<'a>(&self, who: impl Into<Claimant<'a>>) -> Result<Option<Vec<IpNet>>, Denied> {
        let who = who.into();
        Ok(match (self.class_prefixes(who)?, who.certified_prefixes()) {
            (Some(classes), Some(certified)) => Some(common(&classes, certified)),
            (Some(classes), None) => Some(classes),
            (None, Some(certified)) => Some(certified.to_vec()),
            (None, None) if who.needs_a_voucher() => Some(Vec::new()),
            (None, None) => None,
        })
    }

    /// The inner source addresses to accept from a peer that has these tunnel addresses: those, what it may claim,
    /// and link-local ones, which routing protocols send from. `None`: any. Nothing for a peer that isn't admitted.
    ///
    /// What a hub vouched for beyond that ([`Claimant::Vouched`]) is the caller's to add.
    #[must_use]
    pub fn sources<'a>(&self, who: impl Into<Claimant<'a>>, addresses: &[IpAddr]) -> Option<Vec<IpNet>> {
        let who = who.into();
        let mut sources = match self.prefixes(who) {
            Ok(None) => return None,
            Ok(Some(prefixes)) => prefixes,
            Err(_) => return Some(Vec::new()),
        };
        let own = addresses.iter().map(|&a| IpNet::from(a));
        sources.extend(
            own.filter(|a| self.certified_addresses(who).is_none_or(|certified| covers(&certified, *a))),
        );
        sources.extend("fe80::/10".parse::<IpNet>());
        sources.sort_unstable();
        sources.dedup();
        Some(sources)
    }

    fn authorize_tunnel_address(&self, who: Claimant<'_>, address: IpNet) -> Result<(), Denied> {
        if !self.in_networks(address) {
            return Err(Denied::NotOfTheTunnel { address, networks: self.networks.clone() });
        }
        self.class_tunnel_address(who, address)?;
        match self.certified_addresses(who).filter(|certified| !covers(certified, address)) {
            Some(certified) => {
                Err(Denied::CertifiedAddress { identity: who.name().map(Into::into), address, certified })
            }
            None => Ok(()),
        }
    }

    fn class_tunnel_address(&self, who: Claimant<'_>, address: IpNet) -> Result<(), Denied> {
        if self.classes.is_empty() {
            return Ok(());
        }
        let mut allowed = Vec::new();
        for class in self.classes_of(who)? {
            if class.tunnel_addresses.is_empty() || covers(&class.tunnel_addresses, address) {
                return Ok(());
            }
            allowed.extend_from_slice(&class.tunnel_addresses);
        }
        Err(Denied::TunnelAddress { identity: who.name().map(Into::into), address, allowed })
    }

    /// `None`: there are no classes.
    fn class_prefixes(&self, who: Claimant<'_>) -> Result<Option<Vec<IpNet>>, Denied> {
        if self.classes.is_empty() {
            return Ok(None);
        }
        let mut allowed: Vec<IpNet> =
            self.classes_of(who)?.flat_map(|c| c.prefixes.iter().copied()).collect();
        allowed.sort_unstable();
        allowed.dedup();
        Ok(Some(allowed))
    }

    fn classes_of<'a>(&'a self, who: Claimant<'a>) -> Result<impl Iterator<Item = &'a Class>, Denied> {
        let mut classes = self.classes.iter().filter(move |c| matches(&c.identity, who.name())).peekable();
        match classes.peek() {
            Some(_) => Ok(classes),
            None => Err(Denied::NotAdmitted { identity: who.name().map(Into::into) }),
        }
    }

    /// The tunnel addresses that its certificate limits it to. `None`: no certificate, or a foreign router's that says
    /// none; what that one says of addresses outside of the tunnel is where it is on the underlay.
    fn certified_addresses(&self, who: Claimant<'_>) -> Option<Vec<IpNet>> {
        let certified = who.certified()?;
        let all = certified.tunnel_addresses.iter().map(|&a| IpNet::from(a));
        let addresses: Vec<IpNet> =
            all.filter(|a| certified.prefixes.is_some() || self.in_networks(*a)).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    fn in_networks(&self, prefix: IpNet) -> bool {
        self.networks.iter().any(|n| n.contains(&prefix))
    }
}

fn covers(allowed: &[IpNet], prefix: IpNet) -> bool {
    allowed.iter().any(|a| a.contains(&prefix))
}

/// The parts that two lists of prefixes share. Of two prefixes that meet, one contains the other.
fn common(one: &[IpNet], two: &[IpNet]) -> Vec<IpNet> {
    let inner = |outer: &[IpNet], inner: &[IpNet]| {
        inner.iter().copied().filter(|i| covers(outer, *i)).collect::<Vec<_>>()
    };
    let mut both = inner(one, two);
    both.extend(inner(two, one));
    both.sort_unstable();
    both.dedup();
    both
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
mod tests;
