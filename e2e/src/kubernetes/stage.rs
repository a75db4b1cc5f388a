//! The clusters most stories are told on: a hub's and two spokes', one behind a NAT, with kube-dmvpn on them and a pod in
//! each spoke's. Making them takes a minute, so a story tells several chapters on the same ones.

use super::cluster::{Cluster, Plan};
use super::image::{self, Image};
use super::machine::{Machine, Proxy};
use super::overlay::{Overlay, Resource};
use super::pod::{Pod, PodPlan};
use crate::error::{Error, Result};
use crate::nat::{Nat, NatRouter};
use crate::topology::Lab;
use crate::traffic::{Flow, Ping, Report};
use crate::wait::{self, PATIENCE};
use std::time::{Duration, Instant};

/// Three clusters of two nodes, and pods that talk.
pub struct Stage {
    /// The hub's, public.
    pub hub: Cluster,
    /// A spoke's, public, with kube-proxy by nftables.
    pub a: Cluster,
    /// A spoke's behind a port-preserving NAT, with kube-proxy by iptables.
    pub b: Cluster,
    /// Their certificates.
    pub overlay: Overlay,
    /// A pod on a-1.
    pub client: Pod,
    /// A pod on b-1 that serves `hello`.
    pub web: Pod,
}

impl Stage {
    /// Starts the clusters, installs the chart, applies a hub and two spokes of this phase, and runs the pods.
    pub fn new(lab: &Lab, phase: u8) -> Result<Self> {
        Self::with(lab, phase, &[])
    }

    /// The same with further values for the chart.
    pub fn with(lab: &Lab, phase: u8, values: &[&str]) -> Result<Self> {
        Image::ours()?.write(&image::folder(lab)?)?;
        let plans = [
            Plan::new("hub", 1),
            Plan::new("a", 2).proxy(Proxy::Nftables),
            Plan::new("b", 3).behind(NatRouter::new(Nat::PortPreserving)),
        ];
        let [hub, a, b] = Cluster::start_all(lab, &plans)?;
        let overlay = Overlay::new(lab)?;
        overlay.install_all(lab, &[&hub, &a, &b], values)?;
        let client = a.run_pod(&PodPlan::web("client", "hello").on("a-1"))?;
        let web = b.run_pod(&PodPlan::web("web", "hello").on("b-1"))?;
        let this = Self { hub, a, b, overlay, client, web };
        this.apply(phase)?;
        Ok(this)
    }

    /// The hub's resource.
    #[must_use]
    pub fn hub_resource(&self, phase: u8) -> Resource {
        Resource::hub(self.hub.plan()).phase(phase).exporting_keys()
    }

    /// A spoke's resource.
    #[must_use]
    pub fn spoke_resource(&self, cluster: &Cluster, phase: u8) -> Resource {
        Resource::spoke(cluster.plan(), &self.hub.addresses()).phase(phase).exporting_keys()
    }

    /// Applies the resources, and waits until all have joined and the pods reach each other.
    pub fn apply(&self, phase: u8) -> Result {
        self.hub.apply(&self.hub_resource(phase).text())?;
        for spoke in [&self.a, &self.b] {
            spoke.apply(&self.spoke_resource(spoke, phase).text())?;
        }
        self.wait_joined()
    }

    /// Waits until all have joined and the pods reach each other.
    pub fn wait_joined(&self) -> Result {
        self.hub.wait_overlay("dmvpnhub")?;
        for spoke in [&self.a, &self.b] {
            spoke.wait_overlay("dmvpnspoke")?;
            spoke.wait_joined(2)?;
        }
        self.wait_reachable()
    }

    /// Waits until the pods reach each other.
    pub fn wait_reachable(&self) -> Result {
        wait::until("the pods to reach each other", 2 * PATIENCE, || {
            Ping::times(3).expect(self.client.host(), &self.web.address)
        })?;
        Ok(())
    }

    /// The nodes that the pods run on.
    pub fn machines(&self) -> Result<[Machine; 2]> {
        Ok([self.a.machine(1)?, self.b.machine(1)?])
    }

    /// How traffic goes, from each pod to the other.
    pub fn paths(&self) -> Result<[String; 2]> {
        let [a, b] = self.machines()?;
        Ok([a.ask()?.path("", &self.web.address)?.kind, b.ask()?.path("", &self.client.address)?.kind])
    }

    /// Keeps pinging until traffic is direct both ways. Every ping must be answered meanwhile.
    pub fn wait_direct(&self) -> Result {
        let start = Instant::now();
        loop {
            Ping { interval: Duration::from_millis(20), ..Ping::times(10) }
                .expect(self.client.host(), &self.web.address)?;
            let paths = self.paths()?;
            let direct = |kind: &String| kind == "shortcut" || kind == "peer";
            if paths.iter().all(direct) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let what = "the pods' nodes to be connected directly".to_owned();
                return Err(Error::Timeout { what, waited: start.elapsed(), last: format!("{paths:?}") });
            }
        }
    }

    /// Sends packets at this rate between the pods, both ways.
    pub fn flows(&self, rate: u32) -> Result<[Flow; 2]> {
        let client = (self.client.host(), self.client.address.as_str());
        let web = (self.web.host(), self.web.address.as_str());
        Ok([Flow::start(client, web, 7001, rate, 200)?, Flow::start(web, client, 7002, rate, 200)?])
    }
}

/// A smaller stage: a hub's cluster of one node and a spoke's, with nothing on them but the image.
pub fn two_clusters(lab: &Lab, spoke: Plan) -> Result<[Cluster; 2]> {
    Image::ours()?.write(&image::folder(lab)?)?;
    Cluster::start_all(lab, &[Plan::new("hub", 1).nodes(1), spoke])
}

/// Applies a hub and a spoke, and waits until the spoke's nodes have joined.
pub fn connect(hub: &Cluster, spoke: &Cluster) -> Result {
    hub.apply(&Resource::hub(hub.plan()).text())?;
    spoke.apply(&Resource::spoke(spoke.plan(), &hub.addresses()).text())?;
    hub.wait_overlay("dmvpnhub")?;
    spoke.wait_overlay("dmvpnspoke")?;
    spoke.wait_joined(1)
}

/// Chapters of a story: each is told although one before it failed, and the story fails in the end.
#[derive(Default)]
pub struct Chapters {
    failed: Vec<String>,
}

impl Chapters {
    /// Tells a chapter, if the environment (`DMVPN_CHAPTER`) does not ask for others.
    pub fn tell(&mut self, name: &str, chapter: impl FnOnce() -> Result) {
        let only = std::env::var("DMVPN_CHAPTER").unwrap_or_default();
        if !only.is_empty() && !only.split(',').any(|part| name.contains(part)) {
            return;
        }
        let start = Instant::now();
        match chapter() {
            Ok(()) => println!("chapter {name}: ok ({:.0?})", start.elapsed()),
            Err(error) => {
                println!("chapter {name}: FAILED ({:.0?}): {error}", start.elapsed());
                self.failed.push(format!("{name}: {error}"));
            }
        }
    }

    /// All were told.
    pub fn end(self) -> Result {
        if self.failed.is_empty() { Ok(()) } else { Err(Error::other(self.failed.join("\n"))) }
    }
}

/// At most so much was lost, and nothing twice.
pub fn lost_at_most(reports: &[Report], packets: u64) -> Result {
    for report in reports {
        println!("  {report}");
        if report.sent == 0 || report.lost > packets || report.duplicated > 0 {
            return Err(Error::other(format!("more than {packets} lost, or some twice: {report}")));
        }
    }
    Ok(())
}
