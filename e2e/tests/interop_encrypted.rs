//! Ours among encrypted foreign routers: strongSwan for Linux kernel mGRE with FRR's nhrpd and bgpd.

use identity::pki::Claims;
use lab::decode::{FRAGMENT, exchange};
use lab::interop::{Frr, Guest, KEY, PSK, Proof as Theirs, Start, StrongSwan};
use lab::network::{hub, spoke};
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Lab, Manifest, Nat, NatRouter, Packet, Proof, Result, Site, story};
use serde_json::json;
use std::time::Duration;

const HUB: (&str, &str) = ("198.51.100.1", "10.200.0.1");

/// The settings that meet a Linux router with strongSwan: its key of GRE, and its proof.
fn ours(proof: Proof) -> impl Fn(Manifest) -> Manifest + Copy {
    move |m| {
        let m = m.proven_by(proof).with(json!({"tunnel": {"key": KEY}}));
        if proof == Proof::SharedKey { m.shared_key(PSK) } else { m }
    }
}

fn frr_spoke(n: u8) -> Frr {
    Frr::spoke(&format!("198.51.100.{}", 10 + n), &format!("10.200.16.{n}"), &format!("10.{n}.0.1/24"), HUB)
}

/// strongSwan with a certificate of the lab's CA. With address blocks it says what it may announce.
fn certified(lab: &Lab, name: &str, tunnel: &str, prefixes: &[&str]) -> Result<StrongSwan> {
    let pki = lab.pki()?;
    let claims = Claims {
        name: name.to_owned(),
        tunnel_addresses: tunnel.parse().into_iter().collect(),
        prefixes: prefixes.iter().filter_map(|p| p.parse().ok()).collect(),
    };
    let made = pki.node(&claims)?;
    let end = "-----END CERTIFICATE-----\n";
    let chain = made.chain.split_inclusive(end).map(str::to_owned).collect();
    let proof = Theirs::Certificate {
        identity: name.to_owned(),
        chain,
        key: made.key.to_string(),
        roots: vec![pki.root_pem()],
    };
    Ok(StrongSwan { proof, ..StrongSwan::default() })
}

/// Encrypted overlay packets that went directly between two underlay addresses.
fn direct<'a>(underlay: (&'a str, &'a str), hosts: (&'a str, &'a str)) -> impl Fn(&Packet) -> bool + 'a {
    move |p| {
        p.ip.esp().is_some()
            && ((p.ip.goes(underlay.0, underlay.1) && p.ip.carries(hosts.0, hosts.1))
                || (p.ip.goes(underlay.1, underlay.0) && p.ip.carries(hosts.1, hosts.0)))
    }
}

fn wait_direct(from: &Site, to: &str, wire: &Capture, seen: impl Fn(&Packet) -> bool) -> Result {
    wait::until("packets on the direct path", 2 * PATIENCE, || {
        let _ = Ping { patience: Duration::from_secs(1), ..Ping::times(2) }.run(&from.host, to)?;
        let count = wire.count(&seen);
        if count > 4 { Ok(()) } else { Err(Error::other(format!("{count} packets"))) }
    })
}

#[track_caller]
fn assert_nothing_in_clear(wires: &[&Capture]) {
    for wire in wires {
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0, "overlay packets in clear");
    }
}

