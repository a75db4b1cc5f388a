//! No loss: 5,000 packets a second each way between hosts of two spokes, through every planned change; and at most a
//! second of it through failures.
//!
//! A direction of a link keeps its order under jitter, so what arrives out of order was overtaken by a packet on the
//! faster path, and its delay says so; or it was sent when the flow had just changed its path, and with it the workers.

use lab::decode::nhrp::kind;
use lab::distant::RATE;
use lab::network::{hub, spoke};
use lab::traffic::{Flow, Report};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Distant, End, Error, Lab, Manifest, Result, Uplink, heavy_story};
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
/// Between the slowest direct packet (10 ms and twice 5 ms of jitter) and the fastest by the hub (30 ms).
const SLOWER_THAN_DIRECT: Duration = Duration::from_millis(25);

/// A hub and two spokes of this phase.
fn stage(lab: &Lab, phase: u8, tune: impl Fn(Manifest) -> Manifest) -> Result<Distant> {
    Distant::start(lab, hub(1).phase(phase), |n| spoke(n, &[1]).phase(phase).tuned(&tune))
}

/// A session's lanes come one after the other, and the kernel gives a flow to the worker that its answers come to: in so
/// much time after its path, a flow has changed all it goes by.
const SETTLING: Duration = Duration::from_millis(100);

/// Nothing was lost or duplicated, and whatever was reordered was so by a change of path.
fn assert_perfect(reports: &[Report]) {
    for report in reports {
        report.assert_nothing_lost();
        let unexplained = report.late_for_no_reason(SLOWER_THAN_DIRECT, SETTLING);
        assert!(unexplained.is_empty(), "{report}: no change of path explains {unexplained:?}");
        let overtaken = report.late_for_no_reason(SLOWER_THAN_DIRECT, Duration::ZERO);
        println!("{report}; all but these came by the hub: {overtaken:?}");
    }
}

fn nhrp_count(wire: &Capture, message: u8, since: Instant) -> usize {
    wire.count(|p| p.at >= since && p.ip.nhrp().is_some_and(|m| m.kind == message))
}

