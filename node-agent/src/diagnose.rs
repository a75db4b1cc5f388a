//! Checks of what a tunnel needs from its surroundings, each with what to do when it is not so.

mod firewall;
mod host;
mod security;
mod tunnel;

use crate::control::Snapshot;
use rpc::agent::{Check, Configuration, Verdict};

/// Runs every check.
pub async fn run(snapshots: &[Snapshot], configuration: &Configuration) -> Vec<Check> {
    let mut checks = vec![manifests(configuration)];
    if snapshots.is_empty() {
        checks.push(fail(
            "tunnels",
            "none runs",
            "write a DmvpnHub or DmvpnSpoke for this node into the manifests",
        ));
    }
    for snapshot in snapshots {
        checks.extend(tunnel::checks(snapshot));
        checks.extend(security::checks(snapshot));
        checks.extend(host::checks(snapshot));
    }
    checks.extend(firewall::checks(snapshots).await);
    checks
}

fn manifests(configuration: &Configuration) -> Check {
    if configuration.errors.is_empty() {
        return ok("manifests", format!("{} is in force", configuration.source));
    }
    let advice = "correct the manifests; until then the configuration before stays in force";
    fail("manifests", configuration.errors.join("; "), advice)
}

fn named(snapshot: &Snapshot, what: &str) -> String {
    format!("{} {what}", snapshot.config.interface())
}

fn ok(name: impl Into<String>, found: impl Into<String>) -> Check {
    check(name, Verdict::Ok, found, "")
}

fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
    check(name, Verdict::Warn, found, advice)
}

fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
    check(name, Verdict::Fail, found, advice)
}

fn check(
    name: impl Into<String>,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Check {
    Check { name: name.into(), verdict: verdict.into(), found: found.into(), advice: advice.into() }
}
