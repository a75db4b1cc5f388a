//! Echo requests from a host, by the kernel's ping sockets.

use crate::error::{Error, Result};
use crate::topology::Node;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How to ping.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Source address; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// How many requests.
    pub count: u16,
    /// Time between two requests.
    pub interval: Duration,
    /// How long to wait for the answers after the last request.
    pub patience: Duration,
    /// Octets of data.
    pub size: usize,
    /// Set Don't Fragment, and don't let the sending kernel fragment.
    pub dont_fragment: bool,
    /// TTL or hop limit; `None`: the kernel's.
    pub ttl: Option<u32>,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            source: None,
            count: 3,
            interval: Duration::from_millis(100),
            patience: Duration::from_secs(2),
            size: 56,
            dont_fragment: false,
            ttl: None,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct PingReport {
    /// Requests sent.
    pub sent: usize,
    /// Round trip of each answer, by its number.
    pub round_trips: Vec<(u16, Duration)>,
    /// What the kernel said to requests it refused.
    pub refusals: Vec<String>,
}

impl PingReport {
    /// Every request was answered.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.sent > 0 && self.round_trips.len() == self.sent
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} answered {:.1?} {:?}",
            self.round_trips.len(),
            self.sent,
            self.round_trips,
            self.refusals
        )
    }
}

impl Ping {
    /// Pings `count` times.
    #[must_use]
    pub fn times(count: u16) -> Self {
        Self { count, ..Self::default() }
    }

    /// Pings `to` from a host. Unanswered requests are no error here; the report counts them.
    pub fn run(&self, from: &Node, to: &str) -> Result<PingReport> {
        let to: IpAddr = to.parse().map_err(|e| Error::other(format!("{to}: {e}")))?;
        from.namespace()
            .enter(|| self.exchange(to))?
            .map_err(Error::io(format!("ping {to} from {}", from.name())))
    }

    /// The same, and an error unless every request was answered.
    pub fn expect(&self, from: &Node, to: &str) -> Result<PingReport> {
        let report = self.run(from, to)?;
        if report.complete() {
            return Ok(report);
        }
        Err(Error::other(format!("ping {to} from {}: {report}", from.name())))
    }

    fn exchange(&self, to: IpAddr) -> std::io::Result<PingReport> {
        let socket = self.open(to)?;
        let mut report = PingReport::default();
        let mut sent_at = Vec::new();
        let start = Instant::now();
        for number in 0..self.count {
            let due = start + self.interval * u32::from(number);
            self.listen(&socket, due, &sent_at, &mut report);
            sent_at.push(Instant::now());
            report.sent += 1;
            if let Err(e) = socket.send_to(&self.request(to, number), &SocketAddr::new(to, 0).into()) {
                report.refusals.push(e.to_string());
            }
        }
        self.listen(&socket, Instant::now() + self.patience, &sent_at, &mut report);
        Ok(report)
    }

    fn open(&self, to: IpAddr) -> std::io::Result<Socket> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        if let Some(ttl) = self.ttl {
            match to {
                IpAddr::V4(_) => socket.set_ttl_v4(ttl)?,
                IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl)?,
            }
        }
        if to.is_ipv4() {
            let mode = if self.dont_fragment { Ipv4PathMtuDiscovery::DO } else { Ipv4PathMtuDiscovery::DONT };
            set_ip_mtu_discover(&socket, mode)?;
        }
        Ok(socket)
    }

    /// An echo request; the kernel fills in identifier and checksum.
    fn request(&self, to: IpAddr, number: u16) -> Vec<u8> {
        let kind = if to.is_ipv4() { 8 } else { 128 };
        let mut request = vec![kind, 0, 0, 0, 0, 0];
        request.extend(number.to_be_bytes());
        request.resize(8 + self.size, 0x5a);
        request
    }

    fn listen(&self, socket: &Socket, until: Instant, sent_at: &[Instant], report: &mut PingReport) {
        loop {
            let all_answered = report.round_trips.len() == usize::from(self.count);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || all_answered || socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            let mut octets = [0u8; 8];
            // The rest of the datagram is of no interest, and is dropped.
            match (&mut &*socket).read(&mut octets) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    report.refusals.push(e.to_string());
                    continue;
                }
            }
            let number = u16::from_be_bytes([octets[6], octets[7]]);
            let known = report.round_trips.iter().any(|(n, _)| *n == number);
            if let Some(sent) = sent_at.get(usize::from(number)).filter(|_| !known) {
                report.round_trips.push((number, sent.elapsed()));
            }
        }
    }
}
