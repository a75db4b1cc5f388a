//! The CNI plugin as users have it: Helm puts it behind the cluster's own plugin, kubelets call it, pods choose by their
//! annotations, and nothing of it keeps a pod from starting.

use lab::kubernetes::overlay::{NAMESPACE, RELEASE, helm_upgrade};
use lab::kubernetes::{Chapters, Cluster, Machine, Overlay, Plan, Pod, PodPlan, connect, two_clusters};
use lab::narration::ensure;
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Lab, Node, Result, story};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const ANNOTATION: &str = "kube-dmvpn.io/overlay";
const FOLDER: &str = "/etc/cni/net.d";
const LIST: &str = "10-pods.conflist";

#[test]
fn kubelets_call_the_plugin_and_pods_choose_and_start_without_the_agent_too() {
    story("kubernetes_cni_kubelet", |lab| {
        let scene = Scene::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("the_list_is_chained_whole_and_again_when_its_owner_writes_it", || list(&scene));
        chapters.tell("pods_older_than_the_plugin_are_known_by_the_api_server", || older(&scene));
        chapters.tell("a_new_pod_has_the_overlays_mtu_and_is_known_to_the_agent", || new(&scene));
        chapters.tell("a_pod_that_opts_out_never_sends_a_packet_by_the_overlay", || out(&scene));
        chapters.tell("a_namespace_opts_out_but_for_a_pod_that_opts_in", || namespace(&scene));
        chapters.tell("without_the_agent_pods_start_and_an_event_says_so", || away(&scene));
        chapters.tell("an_agent_that_hangs_holds_a_pod_up_for_seconds_only", || hangs(&scene));
        chapters.tell("uninstalling_puts_the_list_back_to_the_octet", || uninstall(&scene));
        chapters.end()
    });
}

/// A hub's cluster with a page, and a spoke's of one node with two pods that are older than the plugin.
struct Scene {
    a: Cluster,
    node: Machine,
    _hub: Cluster,
    web: Pod,
    older: Pod,
    /// Its annotation says that it wants no overlay.
    leaves: Pod,
    /// The list as the cluster's plugin wrote it.
    list: String,
}

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let [hub, a] = two_clusters(lab, Plan::new("a", 2).nodes(1))?;
        let node = a.machine(1)?;
        let list = read(&node.path(FOLDER)?.join(LIST));
        let older = a.run_pod(&PodPlan::new("older"))?;
        let leaves = a.run_pod(&PodPlan::new("leaves").annotated(ANNOTATION, "disabled"))?;
        Overlay::new(lab)?.install_all(lab, &[&hub, &a], &[])?;
        let web = hub.run_pod(&PodPlan::web("web", "hello"))?;
        connect(&hub, &a)?;
        Ok(Self { a, node, _hub: hub, web, older, leaves, list })
    }

    fn list_file(&self) -> Result<PathBuf> {
        Ok(self.node.path(FOLDER)?.join(LIST))
    }

    fn annotate(&self, object: &[&str], value: &str) -> Result {
        let annotation = match value {
            "" => format!("{ANNOTATION}-"),
            value => format!("{ANNOTATION}={value}"),
        };
        self.a.kubectl(&[&["annotate", "--overwrite"], object, &[&annotation]].concat()).map(drop)
    }

    /// Waits until this pod and the page's reach each other, or don't. Returns how long that took.
    fn wait_overlay(&self, pod: &Pod, there: bool) -> Result<Duration> {
        let start = Instant::now();
        wait::until(&format!("{} on the overlay: {there}", pod.name), PATIENCE, || {
            let ping = Ping { patience: Duration::from_millis(300), ..Ping::times(1) };
            let both = [ping.run(pod.host(), &self.web.address)?, ping.run(self.web.host(), &pod.address)?];
            let as_wanted = both.iter().all(|report| report.complete() == there);
            ensure(as_wanted, &format!("out {}, back {}", both[0], both[1]))
        })?;
        Ok(start.elapsed())
    }

    /// What `kubectl describe` says of a pod, when this stands in it.
    fn described(&self, pod: &str, words: &str) -> Result<String> {
        wait::until(&format!("{words} in the description of {pod}"), 2 * PATIENCE, || {
            let said = self.a.kubectl(&["describe", "pod", pod])?;
            if said.contains(words) { Ok(said) } else { Err(Error::other(said)) }
        })
    }
}

