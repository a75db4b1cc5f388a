//! Who is connected to what: gateways that speak for a whole cluster, and nodes that are in two networks.

use lab::decode::Payload;
use lab::kubernetes::overlay::{CA, NAMESPACE, RELEASE};
use lab::kubernetes::{
    Chapters, Cluster, Image, Machine, Overlay, Plan, Pod, PodPlan, Resource, image, lost_at_most,
};
use lab::narration::ensure;
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Lab, Result, heavy_story};
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Packets a second.
const RATE: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn gateways_carry_a_clusters_traffic_and_replace_each_other() {
    heavy_story("kubernetes_gateways", |lab| {
        let scene = Gateways::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("pods_of_other_nodes_go_by_a_gateway_with_their_own_addresses", || scene.by_gateway());
        chapters.tell("a_lost_gateway_is_replaced_by_the_other", || scene.lost());
        chapters.tell("the_first_is_gone_back_to_without_a_loss", || scene.back());
        chapters.tell("uninstalling_leaves_no_route_and_no_rule_on_the_worker", || scene.uninstalled());
        chapters.end()
    });
}

/// Cluster a with a worker and two gateways, which alone have tunnels; a hub, and a spoke's cluster b.
struct Gateways {
    /// It ends when nobody holds it.
    _hub: Cluster,
    a: Cluster,
    b: Cluster,
    /// On the worker.
    client: Pod,
    /// On the gateway that stands by.
    inner: Pod,
    web: Pod,
}

impl Gateways {
    fn new(lab: &Lab) -> Result<Self> {
        Image::ours()?.write(&image::folder(lab)?)?;
        let plans = [Plan::new("hub", 1).nodes(1), Plan::new("a", 2).nodes(3), Plan::new("b", 3).nodes(1)];
        let [hub, a, b] = Cluster::start_all(lab, &plans)?;
        Overlay::new(lab)?.install_all(lab, &[&hub, &a, &b], &[])?;
        let client = a.run_pod(&PodPlan::web("client", "hello").on("a-1"))?;
        let inner = a.run_pod(&PodPlan::web("inner", "hello").on("a-3"))?;
        let web = b.run_pod(&PodPlan::web("web", "hello"))?;
        for node in ["a-2", "a-3"] {
            a.kubectl(&["label", "node", node, "node-restriction.kubernetes.io/gateway=true"])?;
        }
        let gateways = json!({"matchLabels": {"node-restriction.kubernetes.io/gateway": "true"}});
        hub.apply(&Resource::hub(hub.plan()).exporting_keys().text())?;
        let spoke = Resource::spoke(a.plan(), &hub.addresses()).exporting_keys().with(json!({
            "announce": {
                "mode": "Gateways", "gateways": gateways, "toGateways": ["10.1.0.0/16", "10.3.0.0/16"],
            },
        }));
        a.apply(&spoke.text())?;
        b.apply(&Resource::spoke(b.plan(), &hub.addresses()).exporting_keys().text())?;
        hub.wait_overlay("dmvpnhub")?;
        a.wait_overlay("dmvpnspoke")?;
        b.wait_overlay("dmvpnspoke")?;
        b.wait_joined(1)?;
        for k in [2, 3] {
            a.machine(k)?.ask()?.wait_bgp(1)?;
        }
        let this = Self { _hub: hub, a, b, client, inner, web };
        this.wait_reachable()?;
        Ok(this)
    }

    fn wait_reachable(&self) -> Result {
        wait::until("the pods to reach each other", 2 * PATIENCE, || {
            for pod in [&self.client, &self.inner] {
                Ping::times(3).expect(pod.host(), &self.web.address)?;
                Ping::times(3).expect(self.web.host(), &pod.address)?;
            }
            Ok::<(), Error>(())
        })?;
        Ok(())
    }

    fn gateways(&self) -> [String; 2] {
        [2, 3].map(|k| self.a.plan().address(k))
    }

