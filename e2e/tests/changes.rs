//! What changes while traffic flows: addresses, hubs that restart or are lost, control that is killed.

use lab::decode::nhrp::kind;
use lab::network::{hub, spoke, start_and_join};
use lab::traffic::{Flow, Ping, Report};
use lab::wait::{self, PATIENCE};
use lab::{End, Lab, Manifest, Result, Site, story};
use serde_json::json;
use std::thread::sleep;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A hub and two spokes that are connected directly.
fn connected(lab: &Lab) -> Result<(Site, Site, Site)> {
    let hub1 = hub(1).start(lab)?;
    let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(2, &[1])])?;
    let Ok([a, b]) = <[Site; 2]>::try_from(spokes) else { unreachable!("two spokes") };
    a.wait_direct(&b)?;
    Ok((hub1, a, b))
}

/// 500 packets a second each way between the hosts.
fn flows(a: &Site, b: &Site) -> Result<[Flow; 2]> {
    Ok([
        Flow::start((&a.host, &a.host_address), (&b.host, &b.host_address), 7001, 500, 200)?,
        Flow::start((&b.host, &b.host_address), (&a.host, &a.host_address), 7002, 500, 200)?,
    ])
}

/// The longest silence of a flow that had packets to deliver all the time.
fn assert_silence_below(report: &Report, limit: Duration) {
    assert!(report.received > 0 && report.longest_gap < limit, "silent for more than {limit:?}: {report}");
}

#[test]
fn a_spoke_whose_address_changes_is_registered_anew_and_reached_directly() {
    story("address_change", |lab| {
        let (hub1, a, b) = connected(lab)?;
        let at_hub = hub1.wire()?;
        let flows = flows(&a, &b)?;
        sleep(SECOND);
        b.node.readdress(lab.internet(), &b.underlay, "203.0.113.77")?;
        at_hub.wait_for("a registration from the new address", PATIENCE, |p| {
            !p.outgoing
                && p.ip.source.to_string() == "203.0.113.77"
                && p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REQUEST && m.from(&b.tunnel))
        })?;
        at_hub.wait_for("its acceptance", PATIENCE, |p| {
            p.ip.destination.to_string() == "203.0.113.77"
                && p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REPLY && m.code() == Some(0))
        })?;
        wait::until("a direct path to the new address", PATIENCE, || {
            let peer = a.agent.ask().peer(&b.tunnel)?;
            if peer.path.starts_with("203.0.113.77") { Ok(()) } else { Err(lab::Error::other(peer.path)) }
        })?;
        a.wait_direct(&b)?;
        for flow in flows {
            assert_silence_below(&flow.stop(), 5 * SECOND);
        }
        assert_eq!(hub1.agent.ask().tunnel()?.registrations, 2, "the old binding is replaced");
        Ok(())
    });
}

#[test]
fn a_hub_that_restarts_finds_its_spokes_again_and_direct_paths_notice_nothing() {
    story("hub_restart", |lab| {
        let (hub1, a, b) = connected(lab)?;
        let flows = flows(&a, &b)?;
        sleep(SECOND);
        hub1.agent.end(End::Orderly)?;
        assert!(hub1.agent.datapaths().is_empty(), "an orderly end stops the datapath");
        sleep(2 * SECOND);
        hub1.agent.launch()?;
        hub1.agent.ask().wait_registrations(2)?;
        for spoke in [&a, &b] {
            spoke.wait_joined(1)?;
        }
        for flow in flows {
            flow.stop().assert_nothing_lost();
        }
        wait::until("the hub's own host", PATIENCE, || {
            Ping::times(1).expect(&a.host, &hub1.host_address).map_err(|e| e.to_string())
        })?;
        a.wait_direct(&b)
    });
}

