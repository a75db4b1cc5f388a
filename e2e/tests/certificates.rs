//! Certificates that are to be refused: too wide, stolen, run out, revoked; at the handshake and on live SAs.

use lab::network::{hub, spoke, start_and_join};
use lab::security::{now, serial};
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Proof, Result, Site, story};
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// After a revocation, or the last second of a certificate, its SAs are gone within this.
const AT_MOST: Duration = Duration::from_secs(5);

/// A hub and two spokes with certificates, connected directly.
fn connected(lab: &Lab) -> Result<[Site; 3]> {
    let hub1 = hub(1).proven_by(Proof::Certificates).start(lab)?;
    let plan = |n| spoke(n, &[1]).proven_by(Proof::Certificates);
    let spokes = start_and_join(lab, &[&hub1], vec![plan(1), plan(2)])?;
    let Ok([a, b]) = <[Site; 2]>::try_from(spokes) else { unreachable!("two spokes") };
    a.wait_direct(&b)?;
    Ok([hub1, a, b])
}

/// A spoke that is started with other credentials than its manifest would give it.
fn with_credentials(
    lab: &Lab,
    n: u8,
    make: impl Fn(&Lab, &Site) -> Result<identity::pki::Made>,
) -> Result<Site> {
    let site = spoke(n, &[1]).proven_by(Proof::Certificates).build(lab)?;
    site.agent.give(&make(lab, &site)?, None)?;
    site.agent.launch()?;
    Ok(site)
}

/// No session with this site is up at the other one, within the patience.
fn wait_no_session(at: &Site, with: &Site, patience: Duration) -> Result {
    wait::until(
        &format!("the session of {} with {} to end", at.agent.name(), with.agent.name()),
        patience,
        || {
            let sessions = at.agent.ask().sessions()?;
            let left = sessions.iter().find(|s| s.path.contains(&with.underlay) && !s.sas.is_empty());
            left.map_or(Ok(()), |s| Err(Error::other(format!("{s:?}"))))
        },
    )
}

/// It gets nowhere, and its user is told why by the hub's refusal.
fn stays_out(hub1: &Site, stranger: &Site, reason: &str) -> Result {
    wait::until(&format!("{reason:?} in the hub's log"), PATIENCE, || {
        let log = hub1.agent.log();
        if log.contains(reason) { Ok(()) } else { Err("it is not there") }
    })?;
    sleep(SECOND);
    assert!(stranger.agent.ask().hubs()?.iter().all(|h| !h.up));
    wait_no_session(hub1, stranger, SECOND)?;
    assert!(hub1.agent.ask().tunnel()?.registrations <= 2);
    let failing = stranger.agent.ask().diagnose()?;
    assert!(failing.iter().any(|c| !c.advice.is_empty()), "{failing:?}");
    Ok(())
}

#[test]
fn a_certificate_that_says_more_than_its_ca_may_give_is_refused() {
    story("too_wide", |lab| {
        let [hub1, a, b] = connected(lab)?;
        let stranger = with_credentials(lab, 3, |lab, site| {
            let mut claims = spoke(3, &[1]).manifest.claims(site.agent.name());
            claims.prefixes = "10.0.0.0/8".parse().into_iter().collect();
            lab.pki()?.too_wide(&claims)
        })?;
        stays_out(&hub1, &stranger, "10.0.0.0/8")?;
        a.wait_direct(&b)
    });
}

#[test]
fn a_certificate_that_has_run_out_is_refused() {
    story("expired", |lab| {
        let [hub1, a, b] = connected(lab)?;
        let stranger = with_credentials(lab, 3, |lab, site| {
            lab.pki()?.node_until(&spoke(3, &[1]).manifest.claims(site.agent.name()), now() - 60)
        })?;
        stays_out(&hub1, &stranger, "expired")?;
        a.wait_direct(&b)
    });
}

