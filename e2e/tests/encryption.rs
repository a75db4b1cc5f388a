//! What encryption is to a network: each suite and proof, NATs, nodes of one spoke, and who speaks in clear.

use lab::attack::{Forger, gre, ipv4, udp};
use lab::network::{Plan, hub, spoke, start_and_join};
use lab::traffic::{Flow, Ping, transfer};
use lab::wait::{self, PATIENCE};
use lab::{Error, Manifest, Nat, NatRouter, Packet, Proof, Site, story};
use serde_json::json;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// With this ESP proposal and this proof.
fn protected(plan: Plan, esp: &str, proof: Proof) -> Plan {
    let esp = esp.to_owned();
    plan.proven_by(proof).tuned(move |m| m.with(json!({"security": {"esp": [esp]}})))
}

/// Phase 3 with this protection: forms, carries, nothing is in clear, and the SA table says what protects.
fn a_network_with(name: &str, esp: &str, proof: Proof) {
    story(name, |lab| {
        let hub1 = protected(hub(1), esp, proof).start(lab)?;
        let at_hub = hub1.wire()?;
        let plan = |n| protected(spoke(n, &[1]), esp, proof);
        let spokes = start_and_join(lab, &[&hub1], vec![plan(1), plan(2)])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        let wire = a.wire()?;
        a.wait_direct(b)?;
        Ping::times(10).expect(&a.host, &b.host_address)?;
        transfer(&a.host, (&b.host, &b.host_address), 5001, 4 << 20)?;
        let direct = |p: &Packet| a.between(b)(p) && a.carried(b)(p) && p.ip.esp().is_some();
        assert!(wire.count(direct) > 10, "encrypted packets on the direct path");
        for capture in [&wire, &at_hub] {
            assert_eq!(capture.count(|p| p.ip.is_clear()), 0, "overlay packets in clear");
        }
        let session = a.agent.ask().session(&b.tunnel)?;
        assert!(session.sas.iter().all(|sa| sa.suite == esp), "{session:?}");
        assert_eq!(session.verified, proof == Proof::Certificates, "{session:?}");
        assert_eq!(a.agent.ask().peer(&b.tunnel)?.protection, esp);
        let shown = a.agent.ctl(&["sa"])?;
        assert!(shown.contains(esp) && shown.contains(&b.underlay), "{shown}");
        Ok(())
    });
}

#[test]
fn aes_256_gcm_with_certificates() {
    a_network_with("aes256_cert", "aes256gcm16", Proof::Certificates);
}

#[test]
fn chacha20_poly1305_with_certificates() {
    a_network_with("chacha_cert", "chacha20poly1305", Proof::Certificates);
}

#[test]
fn aes_128_gcm_with_a_pre_shared_key() {
    a_network_with("aes128_psk", "aes128gcm16", Proof::SharedKey);
}

#[test]
fn aes_cbc_and_hmac_for_old_routers() {
    a_network_with("cbc_psk", "aes128-sha256", Proof::SharedKey);
}

#[test]
fn three_spokes_behind_one_nat_have_an_sa_each_and_never_end_each_others() {
    story("one_nat", |lab| {
        let hub1 = hub(1).proven_by(Proof::Certificates).start(lab)?;
        let nat = lab.nat("nat", &["198.51.100.99"], &NatRouter::new(Nat::PortPreserving).hairpin())?;
        let behind = |n: u8| {
            let plan = spoke(n, &[1]).proven_by(Proof::Certificates).at(&format!("192.168.7.{n}"));
            plan.start_behind(lab, &nat)
        };
        let sites = [behind(1)?, behind(2)?, behind(3)?];
        for site in &sites {
            site.wait_joined(1)?;
            hub1.wait_next_hop(&site.host_address, &site.tunnel)?;
        }
        let ask = hub1.agent.ask();
        let paths = |site: &Site| ask.session(&site.tunnel).map(|s| (s.path, s.sas));
        let all = [paths(&sites[0])?, paths(&sites[1])?, paths(&sites[2])?];
        assert!(all.iter().all(|(path, _)| path.contains("198.51.100.99")), "{all:?}");
        assert!(all[0].0 != all[1].0 && all[1].0 != all[2].0 && all[0].0 != all[2].0, "{all:?}");
        // To each other, by whatever way the NAT leaves them.
        sites[0].wait_direct(&sites[1])?;
        // One of them starts anew again and again; the others notice nothing.
        let [a, b, c] = &sites;
        let flows = [
            Flow::start((&b.host, &b.host_address), (&hub1.host, &hub1.host_address), 7001, 200, 100)?,
            Flow::start((&hub1.host, &hub1.host_address), (&c.host, &c.host_address), 7002, 200, 100)?,
        ];
        for _ in 0..3 {
            a.agent.kill_datapath()?;
            a.agent.end(lab::End::Kill)?;
            a.agent.launch()?;
            a.wait_joined(1)?;
        }
        for flow in flows {
            flow.stop().assert_nothing_lost();
        }
        for (site, (_, before)) in [(b, &all[1]), (c, &all[2])] {
            let spis =
                |sas: &[_]| sas.iter().map(|sa: &rpc::agent::Sa| sa.inbound_spi.clone()).collect::<Vec<_>>();
            assert_eq!(spis(&paths(site)?.1), spis(before), "the SAs of {}", site.agent.name());
        }
        Ok(())
    });
}

