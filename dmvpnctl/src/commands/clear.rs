//! `clear`: what was given up.

use rpc::agent::ClearReply;

/// What people read of shortcuts.
#[must_use]
pub fn shortcuts(reply: &ClearReply) -> String {
    match reply.shortcuts {
        0 => "no shortcuts to give up\n".to_owned(),
        1 => "1 shortcut given up; it forms again when it is needed\n".to_owned(),
        number => format!("{number} shortcuts given up; they form again when they are needed\n"),
    }
}

/// What people read of sessions.
#[must_use]
pub fn sessions(reply: &ClearReply) -> String {
    match reply.sessions {
        0 => "no such session\n".to_owned(),
        1 => "1 session ended; it is made anew when it is needed\n".to_owned(),
        number => format!("{number} sessions ended; they are made anew when they are needed\n"),
    }
}

/// What people read of registrations.
#[must_use]
pub fn registrations(reply: &ClearReply) -> String {
    match reply.registrations {
        0 => "no such registration\n".to_owned(),
        1 => "1 registration forgotten; the spoke registers again\n".to_owned(),
        number => format!("{number} registrations forgotten; the spokes register again\n"),
    }
}
