//! Two datapaths over a veth pair, in namespaces of their own: do packets really cross? Needs root, skips without.

mod support;

use dmvpn_dataplane::messages::Request;
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

fn pair(raw: bool) -> Pair {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    connect(&left, &right, ["192.0.2.1/24", "192.0.2.2/24"]);
    let (mut a, mut b) = (Datapath::start(&left), Datapath::start(&right));
    a.agent.ask(Request::Configure(settings(LEFT, "192.0.2.1")));
    b.agent.ask(Request::Configure(settings(RIGHT, "192.0.2.2")));
    a.agent.ask(Request::SetPeer(id(1), peer(RIGHT, path("192.0.2.2", raw))));
    b.agent.ask(Request::SetPeer(id(1), peer(LEFT, path("192.0.2.1", raw))));
    bring_up(&left, "10.200.0.1/16 fd00:200::1/64");
    bring_up(&right, "10.200.0.2/16 fd00:200::2/64");
    Pair { a, b, left, right }
}

fn crosses(raw: bool) {
    if !is_root() {
        return;
    }
    let mut pair = pair(raw);
    pair.left.run("ping -c 3 -i 0.05 -W 2 10.200.0.2");
    pair.left.run("ping -c 1 -W 2 -s 4000 10.200.0.2");
    pair.left.run("ping -c 1 -W 2 -s 1372 -M do 10.200.0.2");
    let plain = tcp_gbits(&pair.left, &pair.right, "192.0.2.2", Duration::from_secs(1));
    let tunnel = tcp_gbits(&pair.left, &pair.right, RIGHT, Duration::from_secs(2));
    eprintln!("raw GRE: {raw}; veth {plain:.2} Gbit/s, tunnel {tunnel:.2} Gbit/s");
    let (sent, received) = (pair.a.agent.counters(), pair.b.agent.counters());
    for (side, counters) in [("sender", &sent), ("receiver", &received)] {
        let text: Vec<_> =
            counters.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{k}={n}")).collect();
        eprintln!("{side}: {}", text.join(" "));
    }
    assert!(tunnel > 0.05, "{tunnel} Gbit/s");
}

#[test]
fn packets_cross_by_gre_in_udp() {
    crosses(false);
}

#[test]
fn packets_cross_by_raw_gre() {
    crosses(true);
}
