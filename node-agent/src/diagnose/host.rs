//! The host: forwarding, reverse path filter and other switches of the kernel.

use super::{fail, ok, warn};
use crate::control::Snapshot;
use crate::kernel::sysctl::{self, Switch};
use rpc::agent::Check;
use std::fs;

/// Every check of the host for one tunnel.
pub(super) fn checks(snapshot: &Snapshot) -> Vec<Check> {
    let interface = snapshot.config.interface();
    let mut checks = Vec::new();
    let mut good = 0;
    for switch in sysctl::needed(interface, snapshot.config.carries_v6(), snapshot.config.is_hub()) {
        match sysctl::is_good(&switch) {
            Some(true) => good += 1,
            Some(false) => checks.push(bad(interface, &switch)),
            None => {}
        }
    }
    checks.push(ok(format!("{interface} kernel switches"), format!("{good} as they should be")));
    checks.extend(strict_filter(interface));
    checks
}

/// Traffic is lost for want of a vital one; an agent in a container may not be able to set it (`/proc/sys` is read-only).
fn bad(interface: &str, switch: &Switch) -> Check {
    let key = switch.key.replace('/', ".");
    let found = format!("{key} is not {}: {}", switch.wanted, switch.why);
    let advice = format!("on the node: sysctl -w {key}={}", switch.wanted);
    let name = format!("{interface} kernel switch");
    if switch.vital { fail(name, found, advice) } else { warn(name, found, advice) }
}

/// The kernel takes the larger of `all` and the interface's own value; 1 (strict) in `all` is overruled by our 2.
/// Other interfaces with 1 drop what leaves by the tunnel and comes back by them.
fn strict_filter(interface: &str) -> Option<Check> {
    let mut strict = Vec::new();
    for entry in fs::read_dir("/proc/sys/net/ipv4/conf").ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let value = fs::read_to_string(entry.path().join("rp_filter")).unwrap_or_default();
        if value.trim() == "1" && !["all", "default", interface].contains(&name.as_str()) {
            strict.push(name);
        }
    }
    if strict.is_empty() {
        return None;
    }
    strict.sort();
    strict.truncate(8);
    Some(warn(
        "reverse path filter",
        format!("strict on {}", strict.join(", ")),
        "harmless while hosts behind them route symmetrically; otherwise sysctl -w net.ipv4.conf.IF.rp_filter=2",
    ))
}
