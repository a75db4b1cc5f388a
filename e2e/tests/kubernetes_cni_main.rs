//! The CNI plugin as the only one of a real cluster: node and operator come up by it, pods have their interface from it.

use lab::kubernetes::overlay::{NAMESPACE, RELEASE};
use lab::kubernetes::{Chapters, Cluster, Machine, Overlay, Plan, Pod, PodPlan, connect, two_clusters};
use lab::narration::ensure;
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Result, story};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const LIST: &str = "/etc/cni/net.d/10-pods.conflist";

#[test]
fn a_cluster_whose_pods_have_their_interface_from_us() {
    story("kubernetes_cni_main", |lab| {
        let scene = Scene::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("pods_have_interface_address_service_and_overlay", || pods(&scene));
        chapters.tell("a_pod_waits_for_an_agent_that_hangs_and_others_talk_on", || hangs(&scene));
        chapters.tell("pods_end_also_after_the_release_is_gone", || uninstall(&scene));
        chapters.end()
    });
}

struct Scene {
    a: Cluster,
    node: Machine,
    hub: Cluster,
    client: Pod,
    web: Pod,
}

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let [hub, a] = two_clusters(lab, Plan::new("a", 2).nodes(1))?;
        let node = a.machine(1)?;
        // Pods keep their addresses: the network between nodes must know them, as a cloud's route table does.
        let [pods] = node.pods() else { unreachable!("a cluster of IPv4 only") };
        let back = format!("route add {pods} via {}", node.address());
        a.node().namespace().ip(&[&back])?;
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [
            {"type": "dmvpn-cni", "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        fs::write(node.path(LIST)?, format!("{list:#}\n")).map_err(Error::io("write the list"))?;
        // There is no binary and no agent yet.
        a.wait_node("a-1", false)?;
        let start = Instant::now();
        Overlay::new(lab)?.install_all(lab, &[&hub, &a], &["agent.cni.enabled=true"])?;
        println!("  from nothing to an operator that is ready: {:.1?}", start.elapsed());
        a.wait_node("a-1", true)?;
        let web = hub.run_pod(&PodPlan::web("web", "hello"))?;
        connect(&hub, &a)?;
        let client = a.run_pod(&PodPlan::web("client", "near"))?;
        Ok(Self { a, node, hub, client, web })
    }

    /// Interfaces on the node that are pods'.
    fn pairs(&self) -> Result<usize> {
        let links = self.node.node().namespace().ip_json("link show")?;
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        Ok(names.filter(|name| name.starts_with("dmv") && !name.starts_with("dmvpn")).count())
    }
}

fn pods(scene: &Scene) -> Result {
    let Scene { a, hub, client, web, node } = scene;
    ensure(client.address.starts_with("10.2.1."), &client.address)?;
    let mtu = |link: Value| link[0]["mtu"].as_u64();
    let inside = mtu(client.host().namespace().ip_json("link show eth0")?);
    let tunnel = mtu(node.node().namespace().ip_json("link show dmvpn0")?);
    ensure(
        inside == tunnel && inside.is_some(),
        &format!("MTU {inside:?} in the pod, {tunnel:?} of the tunnel"),
    )?;
    let page = a.fetch(&client.name, &web.address)?;
    ensure(page == "hello\n", &format!("the page is {page:?}"))?;
    let log = hub.pod_log(&web.name)?;
    ensure(log.contains(&format!("{}]:", client.address)), &format!("{} is not in {log}", client.address))?;
    let page = hub.fetch(&web.name, &client.address)?;
    ensure(page == "near\n", &format!("the page is {page:?}"))?;
    // Its neighbour on the node, by address and by Service.
    let other = a.run_pod(&PodPlan::new("other"))?;
    Ping::times(3).expect(other.host(), &client.address)?;
    a.kubectl(&["expose", "pod", "client", "--port", "80"])?;
    let service = a.get(&["service", "client"])?["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let page = wait::until("the Service", PATIENCE, || a.fetch("other", &service))?;
    ensure(page == "near\n", &format!("the page is {page:?}"))?;
    let before = scene.pairs()?;
    a.kubectl(&["delete", "pod", "other", "--timeout=30s"])?;
    wait::until("the pod's interface to go", PATIENCE, || {
        let now = scene.pairs()?;
        ensure(now == before - 1, &format!("{now} of {before}"))
    })
}

fn hangs(scene: &Scene) -> Result {
    let Scene { a, client, web, node, .. } = scene;
    node.run("pkill", &["-STOP", "-x", "dmvpn-agent"])?;
    let late = std::thread::scope(|scope| -> Result<Pod> {
        let late = scope.spawn(|| a.run_pod(&PodPlan::new("late")));
        let said = wait::until("the pod to wait", 2 * PATIENCE, || {
            let said = a.kubectl(&["describe", "pod", "late"])?;
            let waits = said.contains("the agent can't be asked");
            if waits { Ok(said) } else { Err(Error::other(said)) }
        });
        Ping { interval: Duration::from_millis(20), ..Ping::times(50) }
            .expect(client.host(), &web.address)?;
        node.run("pkill", &["-CONT", "-x", "dmvpn-agent"])?;
        said?;
        late.join().map_err(|_| Error::other("running the pod panicked"))?
    })?;
    Ping::times(3).expect(late.host(), &web.address)?;
    a.wait_node("a-1", true)
}

fn uninstall(scene: &Scene) -> Result {
    let Scene { a, node, .. } = scene;
    a.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--timeout", "240s"])?;
    let list = fs::read_to_string(node.path(LIST)?).unwrap_or_default();
    ensure(list.contains("host-local"), &format!("the list is not ours to change: {list}"))?;
    a.kubectl(&["delete", "pod", "client", "late", "--timeout=60s"])?;
    wait::until("the pods' interfaces to go", PATIENCE, || {
        let left = scene.pairs()?;
        ensure(left == 0, &format!("{left} are left"))
    })?;
    // Nobody gives an address away that nobody gives back. What else is there is the machine's that the lab runs on.
    wait::until("the pods' addresses to be given back", PATIENCE, || {
        let given = node.run("ls", &["/var/lib/cni/networks/pods"])?;
        ensure(!given.contains("10.2.1."), &given)
    })
}
