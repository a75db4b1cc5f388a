//! `rekey`: what was begun.

use rpc::agent::RekeyReply;

/// What people read.
#[must_use]
pub fn render(reply: &RekeyReply) -> String {
    match reply.sessions {
        0 => "no such session\n".to_owned(),
        1 => "1 session replaces its keys\n".to_owned(),
        number => format!("{number} sessions replace their keys\n"),
    }
}
