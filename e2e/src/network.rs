//! The network most stories are told in: numbered hubs and spokes, each with a LAN and a host.
//!
//! | | underlay | tunnel | LAN | host | ASN |
//! |---|---|---|---|---|---|
//! | hub `n` | 198.51.100.`n` | 10.200.0.`n` | 10.100.`n`.0/24 | 10.100.`n`.10 | 65000 |
//! | spoke `n` | 198.51.100.`10+n` | 10.200.16.`n` | 10.`n`.0.0/24 | 10.`n`.0.10 | 65000+`n` |

use crate::agent::Agent;
use crate::capture::{Capture, Packet};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::relay::Link;
use crate::security::Proof;
use crate::topology::{Lab, Node, Uplink};
use crate::traffic::Ping;
use crate::wait::{self, PATIENCE};
use std::time::{Duration, Instant};

/// A hub or spoke with its LAN.
pub struct Site {
    /// The router the agent runs on.
    pub node: Node,
    /// A host behind it.
    pub host: Node,
    /// Its agent.
    pub agent: Agent,
    /// The host's address.
    pub host_address: String,
    /// The LAN.
    pub lan: String,
    /// The tunnel address.
    pub tunnel: String,
    /// The underlay address.
    pub underlay: String,
    /// The link to the Internet, if it is relayed.
    pub link: Option<Link>,
}

/// What a site is, before it is built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of its namespace and node.
    pub name: String,
    /// Underlay address.
    pub underlay: String,
    /// Tunnel address.
    pub tunnel: String,
    /// The LAN's first three octets.
    pub lan: String,
    /// What the agent is told.
    pub manifest: Manifest,
    /// How it is attached.
    pub uplink: Uplink,
}

/// Hub `n`, phase 3: BGP, announcing its LAN and 10.0.0.0/8 as the summary of everything.
#[must_use]
pub fn hub(n: u8) -> Plan {
    let (tunnel, lan) = (format!("10.200.0.{n}"), format!("10.100.{n}"));
    Plan {
        name: format!("hub{n}"),
        underlay: format!("198.51.100.{n}"),
        manifest: Manifest::hub(&tunnel).bgp(65000, &[&format!("{lan}.0/24")]).summaries(&["10.0.0.0/8"]),
        tunnel,
        lan,
        uplink: Uplink::default(),
    }
}

/// Spoke `n` of these hubs (by number), phase 3: BGP, announcing its LAN.
#[must_use]
pub fn spoke(n: u8, hubs: &[u8]) -> Plan {
    let (tunnel, lan) = (format!("10.200.16.{n}"), format!("10.{n}.0"));
    let hubs: Vec<String> = hubs.iter().map(|h| format!("198.51.100.{h}")).collect();
    let hubs: Vec<&str> = hubs.iter().map(String::as_str).collect();
    Plan {
        name: format!("spoke{n}"),
        underlay: format!("198.51.100.{}", 10 + n),
        manifest: Manifest::spoke(&tunnel, &hubs).bgp(65000 + u32::from(n), &[&format!("{lan}.0/24")]),
        tunnel,
        lan,
        uplink: Uplink::default(),
    }
}

impl Plan {
    /// Changes what the agent is told.
    #[must_use]
    pub fn tuned(self, tune: impl FnOnce(Manifest) -> Manifest) -> Self {
        Self { manifest: tune(self.manifest), ..self }
    }

    /// Another phase. Phase 2 needs the specific prefixes, so a hub's summary goes.
    #[must_use]
    pub fn phase(self, phase: u8) -> Self {
        let summaries = if phase == 2 {
            serde_json::json!({"routing": {"bgp": {"summaries": null}}})
        } else {
            serde_json::json!({})
        };
        self.tuned(|m| m.phase(phase).with(summaries))
    }

    /// Routes by hand in place of BGP: a spoke's whole way is the first hub, hub 1 knows spokes 1 to 3.
    #[must_use]
    pub fn without_bgp(self) -> Self {
        let is_hub = self.tunnel.starts_with("10.200.0.");
        let to_spokes: Vec<_> =
            (1..=3).map(|n| (format!("10.{n}.0.0/24"), format!("10.200.16.{n}"))).collect();
        let to_spokes: Vec<_> =
            to_spokes.iter().map(|(prefix, via)| (prefix.as_str(), via.as_str())).collect();
        let routes = if is_hub { to_spokes } else { vec![("10.0.0.0/8", "10.200.0.1")] };
        let lan = format!("{}.0/24", self.lan);
        self.tuned(|m| m.with(serde_json::json!({"routing": {"bgp": null}})).routes(&routes, &[&lan]))
    }

    /// Protected like this, whatever falls to the story.
    #[must_use]
    pub fn proven_by(self, proof: Proof) -> Self {
        self.tuned(|m| m.proven_by(proof))
    }

    /// Attached like this.
    #[must_use]
    pub fn by(self, uplink: Uplink) -> Self {
        Self { uplink, ..self }
    }

    /// With another underlay address.
    #[must_use]
    pub fn at(self, underlay: &str) -> Self {
        Self { underlay: underlay.to_owned(), ..self }
    }

