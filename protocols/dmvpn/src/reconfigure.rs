//! A changed configuration, applied without touching what did not change.

use crate::config::{Config, Phase, StaticPeer};
use crate::tunnel::{Tunnel, station};
use claims::Policy;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nhrp::Node;
use packet::Instant;

impl Tunnel {
    /// The configuration changed: touches only what did. Another identity or other tunnel addresses make another
    /// station: shut this one down and make a new one ([`Tunnel::needs_restart`]).
    pub fn reconfigure(&mut self, now: Instant, config: Config) {
        if self.config == config {
            return;
        }
        let before = std::mem::replace(&mut self.config, config.clone());
        // The address is what the node last told us, wherever it came from.
        if before.nbma_address != config.nbma_address {
            self.config.nbma_address = before.nbma_address;
            self.underlay_changed(now, config.nbma_address);
        }
        if (&before.networks, &before.admission) != (&config.networks, &config.admission) {
            self.policy = Policy::new(config.networks.clone(), config.admission.clone());
        }
        if let (Some(gate), Some(old), Some(new)) = (&mut self.gate, &before.security, &config.security)
            && let Err(error) = gate.reconfigure(now, old, new)
        {
            tracing::error!("the settings of IKE stay as they were: {error}");
        }
        self.settle(now);
        let old = nhrp::Config { nbma_address: config.nbma_address, ..station(&before) };
        if old != station(&config) {
            let seed = self.seed();
            let checkpoint = self.node.checkpoint();
            self.node = Node::restore(station(&config), checkpoint, seed);
        }
        if config.phase == Phase::One && before.phase != Phase::One {
            self.clear_shortcuts(now, None);
            // Phase 1 answers nothing, so what was answered before no longer holds either.
            self.node.withdraw(now, IpNet::V4(Ipv4Net::default()));
            self.node.withdraw(now, IpNet::V6(Ipv6Net::default()));
        }
        self.own_routes();
        if before.behind != config.behind {
            self.with_node(|node, world| node.withdraw_stale(now, world));
        }
        self.apply_peers(now, &config, &before.static_peers);
        self.retime_all(now);
        for id in self.peers.ids() {
            self.touch(now, id);
        }
        self.settle(now);
    }

    /// Does this configuration describe another station?
    #[must_use]
    pub fn needs_restart(&self, config: &Config) -> bool {
        self.config.identity != config.identity
            || self.config.addresses != config.addresses
            || self.config.udp_port != config.udp_port
            || self.config.security.is_some() != config.security.is_some()
    }

    /// Hubs and static peers as configured: gone ones go, changed ones change, new ones come. Static peers in `known`
    /// are as they were.
    pub(crate) fn apply_peers(&mut self, now: Instant, config: &Config, known: &[StaticPeer]) {
        let gone: Vec<_> =
            self.hubs.iter().map(|h| h.id).filter(|id| config.hubs.iter().all(|c| c.id != *id)).collect();
        gone.into_iter().for_each(|id| self.remove_hub(now, id));
        for hub in &config.hubs {
            match self.hubs.get(hub.id) {
                Some(known) if known.matches(hub) => {}
                Some(_) => self.change_hub(now, hub),
                None => self.add_hub(now, hub),
            }
        }
        if self.sort_hubs() {
            self.choose_hub(now);
        }
        let fixed: Vec<_> = self.peers.iter().filter(|p| p.fixed).flat_map(|p| p.addresses.clone()).collect();
        for address in fixed {
            if config.static_peers.iter().all(|s| s.tunnel_address != address) {
                self.remove_static(now, address);
            }
        }
        for peer in config.static_peers.iter().filter(|peer| !known.contains(peer)) {
            self.add_static(now, peer);
        }
    }
}
