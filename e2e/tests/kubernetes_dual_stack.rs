//! Clusters whose pods have IPv4 and IPv6 addresses: both are announced, both reach the other cluster's pods, first by the
//! hub, then directly, encrypted, with their own addresses. Between the clusters there is IPv4 only.

use lab::kubernetes::{Cluster, Image, Overlay, Plan, Pod, PodPlan, Resource, image, lost_at_most};
use lab::narration::ensure;
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Nat, NatRouter, Result, heavy_story};
use std::thread::sleep;
use std::time::Duration;

/// Packets a second of each flow.
const RATE: u32 = 500;

#[test]
fn pods_of_two_ip_versions_talk_in_both() {
    heavy_story("kubernetes_dual_stack", |lab| {
        Image::ours()?.write(&image::folder(lab)?)?;
        let plans = [
            Plan::new("hub", 1).nodes(1).dual_stack(),
            Plan::new("a", 2).dual_stack(),
            Plan::new("b", 3).nodes(1).dual_stack().behind(NatRouter::new(Nat::PortPreserving)),
        ];
        let [hub, a, b] = &Cluster::start_all(lab, &plans)?;
        Overlay::new(lab)?.install_all(lab, &[hub, a, b], &[])?;
        hub.apply(&Resource::hub(hub.plan()).exporting_keys().text())?;
        for spoke in [a, b] {
            spoke.apply(&Resource::spoke(spoke.plan(), &hub.addresses()).exporting_keys().text())?;
        }
        let client = a.run_pod(&PodPlan::web("client", "from a").on("a-1"))?;
        let near = a.run_pod(&PodPlan::new("near").on("a-2"))?;
        let web = b.run_pod(&PodPlan::web("web", "from b"))?;
        hub.wait_overlay("dmvpnhub")?;
        for spoke in [a, b] {
            spoke.wait_overlay("dmvpnspoke")?;
        }
        announced(a)?;
        let wires = [Capture::start(a.router(), &["wan"])?, Capture::start(hub.router(), &["wan"])?];
        direct((a, &client), (b, &web))?;
        served(a, &client, b, &web)?;
        served(b, &web, a, &client)?;
        large(&client, &web)?;
        flows(&client, &web)?;
        // Within a cluster nothing changed: from node to node, not by the tunnel.
        let (to, by) = (v6(&client)?, a.machine(1)?.addresses().pop());
        Ping::times(3).expect(near.host(), &to)?;
        let hop = a.machine(2)?.node().route_get(&to)?;
        ensure(hop["gateway"].as_str() == by.as_deref(), &format!("inside the cluster: {hop}"))?;
        let clear: usize = wires.iter().map(|wire| wire.count(|p| p.ip.is_clear())).sum();
        ensure(clear == 0, &format!("{clear} overlay packets were in clear"))
    });
}

fn v6(pod: &Pod) -> Result<String> {
    pod.address_v6.clone().ok_or_else(|| Error::other(format!("{} has no IPv6 address", pod.name)))
}

/// What the node was told, and what its interface has.
fn announced(cluster: &Cluster) -> Result {
    for machine in cluster.machines() {
        let node = cluster.get(&["dmvpnnode", machine.name()])?;
        let tunnel = &node["spec"]["tunnels"][0];
        let announced: Vec<_> =
            tunnel["announce"].as_array().into_iter().flatten().filter_map(|p| p.as_str()).collect();
        ensure(announced == machine.pods(), &format!("{announced:?} are announced"))?;
        let shown = machine.run("ip", &["-o", "addr", "show", "dev", "dmvpn0"])?;
        let given: Vec<_> =
            tunnel["addresses"].as_array().into_iter().flatten().filter_map(|a| a.as_str()).collect();
        ensure(given.len() == 2, &format!("{given:?} were given"))?;
        for address in given {
            ensure(shown.contains(&format!(" {address}/")), &format!("{address} was given: {shown}"))?;
        }
    }
    Ok(())
}

/// Pods reach each other in both versions at once, and in the end directly, both ways.
fn direct(a: (&Cluster, &Pod), b: (&Cluster, &Pod)) -> Result {
    let talk = |count| {
        for (from, to) in [(a.1, &b.1.address), (a.1, &v6(b.1)?), (b.1, &v6(a.1)?)] {
            Ping { interval: Duration::from_millis(20), ..Ping::times(count) }.expect(from.host(), to)?;
        }
        Ok(())
    };
    wait::until("the pods to reach each other in both versions", 3 * PATIENCE, || -> Result { talk(1) })?;
    wait::until("traffic to be direct in both versions", PATIENCE, || -> Result {
        talk(5)?;
        for ((cluster, _), (_, to)) in [(a, b), (b, a)] {
            for to in [to.address.clone(), v6(to)?] {
                let path = cluster.machine(1)?.ask()?.path("", &to)?;
                ensure(path.kind == "shortcut", &format!("to {to}: {path:?}"))?;
            }
        }
        Ok(())
    })
}

/// A page by TCP over IPv6, and who asked for it as the server saw it.
fn served(cluster: &Cluster, client: &Pod, of: &Cluster, server: &Pod) -> Result {
    let page = cluster.fetch(&client.name, &format!("[{}]", v6(server)?))?;
    ensure(page == format!("from {}\n", of.plan().name), &format!("the page is {page:?}"))?;
    let (log, from) = (of.pod_log(&server.name)?, v6(client)?);
    ensure(log.contains(&format!("[{from}]:")), &format!("{from} is not in the log: {log}"))
}

fn large(client: &Pod, web: &Pod) -> Result {
    for size in ["1300", "1452", "8000"] {
        let words = ["-q", "-c", "3", "-i", "0.2", "-W", "5", "-s", size];
        client.host().run("ping", &[&words[..], &[&v6(web)?]].concat())?;
    }
    Ok(())
}

fn flows(client: &Pod, web: &Pod) -> Result {
    let pairs = [(client.address.clone(), web.address.clone()), (v6(client)?, v6(web)?)];
    let mut flows = Vec::new();
    for (port, (here, there)) in (7001..).step_by(2).zip(&pairs) {
        let (near, far) = ((client.host(), here.as_str()), (web.host(), there.as_str()));
        flows.push(Flow::start(near, far, port, RATE, 200)?);
        flows.push(Flow::start(far, near, port + 1, RATE, 200)?);
    }
    sleep(Duration::from_secs(5));
    lost_at_most(&flows.into_iter().map(Flow::stop).collect::<Vec<_>>(), 0)
}
