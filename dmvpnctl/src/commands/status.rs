//! `status`: one line a tunnel, then what stands behind it.

use crate::table::Table;
use crate::text::{round_trip, span, traffic};
use rpc::agent::{BgpNeighbour, Hub, Role, StaticRoute, StatusReply, Tunnel, TunnelState};
use std::fmt::Write as _;

/// What people read.
#[must_use]
pub fn render(reply: &StatusReply) -> String {
    let mut table = Table::new(&["NODE", "TUNNEL ADDRESS", "HUB", "STATE", "SINCE", "SA", "RX/TX"]);
    for tunnel in &reply.tunnels {
        table.row([
            reply.node.clone(),
            tunnel.addresses.join(","),
            carrying_hub(tunnel),
            state(tunnel).to_owned(),
            span(tunnel.since_ms),
            tunnel.protection.clone(),
            traffic(tunnel.traffic.as_ref()),
        ]);
    }
    let mut text = table.render(&format!("{} has no tunnel", reply.node));
    for tunnel in &reply.tunnels {
        text.push('\n');
        details(&mut text, tunnel);
    }
    if let Some(configuration) = &reply.configuration
        && !configuration.errors.is_empty()
    {
        let since = span(configuration.applied_ms);
        let _ = writeln!(
            text,
            "\nthe newest configuration in {} is not in force, that of {since} ago is:",
            configuration.source
        );
        for error in &configuration.errors {
            let _ = writeln!(text, "  {error}");
        }
    }
    text
}

fn carrying_hub(tunnel: &Tunnel) -> String {
    match tunnel.hubs.iter().find(|hub| hub.by_hub).or_else(|| tunnel.hubs.first()) {
        Some(hub) => called(hub).to_owned(),
        None if tunnel.role == i32::from(Role::Hub) => "(is hub)".to_owned(),
        None => String::new(),
    }
}

/// What it says it is, else how the user calls it.
fn called(hub: &Hub) -> &str {
    if hub.identity.is_empty() { &hub.name } else { &hub.identity }
}

fn state(tunnel: &Tunnel) -> &'static str {
    match TunnelState::try_from(tunnel.state) {
        Ok(TunnelState::Up) => "Up",
        Ok(TunnelState::Down) => "Down",
        Ok(TunnelState::Starting) => "Starting",
        Ok(TunnelState::Unspecified) | Err(_) => "",
    }
}

fn details(text: &mut String, tunnel: &Tunnel) {
    let role = if tunnel.role == i32::from(Role::Hub) { "hub" } else { "spoke" };
    let mut line = format!("{} ({}): {role}, phase {}", tunnel.interface, tunnel.name, tunnel.phase);
    if tunnel.mtu > 0 {
        let _ = write!(line, ", mtu {}", tunnel.mtu);
    }
    if !tunnel.nbma.is_empty() {
        let _ = write!(line, ", underlay {} port {}", tunnel.nbma, tunnel.udp_port);
    }
    if !tunnel.observed.is_empty() {
        let _ = write!(line, " seen as {}", tunnel.observed);
    }
    let _ = write!(line, "; {}", count(tunnel.peers, "peer"));
    if tunnel.role == i32::from(Role::Hub) {
        let _ = write!(line, ", {}", count(tunnel.registrations, "registration"));
    }
    let _ = write!(line, ", {}", count(tunnel.shortcuts, "shortcut"));
    let protection = match (tunnel.encrypted, tunnel.identity_unverified) {
        (false, _) => "not encrypted".to_owned(),
        (true, false) => count(tunnel.sessions, "session"),
        (true, true) => format!("{}, identities unverified", count(tunnel.sessions, "session")),
    };
    let _ = writeln!(text, "{line}; {protection}");
    if tunnel.state != i32::from(TunnelState::Up) && !tunnel.reason.is_empty() {
        let _ = writeln!(text, "  {}: {}", state(tunnel).to_lowercase(), tunnel.reason);
    }
    if tunnel.address_conflict {
        let addresses = tunnel.addresses.join(",");
        let _ = writeln!(
            text,
            "  another identity holds {addresses}: give this node another tunnel address, or end the other"
        );
    }
    for warning in &tunnel.warnings {
        let _ = writeln!(text, "  WARNING: {warning}");
    }
    if !tunnel.datapath_connected {
        let _ = writeln!(text, "  the datapath does not answer: look at the agent's log");
    }
    tunnel.hubs.iter().for_each(|hub| hub_line(text, hub));
    tunnel.bgp_neighbours.iter().for_each(|neighbour| bgp_line(text, neighbour));
    tunnel.static_routes.iter().filter(|route| !route.installed).for_each(|route| route_line(text, route));
}

fn hub_line(text: &mut String, hub: &Hub) {
    let mut about: Vec<&str> = Vec::new();
    let rtt = round_trip(hub.rtt_us);
    about.extend(
        [hub.tunnel_address.as_str(), hub.path.as_str(), rtt.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty()),
    );
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let state = if hub.up { "up" } else { "down" };
    let carries = if hub.by_hub {
        ", carries"
    } else if hub.up {
        ", stands by"
    } else {
        ""
    };
    let reason = if hub.up || hub.reason.is_empty() { String::new() } else { format!(": {}", hub.reason) };
    let name = if hub.identity.is_empty() || hub.identity == hub.name {
        hub.name.clone()
    } else {
        format!("{} {}", hub.name, hub.identity)
    };
    let _ = writeln!(text, "  hub {name}{about} {state} {}{carries}{reason}", span(hub.since_ms));
}

fn bgp_line(text: &mut String, neighbour: &BgpNeighbour) {
    let BgpNeighbour {
        address,
        asn,
        state,
        since_ms,
        prefixes_received,
        prefixes_sent,
        prefixes_refused,
        last_error,
    } = neighbour;
    let asn = if *asn == 0 { String::new() } else { format!(" AS{asn}") };
    let mut line = format!("  bgp {address}{asn} {state} {}", span(*since_ms));
    if state == "Established" {
        let _ = write!(line, ", {} received, {prefixes_sent} sent", count(*prefixes_received, "prefix"));
    } else if !last_error.is_empty() {
        let _ = write!(line, ": {last_error}");
    }
    if *prefixes_refused > 0 {
        let _ = write!(line, ", {prefixes_refused} refused (not its to announce)");
    }
    let _ = writeln!(text, "{line}");
}

fn route_line(text: &mut String, route: &StaticRoute) {
    let _ = writeln!(text, "  route {} via {} is not installed: {}", route.prefix, route.via, route.reason);
}

fn count(number: u32, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ if what.ends_with('x') => format!("{number} {what}es"),
        _ => format!("{number} {what}s"),
    }
}
