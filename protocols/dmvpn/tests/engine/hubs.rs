//! Several hubs, their loss and return; conflicts.

use crate::net::{A, B, HUB, MS, Net, S, config, hub_entry, ip, three};
use dmvpn::{Event, Phase, RouteTarget};

const SECOND: usize = 3;

/// The scene of three with a second hub, which is worse.
fn dual() -> Net {
    let mut net = Net::new();
    crate::net::build_three(
        &mut net,
        Phase::Three,
        |at, c| {
            if at != HUB {
                c.hubs.push(hub_entry(1, "198.51.100.2", 1));
            }
        },
        [None, None],
    );
    let by = |a: &str| RouteTarget::Overlay(Some(ip(a)));
    let mut second = config("hub2", "10.200.0.2", "198.51.100.2", Phase::Three);
    second.hub = true;
    net.add(second, &[("10.1.0.0/24", by("10.200.16.1")), ("10.2.0.0/24", by("10.200.16.2"))], None);
    net.run(5 * S);
    net
}

fn carries(net: &Net, at: usize) -> String {
    net.sites[at].tunnel.hubs().into_iter().find(|h| h.carries).map(|h| h.name).unwrap_or_default()
}

#[test]
fn the_better_hub_carries_and_both_get_multicast() {
    let net = dual();
    assert_eq!(carries(&net, A), "hub0");
    assert_eq!(net.sites[A].applied.multicast.len(), 2);
    assert_eq!(net.sites[HUB].applied.multicast.len(), 2);
}

