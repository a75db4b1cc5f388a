//! Certificates: a station may do what its own says, wherever it goes, and nothing more.

use crate::common::*;
use dmvpn::{Credentials, Event, Phase, Security};
use identity::Certificates;
use identity::pki::{Authority, Claims, Described, Made, Revoked, Validity, describe};
use ipnet::IpNet;
use netsim::{EPOCH, Net, StationId};
use packet::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const YEAR: Validity = Validity { not_before: EPOCH - 86_400, not_after: EPOCH + 365 * 86_400 };

/// A root, and what it has issued.
struct Pki {
    root: Authority,
    made: BTreeMap<StationId, Made>,
}

impl Pki {
    fn new() -> Self {
        Self { root: Authority::root("root of the virtual network", YEAR).unwrap(), made: BTreeMap::new() }
    }

    /// The station proves who it is by a certificate for these from now on.
    fn certify(&mut self, net: &mut Net, id: StationId, name: &str, address: IpAddr, prefixes: Vec<IpNet>) {
        let claims =
            Claims { name: format!("{name}.example.com"), tunnel_addresses: vec![address], prefixes };
        self.made.insert(id, self.root.node(&claims, YEAR).unwrap());
        self.equip(net, id, "");
    }

    /// The same with a list of those who are not to be believed any more.
    fn equip(&self, net: &mut Net, id: StationId, crl: &str) {
        let (made, roots) = (&self.made[&id], self.root.chain_pem());
        let (chain, key) = (made.chain.as_bytes(), made.key.as_bytes());
        let own = Certificates::new(chain, key, roots.as_bytes(), crl.as_bytes()).unwrap();
        net.configure(id, |c| {
            let ike = c.security.as_ref().map(|s| s.ike.clone()).unwrap();
            c.security = Some(Security { ike, credentials: Credentials(Arc::new(own)) });
        });
    }

    fn revoke(&self, id: StationId) -> String {
        let facts = describe(self.made[&id].chain.as_bytes()).unwrap();
        let Some(Described::Certificate(facts)) = facts.first() else { panic!("{facts:?}") };
        let hex: Vec<u8> = facts.serial.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let revoked = Revoked { serial: hex.chunks(2).map(digits).collect(), since: EPOCH - 60 };
        self.root.revocation_list(&[revoked], 1, YEAR).unwrap()
    }
}

/// Everybody has a certificate for what the plan gives it.
fn certified(seed: u64, phase: Phase) -> (Triangle, Pki) {
    let mut triangle = Triangle::unregistered(network(seed, phase));
    let mut pki = Pki::new();
    for (id, name) in [(triangle.hub, "hub"), (triangle.a, "a"), (triangle.b, "b")] {
        let (address, lan) = (triangle.net.tunnel_address(id), triangle.net.lan(id));
        pki.certify(&mut triangle.net, id, name, address, vec![lan]);
    }
    (triangle, pki)
}

#[test]
fn a_shortcut_between_certified_spokes_forms_without_loss() {
    for phase in BOTH {
        let (mut triangle, _) = certified(1, phase);
        triangle.register();
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let address = net.tunnel_address(b);
        let identity = net.tunnel(a).identity_at(address).unwrap().clone();
        assert_eq!(identity.name, "b.example.com");
        assert_eq!(identity.certified().unwrap().prefixes, Some(vec![net.lan(b)]));
        sane(&mut net, &[hub, a, b]);
    }
}

#[test]
fn a_certificate_for_another_tunnel_address_is_not_registered() {
    let (mut triangle, mut pki) = certified(2, Phase::Three);
    let Triangle { net, a, b, hub } = &mut triangle;
    let stolen = net.tunnel_address(*a);
    let lan = net.lan(*b);
    pki.certify(net, *b, "b", stolen, vec![lan]);
    net.run_for(secs(10));
    assert!(is_registered(net, *a) && !is_registered(net, *b));
    let why =
        |e: &Event| matches!(e, Event::RegistrationDenied { reason, .. } if reason.contains("certificate"));
    assert!(net.told(*hub, Instant::ZERO, why), "{:#?}", net.events(*hub));
}

