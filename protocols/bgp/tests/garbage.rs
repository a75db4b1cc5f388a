//! Whatever arrives, in whatever order: nothing panics, and what is held stays bounded.

mod common;

use bgp::{Command, ConnectionId, Phase, Speaker};
use common::{hub, ip, net};
use packet::Instant;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Operation {
    Accept(u8),
    Connect(u8),
    Connected(u64),
    Closed(u64),
    Garbage(u64, Vec<u8>),
    Message(u64, u8, Vec<u8>),
    Open(u64, u16, u8),
    Keepalive(u64),
    Announce(u64, u8, u8),
    Remove(u8),
    Sent(u64, usize),
    Wait(u16),
    Shutdown,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{
        Accept, Announce, Closed, Connect, Connected, Garbage, Keepalive, Message, Open, Remove, Sent,
        Shutdown, Wait,
    };
    let c = || 0..12_u64;
    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        4 => (1..6_u8).prop_map(Accept),
        2 => (1..6_u8).prop_map(Connect),
        2 => c().prop_map(Connected),
        1 => c().prop_map(Closed),
        1 => (c(), bytes()).prop_map(|(c, b)| Garbage(c, b)),
        2 => (c(), 0..7_u8, bytes()).prop_map(|(c, k, b)| Message(c, k, b)),
        6 => (c(), 64999..65003_u16, any::<u8>()).prop_map(|(c, a, i)| Open(c, a, i)),
        6 => c().prop_map(Keepalive),
        6 => (c(), any::<u8>(), any::<u8>()).prop_map(|(c, n, o)| Announce(c, n, o)),
        1 => (1..6_u8).prop_map(Remove),
        2 => (c(), 0..5000_usize).prop_map(|(c, n)| Sent(c, n)),
        2 => (0..40_000_u16).prop_map(Wait),
        1 => Just(Shutdown),
    ]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An OPEN with graceful restart; the identifier's low bit is the R bit.
fn open(asn: u16, identifier: u8) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let r = if identifier & 1 == 1 { 0x80 } else { 0 };
    message(1, &[4, high, low, 0, 30, 10, 200, 16, identifier, 10, 2, 8, 64, 6, r, 60, 0, 1, 1, 0x80])
}

fn announce(asn: u16, net: u8, origin: u8) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let attributes = [0x40, 1, 1, origin % 4, 0x40, 2, 4, 2, 1, high, low, 0x40, 3, 4, 10, 200, 16, net % 8];
    message(2, &[&[0, 0, 0, 18][..], &attributes, &[24, 10, net, 0]].concat())
}

fn bytes(speaker: &mut Speaker, now: Instant, connection: u64, bytes: &[u8]) {
    speaker.handle_bytes(now, ConnectionId(connection), bytes, &|_, prefix: ipnet::IpNet| {
        prefix != net("10.66.0.0/24")
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_things_panics(operations in prop::collection::vec(operation(), 1..120)) {
        let mut now = Instant::ZERO;
        let mut config = hub("10.200.0.1", 65000, Phase::Two);
        config.limits.dynamic_neighbours = 4;
        config.limits.prefixes_dynamic = 20;
        config.summaries = vec![net("10.0.0.0/8")];
        let mut speaker = Speaker::new(now, config, 7).unwrap();
        for operation in operations {
            let peer = |n: u8| ip(&format!("10.200.16.{n}"));
            match operation {
                Operation::Accept(n) => { let _ = speaker.handle_accepted(now, peer(n)); }
                Operation::Connect(n) => speaker.add_neighbour(now, peer(n)),
                Operation::Connected(c) => speaker.handle_connected(now, ConnectionId(c)),
                Operation::Closed(c) => speaker.handle_closed(now, ConnectionId(c)),
                Operation::Garbage(c, garbage) => bytes(&mut speaker, now, c, &garbage),
                Operation::Message(c, kind, body) => bytes(&mut speaker, now, c, &message(kind, &body)),
                Operation::Open(c, asn, id) => bytes(&mut speaker, now, c, &open(asn, id)),
                Operation::Keepalive(c) => bytes(&mut speaker, now, c, &message(4, &[])),
                Operation::Announce(c, n, origin) => bytes(&mut speaker, now, c, &announce(65001, n, origin)),
                Operation::Remove(n) => speaker.remove_neighbour(now, peer(n)),
                Operation::Sent(c, n) => speaker.handle_sent(now, ConnectionId(c), n),
                Operation::Wait(ms) => {
                    now += Duration::from_millis(ms.into());
                    speaker.handle_timeout(now);
                    prop_assert!(speaker.poll_timeout().is_none_or(|due| due > now));
                }
                Operation::Shutdown => speaker.shutdown(now),
            }
            while let Some(command) = speaker.poll_command() {
                if let Command::Send { bytes, .. } = command {
                    prop_assert!(bytes.len() <= 4096);
                }
            }
            while speaker.poll_route().is_some() {}
            while speaker.poll_event().is_some() {}
            for neighbour in speaker.neighbours() {
                prop_assert!(neighbour.configured || neighbour.received <= 20);
            }
            prop_assert!(speaker.neighbours().filter(|n| !n.configured).count() <= 4 + 5);
        }
        // Nobody is left: so is nothing of what they said.
        speaker.shutdown(now);
        for neighbour in speaker.neighbours().collect::<Vec<_>>() {
            speaker.remove_neighbour(now, neighbour.address);
        }
        prop_assert_eq!(speaker.routes().count(), 0);
    }
}
