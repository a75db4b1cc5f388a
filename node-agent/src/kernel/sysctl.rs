//! Kernel switches under `/proc/sys`: written where that is allowed, remembered so that `uninstall` can undo them, and
//! reported by `diagnose` where not.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One switch and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Below `/proc/sys`, with slashes.
    pub key: String,
    /// What to write.
    pub wanted: &'static str,
    /// Values that are good as well.
    pub good: &'static [&'static str],
    /// What goes wrong otherwise.
    pub why: &'static str,
    /// Is traffic lost otherwise?
    pub vital: bool,
    /// Of this tunnel's interface only, gone with it; others are remembered for `uninstall`.
    pub local: bool,
}

/// What tunnel interface `name` needs. `v6`: the overlay carries IPv6. `hub`: packets come from one peer for another.
#[must_use]
pub fn needed(name: &str, v6: bool, hub: bool) -> Vec<Switch> {
    let own = |leaf: &str, wanted, good, why| Switch {
        key: format!("net/{leaf}").replace("IF", name),
        wanted,
        good,
        why,
        vital: true,
        local: true,
    };
    let harmless = |switch: Switch| Switch { vital: false, ..switch };
    let global = |key: &str, why| Switch {
        key: key.to_owned(),
        wanted: "1",
        good: &[],
        why,
        vital: true,
        local: false,
    };
    let mut switches = vec![
        harmless(own("ipv4/conf/IF/accept_redirects", "0", &[], "a peer could redirect this node's traffic")),
        own("ipv4/conf/IF/rp_filter", "2", &["0"], "answers that come by another peer would be dropped"),
        harmless(own("ipv6/conf/IF/accept_redirects", "0", &[], "a peer could redirect this node's traffic")),
        // The link-layer address is the same on every node, so would be the address made from it.
        own("ipv6/conf/IF/addr_gen_mode", "1", &[], "every node would have the same link-local address"),
        harmless(own("ipv6/conf/IF/accept_ra", "0", &[], "a peer could become this node's default router")),
        own("ipv4/conf/IF/forwarding", "1", &[], "nothing would be forwarded from the overlay"),
        global("net/ipv4/ip_forward", "nothing is forwarded between the overlay and other interfaces"),
    ];
    if hub {
        // The kernel sends redirects if either says so. No node of ours heeds them, and no router that forwards has to.
        let why = "packets that this node forwards from peer to peer would be answered with ICMP redirects, which \
                   routers ignore";
        switches.push(harmless(own("ipv4/conf/IF/send_redirects", "0", &[], why)));
        let all = Switch { wanted: "0", ..global(SEND_REDIRECTS, why) };
        switches.push(harmless(all));
    }
    if v6 {
        let why = "IPv6 is not forwarded between the overlay and other interfaces";
        switches.push(global(FORWARDING_V6, why));
    }
    switches
}

/// Is it as it should be? `None`: there is no such switch (no IPv6, no such interface).
#[must_use]
pub fn is_good(switch: &Switch) -> Option<bool> {
    let value = read(&switch.key)?;
    Some(value == switch.wanted || switch.good.contains(&value.as_str()) || is_overruled(&switch.key, &value))
}

/// A router heeds neither advertisements nor redirects, unless it was told to all the same (2).
fn is_overruled(key: &str, value: &str) -> bool {
    let Some((interface, leaf)) = key.strip_prefix("net/ipv6/").and_then(|rest| rest.rsplit_once('/')) else {
        return false;
    };
    ["accept_ra", "accept_redirects"].contains(&leaf)
        && value == "1"
        && read(&format!("net/ipv6/{interface}/forwarding")).as_deref() == Some("1")
}

