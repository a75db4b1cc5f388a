//! What a neighbour may announce: what its identity may claim.

use bgp::ImportFilter;
use claims::{Claimant, Identity, Policy};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Who a peer is, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// What it says.
    pub(super) asserted: Option<String>,
    /// What it has proven; then only that counts.
    pub(super) proven: Option<Identity>,
}

impl Who {
    fn claimant(&self) -> Claimant<'_> {
        self.proven.as_ref().map_or(Claimant::Asserted(self.asserted.as_deref()), Claimant::from)
    }
}

/// Who is behind which tunnel address, and what they may announce.
#[derive(Debug)]
pub(super) struct Claims {
    policy: Policy,
    peers: BTreeMap<IpAddr, Who>,
    /// Our hubs: we chose them, and they pass on what others announce; who may be a hub is in `hubs[].identity`.
    hubs: BTreeSet<IpAddr>,
}

impl Claims {
    pub(super) const fn new(policy: Policy) -> Self {
        Self { policy, peers: BTreeMap::new(), hubs: BTreeSet::new() }
    }

    /// True: what was decided before may be wrong now.
    pub(super) fn set_policy(&mut self, policy: Policy) -> bool {
        let changed = policy != self.policy;
        self.policy = policy;
        changed
    }

    /// True: what was decided before may be wrong now.
    pub(super) fn peer_is(&mut self, address: IpAddr, who: Who) -> bool {
        let before = self.peers.insert(address, who.clone());
        before.is_none_or(|before| before != who)
    }

    pub(super) fn hub_is(&mut self, address: IpAddr) {
        self.hubs.insert(address);
    }

    pub(super) fn gone(&mut self, address: IpAddr) {
        self.peers.remove(&address);
        self.hubs.remove(&address);
    }
}

impl ImportFilter for Claims {
    fn permits(&self, neighbour: IpAddr, prefix: IpNet) -> bool {
        if self.hubs.contains(&neighbour) {
            return true;
        }
        let claimant = self.peers.get(&neighbour).map_or(Claimant::Asserted(None), Who::claimant);
        match self.policy.authorize_prefix(claimant, prefix) {
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
        let who = Who { asserted: Some("a.branch.example.com".to_owned()), proven: None };
        assert!(claims.peer_is(spoke, who.clone()));
        assert!(!claims.peer_is(spoke, who), "nothing new");
        assert!(claims.permits(spoke, own) && !claims.permits(spoke, other));
        claims.gone(spoke);
        assert!(!claims.permits(spoke, own));
    }

    #[test]
    fn a_certificate_limits_what_is_announced_without_any_class() {
        let mut claims = Claims::new(Policy::new(vec!["10.200.0.0/16".parse().unwrap()], vec![]));
        let spoke = "10.200.16.1".parse().unwrap();
        let certified = claims::Certified {
            tunnel_addresses: vec![spoke],
            prefixes: Some(vec!["10.1.0.0/24".parse().unwrap()]),
            fingerprint: [0; 32],
            not_after: u64::MAX,
            chain: claims::Chain::default(),
        };
        let proven = Identity { name: "a".to_owned(), proof: claims::Proof::Certificate(certified) };
        claims.peer_is(spoke, Who { asserted: None, proven: Some(proven) });
        assert!(claims.permits(spoke, "10.1.0.0/24".parse().unwrap()));
        assert!(!claims.permits(spoke, "10.2.0.0/24".parse().unwrap()));
    }

    #[test]
    fn a_hub_passes_on_what_others_announce() {
        let mut claims = claims();
        let hub = "10.200.0.1".parse().unwrap();
        claims.hub_is(hub);
        assert!(claims.permits(hub, "10.2.0.0/24".parse().unwrap()));
    }
}
