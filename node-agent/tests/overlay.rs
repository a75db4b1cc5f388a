//! The agent with a real kernel and a real datapath: a hub and two spokes in namespaces, static routes, phase 3.
//! Needs root.

mod support;

use lab::agent::binary;
use lab::traffic::Ping;
use lab::{Agent, Capture, End, Error, Node, Result, story, wait};
use rpc::agent::PeerKind;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use support::{Overlay, spoke};

#[test]
fn two_lans_reach_each_other_and_a_shortcut_forms() {
    story("shortcut", |lab| {
        let overlay = Overlay::build(lab)?;
        // Two seconds: the hub redirects once it has proven the path to a spoke that just joined.
        let report = Ping::times(20).run(&overlay.host_a, "10.2.0.10")?;
        if !report.complete() {
            return Err(Error::other(format!("pings were lost while the shortcut formed: {report}")));
        }
        let path = overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        assert_eq!(path.via, "10.200.2.1");
        let at_hub = Capture::start(overlay.hub.node(), &["wan"])?;
        let report = Ping::times(5).run(&overlay.host_a, "10.2.0.10")?;
        assert!(report.complete(), "{report}");
        let by_hub = at_hub.count(|p| p.ip.carries("10.1.0.10", "10.2.0.10"));
        assert_eq!(by_hub, 0, "packets of a shortcut went by the hub");
        let _ = &overlay.host_b;
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_and_restarted_loses_nothing() {
    story("restart", |lab| {
        let overlay = Overlay::build(lab)?;
        Ping::times(20).run(&overlay.host_a, "10.2.0.10")?;
        overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        let pings = Ping { count: 200, interval: Duration::from_millis(20), ..Ping::default() };
        let report = std::thread::scope(|scope| {
            let pinging = scope.spawn(|| pings.run(&overlay.host_a, "10.2.0.10"));
            for agent in [&overlay.a, &overlay.b, &overlay.hub] {
                std::thread::sleep(Duration::from_millis(300));
                agent.end(End::Kill)?;
                agent.launch()?;
                agent.ask().wait_ready()?;
            }
            pinging.join().map_err(|_| Error::other("the ping panicked"))?
        })?;
        assert!(report.complete(), "{report}");
        overlay.a.wait_log("took over where the agent before left off", Duration::from_secs(5))?;
        assert_eq!(overlay.a.ask().path("", "10.2.0.10")?.kind, "shortcut");
        Ok(())
    });
}

#[test]
fn without_the_agent_protected_traffic_goes_nowhere() {
    story("protected", |lab| {
        let overlay = Overlay::build(lab)?;
        assert!(overlay.a.end(End::Orderly)?.success());
        assert!(overlay.a.datapaths().is_empty(), "the datapath outlived an orderly end");
        let wire = Capture::start(overlay.a.node(), &["wan"])?;
        let report = Ping::times(2).run(&overlay.host_a, "10.2.0.10")?;
        assert!(report.round_trips.is_empty());
        let leaked = wire.count(|p| p.ip.goes("10.1.0.10", "10.2.0.10"));
        assert_eq!(leaked, 0, "traffic for the overlay left in clear");
        Ok(())
    });
}

#[test]
fn a_broken_manifest_changes_nothing_and_is_told() {
    story("broken-manifest", |lab| {
        let overlay = Overlay::build(lab)?;
        overlay.a.write_manifest("more.yaml", "kind: DmvpnSpoke\nspec: {")?;
        overlay.a.wait_log("not applied", Duration::from_secs(5))?;
        let status = overlay.a.ask().status()?;
        let errors = status.configuration.map(|c| c.errors).unwrap_or_default();
        assert!(errors.iter().any(|e| e.contains("more.yaml")), "{errors:?}");
        assert!(Ping::times(3).run(&overlay.host_a, "10.2.0.10")?.complete());
        let checks = overlay.a.ask().diagnose()?;
        assert!(checks.iter().any(|c| c.name == "manifests" && !c.advice.is_empty()), "{checks:?}");

        // Nor does a restart: what was in force last is kept.
        overlay.a.end(End::Orderly)?;
        overlay.a.launch()?;
        overlay.a.ask().wait_hubs(1)?;
        assert!(Ping::times(3).run(&overlay.host_a, "10.2.0.10")?.complete());
        let status = overlay.a.ask().status()?;
        assert!(!status.configuration.map(|c| c.errors).unwrap_or_default().is_empty());
        Ok(())
    });
}

#[test]
fn uninstall_leaves_nothing() {
    story("uninstall", |lab| {
        let overlay = Overlay::build(lab)?;
        let node = overlay.a.node();
        assert!(!uninstall(&overlay.a)?, "removed what an agent was using");
        overlay.a.end(End::Kill)?;
        let (run, state) = (overlay.a.run_directory(), overlay.a.state_directory());
        assert!(uninstall(&overlay.a)?);
        assert!(overlay.a.datapaths().is_empty());
        assert!(!run.exists() && !state.exists());
        let links = String::from_utf8_lossy(&node.run("ip", &["link"])?.stdout).into_owned();
        assert!(!links.contains("dmvpn0"), "{links}");
        let routes =
            String::from_utf8_lossy(&node.run("ip", &["route", "show", "table", "all"])?.stdout).into_owned();
        assert!(!routes.contains("unreachable") && !routes.contains("10.0.0.0/8"), "{routes}");
        let redirects = node.run("sysctl", &["-n", "net.ipv4.conf.all.send_redirects"])?;
        assert_eq!(String::from_utf8_lossy(&redirects.stdout).trim(), "0", "as the lab had set it");
        Ok(())
    });
}

#[test]
fn a_datapath_that_is_killed_is_replaced_and_filled() {
    story("datapath-killed", |lab| {
        let overlay = Overlay::build(lab)?;
        Ping::times(20).run(&overlay.host_a, "10.2.0.10")?;
        overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        let pid = overlay.a.pid();
        overlay.a.kill_datapath()?;
        wait::until("packets to pass again", wait::PATIENCE, || {
            let report = Ping::times(1).run(&overlay.host_a, "10.2.0.10").map_err(|e| e.to_string())?;
            if report.complete() { Ok(()) } else { Err(report.to_string()) }
        })?;
        assert_eq!(overlay.a.pid(), pid);
        overlay.a.wait_log("the datapath is gone", Duration::from_secs(1))?;
        assert!(Ping::times(10).run(&overlay.host_a, "10.2.0.10")?.complete());
        overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        Ok(())
    });
}

#[test]
fn a_change_of_the_manifests_loses_no_packet() {
    story("reconfigure", |lab| {
        let overlay = Overlay::build(lab)?;
        Ping::times(20).run(&overlay.host_a, "10.2.0.10")?;
        overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        let pings = Ping { count: 100, interval: Duration::from_millis(20), ..Ping::default() };
        let report = std::thread::scope(|scope| {
            let pinging = scope.spawn(|| pings.run(&overlay.host_a, "10.2.0.10"));
            let changed = spoke("10.200.1.1", "10.1.0.0/24").with(serde_json::json!({
                "nhrp": {"holdingTime": "300s"},
                "routing": {"static": [
                    {"prefix": "10.0.0.0/8", "via": "10.200.0.1"},
                    {"prefix": "172.16.0.0/12", "via": "10.200.0.1"},
                ]},
            }));
            overlay.a.apply(&changed)?;
            overlay.a.wait_log("a new configuration is in force", Duration::from_secs(5))?;
            pinging.join().map_err(|_| Error::other("the ping panicked"))?
        })?;
        assert!(report.complete(), "{report}");
        assert_eq!(overlay.a.node().route_get("172.16.0.1")?["dev"], "dmvpn0");
        assert_eq!(overlay.a.ask().path("", "10.2.0.10")?.kind, "shortcut");
        Ok(())
    });
}

#[test]
fn a_route_that_would_carry_the_tunnel_itself_is_refused_and_told() {
    story("recursive", |lab| {
        let overlay = Overlay::build(lab)?;
        let greedy = spoke("10.200.1.1", "10.1.0.0/24")
            .routes(&[("10.0.0.0/8", "10.200.0.1"), ("198.51.100.0/24", "10.200.0.1")], &["10.1.0.0/24"]);
        overlay.a.apply(&greedy)?;
        overlay.a.wait_log("a new configuration is in force", Duration::from_secs(5))?;
        let routes = overlay.a.ask().tunnel()?.static_routes;
        let refused: Vec<_> = routes.iter().filter(|r| !r.installed).collect();
        assert!(
            matches!(refused[..], [r] if r.prefix == "198.51.100.0/24" && !r.reason.is_empty()),
            "{routes:?}"
        );
        assert_eq!(overlay.a.node().route_get("198.51.100.1")?["dev"], "wan");
        let checks = overlay.a.ask().diagnose()?;
        assert!(
            checks.iter().any(|c| c.found.contains("198.51.100.0/24") && !c.advice.is_empty()),
            "{checks:?}"
        );
        assert!(Ping::times(3).run(&overlay.host_a, "10.2.0.10")?.complete());
        Ok(())
    });
}

#[test]
fn an_upgrade_that_keeps_the_datapath_loses_nothing() {
    story("upgrade", |lab| {
        let overlay = Overlay::build(lab)?;
        let site = lab.site("c", &["203.0.113.3"])?;
        let host = site.lan("lan", "10.3.0.1/24")?;
        let c = Agent::prepare(lab, &site, &["--keep-datapath"])?;
        c.apply(&spoke("10.200.3.1", "10.3.0.0/24"))?;
        c.launch()?;
        c.ask().wait_hubs(1)?;
        overlay.hub.node().run("ip", &["route", "add", "10.3.0.0/24", "via", "10.200.3.1"])?;
        // The hub redirects once it has proven the path to a new spoke.
        Ping::times(20).run(&host, "10.2.0.10")?;
        c.ask().wait_path("10.2.0.10", "shortcut")?;
        let pings = Ping { count: 100, interval: Duration::from_millis(20), ..Ping::default() };
        let report = std::thread::scope(|scope| {
            let pinging = scope.spawn(|| pings.run(&host, "10.2.0.10"));
            std::thread::sleep(Duration::from_millis(300));
            c.end(End::Orderly)?;
            assert_eq!(c.datapaths().len(), 1);
            c.launch()?;
            pinging.join().map_err(|_| Error::other("the ping panicked"))?
        })?;
        assert!(report.complete(), "{report}");
        assert_eq!(overlay.hub.ask().tunnel()?.registrations, 3);
        Ok(())
    });
}

#[test]
fn metrics_say_what_happens() {
    story("metrics", |lab| {
        let overlay = Overlay::build(lab)?;
        Ping::times(3).run(&overlay.host_a, "10.2.0.10")?;
        let metrics = http_get(overlay.a.node(), "/metrics")?;
        for line in [
            "dmvpn_tunnel_up{interface=\"dmvpn0\"} 1",
            "dmvpn_hub_up{",
            "dmvpn_nhrp_messages_total{interface=\"dmvpn0\",direction=\"sent\",type=\"registration_request\"} ",
            "dmvpn_sent_packets_total{",
            "# EOF",
        ] {
            assert!(metrics.contains(line), "no {line} in {metrics}");
        }
        assert!(http_get(overlay.a.node(), "/healthz")?.ends_with("ok\n"));
        assert!(http_get(overlay.hub.node(), "/readyz")?.starts_with("HTTP/1.1 200"));
        Ok(())
    });
}

/// Runs `dmvpn-agent uninstall` on the agent's node. True if it succeeded.
fn uninstall(agent: &Agent) -> Result<bool> {
    let mut command = Command::new(binary("dmvpn-agent")?);
    command.arg("uninstall").arg("--run-dir").arg(agent.run_directory());
    command.arg("--state-dir").arg(agent.state_directory());
    let status = agent.node().spawn(&mut command)?.wait().map_err(Error::io("wait for uninstall"))?;
    Ok(status.success())
}

/// The whole answer to a request to the agent's metrics port.
fn http_get(node: &Node, target: &str) -> Result<String> {
    let mut stream =
        node.namespace().enter(|| TcpStream::connect("127.0.0.1:9477"))?.map_err(Error::io("connect"))?;
    let mut answer = String::new();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: node\r\n\r\n").map_err(Error::io("ask for metrics"))?;
    stream.read_to_string(&mut answer).map_err(Error::io("read metrics"))?;
    Ok(answer)
}

#[test]
fn what_somebody_removed_is_put_back() {
    story("disturbed", |lab| {
        let overlay = Overlay::build(lab)?;
        Ping::times(20).run(&overlay.host_a, "10.2.0.10")?;
        overlay.a.ask().wait_path("10.2.0.10", "shortcut")?;
        for disturbance in [
            &["route", "del", "10.0.0.0/8", "dev", "dmvpn0"][..],
            &["route", "flush", "dev", "dmvpn0", "proto", "191"],
            &["link", "set", "dmvpn0", "down"],
            &["addr", "flush", "dev", "dmvpn0"],
            &["link", "del", "dmvpn0"],
        ] {
            overlay.a.node().run("ip", disturbance)?;
            let what = format!("packets to pass after ip {}", disturbance.join(" "));
            wait::until(&what, wait::PATIENCE, || {
                let routes = overlay.a.node().run("ip", &["route", "show", "10.0.0.0/8", "proto", "193"]);
                let routes = String::from_utf8_lossy(&routes.map_err(|e| e.to_string())?.stdout).into_owned();
                let report = Ping::times(1).run(&overlay.host_a, "10.2.0.10").map_err(|e| e.to_string())?;
                if report.complete() && routes.contains("dmvpn0") {
                    Ok(())
                } else {
                    Err(format!("{report} {routes}"))
                }
            })?;
        }
        // Nothing depends on this one while tunnels are up; it is what keeps traffic in when they are not.
        let unreachable = || -> Result<String> {
            let shown = overlay.a.node().run("ip", &["route", "show", "type", "unreachable"])?;
            Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
        };
        assert!(unreachable()?.contains("10.0.0.0/8"), "{}", unreachable()?);
        overlay.a.node().run("ip", &["route", "del", "unreachable", "10.0.0.0/8", "metric", "4294967295"])?;
        wait::until("the protected prefix", Duration::from_secs(5), || match unreachable() {
            Ok(routes) if routes.contains("10.0.0.0/8") => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let metrics = http_get(overlay.a.node(), "/metrics")?;
        for what in ["route", "interface", "protected_prefix"] {
            let counted = format!("dmvpn_disturbances_total{{what=\"{what}\"}} ");
            assert!(metrics.contains(&counted), "no {counted} in {metrics}");
        }
        Ok(())
    });
}

#[test]
fn another_tunnel_address_makes_another_station() {
    story("renumbered", |lab| {
        let overlay = Overlay::build(lab)?;
        overlay.a.apply(&spoke("10.200.1.9", "10.1.0.0/24"))?;
        wait::until("the new address to be registered and the old one gone", wait::PATIENCE, || {
            let peers = overlay.hub.ask().peers().map_err(|e| e.to_string())?;
            let registered = peers.iter().filter(|p| p.kind() == PeerKind::Registered);
            let addresses: Vec<_> = registered.flat_map(|p| p.tunnel_addresses.clone()).collect();
            let has = |a: &str| addresses.iter().any(|known| known == a);
            if has("10.200.1.9") && !has("10.200.1.1") { Ok(()) } else { Err(format!("{addresses:?}")) }
        })?;
        let on_link = overlay.a.node().run("ip", &["-4", "addr", "show", "dev", "dmvpn0"])?;
        let on_link = String::from_utf8_lossy(&on_link.stdout).into_owned();
        assert!(on_link.contains("10.200.1.9/16") && !on_link.contains("10.200.1.1/"), "{on_link}");
        Ok(())
    });
}