/// Sets every switch that is not good already. Returns those that could not be set.
pub fn apply(switches: &[Switch], memory: &Memory) -> Vec<(Switch, io::Error)> {
    let mut failed = Vec::new();
    for switch in switches {
        if is_good(switch) != Some(false) || (switch.key == FORWARDING_V6 && lives_by_advertisements()) {
            continue;
        }
        if !switch.local {
            memory.remember(&switch.key);
        }
        if let Err(error) = fs::write(path(&switch.key), switch.wanted) {
            failed.push((switch.clone(), error));
        }
    }
    failed
}

const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";
const SEND_REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

/// Does this machine have its IPv6 default route from router advertisements? To forward would make it lose that, so
/// here a person must decide (`accept_ra=2` on the interface keeps it); `diagnose` says so.
fn lives_by_advertisements() -> bool {
    // RTF_ADDRCONF and RTF_DEFAULT among the flags of a route to ::/0.
    const DEFAULT_BY_ADVERTISEMENT: u32 = 0x0005_0000;
    let table = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags = words.get(8).and_then(|f| u32::from_str_radix(f, 16).ok()).unwrap_or(0);
        words.get(1) == Some(&"00") && flags & DEFAULT_BY_ADVERTISEMENT == DEFAULT_BY_ADVERTISEMENT
    }) && !keeps_advertisements()
}

/// Does any interface accept advertisements even while forwarding?
fn keeps_advertisements() -> bool {
    let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    interfaces.filter(|e| e.file_name() != "all" && e.file_name() != "default").any(|entry| {
        fs::read_to_string(entry.path().join("accept_ra")).is_ok_and(|value| value.trim() == "2")
    })
}

/// What global switches were before the first change, kept in the state directory.
#[derive(Clone, Debug)]
pub struct Memory {
    file: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered(BTreeMap<String, String>);

impl Memory {
    /// Kept in `state_dir`.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { file: state_dir.join("sysctl.json") }
    }

    /// Puts everything back and forgets it.
    pub fn restore(&self) -> io::Result<()> {
        for (key, value) in self.load().0 {
            // Another program may have changed it meanwhile, or the machine has restarted: then it is left alone.
            let ours = needed("", true, true).into_iter().find(|s| s.key == key);
            if ours.is_some_and(|s| read(&key).as_deref() == Some(s.wanted)) {
                fs::write(path(&key), value)?;
            }
        }
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn remember(&self, key: &str) {
        let mut remembered = self.load();
        if remembered.0.contains_key(key) {
            return;
        }
        let Some(value) = read(key) else { return };
        remembered.0.insert(key.to_owned(), value);
        let text = serde_json::to_string_pretty(&remembered.0).unwrap_or_default();
        if let Err(error) = fs::write(&self.file, text) {
            tracing::warn!(%error, key, "cannot remember a kernel switch; uninstall will leave it");
        }
    }

    fn load(&self) -> Remembered {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        Remembered(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key)).ok().map(|s| s.trim().to_owned())
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_of_the_interface_are_local() {
        let switches = needed("dmvpn0", true, true);
        for switch in &switches {
            assert_eq!(switch.local, switch.key.contains("dmvpn0"), "{}", switch.key);
        }
        assert!(switches.iter().any(|s| s.key == "net/ipv4/conf/dmvpn0/rp_filter"));
    }
    #[test]
    fn a_switch_without_which_nothing_is_lost_is_not_vital() {
        let vital = |leaf: &str| {
            let switches = needed("dmvpn0", true, true);
            switches.iter().find(|s| s.key.ends_with(leaf)).map(|s| s.vital)
        };
        assert_eq!(vital("all/send_redirects"), Some(false));
        assert_eq!(vital("dmvpn0/rp_filter"), Some(true));
        assert_eq!(vital("all/forwarding"), Some(true));
        // Addresses are added as ones that need no detection of duplicates.
        assert_eq!(vital("accept_dad"), None);
        let spoke = needed("dmvpn0", true, false);
        assert!(!spoke.iter().any(|s| s.key.contains("send_redirects")), "{spoke:?}");
    }
}
