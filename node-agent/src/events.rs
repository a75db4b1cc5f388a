//! What the engine tells people: as a log line, as an event of the API, and as a history for who comes later.

use crate::clock;
use dmvpn::Event;
use packet::Path;
use rpc::agent::{Event as ApiEvent, Severity};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use tokio::sync::broadcast;

/// How many events are kept.
const HISTORY: usize = 256;

/// The events of one tunnel.
#[derive(Debug)]
pub struct Events {
    interface: String,
    history: VecDeque<ApiEvent>,
    live: broadcast::Sender<ApiEvent>,
}

impl Events {
    /// For the tunnel with this interface; told on `live` as well.
    #[must_use]
    pub fn new(interface: &str, live: broadcast::Sender<ApiEvent>) -> Self {
        Self { interface: interface.to_owned(), history: VecDeque::new(), live }
    }

    /// Takes an event of the engine's.
    pub fn engine(&mut self, event: &Event) {
        self.tell(describe(event));
    }

    /// Takes an event of the agent's own.
    pub fn agent(&mut self, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.tell(Told { severity, reason, message: message.into(), fields: BTreeMap::new() });
    }

    /// ICMP said, and the datapath believed, that a path takes no more than this; it acts on it by itself.
    pub fn path_narrowed(&mut self, path: Path, mtu: u16, inner: u16) {
        let message = format!("{path} takes outer packets of {mtu} octets: {inner} for an inner one");
        let told = Told::new(Severity::Normal, "PathNarrowed", message);
        self.tell(told.with("path", path).with("mtu", mtu).with("inner", inner));
    }

    /// The last `count` events, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<ApiEvent> {
        self.history.iter().skip(self.history.len().saturating_sub(count)).cloned().collect()
    }

    fn tell(&mut self, told: Told) {
        let Told { severity, reason, message, fields } = told;
        let (interface, detail) =
            (self.interface.as_str(), serde_json::to_string(&fields).unwrap_or_default());
        match severity {
            Severity::Warning => tracing::warn!(interface, reason, %detail, "{message}"),
            _ => tracing::info!(interface, reason, %detail, "{message}"),
        }
        let event = ApiEvent {
            time_ms: clock::unix_millis(),
            interface: self.interface.clone(),
            reason: reason.to_owned(),
            severity: severity.into(),
            message,
            fields,
        };
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(event.clone());
        // Nobody may be watching.
        let _ = self.live.send(event);
    }
}

struct Told {
    severity: Severity,
    reason: &'static str,
    message: String,
    fields: BTreeMap<String, String>,
}

impl Told {
    fn new(severity: Severity, reason: &'static str, message: String) -> Self {
        Self { severity, reason, message, fields: BTreeMap::new() }
    }

    fn with(mut self, name: &str, value: impl Display) -> Self {
        self.fields.insert(name.to_owned(), value.to_string());
        self
    }

    fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

fn describe(event: &Event) -> Told {
    use Severity::{Normal, Warning};
    match event {
        Event::HubUp { hub, address, path, observed } => {
            let nat = observed.map(|o: Path| format!(", which sees us at {o}")).unwrap_or_default();
            Told::new(Normal, "HubUp", format!("registered with hub {hub} ({address}, {path}){nat}"))
                .with("hub", hub)
                .with("address", address)
                .with("path", path)
                .maybe("observed", *observed)
        }
        Event::HubDown { hub, reason } => {
            Told::new(Warning, "HubDown", format!("hub {hub} is down: {reason}")).with("hub", hub).with("why", reason)
        }
        Event::AddressConflict { address, hub } => Told::new(
            Warning,
            "AddressConflict",
            format!("hub {hub} says that another node holds tunnel address {address}: give one of them another address"),
        )
        .with("hub", hub)
        .with("address", address),
        Event::PeerRegistered { address, identity, path, moved_from } => {
            let who = identity.as_deref().unwrap_or("a foreign router");
            let moved = moved_from.map(|p: Path| format!(", moved from {p}")).unwrap_or_default();
            Told::new(Normal, "PeerRegistered", format!("{who} registered {address} at {path}{moved}"))
                .with("address", address)
                .with("path", path)
                .maybe("identity", identity.as_deref())
                .maybe("movedFrom", *moved_from)
        }
        Event::PeerUnregistered { address, reason } => {
            Told::new(Normal, "PeerUnregistered", format!("registration of {address} ended: {reason}"))
                .with("address", address)
                .with("why", reason)
        }
        Event::RegistrationDenied { address, path, reason } => {
            Told::new(Warning, "RegistrationDenied", format!("registration of {address} from {path} refused: {reason}"))
                .with("address", address)
                .with("path", path)
                .with("why", reason)
        }
        Event::ShortcutUp { prefix, via, path } => {
            Told::new(Normal, "ShortcutUp", format!("{prefix} goes directly to {via} at {path}"))
                .with("prefix", prefix)
                .with("via", via)
                .with("path", path)
        }
        Event::ShortcutDown { prefix, via, reason } => {
            Told::new(Normal, "ShortcutDown", format!("{prefix} goes by the hub, no longer directly to {via}: {reason}"))
                .with("prefix", prefix)
                .with("via", via)
                .with("why", reason)
        }
        Event::ShortcutFailed { destination, reason } => {
            Told::new(Warning, "ShortcutFailed", format!("no direct path to {destination}, the hub carries on: {reason}"))
                .with("destination", destination)
                .with("why", reason)
        }
        Event::RecursiveRoute { prefix, nbma } => Told::new(
            Warning,
            "RecursiveRoute",
            format!("{prefix} is not routed by the tunnel: it covers {nbma}, which the tunnel itself needs"),
        )
        .with("prefix", prefix)
        .with("nbma", nbma),
        Event::SessionUp { path, identity } => {
            Told::new(Normal, "SessionUp", format!("{} authenticated at {path}", identity.name))
                .with("path", path)
                .with("identity", &identity.name)
        }
        Event::SessionDown { path, reason } => {
            Told::new(Normal, "SessionDown", format!("the session with {path} ended: {reason}"))
                .with("path", path)
                .with("why", reason)
        }
        Event::SessionFailed { path, initiator, reason } => {
            let whose = if *initiator { "to" } else { "from" };
            Told::new(Warning, "SessionFailed", format!("no session {whose} {path}: {reason}"))
                .with("path", path)
                .with("why", reason)
        }
        Event::IkeKeys { .. } => Told::new(Warning, "KeysExported", "secrets of an IKE SA were exported".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_keeps_the_newest() {
        let mut events = Events::new("dmvpn0", broadcast::channel(8).0);
        for number in 0..=HISTORY {
            events.agent(Severity::Normal, "Test", number.to_string());
        }
        let last = events.last(usize::MAX);
        assert_eq!((last.len(), last[0].message.as_str()), (HISTORY, "1"));
        assert_eq!(events.last(1)[0].message, HISTORY.to_string());
    }

    #[test]
    fn a_conflict_is_a_warning_that_says_what_to_do() {
        let told =
            describe(&Event::AddressConflict { address: "10.0.0.1".parse().unwrap(), hub: "hq".to_owned() });
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.message.contains("another address"));
    }
}
