//! What happens to a cluster's nodes: one is added, drained, rebooted, moved and deleted, while pods elsewhere talk and
//! lose nothing.

use lab::kubernetes::overlay::watch;
use lab::kubernetes::{Chapters, Machine, Pod, PodPlan, Stage, lost_at_most};
use lab::narration::ensure;
use lab::traffic::Flow;
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Result, heavy_story};
use serde_json::{Value, json};
use std::time::Instant;

/// Packets a second.
const RATE: u32 = 1000;
/// The node that all this happens to.
const NODE: &str = "a-3";
/// Its pod.
const GUEST: &str = "guest";

#[test]
fn nodes_come_and_go_and_others_lose_nothing() {
    heavy_story("kubernetes_nodes", |lab| {
        let stage = Stage::new(lab, 3)?;
        stage.wait_direct()?;
        let mut chapters = Chapters::default();
        let mut tell = |name, chapter: fn(&Stage) -> Result| {
            chapters.tell(name, || {
                third(lab, &stage)?;
                let flows = stage.flows(RATE)?;
                let outcome = chapter(&stage);
                let lost = lost_at_most(&flows.map(Flow::stop), 0);
                outcome.and(lost)
            });
        };
        tell("a_new_node_joins", joined);
        tell("a_drained_nodes_pods_move_and_its_agent_stays", drained);
        tell("a_rebooted_node_comes_back_as_it_was", rebooted);
        tell("a_moved_node_is_found_at_its_new_address", moved);
        tell("a_deleted_node_is_forgotten", deleted);
        chapters.end()
    });
}

/// The third node, which is added by whoever needs it first.
fn third(lab: &Lab, stage: &Stage) -> Result<Machine> {
    stage.a.machine_named(NODE).or_else(|_| {
        let start = Instant::now();
        let machine = stage.a.add_node(lab, 3)?;
        println!("  {NODE} is ready after {:.1?}", start.elapsed());
        watch(lab, &machine)?;
        Ok(machine)
    })
}

/// Waits until its pod and the pod of the other cluster talk.
fn wait_guest(stage: &Stage) -> Result<Pod> {
    let guest = match stage.a.get(&["pod", GUEST]) {
        Ok(_) => stage.a.pod(GUEST)?,
        Err(_) => stage.a.run_pod(&PodPlan::web(GUEST, "hello").on(NODE))?,
    };
    wait::until("the node's pod and the other cluster's to talk", 3 * PATIENCE, || {
        guest.expect_talk(&stage.web)
    })?;
    let page = stage.b.fetch(&stage.web.name, &guest.address)?;
    ensure(page == "hello\n", &format!("the page is {page:?}"))?;
    Ok(guest)
}

/// The tunnel address that it was given, which its interface has, and by which a hub knows it.
fn tunnel_address(stage: &Stage) -> Result<String> {
    let given = stage.a.tunnel_addresses()?.remove(NODE);
    let given = given.ok_or_else(|| Error::other("it has no tunnel address"))?;
    let machine = stage.a.machine_named(NODE)?;
    let shown = machine.run("ip", &["-o", "-4", "addr", "show", "dev", "dmvpn0"])?;
    ensure(shown.contains(&format!(" {given}/")), &format!("{given} was given: {shown}"))?;
    stage.hub.machine(1)?.ask()?.peer(&given)?;
    Ok(given)
}

fn joined(stage: &Stage) -> Result {
    let start = Instant::now();
    wait_guest(stage)?;
    println!("  its pod talks to the other cluster's {:.1?} after it was ready", start.elapsed());
    stage.a.machine_named(NODE)?.ask()?.wait_hubs(2)?;
    let mut addresses: Vec<String> = stage.a.tunnel_addresses()?.into_values().collect();
    addresses.sort();
    addresses.dedup();
    ensure(addresses.len() == 3, &format!("three nodes have {addresses:?}"))?;
    tunnel_address(stage)?;
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s", "dmvpnnode", NODE];
    stage.a.kubectl(&ready).map(drop)
}

fn drained(stage: &Stage) -> Result {
    wait_guest(stage)?;
    stage.a.apply(&movable().to_string())?;
    let rollout = ["rollout", "status", "deployment/movable", "--timeout=60s"];
    stage.a.kubectl(&rollout)?;
    let before = movable_pods(stage)?;
    ensure(before.iter().all(|pod| pod.on == NODE), "the pods prefer the node")?;
    talk_all(stage, &before)?;

    let drain = ["drain", NODE, "--ignore-daemonsets", "--force", "--timeout=60s"];
    stage.a.kubectl(&drain)?;
    stage.a.kubectl(&rollout)?;
    let after = movable_pods(stage)?;
    ensure(after.iter().all(|pod| pod.on != NODE), "pods are left on the node")?;
    talk_all(stage, &after)?;
    let of_node = format!("--field-selector=spec.nodeName={NODE},status.phase=Running");
    let left = stage.a.kubectl(&["get", "pods", "-A", &of_node, "-o", "name"])?;
    ensure(left.lines().count() == 1 && left.contains("dmvpn-agent"), &left)?;
    stage.a.machine_named(NODE)?.ask()?.wait_hubs(2)?;
    tunnel_address(stage)?;
    stage.a.kubectl(&["delete", "deployment", "movable"])?;
    stage.a.kubectl(&["uncordon", NODE])?;
    wait_guest(stage).map(drop)
}

