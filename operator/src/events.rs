//! Events: what changed, said once, where `kubectl describe` shows it.

use crate::context::Context;
use crds::conditions;
use crds::status::NetworkStatus;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

/// The longest note that the API takes is 1024 octets.
const MAX_NOTE: usize = 1000;

/// Is it something to look at?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

/// Writes an Event. One that cannot be written is not worth more than a line in the log.
pub async fn publish(context: &Context, about: &ObjectReference, kind: Kind, reason: &str, note: &str) {
    let note: String = note.chars().take(MAX_NOTE / 2).collect();
    let event = Event {
        type_: match kind {
            Kind::Normal => EventType::Normal,
            Kind::Warning => EventType::Warning,
        },
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, about).await {
        tracing::debug!(reason, %error, "an event could not be written");
    }
}

/// The Events that a change of status is worth: conditions that became good or bad.
pub fn transitions(old: Option<&NetworkStatus>, new: &NetworkStatus) -> Vec<(Kind, String, String)> {
    let before = |type_: &str| {
        let conditions = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == type_)
    };
    let changed = new.conditions.iter().filter(|new| {
        let old = before(&new.type_);
        // A resource is born without news: only what is wrong with it is.
        old.map_or_else(|| is_bad(new), |old| old.status != new.status && (is_bad(old) || is_bad(new)))
    });
    changed
        .map(|condition| {
            let kind = if is_bad(condition) { Kind::Warning } else { Kind::Normal };
            let reason = match kind {
                Kind::Normal => format!("{}{}", condition.type_, condition.reason),
                Kind::Warning => condition.reason.clone(),
            };
            (kind, reason, format!("{}: {}", condition.type_, condition.message))
        })
        .collect()
}

/// Conditions that are asked for (no encryption, a shared key) are not bad.
fn is_bad(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        conditions::CONFLICT | conditions::ADDRESS_CONFLICT => condition.status == "True",
        conditions::ACCEPTED
        | conditions::READY
        | conditions::HUBS_REACHABLE
        | conditions::AUTHORITY_HEALTHY
        | conditions::CERTIFICATES_ISSUED => condition.status == "False",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn status(conditions: &[(&str, &str, &str)]) -> NetworkStatus {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            message: "why".into(),
            observed_generation: None,
            reason: (*reason).into(),
            status: (*status).into(),
            type_: (*type_).into(),
        };
        NetworkStatus { conditions: conditions.iter().map(condition).collect(), ..NetworkStatus::default() }
    }

    #[test]
    fn a_change_for_the_worse_warns_and_one_for_the_better_is_said() {
        let good = status(&[("Ready", "True", "Forwarding")]);
        let bad = status(&[("Ready", "False", "NoHub")]);
        assert_eq!(transitions(Some(&good), &bad), [(Kind::Warning, "NoHub".into(), "Ready: why".into())]);
        assert_eq!(
            transitions(Some(&bad), &good),
            [(Kind::Normal, "ReadyForwarding".into(), "Ready: why".into())]
        );
        assert_eq!(transitions(Some(&bad), &bad), []);
    }

    #[test]
    fn a_new_resource_says_only_what_is_wrong() {
        let new = status(&[("Accepted", "True", "Planned"), ("Conflict", "True", "SameNode")]);
        let said: Vec<_> = transitions(None, &new).into_iter().map(|(_, reason, _)| reason).collect();
        assert_eq!(said, ["SameNode"]);
    }

    #[test]
    fn what_was_asked_for_is_no_warning() {
        assert_eq!(transitions(None, &status(&[("Encrypted", "False", "AskedForNone")])), []);
    }
}
