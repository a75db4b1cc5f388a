//! NATs by kind: which pairs of spokes get a direct path, which stay by the hub, and what `path` says of it.
//!
//! | | none | port-preserving | full cone | symmetric |
//! |---|---|---|---|---|
//! | **none** | direct | direct | direct | direct |
//! | **port-preserving** | | direct | direct | by the hub |
//! | **full cone** | | | direct | direct |
//! | **symmetric** | | | | by the hub |
//!
//! A symmetric NAT shows a peer another port than the hub. Who filters by port lets nothing in from there; who
//! doesn't learns the port from the first probe that comes.

use lab::network::{hub, spoke};
use lab::relay::Shape;
use lab::traffic::Ping;
use lab::wait::PATIENCE;
use lab::{Lab, Nat, NatRouter, Node, Result, Site, Uplink, story};
use serde_json::json;
use std::time::{Duration, Instant};

/// What stands before a spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    PortPreserving,
    FullCone,
    Symmetric,
}

use Before::{FullCone, Nothing, PortPreserving, Symmetric};

impl Before {
    fn router(self) -> Option<NatRouter> {
        let kind = match self {
            Nothing => return None,
            PortPreserving => Nat::PortPreserving,
            FullCone => Nat::FullCone,
            Symmetric => Nat::Symmetric,
        };
        Some(NatRouter::new(kind))
    }
}

/// Spoke `n` behind a NAT of its own.
fn spoke_behind(lab: &Lab, n: u8, before: Before) -> Result<Site> {
    match before.router() {
        None => spoke(n, &[1]).without_bgp().start(lab),
        Some(router) => {
            let nat = lab.nat(&format!("nat{n}"), &[&format!("198.51.100.{}", 100 + n)], &router)?;
            spoke(n, &[1]).without_bgp().at(&format!("192.168.{n}.2")).start_behind(lab, &nat)
        }
    }
}

