//! Network address translators of several kinds (RFC 4787 gives the words).

use crate::underlay::Endpoint;
use packet::Instant;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How a translator maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// A mapping of its own for each remote address and port, which keeps the inside port where it is free towards that
    /// remote: Linux's masquerade.
    PortPreserving,
    /// A mapping of its own for each remote address and port, on a random port.
    Symmetric,
    /// One mapping for each inside address and port, whatever the remote; only remotes that were sent to may send back.
    EndpointIndependent,
    /// One inside address is one outside address, and anybody may send to it.
    OneToOne,
}

/// A mapping is forgotten when nothing left by it for this long.
const IDLE: Duration = Duration::from_secs(60);

/// A translator with one public address.
#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) public: IpAddr,
    kind: NatKind,
    /// Does it turn back what one of its inside sends to its own public address?
    pub(crate) hairpin: bool,
    mappings: BTreeMap<Key, Mapping>,
}

/// What has a mapping of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inside: Endpoint,
    /// `None` where the mapping does not depend on the remote.
    remote: Option<Endpoint>,
}

#[derive(Debug)]
struct Mapping {
    /// `None` for raw GRE.
    port: Option<u16>,
    /// Whom was sent to.
    remotes: BTreeSet<Endpoint>,
    used: Instant,
}

impl Nat {
    pub(crate) const fn new(public: IpAddr, kind: NatKind, hairpin: bool) -> Self {
        Self { public, kind, hairpin, mappings: BTreeMap::new() }
    }

    /// The public source of a datagram that leaves from `inside` to `remote`.
    pub(crate) fn outbound(
        &mut self,
        now: Instant,
        inside: Endpoint,
        remote: Endpoint,
        rng: &mut StdRng,
    ) -> Endpoint {
        if self.kind == NatKind::OneToOne {
            return Endpoint { address: self.public, port: inside.port };
        }
        self.mappings.retain(|_, m| now.since(m.used) < IDLE);
        let depends = self.kind != NatKind::EndpointIndependent || inside.port.is_none();
        let key = Key { inside, remote: depends.then_some(remote) };
        if !self.mappings.contains_key(&key) {
            let port = inside.port.map(|wanted| self.choose_port(wanted, key.remote, rng));
            self.mappings.insert(key, Mapping { port, remotes: BTreeSet::new(), used: now });
        }
        let Some(mapping) = self.mappings.get_mut(&key) else {
            return Endpoint { address: self.public, port: inside.port };
        };
        mapping.used = now;
        mapping.remotes.insert(remote);
        Endpoint { address: self.public, port: mapping.port }
    }

    fn choose_port(&self, wanted: u16, remote: Option<Endpoint>, rng: &mut StdRng) -> u16 {
        let taken = |port| self.mappings.iter().any(|(key, m)| m.port == Some(port) && key.remote == remote);
        let mut port = wanted;
        if self.kind == NatKind::Symmetric {
            port = rng.random_range(20_000..60_000);
        }
        while taken(port) {
            port = rng.random_range(20_000..60_000);
        }
        port
    }

    /// Whom a datagram to our public address is for, if anybody.
    pub(crate) fn inbound(
        &self,
        now: Instant,
        public: Endpoint,
        remote: Endpoint,
        insiders: &[IpAddr],
    ) -> Option<Endpoint> {
        if self.kind == NatKind::OneToOne {
            return insiders.first().map(|address| Endpoint { address: *address, port: public.port });
        }
        let mut fresh = self.mappings.iter().filter(|(_, m)| now.since(m.used) < IDLE);
        fresh.find(|(_, m)| m.port == public.port && m.remotes.contains(&remote)).map(|(key, _)| key.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn at(text: &str) -> Endpoint {
        let (address, port) = text.split_once('/').unwrap();
        Endpoint { address: address.parse().unwrap(), port: port.parse().ok() }
    }

    fn nat(kind: NatKind) -> (Nat, StdRng) {
        (Nat::new("203.0.113.1".parse().unwrap(), kind, false), StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_port_is_kept_until_a_second_insider_wants_it_towards_the_same_remote() {
        let (mut nat, mut rng) = nat(NatKind::PortPreserving);
        let (one, two) = (at("192.168.0.1/4754"), at("192.168.0.2/4754"));
        let (hub, other) = (at("198.51.100.1/4754"), at("198.51.100.2/4754"));
        assert_eq!(nat.outbound(Instant::ZERO, one, hub, &mut rng), at("203.0.113.1/4754"));
        let second = nat.outbound(Instant::ZERO, two, hub, &mut rng);
        assert_ne!(second.port, Some(4754));
        assert_eq!(nat.outbound(Instant::ZERO, two, other, &mut rng), at("203.0.113.1/4754"));
        assert_eq!(nat.inbound(Instant::ZERO, second, hub, &[]), Some(two));
        assert_eq!(nat.inbound(Instant::ZERO, second, other, &[]), None);
    }

    #[test]
    fn a_symmetric_mapping_differs_for_each_remote() {
        let (mut nat, mut rng) = nat(NatKind::Symmetric);
        let inside = at("192.168.0.1/4754");
        let one = nat.outbound(Instant::ZERO, inside, at("198.51.100.1/4754"), &mut rng);
        let two = nat.outbound(Instant::ZERO, inside, at("198.51.100.2/4754"), &mut rng);
        assert_ne!(one, two);
        assert_eq!(nat.outbound(Instant::ZERO, inside, at("198.51.100.1/4754"), &mut rng), one);
    }

    #[test]
    fn an_endpoint_independent_mapping_is_one_but_lets_in_only_whom_was_sent_to() {
        let (mut nat, mut rng) = nat(NatKind::EndpointIndependent);
        let inside = at("192.168.0.1/4754");
        let (one, two) = (at("198.51.100.1/4754"), at("198.51.100.2/4754"));
        let public = nat.outbound(Instant::ZERO, inside, one, &mut rng);
        assert_eq!(nat.inbound(Instant::ZERO, public, two, &[]), None);
        assert_eq!(nat.outbound(Instant::ZERO, inside, two, &mut rng), public);
        assert_eq!(nat.inbound(Instant::ZERO, public, two, &[]), Some(inside));
    }

    #[test]
    fn a_mapping_nobody_uses_is_forgotten() {
        let (mut nat, mut rng) = nat(NatKind::PortPreserving);
        let (inside, hub) = (at("192.168.0.1/4754"), at("198.51.100.1/4754"));
        let public = nat.outbound(Instant::ZERO, inside, hub, &mut rng);
        assert_eq!(nat.inbound(Instant::ZERO + IDLE, public, hub, &[]), None);
    }

    #[test]
    fn raw_gre_is_told_apart_by_remote_only() {
        let (mut nat, mut rng) = nat(NatKind::PortPreserving);
        let (inside, hub) = (at("192.168.0.1/-"), at("198.51.100.1/-"));
        assert_eq!(nat.outbound(Instant::ZERO, inside, hub, &mut rng), at("203.0.113.1/-"));
        assert_eq!(nat.inbound(Instant::ZERO, at("203.0.113.1/-"), hub, &[]), Some(inside));
    }
}
