//! Fail closed: whatever happens to the processes, no overlay packet leaves in clear, by any interface.
//!
//! The packets of the hosts bear a marker that nothing else has. The spoke has a second interface to the outside and a
//! default route, which is where packets go for which the overlay has no way, unless they are kept.

use lab::network::{hub, spoke};
use lab::traffic::Flow;
use lab::wait::{self, PATIENCE};
use lab::{Capture, End, Error, Lab, Manifest, Proof, Result, Site, story};
use serde_json::json;
use std::thread::sleep;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// What every packet of a flow begins with.
const MARKER: &[u8] = b"labflow1";

/// Two spokes of a hub and everything that could be seen outside.
struct Stage {
    hub: Site,
    a: Site,
    b: Site,
    outside: Vec<Capture>,
}

fn protected(m: Manifest) -> Manifest {
    m.proven_by(Proof::Certificates).with(json!({"protectedPrefixes": ["10.0.0.0/8"]}))
}

fn stage(lab: &Lab) -> Result<Stage> {
    let hub1 = hub(1).tuned(protected).start(lab)?;
    let (a, b) = (spoke(1, &[1]).tuned(protected).build(lab)?, spoke(2, &[1]).tuned(protected).build(lab)?);
    for site in [&a, &b] {
        // Another provider, with a default route of its own.
        let second = lab.node(&format!("{}-provider", site.node.name()))?;
        second.wire("port", &site.node, "second", &lab::Uplink::default())?;
        second.namespace().ip(&["addr add 192.0.2.1/24 dev port"])?;
        site.node.namespace().ip(&[
            "addr add 192.0.2.2/24 dev second",
            "route add default via 192.0.2.1 dev second metric 500",
        ])?;
    }
    // On the underlay and on every other interface but the tunnel's and the LAN's, where clear is right.
    let outside = vec![
        Capture::start(&a.node, &["wan", "second", "lo"])?,
        Capture::start(&b.node, &["wan", "second", "lo"])?,
        Capture::start(&hub1.node, &["wan", "lo"])?,
    ];
    Ok(Stage { hub: hub1, a, b, outside })
}

impl Stage {
    /// The hosts send to each other all the time, whether there is a way or not.
    fn traffic(&self) -> Result<[Flow; 3]> {
        let (a, b) = ((&self.a.host, &*self.a.host_address), (&self.b.host, &*self.b.host_address));
        let hub1 = (&self.hub.host, &*self.hub.host_address);
        Ok([
            Flow::start(a, b, 7001, 500, 100)?,
            Flow::start(b, a, 7002, 500, 100)?,
            Flow::start(hub1, a, 7003, 500, 100)?,
        ])
    }

    /// The very first start of all: before it nothing keeps packets, so the hosts begin when something does. Their packets
    /// have no way then yet.
    fn launch(&self) -> Result {
        for site in [&self.a, &self.b] {
            site.agent.launch()?;
            wait::until("the protected prefixes", PATIENCE, || {
                let routes = site.node.namespace().ip_json("route show type unreachable")?;
                if routes.to_string().contains("10.0.0.0/8") { Ok(()) } else { Err(Error::other(routes)) }
            })?;
        }
        Ok(())
    }

    fn wait_whole(&self, flows: &[Flow]) -> Result {
        wait::until("packets to arrive again", 2 * PATIENCE, || {
            let before: Vec<u64> = flows.iter().map(Flow::received).collect();
            sleep(200 * MS);
            let more = flows.iter().zip(&before).all(|(flow, before)| flow.received() > before + 20);
            if more { Ok(()) } else { Err(Error::other(format!("{before:?}"))) }
        })
    }

    #[track_caller]
    fn assert_nothing_in_clear(&self, when: &str) {
        for capture in &self.outside {
            let frames = capture.frames();
            let clear = frames.iter().find(|f| f.data.windows(MARKER.len()).any(|w| w == MARKER));
            assert!(
                clear.is_none(),
                "{when}: plaintext on {}: {clear:02x?}",
                clear.map_or("", |f| &f.interface)
            );
            assert_eq!(capture.count(|p| p.ip.is_clear()), 0, "{when}: GRE in clear");
            capture.clear();
        }
    }
}

#[test]
fn nothing_leaves_in_clear_when_processes_start_die_and_return() {
    story("fail_closed", |lab| {
        let stage = stage(lab)?;
        stage.launch()?;
        let flows = stage.traffic()?;
        stage.wait_whole(&flows)?;
        stage.assert_nothing_in_clear("start");
        let a = &stage.a.agent;
        a.end(End::Kill)?;
        sleep(1000 * MS);
        stage.assert_nothing_in_clear("control killed");
        a.launch()?;
        a.ask().wait_ready()?;
        stage.assert_nothing_in_clear("control started again");
        a.kill_datapath()?;
        stage.wait_whole(&flows)?;
        stage.assert_nothing_in_clear("datapath killed");
        a.end(End::Kill)?;
        a.kill_datapath()?;
        sleep(2000 * MS);
        stage.assert_nothing_in_clear("both killed");
        a.launch()?;
        stage.wait_whole(&flows)?;
        stage.assert_nothing_in_clear("both started again");
        // A machine that starts while its hosts send already.
        stage.hub.agent.end(End::Kill)?;
        stage.hub.agent.kill_datapath()?;
        sleep(1000 * MS);
        stage.hub.agent.launch()?;
        stage.wait_whole(&flows)?;
        stage.assert_nothing_in_clear("the hub killed and started again");
        a.end(End::Orderly)?;
        sleep(1000 * MS);
        stage.assert_nothing_in_clear("an orderly end under load");
        Ok(())
    });
}

#[test]
fn nothing_leaves_in_clear_when_authentication_fails() {
    story("fail_closed_refused", |lab| {
        let stage = stage(lab)?;
        let expired = lab::security::now() - 60;
        let claims = spoke(1, &[1]).manifest.claims("spoke1");
        stage.a.agent.give(&lab.pki()?.node_until(&claims, expired)?, None)?;
        stage.launch()?;
        let flows = stage.traffic()?;
        stage.b.wait_joined(1)?;
        sleep(3000 * MS);
        assert_eq!(flows[0].received() + flows[1].received() + flows[2].received(), 0);
        stage.assert_nothing_in_clear("authentication failed");
        Ok(())
    });
}

#[test]
fn an_agent_refuses_to_start_weaker_than_configured() {
    story("refuses_weaker", |lab| {
        let site = spoke(1, &[1]).tuned(protected).build(lab)?;
        // Encrypted, and no credentials at all.
        std::fs::remove_file(site.agent.manifests().join("credentials.yaml")).map_err(Error::io("remove"))?;
        let wire = site.wire()?;
        site.agent.launch()?;
        sleep(2000 * MS);
        let links = site.node.namespace().ip_json("link show")?;
        assert!(!links.to_string().contains("dmvpn0"), "{links}");
        assert_eq!(wire.count(|p| p.ip.gre().is_some() || p.ip.ike().is_some()), 0);
        assert!(site.agent.log().contains("node-certificate"), "the log says what is missing");
        Ok(())
    });
}
