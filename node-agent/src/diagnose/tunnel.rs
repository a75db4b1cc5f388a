//! The tunnel itself: datapath, underlay, hubs, routes, MTU.

use super::{fail, named, ok, warn};
use crate::control::Snapshot;
use crate::routing::Origin;
use dmvpn::Resting;
use dmvpn::view::{PeerView, ShortcutState};
use rpc::agent::Check;

/// Every check of one tunnel.
pub(super) fn checks(snapshot: &Snapshot) -> Vec<Check> {
    let mut checks = vec![datapath(snapshot), interface(snapshot), underlay(snapshot)];
    checks.extend(hubs(snapshot));
    checks.push(conflict(snapshot));
    checks.extend(routes(snapshot));
    checks.extend(mtu(snapshot));
    checks.extend(shortcuts(snapshot));
    checks.extend(drops(snapshot));
    checks
}

fn datapath(snapshot: &Snapshot) -> Check {
    let name = named(snapshot, "datapath");
    match (snapshot.datapath, snapshot.failures.last()) {
        (true, None) => ok(name, "connected"),
        (true, Some(last)) => warn(
            name,
            format!("connected; refused lately: {last}"),
            "see the agent's log for what came before",
        ),
        (false, last) => fail(
            name,
            last.cloned().unwrap_or_else(|| "not connected".to_owned()),
            "see datapath.log in the run directory; the agent needs CAP_NET_ADMIN, CAP_NET_RAW and /dev/net/tun",
        ),
    }
}

fn interface(snapshot: &Snapshot) -> Check {
    let name = named(snapshot, "interface");
    match &snapshot.link {
        Some(link) if link.up => ok(name, format!("up, MTU {}", link.mtu)),
        Some(_) => fail(name, "down", format!("ip link set {} up", snapshot.config.interface())),
        None => fail(name, "does not exist", "see the check of the datapath, which makes it"),
    }
}

fn underlay(snapshot: &Snapshot) -> Check {
    let name = named(snapshot, "underlay");
    match (snapshot.underlay, snapshot.config.advertise) {
        (Some(u), None) => ok(name, format!("{} port {}", u.address, snapshot.config.engine(None).udp_port)),
        (Some(u), Some(advertised)) => ok(name, format!("{}, told to peers as {advertised}", u.address)),
        (None, _) => fail(
            name,
            "no address",
            "give this machine a route to its hubs, or write underlay.address or underlay.interface",
        ),
    }
}

fn hubs(snapshot: &Snapshot) -> Vec<Check> {
    let port = snapshot.config.engine(None).udp_port;
    let hubs = snapshot.hubs.iter();
    hubs.map(|hub| {
        let name = named(snapshot, &format!("hub {}", hub.name));
        if let Some(why) = snapshot.unresolved.get(&hub.name) {
            return fail(name, format!("its name does not resolve: {why}"), "check the name and this machine's resolver");
        }
        let path = hub.path.map(|p| p.to_string()).unwrap_or_default();
        match (hub.registered, hub.reachable) {
            (true, true) => {
                let rtt = hub.rtt.map(|r| format!(", round trip {:.1} ms", r.as_secs_f64() * 1e3)).unwrap_or_default();
                let carries = if hub.carries { ", carries" } else { "" };
                ok(name, format!("registered at {path}{rtt}{carries}"))
            }
            (true, false) => warn(
                name,
                format!("registered at {path}, but nothing comes back through the tunnel"),
                "NHRP passes and traffic does not: look for a firewall on the way that drops GRE or large packets",
            ),
            // What it said itself, in the engine's words.
            (false, _) if hub.reason.as_ref().is_some_and(|why| why.starts_with("refused")) => fail(
                name,
                hub.reason.clone().unwrap_or_default(),
                "the hub answers: its event RegistrationDenied says what its admission, or its room, lacks",
            ),
            (false, _) if snapshot.config.protection.is_some() => fail(
                name,
                hub.reason.clone().unwrap_or_else(|| "not answered yet".to_owned()),
                format!(
                    "see the handshake's check below, if there is one; else let UDP port {port} pass in both directions \
                     (and UDP port 500 and IP protocol 50, if the hub is a foreign router); the GRE key and the NHRP \
                     authentication must be the same on both"
                ),
            ),
            (false, _) => fail(
                name,
                hub.reason.clone().unwrap_or_else(|| "not answered yet".to_owned()),
                format!(
                    "let UDP port {port} pass in both directions between this node and the hub (and IP protocol 47, if the hub \
                     is a foreign router); the GRE key and the NHRP authentication must be the same on both"
                ),
            ),
        }
    })
    .collect()
}

