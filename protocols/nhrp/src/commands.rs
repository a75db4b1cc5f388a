//! Commands that belong to no exchange, and what people are shown.

use crate::Event;
use crate::cache::{CacheEntry, EntryKind};
use crate::config::StaticEntry;
use crate::counters::Counters;
use crate::node::Node;
use crate::registration::Nhs;
use crate::timer::Timer;
use ipnet::IpNet;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What [`Node::clear`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clear {
    /// Answers we got.
    Answers,
    /// (Server) registrations with us; stations register again when theirs is due.
    Registrations,
    /// Our registrations: made again at once.
    Servers,
    /// Counters.
    Counters,
}

/// Commands that belong to no exchange.
impl Node {
    /// Maps a peer that doesn't speak NHRP. Requests for it are answered with ourselves: only we have a path to it.
    pub fn add_static(&mut self, entry: StaticEntry) {
        self.state.statics.insert(entry.protocol_address, entry);
    }

    /// Takes such a mapping away, and withdraws what was answered for it.
    pub fn remove_static(&mut self, now: Instant, protocol_address: IpAddr) {
        let Some(entry) = self.state.statics.remove(&protocol_address) else { return };
        self.withdraw(now, IpNet::from(protocol_address));
        for prefix in entry.prefixes {
            self.withdraw(now, prefix);
        }
    }

    /// Our own NBMA address changed: servers are told at once, and what we answered is withdrawn.
    pub fn set_nbma_address(&mut self, now: Instant, address: IpAddr) {
        if self.config.nbma_address == address {
            return;
        }
        self.config.nbma_address = address;
        for id in self.state.nhs.keys().copied().collect::<Vec<_>>() {
            self.register_now(now, id);
        }
        self.withdraw_which(now, |_| true);
    }

    /// Forgets, as an operator asks for it.
    pub fn clear(&mut self, now: Instant, what: Clear) {
        match what {
            Clear::Answers => {
                for prefix in std::mem::take(&mut self.state.resolved).into_keys() {
                    self.state.timers.stop(Timer::Forget(prefix));
                }
            }
            Clear::Registrations => {
                for prefix in self.state.registered.iter().map(|(p, _)| p).collect::<Vec<_>>() {
                    self.unregister(prefix, "cleared");
                }
            }
            Clear::Servers => {
                for id in self.state.nhs.keys().copied().collect::<Vec<_>>() {
                    self.register_now(now, id);
                }
            }
            Clear::Counters => self.state.counters = Counters::default(),
        }
    }

    /// (Server) ends what is registered by this station's tunnel address, for a reason that people are told.
    pub fn end_registration(&mut self, address: IpAddr, reason: &'static str) {
        let registered = self.state.registered.iter();
        let prefixes: Vec<_> =
            registered.filter(|(_, r)| r.info.protocol_address == address).map(|(p, _)| p).collect();
        for prefix in prefixes {
            self.unregister(prefix, reason);
        }
    }

    /// (Server) who registered by one path is at another now, as is known by other means than its word.
    pub fn move_registrations(&mut self, from: Path, to: Path) {
        let there = self.state.registered.iter().filter(|(_, r)| r.path == from).map(|(p, _)| p);
        for prefix in there.collect::<Vec<_>>() {
            let Some(mut entry) = self.state.registered.get(&prefix).cloned() else { continue };
            entry.path = to;
            entry.info.candidates = vec![to];
            let (info, expires) = (entry.info.clone(), entry.expires);
            self.state.registered.insert(prefix, entry);
            self.event(Event::Registered { info, prefix, expires, moved_from: Some(from), new: false });
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// All that is known of addresses, for people.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheEntry> {
        let entry = |prefix: IpNet, kind, info: &crate::PeerInfo, path, expires| CacheEntry {
            prefix,
            kind,
            protocol_address: info.protocol_address,
            path,
            nbma_claimed: Some(info.nbma_claimed),
            natted: info.natted,
            expires,
            group: info.group.clone(),
            identity: info.identity.clone(),
        };
        let bare = |address: IpAddr, kind, path, nbma| CacheEntry {
            prefix: IpNet::from(address),
            kind,
            protocol_address: address,
            path,
            nbma_claimed: nbma,
            natted: false,
            expires: None,
            group: None,
            identity: None,
        };
        let nbma = self.config.nbma_address;
        let mut entries: Vec<_> = self
            .config
            .protocol_addresses
            .iter()
            .map(|a| bare(*a, EntryKind::Local, None, Some(nbma)))
            .collect();
        for (address, mapped) in &self.state.statics {
            entries.push(bare(*address, EntryKind::Static, Some(mapped.path), Some(mapped.path.remote)));
        }
        for accepted in self.state.nhs.values().flat_map(Nhs::accepted) {
            let prefix = IpNet::from(accepted.server);
            entries.push(entry(
                prefix,
                EntryKind::Nhs,
                &accepted.info,
                Some(accepted.path),
                Some(accepted.expires),
            ));
        }
        for (prefix, r) in self.state.registered.iter() {
            entries.push(entry(prefix, EntryKind::Registered, &r.info, Some(r.path), Some(r.expires)));
        }
        for (prefix, r) in &self.state.resolved {
            let path = r.info.candidates.first().copied();
            entries.push(entry(*prefix, EntryKind::Cached, &r.info, path, Some(r.expires)));
        }
        for resolution in self.state.resolutions.values() {
            entries.push(bare(resolution.destination, EntryKind::Incomplete, None, None));
        }
        entries
    }
}
