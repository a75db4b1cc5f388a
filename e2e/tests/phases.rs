//! The three phases, with three spokes and their LANs; two hubs; hubs behind hubs.

use lab::decode::nhrp::{Nhrp, kind};
use lab::network::{hub, spoke, start_and_join};
use lab::traffic::{Ping, transfer};
use lab::wait::PATIENCE;
use lab::{Manifest, Packet, Site, story};
use serde_json::json;
use std::time::Duration;

/// An NHRP message of this type.
fn nhrp(kind: u8) -> impl Fn(&Packet) -> bool {
    move |p| p.ip.nhrp().is_some_and(|m| m.kind == kind)
}

/// Every two of them, once.
fn pairs(sites: &[Site]) -> impl Iterator<Item = (&Site, &Site)> {
    sites.iter().enumerate().flat_map(|(i, a)| sites[i + 1..].iter().map(move |b| (a, b)))
}

#[test]
fn phase_1_carries_everything_by_the_hub() {
    story("phase_1", |lab| {
        let hub1 = hub(1).phase(1).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=3).map(|n| spoke(n, &[1]).phase(1)).collect())?;
        let wires = spokes.iter().map(Site::wire).collect::<lab::Result<Vec<_>>>()?;
        let at_hub = hub1.wire()?;
        for (a, b) in pairs(&spokes) {
            Ping { interval: Duration::from_millis(20), ..Ping::times(50) }
                .expect(&a.host, &b.host_address)?;
            // Each request and each answer comes to the hub once and leaves it once.
            assert_eq!(at_hub.count(a.carried(b)), 200);
            assert_eq!(a.agent.ask().path("", &b.host_address)?.kind, "hub");
            for wire in &wires {
                assert_eq!(wire.count(a.between(b)), 0, "packets between spokes");
            }
        }
        for wire in wires.iter().chain([&at_hub]) {
            for message in [kind::TRAFFIC_INDICATION, kind::RESOLUTION_REQUEST, kind::RESOLUTION_REPLY] {
                assert_eq!(wire.count(nhrp(message)), 0, "NHRP messages of type {message}");
            }
        }
        Ok(())
    });
}

#[test]
fn phase_2_resolves_the_next_hop_on_first_use() {
    story("phase_2", |lab| {
        let hub1 = hub(1).phase(2).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=3).map(|n| spoke(n, &[1]).phase(2)).collect())?;
        let at_hub = hub1.wire()?;
        for (a, b) in pairs(&spokes) {
            let wire = a.wire()?;
            // Routing has preserved the next hop: it is the other spoke before a packet was sent.
            assert_eq!(a.node.route_get(&b.host_address)?["gateway"], b.tunnel);
            a.wait_direct(b)?;
            // Of either end: the answer to the first packet may make the far one ask first, and its request says enough.
            let request = wire.wait_for("a resolution of the next hop", PATIENCE, |p| {
                let asked = if p.outgoing { &b.tunnel } else { &a.tunnel };
                p.ip.nhrp().is_some_and(|m| m.kind == kind::RESOLUTION_REQUEST && m.about(asked))
            })?;
            let id = request.ip.nhrp().map(|m| m.request_id);
            wire.wait_for("its answer", PATIENCE, |p| {
                let answer = |m: &Nhrp| m.kind == kind::RESOLUTION_REPLY && m.code() == Some(0);
                let back = p.outgoing != request.outgoing;
                back && p.ip.nhrp().is_some_and(|m| answer(m) && Some(m.request_id) == id)
            })?;
            assert!(wire.count(|p| a.between(b)(p) && a.carried(b)(p)) > 0, "packets on the direct path");
            at_hub.clear();
            Ping::times(5).expect(&a.host, &b.host_address)?;
            assert_eq!(at_hub.count(a.carried(b)), 0, "packets of a direct pair at the hub");
        }
        assert_eq!(at_hub.count(nhrp(kind::TRAFFIC_INDICATION)), 0, "phase 2 has no redirects");
        Ok(())
    });
}