    /// The gateway that the worker sends by.
    fn used(&self) -> Result<String> {
        let route = self.a.machine(1)?.node().route_get(&self.web.address)?;
        ensure(route["dev"] == "eth0", &format!("{route}"))?;
        Ok(route["gateway"].as_str().unwrap_or_default().to_owned())
    }

    fn by_gateway(&self) -> Result {
        let worker = self.a.get(&["dmvpnnode", "a-1"])?;
        ensure(worker["spec"]["tunnels"].is_null(), &worker["spec"].to_string())?;
        ensure(worker["status"]["byGateways"][0]["gateway"] == "a-2", &worker["status"].to_string())?;
        ensure(self.used()? == self.gateways()[0], "the worker goes by another gateway than the first")?;
        // kube-proxy's iptables would drop answers that come by another gateway than went what they answer.
        for (cluster, from, to, of) in [
            (&self.a, &self.client, &self.web, &self.b),
            (&self.b, &self.web, &self.client, &self.a),
            (&self.a, &self.inner, &self.web, &self.b),
            (&self.b, &self.web, &self.inner, &self.a),
        ] {
            ensure(cluster.fetch(&from.name, &to.address)? == "hello\n", "another page")?;
            let log = of.pod_log(&to.name)?;
            ensure(
                log.contains(&format!("{}]:", from.address)),
                &format!("asked by {}: {log}", from.address),
            )?;
        }
        let wire = Capture::start(self.a.router(), &["wan"])?;
        let [there, back] = self.flows()?;
        sleep(3 * SECOND);
        lost_at_most(&[there.stop(), back.stop()], 0)?;
        let (client, web) = (self.client.address.as_str(), self.web.address.as_str());
        let ours = wire.select(|p| p.ip.carries(client, web) || p.ip.carries(web, client));
        let gateways = self.gateways();
        let by_gateway = |p: &lab::Packet| {
            gateways.iter().any(|gateway| {
                p.ip.source.to_string() == *gateway || p.ip.destination.to_string() == *gateway
            })
        };
        let strays = ours.iter().filter(|p| !by_gateway(p)).count();
        ensure(
            !ours.is_empty() && strays == 0,
            &format!("{strays} of {} went past the gateways", ours.len()),
        )?;
        let clear = wire.count(|p| p.ip.is_clear());
        ensure(clear == 0, &format!("{clear} overlay packets were in clear"))
    }

    /// The cable of the gateway that is used is pulled, and put back.
    fn lost(&self) -> Result {
        let used = self.used()?;
        let k = if used == self.gateways()[0] { 2 } else { 3 };
        let port = |state: &str| self.a.router().namespace().ip(&[&format!("link set lan{k} {state}")]);
        let flows = self.flows()?;
        sleep(SECOND);
        port("down")?;
        let pulled = Instant::now();
        let other = wait::until("the worker to go by the other gateway", PATIENCE, || {
            let now = self.used()?;
            if now == used { Err(Error::other(now)) } else { Ok(now) }
        })?;
        println!("  a-{k} is left for {other} after {:.1?}", pulled.elapsed());
        sleep((12 * SECOND).saturating_sub(pulled.elapsed()));
        let reports = flows.map(Flow::stop);
        let reached = Ping::times(5).expect(self.client.host(), &self.web.address);
        port("up")?;
        lost_at_most(&reports, 6 * u64::from(RATE))?;
        reached?;
        let gateway: Machine = self.a.machine(k)?;
        gateway.ask()?.wait_hubs(1)?;
        gateway.ask()?.wait_bgp(1)?;
        self.wait_reachable()
    }

    /// The first gateway is back for a while, and is gone back to without a loss.
    fn back(&self) -> Result {
        let flows = self.flows()?;
        let first = self.gateways()[0].clone();
        wait::until("the worker to go by the first gateway again", 2 * PATIENCE, || {
            let now = self.used()?;
            if now == first { Ok(()) } else { Err(Error::other(now)) }
        })?;
        sleep(SECOND);
        lost_at_most(&flows.map(Flow::stop), 0)
    }

