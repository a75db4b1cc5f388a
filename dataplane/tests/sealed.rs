//! Two datapaths over a veth pair, encrypted by fixed keys: do packets cross, does nothing leave in clear, is nothing
//! believed that was not sealed? Needs root, skips without.

mod support;

use dmvpn_dataplane::messages::{FromDatapath, ReceivedKind, Request, SaLimits, TunnelSettings};
use esp::Suite;
use linux_io::raw::{Carries, RawSocket};
use linux_io::{Outgoing, Sender};
use packet::Path;
use packet::gre::Protocol;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use support::*;

const LEFT: &str = "10.200.0.1";
const RIGHT: &str = "10.200.0.2";
const UNDERLAY: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const PORT: u16 = 4754;

struct Pair {
    // The datapaths end before their namespaces go.
    a: Datapath,
    b: Datapath,
    left: Namespace,
    right: Namespace,
    paths: [Path; 2],
    workers: u16,
}

/// Two nodes, and the peer each is to the other; no SAs yet.
fn unkeyed(underlay: [&str; 2], bare: bool, workers: u16) -> Pair {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    let length = if underlay[0].contains(':') { 64 } else { 24 };
    let with_length = underlay.map(|a| format!("{a}/{length}"));
    connect(&left, &right, [&with_length[0], &with_length[1]]);
    let (mut a, mut b) = (Datapath::start(&left), Datapath::start(&right));
    let paths = underlay.map(|address| path(address, bare));
    a.agent.ask(Request::Configure(encrypted(LEFT, underlay[0], workers)));
    b.agent.ask(Request::Configure(encrypted(RIGHT, underlay[1], workers)));
    a.agent.ask(Request::SetPeer(id(1), peer(RIGHT, paths[1])));
    b.agent.ask(Request::SetPeer(id(1), peer(LEFT, paths[0])));
    bring_up(&left, "10.200.0.1/16 fd00:200::1/64");
    bring_up(&right, "10.200.0.2/16 fd00:200::2/64");
    Pair { a, b, left, right, paths, workers }
}

impl Pair {
    /// SAs of these lanes in both directions, the receivers first.
    fn key(&mut self, base: u32, suite: Suite, lanes: u16) {
        let [left, right] = self.paths;
        key(&mut self.a.agent, &mut self.b.agent, [left, right], base, suite, lanes);
        key(&mut self.b.agent, &mut self.a.agent, [right, left], base + 1, suite, lanes);
    }

    /// Small, fragmented and full packets, and a stream; no packet is taken for a forgery or a replay.
    fn crosses(&mut self, what: &str) {
        self.left.run("ping -c 3 -i 0.05 -W 2 10.200.0.2");
        self.left.run("ping -c 1 -W 2 -s 4000 10.200.0.2");
        self.left.run("ping -c 1 -W 2 -s 1372 -M do 10.200.0.2");
        let gbits = tcp_gbits(&self.left, &self.right, RIGHT, Duration::from_millis(500));
        let back = tcp_gbits(&self.right, &self.left, LEFT, Duration::from_millis(500));
        eprintln!("{what}: {gbits:.2} and {back:.2} Gbit/s");
        assert!(gbits > 0.05 && back > 0.05);
        for agent in [&mut self.a.agent, &mut self.b.agent] {
            let counters = agent.counters();
            let wrong = ["drop_replayed", "drop_forged", "drop_bad_esp", "drop_unknown_spi", "drop_clear"];
            assert!(wrong.iter().all(|name| counters[*name] == 0), "{what}: {counters:?}");
            if self.workers > 1 {
                eprintln!("  {} handed off of {}", counters["handed_off"], counters["packets_sent"]);
            }
        }
    }
}

#[test]
fn packets_cross_sealed_by_each_suite() {
    if is_root() {
        let mut pair = unkeyed(UNDERLAY, false, 1);
        for (n, suite) in (0u32..).zip(Suite::ALL) {
            // A new SA takes over from the one before it.
            pair.key(0x10 + 2 * n, suite, 1);
            pair.crosses(suite.name());
        }
    }
}