#[test]
fn when_a_hub_is_lost_the_second_carries_and_direct_paths_notice_nothing() {
    story("hub_lost", |lab| {
        let (hub1, hub2) = (hub(1).start(lab)?, hub(2).start(lab)?);
        let plans = (1..=3).map(|n| spoke(n, &[1, 2])).collect();
        let spokes = start_and_join(lab, &[&hub1, &hub2], plans)?;
        let [a, b, c] = &spokes[..] else { unreachable!("three spokes") };
        a.wait_direct(b)?;
        // One pair is direct, the other stays by the hub: c's direct paths are cut.
        lab.internet()
            .cut(&["ip saddr { 198.51.100.11, 198.51.100.13 } ip daddr { 198.51.100.11, 198.51.100.13 }"])?;
        let direct = flows(a, b)?;
        let by_hub = Flow::start((&a.host, &a.host_address), (&c.host, &c.host_address), 7003, 500, 200)?;
        sleep(3 * SECOND);
        // The hub vanishes from the network, as when its power fails.
        lab.internet().namespace().ip(&["route replace blackhole 198.51.100.1/32"])?;
        sleep(6 * SECOND);
        for flow in direct {
            flow.stop().assert_nothing_lost();
        }
        let report = by_hub.stop();
        assert_silence_below(&report, SECOND);
        assert!(report.lost < 500, "{report}");
        let by: Vec<_> =
            a.agent.ask().hubs()?.into_iter().filter(|h| h.by_hub).map(|h| h.tunnel_address).collect();
        assert_eq!(by, [hub2.tunnel.as_str()]);
        // A new direct path forms with the second hub's help alone.
        b.wait_direct(c)
    });
}

#[test]
fn control_that_is_killed_and_started_again_takes_over_what_is_there() {
    story("control_killed", |lab| {
        let (hub1, a, b) = connected(lab)?;
        let flows = flows(&a, &b)?;
        for site in [&a, &hub1, &b] {
            let datapath = site.agent.datapaths();
            assert_eq!(datapath.len(), 1);
            site.agent.end(End::Kill)?;
            sleep(SECOND);
            site.agent.launch()?;
            site.agent.ask().wait_ready()?;
            assert_eq!(site.agent.datapaths(), datapath, "the datapath is the same process");
        }
        a.wait_joined(1)?;
        b.wait_joined(1)?;
        assert!(a.direct_to(&b)? && b.direct_to(&a)?);
        for flow in flows {
            flow.stop().assert_nothing_lost();
        }
        let third = spoke(3, &[1]).start(lab)?;
        third.wait_joined(1)?;
        third.wait_route_to(&a)?;
        third.wait_direct(&a)
    });
}

#[test]
fn a_datapath_that_crashes_is_started_again() {
    story("datapath_killed", |lab| {
        let (_hub, a, b) = connected(lab)?;
        a.agent.kill_datapath()?;
        wait::until("the overlay to be whole again", PATIENCE, || {
            Ping { patience: SECOND / 2, ..Ping::times(1) }
                .expect(&a.host, &b.host_address)
                .map_err(|e| e.to_string())
        })?;
        a.wait_direct(&b)
    });
}

#[test]
fn a_prefix_that_is_no_longer_there_is_purged_and_its_shortcut_left_at_once() {
    story("purge", |lab| {
        let (hub1, a, b) = connected(lab)?;
        let (wire, at_hub) = (a.wire()?, hub1.wire()?);
        let route = || a.node.namespace().ip_json(&format!("route show {}", b.lan));
        assert_ne!(route()?, json!([]));
        b.node.namespace().ip(&["link set lan down"])?;
        wire.wait_for("a purge", PATIENCE, |p| {
            !p.outgoing && p.ip.nhrp().is_some_and(|m| m.kind == kind::PURGE_REQUEST)
        })?;
        // The answer was good for ten minutes; nobody waits for that.
        wait::until("the shortcut's route to go", 3 * SECOND, || {
            let route = route().map_err(|e| e.to_string())?;
            if route == json!([]) { Ok(()) } else { Err(route.to_string()) }
        })?;
        wire.wait_for("the purge's acknowledgement", PATIENCE, |p| {
            p.outgoing && p.ip.nhrp().is_some_and(|m| m.kind == kind::PURGE_REPLY)
        })?;
        at_hub.clear();
        let _ = Ping { patience: SECOND / 2, ..Ping::times(3) }.run(&a.host, &b.host_address)?;
        assert_eq!(wire.count(|p| a.between(&b)(p) && a.carried(&b)(p) && p.at.elapsed() < SECOND), 0);
        Ok(())
    });
}