    /// What of ours is on the worker.
    fn traces(&self) -> Result<String> {
        let worker = self.a.machine(1)?;
        let routes = worker.run("ip", &["route", "show", "protocol", "194"])?;
        let unreachable = worker.run("ip", &["route", "show", "type", "unreachable"])?;
        let tables = worker.run("nft", &["list", "tables"])?;
        let ours = tables.lines().filter(|table| table.contains("dmvpn"));
        Ok(format!("{routes}{unreachable}{}", ours.collect::<String>()))
    }

    fn uninstalled(&self) -> Result {
        let before = self.traces()?;
        for part in ["10.3.0.0/16 via", "unreachable 10.1.0.0/16", "table inet dmvpn"] {
            ensure(before.contains(part), &format!("{part} is missing: {before}"))?;
        }
        self.a.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", "240s"])?;
        let after = self.traces()?;
        ensure(after.is_empty(), &format!("the worker still has {after}"))
    }

    fn flows(&self) -> Result<[Flow; 2]> {
        between(&self.client, &self.web, 7001)
    }
}

#[test]
fn a_node_in_two_networks_reaches_both_and_joins_them_for_nobody() {
    heavy_story("kubernetes_two_networks", |lab| {
        let scene = Two::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("pods_reach_pods_of_both_networks", || scene.both());
        chapters.tell("nobody_passes_from_one_network_into_the_other", || scene.separate());
        chapters.tell("one_network_goes_and_the_other_loses_nothing", || scene.one_goes());
        chapters.end()
    });
}

/// Cluster a is in two networks: the red one with b, whose hub is hub-1, and the blue one with c, whose hub is hub-2. They
/// have different roots, tunnel addresses, ports and interfaces.
struct Two {
    hub: Cluster,
    a: Cluster,
    b: Cluster,
    c: Cluster,
    pods: [Pod; 3],
}

const BLUE: &str = "blue-ca";

impl Two {
    fn new(lab: &Lab) -> Result<Self> {
        Image::ours()?.write(&image::folder(lab)?)?;
        let one = |name: &str, index| Plan::new(name, index).nodes(1);
        let plans = [Plan::new("hub", 1), one("a", 2), one("b", 3), one("c", 4)];
        let [hub, a, b, c] = Cluster::start_all(lab, &plans)?;
        let overlay = Overlay::new(lab)?;
        let (read, sign) =
            (format!("secrets={{{CA}-trust,{BLUE}-trust}}"), format!("caSecrets={{{CA},{BLUE}}}"));
        overlay.install_all(lab, &[&hub, &a, &b, &c], &[&read, &sign])?;
        overlay.pki(&["root", "Blue Root", "--out", "blue"])?;
        for cluster in [&hub, &a, &c] {
            let ca = blue_authority(&overlay, cluster.plan())?;
            let (certificate, key) = (ca.join("tls.crt"), ca.join("tls.key"));
            cluster.put_secret(BLUE, &[("tls.crt", &certificate), ("tls.key", &key)])?;
            cluster.put_secret(&format!("{BLUE}-trust"), &[("ca.crt", &ca.join("ca.crt"))])?;
        }
        let pods = [
            a.run_pod(&PodPlan::web("inner", "hello"))?,
            b.run_pod(&PodPlan::web("red", "hello"))?,
            c.run_pod(&PodPlan::web("blue", "hello"))?,
        ];
        let this = Self { hub, a, b, c, pods };
        this.apply()?;
        Ok(this)
    }

