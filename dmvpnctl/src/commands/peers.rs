//! `peers`: who is known, and how they are reached.

use crate::table::Table;
use crate::text::{round_trip, span, traffic};
use rpc::agent::{Peer, PeerKind, PeersReply};

/// What people read.
#[must_use]
pub fn render(reply: &PeersReply) -> String {
    let mut table = Table::new(&[
        "INTERFACE",
        "PEER",
        "TUNNEL ADDRESS",
        "KIND",
        "PATH",
        "NAT",
        "STATE",
        "SA",
        "MTU",
        "RTT",
        "SINCE",
        "RX/TX",
        "GROUP",
    ]);
    for peer in &reply.peers {
        table.row([
            peer.interface.clone(),
            if peer.identity.is_empty() || peer.identity_verified {
                peer.identity.clone()
            } else {
                format!("{} (?)", peer.identity)
            },
            peer.tunnel_addresses.join(","),
            kind(peer).to_owned(),
            if peer.path.is_empty() { "by hub".to_owned() } else { peer.path.clone() },
            if peer.natted { "yes".to_owned() } else { "no".to_owned() },
            peer.state.clone(),
            peer.protection.clone(),
            if peer.mtu == 0 { String::new() } else { peer.mtu.to_string() },
            round_trip(peer.rtt_us),
            span(peer.since_ms),
            traffic(peer.traffic.as_ref()),
            peer.group.clone(),
        ]);
    }
    let mut text = table.without_constant(&["INTERFACE", "SA", "GROUP"]).render("no peers");
    if reply.peers.iter().any(|peer| !peer.identity.is_empty() && !peer.identity_verified) {
        text.push_str("\n(?) is what a peer says of itself; without encryption and certificates nobody proves a name.\n");
    }
    text
}

fn kind(peer: &Peer) -> &'static str {
    match PeerKind::try_from(peer.kind) {
        Ok(PeerKind::Hub) => "hub",
        Ok(PeerKind::Registered) => "registered",
        Ok(PeerKind::Direct) => "direct",
        Ok(PeerKind::Static) => "static",
        Ok(PeerKind::Unspecified) | Err(_) => "",
    }
}
