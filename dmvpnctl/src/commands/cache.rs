//! `cache`: what NHRP knows.

use crate::table::Table;
use crate::text::span;
use rpc::agent::{CacheEntry, CacheReply};

/// What people read.
#[must_use]
pub fn render(reply: &CacheReply) -> String {
    let mut table = Table::new(&[
        "INTERFACE",
        "PREFIX",
        "KIND",
        "TUNNEL ADDRESS",
        "PATH",
        "PEER",
        "FLAGS",
        "EXPIRES",
        "GROUP",
    ]);
    for entry in &reply.entries {
        table.row([
            entry.interface.clone(),
            entry.prefix.clone(),
            entry.kind.clone(),
            entry.tunnel_address.clone(),
            if entry.path.is_empty() { entry.nbma.clone() } else { entry.path.clone() },
            entry.identity.clone(),
            flags(entry),
            if entry.expires_ms == 0 { "never".to_owned() } else { span(entry.expires_ms) },
            entry.group.clone(),
        ]);
    }
    table.without_constant(&["INTERFACE", "GROUP"]).render("the cache is empty")
}

fn flags(entry: &CacheEntry) -> String {
    let flags = [(entry.unique, "unique"), (entry.natted, "nat")];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect::<Vec<_>>().join(",")
}
