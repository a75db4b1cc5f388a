//! A datapath takes over from the one that runs, under load: nothing is lost, nothing can be replayed. Needs root, skips
//! without.

mod support;

use dmvpn_dataplane::messages::{FromDatapath, Request, TunnelSettings};
use esp::Suite;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::*;

const LEFT: &str = "10.200.0.1";
const RIGHT: &str = "10.200.0.2";
const UNDERLAY: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

struct Pair {
    a: Datapath,
    b: Datapath,
    left: Namespace,
    right: Namespace,
}

fn pair() -> Pair {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    connect(&left, &right, ["192.0.2.1/24", "192.0.2.2/24"]);
    let (mut a, mut b) = (Datapath::start(&left), Datapath::start(&right));
    let paths = UNDERLAY.map(|address| path(address, false));
    a.agent.ask(Request::Configure(encrypted(LEFT, UNDERLAY[0], 2)));
    b.agent.ask(Request::Configure(encrypted(RIGHT, UNDERLAY[1], 2)));
    a.agent.ask(Request::SetPeer(id(1), peer(RIGHT, paths[1])));
    b.agent.ask(Request::SetPeer(id(1), peer(LEFT, paths[0])));
    bring_up(&left, "10.200.0.1/16 fd00:200::1/64");
    bring_up(&right, "10.200.0.2/16 fd00:200::2/64");
    key(&mut a.agent, &mut b.agent, paths, 0x10, Suite::Aes128Gcm16, 2);
    key(&mut b.agent, &mut a.agent, [paths[1], paths[0]], 0x20, Suite::Aes128Gcm16, 2);
    left.run("ping -c 2 -i 0.05 -W 2 10.200.0.2");
    Pair { a, b, left, right }
}

/// A ping every 2 ms in the background; says how many were lost and the longest round trip in ms.
struct Flood(std::process::Child);

impl Flood {
    fn start(namespace: &Namespace, count: u32) -> Self {
        let count = count.to_string();
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &namespace.name,
                "ping",
                "-q",
                "-i",
                "0.002",
                "-c",
                &count,
                "-W",
                "2",
                RIGHT,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn end(self) -> (bool, f64) {
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        eprintln!("{text}");
        let times = text.rsplit("= ").next().unwrap_or_default();
        let longest = times.split('/').nth(2).unwrap_or_default().parse().unwrap();
        (text.contains(" 0% packet loss"), longest)
    }
}

#[test]
fn a_handover_under_load_loses_nothing() {
    if !is_root() {
        return;
    }
    let mut pair = pair();
    pair.a.agent.ask(Request::StoreCheckpoint(b"remember".to_vec().into()));
    let before = pair.a.agent.sas();
    let counters = pair.a.agent.counters();
    // Longer than three handovers take on a busy machine: a jump shows with the next packet.
    let flood = Flood::start(&pair.left, 2500);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        pair.a.take_over(&pair.left);
    }
    let (lossless, longest) = flood.end();
    assert!(lossless, "{}{}", pair.left.drops(), pair.right.drops());
    assert!(longest < 50.0, "{longest} ms");
    pair.a.reconnect();
    // Who asks the kernel whom he talks to is told of the successor.
    assert_eq!(pair.a.agent.process(), pair.a.process());
    let Some(FromDatapath::Attached { checkpoint, settings, peers, .. }) = &pair.a.agent.attached else {
        panic!("not attached")
    };
    assert_eq!(checkpoint.as_deref(), Some(&b"remember"[..]));
    assert_eq!(*settings, Some(encrypted(LEFT, UNDERLAY[0], 2)));
    assert_eq!(peers.len(), 1);
    let after = pair.a.agent.sas();
    assert_eq!(after.len(), 4);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.spi, before.owner), (after.spi, after.owner));
        assert!(after.packets >= before.packets);
        // Each sequence number was left behind by far, or (inbound) goes on from where it was.
        let jumped = after.sequence > before.sequence + 3 * 60_000;
        assert!(jumped || !after.outbound || after.packets == before.packets, "{before:?} {after:?}");
    }
    let now = pair.a.agent.counters();
    assert!(now["packets_sent"] >= counters["packets_sent"] + 1000);
    for agent in [&mut pair.a.agent, &mut pair.b.agent] {
        let counters = agent.counters();
        assert_eq!((counters["drop_replayed"], counters["drop_forged"]), (0, 0), "{counters:?}");
    }
    // It is as good as the first: new settings, new SAs, another worker.
    pair.a.agent.ask(Request::Configure(TunnelSettings { workers: 3, ..encrypted(LEFT, UNDERLAY[0], 2) }));
    pair.left.run("ping -c 3 -i 0.02 -W 2 10.200.0.2");
    tcp_gbits(&pair.left, &pair.right, RIGHT, Duration::from_millis(200));
}

#[test]
fn a_successor_that_dies_on_the_way_changes_nothing() {
    if !is_root() {
        return;
    }
    let mut pair = pair();
    let flood = Flood::start(&pair.left, 300);
    for _ in 0..3 {
        let mut stream = UnixStream::connect(pair.a.handover_socket()).unwrap();
        // Hello{version: 1}, and gone.
        stream.write_all(&[1, 0, 0, 0, 1]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(stream);
    }
    assert!(flood.end().0, "{}{}", pair.left.drops(), pair.right.drops());
    let sas = pair.a.agent.sas();
    assert!(sas.iter().all(|sa| sa.sequence < 10_000), "no number was left out: {sas:?}");
}

#[test]
fn without_anybody_to_take_over_from_it_starts_as_usual() {
    if is_root() {
        let namespace = Namespace::new("alone");
        let mut alone = Datapath::start_with(&namespace, &["--takeover"]);
        alone.agent.ask(Request::Configure(settings(LEFT, "127.0.0.1")));
    }
}

#[test]
fn a_hub_of_two_thousand_is_handed_over_as_well() {
    if !is_root() {
        return;
    }
    let mut pair = pair();
    for n in 0..2000u16 {
        let [high, low] = n.to_be_bytes();
        let path = packet::Path::udp([198, 18, high, low].into(), 4754);
        let spi = 0x10_0000 + u32::from(n) * 8;
        let keys = keys(spi, Suite::Aes128Gcm16);
        let agent = &mut pair.a.agent;
        agent.ask(Request::SetPeer(
            id(10 + u32::from(n)),
            peer(&format!("10.200.{}.{low}", 100 + high), path),
        ));
        agent.ask(Request::AddInboundSa { path, keys: keys.clone() });
        agent.ask(Request::SetOutboundSa { path, lane: n % 2, keys, soft: NO_LIMIT });
    }
    pair.a.agent.ask(Request::StoreCheckpoint(vec![7; 4 << 20].into()));
    let flood = Flood::start(&pair.left, 500);
    std::thread::sleep(Duration::from_millis(300));
    pair.a.take_over(&pair.left);
    let (lossless, longest) = flood.end();
    // 20 ms when this is not the only test that runs, and not optimised.
    assert!(lossless, "{}{}", pair.left.drops(), pair.right.drops());
    assert!(longest < 100.0, "{longest} ms");
    pair.a.reconnect();
    assert_eq!(pair.a.agent.sas().len(), 4004);
}
