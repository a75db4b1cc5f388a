//! Checks of what a tunnel needs from its surroundings, each with what to do when it is not so.

mod firewall;
mod host;
mod security;
mod tunnel;

use crate::control::Snapshot;
use crate::gateways::View;
use rpc::agent::{Check, Configuration, Verdict};

/// Runs every check.
pub async fn run(snapshots: &[Snapshot], by_gateways: &[View], configuration: &Configuration) -> Vec<Check> {
    let mut checks = vec![manifests(configuration)];
    checks.extend(by_gateways.iter().map(gateway));
    if snapshots.is_empty() && by_gateways.is_empty() {
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

/// A node without a tunnel of its own.
fn gateway(view: &View) -> Check {
    let View { name, gateway, problem } = view;
    let by = gateway.as_deref().unwrap_or("no node");
    match problem {
        None => ok(format!("{name} gateway"), format!("sends by {by}, which answers")),
        Some(problem) => fail(
            format!("{name} gateway"),
            format!("sends by {by}: {problem}"),
            "see that a gateway is up, on a link of this node, and lets ICMP echoes in",
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_tunnel_says_by_whom_it_sends_or_why_not() {
        let view = |problem: Option<&str>| View {
            name: "site".to_owned(),
            gateway: Some("a-2".to_owned()),
            problem: problem.map(str::to_owned),
        };
        let good = gateway(&view(None));
        assert_eq!((good.verdict(), good.found.as_str()), (Verdict::Ok, "sends by a-2, which answers"));
        let bad = gateway(&view(Some("none of a-2 answers")));
        assert_eq!(bad.verdict(), Verdict::Fail);
        assert!(bad.found.contains("none of a-2 answers"), "{}", bad.found);
    }
}
