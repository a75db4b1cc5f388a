//! No loss, encrypted: 5,000 packets a second each way while keys, sessions, credentials and processes are replaced.
//!
//! Rekeying is by the clock of the nodes: children every two or three seconds, IKE SAs every eight, at both ends with the
//! same times, so that some of it collides.

use lab::decode::exchange;
use lab::distant::RATE;
use lab::network::{Plan, hub, spoke};
use lab::traffic::{Flow, Report};
use lab::{Capture, Distant, End, Error, Lab, Manifest, Packet, Proof, Result, Site, heavy_story};
use serde_json::json;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A hub and two spokes with certificates.
fn stage(lab: &Lab, tune: impl Fn(Manifest) -> Manifest) -> Result<Distant> {
    let protect = |plan: Plan| plan.tuned(|m| tune(m.proven_by(Proof::Certificates)));
    Distant::start(lab, protect(hub(1)), |n| protect(spoke(n, &[1])))
}

/// The load is on, and has found the direct path.
fn direct_under_load(stage: &Distant) -> Result<[Flow; 2]> {
    let flows = stage.flows()?;
    stage.wait_direct(true)?;
    sleep(1000 * MS);
    Ok(flows)
}

fn assert_nothing_lost(flows: [Flow; 2]) -> [Report; 2] {
    flows.map(|flow| {
        let report = flow.stop();
        println!("{report}");
        report.assert_nothing_lost();
        report
    })
}

/// SAs that carried packets of the hosts between two sites, in this capture.
fn sas(wire: &Capture, a: &Site, b: &Site) -> BTreeSet<u32> {
    let direct = wire.select(|p| a.between(b)(p) && a.carried(b)(p));
    direct.iter().filter_map(|p| p.ip.esp()).map(|esp| esp.spi).collect()
}

/// Rekeys of IKE SAs between two sites: pairs of IKE SPIs that were used.
fn ike_sas(wire: &Capture, a: &Site, b: &Site) -> BTreeSet<(u64, u64)> {
    let messages =
        wire.select(|p: &Packet| a.between(b)(p) && p.ip.ike().is_some_and(|m| m.exchange != exchange::INIT));
    messages.iter().filter_map(|p| p.ip.ike()).map(|ike| ike.spis).collect()
}

/// Sessions that were begun, as seen in this capture.
fn handshakes(wire: &Capture) -> usize {
    wire.count(|p| p.ip.ike().is_some_and(|ike| ike.exchange == exchange::INIT))
}

/// What was replaced is gone: one session between the spokes, with no more than a pair of SAs for each worker.
fn assert_one_pair_for_each_worker(stage: &Distant) -> Result {
    sleep(2000 * MS);
    let session = stage.a.agent.ask().session(&stage.b.tunnel)?;
    let lanes: BTreeSet<u32> = session.sas.iter().map(|sa| sa.lane).collect();
    assert!(session.sas.len() <= 2 * lanes.len(), "{session:?}");
    Ok(())
}

#[test]
fn twenty_child_and_five_ike_rekeys_with_collisions_lose_nothing() {
    heavy_story("no_loss_rekeys", |lab| {
        let often = |m: Manifest| m.with(json!({"security": {"rekey": {"child": "2s", "ike": "8s"}}}));
        let stage = stage(lab, often)?;
        let wire = stage.a.wire()?;
        let flows = direct_under_load(&stage)?;
        sleep(47_000 * MS);
        assert_nothing_lost(flows);
        let (children, sessions) =
            (sas(&wire, &stage.a, &stage.b).len(), ike_sas(&wire, &stage.a, &stage.b).len());
        println!("{children} child SAs (both directions) and {sessions} IKE SAs between the spokes");
        assert!(children >= 2 * 20, "{children} child SAs");
        assert!(sessions > 5, "{sessions} IKE SAs");
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0);
        assert_one_pair_for_each_worker(&stage)
    });
}

/// How often both ends asked for new keys at once, as seen at one of them: its own request was out, and unanswered, when
/// the other's came.
fn collisions(wire: &Capture, a: &Site, b: &Site) -> usize {
    const RESPONSE: u8 = 0x20;
    let rekeys = wire.select(|p: &Packet| {
        a.between(b)(p) && p.ip.ike().is_some_and(|m| m.exchange == exchange::CREATE_CHILD)
    });
    let (mut out, mut crossed) = (BTreeSet::new(), BTreeSet::new());
    for packet in &rekeys {
        let Some(message) = packet.ip.ike() else { continue };
        let number = (message.spis, message.id);
        match (packet.outgoing, message.flags & RESPONSE == 0) {
            (true, true) => drop(out.insert(number)),
            (false, false) => drop(out.remove(&number)),
            (false, true) if out.iter().any(|(spis, _)| *spis == message.spis) => {
                crossed.insert(number);
            }
            _ => {}
        }
    }
    crossed.len()
}

