//! What is believed from whom, and what is told to whom, with which next hop.

use crate::attributes::Attributes;
use crate::config::{Config, Phase, Role};
use crate::family::Family;
use crate::rib::{Route, Source};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// What a neighbour may announce: its claims.
pub trait ImportFilter {
    /// May this neighbour announce this prefix?
    fn permits(&self, neighbour: IpAddr, prefix: IpNet) -> bool;
}

impl<F: Fn(IpAddr, IpNet) -> bool> ImportFilter for F {
    fn permits(&self, neighbour: IpAddr, prefix: IpNet) -> bool {
        self(neighbour, prefix)
    }
}

/// Why a route was not believed.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, thiserror::Error,
)]
pub enum Refusal {
    /// The neighbour's claims don't cover it.
    #[error("its identity may not announce this prefix")]
    NotClaimed,
    /// A default route.
    #[error("default routes are not accepted")]
    Default,
    /// Longer than configured.
    #[error("prefix too long")]
    Overlong,
    /// Not a prefix that hosts can have: loopback, link-local, multicast, this network.
    #[error("not a routable unicast prefix")]
    Martian,
    /// The tunnel network itself, or a part of it.
    #[error("part of the tunnel network")]
    TunnelNetwork,
    /// Our own; on a spoke also a part of it.
    #[error("this node announces it itself")]
    Own,
    /// Our ASN is in the path (RFC 4271 §9.1.2).
    #[error("our ASN is in the path")]
    AsLoop,
    /// The path does not begin with the neighbour's ASN (RFC 4271 §6.3).
    #[error("the path does not begin with the neighbour's ASN")]
    FirstAs,
    /// We are the originator, or our cluster has reflected it before (RFC 4456 §8).
    #[error("reflected back to us")]
    ReflectionLoop,
    /// The next hop is not an address of the tunnel network.
    #[error("next hop outside the tunnel network")]
    NextHop,
    /// The next hop is ourselves.
    #[error("next hop is this node")]
    OwnNextHop,
}

impl Refusal {
    /// Does it happen in good order, when routes come back to where they began?
    pub(crate) const fn is_echo(self) -> bool {
        matches!(self, Self::AsLoop | Self::ReflectionLoop | Self::OwnNextHop)
    }
}

/// The neighbour on the other side of a policy decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Party {
    pub(crate) address: IpAddr,
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    /// In our AS.
    pub(crate) internal: bool,
    /// Not configured here: a spoke, and in our AS a client of reflection.
    pub(crate) dynamic: bool,
    pub(crate) extended_next_hop: bool,
}

/// Is the route believed? What the claims say comes last, so that they are asked about sound prefixes only.
pub(crate) fn import(
    config: &Config,
    from: &Party,
    prefix: IpNet,
    attributes: &Attributes,
    filter: &dyn ImportFilter,
) -> Result<(), Refusal> {
    sound_path(config, from, attributes)?;
    sound_prefix(config, prefix)?;
    if config.local_addresses.contains(&attributes.next_hop) {
        return Err(Refusal::OwnNextHop);
    }
    if !config.networks.iter().any(|network| network.contains(&attributes.next_hop)) {
        return Err(Refusal::NextHop);
    }
    if filter.permits(from.address, prefix) { Ok(()) } else { Err(Refusal::NotClaimed) }
}

fn sound_prefix(config: &Config, prefix: IpNet) -> Result<(), Refusal> {
    let rules = &config.import;
    let longest = match prefix {
        IpNet::V4(_) => rules.max_length_v4,
        IpNet::V6(_) => rules.max_length_v6,
    };
    if prefix.prefix_len() == 0 {
        return if rules.default_route { Ok(()) } else { Err(Refusal::Default) };
    }
    if prefix.prefix_len() > longest {
        return Err(Refusal::Overlong);
    }
    if is_martian(prefix) {
        return Err(Refusal::Martian);
    }
    if config.networks.iter().any(|network| network.contains(&prefix)) {
        return Err(Refusal::TunnelNetwork);
    }
    // A hub may announce a prefix that stands for those of its spokes.
    let is_own = |own: &IpNet| *own == prefix || (config.role == Role::Spoke && own.contains(&prefix));
    if config.announce.iter().any(is_own) {
        return Err(Refusal::Own);
    }
    Ok(())
}

