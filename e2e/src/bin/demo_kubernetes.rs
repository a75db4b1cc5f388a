//! The main job between real clusters, shown step by step: `make demo-kubernetes`.
//!
//! A hub cluster and two spoke clusters (one behind a NAT) of two nodes each, and a third that joins later: real API
//! servers, kubelets, containerd, kube-proxy and Helm, in namespaces of this machine. Every step is checked; the first
//! that does not happen ends the demo with an error. Whatever happens, nothing is left behind.

use lab::kubernetes::overlay::{CHART, NAMESPACE, RELEASE};
use lab::kubernetes::{Cluster, Image, Overlay, Plan, Pod, PodPlan, Proxy, Resource, image};
use lab::narration::{self, ensure, indent, title};
use lab::traffic::Ping;
use lab::wait::PATIENCE;
use lab::{Capture, Error, Lab, Nat, NatRouter, Result};
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    narration::perform("demo_kubernetes", "node", tell)
}

fn tell(lab: &Lab) -> Result {
    title("1. Three clusters, one of them behind a NAT");
    println!(
        "
      pods 10.2.1.0/24, 10.2.2.0/24                     pods 10.3.1.0/24, 10.3.2.0/24
           |                                                 |
        cluster a, 2 nodes        cluster hub, 2 nodes     cluster b, 2 nodes
        203.0.113.33, .34         203.0.113.17, .18        192.168.3.1, .2
           |                         |                       | NAT 203.0.113.62
           +---------------------- Internet -----------------+
"
    );
    let step = Instant::now();
    Image::ours()?.write(&image::folder(lab)?)?;
    let plans = [
        Plan::new("hub", 1),
        Plan::new("a", 2).proxy(Proxy::Nftables),
        Plan::new("b", 3).behind(NatRouter::new(Nat::PortPreserving)),
    ];
    let [hub, a, b] = &Cluster::start_all(lab, &plans)?;
    println!("Started in {:.0?}. On cluster b: kubectl get nodes -o wide", step.elapsed());
    indent(&b.kubectl(&["get", "nodes", "-o", "wide"])?);

    title("2. Helm installs kube-dmvpn in each; each has a CA of its own, confined to what the cluster owns");
    let step = Instant::now();
    let overlay = Overlay::new(lab)?;
    overlay.install_all(lab, &[hub, a, b], &[])?;
    println!("    dmvpnctl pki root \"Example Root\" --out root");
    println!("    {}", Overlay::authority_line(b.plan()));
    println!("    kubectl -n {NAMESPACE} apply -f b/secret.yaml");
    println!(
        "    helm install {RELEASE} {} -n {NAMESPACE} --set secrets={{dmvpn-ca-trust}} ...",
        chart_name()
    );
    println!("\nInstalled in {:.0?}. On cluster b: kubectl -n {NAMESPACE} get pods -o wide", step.elapsed());
    indent(&b.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?);

    title("3. Three short files");
    let step = Instant::now();
    let files = [
        (hub, Resource::hub(hub.plan())),
        (a, Resource::spoke(a.plan(), &hub.addresses()).exporting_keys()),
        (b, Resource::spoke(b.plan(), &hub.addresses()).exporting_keys()),
    ];
    for (cluster, resource) in &files {
        println!("cluster {}: kubectl apply -f {}.yaml", cluster.plan().name, cluster.plan().name);
        indent(&resource.text());
        cluster.apply(&resource.text())?;
    }
    hub.wait_overlay("dmvpnhub")?;
    for spoke in [a, b] {
        spoke.wait_overlay("dmvpnspoke")?;
        spoke.wait_joined(2)?;
    }
    println!("\nReady after {:.0?}.", step.elapsed());
    for (cluster, _) in &files {
        println!("cluster {}: kubectl get dmvpn", cluster.plan().name);
        indent(&cluster.kubectl(&["get", "dmvpn"])?);
    }
    println!("\ncluster a: kubectl dmvpn status");
    indent(&a.kubectl(&["dmvpn", "status"])?);

    title("4. A pod of cluster a fetches a page from a pod of cluster b");
    let web = b.run_pod(&PodPlan::web("web", "hello from cluster b").on("b-1"))?;
    let client = a.run_pod(&PodPlan::new("client").on("a-1"))?;
    let at_hub = Capture::start(hub.router(), &["wan"])?;
    let at_a = Capture::start(a.router(), &["wan"])?;
    println!("pod client {} on a-1, pod web {} on b-1\n", client.address, web.address);
    show_path(a, &client, &web, "hub")?;
    a.machine(1)?.ask()?.wait_path_for(&web.address, "hub", PATIENCE)?;
    let first = Ping::times(1).expect(client.host(), &web.address)?;
    println!("\n  the first packet: answered after {:.1?}", first.round_trips[0].1);
    at_hub.wait_for("the first packet, at the hub", PATIENCE, |p| p.ip.esp().is_some())?;
    println!("  it came by the hub: ESP between the spokes' nodes and the hub's is on the hub's wire");

    let page = a.fetch("client", &web.address)?;
    println!("\nkubectl exec client -- wget -qO- http://{}/", web.address);
    indent(&page);
    ensure(page == "hello from cluster b\n", "the page is another")?;

    let direct = wait_direct(a, &client, &web)?;
    println!("\nThe path is direct {:.1?} after that:", direct);
    show_path(a, &client, &web, "shortcut")?;
    at_hub.clear();
    let page = a.fetch("client", &web.address)?;
    ensure(page == "hello from cluster b\n", "the page is another")?;
    let (from, nat) = (a.machine(1)?.address(), b.plan().public());
    at_a.wait_for("ESP from node to node", PATIENCE, |p| p.ip.goes(&from, &nat) && p.ip.esp().is_some())?;
    println!("\n  and the page again: ESP from {from} straight to {nat}, the NAT of cluster b");
    let log = b.pod_log("web")?;
    println!("\ncluster b: kubectl logs web");
    indent(&log);
    ensure(log.contains(&client.address), "the server does not see the pod's own address")?;

    title("5. A further cluster joins; nothing is changed in the hub's");
    let before = versions(hub)?;
    let step = Instant::now();
    let c = Cluster::start(lab, Plan::new("c", 4).nodes(1))?;
    overlay.install(lab, &c, &[])?;
    c.apply(&Resource::spoke(c.plan(), &hub.addresses()).text())?;
    c.wait_overlay("dmvpnspoke")?;
    c.wait_joined(2)?;
    let visitor = c.run_pod(&PodPlan::new("visitor"))?;
    c.machine(1)?.ask()?.wait_path_for(&web.address, "hub", PATIENCE)?;
    let page = c.fetch("visitor", &web.address)?;
    println!("From nothing to the page in {:.0?}: kubectl exec visitor -- wget ...", step.elapsed());
    indent(&page);
    ensure(page == "hello from cluster b\n", "the page is another")?;
    wait_direct(&c, &visitor, &web)?;
    let after = versions(hub)?;
    println!("\nThe hub cluster's objects, before and after:");
    for (object, version) in &before {
        let now =
            after.iter().find(|(name, _)| name == object).map_or("gone", |(_, version)| version.as_str());
        println!("    {object:<44} {version:<24} {now}");
    }
    println!(
        "  (Of objects that have a status the generation is compared, which counts what people and the operator asked for:\n  \
         their resourceVersion moves when a registration is counted in the status.)"
    );
    ensure(before == after, "objects of the hub's cluster were changed")?;
    println!("\ncluster hub: kubectl get dmvpn");
    indent(&hub.kubectl(&["get", "dmvpn"])?);

    title("6. What was on cluster a's wire");
    let clear = at_a.count(|p| p.ip.is_clear()) + at_hub.count(|p| p.ip.is_clear());
    let hub_addresses = hub.addresses();
    let with_hub = at_a.count(|p| {
        p.ip.esp().is_some() && hub_addresses.iter().any(|h| p.ip.goes(&from, h) || p.ip.goes(h, &from))
    });
    let with_b = at_a.count(|p| p.ip.esp().is_some() && (p.ip.goes(&from, &nat) || p.ip.goes(&nat, &from)));
    println!(
        "  {with_hub:>5}  ESP packets exchanged with the hub's nodes\n  {with_b:>5}  directly with cluster b"
    );
    println!("  {clear:>5}  overlay packets in clear");
    ensure(clear == 0, "overlay packets were in clear")
}

