//! What a station knows of others: who registered with us, what was answered to us, what was mapped by hand.

use crate::event::PeerInfo;
use ipnet::IpNet;
use packet::{Instant, Path};
use prefix_trie::joint::JointPrefixMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// (Server) a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// Who; its path is the only candidate.
    pub(crate) info: PeerInfo,
    /// The path it is reached by.
    pub(crate) path: Path,
    /// Registered as unique.
    pub(crate) unique: bool,
    /// Until when it holds.
    pub(crate) expires: Instant,
}

impl Registered {
    /// Whom it belongs to: the identity asserted, else the NBMA address claimed.
    pub(crate) fn holder(&self) -> Holder<'_> {
        match &self.info.identity {
            Some(identity) => Holder::Identity(identity),
            None => Holder::Nbma(self.info.nbma_claimed),
        }
    }
}

/// Who holds a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    /// One of ours, by name.
    Identity(&'a str),
    /// A foreign router, by the NBMA address it claims.
    Nbma(IpAddr),
}

/// An answer we got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The responder.
    pub(crate) info: PeerInfo,
    /// Until when it holds.
    pub(crate) expires: Instant,
}

/// Registrations by prefix, the most specific found first; and how many each path has.
#[derive(Clone, Default)]
pub(crate) struct Registrations {
    map: JointPrefixMap<IpNet, Registered>,
    by_path: BTreeMap<Path, usize>,
}

impl Registrations {
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn get(&self, prefix: &IpNet) -> Option<&Registered> {
        self.map.get(prefix)
    }

    /// The most specific registration that covers an address.
    pub(crate) fn covering(&self, address: IpAddr) -> Option<(IpNet, &Registered)> {
        self.map.get_lpm(&IpNet::from(address))
    }

    /// How many registrations came by this path.
    pub(crate) fn on_path(&self, path: &Path) -> usize {
        self.by_path.get(path).copied().unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, entry: Registered) -> Option<Registered> {
        *self.by_path.entry(entry.path).or_insert(0) += 1;
        let before = self.map.insert(prefix, entry);
        if let Some(before) = &before {
            self.uncount(before.path);
        }
        before
    }

    pub(crate) fn remove(&mut self, prefix: &IpNet) -> Option<Registered> {
        let removed = self.map.remove(prefix)?;
        self.uncount(removed.path);
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &Registered)> {
        self.map.iter()
    }

    fn uncount(&mut self, path: Path) {
        if let Some(count) = self.by_path.get_mut(&path) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_path.remove(&path);
            }
        }
    }
}

impl Serialize for Registrations {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.map.iter().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Registrations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut registrations = Self::default();
        for (prefix, entry) in Vec::<(IpNet, Registered)>::deserialize(deserializer)? {
            registrations.insert(prefix, entry);
        }
        Ok(registrations)
    }
}

/// How a cache entry came to be; the later in this order, the more it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EntryKind {
    /// Being resolved.
    Incomplete,
    /// Answered to us.
    Cached,
    /// Registered with us.
    Registered,
    /// A server that we are registered with.
    Nhs,
    /// Mapped by hand.
    Static,
    /// Our own address.
    Local,
}

/// A cache entry, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// What it is about.
    pub prefix: IpNet,
    /// How it came to be.
    pub kind: EntryKind,
    /// Tunnel address of the station that leads there.
    pub protocol_address: IpAddr,
    /// The path, where one is known: the best candidate.
    pub path: Option<Path>,
    /// NBMA address the station claims.
    pub nbma_claimed: Option<IpAddr>,
    /// Is it behind a NAT, as far as is known?
    pub natted: bool,
    /// Until when it holds; `None`: until changed.
    pub expires: Option<Instant>,
    /// Its NHRP group.
    pub group: Option<String>,
    /// The identity it asserts.
    pub identity: Option<String>,
}