#[test]
fn a_lost_hub_is_replaced_within_a_second_and_its_return_is_taken() {
    let mut net = dual();
    // Traffic that keeps to the hubs: to the other's tunnel network only.
    net.cut.insert((ip("203.0.113.1"), ip("203.0.113.2")));
    net.talk(2 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.sites[HUB].on = false;
    let during = net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    let (lost, _) = net.lost_and_doubled(&during);
    assert!(lost.len() <= 2 * 100, "{} lost", lost.len());
    assert_eq!((carries(&net, A).as_str(), carries(&net, B).as_str()), ("hub1", "hub1"));
    assert_eq!(net.events(A, |e| matches!(e, Event::HubDown { .. })), 1);
    net.sites[HUB].on = true;
    let back = net.talk(60 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&back);
    assert_eq!((carries(&net, A).as_str(), carries(&net, B).as_str()), ("hub0", "hub0"));
    assert_eq!(net.events(A, |e| matches!(e, Event::HubUp { .. })), 3);
}

#[test]
fn a_lost_hub_leaves_shortcuts_alone() {
    let mut net = dual();
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9") && net.is_direct(B, "10.1.0.9"));
    net.sites[HUB].on = false;
    net.sites[SECOND].on = false;
    let sent = net.talk(30 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"));
}

#[test]
fn with_all_hubs_lost_an_expired_shortcut_that_answers_goes_on() {
    let mut net = Net::new();
    let short = |_: usize, c: &mut dmvpn::Config| c.nhrp.holding_time = 30 * S;
    crate::net::build_three(&mut net, Phase::Three, short, [None, None]);
    net.run(2 * S);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.sites[HUB].on = false;
    let sent = net.talk(120 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
}

#[test]
fn a_restarted_hub_is_used_again_within_seconds() {
    let mut net = three(Phase::One);
    net.talk(S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    // The whole hub starts anew, and knows nobody.
    let hub = net.sites[HUB].config.clone();
    let fresh = dmvpn::Tunnel::new(hub, [77; 32], net.now, 500_000).unwrap();
    let routes = net.sites[HUB].routes.clone();
    net.sites[HUB].tunnel = fresh;
    net.sites[HUB].applied = dmvpn::Standing::default();
    for (prefix, target) in routes {
        net.route(HUB, &prefix.to_string(), Some(target));
    }
    net.talk(5 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let sent = net.talk(2 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
}

#[test]
fn another_identity_with_our_tunnel_address_is_told_to_its_user() {
    let mut net = three(Phase::Three);
    let mut thief = config("thief", "10.200.16.1", "203.0.113.66", Phase::Three);
    thief.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    let thief = net.add(thief, &[], None);
    net.run(5 * S);
    assert!(net.events(thief, |e| matches!(e, Event::AddressConflict { .. })) >= 1);
    assert!(net.events(HUB, |e| matches!(e, Event::RegistrationDenied { .. })) >= 1);
    let row = net.row_of(HUB, "10.200.16.1").unwrap();
    assert_eq!(row.send.map(|p| p.remote), Some(ip("203.0.113.1")), "the first keeps it");
}

/// Why `site` is not registered, as its status has it, and how often its user was told.
fn reason(net: &Net, site: usize) -> (String, usize) {
    let hubs = net.sites[site].tunnel.hubs();
    let told = net.events(site, |e| matches!(e, Event::HubDown { .. }));
    (hubs[0].reason.clone().unwrap_or_default(), told)
}

#[test]
fn a_refused_registration_is_not_taken_for_silence() {
    let mut net = three(Phase::Three);
    let mut alien = config("alien", "10.99.0.1", "203.0.113.66", Phase::Three);
    alien.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    let alien = net.add(alien, &[], None);
    net.run(120 * S);
    let (why, told) = reason(&net, alien);
    assert!(why.starts_with("refused: administratively prohibited (4)"), "{why}");
    assert_eq!(told, 1);
}

#[test]
fn another_password_is_told_on_both_sides() {
    let mut net = Net::new();
    let key = |at: usize, c: &mut dmvpn::Config| {
        let key: &[u8] = if at == B { b"secret2" } else { b"secret1" };
        c.nhrp.authentication = Some(key.to_vec());
    };
    crate::net::build_three(&mut net, Phase::Three, key, [None, None]);
    net.run(120 * S);
    let (why, told) = reason(&net, B);
    assert!(why.starts_with("authentication failed at the hub"), "{why}");
    assert_eq!(told, 1);
    assert!(net.events(HUB, |e| matches!(e, Event::RegistrationDenied { .. })) >= 1);
    assert!(net.sites[A].tunnel.hubs()[0].registered);
}

#[test]
fn a_hub_that_was_never_reached_is_told_once() {
    let mut net = Net::new();
    let mut lonely = config("lonely", "10.200.16.9", "203.0.113.9", Phase::Three);
    lonely.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    let lonely = net.add(lonely, &[], None);
    net.run(300 * S);
    assert_eq!(reason(&net, lonely), ("no answer to registration requests".to_owned(), 1));
}

#[test]
fn nhrp_messages_are_counted_for_those_outside() {
    let net = three(Phase::Three);
    let sum = |counts: &std::collections::BTreeMap<_, u64>| counts.values().sum::<u64>();
    let counters = net.sites[A].tunnel.nhrp_counters();
    assert!(sum(&counters.sent) >= 1 && sum(&counters.received) >= 1, "{counters:?}");
    assert!(counters.dropped.is_empty(), "{counters:?}");
}

#[test]
fn a_hub_that_came_later_than_its_spoke_is_moved_from_gre_to_udp_without_loss() {
    let mut net = Net::new();
    let auto = |at: usize, c: &mut dmvpn::Config| {
        if at != HUB {
            c.hubs[0].paths.push(packet::Path::gre(ip("198.51.100.1")));
        }
    };
    crate::net::build_three(&mut net, Phase::One, auto, [None, None]);
    net.sites[HUB].on = false;
    net.run(1400 * MS);
    net.sites[HUB].on = true;
    net.run(5 * S);
    let port = |net: &Net| net.sites[A].tunnel.hubs()[0].path.and_then(|p| p.port());
    assert_eq!(port(&net), None);
    let sent = net.talk(220 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(port(&net).is_some());
}

#[test]
fn hubs_of_equal_priority_are_taken_as_they_are_listed_also_when_that_changes() {
    let mut net = dual();
    let equal = |net: &mut Net, reversed: bool| {
        let mut config = net.sites[A].config.clone();
        config.hubs.iter_mut().for_each(|h| h.priority = 0);
        if reversed {
            config.hubs.reverse();
        }
        let now = net.now;
        net.sites[A].tunnel.reconfigure(now, config);
        net.drain(A);
    };
    equal(&mut net, true);
    assert_eq!(carries(&net, A), "hub1");
    equal(&mut net, false);
    assert_eq!(carries(&net, A), "hub0");
}