/// Keeps pinging until packets go directly; every ping must be answered meanwhile.
fn wait_direct(cluster: &Cluster, from: &Pod, to: &Pod) -> Result<Duration> {
    let start = Instant::now();
    let machine = cluster.machines().into_iter().find(|m| m.name() == from.on);
    let machine = machine.ok_or_else(|| Error::other("the pod's node is gone"))?;
    lab::wait::until("the direct path", PATIENCE, || -> Result<()> {
        Ping { interval: Duration::from_millis(20), ..Ping::times(5) }.expect(from.host(), &to.address)?;
        let path = machine.ask()?.path(&from.address, &to.address)?;
        ensure(path.kind == "shortcut", &format!("{path:?}"))
    })?;
    Ok(start.elapsed())
}

fn show_path(cluster: &Cluster, from: &Pod, to: &Pod, kind: &str) -> Result {
    println!(
        "cluster {}: kubectl dmvpn path {} {} {}",
        cluster.plan().name,
        from.on,
        from.address,
        to.address
    );
    indent(&cluster.kubectl(&["dmvpn", "path", &from.on, &from.address, &to.address])?);
    let machine = cluster.machines().into_iter().find(|m| m.name() == from.on);
    let machine = machine.ok_or_else(|| Error::other("the pod's node is gone"))?;
    let path = machine.ask()?.path(&from.address, &to.address)?;
    ensure(path.kind == kind, &format!("the path goes by {:?}, not by {kind:?}", path.kind))
}

/// What people and the operator asked for in a cluster, each object with its version.
fn versions(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for (kinds, by) in [
        ("dmvpnhubs,dmvpnspokes,dmvpnnodes,daemonsets,deployments", "generation"),
        ("secrets,configmaps", "resourceVersion"),
    ] {
        let list = cluster.get(&[kinds, "-n", NAMESPACE])?;
        for object in list["items"].as_array().into_iter().flatten() {
            let name = format!(
                "{} {}",
                object["kind"].as_str().unwrap_or_default(),
                object["metadata"]["name"].as_str().unwrap_or_default()
            );
            let version = match &object["metadata"][by] {
                Value::String(version) => version.clone(),
                other => other.to_string(),
            };
            all.push((name, format!("{by} {version}")));
        }
    }
    Ok(all)
}

/// The chart as a person would name it.
fn chart_name() -> &'static str {
    CHART.rsplit_once("/../").map_or(CHART, |(_, name)| name)
}