    /// Builds the site on the lab's Internet and starts its agent.
    pub fn start(self, lab: &Lab) -> Result<Site> {
        self.start_behind(lab, lab.internet())
    }

    /// Builds the site behind a router of the lab and starts its agent.
    pub fn start_behind(self, lab: &Lab, router: &Node) -> Result<Site> {
        let site = self.build_behind(lab, router)?;
        site.agent.launch()?;
        Ok(site)
    }

    /// Builds the site on the lab's Internet without starting its agent.
    pub fn build(self, lab: &Lab) -> Result<Site> {
        self.build_behind(lab, lab.internet())
    }

    /// Builds the site without starting its agent.
    pub fn build_behind(self, lab: &Lab, router: &Node) -> Result<Site> {
        let (node, link) = router.attach(&self.name, &[&self.underlay], &self.uplink)?;
        let host = node.lan("lan", &format!("{}.1/24", self.lan))?;
        let agent = Agent::prepare(lab, &node, &[])?;
        agent.apply(&self.manifest)?;
        Ok(Site {
            node,
            host,
            agent,
            host_address: format!("{}.10", self.lan),
            lan: format!("{}.0/24", self.lan),
            tunnel: self.tunnel,
            underlay: self.underlay,
            link,
        })
    }
}

impl Site {
    /// Waits until a spoke is registered, its routing is there, and it reaches this many hubs.
    pub fn wait_joined(&self, hubs: usize) -> Result {
        let ask = self.agent.ask();
        ask.wait_hubs(hubs)?;
        if ask.tunnel()?.bgp_neighbours.is_empty() { Ok(()) } else { ask.wait_bgp(hubs) }
    }

    /// Waits until packets for the other site's host have a way by the overlay.
    pub fn wait_route_to(&self, other: &Self) -> Result {
        wait::until(
            &format!("a route from {} to {}", self.agent.name(), other.host_address),
            PATIENCE,
            || {
                let path = self.agent.ask().path("", &other.host_address)?;
                let by_overlay = ["hub", "peer", "shortcut"].contains(&path.kind.as_str());
                if by_overlay { Ok(()) } else { Err(Error::other(format!("{path:?}"))) }
            },
        )
    }

    /// Waits until the kernel's next hop to a host is this tunnel address. At a hub that means: the spoke's prefix has
    /// arrived, not merely a summary that covers it.
    pub fn wait_next_hop(&self, host: &str, tunnel: &str) -> Result {
        wait::until(&format!("{} to send to {host} by {tunnel}", self.agent.name()), PATIENCE, || {
            let route = self.node.route_get(host)?;
            if route["gateway"] == tunnel { Ok(()) } else { Err(Error::other(route)) }
        })
    }

    /// Does traffic to the other site go to it directly?
    pub fn direct_to(&self, other: &Self) -> Result<bool> {
        let path = self.agent.ask().path("", &other.host_address)?;
        Ok(path.kind == "shortcut" || path.kind == "peer")
    }

    /// Keeps traffic going until it is direct both ways. Every ping must be answered meanwhile: forming a path loses
    /// nothing.
    pub fn wait_direct(&self, other: &Self) -> Result {
        let what = format!("{} and {} to be connected directly", self.agent.name(), other.agent.name());
        let start = Instant::now();
        loop {
            Ping { interval: Duration::from_millis(20), ..Ping::times(10) }
                .expect(&self.host, &other.host_address)?;
            if self.direct_to(other)? && other.direct_to(self)? {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let paths = [(self, other), (other, self)].map(|(here, there)| {
                    here.agent.ask().path("", &there.host_address).map(|p| p.explanation)
                });
                return Err(Error::Timeout { what, waited: start.elapsed(), last: format!("{paths:?}") });
            }
        }
    }

    /// Packets between this site's host and the other's, either way, in a capture.
    pub fn carried(&self, other: &Self) -> impl Fn(&Packet) -> bool + use<> {
        let (here, there) = (self.host_address.clone(), other.host_address.clone());
        move |p: &Packet| p.ip.carries(&here, &there) || p.ip.carries(&there, &here)
    }

    /// Packets between this site's underlay address and the other's, either way.
    pub fn between(&self, other: &Self) -> impl Fn(&Packet) -> bool + use<> {
        let (here, there) = (self.underlay.clone(), other.underlay.clone());
        move |p: &Packet| p.ip.goes(&here, &there) || p.ip.goes(&there, &here)
    }

    /// Captures what this site exchanges with its router.
    pub fn wire(&self) -> Result<Capture> {
        Capture::start(&self.node, &["wan"])
    }
}

/// Starts spokes and waits until each has joined and has a way to each other's host.
pub fn start_and_join(lab: &Lab, hubs: &[&Site], spokes: Vec<Plan>) -> Result<Vec<Site>> {
    let spokes = spokes.into_iter().map(|plan| plan.start(lab)).collect::<Result<Vec<_>>>()?;
    for spoke in &spokes {
        spoke.wait_joined(hubs.len())?;
        for hub in hubs {
            hub.wait_next_hop(&spoke.host_address, &spoke.tunnel)?;
        }
    }
    for here in &spokes {
        for there in spokes.iter().filter(|s| s.tunnel != here.tunnel) {
            here.wait_route_to(there)?;
        }
    }
    Ok(spokes)
}