fn rebooted(stage: &Stage) -> Result {
    wait_guest(stage)?;
    let (machine, before) = (stage.a.machine_named(NODE)?, tunnel_address(stage)?);
    machine.power_off();
    let start = Instant::now();
    machine.boot()?;
    let booted = start.elapsed();
    back(stage, start)?;
    println!("  of this, it took {booted:.1?} to boot");
    let after = tunnel_address(stage)?;
    ensure(before == after, &format!("its tunnel address was {before} and is {after}"))
}

fn moved(stage: &Stage) -> Result {
    wait_guest(stage)?;
    let (machine, before) = (stage.a.machine_named(NODE)?, tunnel_address(stage)?);
    let old = machine.address();
    let start = Instant::now();
    stage.a.move_node(NODE, 5)?;
    back(stage, start)?;
    let after = tunnel_address(stage)?;
    ensure(before == after, &format!("its tunnel address was {before} and is {after}"))?;
    let new = machine.address();
    for hub in stage.hub.machines() {
        let peer = hub.ask()?.peer(&after)?;
        let known = peer.path.contains(&new) && !peer.path.contains(&old);
        ensure(known, &format!("{} knows it by {}, it is at {new}", hub.name(), peer.path))?;
    }
    Ok(())
}

/// Waits until the node is back after it was off, and its pod talks.
fn back(stage: &Stage, since: Instant) -> Result {
    let ask = stage.a.machine_named(NODE)?.ask()?;
    wait::until("its agent", 3 * PATIENCE, || ask.status().map(drop))?;
    ask.wait_hubs(2)?;
    println!("  both hubs know it again {:.1?} after the power was lost", since.elapsed());
    wait_guest(stage)?;
    println!("  its pod talks again {:.1?} after the power was lost", since.elapsed());
    Ok(())
}

fn deleted(stage: &Stage) -> Result {
    wait_guest(stage)?;
    let (machine, address) = (stage.a.machine_named(NODE)?, tunnel_address(stage)?);
    let start = Instant::now();
    stage.a.kubectl(&["delete", "node", NODE])?;
    wait::until("its DmvpnNode to go", PATIENCE, || {
        let left = stage.a.tunnel_addresses()?;
        ensure(!left.contains_key(NODE), &format!("{left:?}"))
    })?;
    wait::until("its tunnel to go", PATIENCE, || {
        let left = machine.run("sh", &["-c", "ip -o link; ip route"])?;
        ensure(!left.contains("dmvpn"), &left)
    })?;
    stage.hub.wait_forgotten(&address)?;
    stage.b.wait_forgotten(&address)?;
    for hub in stage.hub.machines() {
        wait::until(&format!("{} to withdraw its prefix", hub.name()), PATIENCE, || {
            let routes = hub.run("ip", &["route", "show", &machine.pods()[0]])?;
            ensure(routes.is_empty(), &routes)
        })?;
    }
    println!("  it is forgotten {:.1?} after it was deleted", start.elapsed());
    stage.a.remove_node(NODE)
}

/// Pods that run on the node as long as they may.
fn movable() -> Value {
    let on_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]});
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [on_node]}},
    ]}});
    let container = json!({
        "name": "main", "image": "localhost/busybox:dev", "imagePullPolicy": "Never",
        "command": ["sleep", "2147483647"],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "movable"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "movable"}},
            "template": {"metadata": {"labels": {"app": "movable"}}, "spec": {
                "affinity": affinity, "containers": [container], "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
            }},
        },
    })
}

fn movable_pods(stage: &Stage) -> Result<Vec<Pod>> {
    let list = stage.a.get(&["pods", "-l", "app=movable"])?;
    let pods = list["items"].as_array().into_iter().flatten();
    let kept = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let names = kept.filter_map(|pod| pod["metadata"]["name"].as_str());
    let pods = names.map(|name| stage.a.pod(name)).collect::<Result<Vec<_>>>()?;
    ensure(pods.len() == 2, &format!("{} pods", pods.len()))?;
    Ok(pods)
}

fn talk_all(stage: &Stage, pods: &[Pod]) -> Result {
    pods.iter().try_for_each(|pod| pod.expect_talk(&stage.web))
}