#[test]
fn packets_cross_as_bare_esp() {
    if is_root() {
        for workers in [1, 2] {
            let mut pair = unkeyed(UNDERLAY, true, workers);
            pair.key(0x10, Suite::Aes128Gcm16, workers);
            pair.crosses(&format!("bare, {workers} workers"));
        }
    }
}

#[test]
fn packets_cross_sealed_over_an_ipv6_underlay() {
    if is_root() {
        for bare in [false, true] {
            let mut pair = unkeyed(["2001:db8::1", "2001:db8::2"], bare, 2);
            pair.key(0x10, Suite::ChaCha20Poly1305, 2);
            pair.crosses(&format!("IPv6, bare {bare}"));
        }
    }
}

#[test]
fn workers_with_and_without_an_sa_of_their_own_share_the_load() {
    if is_root() {
        for (workers, lanes) in [(2, 2), (2, 1), (3, 1), (3, 3)] {
            let mut pair = unkeyed(UNDERLAY, false, workers);
            pair.key(0x10, Suite::Aes128Gcm16, lanes);
            pair.crosses(&format!("{workers} workers, {lanes} lanes"));
            let sas = pair.a.agent.sas();
            let owners: Vec<u16> = sas.iter().map(|sa| sa.owner).collect();
            let all: Vec<u16> = (0..lanes).chain(0..lanes).collect();
            assert_eq!(owners, all);
            assert!(sas.iter().all(|sa| sa.replayed == 0 && sa.forged == 0));
        }
    }
}

#[test]
fn what_is_sealed_where_it_does_not_arrive_crosses_as_fast() {
    if !is_root() {
        return;
    }
    // Each side opens at one worker and seals at the other, so that every packet is handed over: the kernel gives us the
    // packets of a flow at the queue where we gave it the flow's.
    let mut pair = unkeyed(UNDERLAY, false, 2);
    let [left, right] = pair.paths;
    let one_way = |from: &mut Agent, to: &mut Agent, paths: [Path; 2], spi, lane| {
        let keys = keys(spi, Suite::Aes128Gcm16);
        to.ask(Request::AddInboundSa { path: paths[0], keys: keys.clone() });
        from.ask(Request::SetOutboundSa { path: paths[1], lane, keys, soft: NO_LIMIT });
    };
    one_way(&mut pair.a.agent, &mut pair.b.agent, [left, right], spi(0x10, 0), 0);
    one_way(&mut pair.b.agent, &mut pair.a.agent, [right, left], spi(0x11, 1), 1);
    pair.crosses("all handed off");
    let counters = pair.a.agent.counters();
    assert!(counters["handed_off"] > counters["packets_sent"] / 2, "{counters:?}");
}

#[test]
fn sas_survive_new_workers_and_another_number_of_them() {
    if !is_root() {
        return;
    }
    let mut pair = unkeyed(UNDERLAY, false, 2);
    pair.key(0x10, Suite::Aes128Gcm16, 2);
    pair.left.run("ping -c 2 -i 0.05 -W 2 10.200.0.2");
    for workers in [1, 3, 2] {
        pair.a.agent.ask(Request::Configure(encrypted(LEFT, UNDERLAY[0], workers)));
        pair.left.run("ping -c 5 -i 0.02 -W 2 10.200.0.2");
        tcp_gbits(&pair.left, &pair.right, RIGHT, Duration::from_millis(200));
        tcp_gbits(&pair.right, &pair.left, LEFT, Duration::from_millis(200));
    }
    let counters = pair.b.agent.counters();
    assert_eq!((counters["drop_replayed"], counters["drop_forged"]), (0, 0));
}

#[test]
fn encryption_is_not_switched_off() {
    if is_root() {
        let mut pair = unkeyed(UNDERLAY, false, 1);
        let clear = TunnelSettings { encrypted: false, ike_port: None, ..encrypted(LEFT, UNDERLAY[0], 1) };
        let error = pair.a.agent.refused(Request::Configure(clear.clone()));
        assert!(error.contains("remove it first"), "{error}");
        let no_sa = Request::Transmit { path: pair.paths[1], protocol: Protocol::NHRP.0, payload: vec![1] };
        assert!(pair.a.agent.refused(no_sa).contains("no SA"));
        pair.a.agent.ask(Request::Remove { delete_interface: true });
        pair.a.agent.ask(Request::Configure(clear));
        let keys = keys(0x1000, Suite::Aes128Gcm16);
        let refused = pair.a.agent.refused(Request::AddInboundSa { path: pair.paths[1], keys });
        assert!(refused.contains("not encrypted"), "{refused}");
    }
}