    fn apply(&self) -> Result {
        let (red_hub, blue_hub) = (self.hub.plan().address(1), self.hub.plan().address(2));
        // No summaries: what each network has is seen by its routes.
        let on = |name: &str, k: u8| {
            let label = json!({"matchLabels": {"kubernetes.io/hostname": format!("hub-{k}")}});
            let hub = Resource::hub(self.hub.plan()).named(name).exporting_keys();
            hub.with(json!({"nodes": label, "routing": {"bgp": {"summaries": null}}}))
        };
        self.hub.apply(&on("red", 1).text())?;
        self.hub.apply(&blue(on("blue", 2), self.hub.plan()).text())?;
        let spoke = |cluster: &Cluster, name: &str, hub: &str| {
            Resource::spoke(cluster.plan(), &[hub.to_owned()]).named(name).exporting_keys()
        };
        self.a.apply(&spoke(&self.a, "red", &red_hub).text())?;
        self.b.apply(&spoke(&self.b, "red", &red_hub).text())?;
        let hubs = json!({"hubs": [{"address": blue_hub, "port": 4501}]});
        for cluster in [&self.a, &self.c] {
            let spoke = blue(spoke(cluster, "blue", &blue_hub), cluster.plan()).with(hubs.clone());
            cluster.apply(&spoke.text())?;
        }
        for (cluster, kind, name) in [
            (&self.hub, "dmvpnhub", "red"),
            (&self.hub, "dmvpnhub", "blue"),
            (&self.a, "dmvpnspoke", "red"),
            (&self.a, "dmvpnspoke", "blue"),
            (&self.b, "dmvpnspoke", "red"),
            (&self.c, "dmvpnspoke", "blue"),
        ] {
            cluster.wait_overlay_of(kind, name)?;
        }
        self.wait_reachable()
    }

    fn wait_reachable(&self) -> Result {
        let [inner, red, blue] = &self.pods;
        wait::until("the pods of both networks", 2 * PATIENCE, || {
            Ping::times(3).expect(inner.host(), &red.address)?;
            Ping::times(3).expect(inner.host(), &blue.address)
        })?;
        Ok(())
    }

    fn both(&self) -> Result {
        let [inner, red, blue] = &self.pods;
        for (far, cluster) in [(red, &self.b), (blue, &self.c)] {
            ensure(self.a.fetch(&inner.name, &far.address)? == "hello\n", "another page")?;
            ensure(cluster.fetch(&far.name, &inner.address)? == "hello\n", "another page")?;
            for (log, source) in [(cluster.pod_log(&far.name)?, inner), (self.a.pod_log(&inner.name)?, far)] {
                ensure(log.contains(&format!("{}]:", source.address)), &log)?;
            }
        }
        // Each by its own interface, and by its own port on the wire.
        let machine = self.a.machine(1)?;
        for (pod, interface) in [(red, "dmvpn0"), (blue, "dmvpn1")] {
            let route = machine.node().route_get(&pod.address)?;
            ensure(route["dev"] == interface, &format!("{route}"))?;
        }
        let wire = Capture::start(self.a.router(), &["wan"])?;
        Ping::times(10).expect(inner.host(), &blue.address)?;
        let own = machine.address();
        let there = [self.c.plan().address(1), self.hub.plan().address(2)];
        let sent = wire.select(|p| there.iter().any(|to| p.ip.goes(&own, to)));
        let blue_port =
            |p: &lab::Packet| matches!(p.ip.payload, Payload::Udp { source: 4501, destination: 4501, .. });
        let strays = sent.iter().filter(|p| !blue_port(p)).count();
        ensure(sent.len() >= 10 && strays == 0, &format!("{strays} of {} not by port 4501", sent.len()))
    }