#[test]
fn who_speaks_in_clear_is_not_heard() {
    story("clear_refused", |lab| {
        let encrypted = |plan: Plan| plan.proven_by(Proof::Certificates);
        let hub1 = encrypted(hub(1)).start(lab)?;
        let spokes =
            start_and_join(lab, &[&hub1], vec![encrypted(spoke(1, &[1])), encrypted(spoke(2, &[1]))])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        // A spoke that is configured to be clear.
        let plain = spoke(3, &[1]).tuned(Manifest::clear).start(lab)?;
        // GRE in clear with addresses that are known, over IP and in UDP.
        let at_host = lab::Capture::start(&hub1.host, &["eth0"])?;
        let address = |text: &str| text.parse::<Ipv4Addr>().map_err(Error::other);
        let forger = Forger::at(lab.internet())?;
        let inner =
            ipv4(address(&a.host_address)?, address(&hub1.host_address)?, 17, &udp(9, 9, b"marker-in-clear"));
        for _ in 0..10 {
            let (from, to) = (address(&a.underlay)?, address(&hub1.underlay)?);
            forger.send(from, to, 47, &gre(&inner))?;
            forger.send(from, to, 17, &udp(4500, 4500, &gre(&inner)))?;
            forger.send(from, to, 17, &udp(4754, 4754, &gre(&inner)))?;
        }
        // By its IP protocol and at our port it is counted; nobody listens at the port of clear tunnels.
        wait::until("the refusals to be counted", PATIENCE, || {
            let clear = hub1.agent.ask().counters()?.get("drop_clear").copied().unwrap_or(0);
            if clear >= 20 { Ok(()) } else { Err(Error::other(format!("{clear}"))) }
        })?;
        sleep(SECOND);
        assert_eq!(at_host.frames().iter().filter(|f| holds(&f.data, b"marker-in-clear")).count(), 0);
        assert!(plain.agent.ask().hubs()?.iter().all(|h| !h.up));
        a.wait_direct(b)
    });
}

/// A piece of plaintext in a frame.
fn holds(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|w| w == marker)
}

#[test]
fn replayed_flipped_truncated_and_reflected_packets_are_dropped_and_counted() {
    story("tampered", |lab| {
        let hub1 = hub(1).proven_by(Proof::Certificates).start(lab)?;
        let a = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]).proven_by(Proof::Certificates)])?.remove(0);
        let wire = a.wire()?;
        Ping::times(5).expect(&a.host, &hub1.host_address)?;
        let sent: Vec<_> = wire.frames().into_iter().filter(|f| f.outgoing && f.length < 300).collect();
        let of_esp =
            |f: &&lab::capture::Frame| f.data.get(23) == Some(&17) && f.data.get(42..46) != Some(&[0; 4][..]);
        let sent: Vec<_> = sent.iter().filter(of_esp).map(|f| f.data[34..].to_vec()).collect();
        assert!(sent.len() >= 5, "{} ESP packets", sent.len());
        let address = |text: &str| text.parse::<Ipv4Addr>().map_err(Error::other);
        let (spoke_at, hub_at) = (address(&a.underlay)?, address(&hub1.underlay)?);
        let forger = Forger::at(lab.internet())?;
        let before = hub1.agent.ask().counters()?;
        for packet in sent.iter().take(5) {
            // Without its UDP checksum, so that the ESP alone decides.
            let mut packet = packet.clone();
            packet[6..8].fill(0);
            forger.send(spoke_at, hub_at, 17, &packet)?;
            let mut flipped = packet.clone();
            let last = flipped.len() - 20;
            flipped[last] ^= 1;
            // A new sequence number, so that it is not taken for a replay.
            flipped[13] ^= 0x10;
            forger.send(spoke_at, hub_at, 17, &flipped)?;
            let cut = udp(4500, 4500, &packet[8..packet.len() - 7]);
            forger.send(spoke_at, hub_at, 17, &cut)?;
            let mut stranger = packet.clone();
            stranger[8] ^= 0x55;
            forger.send(spoke_at, hub_at, 17, &stranger)?;
            // To who sent it.
            forger.send(hub_at, spoke_at, 17, &packet)?;
        }
        wait::until("each kind to be counted", PATIENCE, || {
            let now = hub1.agent.ask().counters()?;
            let more =
                |name: &str| now.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
            let seen = ["drop_replayed", "drop_forged", "drop_unknown_spi"].map(more);
            if seen.iter().all(|n| *n >= 5) { Ok(()) } else { Err(Error::other(format!("{seen:?}"))) }
        })?;
        assert!(a.agent.ask().counter("drop_unknown_spi")? >= 5, "reflected packets");
        Ping::times(5).expect(&a.host, &hub1.host_address).map(drop)
    });
}