#[test]
fn ike_crosses_at_both_ports_and_control_messages_cross_sealed() {
    if !is_root() {
        return;
    }
    let mut pair = unkeyed(UNDERLAY, false, 2);
    let message = vec![0x42; 600];
    for (nat_traversal, port) in [(true, PORT), (false, 500)] {
        let remote = SocketAddr::new(UNDERLAY[1].parse().unwrap(), port);
        let message = Some(message.clone());
        pair.a.agent.ask(Request::TransmitIke { remote, nat_traversal, message });
        let seen = pair.b.agent.wait_for(|e| matches!(e, FromDatapath::Ike { .. }));
        let remote = SocketAddr::new(UNDERLAY[0].parse().unwrap(), port);
        assert_eq!(seen, FromDatapath::Ike { remote, nat_traversal, message: vec![0x42; 600] });
    }
    // One that is longer than the link is worth fragments of IP.
    let remote = SocketAddr::new(UNDERLAY[1].parse().unwrap(), PORT);
    let long = Some(vec![0x43; 4000]);
    pair.a.agent.ask(Request::TransmitIke { remote, nat_traversal: true, message: long });
    pair.b.agent.wait_for(|e| matches!(e, FromDatapath::Ike { message, .. } if message.len() == 4000));
    pair.a.agent.ask(Request::TransmitIke { remote, nat_traversal: true, message: None });
    pair.key(0x10, Suite::Aes256Gcm16, 1);
    let (protocol, payload) = (Protocol::NHRP.0, b"resolution request".to_vec());
    pair.a.agent.ask(Request::Transmit { path: pair.paths[1], protocol, payload: payload.clone() });
    let heard = pair.b.agent.wait_for(|e| matches!(e, FromDatapath::Received { .. }));
    assert_eq!(heard, FromDatapath::Received { path: pair.paths[0], kind: ReceivedKind::Nhrp, payload });
    assert_eq!(pair.b.agent.counters()["keepalives"], 1);
}

/// All frames of a namespace's interfaces.
struct Capture(OwnedFd);

