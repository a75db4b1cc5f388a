//! BGP as a user meets it: one AS or many, a port of one's own, claims, restarts.

use lab::network::{Plan, hub, spoke, start_and_join};
use lab::traffic::Flow;
use lab::wait::{self, PATIENCE};
use lab::{End, Error, Result, Site, story};
use serde_json::json;
use std::time::Duration;

/// With another ASN.
fn of_as(plan: Plan, asn: u32) -> Plan {
    plan.tuned(|m| m.with(json!({"routing": {"bgp": {"asn": asn}}})))
}

/// The routes that BGP has put into a node's kernel: destination and next hop.
fn routes(site: &Site) -> Result<Vec<(String, String)>> {
    let listed = site.node.namespace().ip_json("route show proto bgp")?;
    let text = |route: &serde_json::Value, key: &str| route[key].as_str().unwrap_or_default().to_owned();
    let listed = listed.as_array().cloned().unwrap_or_default();
    Ok(listed.iter().map(|route| (text(route, "dst"), text(route, "gateway"))).collect())
}

fn wait_for_routes(site: &Site, expected: &[(&str, &str)]) -> Result {
    let expected: Vec<_> = expected.iter().map(|(dst, via)| ((*dst).to_owned(), (*via).to_owned())).collect();
    wait::until(&format!("{} to have exactly {expected:?}", site.agent.name()), PATIENCE, || {
        let found = routes(site)?;
        if found == expected { Ok(()) } else { Err(Error::other(format!("{found:?}"))) }
    })
}

#[test]
fn one_as_for_all_and_a_port_of_its_own() {
    story("bgp_ibgp", |lab| {
        let port = |plan: Plan| plan.tuned(|m| m.with(json!({"routing": {"bgp": {"port": 1179}}})));
        let hub1 = port(hub(1).phase(2)).start(lab)?;
        let spokes = (1..=2).map(|n| port(of_as(spoke(n, &[1]).phase(2), 65000))).collect();
        let spokes = start_and_join(lab, &[&hub1], spokes)?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        wait_for_routes(a, &[("10.2.0.0/24", &b.tunnel), ("10.100.1.0/24", &hub1.tunnel)])?;
        wait_for_routes(b, &[("10.1.0.0/24", &a.tunnel), ("10.100.1.0/24", &hub1.tunnel)])?;
        let listens = |site: &Site| -> Result<String> {
            let listed = site.node.run("ss", &["-Hltn"])?;
            Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
        };
        let at_hub = listens(&hub1)?;
        assert!(at_hub.contains("10.200.0.1%dmvpn0:1179") && !at_hub.contains(":179 "), "{at_hub}");
        assert!(!listens(a)?.contains(":1179"), "a spoke calls, and is not called");
        a.wait_direct(b)
    });
}

#[test]
fn spokes_that_share_an_as_reach_each_other() {
    story("bgp_shared_as", |lab| {
        let hub1 = hub(1).phase(2).start(lab)?;
        let spokes = (1..=2).map(|n| of_as(spoke(n, &[1]).phase(2), 65010)).collect();
        let spokes = start_and_join(lab, &[&hub1], spokes)?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        wait_for_routes(a, &[("10.2.0.0/24", &b.tunnel), ("10.100.1.0/24", &hub1.tunnel)])?;
        a.wait_direct(b)
    });
}

#[test]
fn what_an_identity_may_not_announce_is_refused_and_told() {
    story("bgp_claims", |lab| {
        let class = |identity: &str, prefix: &str| json!({"identity": identity, "prefixes": [prefix]});
        let admission = json!([class("spoke1", "10.1.0.0/16"), class("spoke2", "10.2.0.0/16")]);
        let hub1 = hub(1).tuned(|m| m.with(json!({"admission": admission}))).start(lab)?;
        let thief =
            |m: lab::Manifest| m.with(json!({"announce": {"prefixes": ["10.2.0.0/24", "10.1.66.0/24"]}}));
        let a = spoke(1, &[1]).start(lab)?;
        let b = spoke(2, &[1]).tuned(thief).start(lab)?;
        a.wait_joined(1)?;
        b.wait_joined(1)?;
        wait_for_routes(&hub1, &[("10.1.0.0/24", &a.tunnel), ("10.2.0.0/24", &b.tunnel)])?;
        hub1.agent.wait_log("10.200.16.2 announces 10.1.66.0/24, which is not believed", PATIENCE)?;
        wait::until("the refusal to be counted", PATIENCE, || {
            let neighbours = hub1.agent.ask().tunnel()?.bgp_neighbours;
            let refused: u32 = neighbours.iter().map(|n| n.prefixes_refused).sum();
            if refused == 1 { Ok(()) } else { Err(Error::other(refused)) }
        })?;
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_keeps_its_routes_and_so_do_the_others() {
    story("bgp_restart", |lab| {
        let hub1 = hub(1).phase(2).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=2).map(|n| spoke(n, &[1]).phase(2)).collect())?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        let expected = [
            (&hub1, vec![("10.1.0.0/24", a.tunnel.as_str()), ("10.2.0.0/24", &b.tunnel)]),
            (a, vec![("10.2.0.0/24", b.tunnel.as_str()), ("10.100.1.0/24", &hub1.tunnel)]),
            (b, vec![("10.1.0.0/24", a.tunnel.as_str()), ("10.100.1.0/24", &hub1.tunnel)]),
        ];
        for (site, routes) in &expected {
            wait_for_routes(site, routes)?;
        }
        a.wait_direct(b)?;
        let flow = Flow::start((&a.host, &a.host_address), (&b.host, &b.host_address), 7001, 500, 200)?;
        for killed in [&hub1, a, &hub1, b] {
            killed.agent.end(End::Kill)?;
            // Nobody moves while it is away ...
            std::thread::sleep(Duration::from_secs(1));
            for (site, expected) in &expected {
                let found = routes(site)?;
                assert_eq!(found.len(), expected.len(), "{}: {found:?}", site.agent.name());
            }
            // ... nor when it is back.
            killed.agent.launch()?;
            let neighbours = if killed.agent.name() == hub1.agent.name() { 2 } else { 1 };
            killed.agent.ask().wait_bgp(neighbours)?;
            for (site, routes) in &expected {
                wait_for_routes(site, routes)?;
            }
        }
        flow.stop().assert_nothing_lost();
        Ok(())
    });
}

#[test]
fn a_spoke_that_ends_in_good_order_takes_its_routes_along() {
    story("bgp_end", |lab| {
        let hub1 = hub(1).phase(2).start(lab)?;
        let spokes = start_and_join(lab, &[&hub1], (1..=2).map(|n| spoke(n, &[1]).phase(2)).collect())?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        b.agent.end(End::Orderly)?;
        wait_for_routes(a, &[("10.100.1.0/24", &hub1.tunnel)])?;
        wait_for_routes(&hub1, &[("10.1.0.0/24", &a.tunnel)])?;
        assert!(routes(b)?.is_empty(), "its own kernel is clean");
        Ok(())
    });
}
