//! Ours among foreign routers in the clear: Linux kernel mGRE with FRR's nhrpd and bgpd, and an end of plain GRE.

use lab::decode::nhrp::kind;
use lab::interop::{Frr, Guest, KEY, plain_gre};
use lab::network::{hub, spoke};
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Manifest, Packet, Result, Site, story};
use serde_json::json;
use std::time::Duration;

/// The settings that a Linux router without strongSwan needs: a key, and everything in the clear.
fn linux(m: Manifest) -> Manifest {
    m.clear().with(json!({"tunnel": {"key": KEY}}))
}

fn frr_spoke(n: u8, hub: (&str, &str)) -> Frr {
    let (address, tunnel) = (format!("198.51.100.{}", 10 + n), format!("10.200.16.{n}"));
    Frr::spoke(&address, &tunnel, &format!("10.{n}.0.1/24"), hub)
}

/// Overlay packets between two hosts that went directly between two underlay addresses.
fn direct<'a>(underlay: (&'a str, &'a str), hosts: (&'a str, &'a str)) -> impl Fn(&Packet) -> bool + 'a {
    move |p| {
        (p.ip.goes(underlay.0, underlay.1) && p.ip.carries(hosts.0, hosts.1))
            || (p.ip.goes(underlay.1, underlay.0) && p.ip.carries(hosts.1, hosts.0))
    }
}

/// Our host pings until its packets are seen going directly.
fn wait_direct(from: &Site, to: &str, wire: &Capture, seen: impl Fn(&Packet) -> bool) -> Result {
    wait::until("packets on the direct path", 2 * PATIENCE, || {
        let _ = Ping { patience: Duration::from_secs(1), ..Ping::times(2) }.run(&from.host, to)?;
        let count = wire.count(&seen);
        if count > 4 { Ok(()) } else { Err(Error::other(format!("{count} packets"))) }
    })
}

fn registered(wire: &Capture, tunnel: &str) -> Result {
    wire.wait_for(&format!("{tunnel} to be registered"), Duration::from_secs(60), |p| {
        p.ip.nhrp()
            .is_some_and(|m| m.kind == kind::REGISTRATION_REPLY && m.from(tunnel) && m.code() == Some(0))
    })
    .map(drop)
}

#[test]
fn frr_spokes_register_with_our_hub_and_build_shortcuts_with_each_other_and_with_ours() {
    story("our_hub", |lab| {
        let hub1 = hub(1).tuned(linux).start(lab)?;
        let at_hub = hub1.wire()?;
        let theirs = ("198.51.100.1", "10.200.0.1");
        let ours = spoke(3, &[1]).tuned(linux).start(lab)?;
        let guests = Guest::boot_all(
            lab,
            &[("fa", frr_spoke(1, theirs).configuration()), ("fb", frr_spoke(2, theirs).configuration())],
        )?;
        let [a, b] = &guests[..] else { unreachable!("two guests") };
        registered(&at_hub, "10.200.16.1")?;
        registered(&at_hub, "10.200.16.2")?;
        ours.wait_joined(1)?;
        a.wait_ping("10.1.0.1", &hub1.host_address)?;
        b.wait_ping("10.2.0.1", &hub1.host_address)?;

        // Theirs among themselves: our hub redirects and forwards.
        let at_a = Capture::start(lab.internet(), &[a.port()])?;
        let between = direct(("198.51.100.11", "198.51.100.12"), ("10.1.0.1", "10.2.0.1"));
        wait::until("a shortcut between two of theirs", 2 * PATIENCE, || {
            a.ping("10.1.0.1", "10.2.0.1", 2)?;
            let count = at_a.count(&between);
            if count > 2 { Ok(()) } else { Err(Error::other(format!("{count} direct packets"))) }
        })?;
        assert!(a.show("ip nhrp shortcut")?.contains("10.2.0.0/24"));
        assert!(
            at_a.count(|p| p.ip.goes("198.51.100.1", "198.51.100.11")
                && p.ip.nhrp().is_some_and(|m| m.kind == kind::TRAFFIC_INDICATION))
                > 0
        );

        // Ours with theirs, begun by ours.
        let at_ours = ours.wire()?;
        wait_direct(
            &ours,
            "10.1.0.1",
            &at_ours,
            direct(("198.51.100.13", "198.51.100.11"), (&ours.host_address, "10.1.0.1")),
        )?;
        // And begun by theirs.
        let by_them = direct(("198.51.100.13", "198.51.100.12"), (&ours.host_address, "10.2.0.1"));
        wait::until("a shortcut begun by theirs", 2 * PATIENCE, || {
            b.ping("10.2.0.1", &ours.host_address, 2)?;
            let count = at_ours.count(&by_them);
            if count > 2 { Ok(()) } else { Err(Error::other(format!("{count} direct packets"))) }
        })?;
        // Plain GRE with the key, since they speak nothing else.
        let plain = at_ours.select(|p| p.ip.source.to_string() == "198.51.100.11" && p.ip.gre().is_some());
        assert!(plain.iter().all(|p| p.ip.gre().is_some_and(|g| g.ports.is_none() && g.key == Some(KEY))));
        let foreign = hub1.agent.ask().peer("10.200.16.1")?;
        assert!(!foreign.ours && !foreign.identity_verified, "{foreign:?}");
        Ok(())
    });
}

