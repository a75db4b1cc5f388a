//! What a speaker learnt, for people, and its neighbours, for the API. Pure.

use crate::clock;
use crate::routing::FromRouting;
use bgp::{Event, NeighbourStatus, State};
use packet::Instant;
use rpc::agent::{BgpNeighbour, Severity};

/// An event as people read it.
pub(super) fn describe(event: &Event) -> Option<FromRouting> {
    let (severity, reason, message) = match event {
        Event::Up { neighbour, asn } => {
            (Severity::Normal, "BgpUp", format!("BGP session with {neighbour} (AS {asn}) is up"))
        }
        Event::Down { neighbour, reason, stale } => {
            let kept = if *stale { "; its routes are kept while it restarts" } else { "" };
            (Severity::Warning, "BgpDown", format!("BGP session with {neighbour} is down: {reason}{kept}"))
        }
        Event::Failed { neighbour, reason } => {
            (Severity::Warning, "BgpFailed", format!("no BGP session with {neighbour}: {reason}"))
        }
        Event::Refused { neighbour, prefix, reason } => (
            Severity::Warning,
            "BgpRouteRefused",
            format!("{neighbour} announces {prefix}, which is not believed: {reason}"),
        ),
        Event::Malformed { neighbour, detail } => (
            Severity::Warning,
            "BgpMalformed",
            format!("{neighbour} sent a damaged UPDATE ({detail}); the session goes on (RFC 7606)"),
        ),
        Event::StaleRemoved { neighbour, routes } => (
            Severity::Normal,
            "BgpStaleRemoved",
            format!(
                "{routes} routes of {neighbour} were not announced again after its restart, and are gone"
            ),
        ),
        Event::Settled => return None,
    };
    Some(FromRouting::Told { severity, reason, message })
}

/// A neighbour as the API shows it.
pub(super) fn neighbour(now: Instant, status: NeighbourStatus) -> BgpNeighbour {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    BgpNeighbour {
        address: status.address.to_string(),
        asn: status.asn.unwrap_or(0),
        state: match status.state {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
        .to_owned(),
        since_ms: clock::millis_since(now, status.since),
        prefixes_received: count(status.received),
        prefixes_sent: count(status.announced),
        prefixes_refused: u32::try_from(status.refused).unwrap_or(u32::MAX),
        last_error: status.last_reason.unwrap_or_default(),
    }
}
