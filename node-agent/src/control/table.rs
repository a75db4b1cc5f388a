//! The kernel's side of the loop: routes that change, the interface, repairs, the hairpin.

use super::{Control, DEBOUNCE, RETRY};
use crate::clock::now;
use crate::executor::{Report, Step};
use crate::kernel::link::Link;
use crate::kernel::monitor::Change;
use crate::kernel::sysctl;
use crate::rib::Told;
use crate::{disturbances, guard, hairpin, standing};
use dataplane::messages::Request;
use dmvpn::Input;
use rpc::agent::Severity;
use std::time::Duration;

/// How long after something went it is looked whether it should have.
const INSPECTION_DEBOUNCE: Duration = Duration::from_millis(100);

impl Control {
    pub(super) fn on_kernel(&mut self, change: Change) {
        let interface = self.link.as_ref().map_or(0, |l| l.index);
        let foreign = match &change {
            Change::Snapshot(_) => {
                self.rib_known = true;
                self.parts.bared.notify_one();
                // A link or an address changed.
                self.due.underlay = now();
                true
            }
            Change::Added { route, .. } | Change::Removed(route) => !guard::is_ours(route, interface),
        };
        if matches!(&change, Change::Removed(route) if route.protects()) {
            self.parts.bared.notify_one();
        }
        if !matches!(change, Change::Added { .. }) {
            self.due.inspection = self.due.inspection.min(now() + INSPECTION_DEBOUNCE);
        }
        let told = self.rib.apply(change);
        if foreign && !told.is_empty() {
            self.due.routes = self.due.routes.min(now() + DEBOUNCE);
        }
        self.tell_routes(told);
        self.maybe_fill();
    }

    /// Looks whether something of ours is gone that nobody of us removed.
    pub(super) fn inspect(&mut self) {
        if !self.executor.is_idle() {
            self.due.inspection = now() + INSPECTION_DEBOUNCE;
            return;
        }
        if self.engine.is_none() || !self.lacks_routes() {
            self.missed = false;
            return;
        }
        // What the executor has just done may not have come back from the kernel yet.
        if !std::mem::replace(&mut self.missed, true) {
            self.due.inspection = now() + INSPECTION_DEBOUNCE;
            return;
        }
        self.missed = false;
        let message = "somebody removed a route of ours, or set the interface down: putting it back";
        self.parts.disturbances.note(disturbances::ROUTE);
        self.events.agent(Severity::Warning, "Disturbed", message);
        self.repair();
    }

    pub(super) fn tell_routes(&mut self, told: Vec<Told>) {
        for (prefix, target) in told {
            self.input(Input::Route { prefix, target });
        }
        self.due.hairpin = self.due.hairpin.min(now() + self.hairpin_pause);
    }

    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Prepared(link) => self.on_prepared(link),
            Report::KernelFailed(error) => {
                self.fail(error.to_string());
                self.due.repair = self.due.repair.min(now() + RETRY);
            }
            Report::DatapathFailed(error) => self.on_datapath_lost(&error.to_string()),
        }
    }

    pub(super) fn on_prepared(&mut self, link: Link) {
        let switches = sysctl::needed(&link.name, self.config.carries_v6(), self.config.is_hub());
        let first = self.link.is_none();
        for (switch, error) in sysctl::apply(&switches, &sysctl::Memory::new(self.parts.state.path())) {
            // Where it can't be set once, it can't be set later either; `diagnose` says it at any time.
            if first {
                tracing::warn!(key = switch.key, wanted = switch.wanted, %error, "cannot set a kernel switch: {}", switch.why);
            }
        }
        if self.link.as_ref().is_none_or(|old| old.index != link.index) {
            // Another interface holds none of our routes.
            self.wanted.forget_installed();
            let told = self.rib.set_interface(link.index);
            self.link = Some(link);
            self.tell_routes(told);
            // Sockets are bound to the interface.
            self.restart_bgp();
        } else {
            self.link = Some(link);
        }
        self.maybe_fill();
        self.settle_routes();
    }

    /// Puts right what failed, or what somebody disturbed.
    pub(super) fn repair(&mut self) {
        if !self.datapath.is_connected() {
            return;
        }
        self.configure();
        if let Some(engine) = &self.engine {
            self.executor.push(standing::reconcile(engine.standing()));
        }
        self.wanted.forget_installed();
        self.settle_routes();
    }

    pub(super) fn update_hairpin(&mut self) {
        let Some(engine) = &self.engine else { return };
        if !self.config.is_hub() {
            return;
        }
        let begin = now();
        let snapshot = hairpin::snapshot(self.rib.in_force(), &standing::direct(engine.standing()));
        if snapshot != self.hairpin {
            self.hairpin.clone_from(&snapshot);
            self.executor.push(Step::Datapath(Request::SetHairpin(snapshot)));
        }
        // A large table takes a while; no more than a tenth of the time goes into this.
        self.hairpin_pause = DEBOUNCE.max((now() - begin) * 10);
    }
}
