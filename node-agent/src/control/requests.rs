//! Requests: configuration, questions, clearing.

use super::{Command, Control, FAILURE_MEMORY, MAX_FAILURES, Snapshot};
use crate::clock::{self, now};
use crate::config::TunnelConfig;
use crate::dns::Resolver;
use crate::executor::Step;
use crate::routing::Origin;
use crate::standing;
use dataplane::messages::Request;
use dmvpn::view::Role;
use dmvpn::{Clear, Tunnel};
use ipnet::IpNet;
use packet::Instant;
use rpc::agent::Severity;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

impl Control {
    pub(super) async fn on_command(&mut self, command: Command) {
        match command {
            Command::Reconfigure(config, taken) => {
                let same_station = !self.config.is_other_station(&config);
                if same_station {
                    self.reconfigure(*config).await;
                }
                let _ = taken.send(same_station);
            }
            Command::Snapshot(reply) => {
                self.waiting.push(reply);
                if self.datapath.is_connected() {
                    // Counters are answered last, and end the wait.
                    if self.config.protection.is_some() {
                        self.executor.push(Step::Datapath(Request::GetSas));
                    }
                    self.executor.push(Step::Datapath(Request::GetCounters));
                    self.due.snapshot = self.due.snapshot.min(now() + Duration::from_millis(300));
                } else {
                    self.answer_snapshots();
                }
            }
            Command::Explain(destination, reply) => {
                let _ = reply.send(self.engine.as_ref().map(|e| e.explain_path(now(), destination)));
            }
            Command::Clear(what, reply) => {
                let before = self.engine.as_ref().map_or(0, |e| e.shortcuts().len());
                if let Some(engine) = &mut self.engine {
                    engine.clear(now(), what);
                }
                self.checkpoint.touch();
                self.drain();
                let after = self.engine.as_ref().map_or(0, |e| e.shortcuts().len());
                let _ = reply.send(before.saturating_sub(after));
            }
            Command::ClearSessions(peer, reply) => {
                let cleared = self.clear_sessions(&peer);
                self.drain();
                let _ = reply.send(cleared);
            }
            Command::Rekey(peer, ike, reply) => {
                let begun = self.rekey(&peer, ike);
                self.drain();
                let _ = reply.send(begun);
            }
            Command::ClearRegistrations(peer, reply) => {
                let cleared = self.clear_registrations(&peer);
                self.drain();
                let _ = reply.send(cleared);
            }
            Command::History(count, reply) => drop(reply.send(self.events.last(count))),
            Command::FollowCaptures => self.follow_captures(),
            Command::Shutdown { done, .. } => drop(done.send(())),
        }
    }

    /// Forgets the registrations of a peer, or all.
    fn clear_registrations(&mut self, peer: &str) -> usize {
        let Some(engine) = &mut self.engine else { return 0 };
        let registered = engine.peers().into_iter().filter(|p| p.role == Role::Registered);
        let addresses: Vec<IpAddr> = registered
            .filter(|p| {
                let named =
                    p.identity.as_deref() == Some(peer) || p.addresses.iter().any(|a| a.to_string() == peer);
                peer.is_empty() || named
            })
            .flat_map(|p| p.addresses)
            .collect();
        for address in &addresses {
            engine.clear(now(), Clear::Registration(*address));
        }
        self.checkpoint.touch();
        addresses.len()
    }

