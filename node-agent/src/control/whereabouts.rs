//! Where this node is on the underlay, and where its hubs are.

use super::Control;
use crate::clock::now;
use crate::config::Underlay;
use crate::disturbances;
use crate::dns::Resolved;
use crate::kernel::link::Link;
use crate::underlay::Source;
use dmvpn::{Input, Tunnel};
use ipnet::IpNet;
use rpc::agent::Severity;

impl Control {
    pub(super) async fn check_underlay(&mut self) {
        let found = self.find_underlay().await;
        if found == self.underlay || found.is_none() {
            return;
        }
        let before = self.underlay.map(|u| u.address);
        self.underlay = found;
        if self.settings.as_ref().is_some_and(|s| *s != self.config.settings(self.underlay)) {
            self.configure();
        }
        let address = found.map(|u| u.address).filter(|a| Some(*a) != before);
        if let (Some(address), None) = (address, self.config.advertise) {
            self.events.agent(
                Severity::Normal,
                "UnderlayAddress",
                format!("our underlay address is {address}"),
            );
            self.input(Input::UnderlayAddress(address));
        }
    }

    pub(super) async fn find_underlay(&mut self) -> Option<Underlay> {
        let links = self.parts.kernel.links().await.ok()?;
        let addresses = self.parts.kernel.addresses().await.ok()?;
        self.inspect_interface(&links, &addresses);
        let of_interface = |name: &str| {
            let link = links.iter().find(|l| l.name == name && !l.is_tunnel());
            let on_link = |(index, _): &&(u32, IpNet)| link.is_some_and(|l| l.index == *index);
            addresses.iter().filter(on_link).map(|(_, a)| a.addr()).collect()
        };
        let address = match &self.config.source {
            Source::RouteTo(literals) => {
                let hubs = self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default();
                let known = hubs.iter().filter_map(|h| h.path.map(|p| p.remote));
                Source::RouteTo(literals.iter().copied().chain(known).collect()).resolve(of_interface)?
            }
            source => source.resolve(of_interface)?,
        };
        // A route by the tunnel must not make the overlay look like its own underlay.
        if self.config.is_overlay(address) {
            return None;
        }
        let holder = addresses.iter().find(|(_, a)| a.addr() == address).map(|(index, _)| *index);
        let mtu = links.iter().find(|l| Some(l.index) == holder);
        let mtu = mtu.map_or(1500, |l| u16::try_from(l.mtu).unwrap_or(u16::MAX));
        Some(Underlay { address, mtu })
    }

    /// Was the interface deleted, set down or stripped of an address behind our back?
    fn inspect_interface(&mut self, links: &[Link], addresses: &[(u32, IpNet)]) {
        let (Some(prepared), Some(wanted)) = (&self.link, &self.interface) else { return };
        let found = links.iter().find(|l| l.index == prepared.index && l.name == prepared.name);
        let intact = found.is_some_and(|l| l.up && l.mtu == wanted.mtu)
            && wanted.addresses.iter().all(|a| addresses.contains(&(prepared.index, *a)));
        if !intact && self.datapath.is_connected() && self.executor.is_idle() {
            let message = format!("somebody changed {}: putting it right", wanted.name);
            self.parts.disturbances.note(disturbances::INTERFACE);
            self.events.agent(Severity::Warning, "Disturbed", message);
            self.due.repair = now();
        }
    }

    pub(super) fn on_resolved(&mut self, resolved: Resolved) {
        match resolved.paths {
            Ok(paths) => {
                self.unresolved.remove(&resolved.name);
                self.input(Input::HubPaths { hub: resolved.id, paths });
                self.due.underlay = now();
            }
            Err(reason) => {
                let message = format!("the name of hub {} does not resolve: {reason}", resolved.name);
                self.events.agent(Severity::Warning, "NameNotResolved", message);
                self.unresolved.insert(resolved.name, reason);
            }
        }
    }
}
