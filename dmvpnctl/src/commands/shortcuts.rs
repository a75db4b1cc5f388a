//! `shortcuts`: direct paths, and why one doesn't carry.

use crate::table::Table;
use crate::text::{round_trip, span};
use rpc::agent::ShortcutsReply;

/// What people read.
#[must_use]
pub fn render(reply: &ShortcutsReply) -> String {
    let mut table = Table::new(&[
        "INTERFACE",
        "PREFIX",
        "VIA",
        "PEER",
        "PATH",
        "NAT",
        "STATE",
        "SINCE",
        "EXPIRES",
        "RTT",
        "REASON",
    ]);
    for shortcut in &reply.shortcuts {
        table.row([
            shortcut.interface.clone(),
            shortcut.prefix.clone(),
            shortcut.via.clone(),
            shortcut.identity.clone(),
            shortcut.path.clone(),
            if shortcut.natted { "yes".to_owned() } else { "no".to_owned() },
            shortcut.state.clone(),
            span(shortcut.since_ms),
            if shortcut.expires_ms == 0 { String::new() } else { span(shortcut.expires_ms) },
            round_trip(shortcut.rtt_us),
            shortcut.reason.clone(),
        ]);
    }
    table.without_constant(&["INTERFACE"]).render("no shortcuts: all traffic goes by the hub")
}