fn conflict(snapshot: &Snapshot) -> Check {
    let name = named(snapshot, "tunnel address");
    match snapshot.conflicts.iter().next() {
        None => {
            let addresses = snapshot.config.engine(None).addresses;
            ok(name, addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        Some((hub, address)) => fail(
            name,
            format!("hub {hub} says that another node holds {address}"),
            "give one of the two another tunnel address; if the other is this node's predecessor under another \
             identity, wait for its holding time or clear it on the hub",
        ),
    }
}

fn routes(snapshot: &Snapshot) -> Vec<Check> {
    let mut checks = Vec::new();
    for (prefix, address) in &snapshot.recursive {
        checks.push(fail(
            named(snapshot, "recursive route"),
            format!("{prefix} leads into the tunnel and covers {address}, which the tunnel itself needs"),
            format!("add a more specific route to {address} by the underlay, or stop announcing {prefix}"),
        ));
    }
    for (origin, prefix, via, why) in &snapshot.routes {
        let Some(why) = why else { continue };
        let source = match origin {
            Origin::Static => "routing.static",
            Origin::Bgp => "BGP",
        };
        checks.push(warn(
            named(snapshot, "route"),
            format!("{prefix} via {via} ({source}) is not installed: {why}"),
            "announce or configure more specific prefixes that leave out the underlay",
        ));
    }
    if checks.is_empty() {
        let installed = snapshot.routes.len();
        checks.push(ok(
            named(snapshot, "routes"),
            format!("{installed} by the tunnel, none carries the tunnel itself"),
        ));
    }
    checks
}

fn mtu(snapshot: &Snapshot) -> Option<Check> {
    let underlay = snapshot.underlay?;
    let inner = snapshot.config.mtu(Some(underlay));
    let largest = snapshot.config.outer(inner, Some(underlay));
    let name = named(snapshot, "MTU");
    Some(if largest <= underlay.mtu {
        ok(name, format!("{inner} inside {}{}", underlay.mtu, narrowed(snapshot)))
    } else {
        warn(
            name,
            format!("packets of {inner} do not fit into the underlay's {}", underlay.mtu),
            "leave tunnel.mtu at auto, or lower it; until then large packets are fragmented or refused",
        )
    })
}

/// The peers whose paths take less, as ICMP said.
fn narrowed(snapshot: &Snapshot) -> String {
    const MOST: usize = 5;
    let narrow = |peer: &PeerView| {
        let mtu = snapshot.counters.get(&peer.id)?.narrowed?;
        Some(format!("{mtu} to {}", peer.addresses.first()?))
    };
    let list: Vec<_> = snapshot.peers.iter().filter_map(narrow).collect();
    let more = list.len().checked_sub(MOST + 1).map(|rest| format!(", and {} more", rest + 1));
    match &list[..list.len().min(MOST)] {
        [] => String::new(),
        some => format!("; learnt from ICMP: {}{}", some.join(", "), more.unwrap_or_default()),
    }
}

fn shortcuts(snapshot: &Snapshot) -> Option<Check> {
    let up = snapshot.shortcuts.iter().filter(|s| s.state == ShortcutState::Up).count();
    let resting = snapshot.shortcuts.iter().find_map(|s| match &s.state {
        ShortcutState::Resting { reason, until } if *until > snapshot.now && is_trouble(reason) => {
            Some((s.prefix, reason))
        }
        _ => None,
    });
    let name = named(snapshot, "shortcuts");
    match resting {
        Some((prefix, reason)) => Some(warn(
            name,
            format!("{up} carry; {prefix} goes by the hub: {reason}"),
            "if both ends are behind symmetric NATs, a direct path is not possible: forward the UDP port at one of them",
        )),
        None if snapshot.config.is_hub() => None,
        None => Some(ok(name, format!("{up} carry"))),
    }
}

fn drops(snapshot: &Snapshot) -> Option<Check> {
    let name = named(snapshot, "drops");
    let mut drops: Vec<(&str, u64)> = snapshot
        .totals
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("drop_")?, *count)))
        .filter(|(_, count)| *count > 0)
        .collect();
    drops.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if drops.is_empty() {
        return Some(ok(name, "none"));
    }
    let list = drops
        .iter()
        .take(5)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect::<Vec<_>>()
        .join(", ");
    Some(ok(name, format!("since the datapath started: {list}")))
}

/// Should a direct path be there?
const fn is_trouble(reason: &Resting) -> bool {
    match reason {
        Resting::Idle
        | Resting::Expired
        | Resting::Purged
        | Resting::Cleared
        | Resting::HubIsEgress
        | Resting::Routed => false,
        Resting::Unresolved(_)
        | Resting::Denied(_)
        | Resting::Unproven(_)
        | Resting::Lost(_)
        | Resting::Recursive { .. }
        | Resting::NoRoom => true,
    }
}
