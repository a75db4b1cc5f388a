//! Pods of one cluster reach pods of another: phases, protocols, sizes, sources, and what nobody may see.

use lab::kubernetes::{Chapters, PodPlan, Stage, lost_at_most};
use lab::narration::ensure;
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Capture, Result, story};
use std::time::Duration;

#[test]
fn pods_of_two_clusters_talk_in_every_phase_with_their_own_addresses() {
    story("kubernetes_phases", |lab| {
        let stage = Stage::new(lab, 3)?;
        let mut chapters = Chapters::default();
        chapters.tell("phase_3_goes_direct", || phase_3(&stage));
        chapters.tell("the_server_sees_the_pods_address_both_ways", || sources(&stage));
        chapters.tell("tcp_carries_much_and_udp_loses_nothing", || volume(&stage));
        chapters.tell("large_packets_pass_and_pods_of_other_nodes_too", || sizes_and_nodes(&stage));
        chapters.tell("phase_1_stays_at_the_hub", || phase_1(&stage));
        chapters.tell("phase_2_goes_direct", || phase_2(&stage));
        chapters.end()
    });
}

fn phase_3(stage: &Stage) -> Result {
    let wires = [stage.a.router(), stage.hub.router()].map(|router| Capture::start(router, &["wan"]));
    let [at_a, at_hub] = wires;
    let (at_a, at_hub) = (at_a?, at_hub?);
    stage.wait_direct()?;
    let [a, _] = stage.machines()?;
    let nat = stage.b.plan().public();
    at_hub.clear();
    at_a.clear();
    Ping::times(10).expect(stage.client.host(), &stage.web.address)?;
    at_a.wait_for("ESP from node to NAT", PATIENCE, |p| {
        p.ip.esp().is_some() && p.ip.goes(&a.address(), &nat)
    })?;
    let (from, to) = (stage.client.address.clone(), stage.web.address.clone());
    let by_hub = at_hub.count(|p| p.ip.carries(&from, &to) || p.ip.carries(&to, &from));
    ensure(by_hub == 0, &format!("{by_hub} packets still went by the hub"))?;
    let clear = at_a.count(|p| p.ip.is_clear()) + at_hub.count(|p| p.ip.is_clear());
    ensure(clear == 0, &format!("{clear} overlay packets were in clear"))
}

fn sources(stage: &Stage) -> Result {
    for (cluster, from, to, of) in
        [(&stage.a, &stage.client, &stage.web, &stage.b), (&stage.b, &stage.web, &stage.client, &stage.a)]
    {
        let page = cluster.fetch(&from.name, &to.address)?;
        ensure(page == "hello\n", &format!("the page is {page:?}"))?;
        let log = of.pod_log(&to.name)?;
        ensure(
            log.contains(&format!("{}]:", from.address)),
            &format!("{} is not in the log: {log}", from.address),
        )?;
    }
    Ok(())
}

fn volume(stage: &Stage) -> Result {
    let sum = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    let make = "dd if=/dev/urandom of=/www/big bs=1M count=20 2>/dev/null; sha256sum < /www/big";
    let sent = sum(stage.b.in_pod("web", &["sh", "-c", make])?);
    let fetch = format!("timeout 60 wget -q -O - http://{}/big | sha256sum", stage.web.address);
    let received = sum(stage.a.in_pod("client", &["sh", "-c", &fetch])?);
    ensure(sent.len() == 64 && sent == received, &format!("{sent} was sent, {received} arrived"))?;
    let flows = stage.flows(1000)?;
    std::thread::sleep(Duration::from_secs(5));
    lost_at_most(&flows.map(lab::traffic::Flow::stop), 0)
}

fn sizes_and_nodes(stage: &Stage) -> Result {
    for size in ["1300", "1472", "8000"] {
        stage
            .client
            .host()
            .run("ping", &["-q", "-c", "3", "-i", "0.2", "-W", "5", "-s", size, &stage.web.address])?;
    }
    let other = stage.a.run_pod(&PodPlan::new("other").on("a-2"))?;
    let page = stage.a.fetch(&other.name, &stage.web.address)?;
    ensure(page == "hello\n", &format!("the page is {page:?}"))?;
    // Between nodes of one cluster nothing changed: no tunnel, and the bridge's masquerade as before.
    Ping::times(3).expect(other.host(), &stage.client.address)?;
    let hop = stage.a.machine(2)?.node().route_get(&stage.client.address)?;
    ensure(hop["gateway"] == stage.a.machine(1)?.address(), &format!("inside the cluster: {hop}"))
}

fn phase_1(stage: &Stage) -> Result {
    stage.apply(1)?;
    wait::until("the shortcuts to go", PATIENCE, || {
        let paths = stage.paths()?;
        ensure(paths == ["hub", "hub"], &format!("{paths:?}"))
    })?;
    for _ in 0..5 {
        Ping { interval: Duration::from_millis(20), ..Ping::times(20) }
            .expect(stage.client.host(), &stage.web.address)?;
    }
    let paths = stage.paths()?;
    ensure(paths == ["hub", "hub"], &format!("{paths:?}"))
}

fn phase_2(stage: &Stage) -> Result {
    stage.apply(2)?;
    stage.wait_direct()?;
    sources(stage)
}
