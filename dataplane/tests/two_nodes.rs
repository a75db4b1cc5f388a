//! Two datapaths over a veth pair, in namespaces of their own: do packets really cross? Needs root, skips without.

mod support;

use dmvpn_dataplane::messages::{FromDatapath, ReceivedKind, Request, TunnelSettings};
use packet::gre::Protocol;
use packet::probe::{Kind, Probe};
use std::time::Duration;
use support::*;

struct Pair {
    // The datapaths end before their namespaces go.
    a: Datapath,
    b: Datapath,
    left: Namespace,
    right: Namespace,
}

const LEFT: &str = "10.200.0.1";
const RIGHT: &str = "10.200.0.2";

/// Two nodes with the underlay addresses `underlay`, raw GRE or GRE in UDP, and what `change` makes of the settings.
fn pair_of(underlay: [&str; 2], raw: bool, change: impl Fn(&mut TunnelSettings)) -> Pair {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    let length = if underlay[0].contains(':') { 64 } else { 24 };
    let with_length = underlay.map(|a| format!("{a}/{length}"));
    connect(&left, &right, [&with_length[0], &with_length[1]]);
    let (mut a, mut b) = (Datapath::start(&left), Datapath::start(&right));
    let ends = [(&mut a, LEFT, RIGHT, underlay), (&mut b, RIGHT, LEFT, [underlay[1], underlay[0]])];
    for (datapath, own, other, [own_underlay, other_underlay]) in ends {
        let mut settings = settings(own, own_underlay);
        change(&mut settings);
        datapath.agent.ask(Request::Configure(settings));
        datapath.agent.ask(Request::SetPeer(id(1), peer(other, path(other_underlay, raw))));
    }
    bring_up(&left, "10.200.0.1/16 fd00:200::1/64");
    bring_up(&right, "10.200.0.2/16 fd00:200::2/64");
    Pair { a, b, left, right }
}

fn pair(raw: bool) -> Pair {
    pair_of(["192.0.2.1", "192.0.2.2"], raw, |_| {})
}

/// Small, fragmented and full packets, and a stream.
fn crosses(pair: &mut Pair, what: &str, underlay: &str) {
    pair.left.run("ping -c 3 -i 0.05 -W 2 10.200.0.2");
    pair.left.run("ping -c 1 -W 2 -s 4000 10.200.0.2");
    pair.left.run("ping -c 1 -W 2 -s 1372 -M do 10.200.0.2");
    assert!(!pair.left.try_run("ping -c 1 -W 1 -s 1373 -M do 10.200.0.2"), "the interface has its MTU");
    let plain = tcp_gbits(&pair.left, &pair.right, underlay, Duration::from_millis(500));
    let before = [pair.a.cpu_seconds(), pair.b.cpu_seconds()];
    let start = pair.b.agent.counters()["bytes_received"];
    let tunnel = tcp_gbits(&pair.left, &pair.right, RIGHT, Duration::from_secs(1));
    let gib = (pair.b.agent.counters()["bytes_received"] - start) as f64 / f64::from(1 << 30);
    let after = [pair.a.cpu_seconds(), pair.b.cpu_seconds()];
    let ping = pair.left.run("ping -c 50 -i 0.01 -q 10.200.0.2 | tail -1");
    eprintln!("{what}: veth {plain:.2} Gbit/s, tunnel {tunnel:.2} Gbit/s, {}", ping.trim());
    for (end, (before, after)) in ["sender", "receiver"].iter().zip(before.iter().zip(after)) {
        let [user, kernel] = [(after[0] - before[0]) / gib, (after[1] - before[1]) / gib];
        eprintln!("  {end}: {user:.2} + {kernel:.2} CPU s/GiB in user mode and in the kernel");
    }
    for (side, agent) in [("sender", &mut pair.a.agent), ("receiver", &mut pair.b.agent)] {
        let counters = agent.counters();
        let text: Vec<_> =
            counters.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{k}={n}")).collect();
        eprintln!("  {side}: {}", text.join(" "));
    }
    assert!(tunnel > 0.05, "{tunnel} Gbit/s");
}

#[test]
fn packets_cross_by_gre_in_udp() {
    if is_root() {
        crosses(&mut pair(false), "GRE in UDP", "192.0.2.2");
    }
}

#[test]
fn packets_cross_by_raw_gre() {
    if is_root() {
        crosses(&mut pair(true), "raw GRE", "192.0.2.2");
    }
}

#[test]
fn packets_cross_an_ipv6_underlay() {
    if is_root() {
        for raw in [false, true] {
            let underlay = ["2001:db8::1", "2001:db8::2"];
            crosses(&mut pair_of(underlay, raw, |_| {}), &format!("IPv6, raw {raw}"), "2001:db8::2");
        }
    }
}

#[test]
fn several_workers_share_the_load() {
    if is_root() {
        for raw in [false, true] {
            let mut pair = pair_of(["192.0.2.1", "192.0.2.2"], raw, |settings| settings.workers = 3);
            crosses(&mut pair, &format!("3 workers, raw {raw}"), "192.0.2.2");
        }
    }
}

