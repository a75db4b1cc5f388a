//! What the endpoint is told.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// An endpoint's settings; they may change while it runs, and then hold for what begins afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// IKE proposals by preference, as strongSwan names them (`aes256gcm16-prfsha384-x25519`).
    pub ike: Vec<String>,
    /// ESP proposals by preference, as strongSwan names them (`aes128gcm16`, `aes128gcm16-x25519`); one without a
    /// group uses the IKE SA's for rekeying.
    pub esp: Vec<String>,
    /// Our underlay addresses as bound, one per IP version: what NAT detection hashes.
    pub local: Vec<IpAddr>,
    /// Our port for IKE alone (500) and the one shared with ESP in UDP (4500).
    pub ports: (u16, u16),
    /// Ask for ESP in UDP even without a NAT, by a false NAT_DETECTION_SOURCE_IP.
    pub force_encapsulation: bool,
    /// Workers of the datapath. An SPI we hand out carries its owner, below this, in its lowest
    /// `ceil(log2(workers))` bits.
    pub workers: u16,
    /// Child SAs with peers of ours: one for each worker (RFC 9611), at most this many. 1: a single one.
    pub lanes: u16,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
    /// Bounds.
    pub limits: Limits,
    /// A peer that was silent for so long is asked whether it lives.
    pub dpd_delay: Duration,
    /// Interval of NAT keepalives while we are behind a NAT.
    pub keepalive: Duration,
    /// Octets of the largest IKE message sent in one piece (IP packet); longer ones are fragmented (RFC 7383).
    pub fragment_size: u16,
    /// Tell the secrets of each IKE SA ([`crate::Event::IkeKeys`]).
    pub export_keys: bool,
}

/// When SAs are replaced. Each is jittered downwards by up to a tenth, so that the two ends seldom collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// IKE SA.
    pub ike: Duration,
    /// Child SA.
    pub child: Duration,
    /// Packets sent by a child SA without ESN after which it is replaced; below 2^32.
    pub packets: u64,
    /// Octets sent by a child SA after which it is replaced.
    pub octets: u64,
}

/// Bounds on what peers can grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Half-open sessions begun by peers, at most.
    pub half_open: usize,
    /// Half-open sessions from which on strangers must return a cookie first (RFC 7296 §2.6).
    pub cookie_from: usize,
    /// Sessions in all.
    pub sessions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ike: vec!["aes256gcm16-prfsha384-x25519".to_owned()],
            esp: ["aes128gcm16", "aes256gcm16", "chacha20poly1305"].map(str::to_owned).to_vec(),
            local: Vec::new(),
            ports: (500, 4500),
            force_encapsulation: true,
            workers: 1,
            lanes: 1,
            lifetimes: Lifetimes::default(),
            limits: Limits::default(),
            dpd_delay: Duration::from_secs(30),
            keepalive: Duration::from_secs(20),
            fragment_size: 1280,
            export_keys: false,
        }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            ike: Duration::from_secs(4 * 3600),
            child: Duration::from_secs(3600),
            packets: 1 << 31,
            octets: 1 << 43,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { half_open: 1024, cookie_from: 64, sessions: 16_384 }
    }
}
