//! `path`: which way a packet goes now, and why.

use crate::text::span;
use rpc::agent::PathReply;

/// What people read: the destination, and beside it the answer, a line each.
#[must_use]
pub fn render(reply: &PathReply) -> String {
    let lines = if reply.explanation.is_empty() { from_fields(reply) } else { reply.explanation.clone() };
    let indent = " ".repeat(reply.destination.chars().count());
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let left = if index == 0 { &reply.destination } else { &indent };
        let line = line.strip_prefix(&reply.destination).unwrap_or(line).trim_start();
        text.push_str(format!("{left}  {line}").trim_end());
        text.push('\n');
    }
    text
}

/// The answer from the reply's fields, for an agent that doesn't word it.
fn from_fields(reply: &PathReply) -> Vec<String> {
    let PathReply { prefix, kind, via, identity, path, natted, since_ms, fallback, .. } = reply;
    let mut about: Vec<&str> =
        [via.as_str(), path.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    if *natted {
        about.push("behind NAT");
    }
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let name = if identity.is_empty() { String::new() } else { format!(" {identity}") };
    let to = match kind.as_str() {
        "shortcut" => format!("via shortcut{name}{about}, direct for {}", span(*since_ms)),
        "hub" => format!("by the hub{name}{about}"),
        "peer" => format!("via peer{name}{about}"),
        "local" => "is this node".to_owned(),
        "kernel" => "leaves by another interface, not by the overlay".to_owned(),
        "unreachable" => "is unreachable: protected, and the overlay has no way to it now".to_owned(),
        _ => "has no route".to_owned(),
    };
    let prefix = if prefix.is_empty() { String::new() } else { format!("prefix {prefix}  ") };
    let mut lines = vec![format!("{prefix}{to}")];
    if !fallback.is_empty() && kind != "hub" {
        lines.push(format!("hub path ready as fallback: {fallback}"));
    }
    lines
}
