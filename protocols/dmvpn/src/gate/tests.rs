//! What waits at the gate is bounded, whoever sends how much to wherever.

use super::*;
use crate::config::Credentials;
use identity::SharedKey;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const NHRP: u16 = 0x2001;

fn gate() -> Gate {
    let key = SharedKey::new("a", b"a pre-shared key of some length".to_vec()).unwrap();
    let ike = ikev2::Config { local: vec![[192, 0, 2, 1].into()], ..ikev2::Config::default() };
    Gate::new(&Security { ike, credentials: Credentials(Arc::new(key)) }, [1; 32], NOW).unwrap()
}

fn path(n: u32) -> Path {
    Path::udp(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 4500)
}

#[test]
fn messages_for_a_closed_path_wait_and_the_newest_stay() {
    let mut gate = gate();
    for n in 0..6 {
        gate.hold(NOW, path(1), Some((NHRP, vec![n])), None);
    }
    assert_eq!(gate.drops.no_room, 2);
    let waiting = gate.take_waiting(NOW, path(1)).to_send;
    assert_eq!(waiting.into_iter().map(|(_, message)| message[0]).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[test]
fn however_much_waits_for_a_path_one_session_is_begun() {
    let mut gate = gate();
    for n in 0..6 {
        gate.hold(NOW, path(1), Some((NHRP, vec![n])), None);
    }
    gate.hold(NOW, path(1), None, None);
    assert_eq!((gate.sessions().len(), gate.drops.probes), (1, 1));
}

#[test]
fn messages_heard_before_their_sender_is_known_are_few_and_soon_forgotten() {
    let mut gate = gate();
    for n in 0..6 {
        gate.hear_later(NOW, path(1), vec![n]);
    }
    assert_eq!(gate.drops.no_session, 2);
    let late = NOW + HEARD;
    assert!(gate.take_waiting(late, path(1)).heard.is_empty());
}

#[test]
fn paths_beyond_what_may_be_waited_for_are_counted_and_not_kept() {
    let mut gate = gate();
    for n in 0..MOST_CLOSED as u32 {
        gate.hear_later(NOW, path(n), vec![0]);
    }
    gate.hear_later(NOW, path(1_000_000), vec![0]);
    gate.hold(NOW, path(1_000_001), Some((NHRP, vec![0])), None);
    gate.close(NOW, path(1_000_002), Some("another is there".to_owned()));
    assert_eq!((gate.closed.len(), gate.drops.no_session, gate.drops.no_room), (MOST_CLOSED, 1, 1));
    // What is of no use any more makes room.
    let later = NOW + HEARD;
    gate.hold(later, path(1_000_001), Some((NHRP, vec![0])), None);
    assert_eq!((gate.closed.len(), gate.drops.no_room), (1, 1));
}

#[test]
fn an_sa_is_replaced_before_it_is_used_up_whatever_is_configured() {
    let much = Limits { packets: 1 << 40, octets: 1 << 43 };
    assert_eq!(limits_of(much, Suite::Aes128Gcm16, true), Limits { packets: u64::MAX, octets: 1 << 43 });
    assert_eq!(limits_of(much, Suite::Aes128Gcm16, false), Limits { packets: 3 << 30, octets: 1 << 43 });
    assert_eq!(limits_of(much, Suite::Aes256CbcSha256, true).octets, 48 << 30);
    let little = Limits { packets: 9, octets: 9 };
    assert_eq!(limits_of(little, Suite::Aes128Gcm16, false), little);
}
