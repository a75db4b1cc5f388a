//! A tunnel's conditions, as the Kubernetes API has them. Pure.

use crate::control::Snapshot;
use crate::security::Proof;
use crds::conditions::{self, reasons};
use dmvpn::view::HubView;
use rpc::agent::Condition;

/// All of them.
#[must_use]
pub fn of(snapshot: &Snapshot) -> Vec<Condition> {
    let mut all = vec![ready(snapshot)];
    all.extend(hubs_reachable(snapshot));
    all.extend([encrypted(snapshot), identity_unverified(snapshot), address_conflict(snapshot)]);
    all
}

fn ready(snapshot: &Snapshot) -> Condition {
    let (reason, message) = if snapshot.up {
        (reasons::FORWARDING, String::new())
    } else if !snapshot.datapath {
        (reasons::DATAPATH_DOWN, snapshot.failures.last().cloned().unwrap_or_default())
    } else if snapshot.hubs.iter().all(|hub| hub.reason.is_none()) {
        (reasons::STARTING, "no hub has answered yet".to_owned())
    } else {
        (reasons::NO_HUB, "no hub carries: dmvpnctl diagnose says why".to_owned())
    };
    condition(conditions::READY, snapshot.up, reason, message)
}

fn hubs_reachable(snapshot: &Snapshot) -> Option<Condition> {
    let up = |hub: &&HubView| hub.registered && hub.reachable;
    let count = snapshot.hubs.iter().filter(up).count();
    let down = snapshot.hubs.iter().find(|hub| !up(hub));
    let (reason, message) = match (count, down) {
        (_, None) if count == 0 => return None,
        (1.., None) => (reasons::REGISTERED, format!("{count} of {count}")),
        (1.., Some(hub)) => {
            (reasons::REGISTERED, format!("{count} of {}; {}", snapshot.hubs.len(), why(hub)))
        }
        (_, Some(hub)) if snapshot.unresolved.contains_key(&hub.name) => {
            (reasons::NAME_NOT_RESOLVED, format!("{}: {}", hub.name, snapshot.unresolved[&hub.name]))
        }
        (_, Some(hub)) if hub.reason.as_ref().is_some_and(|why| why.starts_with("refused")) => {
            (reasons::REGISTRATION_REFUSED, why(hub))
        }
        (_, Some(hub)) => (reasons::NO_ANSWER, why(hub)),
        (_, None) => return None,
    };
    Some(condition(conditions::HUBS_REACHABLE, count > 0, reason, message))
}

fn why(hub: &HubView) -> String {
    format!("{}: {}", hub.name, hub.reason.as_deref().unwrap_or("has not answered yet"))
}

/// True only if nothing can leave in clear, whatever becomes of this process: the datapath holds to that by itself.
fn encrypted(snapshot: &Snapshot) -> Condition {
    match &snapshot.config.protection {
        Some(_) => condition(conditions::ENCRYPTED, true, reasons::ALL_ENCRYPTED, String::new()),
        None => condition(
            conditions::ENCRYPTED,
            false,
            reasons::ASKED_FOR_NONE,
            "mode: None: everything leaves in clear; leave it out and write security.authentication"
                .to_owned(),
        ),
    }
}

fn identity_unverified(snapshot: &Snapshot) -> Condition {
    let (unverified, reason, message) = match snapshot.config.protection.as_ref().map(|p| p.proof) {
        Some(Proof::Certificates) => (false, reasons::CERTIFICATES, ""),
        Some(Proof::SharedKey) => (
            true,
            reasons::PRE_SHARED_KEY,
            "whoever knows the key may call itself anything: use certificates",
        ),
        None => (true, reasons::NO_ENCRYPTION, "without encryption nobody proves a name"),
    };
    condition(conditions::IDENTITY_UNVERIFIED, unverified, reason, message.to_owned())
}

fn address_conflict(snapshot: &Snapshot) -> Condition {
    match snapshot.conflicts.iter().next() {
        None => condition(conditions::ADDRESS_CONFLICT, false, reasons::NO_CONFLICT, String::new()),
        Some((hub, address)) => condition(
            conditions::ADDRESS_CONFLICT,
            true,
            reasons::UNIQUE_ADDRESS_TAKEN,
            format!("hub {hub} says that another node holds {address}: give one of them another address"),
        ),
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot_for_tests;

    fn status(snapshot: &Snapshot, kind: &str) -> (String, String) {
        let found = of(snapshot).into_iter().find(|condition| condition.r#type == kind).unwrap();
        (found.status, found.reason)
    }

    fn said(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn a_pre_shared_key_encrypts_and_leaves_names_unverified() {
        let snapshot = snapshot_for_tests();
        assert_eq!(status(&snapshot, "Encrypted"), said("True", "AllEncrypted"));
        assert_eq!(status(&snapshot, "IdentityUnverified"), said("True", "PreSharedKey"));
        assert_eq!(status(&snapshot, "Ready"), said("True", "Forwarding"));
    }

    #[test]
    fn what_was_asked_to_be_clear_is_not_encrypted() {
        let mut snapshot = snapshot_for_tests();
        snapshot.config.protection = None;
        assert_eq!(status(&snapshot, "Encrypted"), said("False", "AskedForNone"));
        assert_eq!(status(&snapshot, "IdentityUnverified"), said("True", "NoEncryption"));
    }
}