#[test]
fn keys_that_both_ends_replace_at_once_lose_nothing() {
    heavy_story("no_loss_collisions", |lab| {
        let stage = stage(lab, |m| m)?;
        let wire = stage.a.wire()?;
        let flows = direct_under_load(&stage)?;
        let (a, b) = (stage.a.agent.ask(), stage.b.agent.ask());
        for round in 0..25 {
            // Every fifth time the IKE SA itself, otherwise its children.
            let ike = round % 5 == 4;
            std::thread::scope(|scope| {
                let there = scope.spawn(|| b.rekey(&stage.a.tunnel, ike));
                let here = a.rekey(&stage.b.tunnel, ike)?;
                let there = there.join().map_err(|_| Error::other("asking panicked"))??;
                assert_eq!((here, there), (1, 1), "each has one session with the other");
                Ok::<_, Error>(())
            })?;
            sleep(500 * MS);
        }
        stage.wait_direct(true)?;
        assert_nothing_lost(flows);
        let collided = collisions(&wire, &stage.a, &stage.b);
        println!("{collided} requests crossed one of the other end's");
        assert!(collided >= 20, "{collided} collisions were provoked");
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0);
        assert_one_pair_for_each_worker(&stage)
    });
}

#[test]
fn a_datapath_that_is_handed_over_under_load_loses_nothing() {
    heavy_story("no_loss_handover", |lab| {
        let stage = stage(lab, |m| m)?;
        let wire = stage.a.wire()?;
        let flows = direct_under_load(&stage)?;
        wire.clear();
        for site in [&stage.a, &stage.b, &stage.hub] {
            site.agent.hand_over_datapath()?;
            sleep(1000 * MS);
        }
        stage.wait_direct(true)?;
        for report in assert_nothing_lost(flows) {
            assert!(report.longest_gap < 50 * MS, "{report}");
        }
        assert_eq!(handshakes(&wire), 0, "sessions and SAs go on in the successor");
        // Who took over is driven as the one before: keys are replaced, and what it still holds answers.
        assert_eq!(stage.a.agent.ask().rekey(&stage.b.tunnel, false)?, 1);
        sleep(500 * MS);
        lab::traffic::Ping::times(5).expect(&stage.a.host, &stage.b.host_address)?;
        Ok(())
    });
}

#[test]
fn a_shortcut_forms_and_credentials_rotate_without_loss() {
    heavy_story("no_loss_rotation", |lab| {
        let stage = stage(lab, |m| m)?;
        let flows = direct_under_load(&stage)?;
        let pki = lab.pki()?;
        // New keys and certificates for all three, one after the other.
        for (site, claims) in [
            (&stage.a, spoke(1, &[1]).manifest.claims("spoke1")),
            (&stage.hub, hub(1).manifest.claims("hub1")),
            (&stage.b, spoke(2, &[1]).manifest.claims("spoke2")),
        ] {
            site.agent.give(&pki.node(&claims)?, None)?;
            sleep(4000 * MS);
        }
        stage.wait_direct(true)?;
        assert_nothing_lost(flows);
        Ok(())
    });
}

#[test]
fn control_killed_twenty_times_loses_nothing_and_keeps_the_sas() {
    heavy_story("no_loss_control_killed_encrypted", |lab| {
        let stage = stage(lab, |m| m)?;
        let wire = stage.a.wire()?;
        let flows = direct_under_load(&stage)?;
        wire.clear();
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
        assert_nothing_lost(flows);
        assert_eq!(handshakes(&wire), 0, "sessions go on where they were");
        Ok(())
    });
}

#[test]
fn sessions_that_are_cleared_are_made_anew() {
    heavy_story("sessions_cleared", |lab| {
        let stage = stage(lab, |m| m)?;
        let flows = direct_under_load(&stage)?;
        stage.a.agent.ask().clear_sessions(&stage.b.tunnel)?;
        stage.wait_direct(true)?;
        sleep(2000 * MS);
        for report in flows.map(Flow::stop) {
            println!("{report}");
            assert!(report.lost <= u64::from(RATE), "{report}");
        }
        Ok(())
    });
}
