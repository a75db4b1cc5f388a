//! What happens to clusters, and what it costs pods that talk: upgrades, agents and datapaths that are killed, API servers
//! that are away, hubs that are lost, and a resource that is deleted and made again.

use lab::kubernetes::overlay::{CHART, NAMESPACE, RELEASE, standard_values};
use lab::kubernetes::{Chapters, Stage, lost_at_most};
use lab::narration::ensure;
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Result, heavy_story};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Packets a second.
const RATE: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn upgrades_crashes_and_absences_cost_pods_little_or_nothing() {
    heavy_story("kubernetes_changes", |lab| {
        let stage = Stage::new(lab, 3)?;
        stage.wait_direct()?;
        let mut chapters = Chapters::default();
        chapters.tell("helm_upgrades_the_agents_and_rolls_back_without_loss", || upgrade(&stage));
        chapters.tell("a_killed_agent_costs_nothing", || agent_killed(&stage));
        chapters.tell("a_killed_datapath_costs_two_seconds_and_nothing_in_clear", || datapath_killed(&stage));
        chapters.tell("without_operator_and_api_server_everything_goes_on", || control_gone(&stage));
        chapters.tell("a_deleted_spoke_is_gone_and_comes_back_the_same", || deleted_and_recreated(&stage));
        chapters.tell("a_lost_hub_costs_direct_traffic_nothing", || hub_lost(&stage, 0));
        chapters.tell("a_lost_hub_costs_its_traffic_a_second_where_there_is_another", || {
            stage.apply(1)?;
            hub_lost(&stage, u64::from(RATE))
        });
        chapters.end()
    });
}

/// A new revision of the agents' pods on every node of a cluster, and the one before it again.
fn upgrade(stage: &Stage) -> Result {
    let flows = stage.flows(RATE)?;
    let standard = standard_values();
    let mut arguments = vec!["upgrade", RELEASE, CHART, "-n", NAMESPACE, "--wait", "--timeout", "180s"];
    for value in &standard {
        arguments.extend(["--set", value.as_str()]);
    }
    arguments.extend(["--set", "agent.podAnnotations.revision=second"]);
    stage.a.helm(&arguments)?;
    stage.a.kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset/dmvpn-agent", "--timeout=120s"])?;
    stage.a.helm(&["rollback", RELEASE, "1", "-n", NAMESPACE, "--wait", "--timeout", "180s"])?;
    stage.a.kubectl(&["rollout", "status", "-n", NAMESPACE, "daemonset/dmvpn-agent", "--timeout=120s"])?;
    sleep(2 * SECOND);
    lost_at_most(&flows.map(Flow::stop), 0)?;
    stage.wait_direct()
}

fn agent_killed(stage: &Stage) -> Result {
    let flows = stage.flows(RATE)?;
    let [_, b] = stage.machines()?;
    b.run("pkill", &["-KILL", "-x", "dmvpn-agent"])?;
    b.ask()?.wait_ready()?;
    sleep(2 * SECOND);
    lost_at_most(&flows.map(Flow::stop), 0)
}

fn datapath_killed(stage: &Stage) -> Result {
    let wire = Capture::start(stage.b.router(), &["wan"])?;
    let flows = stage.flows(RATE)?;
    let [_, b] = stage.machines()?;
    b.run("pkill", &["-KILL", "-x", "dmvpn-datapath"])?;
    sleep(6 * SECOND);
    let reports = flows.map(Flow::stop);
    let clear = wire.count(|p| p.ip.is_clear());
    ensure(clear == 0, &format!("{clear} overlay packets were in clear"))?;
    lost_at_most(&reports, 2 * u64::from(RATE))?;
    stage.wait_direct()
}

fn control_gone(stage: &Stage) -> Result {
    stage.a.kubectl(&["scale", "-n", NAMESPACE, "deployment/dmvpn-operator", "--replicas=0"])?;
    stage.a.kill("kube-apiserver")?;
    let flows = stage.flows(RATE)?;
    // An agent that starts while the API server is away goes on by what it remembers.
    let [a, _] = stage.machines()?;
    a.run("pkill", &["-KILL", "-x", "dmvpn-agent"])?;
    a.ask()?.wait_ready()?;
    a.ask()?.wait_hubs(2)?;
    sleep(5 * SECOND);
    let outcome = lost_at_most(&flows.map(Flow::stop), 0);
    stage.a.start_api()?;
    stage.a.kubectl(&["scale", "-n", NAMESPACE, "deployment/dmvpn-operator", "--replicas=1"])?;
    stage.a.kubectl(&[
        "rollout",
        "status",
        "-n",
        NAMESPACE,
        "deployment/dmvpn-operator",
        "--timeout=120s",
    ])?;
    stage.wait_joined()?;
    apart_from_the_overlay(stage)?;
    outcome
}