impl Capture {
    fn start(namespace: &Namespace) -> Self {
        let open = || {
            use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with, sockopt};
            let all = Protocol::from_raw(u32::from(3u16.to_be()).try_into().unwrap());
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).unwrap();
            sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).unwrap();
            Self(socket)
        };
        namespace.spawn(open).join().unwrap()
    }

    /// IPv4 packets of the underlay since the last look.
    fn underlay(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut frame = vec![0; 70_000];
        while let Ok(length) = rustix::io::read(&self.0, &mut frame) {
            let frame = &frame[..length];
            if frame.get(12..14) == Some(&[8, 0]) && frame.get(26..29) == Some(&[192, 0, 2]) {
                packets.push(frame[14..].to_vec());
            }
        }
        packets
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn no_clear_packet_is_ever_on_the_wire() {
    if !is_root() {
        return;
    }
    for (bare, workers) in [(false, 1), (false, 2), (true, 2)] {
        let mut pair = unkeyed(UNDERLAY, bare, workers);
        let capture = Capture::start(&pair.left);
        // Before there are SAs, with them, after one direction lost them, and after all are gone.
        let send = |pair: &Pair| pair.left.try_run("ping -c 3 -i 0.05 -W 0.3 -p c0ffee01 10.200.0.2");
        assert!(!send(&pair));
        pair.key(0x10, Suite::Aes128Gcm16, 1);
        assert!(send(&pair));
        tcp_gbits(&pair.left, &pair.right, RIGHT, Duration::from_millis(200));
        pair.a.agent.ask(Request::RemoveOutboundSa { path: pair.paths[1], spi: spi(0x10, 0) });
        assert!(!send(&pair));
        pair.b.agent.ask(Request::RemoveOutboundSa { path: pair.paths[0], spi: spi(0x11, 0) });
        pair.right.try_run("ping -c 2 -i 0.05 -W 0.2 -p c0ffee01 10.200.0.1");
        assert!(pair.a.agent.counters()["drop_no_sa"] > 0);
        drop((pair.a, pair.b));
        pair.left.try_run("ping -c 1 -W 0.2 -p c0ffee01 10.200.0.2");
        let packets = capture.underlay();
        let sealed = packets.iter().filter(|p| contains(p, &spi(0x10, 0).to_be_bytes())).count();
        assert!(sealed > 3, "{sealed} of {}", packets.len());
        for packet in &packets {
            assert!(!contains(packet, &[0xc0, 0xff, 0xee, 0x01]), "in clear: {packet:02x?}");
            // GRE with our key, or the inner addresses, would tell as well.
            assert!(!contains(packet, &[0x20, 0, 8, 0, 0, 0, 0, 42]), "GRE in clear: {packet:02x?}");
            assert!(!contains(packet, &[10, 200, 0, 1, 10, 200, 0, 2]), "{packet:02x?}");
        }
    }
}

/// Waits until a counter has at least this value.
fn counted(agent: &mut Agent, name: &str, least: u64) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while agent.counters()[name] < least {
        assert!(Instant::now() < deadline, "{name} is {}, not {least}", agent.counters()[name]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_not_sealed_for_us_now_is_dropped_and_counted() {
    if !is_root() {
        return;
    }
    let mut pair = unkeyed(UNDERLAY, false, 2);
    pair.key(0x10, Suite::Aes128Gcm16, 2);
    let capture = Capture::start(&pair.left);
    pair.left.run("ping -c 3 -i 0.05 -W 2 10.200.0.2");
    let sealed: Vec<Vec<u8>> = capture
        .underlay()
        .into_iter()
        .filter(|packet| packet[9] == 17 && packet[12..16] == [192, 0, 2, 1])
        .map(|packet| packet[28..].to_vec())
        .filter(|datagram| datagram[..3] == spi(0x10, 0).to_be_bytes()[..3])
        .collect();
    let one = sealed[0].clone();
    let received = pair.b.agent.counters()["packets_received"];
    let inject = |from: &Namespace, to: &str, datagrams: Vec<Vec<u8>>| {
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        let send = move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for datagram in datagrams {
                socket.send_to(&datagram, to).unwrap();
            }
        };
        from.spawn(send).join().unwrap();
    };
    let mut flipped = one.clone();
    flipped[20] ^= 0x10;
    // The sequence number is authenticated too: a replay can't be made a newer packet.
    let mut renumbered = one.clone();
    renumbered[4..8].copy_from_slice(&0xffff_u32.to_be_bytes());
    let mut other_spi = one.clone();
    other_spi[0] ^= 0x40;
    let clear = [&[0x20, 0, 8, 0, 0, 0, 0, 42, 0x45][..], &[0; 60]].concat();
    let truncated = one[..one.len() - 4].to_vec();
    let attack = vec![one.clone(), flipped, renumbered, truncated, one[..30].to_vec(), other_spi, clear];
    inject(&pair.left, UNDERLAY[1], attack);
    for (name, least) in [
        // The flipped one has a number that was seen: that is looked at first.
        ("drop_replayed", 2),
        ("drop_forged", 1),
        ("drop_unknown_spi", 1),
        ("drop_clear", 1),
        ("drop_bad_esp", 1),
    ] {
        counted(&mut pair.b.agent, name, least);
    }
    let unknown = pair.b.agent.wait_for(|e| matches!(e, FromDatapath::UnknownSpi { .. }));
    assert!(matches!(unknown, FromDatapath::UnknownSpi { spi, .. } if spi >> 24 == 0x40));
    // Reflected: what we sent is not ours to receive.
    inject(&pair.right, UNDERLAY[0], vec![one]);
    counted(&mut pair.a.agent, "drop_unknown_spi", 1);
    assert_eq!(pair.b.agent.counters()["packets_received"], received);
    pair.left.run("ping -c 2 -i 0.05 -W 2 10.200.0.2");
}

#[test]
fn gre_in_clear_by_its_ip_protocol_is_counted_if_it_has_our_key() {
    if !is_root() {
        return;
    }
    for underlay in [UNDERLAY, ["2001:db8::1", "2001:db8::2"]] {
        let mut pair = unkeyed(underlay, false, 2);
        let [from, to] = underlay.map(|address| address.parse().unwrap());
        let with_key = |key: u8| [&[0x20, 0, 8, 0, 0, 0, 0, key, 0x45][..], &[0; 60]].concat();
        let with_checksum = [&[0xa0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 42, 0x45][..], &[0; 60]].concat();
        let without_key = [&[0, 0, 8, 0, 0x45][..], &[0; 60]].concat();
        let packets = [with_key(43), without_key, with_key(42), with_checksum];
        let send = move || {
            let socket = RawSocket::bind(Carries::Gre, from, 64, (0, 1)).unwrap();
            for data in &packets {
                let one = Outgoing { to: SocketAddr::new(to, 0), tos: 0, segment: None, data };
                Sender::new().send(&socket, [one].into_iter()).unwrap();
            }
        };
        pair.left.spawn(send).join().unwrap();
        counted(&mut pair.b.agent, "drop_clear", 2);
        std::thread::sleep(Duration::from_millis(100));
        let counters = pair.b.agent.counters();
        assert_eq!((counters["drop_clear"], counters["packets_received"]), (2, 0), "{counters:?}");
    }
}

#[test]
fn a_flood_of_ike_from_anywhere_costs_peers_nothing() {
    if !is_root() {
        return;
    }
    let mut pair = unkeyed(UNDERLAY, false, 1);
    pair.key(0x10, Suite::Aes128Gcm16, 1);
    let to = SocketAddr::new(UNDERLAY[1].parse().unwrap(), PORT);
    let flood = pair.left.spawn(move || {
        let sockets: Vec<_> = (0..50).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        let message = [&[0; 4][..], &[7; 8], &[0; 8], &[33; 300]].concat();
        let end = Instant::now() + Duration::from_secs(2);
        let mut sent = 0;
        while Instant::now() < end {
            for socket in &sockets {
                sent += u64::from(socket.send_to(&message, to).is_ok());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        sent
    });
    let told = pair.left.run("ping -q -c 100 -i 0.015 -W 2 10.200.0.2");
    assert!(told.contains(" 0% packet loss"), "{told}");
    let sent = flood.join().unwrap();
    let counters = pair.b.agent.counters();
    eprintln!("{sent} sent, {} to the agent, {} dropped", counters["punted"], counters["drop_ike_flood"]);
    assert!(counters["drop_ike_flood"] > 0);
}

#[test]
fn a_soft_limit_and_a_moved_sa_are_told() {
    if !is_root() {
        return;
    }
    let mut pair = unkeyed(UNDERLAY, false, 1);
    let keys = keys(0x1000, Suite::Aes128Gcm16);
    let [left, right] = pair.paths;
    // The receiver expects it from elsewhere.
    let elsewhere = path("192.0.2.77", false);
    pair.b.agent.ask(Request::AddInboundSa { path: elsewhere, keys: keys.clone() });
    let soft = SaLimits { packets: 2, octets: u64::MAX };
    pair.a.agent.ask(Request::SetOutboundSa { path: right, lane: 0, keys, soft });
    pair.left.try_run("ping -c 3 -i 0.05 -W 0.2 10.200.0.2");
    let limit = pair.a.agent.wait_for(|e| matches!(e, FromDatapath::SaLimit { .. }));
    assert_eq!(limit, FromDatapath::SaLimit { path: right, spi: 0x1000 });
    let moved = pair.b.agent.wait_for(|e| matches!(e, FromDatapath::SaMoved { .. }));
    assert_eq!(moved, FromDatapath::SaMoved { spi: 0x1000, path: left });
}