/// Keeps traffic going: directly connected within the patience, or still by the hub after several attempts.
fn connects(a: &Site, b: &Site, expected: bool) -> Result<bool> {
    let start = Instant::now();
    let patience = if expected { PATIENCE } else { Duration::from_secs(6) };
    while start.elapsed() < patience {
        Ping { interval: Duration::from_millis(20), ..Ping::times(10) }.expect(&a.host, &b.host_address)?;
        if a.direct_to(b)? && b.direct_to(a)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why traffic stays by the hub, once that is certain: a handshake is given its time before it counts as unanswered.
fn reason_by_hub(a: &Site, b: &Site) -> Result<String> {
    let start = Instant::now();
    loop {
        let path = a.agent.ask().path("", &b.host_address)?;
        assert_eq!(path.kind, "hub");
        let said = path.explanation.join("\n");
        if said.contains("NAT") || start.elapsed() > PATIENCE {
            return Ok(said);
        }
        Ping { interval: Duration::from_millis(20), ..Ping::times(10) }.expect(&a.host, &b.host_address)?;
    }
}

/// Two spokes behind NATs of these kinds: direct or not, and if not, why.
fn pair(name: &str, a: Before, b: Before, direct: bool) {
    story(name, |lab| {
        let hub1 = hub(1).without_bgp().start(lab)?;
        let (a, b) = (spoke_behind(lab, 1, a)?, spoke_behind(lab, 2, b)?);
        let _wires = [hub1.wire()?, a.wire()?, b.wire()?];
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        assert_eq!(connects(&a, &b, direct)?, direct, "{:?}", a.agent.ask().path("", &b.host_address)?);
        if !direct {
            let said = reason_by_hub(&a, &b)?;
            assert!(said.contains("NAT"), "the reason is told: {said}");
            // What stays by the hub is carried well.
            Ping::times(20).expect(&a.host, &b.host_address)?;
        }
        Ok(())
    });
}

#[test]
fn a_public_spoke_and_one_behind_a_port_preserving_nat_are_direct() {
    pair("nat_open_preserving", Nothing, PortPreserving, true);
}

#[test]
fn a_public_spoke_and_one_behind_a_full_cone_are_direct() {
    pair("nat_open_cone", Nothing, FullCone, true);
}

#[test]
fn a_port_preserving_nat_and_a_full_cone_are_direct() {
    pair("nat_preserving_cone", PortPreserving, FullCone, true);
}

#[test]
fn two_full_cones_are_direct() {
    pair("nat_cone_cone", FullCone, FullCone, true);
}

#[test]
fn a_public_spoke_and_one_behind_a_symmetric_nat_are_direct() {
    pair("nat_open_symmetric", Nothing, Symmetric, true);
}

#[test]
fn two_port_preserving_nats_are_punched_through() {
    pair("nat_preserving_preserving", PortPreserving, PortPreserving, true);
}

#[test]
fn a_full_cone_and_a_symmetric_nat_are_direct() {
    pair("nat_cone_symmetric", FullCone, Symmetric, true);
}

#[test]
fn a_port_preserving_and_a_symmetric_nat_stay_by_the_hub() {
    pair("nat_preserving_symmetric", PortPreserving, Symmetric, false);
}

#[test]
fn two_symmetric_nats_stay_by_the_hub() {
    pair("nat_symmetric_symmetric", Symmetric, Symmetric, false);
}

/// Two spokes behind the same NAT.
fn behind_one(lab: &Lab, router: &NatRouter, isolated: bool) -> Result<(Site, Site, Node)> {
    let _ = hub(1).without_bgp().start(lab).map(std::mem::forget);
    let nat = lab.nat("nat", &["198.51.100.99"], router)?;
    if isolated {
        // As in a guest network: the machines inside may not talk to each other by their inner addresses.
        nat.cut(&["ip saddr 192.168.0.0/16 ip daddr 192.168.0.0/16 ct status & dnat == 0"])?;
    }
    let a = spoke(1, &[1]).without_bgp().at("192.168.77.2").start_behind(lab, &nat)?;
    let b = spoke(2, &[1]).without_bgp().at("192.168.77.3").start_behind(lab, &nat)?;
    for (here, there) in [(&a, &b), (&b, &a)] {
        here.wait_joined(1)?;
        here.wait_route_to(there)?;
    }
    Ok((a, b, nat))
}

#[test]
fn two_spokes_behind_one_nat_use_their_private_addresses() {
    story("nat_shared", |lab| {
        let (a, b, _) = behind_one(lab, &NatRouter::new(Nat::PortPreserving), false)?;
        let wire = a.wire()?;
        assert!(connects(&a, &b, true)?);
        assert!(wire.count(|p| p.ip.goes("192.168.77.2", "192.168.77.3") && a.carried(&b)(p)) > 0);
        Ok(())
    });
}

#[test]
fn two_isolated_spokes_behind_one_hairpinning_nat_are_direct_through_it() {
    story("nat_hairpin", |lab| {
        let (a, b, nat) = behind_one(lab, &NatRouter::new(Nat::PortPreserving).hairpin(), true)?;
        assert!(connects(&a, &b, true)?);
        let outside = lab::Capture::start(&nat, &["wan"])?;
        Ping::times(5).expect(&a.host, &b.host_address)?;
        assert_eq!(outside.count(a.carried(&b)), 0, "their packets turn at the NAT");
        Ok(())
    });
}

#[test]
fn two_isolated_spokes_behind_one_nat_without_hairpin_stay_by_the_hub() {
    story("nat_no_hairpin", |lab| {
        let (a, b, _) = behind_one(lab, &NatRouter::new(Nat::PortPreserving), true)?;
        assert!(!connects(&a, &b, false)?);
        Ping::times(20).expect(&a.host, &b.host_address).map(drop)
    });
}

#[test]
fn a_hub_behind_a_one_to_one_nat_serves_by_the_address_it_advertises() {
    story("nat_hub_one_to_one", |lab| {
        let inner = "192.168.99.2";
        let router = NatRouter::new(Nat::OneToOne { inner: inner.parse().map_err(lab::Error::other)? });
        let nat = lab.nat("nat", &["198.51.100.1"], &router)?;
        let advertise =
            |m: lab::Manifest| m.with(json!({"underlay": {"advertise": {"hub1": "198.51.100.1"}}}));
        let _hub = hub(1).without_bgp().at(inner).tuned(advertise).start_behind(lab, &nat)?;
        let (a, b) = (spoke(1, &[1]).without_bgp().start(lab)?, spoke(2, &[1]).without_bgp().start(lab)?);
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        let wire = a.wire()?;
        a.wait_direct(&b)?;
        assert_eq!(
            wire.count(|p| p.ip.source.to_string() == inner || p.ip.destination.to_string() == inner),
            0
        );
        Ok(())
    });
}

#[test]
fn a_mapping_that_would_expire_is_kept_open() {
    story("nat_keepalive", |lab| {
        let _hub = hub(1).without_bgp().start(lab)?;
        // RFC 4787 REQ-5 asks for two minutes; routers that keep a mapping for half a minute are common.
        let router = NatRouter { udp_timeout: Some(20), ..NatRouter::new(Nat::PortPreserving) };
        let nat = lab.nat("nat", &["198.51.100.99"], &router)?;
        let slow = Uplink::relayed(Shape::delay(Duration::from_millis(2)));
        let (a, b) = (
            spoke(1, &[1]).without_bgp().start(lab)?,
            spoke(2, &[1]).without_bgp().at("192.168.77.2").by(slow).start_behind(lab, &nat)?,
        );
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        std::thread::sleep(Duration::from_secs(26));
        // From outside in, after a silence: only an open mapping lets it through.
        Ping::times(1).expect(&a.host, &b.host_address).map(drop)
    });
}
