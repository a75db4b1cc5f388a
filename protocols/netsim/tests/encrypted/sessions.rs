//! What only an encrypted network has: sessions that come and go with what needs them, identities, and crashes after
//! which everybody must shake hands again.

use crate::common::*;
use dmvpn::{Event, Phase};
use packet::Instant;

/// Paths with a session, as a station knows them.
fn sessions(net: &netsim::Net, id: netsim::StationId) -> usize {
    net.tunnel(id).sessions().len()
}

/// Nothing leaves without an SA, and nothing is dropped for the want of one.
#[test]
fn every_packet_of_a_forming_shortcut_is_encrypted() {
    for phase in BOTH {
        let mut triangle = Triangle::new(1, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        // Both may have begun at the same time: what is left of the other session drains.
        net.run_for(secs(10));
        assert_eq!([sessions(&net, a), sessions(&net, b), sessions(&net, hub)], [2, 2, 2]);
        for id in [hub, a, b] {
            assert_eq!(net.sas(id), (2, 2), "{phase:?}: {id:?}");
            assert!(!net.drops(id).contains_key("no_sa"), "{:?}", net.drops(id));
            assert!(!net.drops(id).contains_key("clear"));
        }
    }
}

/// The direct path is given up after a minute without traffic; its session goes when the path has drained.
#[test]
fn a_session_that_nobody_needs_ends() {
    let mut triangle = Triangle::unregistered(network(2, Phase::Three));
    for id in [triangle.hub, triangle.a, triangle.b] {
        triangle.net.configure(id, |c| {
            c.idle_timeout = secs(20);
            c.nhrp.holding_time = secs(60);
        });
    }
    triangle.register();
    triangle.form_shortcut();
    let Triangle { mut net, hub, a, b } = triangle;
    net.run_for(secs(150));
    assert_eq!([sessions(&net, a), sessions(&net, b), sessions(&net, hub)], [1, 1, 2]);
    assert_eq!(net.sas(a), (1, 1));
    let again = net.flow(a, b, 50);
    net.run_for(secs(5));
    whole(&net.finish(again));
    assert_eq!(net.last_way(again), Some(&[][..]));
}

#[test]
fn a_station_that_shuts_down_leaves_no_session_behind() {
    let mut triangle = Triangle::new(3, Phase::Three);
    triangle.form_shortcut();
    let Triangle { mut net, hub, a, b } = triangle;
    net.shut_down(b);
    assert!(net.run_until(secs(3), |net| net.tunnel(b).is_shut_down()));
    net.power_off(b);
    net.run_for(secs(1));
    assert_eq!([sessions(&net, a), sessions(&net, hub)], [1, 1]);
}

#[test]
fn a_hub_with_another_name_than_configured_is_refused_in_words() {
    let mut net = network(4, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    net.configure(a, |c| c.hubs[0].identity = Some("*.hq.example.com".to_owned()));
    net.run_for(secs(10));
    assert!(!is_registered(&net, a));
    let says = |e: &Event| matches!(e, Event::HubDown { reason, .. } if reason.contains("hub.example.com"));
    assert!(net.told(a, Instant::ZERO, says), "{:#?}", net.events(a));
}

#[test]
fn a_hub_whose_pattern_matches_is_accepted() {
    let mut net = network(4, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    net.configure(a, |c| c.hubs[0].identity = Some("*.example.com".to_owned()));
    net.run_for(secs(5));
    assert!(is_registered(&net, a), "{:#?}", net.events(a));
}

/// The hub's datapath dies and starts again with no SA. Both spokes shake hands anew, without waiting for anything to
/// expire.
#[test]
fn a_crashed_datapath_of_a_hub_is_back_within_a_second() {
    for phase in BOTH {
        let mut triangle = Triangle::new(5, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let direct = net.flow(a, b, 100);
        let to_hub = net.flow(a, hub, 100);
        net.run_for(secs(1));
        net.crash_datapath(hub);
        net.run_for(secs(1));
        let after = net.flow(b, hub, 100);
        net.run_for(secs(10));
        whole(&net.finish(after));
        whole(&net.finish(direct));
        let report = net.finish(to_hub);
        assert!(report.lost.len() < 100, "{phase:?}: {} lost", report.lost.len());
        sane(&mut net, &[hub, a, b]);
    }
}

#[test]
fn a_crashed_datapath_of_a_spoke_is_back_within_a_second() {
    for phase in BOTH {
        let mut triangle = Triangle::new(6, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let there = net.flow(a, b, 100);
        let back = net.flow(b, a, 100);
        net.run_for(secs(1));
        net.crash_datapath(a);
        net.run_for(secs(40));
        for flow in [there, back] {
            let report = net.finish(flow);
            assert!(report.lost.len() < 100, "{phase:?}: {} lost", report.lost.len());
            assert_eq!(report.last_way(), Some(&[][..]), "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}

/// Somebody else, who knows the key too, has the address by which a spoke is looked for.
#[test]
fn another_identity_at_a_peers_address_is_no_direct_path() {
    let Triangle { mut net, hub, a, b } = Triangle::new(7, Phase::Three);
    let place = net.underlay_address(b).unwrap();
    let thief = net.spoke("thief", &[hub]);
    net.run_for(secs(3));
    net.power_off(b);
    net.move_to(b, "203.0.99.99".parse().unwrap());
    net.move_to(thief, place);
    let flow = net.flow(a, b, 20);
    net.run_for(secs(40));
    let _ = net.finish(flow);
    let told = |e: &Event| match e {
        Event::ShortcutFailed { reason, .. } => reason.contains("thief"),
        Event::ShortcutUp { .. } => panic!("a shortcut to the thief"),
        _ => false,
    };
    let failed = net.events(a).iter().filter(|(_, e)| told(e)).count();
    let unregistered = net.told(hub, Instant::ZERO, |e| matches!(e, Event::PeerUnregistered { .. }));
    assert!(failed > 0 || unregistered, "{:#?} {:#?}", net.events(a), net.events(hub));
}

/// The thief is there first: it has a session with a spoke from an address by which that spoke is then told to look for
/// another.
#[test]
fn a_path_on_which_somebody_else_has_proven_himself_already_is_not_taken() {
    let Triangle { mut net, hub, a, b } = Triangle::new(12, Phase::Three);
    let place = net.underlay_address(b).unwrap();
    let at_a = packet::Path::udp(net.underlay_address(a).unwrap(), 4500);
    let (tunnel_address, lan) = (net.tunnel_address(a), net.lan(a));
    let thief = net.spoke("thief", &[hub]);
    net.run_for(secs(3));
    net.power_off(b);
    net.move_to(b, "203.0.99.99".parse().unwrap());
    net.move_to(thief, place);
    net.configure(thief, |c| {
        c.static_peers.push(dmvpn::StaticPeer { tunnel_address, path: at_a, prefixes: vec![lan] });
    });
    net.run_for(secs(2));
    assert!(net.tunnel(a).sessions().iter().any(|s| s.path.remote == place), "the thief is there");
    let flow = net.flow(a, b, 20);
    net.run_for(secs(20));
    let _ = net.finish(flow);
    assert!(!net.told(a, Instant::ZERO, is_shortcut_up), "{:#?}", net.events(a));
}

fn with_lifetimes(seed: u64, phase: Phase, change: impl Fn(&mut ikev2::config::Lifetimes)) -> Triangle {
    let mut triangle = Triangle::unregistered(network(seed, phase));
    for id in [triangle.hub, triangle.a, triangle.b] {
        triangle.net.configure(id, |c| {
            if let Some(security) = &mut c.security {
                change(&mut security.ike.lifetimes);
            }
        });
    }
    triangle.register();
    triangle.form_shortcut();
    triangle
}

/// Child SAs live five seconds and IKE SAs twenty: some sixty rekeyings of each child and fifteen of each IKE SA, many of
/// them begun by both ends.
#[test]
fn rekeying_loses_nothing() {
    for phase in BOTH {
        let Triangle { mut net, hub, a, b } =
            with_lifetimes(8, phase, |l| (l.child, l.ike) = (secs(5), secs(20)));
        let flows = [net.flow(a, b, 200), net.flow(b, a, 200), net.flow(a, hub, 200), net.flow(hub, b, 200)];
        net.run_for(secs(300));
        for flow in flows {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [Vec::new()], "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}

/// SAs are replaced after so many octets, long before their time.
#[test]
fn an_sa_that_has_sent_enough_is_replaced_without_loss() {
    let Triangle { mut net, a, b, .. } = with_lifetimes(9, Phase::Three, |l| l.octets = 50_000);
    let spis = |net: &netsim::Net| -> Vec<u32> {
        net.tunnel(a).sessions().iter().flat_map(|s| &s.children).map(|c| c.outbound).collect()
    };
    let first = spis(&net);
    let flow = net.flow(a, b, 200);
    net.run_for(secs(60));
    whole(&net.finish(flow));
    assert!(spis(&net).iter().any(|spi| !first.contains(spi)), "{first:?}");
}

/// Nothing passes between the spokes: people are told what failed, and by which address.
#[test]
fn a_direct_path_without_ike_is_explained() {
    let Triangle { mut net, a, b, .. } = Triangle::new(10, Phase::Three);
    net.cut(a, b);
    let flow = net.flow(a, b, 50);
    net.run_for(secs(30));
    whole(&net.finish(flow));
    let text = net.tunnel(a).explain_path(net.now(), net.host(b)).to_string();
    assert!(text.contains("IKE with 203.0.0.2:4500: no answer"), "{text}");
}

#[test]
fn a_wrong_key_is_explained_to_the_spokes_user() {
    let mut net = network(11, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    let key = identity::SharedKey::new("a.example.com", b"another key".to_vec()).unwrap();
    net.configure(a, |c| {
        if let Some(security) = &mut c.security {
            security.credentials = dmvpn::Credentials(std::sync::Arc::new(key));
        }
    });
    net.run_for(secs(20));
    let down = |e: &Event| matches!(e, Event::HubDown { reason, .. } if reason.starts_with("IKE with"));
    assert!(net.told(a, Instant::ZERO, down), "{:#?}", net.events(a));
    let handshakes = net.events(a).iter().filter(|(_, e)| matches!(e, Event::SessionFailed { .. })).count();
    assert!((1..=8).contains(&handshakes), "{handshakes}: refusals are answered by patience");
}
