//! `pki show`, for people.

use identity::pki::{CertificateFacts, Described, date};
use std::fmt::Write as _;

const DAY: u64 = 86_400;

pub(super) fn render(all: &[Described], now: u64) -> String {
    let mut text = String::new();
    for (i, described) in all.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        match described {
            Described::Certificate(facts) => certificate(&mut text, facts, now),
            Described::RevocationList { issuer, revoked, validity: (made, next) } => {
                title(&mut text, &format!("Revocation list of {issuer}"));
                let next = next
                    .map_or_else(|| "never".to_owned(), |next| format!("{}{}", date(next), left(next, now)));
                line(&mut text, "made", &date(*made));
                line(&mut text, "next due", &next);
                line(&mut text, "revoked", &revoked.len().to_string());
                revoked.iter().for_each(|(serial, when)| line(&mut text, "", &format!("{serial} at {when}")));
            }
            Described::Request { name, tunnel_addresses, prefixes } => {
                title(&mut text, &format!("Request for {name}"));
                line(&mut text, "tunnel", &list(tunnel_addresses, "none"));
                line(&mut text, "prefixes", &list(prefixes, "none"));
            }
            Described::Key { label } => title(&mut text, &format!("A key ({label}); nothing of it is shown")),
            Described::Other { label } => title(&mut text, &format!("Something else ({label})")),
        }
    }
    text
}

fn certificate(text: &mut String, c: &CertificateFacts, now: u64) {
    title(text, &format!("{} of {}", if c.ca { "CA certificate" } else { "Certificate" }, c.subject));
    line(text, "issued by", &c.issuer);
    if c.ca {
        line(text, "only for", &list(&c.permitted, "anything: its names are not constrained"));
        if !c.excluded.is_empty() {
            line(text, "never for", &list(&c.excluded, ""));
        }
    } else {
        line(text, "names", &list(&c.names, "none: no peer can match it with an identity"));
        line(text, "tunnel", &list(&c.tunnel_addresses, "not said: admission alone decides"));
    }
    line(
        text,
        "prefixes",
        &c.prefixes.as_ref().map_or_else(
            || "not said: admission or a hub decides".to_owned(),
            |prefixes| list(prefixes, "none"),
        ),
    );
    let (from, to) = c.validity;
    let state = if now < from { " (not yet)".to_owned() } else { left(to, now) };
    line(text, "valid", &format!("{} to {}{state}", date(from), date(to)));
    line(text, "key", &c.key);
    line(text, "serial", &c.serial);
    line(text, "SHA-256", &c.fingerprint);
    if let Some(unknown) = &c.unknown_critical {
        line(text, "refused", &format!("critical extension {unknown} is not known to kube-dmvpn"));
    }
}

fn left(until: u64, now: u64) -> String {
    match until.checked_sub(now) {
        None => " (EXPIRED)".to_owned(),
        Some(left) if left < DAY => format!(" ({} hours left)", left / 3600),
        Some(left) => format!(" ({} days left)", left / DAY),
    }
}

fn list(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

fn title(text: &mut String, title: &str) {
    let _ = writeln!(text, "{title}");
}

fn line(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "  {label:<10} {value}");
}
