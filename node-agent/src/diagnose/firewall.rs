//! Firewall rules that would rewrite or drop overlay packets, as far as `nft` or `iptables` tell. Best effort: rules
//! can be written in more ways than can be understood, so nothing here is more than a warning.

use super::{ok, warn};
use crate::control::Snapshot;
use crate::{nft, sources};
use rpc::agent::Check;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks the host's rules.
pub(super) async fn checks(snapshots: &[Snapshot]) -> Vec<Check> {
    let interfaces: Vec<&str> = snapshots.iter().map(|s| s.config.interface()).collect();
    let rules = match output("nft", &["-a", "list", "ruleset"]).await {
        Some(rules) => rules,
        None => match output("iptables-save", &[]).await {
            Some(rules) => rules,
            None => return by_netlink(&interfaces),
        },
    };
    let mut checks = Vec::new();
    let kept = nft::exists(sources::TABLE).unwrap_or(false);
    if let Some(rule) = masquerades(&rules, &interfaces).filter(|_| !kept) {
        checks.push(warn(
            "masquerade",
            format!("this rule may rewrite the source of overlay packets: {rule}"),
            format!(
                "let it leave out what goes out by {}; peers refuse packets from addresses that are not this node's",
                interfaces.join(", ")
            ),
        ));
    }
    checks.extend(drops_forwarded(&rules).map(|chain| drops(chain, &interfaces)));
    if checks.is_empty() {
        checks.push(ok("firewall", "no rule found that rewrites or drops overlay packets"));
    }
    checks
}

/// Without tools, as in a container: what the kernel says of chains. Rules are not read.
fn by_netlink(interfaces: &[&str]) -> Vec<Check> {
    let chains = match nft::forward_drops() {
        Ok(chains) => chains,
        Err(error) => {
            return vec![warn("firewall", format!("nf_tables: {error}"), "look at the rules by hand")];
        }
    };
    let mut checks: Vec<Check> = chains.iter().map(|chain| drops(chain, interfaces)).collect();
    // The older iptables has tables of its own, which are not asked for here.
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        checks.push(warn(
            "forward policy",
            "iptables-legacy is in use, and can't be asked from here",
            "on the node, see that iptables-legacy -S FORWARD drops nothing of the overlay",
        ));
    }
    if checks.is_empty() {
        checks.push(ok("firewall", "no chain drops what is forwarded, unless by a rule"));
    }
    checks
}

fn drops(chain: &str, interfaces: &[&str]) -> Check {
    let commands = interfaces.iter().flat_map(|interface| {
        ["-i", "-o"].map(|way| format!("iptables -I FORWARD {way} {interface} -j ACCEPT"))
    });
    warn(
        "forward policy",
        format!("forwarded packets are dropped unless a rule accepts them: {chain}"),
        format!(
            "where the network plugin has no rule for pods, on the node: {}",
            commands.collect::<Vec<_>>().join("; ")
        ),
    )
}

async fn output(tool: &str, arguments: &[&str]) -> Option<String> {
    let run = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first masquerade rule that isn't confined to another output interface.
fn masquerades<'a>(rules: &'a str, interfaces: &[&str]) -> Option<&'a str> {
    rules.lines().map(str::trim).find(|line| {
        let masquerades = line.contains("masquerade") || line.contains("-j MASQUERADE");
        masquerades && !is_confined(line, interfaces)
    })
}

/// Does the rule name an output interface that isn't one of ours, or leave ours out?
fn is_confined(line: &str, interfaces: &[&str]) -> bool {
    let words: Vec<&str> = line.split_whitespace().map(|w| w.trim_matches('"')).collect();
    let at = words.iter().position(|w| ["oifname", "oif", "-o"].contains(w));
    let Some(at) = at else { return false };
    let negated = words.get(at + 1) == Some(&"!=") || (at > 0 && words.get(at - 1) == Some(&"!"));
    let named = words
        .get(if words.get(at + 1) == Some(&"!=") { at + 2 } else { at + 1 })
        .copied()
        .unwrap_or_default();
    interfaces.contains(&named) == negated
}

fn drops_forwarded(rules: &str) -> Option<&str> {
    let mut lines = rules.lines().map(str::trim);
    lines.find(|line| {
        line.starts_with(":FORWARD DROP") || (line.contains("hook forward") && line.contains("policy drop"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masquerade_rule_for_any_interface_is_reported() {
        let rules = "table ip nat {\n  chain post {\n    ip saddr 10.0.0.0/8 masquerade\n  }\n}";
        assert_eq!(masquerades(rules, &["dmvpn0"]), Some("ip saddr 10.0.0.0/8 masquerade"));
        assert!(masquerades("-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE", &["dmvpn0"]).is_some());
    }

    #[test]
    fn a_masquerade_rule_for_another_interface_is_harmless() {
        assert_eq!(masquerades("oifname \"eth0\" masquerade", &["dmvpn0"]), None);
        assert_eq!(masquerades("-A POSTROUTING -o eth0 -j MASQUERADE", &["dmvpn0"]), None);
        assert_eq!(masquerades("oifname != \"dmvpn0\" masquerade", &["dmvpn0"]), None);
        assert_eq!(masquerades("-A POSTROUTING ! -o dmvpn0 -j MASQUERADE", &["dmvpn0"]), None);
    }

    #[test]
    fn a_masquerade_rule_for_all_but_another_interface_is_reported() {
        assert!(masquerades("oifname != \"eth0\" masquerade", &["dmvpn0"]).is_some());
    }

    #[test]
    fn a_forward_policy_of_drop_is_reported() {
        assert!(drops_forwarded("type filter hook forward priority filter; policy drop;").is_some());
        assert!(drops_forwarded(":FORWARD DROP [0:0]").is_some());
        assert!(drops_forwarded(":FORWARD ACCEPT [0:0]").is_none());
    }
}