/// Their spokes with our hub; shortcuts among them and with ours.
fn at_our_hub(lab: &Lab, proof: Proof, theirs: [StrongSwan; 2]) -> Result {
    let hub1 = hub(1).tuned(ours(proof)).start(lab)?;
    let at_hub = hub1.wire()?;
    let ours = spoke(3, &[1]).tuned(ours(proof)).start(lab)?;
    let at_ours = ours.wire()?;
    let [first, second] = theirs;
    let guests = Guest::boot_all(
        lab,
        &[
            ("fa", frr_spoke(1).encrypted(first).configuration()),
            ("fb", frr_spoke(2).encrypted(second).configuration()),
        ],
    )?;
    let [a, b] = &guests[..] else { unreachable!("two guests") };
    let at_a = Capture::start(lab.internet(), &[a.port()])?;
    ours.wait_joined(1)?;
    a.wait_ping("10.1.0.1", &hub1.host_address)?;
    b.wait_ping("10.2.0.1", &hub1.host_address)?;
    // Theirs among themselves.
    let between = direct(("198.51.100.11", "198.51.100.12"), ("10.1.0.1", "10.2.0.1"));
    wait::until("a shortcut between two of theirs", 2 * PATIENCE, || {
        a.ping("10.1.0.1", "10.2.0.1", 2)?;
        let count = at_a.count(&between);
        if count > 2 { Ok(()) } else { Err(Error::other(format!("{count} direct packets"))) }
    })?;
    // Ours with theirs, begun by ours, and begun by theirs.
    let with_a = direct(("198.51.100.13", "198.51.100.11"), (&ours.host_address, "10.1.0.1"));
    wait_direct(&ours, "10.1.0.1", &at_ours, with_a)?;
    let with_b = direct(("198.51.100.13", "198.51.100.12"), (&ours.host_address, "10.2.0.1"));
    wait::until("a shortcut begun by theirs", 2 * PATIENCE, || {
        b.ping("10.2.0.1", &ours.host_address, 2)?;
        let count = at_ours.count(&with_b);
        if count > 2 { Ok(()) } else { Err(Error::other(format!("{count} direct packets"))) }
    })?;
    assert_nothing_in_clear(&[&at_hub, &at_ours, &at_a]);
    let session = hub1.agent.ask().session("10.200.16.1")?;
    assert_eq!(session.verified, proof == Proof::Certificates, "{session:?}");
    Ok(())
}

#[test]
fn a_pre_shared_key_with_one_foreign_spoke() {
    story("strongswan_psk_one", |lab| {
        let hub1 = hub(1).tuned(ours(Proof::SharedKey)).start(lab)?;
        let at_hub = hub1.wire()?;
        let guest = Guest::boot(lab, "fa", &frr_spoke(1).encrypted(StrongSwan::default()).configuration())?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        assert_nothing_in_clear(&[&at_hub]);
        assert!(at_hub.count(|p| p.ip.esp().is_some() && p.ip.nhrp().is_some()) >= 2);
        Ok(())
    });
}

#[test]
fn trapped_foreign_spokes_register_with_our_hub_by_a_pre_shared_key() {
    story("strongswan_psk", |lab| {
        at_our_hub(lab, Proof::SharedKey, [StrongSwan::default(), StrongSwan::default()])
    });
}

#[test]
fn foreign_spokes_register_with_our_hub_by_certificates_with_address_blocks() {
    story("strongswan_cert", |lab| {
        let theirs = [
            certified(lab, "fa", "10.200.16.1", &["10.1.0.0/24"])?,
            certified(lab, "fb", "10.200.16.2", &["10.2.0.0/24"])?,
        ];
        at_our_hub(lab, Proof::Certificates, theirs)
    });
}

#[test]
fn our_spokes_register_with_a_foreign_hub() {
    for proof in [Proof::SharedKey, Proof::Certificates] {
        story("strongswan_hub", |lab| {
            let everything = ["10.0.0.0/8"];
            let of = |name: &str, tunnel: &str, prefixes: &[&str]| match proof {
                Proof::Certificates => certified(lab, name, tunnel, prefixes),
                _ => Ok(StrongSwan::default()),
            };
            let guests = Guest::boot_all(
                lab,
                &[
                    (
                        "fhub",
                        Frr::hub(HUB.0, HUB.1, "10.100.1.1/24")
                            .encrypted(of("fhub", HUB.1, &everything)?)
                            .configuration(),
                    ),
                    (
                        "fa",
                        frr_spoke(1).encrypted(of("fa", "10.200.16.1", &["10.1.0.0/24"])?).configuration(),
                    ),
                ],
            )?;
            let [fhub, fa] = &guests[..] else { unreachable!("two guests") };
            let at_hub = Capture::start(lab.internet(), &[fhub.port()])?;
            let (a, b) = (
                spoke(3, &[1]).tuned(ours(proof)).start(lab)?,
                spoke(4, &[1]).tuned(ours(proof)).start(lab)?,
            );
            let at_a = a.wire()?;
            for site in [&a, &b] {
                site.wait_joined(1)?;
                wait::until("the hub's LAN", 2 * PATIENCE, || {
                    Ping::times(1).expect(&site.host, "10.100.1.1").map_err(|e| e.to_string())
                })?;
            }
            let among_ours = direct((&a.underlay, &b.underlay), (&a.host_address, &b.host_address));
            wait_direct(&a, &b.host_address, &at_a, among_ours)?;
            fa.wait_ping("10.1.0.1", "10.100.1.1")?;
            let with_theirs = direct((&a.underlay, "198.51.100.11"), (&a.host_address, "10.1.0.1"));
            wait_direct(&a, "10.1.0.1", &at_a, with_theirs)?;
            assert_nothing_in_clear(&[&at_hub, &at_a]);
            Ok(())
        });
    }
}

