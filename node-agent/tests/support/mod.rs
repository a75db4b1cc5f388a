//! A hub and two spokes with a LAN each, for the stories of the agent.

#![allow(dead_code, reason = "no story uses all of it")]

use lab::traffic::Ping;
use lab::{Agent, Error, Lab, Manifest, Node, Result};
use std::time::Duration;

/// A hub and two spokes with a LAN each.
pub(crate) struct Overlay {
    pub(crate) hub: Agent,
    pub(crate) a: Agent,
    pub(crate) b: Agent,
    pub(crate) host_a: Node,
    pub(crate) host_b: Node,
}

impl Overlay {
    /// Protected as all stories of this run.
    pub(crate) fn build(lab: &Lab) -> Result<Self> {
        Self::tuned(lab, |manifest| manifest)
    }

    /// With manifests that were changed.
    pub(crate) fn tuned(lab: &Lab, tune: fn(Manifest) -> Manifest) -> Result<Self> {
        let hub = lab.site("hub", &["198.51.100.1"])?;
        let (a, b) = (lab.site("a", &["203.0.113.1"])?, lab.site("b", &["203.0.113.2"])?);
        let (host_a, host_b) = (a.lan("lan", "10.1.0.1/24")?, b.lan("lan", "10.2.0.1/24")?);
        let hub = Agent::start(lab, &hub, &tune(hub_manifest()))?;
        hub.ask().wait_ready()?;
        let overlay = Self {
            hub,
            a: Agent::start(lab, &a, &tune(spoke("10.200.1.1", "10.1.0.0/24")))?,
            b: Agent::start(lab, &b, &tune(spoke("10.200.2.1", "10.2.0.0/24")))?,
            host_a,
            host_b,
        };
        overlay.a.ask().wait_hubs(1)?;
        overlay.b.ask().wait_hubs(1)?;
        overlay.hub.ask().wait_registrations(2)?;
        Ok(overlay)
    }
}

/// The hub's manifest.
pub(crate) fn hub_manifest() -> Manifest {
    let routes = [("10.1.0.0/24", "10.200.1.1"), ("10.2.0.0/24", "10.200.2.1")];
    Manifest::hub("10.200.0.1").routes(&routes, &[])
}

/// A spoke's manifest.
pub(crate) fn spoke(tunnel_address: &str, lan: &str) -> Manifest {
    let everything_else = [("10.0.0.0/8", "10.200.0.1")];
    Manifest::spoke(tunnel_address, &["198.51.100.1"])
        .routes(&everything_else, &[lan])
        .with(serde_json::json!({"protectedPrefixes": ["10.0.0.0/8"]}))
}

impl Overlay {
    /// Waits until the two spokes send to each other directly.
    pub(crate) fn wait_shortcut(&self) -> Result {
        Ping::times(20).run(&self.host_a, "10.2.0.10")?;
        self.a.ask().wait_path("10.2.0.10", "shortcut")?;
        self.b.ask().wait_path("10.1.0.10", "shortcut")?;
        Ok(())
    }

    /// Pings all the time while `meanwhile` goes on; every one must be answered.
    pub(crate) fn lossless(&self, count: u16, meanwhile: impl FnOnce() -> Result) -> Result {
        let pings = Ping { count, interval: Duration::from_millis(20), ..Ping::default() };
        let report = std::thread::scope(|scope| {
            let pinging = scope.spawn(|| pings.run(&self.host_a, "10.2.0.10"));
            meanwhile()?;
            pinging.join().map_err(|_| Error::other("the ping panicked"))?
        })?;
        if report.complete() { Ok(()) } else { Err(Error::other(format!("pings were lost: {report}"))) }
    }
}
