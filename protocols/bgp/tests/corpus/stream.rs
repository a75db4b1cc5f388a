//! Any bytes from a peer, in each state of its session. Shared by the fuzz target and the replay of its corpus.

use crate::speaker::{announce, check, end, hub, message, open, peer, receive};
use bgp::Speaker;
use packet::Instant;

/// The first octet chooses the state, and what the others are: a stream, or the body of one kind of message.
pub fn check_bytes(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let body = &bytes[..bytes.len().min(4000)];
    let stream = match choice / 2 % 5 {
        0 => bytes.to_vec(),
        1 => message(1, body),
        2 => message(2, body),
        3 => message(3, body),
        _ => message(5, body),
    };
    let established = choice % 2 == 1;

    let now = Instant::ZERO;
    let mut speaker = Speaker::new(now, hub(), 7).expect("a good configuration");
    // Somebody who listens to what comes of it.
    let witness = speaker.handle_accepted(now, peer(7)).expect("room").0;
    receive(&mut speaker, now, witness, &open(65002, 9, false));
    receive(&mut speaker, now, witness, &message(4, &[]));
    let connection = speaker.handle_accepted(now, peer(0)).expect("room").0;
    if established {
        receive(&mut speaker, now, connection, &open(65001, 3, false));
        receive(&mut speaker, now, connection, &message(4, &[]));
        receive(&mut speaker, now, connection, &announce(65001, 1, 0));
    }
    receive(&mut speaker, now, connection, &stream);
    check(&mut speaker);
    while let Some(due) = speaker.poll_timeout().filter(|due| due.since(now).as_secs() < 1) {
        speaker.handle_timeout(due);
    }
    check(&mut speaker);
    end(&mut speaker, now);
}