#[test]
fn a_session_begun_by_swanctl_is_rekeyed_by_either_side() {
    story("strongswan_rekeys", |lab| {
        let often = ours(Proof::SharedKey);
        let hub1 = hub(1).tuned(often).start(lab)?;
        let at_hub = hub1.wire()?;
        let initiated = StrongSwan { start: Start::Initiated(HUB.0.to_owned()), ..StrongSwan::default() };
        let guest = Guest::boot(lab, "fa", &frr_spoke(1).encrypted(initiated).configuration())?;
        hub1.agent.ask().wait_ready()?;
        guest.swanctl("--initiate --child gre --timeout 20")?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        let spis = || guest.run("ip xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort -u");
        let before = spis()?;
        guest.swanctl("--rekey --child gre")?;
        wait::until("other SAs by their rekeying", PATIENCE, || {
            let now = spis()?;
            if now == before { Err(Error::other(now)) } else { Ok(()) }
        })?;
        assert_eq!(guest.ping("10.1.0.1", &hub1.host_address, 5)?, 5);
        guest.swanctl("--rekey --ike dmvpn")?;
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(guest.ping("10.1.0.1", &hub1.host_address, 5)?, 5);
        // And by ours.
        let shorter =
            |m: Manifest| often(m).with(json!({"security": {"rekey": {"child": "3s", "ike": "7s"}}}));
        hub1.agent.apply(&hub(1).tuned(shorter).manifest)?;
        hub1.agent.ask().clear_sessions("")?;
        // Without a trap nobody begins again by himself.
        guest.swanctl("--initiate --child gre --timeout 20")?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        at_hub.clear();
        let (_, said) =
            guest.attempt(&format!("ping -q -c 60 -i 0.25 -W 2 -I 10.1.0.1 {}", hub1.host_address))?;
        assert!(said.contains(" 0% packet loss"), "{said}");
        let by_ours = at_hub.count(|p| {
            p.outgoing && p.ip.ike().is_some_and(|m| m.exchange == exchange::CREATE_CHILD && !m.is_response())
        });
        assert!(by_ours >= 4, "{by_ours} rekeys by ours");
        assert_nothing_in_clear(&[&at_hub]);
        Ok(())
    });
}

#[test]
fn a_foreign_spoke_behind_a_nat_reaches_our_hub() {
    story("strongswan_nat", |lab| {
        let hub1 = hub(1).tuned(ours(Proof::SharedKey)).start(lab)?;
        let at_hub = hub1.wire()?;
        let nat = lab.nat("nat", &["198.51.100.99"], &NatRouter::new(Nat::PortPreserving))?;
        let inside = Frr::spoke("192.168.7.2", "10.200.16.1", "10.1.0.1/24", HUB);
        let guest =
            Guest::boot_behind(lab, &nat, "fa", &inside.encrypted(StrongSwan::default()).configuration())?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        let in_udp =
            |p: &Packet| p.ip.goes("198.51.100.99", HUB.0) && p.ip.esp().is_some_and(|e| e.ports.is_some());
        assert!(at_hub.count(in_udp) > 0);
        assert_nothing_in_clear(&[&at_hub]);
        Ok(())
    });
}

/// As [`ours`] with a pre-shared key, and ESP in UDP only where it has to be.
fn bare(m: Manifest) -> Manifest {
    ours(Proof::SharedKey)(m).with(json!({"security": {"encapsulation": "Auto"}}))
}

/// A spoke that begins with the hub without UDP.
fn bare_spoke(m: Manifest) -> Manifest {
    bare(m).with(json!({"hubs": [{"address": HUB.0, "encapsulation": "Gre"}]}))
}

/// Overlay packets went by IP protocol 50, and none in UDP.
#[track_caller]
fn assert_bare(wires: &[&Capture]) {
    assert_nothing_in_clear(wires);
    for wire in wires {
        assert!(wire.count(|p| p.ip.esp().is_some_and(|e| e.ports.is_none())) > 4, "no bare ESP");
        assert_eq!(wire.count(|p| p.ip.esp().is_some_and(|e| e.ports.is_some())), 0, "ESP in UDP");
    }
}

