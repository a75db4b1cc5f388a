//! Any sequence of operations on a hub. Shared by the fuzz target and the replay of its corpus.

use crate::speaker::{announce, check, end, hub, message, open, peer, receive};
use arbitrary::Arbitrary;
use bgp::{ConnectionId, Restart, Speaker};
use ipnet::IpNet;
use packet::Instant;
use std::time::Duration;

/// A sequence is cut off here.
const MOST_OPERATIONS: usize = 200;

#[derive(Arbitrary, Clone, Debug)]
pub struct Operations {
    restarted: bool,
    summary: bool,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    Accept {
        peer: u8,
    },
    /// An accepted peer that is established at once.
    Join {
        peer: u8,
        internal: bool,
        restarting: bool,
    },
    Connect {
        peer: u8,
    },
    Connected {
        connection: u8,
    },
    Closed {
        connection: u8,
    },
    Open {
        connection: u8,
        asn: u8,
        identifier: u8,
        restarting: bool,
    },
    Keepalive {
        connection: u8,
    },
    Announce {
        connection: u8,
        net: u8,
        origin: u8,
    },
    EndOfRib {
        connection: u8,
    },
    Message {
        connection: u8,
        kind: u8,
        body: Vec<u8>,
    },
    Garbage {
        connection: u8,
        bytes: Vec<u8>,
    },
    Sent {
        connection: u8,
        octets: u16,
    },
    Remove {
        peer: u8,
    },
    Originate {
        nets: Vec<u8>,
    },
    Review,
    Wait {
        milliseconds: u16,
    },
    Shutdown,
}

/// Carries them out, one after the other.
pub fn run(operations: Operations) {
    let mut now = Instant::ZERO;
    let mut config = hub();
    if operations.summary {
        config.summaries = vec!["10.0.0.0/8".parse().expect("a prefix")];
    }
    if operations.restarted {
        let expected = vec![peer(0), peer(1)];
        config.restart = Some(Restart { expected, deferral: Duration::from_secs(60) });
    }
    let mut speaker = Speaker::new(now, config, 7).expect("a good configuration");
    for operation in operations.operations.into_iter().take(MOST_OPERATIONS) {
        carry_out(&mut speaker, &mut now, operation);
        check(&mut speaker);
    }
    end(&mut speaker, now);
}

fn carry_out(speaker: &mut Speaker, now: &mut Instant, operation: Operation) {
    let id = |connection: u8| u64::from(connection % 24);
    match operation {
        Operation::Accept { peer: p } => drop(speaker.handle_accepted(*now, peer(p))),
        Operation::Join { peer: p, internal, restarting } => {
            if let Ok(connection) = speaker.handle_accepted(*now, peer(p)) {
                let asn = if internal { 65000 } else { 65001 };
                receive(speaker, *now, connection.0, &open(asn, p % 8 + 1, restarting));
                receive(speaker, *now, connection.0, &message(4, &[]));
            }
        }
        Operation::Connect { peer: p } => speaker.add_neighbour(*now, peer(p)),
        Operation::Connected { connection } => speaker.handle_connected(*now, ConnectionId(id(connection))),
        Operation::Closed { connection } => speaker.handle_closed(*now, ConnectionId(id(connection))),
        Operation::Open { connection, asn, identifier, restarting } => {
            let asn = 64999 + u16::from(asn % 4);
            receive(speaker, *now, id(connection), &open(asn, identifier, restarting));
        }
        Operation::Keepalive { connection } => receive(speaker, *now, id(connection), &message(4, &[])),
        Operation::Announce { connection, net, origin } => {
            receive(speaker, *now, id(connection), &announce(65001, net, origin));
        }
        Operation::EndOfRib { connection } => {
            receive(speaker, *now, id(connection), &message(2, &[0, 0, 0, 0]));
        }
        Operation::Message { connection, kind, body } => {
            let body = &body[..body.len().min(4000)];
            receive(speaker, *now, id(connection), &message(kind % 7, body));
        }
        Operation::Garbage { connection, bytes } => receive(speaker, *now, id(connection), &bytes),
        Operation::Sent { connection, octets } => {
            speaker.handle_sent(*now, ConnectionId(id(connection)), octets.into());
        }
        Operation::Remove { peer: p } => speaker.remove_neighbour(*now, peer(p)),
        Operation::Originate { nets } => {
            let prefix = |net: u8| IpNet::new([10, net, 0, 0].into(), 24).expect("a length");
            let prefixes = nets.into_iter().take(30).map(prefix).collect();
            speaker.set_announced(*now, prefixes, &|_, _| true);
        }
        Operation::Review => speaker.review(*now, &|_, prefix: IpNet| prefix.prefix_len() > 20),
        Operation::Wait { milliseconds } => {
            *now += Duration::from_millis(milliseconds.into());
            speaker.handle_timeout(*now);
            assert!(speaker.poll_timeout().is_none_or(|due| due > *now));
        }
        Operation::Shutdown => speaker.shutdown(*now),
    }
}
