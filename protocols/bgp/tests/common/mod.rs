//! Speakers that talk over streams in memory, in virtual time.
#![allow(dead_code, unreachable_pub)]

use bgp::{Command, Config, ConnectionId, Event, Phase, Role, Speaker};
use ipnet::IpNet;
use packet::Instant;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub const NETWORK: &str = "10.200.0.0/16";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A node and what its kernel holds.
pub struct Node {
    pub speaker: Speaker,
    pub kernel: BTreeMap<IpNet, Vec<IpAddr>>,
    pub events: Vec<Event>,
    /// What each neighbour may announce; everything when it is not listed.
    pub claims: HashMap<IpAddr, Vec<IpNet>>,
    /// Changes of the kernel's table, as they came.
    pub changes: Vec<(IpNet, Vec<IpAddr>)>,
    seed: u64,
}

/// One end of a stream: node and connection.
type End = (IpAddr, ConnectionId);

#[derive(Default)]
pub struct Net {
    pub now: Instant,
    pub nodes: BTreeMap<IpAddr, Node>,
    streams: HashMap<End, End>,
    /// Nodes that can't be reached: what is sent to them is lost, and nothing comes back.
    pub dead: BTreeSet<IpAddr>,
    /// Every message that was sent: from, to, octets.
    pub trace: Vec<(IpAddr, IpAddr, Vec<u8>)>,
}

pub fn hub(address: &str, asn: u32, phase: Phase) -> Config {
    let mut config = base(address, asn, Role::Hub, phase);
    config.listen_ranges = vec![net(NETWORK)];
    config
}

pub fn spoke(address: &str, asn: u32, prefix: &str) -> Config {
    let mut config = base(address, asn, Role::Spoke, Phase::Two);
    config.announce = vec![net(prefix)];
    config
}

fn base(address: &str, asn: u32, role: Role, phase: Phase) -> Config {
    let router_id: Ipv4Addr = address.parse().unwrap();
    let mut config = Config::new(asn, router_id, role, phase);
    config.networks = vec![net(NETWORK)];
    config.local_addresses = vec![ip(address)];
    config
}

impl Net {
    pub fn add(&mut self, config: Config) -> IpAddr {
        let address = config.local_addresses[0];
        let seed = self.nodes.len() as u64;
        let node = Node {
            speaker: Speaker::new(self.now, config, seed).unwrap(),
            kernel: BTreeMap::new(),
            events: Vec::new(),
            claims: HashMap::new(),
            changes: Vec::new(),
            seed,
        };
        self.nodes.insert(address, node);
        address
    }

    pub fn connect(&mut self, from: IpAddr, to: IpAddr) {
        let now = self.now;
        self.node(from).speaker.add_neighbour(now, to);
    }

    pub fn node(&mut self, address: IpAddr) -> &mut Node {
        self.nodes.get_mut(&address).unwrap()
    }

    pub fn kernel(&self, node: IpAddr, prefix: &str) -> Vec<IpAddr> {
        self.nodes[&node].kernel.get(&net(prefix)).cloned().unwrap_or_default()
    }

    pub fn is_up(&self, node: IpAddr, neighbour: IpAddr) -> bool {
        let mut all = self.nodes[&node].speaker.neighbours();
        all.any(|n| n.address == neighbour && n.state == bgp::State::Established)
    }

    /// The process is killed: its connections break, its kernel stays. Another one starts with `config`.
    pub fn restart(&mut self, config: Config) {
        let address = config.local_addresses[0];
        self.break_connections(address);
        let now = self.now;
        let node = self.node(address);
        node.speaker = Speaker::new(now, config, node.seed + 1000).unwrap();
    }

    /// All connections of a node break.
    pub fn break_connections(&mut self, node: IpAddr) {
        let now = self.now;
        let ends: Vec<End> = self.streams.keys().copied().filter(|(a, _)| *a == node).collect();
        for end in ends {
            if let Some(other) = self.streams.remove(&end) {
                self.streams.remove(&other);
                if !self.dead.contains(&other.0) {
                    self.node(other.0).speaker.handle_closed(now, other.1);
                }
                self.node(end.0).speaker.handle_closed(now, end.1);
            }
        }
    }