/// Forming, renewal, idle expiry, purge (of a prefix in phase 3, of the next hop in phase 2), `clear`: each under full load, and proven by the
/// capture.
fn a_shortcuts_life(name: &str, phase: u8) {
    heavy_story(name, |lab| {
        // Short times, so that a life fits into a story: renewed after 8 s, idle after 3 s.
        let short = |m: Manifest| m.with(json!({"nhrp": {"holdingTime": "12s", "idleTimeout": "3s"}}));
        let stage = stage(lab, phase, short)?;
        let (a, b) = (&stage.a, &stage.b);
        let wire = a.wire()?;
        let by_hub = |p: &lab::Packet| a.carried(b)(p) && a.between(&stage.hub)(p);
        let direct = |p: &lab::Packet| a.carried(b)(p) && a.between(b)(p);

        let begin = Instant::now();
        let flows = stage.flows()?;
        stage.wait_direct(true)?;
        sleep(500 * MS);
        let formed = Instant::now();
        assert!(wire.count(by_hub) > 0 && wire.count(direct) > 0, "first by the hub, then directly");
        assert!(nhrp_count(&wire, kind::RESOLUTION_REPLY, begin) > 0);
        sleep(1000 * MS);
        assert_eq!(
            wire.count(|p| p.at > formed + 500 * MS && by_hub(p)),
            0,
            "the hub carries nothing any more"
        );

        // Renewal: asked again before the answer's time is over, while the packets stay where they are.
        let renewing = Instant::now();
        sleep(12_000 * MS);
        assert!(nhrp_count(&wire, kind::RESOLUTION_REQUEST, renewing) > 0, "a renewal");
        assert_eq!(wire.count(|p| p.at > renewing && by_hub(p)), 0, "packets by the hub during renewal");

        // Idle expiry: the traffic pauses until the shortcut is given up, and goes on in that moment.
        flows.iter().for_each(|f| f.pause(true));
        wait::until("the idle shortcut to go", PATIENCE, || {
            let direct = a.direct_to(b)?;
            if direct { Err(Error::other("it is there")) } else { Ok(()) }
        })?;
        let resumed = Instant::now();
        flows.iter().for_each(|f| f.pause(false));
        stage.wait_direct(true)?;
        sleep(1000 * MS);
        assert!(wire.count(|p| p.at > resumed && by_hub(p)) > 0, "the hub carried again");
        assert!(wire.count(|p| p.at > resumed && direct(p)) > 0, "and a new shortcut formed");

        // Purge: in phase 3 half of the far LAN is routed elsewhere, so what was answered for all of it is wrong.
        let purged = Instant::now();
        if phase == 3 {
            b.node.namespace().ip(&["route add 10.2.0.128/25 via 10.200.0.1 dev dmvpn0"])?;
            wire.wait_for("a purge", PATIENCE, |p| {
                p.at > purged && !p.outgoing && p.ip.nhrp().is_some_and(|m| m.kind == kind::PURGE_REQUEST)
            })?;
            a.wait_next_hop("10.2.0.10", &b.tunnel)?;
            let route = || a.node.namespace().ip_json("route show 10.2.0.0/25");
            wait::until("a shortcut for the half that is left", PATIENCE, || {
                let route = route()?;
                if route[0]["gateway"] == b.tunnel { Ok(()) } else { Err(Error::other(route)) }
            })?;
        }
        if phase == 2 {
            // What was answered is a next hop, which no route changes: the far spoke stops answering altogether.
            let as_of_phase = |n| b.agent.apply(&spoke(2, &[1]).phase(n).tuned(short).manifest);
            as_of_phase(1)?;
            wire.wait_for("a purge", PATIENCE, |p| {
                p.at > purged && !p.outgoing && p.ip.nhrp().is_some_and(|m| m.kind == kind::PURGE_REQUEST)
            })?;
            stage.wait_direct(false)?;
            sleep(1000 * MS);
            as_of_phase(2)?;
        }
        sleep(1000 * MS);
        stage.wait_direct(true)?;

        // Both ends are told to forget what they have learnt.
        for site in [a, b] {
            site.agent.ask().clear("")?;
            sleep(500 * MS);
            stage.wait_direct(true)?;
        }
        sleep(1000 * MS);
        assert_perfect(&flows.map(Flow::stop));
        Ok(())
    });
}

#[test]
fn a_shortcut_forms_is_renewed_expires_and_is_purged_without_loss_in_phase_3() {
    a_shortcuts_life("no_loss_phase_3", 3);
}

#[test]
fn a_direct_path_forms_is_renewed_expires_and_is_purged_without_loss_in_phase_2() {
    a_shortcuts_life("no_loss_phase_2", 2);
}

#[test]
fn control_killed_twenty_times_under_load_loses_nothing() {
    heavy_story("no_loss_control_killed", |lab| {
        let stage = stage(lab, 3, |m| m)?;
        let flows = stage.flows()?;
        stage.wait_direct(true)?;
        let victims = [&stage.a, &stage.b, &stage.hub];
        for round in 0..20 {
            let victim = &victims[round % victims.len()].agent;
            victim.end(End::Kill)?;
            sleep(100 * MS);
            victim.launch()?;
            victim.ask().wait_ready()?;
            sleep(200 * MS);
        }
        stage.wait_direct(true)?;
        assert_perfect(&flows.map(Flow::stop));
        Ok(())
    });
}