fn list(scene: &Scene) -> Result {
    // Without the plugin an annotation means nothing.
    scene.wait_overlay(&scene.leaves, true)?;
    let file = scene.list_file()?;
    let reader = Reader::start(&file);
    helm_upgrade(&scene.a, &["agent.cni.enabled=true"])?;
    chained(&file)?;
    let mut wanted: Value = serde_json::from_str(&scene.list).map_err(Error::other)?;
    let entry = json!({"type": "dmvpn-cni", "capabilities": {"io.kubernetes.cri.pod-annotations": true}});
    if let Some(plugins) = wanted["plugins"].as_array_mut() {
        plugins.push(entry);
    }
    let came: Value = serde_json::from_str(&read(&file)).map_err(Error::other)?;
    ensure(came == wanted, &format!("the list is {came}"))?;

    // As plugins do that are upgraded: beside it, then in its place.
    let fresh = file.with_file_name("owner.tmp");
    for _ in 0..3 {
        write(&fresh, &scene.list)?;
        fs::rename(&fresh, &file).map_err(Error::io("write as the owner"))?;
        println!("  chained again after {:.2?}", chained(&file)?);
    }
    // Another list comes to stand first, and goes again.
    let first = file.with_file_name("05-other.conflist");
    write(&first, &scene.list)?;
    chained(&first)?;
    wait::until("the other list as it was", PATIENCE, || {
        ensure(read(&file) == scene.list, "our plugin is still in the list that is not first")
    })?;
    fs::remove_file(&first).map_err(Error::io("remove the list"))?;
    chained(&file)?;
    let reads = reader.stop()?;
    println!("  read {reads} times meanwhile, each time whole");
    ensure(reads > 100, "it was not read often enough to say anything")
}

/// Waits until our plugin is in a list.
fn chained(file: &Path) -> Result<Duration> {
    let start = Instant::now();
    wait::until(&format!("our plugin in {}", file.display()), PATIENCE, || {
        let text = read(file);
        ensure(text.contains("dmvpn-cni"), &text)
    })?;
    Ok(start.elapsed())
}

fn older(scene: &Scene) -> Result {
    scene.wait_overlay(&scene.leaves, false)?;
    scene.wait_overlay(&scene.older, true)?;
    scene.annotate(&["pod", "older"], "disabled")?;
    println!("  kept off {:.2?} after the annotation", scene.wait_overlay(&scene.older, false)?);
    // Its own cluster is as before.
    Ping::times(3).expect(scene.older.host(), &scene.leaves.address)?;
    scene.annotate(&["pod", "older"], "")?;
    println!("  back {:.2?} after it was taken off", scene.wait_overlay(&scene.older, true)?);
    Ok(())
}

fn new(scene: &Scene) -> Result {
    let start = Instant::now();
    let new = scene.a.run_pod(&PodPlan::new("new"))?;
    println!("  a pod ran after {:.2?}", start.elapsed());
    let mtu = tunnel_mtu(&scene.node)?;
    ensure(default_mtu(new.host())? == Some(mtu), &format!("its default route does not have MTU {mtu}"))?;
    ensure(default_mtu(scene.older.host())?.is_none(), "an older pod's route was changed")?;
    let known = read(&scene.node.path("/var/lib/kube-dmvpn/pods.json")?);
    let attached: Value = serde_json::from_str(&known).map_err(Error::other)?;
    let attached = attached["attached"].as_array().cloned().unwrap_or_default();
    let found = attached.iter().find(|entry| entry[1]["pod"]["name"] == "new");
    ensure(
        found.is_some_and(|entry| entry[1]["addresses"] == json!([new.address]) && entry[1]["mtu"] == mtu),
        &format!("the agent knows {known}"),
    )?;
    // 20 octets of IP and 8 of ICMP; one more does not even leave the pod.
    let size = usize::try_from(mtu).unwrap_or_default() - 28;
    let fits = Ping { size, dont_fragment: true, ..Ping::times(3) };
    wait::until("large packets to pass", PATIENCE, || fits.expect(new.host(), &scene.web.address))?;
    let report = Ping { size: size + 1, ..fits }.run(new.host(), &scene.web.address)?;
    ensure(report.round_trips.is_empty() && !report.refusals.is_empty(), &format!("one octet more: {report}"))
}

