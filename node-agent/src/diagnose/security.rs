//! Encryption: what handshakes failed of, as a person would say it, and what to do about it.

use super::{fail, named, ok, warn};
use crate::clock;
use crate::control::{FailedHandshake, Snapshot};
use crate::security::Proof;
use crate::sessions;
use ikev2::Failure;
use packet::Encapsulation;
use rpc::agent::Check;

/// Before this moment (2025-01-01) it can't be: this software is younger. Seconds since 1970.
const BORN: u64 = 1_735_689_600;
/// Failures shown, the newest; a scan of the Internet makes many.
const SHOWN: usize = 8;

/// Every check of one tunnel's encryption.
pub(super) fn checks(snapshot: &Snapshot) -> Vec<Check> {
    if snapshot.config.protection.is_none() {
        return vec![warn(
            named(snapshot, "encryption"),
            "mode: None: everything is sent in clear, and peers are who they say they are",
            "leave mode out and write security.authentication, unless this network protects itself",
        )];
    }
    let mut checks = vec![encryption(snapshot)];
    checks.extend(sessions::warnings(snapshot).into_iter().map(|warning| {
        warn(named(snapshot, "encryption"), warning, "what to do stands in the sentence itself")
    }));
    let now = clock::unix_millis() / 1000;
    checks.extend(time_of_day(snapshot, now));
    checks.extend(certificate(snapshot, now));
    checks.extend(hubs_without_identity(snapshot));
    let recent = snapshot.handshakes.recent(snapshot.now);
    checks.extend(recent.into_iter().take(SHOWN).map(|failed| handshake(snapshot, failed)));
    checks
}

fn encryption(snapshot: &Snapshot) -> Check {
    let name = named(snapshot, "encryption");
    match sessions::up(snapshot).count() {
        0 => ok(name, "nothing leaves in clear; no session is up yet"),
        1 => ok(
            name,
            format!("nothing leaves in clear; 1 session, {}", sessions::protection_of_tunnel(snapshot)),
        ),
        n => ok(
            name,
            format!("nothing leaves in clear; {n} sessions, {}", sessions::protection_of_tunnel(snapshot)),
        ),
    }
}

fn time_of_day(snapshot: &Snapshot, now: u64) -> Option<Check> {
    (now < BORN).then(|| {
        fail(
            named(snapshot, "time of day"),
            "the clock of this machine is years behind",
            "set it (chrony, timedatectl): certificates hold by the time of day",
        )
    })
}

fn certificate(snapshot: &Snapshot, now: u64) -> Option<Check> {
    let protection = snapshot.config.protection.as_ref()?;
    let name = named(snapshot, "certificate");
    let who = protection.identity.as_deref().unwrap_or_default();
    let (not_after, renew_by) = (protection.not_after?, protection.renew_by?);
    let left = not_after.saturating_sub(now);
    let left =
        if left < 2 * 86_400 { format!("{} h", left / 3600) } else { format!("{} days", left / 86_400) };
    Some(if now >= not_after {
        fail(name, format!("that of {who} has expired"), "renew it: every peer refuses this node")
    } else if now >= renew_by {
        warn(name, format!("that of {who} expires in {left}"), "renew it, or find out why nobody does")
    } else {
        ok(name, format!("{who}, for {left} more"))
    })
}

/// Whoever sits at the address of a hub that no identity is expected of is that hub, if only its certificate is good.
fn hubs_without_identity(snapshot: &Snapshot) -> Option<Check> {
    snapshot.config.protection.as_ref().filter(|p| p.proof == Proof::Certificates)?;
    let engine = snapshot.config.engine(None);
    let hubs: Vec<&str> =
        engine.hubs.iter().filter(|hub| hub.identity.is_none()).map(|hub| hub.name.as_str()).collect();
    (!hubs.is_empty()).then(|| {
        warn(
            named(snapshot, "hubs' identity"),
            format!("any node with a certificate of ours may act as hub at {}", hubs.join(", ")),
            "write hubs[].identity: the DNS name in that hub's certificate, or a pattern over it",
        )
    })
}

/// One failed handshake: what happened, and what to do.
fn handshake(snapshot: &Snapshot, failed: &FailedHandshake) -> Check {
    let FailedHandshake { at, path, initiator, reason } = failed;
    let ago = snapshot.now.since(*at).as_secs();
    let hub = snapshot.hubs.iter().find(|hub| hub.path.is_some_and(|p| p.remote == path.remote));
    let place = sessions::place(*path);
    let who = hub.map_or_else(|| place.clone(), |hub| format!("hub {} ({place})", hub.name));
    let name = named(snapshot, &format!("handshake with {who}"));
    let whose = if *initiator { "begun by us" } else { "begun by the peer" };
    let found = format!("{reason} ({whose}, {ago} s ago)");
    let advice = advice(snapshot, failed);
    // A stranger's failures are the stranger's, until somebody says that it is a peer.
    if *initiator && !matches!(reason, Failure::Full(_)) {
        fail(name, found, advice)
    } else {
        warn(name, found, advice)
    }
}