fn sound_path(config: &Config, from: &Party, attributes: &Attributes) -> Result<(), Refusal> {
    if !from.internal && attributes.as_path.first() != Some(from.asn) {
        return Err(Refusal::FirstAs);
    }
    if attributes.as_path.contains(config.asn) && !config.import.own_as {
        return Err(Refusal::AsLoop);
    }
    if attributes.originator_id == Some(config.router_id)
        || attributes.cluster_list.contains(&config.router_id)
    {
        return Err(Refusal::ReflectionLoop);
    }
    Ok(())
}

fn is_martian(prefix: IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => {
            let address = net.addr();
            address.octets()[0] == 0
                || address.is_loopback()
                || address.is_link_local()
                || address.octets()[0] >= 224
        }
        IpNet::V6(net) => {
            let address = net.addr();
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
        }
    }
}

/// Well-known communities (RFC 1997).
const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// The preference of a route inside our AS when nobody said another one.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the neighbour is told of a route: its attributes as they go out, or nothing.
pub(crate) fn export(config: &Config, to: &Party, prefix: IpNet, route: &Route) -> Option<Attributes> {
    if !is_for(config, to, prefix, route) {
        return None;
    }
    let mut attributes = Attributes::clone(&route.attributes);
    attributes.next_hop = next_hop(config, to, Family::of(prefix), route)?;
    if to.internal {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        if let Source::Neighbour { internal: true, router_id, .. } = route.source {
            reflect(&mut attributes, router_id, config.router_id);
        }
        return Some(attributes);
    }
    leave_as(config, to, route, &mut attributes).then_some(attributes)
}

/// Is the route for this neighbour at all?
fn is_for(config: &Config, to: &Party, prefix: IpNet, route: &Route) -> bool {
    let attributes = &route.attributes;
    if attributes.has_community(NO_ADVERTISE) {
        return false;
    }
    if !to.internal && (attributes.has_community(NO_EXPORT) || attributes.has_community(NO_EXPORT_SUBCONFED))
    {
        return false;
    }
    // A spoke in phase 1 or 3 gets summaries instead of what they cover.
    let summarised = to.dynamic
        && config.phase != Phase::Two
        && config.summaries.iter().any(|summary| *summary != prefix && summary.contains(&prefix));
    match route.source {
        Source::Local => !summarised,
        Source::Summary => to.dynamic,
        Source::Neighbour { address, internal, client, .. } => {
            config.role == Role::Hub
                && address != to.address
                && !summarised
                //= rfc4456#6: from a non-client to clients only, from a client to all
                && (!(internal && to.internal) || client || to.dynamic)
        }
    }
}

/// The next hop that the neighbour is told.
fn next_hop(config: &Config, to: &Party, family: Family, route: &Route) -> Option<IpAddr> {
    let can_say = |next_hop: &IpAddr| match (family, next_hop) {
        (Family::Ipv4, IpAddr::V6(_)) => to.extended_next_hop,
        (Family::Ipv6, IpAddr::V4(_)) => false,
        _ => true,
    };
    let own = || {
        let same = config.local_address(family);
        same.or_else(|| config.local_address(Family::Ipv6)).filter(|a| can_say(a))
    };
    match route.source {
        Source::Neighbour { .. } if config.phase == Phase::Two => {
            let kept = route.attributes.next_hop;
            //= rfc4271#5.1.3: a third party's next hop may be passed on when all share a subnet; never the peer's own
            if kept != to.address && can_say(&kept) { Some(kept) } else { own() }
        }
        _ => own(),
    }
}

//= rfc4456#8: ORIGINATOR_ID is set once, the cluster is prepended
fn reflect(attributes: &mut Attributes, from: Ipv4Addr, cluster: Ipv4Addr) {
    attributes.originator_id.get_or_insert(from);
    attributes.cluster_list.insert(0, cluster);
}

/// As a route leaves the AS. False: the neighbour would refuse it as a loop.
fn leave_as(config: &Config, to: &Party, route: &Route, attributes: &mut Attributes) -> bool {
    // Spokes that share an ASN would refuse each other's routes. Only where the path began is the ASN replaced, so that
    // a path that has left that AS and comes back is still seen as the loop it is.
    if to.dynamic && config.role == Role::Hub {
        attributes.as_path.override_origin(to.asn, config.asn);
    }
    if attributes.as_path.contains(to.asn) {
        return false;
    }
    attributes.as_path.prepend(config.asn);
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    if matches!(route.source, Source::Neighbour { .. }) {
        //= rfc4271#5.1.4: a MULTI_EXIT_DISC from a neighbouring AS is not passed to others
        attributes.med = None;
    }
    true
}
