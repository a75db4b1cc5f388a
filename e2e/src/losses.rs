//! Where packets were lost that nobody was told to lose: what the kernel counted in a lab's namespaces, and on the whole
//! machine since the lab was made. A story that misses a packet says with it who had it last: the lab's own links and
//! hosts, the machine, or a node under test.

use crate::netns::Namespace;
use std::fs;

/// The machine's counters, which no namespace has of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// Frames that a CPU's queue had no room for.
    backlog: u64,
    /// Packets that waited for a neighbour which never answered, or with too many others.
    unresolved: u64,
}

impl Machine {
    /// What was counted since the machine started.
    pub(crate) fn now() -> Self {
        let column = |path: &str, column: usize, skip: usize| -> u64 {
            let text = fs::read_to_string(path).unwrap_or_default();
            let cell = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
            text.lines().skip(skip).filter_map(cell).sum()
        };
        let discards = |path| column(path, 11, 1);
        Self {
            backlog: column("/proc/net/softnet_stat", 1, 0),
            unresolved: discards("/proc/net/stat/arp_cache") + discards("/proc/net/stat/ndisc_cache"),
        }
    }

    /// What was counted since then, in words.
    pub(crate) fn since(self) -> Vec<String> {
        let now = Self::now();
        [
            ("frames by a CPU's full queue (netdev_max_backlog)", now.backlog - self.backlog),
            ("packets for neighbours that did not answer", now.unresolved - self.unresolved),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("the machine: {count} {what}"))
        .collect()
    }
}

/// What the kernel counted as lost in a namespace, in words.
pub(crate) fn of(namespace: &Namespace) -> Vec<String> {
    // Of the thread that has entered it: `/proc/net` would be the main thread's.
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let texts = namespace.enter(|| ["dev", "snmp", "snmp6", "raw", "raw6"].map(read));
    let Ok([dev, snmp, snmp6, raw, raw6]) = texts else { return Vec::new() };
    let mut counts = interfaces(&dev);
    for (label, name) in [("Udp", "RcvbufErrors"), ("Udp", "SndbufErrors"), ("Ip", "OutDiscards")] {
        counts.push((format!("{label} {name}"), labelled(&snmp, label, name)));
    }
    for name in ["Udp6RcvbufErrors", "Udp6SndbufErrors", "Ip6OutDiscards"] {
        let line = snmp6.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        counts.push((name.to_owned(), line.unwrap_or(0)));
    }
    for (name, text) in [("raw sockets", raw), ("raw sockets of IPv6", raw6)] {
        let drops = |line: &str| line.split_whitespace().next_back()?.parse::<u64>().ok();
        counts.push((name.to_owned(), text.lines().filter_map(drops).sum()));
    }
    let lost = counts.into_iter().filter(|(_, count)| *count > 0);
    lost.map(|(what, count)| format!("{}: {count} at {what}", namespace.name())).collect()
}

/// Frames that an interface had no room for, or did not take. Of a TAP, "sent" is what waits for its reader.
fn interfaces(dev: &str) -> Vec<(String, u64)> {
    let counts = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let (received, sent) = (*numbers.get(3)?, *numbers.get(11)?);
        let name = name.trim();
        Some([(format!("{name}, receiving"), received), (format!("{name}, sending"), sent)])
    };
    dev.lines().filter_map(counts).flatten().collect()
}

/// A number of `/proc/net/snmp`: a line of names, a line of values, both with the same label before them.
fn labelled(snmp: &str, label: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(n, _)| *n == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let dev = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\ndmvpn0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let expected = [("dmvpn0, receiving".to_owned(), 4), ("dmvpn0, sending".to_owned(), 12)];
        assert_eq!(interfaces(dev), expected);
        let snmp = "Ip: Forwarding OutDiscards\nIp: 1 7\nUdp: InDatagrams RcvbufErrors\nUdp: 5 6\n";
        assert_eq!((labelled(snmp, "Udp", "RcvbufErrors"), labelled(snmp, "Ip", "OutDiscards")), (6, 7));
        assert_eq!(labelled(snmp, "Udp", "SndbufErrors"), 0);
    }

    #[test]
    fn the_machine_counts() {
        let Machine { backlog, unresolved } = Machine::now();
        let again = Machine::now();
        assert!(again.backlog >= backlog && again.unresolved >= unresolved);
    }
}
