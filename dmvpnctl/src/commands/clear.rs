//! `clear`: what was given up.

use rpc::agent::ClearReply;

/// What people read.
#[must_use]
pub fn render(reply: &ClearReply) -> String {
    match reply.shortcuts {
        0 => "no shortcuts to give up\n".to_owned(),
        1 => "1 shortcut given up; it forms again when it is needed\n".to_owned(),
        number => format!("{number} shortcuts given up; they form again when they are needed\n"),
    }
}