    /// Injects octets into the stream from one node to another.
    pub fn inject(&mut self, from: IpAddr, to: IpAddr, bytes: &[u8]) {
        let found = self.streams.iter().find(|(a, b)| a.0 == from && b.0 == to);
        let (_, (node, connection)) = found.expect("a stream");
        let (node, connection) = (*node, *connection);
        self.deliver(node, connection, bytes);
    }

    fn deliver(&mut self, to: IpAddr, connection: ConnectionId, bytes: &[u8]) {
        let now = self.now;
        let node = self.node(to);
        let claims = &node.claims;
        let filter = |neighbour: IpAddr, prefix: IpNet| {
            claims.get(&neighbour).is_none_or(|own| own.iter().any(|o| o.contains(&prefix)))
        };
        node.speaker.handle_bytes(now, connection, bytes, &filter);
    }

    pub fn review(&mut self, node: IpAddr) {
        let now = self.now;
        let node = self.node(node);
        let claims = &node.claims;
        let filter = |neighbour: IpAddr, prefix: IpNet| {
            claims.get(&neighbour).is_none_or(|own| own.iter().any(|o| o.contains(&prefix)))
        };
        node.speaker.review(now, &filter);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let due = self.nodes.values().filter_map(|n| n.speaker.poll_timeout()).min();
            match due.filter(|due| *due <= end) {
                Some(due) => {
                    self.now = self.now.max(due);
                    let now = self.now;
                    for node in self.nodes.values_mut() {
                        if node.speaker.poll_timeout().is_some_and(|due| due <= now) {
                            node.speaker.handle_timeout(now);
                        }
                    }
                }
                None => {
                    self.now = end;
                    return;
                }
            }
        }
    }

    pub fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Carries everything until nobody has anything to say.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for address in self.nodes.keys().copied().collect::<Vec<_>>() {
                while let Some(command) = self.node(address).speaker.poll_command() {
                    quiet = false;
                    self.carry_out(address, command);
                }
                let node = self.node(address);
                while let Some(change) = node.speaker.poll_route() {
                    node.changes.push((change.prefix, change.next_hops.clone()));
                    if change.next_hops.is_empty() {
                        node.kernel.remove(&change.prefix);
                    } else {
                        node.kernel.insert(change.prefix, change.next_hops);
                    }
                }
                while let Some(event) = node.speaker.poll_event() {
                    node.events.push(event);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, from: IpAddr, command: Command) {
        let now = self.now;
        match command {
            Command::Connect { connection, remote } => {
                let reachable = !self.dead.contains(&from) && !self.dead.contains(&remote);
                if !reachable {
                    return; // The connection times out.
                }
                let accepted =
                    self.nodes.get_mut(&remote).and_then(|n| n.speaker.handle_accepted(now, from).ok());
                match accepted {
                    Some(other) => {
                        self.streams.insert((from, connection), (remote, other));
                        self.streams.insert((remote, other), (from, connection));
                        self.node(from).speaker.handle_connected(now, connection);
                    }
                    None => self.node(from).speaker.handle_closed(now, connection),
                }
            }
            Command::Send { connection, bytes } => {
                let Some((to, other)) = self.streams.get(&(from, connection)).copied() else { return };
                if self.dead.contains(&from) || self.dead.contains(&to) {
                    return; // Not acknowledged.
                }
                self.trace.push((from, to, bytes.clone()));
                self.node(from).speaker.handle_sent(now, connection, bytes.len());
                self.deliver(to, other, &bytes);
            }
            Command::Close { connection } => {
                if let Some((to, other)) = self.streams.remove(&(from, connection)) {
                    self.streams.remove(&(to, other));
                    if !self.dead.contains(&from) && !self.dead.contains(&to) {
                        self.node(to).speaker.handle_closed(now, other);
                    }
                }
            }
        }
    }
}
