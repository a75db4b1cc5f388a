//! What is refused: other identities, wrong passwords, unclaimed prefixes, loops, recursive routes.

use lab::decode::nhrp::kind;
use lab::network::{hub, spoke, start_and_join};
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Manifest, Proof, story};
use serde_json::json;
use std::thread::sleep;
use std::time::Duration;

#[test]
fn another_identity_with_a_registered_address_is_refused_and_told() {
    story("unique_conflict", |lab| {
        let hub1 = hub(1).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(2, &[1])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        let at_hub = hub1.wire()?;
        // The third says it were the first.
        let thief =
            spoke(3, &[1]).tuned(|m| m.with(json!({"tunnel": {"addresses": format!("{}/32", a.tunnel)}})));
        let thief = thief.start(lab)?;
        at_hub.wait_for("a refusal", PATIENCE, |p| {
            p.outgoing
                && p.ip.destination.to_string() == thief.underlay
                && p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY && m.code() == Some(14))
        })?;
        wait::until("the conflict in its status", PATIENCE, || {
            let tunnel = thief.agent.ask().tunnel()?;
            if tunnel.address_conflict { Ok(()) } else { Err(Error::other(tunnel.reason)) }
        })?;
        assert!(thief.agent.ask().hubs()?.iter().all(|h| !h.up));
        // The first is not disturbed.
        a.wait_direct(b)?;
        assert_eq!(hub1.agent.ask().tunnel()?.registrations, 2);
        Ok(())
    });
}

#[test]
fn the_same_identity_from_elsewhere_replaces_its_binding() {
    story("same_identity", |lab| {
        let hub1 = hub(1).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(2, &[1])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        // The machine dies without a word; its replacement has the same name and another address.
        for pid in a.node.namespace().processes() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(Error::sys("kill"))?;
        }
        let (node, _) = lab.internet().attach("spare", &["203.0.113.50"], &lab::Uplink::default())?;
        let host = node.lan("lan", "10.1.0.1/24")?;
        let agent = lab::Agent::prepare_as(lab, &node, "spoke1", &[])?;
        agent.apply(&spoke(1, &[1]).manifest)?;
        agent.launch()?;
        agent.ask().wait_hubs(1)?;
        assert_eq!(hub1.agent.ask().peer(&a.tunnel)?.nbma, "203.0.113.50");
        assert_eq!(hub1.agent.ask().tunnel()?.registrations, 2);
        wait::until("the replacement to be reached", PATIENCE, || {
            Ping::times(1).expect(&host, &b.host_address).map_err(|e| e.to_string())
        })?;
        Ok(())
    });
}

#[test]
fn a_wrong_password_keeps_a_spoke_out_and_the_right_one_lets_it_in() {
    story("authentication", |lab| {
        let hub1 = hub(1).tuned(|m| m.authentication("secret1")).start(lab)?;
        let at_hub = hub1.wire()?;
        let a = spoke(1, &[1]).tuned(|m| m.authentication("secret2")).start(lab)?;
        let right =
            |p: &lab::Packet| p.ip.nhrp().is_some_and(|m| m.authentication.as_deref() == Some("secret1"));
        at_hub.wait_for("a request with the wrong password", PATIENCE, |p| {
            p.ip.nhrp().is_some_and(|m| m.authentication.as_deref() == Some("secret2"))
        })?;
        sleep(Duration::from_secs(3));
        assert!(a.agent.ask().hubs()?.iter().all(|h| !h.up));
        assert_eq!(hub1.agent.ask().tunnel()?.registrations, 0);
        let accepted = at_hub.count(|p| {
            p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY && m.code() == Some(0))
        });
        assert_eq!(accepted, 0);
        a.agent.write_manifest(
            "lab.yaml",
            &spoke(1, &[1]).tuned(|m| m.authentication("secret1")).manifest.text(),
        )?;
        a.wait_joined(1)?;
        assert!(at_hub.count(right) >= 2);
        Ok(())
    });
}

#[test]
fn a_prefix_that_is_not_claimed_is_not_routed_and_not_a_source() {
    story("not_claimed", |lab| {
        let admission = |m: Manifest| {
            m.with(json!({"admission": [
                {"identity": "*", "tunnelAddresses": ["10.200.16.0/24"], "prefixes": ["10.1.0.0/16", "10.2.0.0/16"]},
            ]}))
        };
        let hub1 = hub(1).tuned(admission).start(lab)?;
        let stray = |m: Manifest| m.with(json!({"announce": {"prefixes": ["10.1.0.0/24", "10.66.0.0/24"]}}));
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]).tuned(stray), spoke(2, &[1])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        let routes = |site: &lab::Site| site.node.namespace().ip_json("route show 10.66.0.0/24");
        wait::until("the refusal in the hub's status", PATIENCE, || {
            let neighbours = hub1.agent.ask().tunnel()?.bgp_neighbours;
            let refused: u32 = neighbours.iter().map(|n| n.prefixes_refused).sum();
            if refused > 0 { Ok(()) } else { Err(Error::other(format!("{neighbours:?}"))) }
        })?;
        assert_eq!((routes(&hub1)?, routes(b)?), (json!([]), json!([])));
        // Packets with such a source are dropped, and counted by their reason.
        a.host.namespace().ip(&["addr add 10.66.0.10/32 dev eth0"])?;
        a.node.namespace().ip(&["route add 10.66.0.0/24 dev lan"])?;
        let forged = Ping {
            source: "10.66.0.10".parse().ok(),
            patience: Duration::from_millis(500),
            ..Ping::times(5)
        };
        let at_b = Capture::start(&b.host, &["eth0"])?;
        forged.run(&a.host, &b.host_address)?;
        assert_eq!(at_b.count(|p| p.ip.source.to_string() == "10.66.0.10"), 0);
        let dropped: u64 = hub1
            .agent
            .ask()
            .counters()?
            .iter()
            .filter(|(name, _)| name.contains("source"))
            .map(|(_, n)| n)
            .sum();
        assert!(dropped >= 5, "{:?}", hub1.agent.ask().counters()?);
        a.wait_direct(b)
    });
}

