//! Routes that this node wants: by hand, and by BGP.

use super::Control;
use crate::clock::now;
use crate::config::TunnelConfig;
use crate::executor::Step;
use crate::routing::{FromRouting, Origin, RouteStep, ToRouting};
use crate::{bgp, guard, standing};
use dmvpn::view::Role;

impl Control {
    /// Starts BGP, or starts it anew, or ends it, as the configuration says. Routes that the kernel holds of the one
    /// before stay until the new one has told what it knows.
    pub(super) fn restart_bgp(&mut self) {
        let (Some(engine), Some(link)) = (&self.engine, &self.link) else { return };
        let hubs = engine.hubs();
        let known = hubs.iter().flat_map(|hub| hub.addresses.first().copied()).collect();
        let setup = bgp::Setup::new(&self.config, known);
        if let Some(old) = self.routing.take() {
            let _ = old.commands.send(ToRouting::Shutdown { keep_routes: setup.is_some() });
        }
        self.wanted.abandon(Origin::Bgp);
        self.neighbours.1.clear();
        let Some(setup) = setup else { return self.sweep(Origin::Bgp) };
        let routing = bgp::start(setup, self.parts.kernel.clone(), link.index);
        let identity = |address| engine.identity_of(address).map(str::to_owned);
        for peer in engine.peers().into_iter().filter(|p| p.role == Role::Registered) {
            for address in peer.addresses {
                let _ = routing.commands.send(ToRouting::PeerUp {
                    address,
                    identity: identity(address),
                    proven: engine.identity_at(address).cloned(),
                });
            }
        }
        for address in hubs.into_iter().filter(|h| h.registered).filter_map(|h| h.addresses.first().copied())
        {
            let _ = routing.commands.send(ToRouting::HubUp { address, identity: identity(address) });
        }
        self.routing = Some(routing);
    }

    /// Tells BGP what changed, or starts it anew if it must know more.
    pub(super) fn reconfigure_bgp(&mut self, old: &TunnelConfig) {
        let (before, after) = (bgp::Setup::new(old, Vec::new()), bgp::Setup::new(&self.config, Vec::new()));
        match (before, after, &self.routing) {
            (Some(before), Some(after), Some(routing)) if before.differs_in_details_only(&after) => {
                let _ = routing.commands.send(ToRouting::Claims(after.claims));
                let _ = routing.commands.send(ToRouting::Announce(after.config.announce));
            }
            (None, None, None) => {}
            _ => self.restart_bgp(),
        }
    }

    pub(super) fn on_routing(&mut self, event: Option<FromRouting>) {
        match event {
            None => self.routing = None,
            Some(FromRouting::Install { prefix, via }) => {
                self.wanted.install(Origin::Bgp, prefix, via);
                self.settle_routes();
            }
            Some(FromRouting::Withdraw { prefix }) => {
                let removed = self.wanted.withdraw(Origin::Bgp, prefix);
                self.route_steps(removed);
            }
            Some(FromRouting::Converged) => self.sweep(Origin::Bgp),
            Some(FromRouting::Neighbours(neighbours)) => self.neighbours = (now(), neighbours),
            Some(FromRouting::Told { severity, reason, message }) => {
                self.events.agent(severity, reason, message)
            }
        }
    }

    pub(super) fn settle_static_routes(&mut self) {
        let removed = self.wanted.replace_all(Origin::Static, &self.config.static_routes);
        self.route_steps(removed);
        self.judge_routes();
        self.sweep(Origin::Static);
    }

    /// Installs what is wanted and harmless, removes what became harmful, as far as it was not judged yet.
    pub(super) fn settle_routes(&mut self) {
        if self.engine.is_none() || self.link.is_none() {
            return;
        }
        let (guarded, rib) = (&self.guarded, &self.rib);
        let steps = self.wanted.settle(|prefix| {
            let address = guard::captured(prefix, guarded, rib)?;
            Some(format!("it covers {address}, which the tunnel itself needs"))
        });
        self.route_steps(steps);
    }

    /// Judges every route by what the underlay is now.
    pub(super) fn judge_routes(&mut self) {
        let Some(engine) = &self.engine else { return };
        self.guarded = standing::underlay(engine.standing());
        self.guarded.extend(engine.hubs().into_iter().filter_map(|h| h.path).map(|p| p.remote));
        self.guarded.extend(self.config.literal_hubs());
        self.wanted.doubt();
        self.settle_routes();
    }

    /// Does the kernel lack a route of ours? Somebody removed it, or the interface was down.
    pub(super) fn lacks_routes(&self) -> bool {
        let shortcuts = self.engine.iter().flat_map(|e| standing::shortcuts(e.standing()));
        !shortcuts.chain(self.wanted.all_installed()).all(|route| self.rib.holds(&route))
    }

    pub(super) fn route_steps(&self, steps: impl IntoIterator<Item = RouteStep>) {
        for step in steps {
            self.executor.push(match step {
                RouteStep::Add(route) => Step::AddRoute(route),
                RouteStep::Remove(route) => Step::RemoveRoute(route),
            });
        }
    }

    pub(super) fn sweep(&self, origin: Origin) {
        self.executor.push(Step::Sweep { protocol: origin.protocol(), keep: self.wanted.installed(origin) });
    }
}