fn out(scene: &Scene) -> Result {
    let at_web = Capture::start(scene.web.host(), &["eth0"])?;
    let knock = format!("while :; do ping -c 1 -W 1 {}; done", scene.web.address);
    let knock = ["sh", "-c", knock.as_str()];
    let out = PodPlan::new("out").annotated(ANNOTATION, "disabled").command(&knock);
    let out = scene.a.run_pod(&out)?;
    let twin = scene.a.run_pod(&PodPlan::new("twin").command(&knock))?;
    at_web.wait_for("the twin's knocking", PATIENCE, |p| p.ip.goes(&twin.address, &scene.web.address))?;
    let at_out = Capture::start(out.host(), &["eth0"])?;
    // An agent that is killed forgets nothing, of pods that are older than the plugin neither.
    thread::scope(|scope| -> Result {
        let knocks = Ping { interval: Duration::from_millis(50), ..Ping::times(200) };
        let leaves = scope.spawn(move || knocks.run(scene.leaves.host(), &scene.web.address));
        let back = Ping { interval: Duration::from_millis(50), ..Ping::times(200) };
        let back = scope.spawn({
            let to = &out.address;
            move || back.run(scene.web.host(), to)
        });
        thread::sleep(Duration::from_secs(1));
        scene.node.run("pkill", &["-KILL", "-x", "dmvpn-agent"])?;
        scene.node.ask()?.wait_ready()?;
        for (who, knocking) in [("an older pod", leaves), ("the page's pod", back)] {
            let report = knocking.join().map_err(|_| Error::other("a ping panicked"))??;
            ensure(report.sent == 200 && report.round_trips.is_empty(), &format!("{who}: {report}"))?;
        }
        Ok(())
    })?;
    let (from, web) = (out.address.clone(), scene.web.address.clone());
    let leaked = at_web.count(|p| p.ip.goes(&from, &web)) + at_out.count(|p| p.ip.goes(&web, &from));
    let knocked = at_out.count(|p| p.ip.goes(&from, &web));
    println!("  {knocked} packets were sent into the overlay, {leaked} passed");
    ensure(knocked > 3 && leaked == 0, &format!("{leaked} of {knocked} packets passed"))?;
    let leaked = at_web.count(|p| p.ip.goes(&scene.leaves.address, &web));
    ensure(leaked == 0, &format!("{leaked} packets of an older pod passed"))?;
    // The node and the cluster are no overlay.
    Ping::times(3).expect(out.host(), &twin.address)?;
    scene.a.kubectl(&["delete", "pod", "out", "twin", "--wait=false"]).map(drop)
}

fn namespace(scene: &Scene) -> Result {
    scene.annotate(&["namespace", "default"], "disabled")?;
    println!("  kept off {:.2?} after the annotation", scene.wait_overlay(&scene.older, false)?);
    let inside = scene.a.run_pod(&PodPlan::new("inside").annotated(ANNOTATION, "enabled"))?;
    scene.wait_overlay(&inside, true)?;
    scene.wait_overlay(&scene.older, false)?;
    scene.annotate(&["namespace", "default"], "")?;
    scene.wait_overlay(&scene.older, true).map(drop)
}