#[test]
fn esp_goes_without_udp_among_theirs_and_ours_where_no_nat_is() {
    story("strongswan_bare", |lab| {
        let hub1 = hub(1).tuned(bare).start(lab)?;
        let at_hub = hub1.wire()?;
        let ours = spoke(3, &[1]).tuned(bare_spoke).start(lab)?;
        let at_ours = ours.wire()?;
        let guest = Guest::boot(lab, "fa", &frr_spoke(1).encrypted(StrongSwan::default()).configuration())?;
        ours.wait_joined(1)?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        let between = direct(("198.51.100.13", "198.51.100.11"), (&ours.host_address, "10.1.0.1"));
        wait_direct(&ours, "10.1.0.1", &at_ours, between)?;
        assert_bare(&[&at_hub, &at_ours]);
        assert!(hub1.agent.ask().session("10.200.16.1")?.path.ends_with("(esp)"));
        Ok(())
    });
}

#[test]
fn our_spoke_sends_esp_without_udp_to_a_foreign_hub() {
    story("strongswan_bare_hub", |lab| {
        let theirs = Frr::hub(HUB.0, HUB.1, "10.100.1.1/24").encrypted(StrongSwan::default());
        let fhub = Guest::boot(lab, "fhub", &theirs.configuration())?;
        let at_hub = Capture::start(lab.internet(), &[fhub.port()])?;
        let a = spoke(3, &[1]).tuned(bare_spoke).start(lab)?;
        a.wait_joined(1)?;
        wait::until("the hub's LAN", 2 * PATIENCE, || {
            Ping::times(1).expect(&a.host, "10.100.1.1").map_err(|e| e.to_string())
        })?;
        Ping::times(5).expect(&a.host, "10.100.1.1")?;
        assert_bare(&[&at_hub]);
        Ok(())
    });
}

#[test]
fn a_certificate_chain_that_does_not_fit_a_packet_comes_in_fragments() {
    story("strongswan_fragments", |lab| {
        let hub1 = hub(1).tuned(ours(Proof::Certificates)).start(lab)?;
        let at_hub = hub1.wire()?;
        let many: Vec<String> = (0..120).map(|n| format!("10.1.{n}.0/25")).collect();
        let mut prefixes: Vec<&str> = many.iter().map(String::as_str).collect();
        prefixes.push("10.1.0.0/24");
        let theirs = certified(lab, "fa", "10.200.16.1", &prefixes)?;
        let guest = Guest::boot(lab, "fa", &frr_spoke(1).encrypted(theirs).configuration())?;
        guest.wait_ping("10.1.0.1", &hub1.host_address)?;
        let fragments = at_hub.count(|p| !p.outgoing && p.ip.ike().is_some_and(|m| m.first == FRAGMENT));
        assert!(fragments >= 2, "{fragments} fragments of IKE messages");
        Ok(())
    });
}

#[test]
fn a_foreign_spoke_whose_certificate_says_too_much_is_refused() {
    story("strongswan_too_wide", |lab| {
        let hub1 = hub(1).tuned(ours(Proof::Certificates)).start(lab)?;
        let claims = Claims {
            name: "fa".to_owned(),
            tunnel_addresses: "10.200.16.1".parse().into_iter().collect(),
            prefixes: Vec::new(),
        };
        let made = lab.pki()?.too_wide(&claims)?;
        let end = "-----END CERTIFICATE-----\n";
        let proof = Theirs::Certificate {
            identity: "fa".to_owned(),
            chain: made.chain.split_inclusive(end).map(str::to_owned).collect(),
            key: made.key.to_string(),
            roots: vec![lab.pki()?.root_pem()],
        };
        let theirs = StrongSwan { proof, ..StrongSwan::default() };
        let guest = Guest::boot(lab, "fa", &frr_spoke(1).encrypted(theirs).configuration())?;
        wait::until("the refusal in strongSwan's log", 2 * PATIENCE, || {
            let _ = guest.ping("10.1.0.1", &hub1.host_address, 1)?;
            let log = guest.charon_log();
            if log.contains("AUTHENTICATION_FAILED") { Ok(()) } else { Err(Error::other("not yet")) }
        })?;
        assert_eq!(hub1.agent.ask().tunnel()?.registrations, 0);
        Ok(())
    });
}