#[test]
fn an_idle_shortcut_is_given_up() {
    story("idle", |lab| {
        let hub1 = hub(1).start(lab)?;
        let idle = |m: Manifest| m.with(json!({"nhrp": {"idleTimeout": "3s"}}));
        let spokes =
            start_and_join(lab, &[&hub1], vec![spoke(1, &[1]).tuned(idle), spoke(2, &[1]).tuned(idle)])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        a.wait_direct(b)?;
        wait::until("the shortcut to go", PATIENCE, || {
            let path = a.agent.ask().path("", &b.host_address)?;
            let route = a.node.namespace().ip_json(&format!("route show {}", b.lan))?;
            let gone = path.kind == "hub" && route == json!([]);
            if gone { Ok(()) } else { Err(lab::Error::other(format!("{path:?} {route}"))) }
        })?;
        a.wait_direct(b)
    });
}

#[test]
fn a_broken_manifest_changes_nothing_and_says_why() {
    story("broken_manifest", |lab| {
        let (_hub, a, b) = connected(lab)?;
        let flows = flows(&a, &b)?;
        let broken = spoke(1, &[1]).tuned(|m| m.with(json!({"tunnel": {"phase": 4, "mtuu": 1300}})));
        a.agent.apply(&broken.manifest)?;
        let errors = wait::until("the error in its status", PATIENCE, || {
            let errors = a.agent.ask().status()?.configuration.map(|c| c.errors).unwrap_or_default();
            if errors.is_empty() { Err(lab::Error::other("no errors")) } else { Ok(errors.join("\n")) }
        })?;
        assert!(errors.contains("phase") && errors.contains("mtuu"), "both mistakes are named: {errors}");
        sleep(SECOND);
        assert!(a.direct_to(&b)?);
        a.agent.apply(&spoke(1, &[1]).manifest)?;
        wait::until("the errors to go", PATIENCE, || {
            let errors = a.agent.ask().status()?.configuration.map(|c| c.errors).unwrap_or_default();
            if errors.is_empty() { Ok(()) } else { Err(lab::Error::other(errors.join(" "))) }
        })?;
        for flow in flows {
            flow.stop().assert_nothing_lost();
        }
        Ok(())
    });
}

#[test]
fn an_orderly_end_deregisters_and_uninstall_removes_everything() {
    story("uninstall", |lab| {
        let (hub1, a, b) = connected(lab)?;
        let before = a.node.namespace().ip_json("link show")?.as_array().map_or(0, Vec::len);
        let at_hub = hub1.wire()?;
        a.agent.end(End::Orderly)?;
        at_hub.wait_for("a purge of its own registration", PATIENCE, |p| {
            p.ip.nhrp().is_some_and(|m| m.kind == kind::PURGE_REQUEST && m.from(&a.tunnel))
        })?;
        wait::until("the hub to forget it", PATIENCE, || {
            match hub1.agent.ask().tunnel().map(|t| t.registrations) {
                Ok(1) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        assert!(a.agent.datapaths().is_empty());
        let (run, state) = (a.agent.run_directory(), a.agent.state_directory());
        let [run_text, state_text] = [&run, &state].map(|p| p.to_string_lossy().into_owned());
        let program = lab::agent::binary("dmvpn-agent")?;
        let program = program.to_string_lossy();
        a.node.run(&program, &["uninstall", "--run-dir", &run_text, "--state-dir", &state_text])?;
        let after = a.node.namespace().ip_json("link show")?.as_array().map_or(0, Vec::len);
        assert_eq!(after, before - 1, "the tunnel interface is gone");
        let routes = a.node.namespace().ip_json("route show table all")?;
        assert!(
            !routes.to_string().contains("dmvpn0") && !routes.to_string().contains("unreachable"),
            "{routes}"
        );
        assert!(
            !run.exists() || std::fs::read_dir(&run).is_ok_and(|d| d.count() == 0),
            "files in {run_text}"
        );
        assert!(
            !state.exists() || std::fs::read_dir(&state).is_ok_and(|d| d.count() == 0),
            "files in {state_text}"
        );
        drop(b);
        Ok(())
    });
}
