//! What a neighbour may announce: what its identity may claim.

use bgp::ImportFilter;
use claims::Policy;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Who is behind which tunnel address, and what they may announce.
#[derive(Debug)]
pub(super) struct Claims {
    policy: Policy,
    identities: BTreeMap<IpAddr, Option<String>>,
    /// Our hubs: we chose them, and they pass on what others announce; who may be a hub is in `hubs[].identity`.
    hubs: BTreeSet<IpAddr>,
}

impl Claims {
    pub(super) const fn new(policy: Policy) -> Self {
        Self { policy, identities: BTreeMap::new(), hubs: BTreeSet::new() }
    }

    /// True: what was decided before may be wrong now.
    pub(super) fn set_policy(&mut self, policy: Policy) -> bool {
        let changed = policy != self.policy;
        self.policy = policy;
        changed
    }

    /// True: what was decided before may be wrong now.
    pub(super) fn peer_is(&mut self, address: IpAddr, identity: Option<String>) -> bool {
        let before = self.identities.insert(address, identity.clone());
        before.is_none_or(|before| before != identity)
    }

    pub(super) fn hub_is(&mut self, address: IpAddr) {
        self.hubs.insert(address);
    }

    pub(super) fn gone(&mut self, address: IpAddr) {
        self.identities.remove(&address);
        self.hubs.remove(&address);
    }
}

impl ImportFilter for Claims {
    fn permits(&self, neighbour: IpAddr, prefix: IpNet) -> bool {
        if self.hubs.contains(&neighbour) {
            return true;
        }
        let identity = self.identities.get(&neighbour).and_then(Option::as_deref);
        match self.policy.authorize_prefix(identity, prefix) {
            Ok(()) => true,
            Err(denied) => {
                tracing::debug!(%neighbour, %prefix, "not believed: {denied}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims::Class;

    fn claims() -> Claims {
        Claims::new(Policy::new(
            vec!["10.200.0.0/16".parse().unwrap()],
            vec![Class {
                identity: "*.branch.example.com".to_owned(),
                tunnel_addresses: vec![],
                prefixes: vec!["10.1.0.0/16".parse().unwrap()],
            }],
        ))
    }

    #[test]
    fn an_identity_announces_within_its_class() {
        let mut claims = claims();
        let spoke = "10.200.16.1".parse().unwrap();
        let (own, other) = ("10.1.2.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
        assert!(!claims.permits(spoke, own), "nobody yet");
        assert!(claims.peer_is(spoke, Some("a.branch.example.com".to_owned())));
        assert!(!claims.peer_is(spoke, Some("a.branch.example.com".to_owned())), "nothing new");
        assert!(claims.permits(spoke, own) && !claims.permits(spoke, other));
        claims.gone(spoke);
        assert!(!claims.permits(spoke, own));
    }

    #[test]
    fn a_hub_passes_on_what_others_announce() {
        let mut claims = claims();
        let hub = "10.200.0.1".parse().unwrap();
        claims.hub_is(hub);
        assert!(claims.permits(hub, "10.2.0.0/24".parse().unwrap()));
    }
}