#[test]
fn what_is_lost_while_a_datapath_gets_no_processor_is_counted() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    pair.left.run("ping -c 1 -W 2 10.200.0.2");
    let lost = |pair: &mut Pair| pair.a.agent.counters()["drop_interface_queue"];
    let before = lost(&mut pair);
    let process = pair.a.process();
    pair.left.run(&format!("kill -STOP {process}"));
    // A queue of the interface holds 1,000 frames.
    pair.left.try_run("ping -q -c 1500 -l 1500 -W 0.1 10.200.0.2");
    pair.left.run(&format!("kill -CONT {process}"));
    let counted = lost(&mut pair) - before;
    assert!((400..600).contains(&counted), "{counted}");
    // A successor counts on from there.
    pair.a.take_over(&pair.left);
    pair.a.reconnect();
    assert_eq!(lost(&mut pair) - before, counted);
}

#[test]
fn ipv6_and_multicast_cross() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    pair.left.run("ping -6 -c 2 -i 0.05 -W 2 fd00:200::2");
    pair.a.agent.ask(Request::SetMulticast(vec![id(1)]));
    pair.right.run("sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0");
    pair.left.run("ping -c 2 -i 0.05 -W 2 -I dmvpn0 224.0.0.1 | grep -q 10.200.0.2");
}

#[test]
fn the_agent_sends_and_hears_control_messages() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    let to_right = path("192.0.2.2", false);
    let (protocol, payload) = (Protocol::NHRP.0, b"resolution request".to_vec());
    pair.a.agent.ask(Request::Transmit { path: to_right, protocol, payload: payload.clone() });
    let nhrp = |e: &FromDatapath| matches!(e, FromDatapath::Received { kind: ReceivedKind::Nhrp, .. });
    let heard = pair.b.agent.wait_for(nhrp);
    let from = path("192.0.2.1", false);
    assert_eq!(heard, FromDatapath::Received { path: from, kind: ReceivedKind::Nhrp, payload });

    // A probe is answered by the far datapath, and the answer is punted here.
    let probe = Probe {
        kind: Kind::Request,
        source: LEFT.parse().unwrap(),
        destination: RIGHT.parse().unwrap(),
        token: 1,
        opaque: 2,
    };
    let (protocol, payload) = (Protocol::IPV4.0, probe.to_vec());
    pair.a.agent.ask(Request::Transmit { path: to_right, protocol, payload });
    let echo = pair.a.agent.wait_for(|e| matches!(e, FromDatapath::Received { .. }));
    let payload = probe.reply().to_vec();
    assert_eq!(echo, FromDatapath::Received { path: to_right, kind: ReceivedKind::Echo, payload });

    // Somebody nobody knows is asked for.
    pair.left.try_run("ping -c 1 -W 0.2 10.200.7.7");
    let wanted = FromDatapath::NextHopWanted("10.200.7.7".parse().unwrap());
    pair.a.agent.wait_for(|e| *e == wanted);
    pair.left.run("ping -c 2 -i 0.05 10.200.0.2");
    pair.a.agent.wait_for(|e| matches!(e, FromDatapath::Activity(peers) if peers[0].0 == id(1)));
}

#[test]
fn a_tunnel_goes_on_without_its_agent_and_the_next_finds_it() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    pair.a.agent.ask(Request::StoreCheckpoint(b"remember".to_vec().into()));
    let ping = std::process::Command::new("ip")
        .args(["netns", "exec", &pair.left.name, "ping", "-q", "-i", "0.005", "-c", "200", RIGHT])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        pair.a.reconnect();
        let Some(FromDatapath::Attached { checkpoint, settings, peers, .. }) = &pair.a.agent.attached else {
            panic!("not attached")
        };
        assert_eq!(checkpoint.as_deref(), Some(&b"remember"[..]));
        assert_eq!(*settings, Some(support::settings(LEFT, "192.0.2.1")));
        assert_eq!(*peers, [(id(1), peer(RIGHT, path("192.0.2.2", false)))]);
        // The same settings again touch nothing.
        pair.a.agent.ask(Request::Configure(support::settings(LEFT, "192.0.2.1")));
    }
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 0% packet loss"), "{text}");
}

#[test]
fn a_removed_tunnel_leaves_its_interface_only_if_told() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    pair.a.agent.ask(Request::Remove { delete_interface: false });
    pair.left.run("ip link show dmvpn0");
    pair.b.agent.ask(Request::Remove { delete_interface: true });
    assert!(!pair.right.try_run("ip link show dmvpn0"));
    pair.b.agent.ask(Request::Configure(settings(RIGHT, "192.0.2.2")));
    pair.right.run("ip link show dmvpn0");
    // The kept one is taken up again.
    pair.a.reconnect();
    pair.a.agent.ask(Request::Configure(settings(LEFT, "192.0.2.1")));
}

#[test]
fn an_interface_deleted_under_us_is_made_again() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    pair.left.run("ip link del dmvpn0");
    pair.a.agent.ask(Request::Configure(settings(LEFT, "192.0.2.1")));
    bring_up(&pair.left, "10.200.0.1/16");
    pair.left.run("ping -c 2 -i 0.05 -W 2 10.200.0.2");
}

#[test]
fn bad_settings_are_refused_and_what_was_goes_on() {
    if !is_root() {
        return;
    }
    let mut pair = pair(false);
    for bad in [
        TunnelSettings { workers: 0, ..settings(LEFT, "192.0.2.1") },
        TunnelSettings { bind: vec![], ..settings(LEFT, "192.0.2.1") },
        TunnelSettings { interface: "dmvpn1".to_owned(), ..settings(LEFT, "192.0.2.1") },
        settings(LEFT, "192.0.2.99"),
    ] {
        let error = pair.a.agent.refused(Request::Configure(bad.clone()));
        eprintln!("{error}");
        pair.left.run("ping -c 2 -i 0.05 -W 2 10.200.0.2");
    }
}
