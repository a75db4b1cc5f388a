//! Sessions of FRR, replayed (`data/frr10-dynamic-neighbours.txt`).

mod common;

use bgp::{AsPath, Command, Phase, Speaker};
use common::{hub, ip, net, spoke};
use ipnet::IpNet;
use packet::Instant;
use std::net::IpAddr;

const RECORDED: &str = include_str!("data/frr10-dynamic-neighbours.txt");

/// What `from` said to `to`.
fn said(from: &str, to: &str) -> Vec<u8> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.strip_prefix(&format!("{from} {to} ")))
        .flat_map(|hex| (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()))
        .collect()
}

fn adapt(mut config: bgp::Config, announce: &str) -> bgp::Config {
    config.networks = vec![net("10.255.0.0/24")];
    config.listen_ranges.clone_from(&config.networks);
    config.announce = vec![net(announce)];
    config
}

fn kernel(speaker: &mut Speaker) -> Vec<(IpNet, Vec<IpAddr>)> {
    std::iter::from_fn(|| speaker.poll_route()).map(|change| (change.prefix, change.next_hops)).collect()
}

#[test]
fn frr_spokes_are_dynamic_neighbours_of_our_hub() {
    let now = Instant::ZERO;
    let config = adapt(hub("10.255.0.1", 65000, Phase::Three), "192.168.0.0/16");
    let mut speaker = Speaker::new(now, config, 1).unwrap();
    for (last, asn) in [(11, 65011), (12, 65012)] {
        let address = format!("10.255.0.{last}");
        let connection = speaker.handle_accepted(now, ip(&address)).unwrap();
        speaker.handle_bytes(now, connection, &said(&address, "10.255.0.1"), &|_, _| true);
        let status = speaker.neighbours().find(|n| n.address == ip(&address)).unwrap();
        assert_eq!((status.state, status.asn), (bgp::State::Established, Some(asn)));
        assert_eq!(status.refused, 0, "what comes back to where it began is no offence");
    }
    assert_eq!(
        kernel(&mut speaker),
        [
            (net("192.168.11.0/24"), vec![ip("10.255.0.11")]),
            (net("192.168.12.0/24"), vec![ip("10.255.0.12")]),
        ]
    );
    let best = speaker.best(net("192.168.12.0/24")).unwrap();
    assert_eq!((&best.as_path, best.med), (&AsPath::sequence(&[65012]), Some(0)));
}

#[test]
fn our_spoke_learns_from_an_frr_hub() {
    let now = Instant::ZERO;
    let config = adapt(spoke("10.255.0.12", 65012, "192.168.12.0/24"), "192.168.12.0/24");
    let mut speaker = Speaker::new(now, config, 1).unwrap();
    speaker.add_neighbour(now, ip("10.255.0.1"));
    let Some(Command::Connect { connection, remote }) = speaker.poll_command() else { panic!("no attempt") };
    assert_eq!(remote, ip("10.255.0.1"));
    speaker.handle_connected(now, connection);
    speaker.handle_bytes(now, connection, &said("10.255.0.1", "10.255.0.12"), &|_, _| true);
    assert_eq!(kernel(&mut speaker), [(net("192.168.0.0/16"), vec![ip("10.255.0.1")])]);
    // FRR proposed 10 seconds; so a keepalive comes within 3.4.
    assert!(speaker.poll_timeout().unwrap() <= now + std::time::Duration::from_millis(3400));
}
