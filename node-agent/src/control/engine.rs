//! The engine's side of the loop: making it, feeding it, and having done what it wants.

use super::{Control, DEBOUNCE};
use crate::clock::now;
use crate::dns::Resolver;
use crate::executor::Step;
use crate::routing::ToRouting;
use crate::standing;
use dataplane::messages::Request;
use dmvpn::{Event, Input, Tunnel};
use rpc::agent::Severity;

impl Control {
    pub(super) fn input(&mut self, input: Input) {
        if let Some(engine) = &mut self.engine {
            engine.handle_input(now(), input);
            self.checkpoint.touch();
        }
    }

    /// Makes the engine once everything it needs is there, and fills a datapath that was just connected.
    pub(super) fn maybe_fill(&mut self) {
        if self.link.is_none() || !self.rib_known {
            return;
        }
        let Some(attachment) = self.attachment.take() else { return };
        // One that holds no tunnel lives since a moment ago, or has lost what it held.
        let lost = self.engine.is_some() && attachment.settings.is_none();
        if lost {
            self.tell_lost();
        } else if self.lost.take().is_some() {
            let message = "another datapath has taken over, with everything";
            self.events.agent(Severity::Normal, "DatapathHandedOver", message);
        }
        if self.engine.is_none() {
            self.engine = self.make_engine(attachment.checkpoint.as_deref());
            for (prefix, target) in self.rib.all() {
                self.input(Input::Route { prefix, target });
            }
            self.resolver = Some(Resolver::start(self.config.names.clone(), &self.resolved));
            self.settle_static_routes();
            self.restart_bgp();
        }
        let Some(engine) = &self.engine else { return };
        for step in standing::refill(engine.standing(), &attachment.peers) {
            self.executor.push(step);
        }
        match &mut self.engine {
            Some(engine) if lost => {
                engine.datapath_lost(now());
                // Its sessions are made by an endpoint that knows no time yet.
                self.due.wall_clock = now();
            }
            _ => self.ask_for_sas(),
        }
        self.follow_captures();
        self.due.hairpin = now();
    }

    pub(super) fn make_engine(&mut self, checkpoint: Option<&[u8]>) -> Option<Tunnel> {
        let config = self.config.engine(self.underlay);
        if let Some(checkpoint) = checkpoint {
            match Tunnel::restore(config.clone(), checkpoint, rand::random(), now()) {
                Ok(engine) => {
                    self.events.agent(
                        Severity::Normal,
                        "Resumed",
                        "took over where the agent before left off",
                    );
                    return Some(engine);
                }
                Err(error) => self.fail(format!("starting anew: {error}")),
            }
        }
        let first = self.request_ids.first();
        self.request_ids.used(first);
        match Tunnel::new(config, rand::random(), now(), first) {
            Ok(engine) => Some(engine),
            Err(error) => {
                self.fail(format!("nothing is sent or received: {error}"));
                None
            }
        }
    }

    /// Takes everything out of the engine and has it done.
    pub(super) fn drain(&mut self) {
        let mut steps = Vec::new();
        let mut lasting = false;
        while let Some(action) = self.engine.as_mut().and_then(Tunnel::poll_action) {
            self.export_keys(&action);
            let step = standing::step(action);
            lasting |= !matches!(step, Step::Datapath(Request::Transmit { .. }));
            steps.push(step);
        }
        let Some(engine) = &mut self.engine else { return };
        self.request_ids.used(engine.request_id());
        let mut events = Vec::new();
        while let Some(event) = engine.poll_event() {
            events.push(event);
        }
        // The successor must know what was decided before anybody acts on it.
        self.leave_checkpoint(lasting);
        for step in steps {
            self.executor.push(step);
        }
        for event in events {
            self.on_event(event);
        }
        if lasting {
            self.due.hairpin = self.due.hairpin.min(now() + self.hairpin_pause);
            self.due.routes = self.due.routes.min(now() + DEBOUNCE);
        }
        self.judge_state();
    }

    pub(super) fn leave_checkpoint(&mut self, urgent: bool) {
        let now = now();
        let Some(engine) = &self.engine else { return };
        if !self.datapath.is_connected() || self.attachment.is_some() || !self.checkpoint.is_due(now, urgent)
        {
            return;
        }
        let checkpoint = engine.checkpoint(now);
        let written = self::now();
        self.checkpoint.written(written, checkpoint.len(), written.since(now));
        self.executor.push(Step::Datapath(Request::StoreCheckpoint(checkpoint)));
    }

    pub(super) fn on_event(&mut self, event: Event) {
        if self.export_ike_keys(&event) {
            return;
        }
        self.handshakes.note(now(), &event);
        self.events.engine(&event);
        let identity = |address| self.engine.as_ref().and_then(|e| e.identity_of(address)).map(str::to_owned);
        let tell = match event {
            Event::HubUp { hub, address, .. } => {
                self.conflicts.remove(&hub);
                Some(ToRouting::HubUp { address, identity: identity(address) })
            }
            Event::HubDown { hub, .. } => {
                let hubs = self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default();
                let address = hubs.iter().find(|h| h.name == hub).and_then(|h| h.addresses.first().copied());
                address.map(|address| ToRouting::HubDown { address })
            }
            Event::AddressConflict { address, hub } => {
                self.conflicts.insert(hub, address);
                None
            }
            Event::PeerRegistered { address, identity, .. } => {
                let proven = self.engine.as_ref().and_then(|e| e.identity_at(address)).cloned();
                Some(ToRouting::PeerUp { address, identity, proven })
            }
            // A new certificate may let it announce more, or less.
            Event::SessionUp { path, identity } => {
                let addresses = self.engine.as_ref().map(|e| e.registered_at(path)).unwrap_or_default();
                for (address, routing) in addresses.into_iter().zip(self.routing.iter().cycle()) {
                    let (name, proven) = (Some(identity.name.clone()), Some(identity.clone()));
                    let up = ToRouting::PeerUp { address, identity: name, proven };
                    let _ = routing.commands.send(up);
                }
                None
            }
            Event::PeerUnregistered { address, .. } => Some(ToRouting::PeerDown { address }),
            _ => None,
        };
        if let (Some(tell), Some(routing)) = (tell, &self.routing) {
            let _ = routing.commands.send(tell);
        }
    }

    pub(super) fn judge_state(&mut self) {
        let Some(engine) = &self.engine else { return };
        let hubs = engine.hubs();
        let served = hubs.is_empty() || hubs.iter().any(|h| h.registered && h.reachable);
        let up = served && self.datapath.is_connected() && self.link.is_some();
        let hubs: Vec<_> = hubs.iter().map(|h| [h.registered, h.reachable, h.carries]).collect();
        if (up, &hubs) == (self.up, &self.hubs) {
            return;
        }
        if up != self.up {
            self.up = up;
            self.state_since = now();
        }
        self.hubs = hubs;
        self.parts.turned.notify_waiters();
    }
}
