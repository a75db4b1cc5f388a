//! NATs of several kinds between two spokes: direct where it can be, by the hub with a reason where not.

use crate::net::{A, B, MS, Nat, NatKind, Net, S, build_three, ip};
use dmvpn::{Event, Phase};

fn behind(kinds: [Option<NatKind>; 2], same: bool) -> Net {
    let mut net = Net::new();
    let mut nats = [None, None];
    for (i, kind) in kinds.into_iter().enumerate() {
        let Some(kind) = kind else { continue };
        if i == 1 && same {
            nats[1] = nats[0];
            continue;
        }
        net.nats.push(Nat::new(["203.0.113.101", "203.0.113.102"][i], kind));
        nats[i] = Some(net.nats.len() - 1);
    }
    build_three(&mut net, Phase::Three, |_, _| {}, nats);
    net.run(2 * S);
    let sent = net.talk(10 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    net
}

use NatKind::{PortKeeping, Symmetric};

#[test]
fn one_port_keeping_nat_is_passed() {
    let net = behind([Some(PortKeeping), None], false);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
    assert!(net.explain(B, "10.1.0.9").contains("behind NAT"));
}

#[test]
fn two_port_keeping_nats_are_passed_since_both_sides_send() {
    let net = behind([Some(PortKeeping), Some(PortKeeping)], false);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
}

#[test]
fn a_symmetric_nat_is_passed_towards_a_public_peer_by_the_path_its_probe_came_from() {
    let net = behind([Some(Symmetric), None], false);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
}

#[test]
fn two_symmetric_nats_stay_by_the_hub_and_the_reason_names_both() {
    let net = behind([Some(Symmetric), Some(Symmetric)], false);
    assert!(!net.is_direct(A, "10.2.0.9"));
    let why = net.explain(A, "10.2.0.9");
    assert!(why.contains("this node is behind a NAT") && why.contains("the peer is behind a NAT"), "{why}");
    assert!(net.events(A, |e| matches!(e, Event::ShortcutFailed { .. })) > 0);
}

#[test]
fn two_spokes_behind_one_nat_take_the_private_way() {
    let net = behind([Some(PortKeeping), Some(PortKeeping)], true);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.explain(A, "10.2.0.9").contains("192.168.77.2"), "{}", net.explain(A, "10.2.0.9"));
    assert_eq!(net.sites[B].tunnel.hubs()[0].observed.map(|p| p.remote), Some(ip("203.0.113.101")));
}