/// The certificate of a stolen spoke is good for what lay behind that spoke, and for nothing else.
#[test]
fn a_prefix_that_is_not_in_the_certificate_makes_no_shortcut() {
    for phase in BOTH {
        let (mut triangle, _) = certified(3, phase);
        let coveted: IpNet = "10.77.0.0/24".parse().unwrap();
        triangle.register();
        let Triangle { mut net, hub, a, b } = triangle;
        net.set_lans(b, &[net.lan(b), coveted]);
        net.set_route(b, coveted, Some(dmvpn::RouteTarget::OffOverlay));
        net.set_route_via(hub, coveted, b);
        if phase == Phase::Two {
            net.set_route_via(a, coveted, b);
        }
        let (from, to) = (net.host(a), "10.77.0.9".parse().unwrap());
        let flow = net.flow_between(a, from, to, 50, 100);
        net.run_for(secs(10));
        let _ = net.finish(flow);
        let covered = |e: &Event| matches!(e, Event::ShortcutUp { prefix, .. } if prefix.contains(&to));
        assert!(!net.told(a, Instant::ZERO, covered), "{phase:?}: {:#?}", net.events(a));
    }
}

#[test]
fn an_inner_source_that_is_not_in_the_certificate_is_dropped_by_hubs_and_spokes_alike() {
    for phase in BOTH {
        let (mut triangle, _) = certified(4, phase);
        triangle.register();
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let spoofed: IpAddr = "10.88.0.9".parse().unwrap();
        let (to_a, to_hub) = (net.host(a), net.host(hub));
        let direct = net.flow_between(b, spoofed, to_a, 50, 100);
        let by_hub = net.flow_between(b, spoofed, to_hub, 50, 100);
        net.run_for(secs(2));
        for flow in [direct, by_hub] {
            assert_eq!(net.finish(flow).received, 0, "{phase:?}");
        }
        for id in [a, hub] {
            assert!(net.drops(id)["source"] >= 100, "{phase:?}: {:?}", net.drops(id));
        }
    }
}

/// A list of those who are not to be believed any more comes to the hub and to a spoke: what the revoked one has with
/// them ends, at once, and does not come back.
#[test]
fn a_revoked_certificate_ends_live_sessions_everywhere() {
    for phase in BOTH {
        let (mut triangle, pki) = certified(5, phase);
        triangle.register();
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let crl = pki.revoke(b);
        let revoked_at = net.now();
        for id in [hub, a] {
            pki.equip(&mut net, id, &crl);
        }
        net.run_for(secs(1));
        assert!(net.told(hub, revoked_at, |e| matches!(e, Event::PeerUnregistered { .. })), "{phase:?}");
        assert!(net.told(a, revoked_at, is_shortcut_down), "{phase:?}");
        let flows = [net.flow(b, a, 20), net.flow(a, b, 20), net.flow(b, hub, 20)];
        net.run_for(secs(60));
        for flow in flows {
            assert_eq!(net.finish(flow).received, 0, "{phase:?}");
        }
        assert!(!net.told(hub, revoked_at, |e| matches!(e, Event::PeerRegistered { .. })), "{phase:?}");
    }
}

/// Everybody gets a new certificate, one after the other, under load.
#[test]
fn credentials_rotate_on_live_tunnels_without_loss() {
    for phase in BOTH {
        let (mut triangle, mut pki) = certified(6, phase);
        triangle.register();
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let flows = [net.flow(a, b, 200), net.flow(b, a, 200), net.flow(a, hub, 200), net.flow(hub, b, 200)];
        net.run_for(secs(1));
        for (id, name) in [(a, "a"), (hub, "hub"), (b, "b")] {
            let (address, lan) = (net.tunnel_address(id), net.lan(id));
            pki.certify(&mut net, id, name, address, vec![lan]);
            net.run_for(secs(5));
        }
        net.run_for(secs(20));
        for flow in flows {
            whole(&net.finish(flow));
        }
        sane(&mut net, &[hub, a, b]);
    }
}