fn advice(snapshot: &Snapshot, failed: &FailedHandshake) -> String {
    let settings = snapshot.config.settings(snapshot.underlay);
    match &failed.reason {
        Failure::Timeout | Failure::Dead => match (failed.path.encapsulation, settings.ike_port) {
            (Encapsulation::Udp { port }, _) => format!(
                "does its agent run? Let UDP port {} here and {port} there pass in both directions, fragments too; a \
                 firewall that knows IKE on 4500 only when it began on 500 must be told",
                settings.udp_port
            ),
            (Encapsulation::Gre, Some(port)) => format!(
                "does it run? Let UDP port {port} and IP protocol 50 (ESP) pass in both directions; through a NAT only \
                 ESP in UDP passes: leave encapsulation out, or write Udp"
            ),
            (Encapsulation::Gre, None) => {
                "underlay.ikePort is 0, and without UDP there is no IKE to it: write 500, or encapsulation: Udp".to_owned()
            }
        },
        Failure::NoProposal { what, .. } => {
            let field = if what.eq_ignore_ascii_case("esp") { "security.esp" } else { "security.ike" };
            format!("write one that both have into {field} here, or into the peer's proposals")
        }
        Failure::Authentication(why) if why.contains("expired") || why.contains("not valid yet") || why.contains("not yet valid") => {
            "renew that certificate, unless the time of day is wrong here or there (timedatectl)".to_owned()
        }
        Failure::Authentication(why) if why.contains("revoked") => {
            "its owner has withdrawn it; give that node a new key and certificate if it is to come back".to_owned()
        }
        Failure::Authentication(_) => "compare security.authentication on both sides: the same method; the same key, or \
             roots (ca.crt) that the other's certificate leads to, with those between it and the root in its tls.crt"
            .to_owned(),
        Failure::Refused => "the reason is known to the peer only: see dmvpnctl diagnose, or the log, there".to_owned(),
        Failure::Identity { .. } => {
            "correct hubs[].identity, or the address: this is another machine than was meant".to_owned()
        }
        Failure::Selectors => {
            "the peer must offer GRE (IP protocol 47) between the two addresses in transport mode; tunnel mode is not DMVPN".to_owned()
        }
        Failure::Notify(_) | Failure::Protocol(_) => {
            "see the log of both sides; if the peer is of another make, its version helps whoever reads a report".to_owned()
        }
        Failure::Credentials(_) => "renew the peer's certificate; until then there is no tunnel to it".to_owned(),
        Failure::Full(_) => "many strangers try at once, or there are more peers than one node can hold: see the metrics".to_owned(),
        Failure::Deleted | Failure::Restarted | Failure::Closed => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot_for_tests;
    use dmvpn::Event;
    use packet::Path;
    use rpc::agent::Verdict;

    fn said(initiator: bool, path: Path, reason: Failure) -> Check {
        let mut snapshot = snapshot_for_tests();
        snapshot.handshakes.note(snapshot.now, &Event::SessionFailed { path, initiator, reason });
        checks(&snapshot).into_iter().find(|check| check.name.contains("handshake")).unwrap()
    }

    fn udp() -> Path {
        Path::udp([192, 0, 2, 9].into(), 4500)
    }

    #[test]
    fn what_each_side_offered_is_said_and_where_to_write_it() {
        let reason = Failure::NoProposal {
            what: "ESP".to_owned(),
            ours: "aes128gcm16".to_owned(),
            theirs: "aes256-sha256".to_owned(),
        };
        let check = said(true, udp(), reason);
        assert_eq!(check.verdict(), Verdict::Fail);
        assert!(
            check.found.contains("we offer aes128gcm16; the peer offers aes256-sha256"),
            "{}",
            check.found
        );
        assert!(check.advice.contains("security.esp"), "{}", check.advice);
    }

    #[test]
    fn silence_names_the_ports_that_must_pass() {
        assert!(said(true, udp(), Failure::Timeout).advice.contains("UDP port 4500 here and 4500 there"));
        let bare = said(true, Path::gre([192, 0, 2, 9].into()), Failure::Timeout);
        assert!(
            bare.name.contains("192.0.2.9 (esp)") && bare.advice.contains("UDP port 500 and IP protocol 50")
        );
    }

    #[test]
    fn a_stranger_who_fails_is_no_failure_of_ours() {
        let check = said(false, udp(), Failure::Authentication("wrong key".to_owned()));
        assert_eq!(check.verdict(), Verdict::Warn);
    }

    #[test]
    fn hubs_that_anybody_may_be_are_told() {
        let mut snapshot = snapshot_for_tests();
        assert_eq!(hubs_without_identity(&snapshot), None, "with one key for all nobody proves a name");
        snapshot.config.protection.as_mut().unwrap().proof = Proof::Certificates;
        let check = hubs_without_identity(&snapshot).unwrap();
        assert_eq!(check.verdict(), Verdict::Warn);
        assert!(check.found.ends_with("at 198.51.100.1"), "{}", check.found);
    }

    #[test]
    fn a_clock_that_is_years_behind_is_told() {
        let snapshot = snapshot_for_tests();
        assert!(time_of_day(&snapshot, 0).is_some());
        assert!(time_of_day(&snapshot, BORN).is_none());
    }
}