#[test]
fn our_spokes_register_with_an_frr_hub_and_build_shortcuts_with_its_spokes() {
    story("their_hub", |lab| {
        let theirs = ("198.51.100.1", "10.200.0.1");
        let guests = Guest::boot_all(
            lab,
            &[
                ("fhub", Frr::hub(theirs.0, theirs.1, "10.100.1.1/24").configuration()),
                ("fa", frr_spoke(1, theirs).configuration()),
            ],
        )?;
        let [fhub, fa] = &guests[..] else { unreachable!("two guests") };
        let at_hub = Capture::start(lab.internet(), &[fhub.port()])?;
        let (a, b) = (spoke(3, &[1]).tuned(linux).start(lab)?, spoke(4, &[1]).tuned(linux).start(lab)?);
        for site in [&a, &b] {
            registered(&at_hub, &site.tunnel)?;
            site.wait_joined(1)?;
            wait::until("the hub's LAN", 2 * PATIENCE, || {
                Ping::times(1).expect(&site.host, "10.100.1.1").map_err(|e| e.to_string())
            })?;
        }
        let at_a = a.wire()?;
        // Ours with ours, through a hub that knows nothing of us.
        wait_direct(
            &a,
            &b.host_address,
            &at_a,
            direct((&a.underlay, &b.underlay), (&a.host_address, &b.host_address)),
        )?;
        // Ours with theirs.
        fa.wait_ping("10.1.0.1", "10.100.1.1")?;
        wait_direct(
            &a,
            "10.1.0.1",
            &at_a,
            direct((&a.underlay, "198.51.100.11"), (&a.host_address, "10.1.0.1")),
        )?;
        let cache = fhub.show("ip nhrp cache")?;
        assert!(cache.contains(&a.tunnel) && cache.contains(&b.tunnel), "{cache}");
        Ok(())
    });
}

#[test]
fn frr_with_authentication_registers_with_the_same_password_only() {
    story("authentication", |lab| {
        let hub1 = hub(1).tuned(linux).tuned(|m| m.authentication("secret12")).start(lab)?;
        let at_hub = hub1.wire()?;
        let theirs = ("198.51.100.1", "10.200.0.1");
        let guests = Guest::boot_all(
            lab,
            &[
                ("fa", frr_spoke(1, theirs).authentication("secret12").configuration()),
                ("fb", frr_spoke(2, theirs).authentication("secret99").configuration()),
            ],
        )?;
        registered(&at_hub, "10.200.16.1")?;
        guests[0].wait_ping("10.1.0.1", &hub1.host_address)?;
        at_hub.wait_for("an attempt with the wrong password", PATIENCE, |p| {
            p.ip.nhrp()
                .is_some_and(|m| m.from("10.200.16.2") && m.authentication.as_deref() == Some("secret99"))
        })?;
        assert_eq!(
            at_hub.count(|p| p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY
                && m.from("10.200.16.2")
                && m.code() == Some(0))),
            0
        );
        let answered =
            at_hub.select(|p| p.outgoing && p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY));
        assert!(
            answered
                .iter()
                .all(|p| p.ip.nhrp().is_some_and(|m| m.authentication.as_deref() == Some("secret12")))
        );
        Ok(())
    });
}

#[test]
fn our_spoke_registers_with_an_frr_hub_by_its_password() {
    story("their_authentication", |lab| {
        let fhub = Frr::hub("198.51.100.1", "10.200.0.1", "10.100.1.1/24").authentication("secret12");
        let fhub = Guest::boot(lab, "fhub", &fhub.configuration())?;
        let at_hub = Capture::start(lab.internet(), &[fhub.port()])?;
        let right = spoke(1, &[1]).tuned(linux).tuned(|m| m.authentication("secret12")).start(lab)?;
        let wrong = spoke(2, &[1]).tuned(linux).tuned(|m| m.authentication("secret99")).start(lab)?;
        registered(&at_hub, &right.tunnel)?;
        right.wait_joined(1)?;
        wait::until("the hub's LAN", 2 * PATIENCE, || {
            Ping::times(1).expect(&right.host, "10.100.1.1").map(drop)
        })?;
        assert!(wrong.agent.ask().hubs()?.iter().all(|h| !h.up));
        let accepted = |p: &Packet| {
            p.ip.nhrp().is_some_and(|m| {
                m.kind == kind::REGISTRATION_REPLY && m.from(&wrong.tunnel) && m.code() == Some(0)
            })
        };
        assert_eq!(at_hub.count(accepted), 0);
        Ok(())
    });
}

#[test]
fn a_router_without_nhrp_is_a_spoke_by_a_static_map() {
    story("static_map", |lab| {
        let map = |m: Manifest| {
            m.with(json!({"staticPeers": [
                {"tunnelAddress": "10.200.16.9", "nbma": "198.51.100.19", "prefixes": ["10.9.0.0/24"]},
            ]}))
        };
        let hub1 = hub(1).tuned(linux).tuned(map).start(lab)?;
        let ours = spoke(1, &[1]).tuned(linux).start(lab)?;
        let old = Guest::boot(
            lab,
            "old",
            &plain_gre("198.51.100.19", "10.200.16.9", "10.9.0.1/24", "198.51.100.1"),
        )?;
        let wire = Capture::start(lab.internet(), &[old.port()])?;
        ours.wait_joined(1)?;
        old.wait_ping("10.9.0.1", &hub1.host_address)?;
        old.wait_ping("10.9.0.1", &ours.host_address)?;
        Ping::times(5).expect(&ours.host, "10.9.0.1")?;
        assert!(
            wire.count(|p| p.ip.goes("198.51.100.1", "198.51.100.19")
                && p.ip.carries(&ours.host_address, "10.9.0.1"))
                >= 5
        );
        assert_eq!(wire.count(|p| p.outgoing && p.ip.nhrp().is_some()), 0, "nobody speaks NHRP to it");
        Ok(())
    });
}