/// What asks the API server on a node must not have the tunnel's address: it goes with the tunnel. The hub's summary
/// covers the Services.
fn apart_from_the_overlay(stage: &Stage) -> Result {
    let path = "jsonpath={.spec.clusterIP}";
    let server = stage.a.kubectl(&["get", "service", "kubernetes", "-o", path])?;
    let tunnels = stage.a.tunnel_addresses()?;
    for machine in stage.a.machines() {
        let routes = machine.run("ip", &["route"])?;
        ensure(routes.contains("10.0.0.0/8 via"), &format!("no summary on {}: {routes}", machine.name()))?;
        let way = machine.run("ip", &["route", "get", &server])?;
        let by_tunnel = way.contains("dmvpn0") || tunnels.values().any(|address| way.contains(address));
        ensure(!by_tunnel, &format!("{} asks the API server by the overlay: {way}", machine.name()))?;
    }
    Ok(())
}

fn deleted_and_recreated(stage: &Stage) -> Result {
    stage.wait_joined()?;
    let before = stage.a.tunnel_addresses()?;
    stage.a.kubectl(&["delete", "dmvpnspoke", "a", "--timeout=60s"])?;
    for machine in stage.a.machines() {
        wait::until(&format!("the tunnel of {} to go", machine.name()), PATIENCE, || {
            let left = machine.run("sh", &["-c", "ip -o link; ip route; nft list tables"])?;
            ensure(!left.contains("dmvpn") && !left.contains("10.200."), &left)
        })?;
    }
    for address in before.values() {
        stage.hub.wait_forgotten(address)?;
        stage.b.wait_forgotten(address)?;
    }
    ensure(stage.a.tunnel_addresses()?.is_empty(), "DmvpnNodes are left")?;
    let answered = Ping::times(3).run(stage.web.host(), &stage.client.address)?;
    ensure(answered.round_trips.is_empty(), &format!("there is another way: {answered}"))?;

    let again = Instant::now();
    stage.a.apply(&stage.spoke_resource(&stage.a, 3).text())?;
    wait::until("the pods to reach each other again", Duration::from_secs(30), || {
        Ping { patience: Duration::from_millis(200), ..Ping::times(1) }
            .expect(stage.client.host(), &stage.web.address)
    })?;
    println!("  pods talk again {:.1?} after the resource was made again", again.elapsed());
    stage.wait_joined()?;
    stage.wait_direct()?;
    let after = stage.a.tunnel_addresses()?;
    ensure(before == after, &format!("tunnel addresses: {before:?}, now {after:?}"))
}

/// The hub that carries loses its power, while another is there.
fn hub_lost(stage: &Stage, packets: u64) -> Result {
    let expected = if packets == 0 {
        stage.wait_direct()?;
        "shortcut"
    } else {
        wait::until("the shortcuts to go", PATIENCE, || {
            let paths = stage.paths()?;
            ensure(paths == ["hub", "hub"], &format!("{paths:?}"))
        })?;
        "hub"
    };
    let hub = stage.hub.machine(1)?;
    // One that was away has to answer some probes before others are left for it.
    for machine in stage.machines()? {
        wait::until(&format!("{} to be carried by the first hub", machine.name()), PATIENCE, || {
            let hubs = machine.ask()?.hubs()?;
            let carries = hubs.iter().find(|hub| hub.by_hub).map(|hub| hub.name.clone());
            ensure(carries == Some(hub.address()), &format!("{carries:?}"))
        })?;
    }
    let flows = stage.flows(RATE)?;
    sleep(SECOND);
    hub.power_off();
    sleep(6 * SECOND);
    let paths = stage.paths();
    let outcome = lost_at_most(&flows.map(Flow::stop), packets);
    hub.boot()?;
    stage.wait_joined()?;
    outcome?;
    let paths = paths?;
    ensure(paths.iter().all(|path| path == expected), &format!("{paths:?}"))
}