fn away(scene: &Scene) -> Result {
    let nowhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "yes"}}}}}).to_string();
    let patch =
        |patch: &str| scene.a.kubectl(&["patch", "-n", NAMESPACE, "daemonset/dmvpn-agent", "-p", patch]);
    patch(&nowhere)?;
    let agents = ["pod", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent"];
    scene.a.wait_for("the agent to be away", 2 * PATIENCE, &agents, |list| {
        ensure(list["items"] == json!([]), "it is there").map_err(|e| e.to_string())
    })?;
    let start = Instant::now();
    let alone = scene.a.run_pod(&PodPlan::new("alone"))?;
    println!("  a pod ran after {:.2?}", start.elapsed());
    Ping::times(3).expect(alone.host(), &scene.older.address)?;
    ensure(default_mtu(alone.host())?.is_none(), "nobody was there to say an MTU")?;
    // A kubelet says so every ten seconds at the latest, when its runtime is not ready.
    thread::sleep(Duration::from_secs(12));
    scene.a.wait_node("a-1", true)?;
    scene.a.kubectl(&["delete", "pod", "new", "--timeout=30s"])?;

    patch(&nowhere.replace("\"yes\"", "null"))?;
    scene.node.ask()?.wait_ready()?;
    let said = scene.described("alone", "DmvpnAgentAway")?;
    ensure(said.contains("was away") && said.contains("Restart the pod"), &said)?;
    scene.wait_overlay(&alone, true)?;
    scene.wait_overlay(&scene.leaves, false).map(drop)
}

fn hangs(scene: &Scene) -> Result {
    scene.node.run("pkill", &["-STOP", "-x", "dmvpn-agent"])?;
    let start = Instant::now();
    let late = scene.a.run_pod(&PodPlan::new("late"));
    let took = start.elapsed();
    scene.node.run("pkill", &["-CONT", "-x", "dmvpn-agent"])?;
    let late = late?;
    println!("  a pod ran after {took:.2?}");
    ensure(took < Duration::from_secs(30), &format!("it took {took:.1?}"))?;
    scene.described("late", "DmvpnAgentAway")?;
    scene.wait_overlay(&late, true).map(drop)
}

fn uninstall(scene: &Scene) -> Result {
    scene.a.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--timeout", "240s"])?;
    let file = scene.list_file()?;
    ensure(read(&file) == scene.list, &format!("the list is {}", read(&file)))?;
    let left = scene.node.run("ls", &["-A", FOLDER, "/opt/cni/bin"])?;
    ensure(!left.contains("dmvpn"), &format!("left: {left}"))?;
    let tables = scene.node.run("nft", &["list", "tables"])?;
    ensure(!tables.contains("dmvpn"), &format!("left: {tables}"))?;
    let after = scene.a.run_pod(&PodPlan::new("after"))?;
    Ping::times(3).expect(after.host(), &scene.older.address)?;
    // Pods that came by the plugin end without it.
    scene.a.kubectl(&["delete", "pod", "alone", "late", "after", "--timeout=60s"]).map(drop)
}

/// Reads a list again and again, as a runtime may at any moment.
struct Reader {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<std::result::Result<u64, String>>,
}

impl Reader {
    fn start(file: &Path) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (file, ends) = (file.to_owned(), Arc::clone(&ends));
            move || {
                let mut reads = 0;
                while !ends.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
                    let list: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
                    if list["plugins"][0]["type"] != "bridge" || list["plugins"][1]["type"] != "portmap" {
                        return Err(text);
                    }
                    reads += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(reads)
            }
        });
        Self { ends, thread }
    }

    /// How often it was whole; an error if it once was not.
    fn stop(self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        let read = self.thread.join().map_err(|_| Error::other("the reader panicked"))?;
        read.map_err(|text| Error::other(format!("a runtime would have read {text}")))
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn write(file: &Path, text: &str) -> Result {
    fs::write(file, text).map_err(Error::io(format!("write {}", file.display())))
}

fn default_mtu(pod: &Node) -> Result<Option<u64>> {
    let routes = pod.namespace().ip_json("route show default")?;
    Ok(routes[0]["metrics"][0]["mtu"].as_u64())
}

fn tunnel_mtu(node: &Machine) -> Result<u64> {
    let link = node.node().namespace().ip_json("link show dmvpn0")?;
    link[0]["mtu"].as_u64().ok_or_else(|| Error::other(format!("no MTU: {link}")))
}