#[test]
fn phase_3_redirects_and_installs_a_shortcut_with_the_answered_prefix() {
    story("phase_3", |lab| {
        let hub1 = hub(1).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=3).map(|n| spoke(n, &[1])).collect())?;
        let at_hub = hub1.wire()?;
        for (a, b) in pairs(&spokes) {
            let wire = a.wire()?;
            // The spoke knows the hub's summary only.
            assert_eq!(a.node.route_get(&b.host_address)?["gateway"], hub1.tunnel);
            a.wait_direct(b)?;
            wire.wait_for("a redirect", PATIENCE, |p| !p.outgoing && nhrp(kind::TRAFFIC_INDICATION)(p))?;
            wire.wait_for("a resolution of the host", PATIENCE, |p| {
                p.outgoing
                    && p.ip
                        .nhrp()
                        .is_some_and(|m| m.kind == kind::RESOLUTION_REQUEST && m.about(&b.host_address))
            })?;
            let reply = wire.wait_for("an answer", PATIENCE, |p| {
                !p.outgoing
                    && p.ip.nhrp().is_some_and(|m| m.kind == kind::RESOLUTION_REPLY && m.code() == Some(0))
            })?;
            let prefixes: Vec<u8> =
                reply.ip.nhrp().into_iter().flat_map(|m| &m.entries).map(|e| e.prefix).collect();
            assert_eq!(prefixes, [24], "the prefix of {}", b.lan);
            let route = a.node.namespace().ip_json(&format!("route show {}", b.lan))?;
            assert_eq!(route[0]["gateway"], b.tunnel, "{route}");
            assert_eq!(route[0]["dev"], "dmvpn0", "{route}");
            at_hub.clear();
            Ping::times(5).expect(&a.host, &b.host_address)?;
            assert_eq!(at_hub.count(a.carried(b)), 0, "packets of a direct pair at the hub");
        }
        transfer(&spokes[0].host, (&spokes[1].host, &spokes[1].host_address), 5001, 8 << 20)?;
        Ok(())
    });
}

#[test]
fn phase_3_works_with_static_routes_alone() {
    story("phase_3_static", |lab| {
        let hub1 = hub(1).without_bgp().start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=2).map(|n| spoke(n, &[1]).without_bgp()).collect())?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        a.wait_direct(b)?;
        let at_hub = hub1.wire()?;
        Ping::times(5).expect(&a.host, &b.host_address)?;
        assert_eq!(at_hub.count(a.carried(b)), 0, "packets of a direct pair at the hub");
        Ping::times(5).expect(&a.host, &hub1.host_address).map(drop)
    });
}

#[test]
fn with_two_hubs_a_spoke_registers_with_both_and_uses_the_preferred() {
    story("dual_hub", |lab| {
        let (hub1, hub2) = (hub(1).start(lab)?, hub(2).start(lab)?);
        let (at_1, at_2) = (hub1.wire()?, hub2.wire()?);
        let spokes = start_and_join(lab, &[&hub1, &hub2], vec![spoke(1, &[1, 2]), spoke(2, &[1, 2])])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        for wire in [&at_1, &at_2] {
            for spoke in &spokes {
                wire.wait_for("a registration", PATIENCE, |p| {
                    p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY && m.from(&spoke.tunnel))
                })?;
            }
        }
        let by: Vec<_> =
            a.agent.ask().hubs()?.into_iter().filter(|h| h.by_hub).map(|h| h.tunnel_address).collect();
        assert_eq!(by, [hub1.tunnel.as_str()], "the preferred hub carries");
        Ping::times(1).expect(&a.host, &b.host_address)?;
        assert!(at_1.count(a.carried(b)) > 0, "the first packets go by the preferred hub");
        assert_eq!(at_2.count(a.carried(b)), 0);
        a.wait_direct(b)
    });
}

#[test]
fn spokes_of_two_chained_hubs_find_each_other() {
    story("chained_hubs", |lab| {
        let hub1 = hub(1).start(lab)?;
        // The second hub registers with the first in turn; each spoke knows one hub only.
        let chained = |m: Manifest| m.with(json!({"hubs": [{"address": "198.51.100.1"}]}));
        let hub2 = hub(2).tuned(chained).start(lab)?;
        hub2.wait_joined(1)?;
        let (a, b) = (spoke(1, &[1]).start(lab)?, spoke(2, &[2]).start(lab)?);
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        // The spokes have the hubs' summaries only; the hubs must have heard of the spokes.
        hub1.wait_next_hop(&a.host_address, &a.tunnel)?;
        hub1.wait_next_hop(&b.host_address, &hub2.tunnel)?;
        hub2.wait_next_hop(&b.host_address, &b.tunnel)?;
        hub2.wait_next_hop(&a.host_address, &hub1.tunnel)?;
        let (at_1, at_2) = (hub1.wire()?, hub2.wire()?);
        a.wait_direct(&b)?;
        let request =
            |p: &Packet| nhrp(kind::RESOLUTION_REQUEST)(p) && p.ip.nhrp().is_some_and(|m| m.from(&a.tunnel));
        at_1.wait_for("the request at the first hub", PATIENCE, |p| !p.outgoing && request(p))?;
        let forwarded =
            at_2.wait_for("the request at the second hub", PATIENCE, |p| !p.outgoing && request(p))?;
        // RFC 2332 §5.3.2: each NHS it passed is in the Forward Transit NHS extension.
        assert!(forwarded.ip.nhrp().is_some_and(|m| m.extensions.contains(&4)));
        Ok(())
    });
}