#[test]
fn a_certificate_that_runs_out_ends_its_live_sas() {
    story("expires", |lab| {
        let [hub1, a, b] = connected(lab)?;
        let end = now() + 25;
        let made = lab.pki()?.node_until(&spoke(1, &[1]).manifest.claims(a.agent.name()), end)?;
        a.agent.give(&made, None)?;
        a.wait_direct(&b)?;
        let left = Duration::from_secs(end.saturating_sub(now()));
        sleep(left);
        wait_no_session(&hub1, &a, AT_MOST + SECOND)?;
        wait_no_session(&b, &a, AT_MOST)?;
        let report = Ping { patience: SECOND, ..Ping::times(3) }.run(&a.host, &b.host_address)?;
        assert!(report.round_trips.is_empty(), "{report}");
        Ok(())
    });
}

#[test]
fn a_revoked_certificate_loses_its_live_sas_at_the_hub_and_at_spokes() {
    story("revoked", |lab| {
        let [hub1, a, b] = connected(lab)?;
        let pki = lab.pki()?;
        let claims = |n| spoke(n, &[1]).manifest.claims(&format!("spoke{n}"));
        let stolen = pki.node(&claims(1))?;
        a.agent.give(&stolen, None)?;
        sleep(2 * SECOND);
        a.wait_direct(&b)?;
        let list = pki.revoke(&[serial(&stolen)?], 1)?;
        let others = [(&hub1, pki.node(&hub(1).manifest.claims("hub1"))?), (&b, pki.node(&claims(2))?)];
        let revoked = Instant::now();
        for (site, own) in &others {
            site.agent.give(own, Some(&list))?;
        }
        wait_no_session(&hub1, &a, AT_MOST)?;
        let left = || AT_MOST.saturating_sub(revoked.elapsed()) + SECOND;
        wait_no_session(&b, &a, left())?;
        // The datapath obeys some milliseconds after the status has told what it is to do.
        let ping = |count| Ping { patience: SECOND, ..Ping::times(count) }.run(&a.host, &b.host_address);
        wait::until("traffic of the revoked to end", left(), || {
            let report = ping(1)?;
            if report.round_trips.is_empty() { Ok(()) } else { Err(Error::other(report.to_string())) }
        })?;
        let report = ping(3)?;
        assert!(report.round_trips.is_empty(), "{report}");
        stays_out(&hub1, &a, "revoked")
    });
}

#[test]
fn a_stolen_certificate_is_good_for_its_own_prefix_only() {
    story("stolen", |lab| {
        let [hub1, a, b] = connected(lab)?;
        let c = spoke(4, &[1]).proven_by(Proof::Certificates).start(lab)?;
        c.wait_joined(1)?;
        c.wait_route_to(&b)?;
        // Whoever has the first spoke's machine says that the second one's LAN were there.
        let greedy = spoke(1, &[1]).proven_by(Proof::Certificates).tuned(|m| {
            m.certified_for(&["10.1.0.0/24"])
                .with(json!({"announce": {"prefixes": ["10.1.0.0/24", "10.2.0.0/24"]}}))
        });
        a.node.namespace().ip(&["route add 10.2.0.128/25 dev lan"])?;
        a.agent.apply(&greedy.manifest)?;
        wait::until("the refusal in the hub's status", PATIENCE, || {
            let neighbours = hub1.agent.ask().tunnel()?.bgp_neighbours;
            let refused: u32 = neighbours.iter().map(|n| n.prefixes_refused).sum();
            if refused > 0 { Ok(()) } else { Err(Error::other(format!("{neighbours:?}"))) }
        })?;
        let flow = Flow::start((&c.host, &c.host_address), (&b.host, &b.host_address), 7001, 200, 100)?;
        // Packets with a source that is not its own are dropped, by the hub and by spokes, and counted.
        a.host.namespace().ip(&["addr add 10.2.0.77/32 dev eth0"])?;
        a.node.namespace().ip(&["route add 10.2.0.77/32 dev lan"])?;
        let before =
            hub1.agent.ask().counter("drop_inner_source")? + c.agent.ask().counter("drop_inner_source")?;
        let forged = Ping { source: "10.2.0.77".parse().ok(), patience: SECOND, ..Ping::times(5) };
        let report = forged.run(&a.host, &c.host_address)?;
        assert!(report.round_trips.is_empty(), "{report}");
        let after =
            hub1.agent.ask().counter("drop_inner_source")? + c.agent.ask().counter("drop_inner_source")?;
        assert!(after >= before + 5, "{before} -> {after}");
        flow.stop().assert_nothing_lost();
        Ok(())
    });
}