#[test]
fn a_loop_does_not_form_where_two_hubs_summarise_towards_each_other() {
    story("loop", |lab| {
        let hub1 = hub(1).start(lab)?;
        let hub2 = hub(2).tuned(|m| m.with(json!({"hubs": [{"address": "198.51.100.1"}]}))).start(lab)?;
        hub2.wait_joined(1)?;
        let (a, b) = (spoke(1, &[1]).start(lab)?, spoke(2, &[2]).start(lab)?);
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        // Nobody has 10.77.0.0/24; both hubs announce 10.0.0.0/8 to whoever asks them.
        let wires = [hub1.wire()?, hub2.wire()?, a.wire()?, b.wire()?];
        for nowhere in ["10.77.0.1", "10.200.16.99"] {
            let lost = Ping { patience: Duration::from_secs(1), ..Ping::times(3) }.run(&a.host, nowhere)?;
            assert!(lost.round_trips.is_empty());
            for wire in &wires {
                let entered = wire.count(|p| !p.outgoing && p.ip.carries(&a.host_address, nowhere));
                assert!(entered <= 3, "3 packets to {nowhere} entered a node {entered} times");
            }
        }
        a.wait_direct(&b)
    });
}

#[test]
fn a_route_that_would_carry_the_tunnels_own_packets_is_refused() {
    story("recursive_route", |lab| {
        // The hub announces the very network it is reached by.
        let recursive =
            |m: Manifest| m.with(json!({"announce": {"prefixes": ["10.100.1.0/24", "198.51.100.0/24"]}}));
        let hub1 = hub(1).tuned(recursive).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(2, &[1])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        sleep(Duration::from_secs(2));
        assert_ne!(a.node.route_get("198.51.100.1")?["dev"], "dmvpn0");
        a.wait_direct(b)?;
        let text = a.agent.ctl(&["diagnose"])? + &a.agent.log();
        assert!(text.contains("198.51.100.0/24"), "the refusal is told: {text}");
        Ok(())
    });
}

#[test]
fn garbage_on_the_wire_is_counted_and_harms_nothing() {
    story("garbage", |lab| {
        let hub1 = hub(1).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(2, &[1])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        let stranger = lab.site("stranger", &["198.51.100.200"])?;
        let socket = stranger.namespace().enter(|| std::net::UdpSocket::bind("198.51.100.200:4754"))?;
        let socket = socket.map_err(Error::io("bind"))?;
        let before = hub1.agent.ask().counters()?;
        let (port, datagrams): (u16, [&[u8]; 6]) = if hub(1).manifest.proof() == Proof::None {
            let gre: [&[u8]; 6] = [
                b"",
                b"\x00",
                b"\x00\x00\x20\x01",                        // NHRP without a message
                b"\x00\x00\x20\x01\x00\x01\x08\x00garbage", // NHRP that breaks off
                b"\x00\x00\x08\x00\x45\x00\x00\x14",        // IPv4 that breaks off
                b"\x40\x01\x08\x00garbage-garbage",         // GRE of another version, with routing
            ];
            (4754, gre)
        } else {
            let esp: [&[u8]; 6] = [
                b"\x00",
                b"\x00\x00\x00\x00",                        // IKE without a message
                b"\x00\x00\x00\x00garbage-that-is-no-IKE",  // IKE that breaks off
                b"\x00\x00\x20\x01\x00\x01\x08\x00garbage", // NHRP in clear
                b"\x00\x00\x08\x00\x45\x00\x00\x14",        // IPv4 in clear that breaks off
                b"garbage-garbage-garbage-garbage-garb",    // ESP of no SA
            ];
            (4500, esp)
        };
        for _ in 0..50 {
            for datagram in datagrams {
                socket.send_to(datagram, ("198.51.100.1", port)).map_err(Error::io("send"))?;
            }
        }
        wait::until("the garbage to be counted", PATIENCE, || {
            let after = hub1.agent.ask().counters()?;
            let drops = |c: &std::collections::HashMap<String, u64>| -> u64 {
                c.iter().filter(|(name, _)| name.starts_with("drop")).map(|(_, n)| n).sum()
            };
            let counted = drops(&after) - drops(&before);
            if counted >= 150 { Ok(()) } else { Err(Error::other(format!("{counted} of 300: {after:?}"))) }
        })?;
        a.wait_direct(b)
    });
}