#[test]
fn a_direct_path_that_dies_costs_at_most_a_second() {
    heavy_story("direct_blackholed", |lab| {
        let stage = stage(lab, 3, |m| m)?;
        let flows = stage.flows()?;
        stage.wait_direct(true)?;
        sleep(1000 * MS);
        lab.internet()
            .cut(&["ip saddr { 198.51.100.11, 198.51.100.12 } ip daddr { 198.51.100.11, 198.51.100.12 }"])?;
        stage.wait_direct(false)?;
        sleep(2000 * MS);
        let said = stage.a.agent.ask().path("", &stage.b.host_address)?.explanation.join("\n");
        for report in flows.map(Flow::stop) {
            println!("{report}");
            assert!(report.lost > 0 && report.lost <= u64::from(RATE), "{report}");
            assert!(report.longest_gap <= 1000 * MS, "{report}");
        }
        assert!(said.contains("answer") || said.contains("probe"), "the reason is kept: {said}");
        // It comes back when the path does.
        lab.internet().heal()?;
        let flows = stage.flows()?;
        stage.wait_direct_for(true, 90 * 1000 * MS)?;
        assert_perfect(&flows.map(Flow::stop));
        Ok(())
    });
}

#[test]
fn a_far_node_whose_processes_are_all_killed_and_started_again_costs_at_most_a_second() {
    heavy_story("far_node_killed", |lab| {
        let stage = stage(lab, 3, |m| m)?;
        let flows = stage.flows()?;
        stage.wait_direct(true)?;
        sleep(1000 * MS);
        stage.b.agent.kill_datapath()?;
        stage.b.agent.end(End::Kill)?;
        // As systemd with its default RestartSec.
        sleep(100 * MS);
        stage.b.agent.launch()?;
        stage.wait_direct(true)?;
        sleep(2000 * MS);
        for report in flows.map(Flow::stop) {
            println!("{report}");
            assert!(report.lost <= u64::from(RATE), "{report}");
        }
        Ok(())
    });
}

/// Read as: the far spoke is dead and stays so, but what it led to is still there, behind a second spoke. What may be
/// lost is what was on its way until the near spoke had fallen back on the hub, and the hub on the second one.
#[test]
fn a_far_node_that_is_killed_for_good_costs_at_most_a_second_where_another_leads_to_its_lan() {
    heavy_story("far_node_dead", |lab| {
        let stage = stage(lab, 3, |m| m)?;
        let (a, b) = (&stage.a, &stage.b);
        // Another router on b's LAN; of two equal ways the hub takes that of the lower address.
        let also = |m: Manifest| m.with(json!({"announce": {"prefixes": ["10.3.0.0/24", "10.2.0.0/24"]}}));
        let c = spoke(3, &[1]).by(Distant::near()).tuned(also).build(lab)?;
        c.node.wire("lan2", &b.host, "eth1", &Uplink::default())?;
        c.node.namespace().ip(&["addr add 10.2.0.2/24 dev lan2"])?;
        c.agent.launch()?;
        c.wait_joined(1)?;
        stage.hub.wait_next_hop(&c.host_address, &c.tunnel)?;
        stage.hub.wait_next_hop(&b.host_address, &b.tunnel)?;
        let flow = Flow::start((&a.host, &a.host_address), (&b.host, &b.host_address), 7001, RATE, 200)?;
        wait::until("a shortcut to b", PATIENCE, || {
            if a.direct_to(b)? { Ok(()) } else { Err(Error::other("by the hub")) }
        })?;
        sleep(2000 * MS);
        for pid in b.node.namespace().processes() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(Error::sys("kill"))?;
        }
        sleep(5000 * MS);
        let report = flow.stop();
        println!("{report}");
        assert!(report.lost <= u64::from(RATE) && report.longest_gap <= 1000 * MS, "{report}");
        stage.hub.wait_next_hop(&b.host_address, &c.tunnel)
    });
}

#[test]
fn a_far_datapath_that_is_killed_costs_at_most_a_second() {
    heavy_story("far_datapath_killed", |lab| {
        let stage = stage(lab, 3, |m| m)?;
        let flows = stage.flows()?;
        stage.wait_direct(true)?;
        sleep(1000 * MS);
        stage.b.agent.kill_datapath()?;
        sleep(4000 * MS);
        for report in flows.map(Flow::stop) {
            println!("{report}");
            assert!(report.lost <= u64::from(RATE) && report.longest_gap <= 1000 * MS, "{report}");
        }
        Ok(())
    });
}