    fn separate(&self) -> Result {
        let [inner, red, blue] = &self.pods;
        let patience = SECOND;
        let report = Ping { patience, ..Ping::times(3) }.run(red.host(), &blue.address)?;
        ensure(report.round_trips.is_empty(), &format!("{report}"))?;
        // Whoever has the red node sends by the node that is in both.
        let (b, c) = (self.b.machine(1)?, self.c.machine(1)?);
        let between = "10.200.2.1";
        b.node().namespace().ip(&[&format!("route add {} via {between} dev dmvpn0", c.pods()[0])])?;
        let at_pod = Capture::start(c.node(), &["cni0"])?;
        let report = Ping { patience, ..Ping::times(5) }.run(red.host(), &blue.address)?;
        ensure(report.round_trips.is_empty(), &format!("{report}"))?;
        let came = at_pod.count(|p| p.ip.source.to_string() == red.address);
        ensure(came == 0, &format!("{came} packets of the red network came out of the blue one"))?;
        let refused: u64 =
            counter(&c, "drop_inner_source")? + counter(&self.a.machine(1)?, "drop_inner_source")?;
        println!("  {refused} packets were refused for their inner source");
        b.node().namespace().ip(&[&format!("route del {}", c.pods()[0])])?;
        Ping::times(3).expect(inner.host(), &blue.address).map(drop)
    }

    fn one_goes(&self) -> Result {
        let [inner, red, blue] = &self.pods;
        let flows = between(inner, red, 7001)?;
        self.a.kubectl(&["delete", "dmvpnspoke", "blue", "--timeout=60s"])?;
        let machine = self.a.machine(1)?;
        wait::until("the blue interface to go", PATIENCE, || {
            let links = machine.run("ip", &["-o", "link"])?;
            ensure(links.contains("dmvpn0") && !links.contains("dmvpn1"), &links)
        })?;
        let report = Ping { patience: SECOND, ..Ping::times(3) }.run(inner.host(), &blue.address)?;
        ensure(report.round_trips.is_empty(), &format!("{report}"))?;
        self.apply()?;
        lost_at_most(&flows.map(Flow::stop), 0)
    }
}

/// The same resource in the blue network.
fn blue(resource: Resource, plan: &Plan) -> Resource {
    let trust = format!("{BLUE}-trust");
    resource.with(json!({
        "tunnel": {"network": "10.201.0.0/16", "addresses": format!("10.201.{}.0/24", plan.index), "interface": "dmvpn1"},
        "underlay": {"port": 4501, "ikePort": 0},
        "security": {"authentication": {"certificates": {"caSecret": BLUE, "trust": trust}}},
        "routing": {"bgp": {"port": 1790}},
    }))
}

/// A cluster's CA of the blue network; its folder.
fn blue_authority(overlay: &Overlay, plan: &Plan) -> Result<std::path::PathBuf> {
    let (name, index) = (format!("{}-blue", plan.name), plan.index);
    let (domain, addresses, prefixes) =
        (format!("{}.example.com", plan.name), format!("10.201.{index}.0/24"), format!("10.{index}.0.0/16"));
    overlay.pki(&[
        "intermediate",
        &name,
        "--parent",
        "blue",
        "--domain",
        &domain,
        "--tunnel-addresses",
        &addresses,
        "--prefixes",
        &prefixes,
        "--out",
        &name,
    ])?;
    Ok(overlay.folder().join(name))
}

/// Packets both ways between two pods.
fn between(one: &Pod, other: &Pod, port: u16) -> Result<[Flow; 2]> {
    let (one, other) = ((one.host(), one.address.as_str()), (other.host(), other.address.as_str()));
    Ok([Flow::start(one, other, port, RATE, 200)?, Flow::start(other, one, port + 1, RATE, 200)?])
}

/// A counter of all tunnels of a node.
fn counter(machine: &Machine, name: &str) -> Result<u64> {
    let tunnels = machine.ask()?.status()?.tunnels;
    let counters = tunnels.iter().flat_map(|tunnel| &tunnel.counters);
    let found: Vec<u64> = counters.filter(|(counter, _)| *counter == name).map(|(_, count)| *count).collect();
    if tunnels.is_empty() { Err(Error::other("no tunnels")) } else { Ok(found.iter().sum()) }
}