    pub(super) async fn reconfigure(&mut self, mut config: TunnelConfig) {
        if config == self.config {
            return;
        }
        let secured = config.protection != self.config.protection;
        if let (Some(new), Some(old)) = (&mut config.protection, &self.config.protection) {
            new.keep_credentials(old);
        }
        let old = std::mem::replace(&mut self.config, config);
        self.underlay = self.find_underlay().await.or(self.underlay);
        if self.settings.as_ref().is_some_and(|s| *s != self.config.settings(self.underlay))
            || old.kernel_interface(self.underlay) != self.config.kernel_interface(self.underlay)
        {
            self.configure();
        }
        let engine_config = self.config.engine(self.underlay);
        if let Some(engine) = &mut self.engine
            && old.engine(self.underlay) != engine_config
        {
            engine.reconfigure(now(), engine_config);
            self.checkpoint.touch();
        }
        if self.engine.is_some() {
            if old.names != self.config.names {
                self.unresolved.clear();
                self.resolver = Some(Resolver::start(self.config.names.clone(), &self.resolved));
            }
            self.settle_static_routes();
        }
        self.reconfigure_bgp(&old);
        self.due.hairpin = now();
        if secured {
            self.judge_security();
        }
        self.events.agent(Severity::Normal, "Reconfigured", "a new configuration is in force");
    }

    pub(super) fn answer_snapshots(&mut self) {
        self.due.snapshot = Instant::NEVER;
        let Some(last) = self.waiting.pop() else { return };
        let snapshot = self.snapshot();
        for reply in self.waiting.drain(..) {
            let _ = reply.send(snapshot.clone());
        }
        let _ = last.send(snapshot);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let routes = [Origin::Static, Origin::Bgp].into_iter().flat_map(|origin| {
            self.wanted
                .list(origin)
                .map(move |(prefix, via, why)| (origin, prefix, via, why.map(str::to_owned)))
        });
        Snapshot {
            now: now(),
            config: self.config.clone(),
            underlay: self.underlay,
            datapath: self.datapath.is_connected(),
            link: self.link.clone(),
            peers: self.engine.as_ref().map(Tunnel::peers).unwrap_or_default(),
            hubs: self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default(),
            shortcuts: self.engine.as_ref().map(Tunnel::shortcuts).unwrap_or_default(),
            cache: self.engine.as_ref().map(Tunnel::cache).unwrap_or_default(),
            nhrp: self.engine.as_ref().map(|e| e.nhrp_counters().clone()).unwrap_or_default(),
            sessions: self.sessions(),
            ike: self.engine.as_ref().and_then(Tunnel::ike_counters).cloned(),
            gate: self.engine.as_ref().map(Tunnel::gate_drops).unwrap_or_default(),
            sas: self.sas.clone(),
            handshakes: self.handshakes.clone(),
            key_folder: self.keylog.as_ref().map(|log| log.folder().to_owned()),
            totals: self.totals.clone(),
            counters: self.counters.clone(),
            conflicts: self.conflicts.clone(),
            unresolved: self.unresolved.clone(),
            routes: routes.collect(),
            bgp: self.bgp_neighbours(),
            recursive: self.recursive(),
            failures: self.recent_failures(),
            state_since: self.state_since,
            up: self.up,
        }
    }

    /// BGP's neighbours, grown older since they were told.
    pub(super) fn bgp_neighbours(&self) -> Vec<rpc::agent::BgpNeighbour> {
        let (told, neighbours) = &self.neighbours;
        let age = clock::millis_since(now(), *told);
        let aged = |n: &rpc::agent::BgpNeighbour| rpc::agent::BgpNeighbour {
            since_ms: n.since_ms + age,
            ..n.clone()
        };
        neighbours.iter().map(aged).collect()
    }

    /// Routes in force that would carry the tunnel's own packets: other programs install routes too.
    pub(super) fn recursive(&self) -> BTreeSet<(IpNet, IpAddr)> {
        let Some(engine) = &self.engine else { return Default::default() };
        let underlay = standing::underlay(engine.standing());
        underlay.into_iter().filter_map(|address| Some((self.rib.tunnel_match(address)?, address))).collect()
    }

    pub(super) fn fail(&mut self, message: String) {
        tracing::warn!(interface = self.config.interface(), "{message}");
        self.failures.retain(|(_, known)| *known != message);
        if self.failures.len() == MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back((now(), message));
    }

    fn recent_failures(&self) -> Vec<String> {
        let now = now();
        let recent = self.failures.iter().filter(|(at, _)| now.since(*at) < FAILURE_MEMORY);
        recent.map(|(_, message)| message.clone()).collect()
    }
}
