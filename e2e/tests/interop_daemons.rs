//! Routing daemons on the tunnel interface: it is a LAN to them, multicast included.

use lab::interop::Daemons;
use lab::network::{Plan, hub, spoke};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Lab, Result, Site, story};
use serde_json::json;
use std::time::Duration;

/// A site without the built-in routing.
fn plain(plan: Plan, phase: u8) -> Plan {
    plan.phase(phase).tuned(|m| m.with(json!({"routing": null})))
}

/// OSPF on the tunnel and the LAN. The tunnel is a broadcast network on which only the hub can be designated: spokes'
/// multicast reaches the hubs, a hub's reaches all.
fn ospf(lab: &Lab, site: &Site, priority: u8) -> Result<Daemons> {
    let configuration = format!(
        "frr defaults traditional
interface dmvpn0
 ip ospf network broadcast
 ip ospf priority {priority}
 ip ospf hello-interval 1
 ip ospf dead-interval 4
exit
interface lan
 ip ospf passive
exit
router ospf
 ospf router-id {tunnel}
 network 10.200.0.0/16 area 0
 network {lan} area 0
exit
",
        tunnel = site.tunnel,
        lan = site.lan,
    );
    Daemons::start(lab, &site.node, &["ospfd"], &configuration)
}

#[test]
fn ospf_runs_over_the_tunnel_as_over_a_lan_and_phase_2_takes_its_next_hops() {
    story("ospf", |lab| {
        let hub1 = plain(hub(1), 2).start(lab)?;
        let (a, b) = (plain(spoke(1, &[1]), 2).start(lab)?, plain(spoke(2, &[1]), 2).start(lab)?);
        for spoke in [&a, &b] {
            spoke.agent.ask().wait_hubs(1)?;
        }
        let tunnel = Capture::start(&a.node, &["dmvpn0"])?;
        let daemons = [ospf(lab, &hub1, 10)?, ospf(lab, &a, 0)?, ospf(lab, &b, 0)?];
        wait::until("the adjacencies of the hub", 3 * PATIENCE, || {
            let neighbours = daemons[0].show("ip ospf neighbor")?;
            if neighbours.matches("Full").count() == 2 { Ok(()) } else { Err(Error::other(neighbours)) }
        })?;
        // The next hop is the other spoke: what a broadcast network preserves.
        a.wait_next_hop(&b.host_address, &b.tunnel)?;
        b.wait_next_hop(&a.host_address, &a.tunnel)?;
        a.wait_direct(&b)?;
        // OSPF (protocol 89) came as multicast from the hub, and as unicast.
        let from_hub =
            |to: &str| tunnel.count(|p| !p.outgoing && p.ip.protocol == 89 && p.ip.goes(&hub1.tunnel, to));
        assert!(from_hub("224.0.0.5") > 0 && from_hub(&a.tunnel) > 0);
        // Spokes don't hear each other's hellos.
        assert_eq!(tunnel.count(|p| p.ip.goes(&b.tunnel, "224.0.0.5")), 0);
        // It stays so: dead intervals pass.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(daemons[0].show("ip ospf neighbor")?.matches("Full").count(), 2);
        Ok(())
    });
}

#[test]
fn ripv2_runs_over_the_tunnel_and_phase_3_makes_shortcuts() {
    story("rip", |lab| {
        let rip = |site: &Site, horizon: &str| {
            let configuration = format!(
                "frr defaults traditional
interface dmvpn0
 {horizon}ip rip split-horizon
exit
router rip
 version 2
 timers basic 2 10 10
 network dmvpn0
 network {lan}
exit
",
                lan = site.lan,
            );
            Daemons::start(lab, &site.node, &["ripd"], &configuration)
        };
        let hub1 = plain(hub(1), 3).start(lab)?;
        let (a, b) = (plain(spoke(1, &[1]), 3).start(lab)?, plain(spoke(2, &[1]), 3).start(lab)?);
        for spoke in [&a, &b] {
            spoke.agent.ask().wait_hubs(1)?;
        }
        // The hub tells each spoke what it heard from the other by the same interface.
        let _daemons = [rip(&hub1, "no ")?, rip(&a, "")?, rip(&b, "")?];
        for (here, there) in [(&a, &b), (&b, &a)] {
            wait::until("a route by RIP", 3 * PATIENCE, || {
                let route = here.node.route_get(&there.host_address)?;
                if route["dev"] == "dmvpn0" { Ok(()) } else { Err(Error::other(route)) }
            })?;
        }
        a.wait_direct(&b)
    });
}
