//! A DMVPN over clusters, as its people make it: a root that all trust, a CA for each cluster that is confined to what
//! the cluster owns, the chart, and one short resource.
//!
//! | cluster `i`, named `NAME` | |
//! |---|---|
//! | identities | `NODE.NAME.example.com` |
//! | tunnel addresses | 10.200.`i`.0/24 |
//! | prefixes | its pods, 10.`i`.0.0/16 |
//! | ASN | 65000 (hubs), 65000+`i` |
//! | dual stack | tunnel addresses fd00:10:200:`i`::/64, prefixes fd00:10:`i`::/48 |

use super::cluster::{Cluster, Plan};
use super::image;
use super::machine::Machine;
use crate::agent::{Ask, binary, exported_keys};
use crate::error::{Error, Result};
use crate::manifest::{documents, merge};
use crate::netns;
use crate::topology::Lab;
use crate::wait;
use rpc::agent::Peer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The namespace of the release.
pub const NAMESPACE: &str = "kube-dmvpn";
/// The name of the release.
pub const RELEASE: &str = "kube-dmvpn";
/// The Secret with a cluster's CA; with `-trust` after it, that with the root.
pub const CA: &str = "dmvpn-ca";
/// The Secret with a pre-shared key, in stories that have one: agents may read it.
pub const KEY: &str = "dmvpn-psk";
/// How long tunnels may take to be up.
const PATIENCE: Duration = Duration::from_secs(90);

/// The root of a DMVPN.
pub struct Overlay {
    folder: PathBuf,
}

/// A `DmvpnHub` or `DmvpnSpoke`.
#[derive(Clone, Debug)]
pub struct Resource {
    object: Value,
}

impl Overlay {
    /// Makes the root.
    pub fn new(lab: &Lab) -> Result<Self> {
        let folder = lab.directory().join("pki");
        fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
        let this = Self { folder };
        let plugins = lab.directory().join("bin");
        fs::create_dir_all(&plugins)
            .and_then(|()| symlink(binary("dmvpnctl").unwrap_or_default(), plugins.join("kubectl-dmvpn")))
            .map_err(Error::io("make kubectl's plugin known"))?;
        this.pki(&["root", "Example Root", "--out", "root"])?;
        Ok(this)
    }

    /// The command that makes a cluster's CA.
    #[must_use]
    pub fn authority_line(plan: &Plan) -> String {
        let (name, index) = (&plan.name, plan.index);
        let v6 = |prefix: String| if plan.dual_stack { format!(",{prefix}") } else { String::new() };
        let (tunnel_v6, pods_v6) =
            (v6(format!("fd00:10:200:{index}::/64")), v6(format!("fd00:10:{index}::/48")));
        format!(
            "dmvpnctl pki intermediate {name} --parent root --domain {name}.example.com \
             --tunnel-addresses 10.200.{index}.0/24{tunnel_v6} --prefixes 10.{index}.0.0/16{pods_v6} --secret {CA} \
             --out {name}"
        )
    }

    /// Makes a cluster's CA, and returns the file of its Secrets.
    pub fn authority(&self, plan: &Plan) -> Result<PathBuf> {
        let line = Self::authority_line(plan);
        self.pki(&line.split_whitespace().skip(2).collect::<Vec<_>>())?;
        Ok(self.folder.join(&plan.name).join("secret.yaml"))
    }

    /// Makes another CA for a cluster, by another root, and returns its folder.
    pub fn authority_by(&self, root: &str, plan: &Plan) -> Result<PathBuf> {
        let name = format!("{}-by-{root}", plan.name);
        let line = Self::authority_line(plan)
            .replace("--parent root", &format!("--parent {root}"))
            .replace(&format!("--out {}", plan.name), &format!("--out {name}"));
        self.pki(&line.split_whitespace().skip(2).collect::<Vec<_>>())?;
        Ok(self.folder.join(name))
    }

    /// Makes a cluster's CA, puts it into the cluster, and installs the chart there with further values (`a.b=c`).
    pub fn install(&self, lab: &Lab, cluster: &Cluster, values: &[&str]) -> Result {
        let secrets = self.authority(cluster.plan())?;
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        cluster.kubectl(&["apply", "-n", NAMESPACE, "-f", &secrets.display().to_string()])?;
        for machine in cluster.machines() {
            watch(lab, &machine)?;
        }
        helm_install(cluster, values)
    }

    /// The same in several clusters side by side.
    pub fn install_all(&self, lab: &Lab, clusters: &[&Cluster], values: &[&str]) -> Result {
        thread::scope(|scope| {
            let installing: Vec<_> =
                clusters.iter().map(|cluster| scope.spawn(|| self.install(lab, cluster, values))).collect();
            let join = |t: thread::ScopedJoinHandle<'_, Result>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let ended: Vec<Result> = installing.into_iter().map(join).collect();
            ended.into_iter().collect()
        })
    }

    /// Where the CAs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `dmvpnctl pki`, in that folder.
    pub fn pki(&self, arguments: &[&str]) -> Result {
        let mut command = Command::new(binary("dmvpnctl")?);
        netns::run(command.arg("pki").args(arguments).current_dir(&self.folder)).map(drop)
    }
}

/// Installs the chart from this checkout, with the image that the lab made.
pub fn helm_install(cluster: &Cluster, values: &[&str]) -> Result {
    helm(cluster, "install", values)
}

/// Gives the release other values, and waits until every agent has them.
pub fn helm_upgrade(cluster: &Cluster, values: &[&str]) -> Result {
    helm(cluster, "upgrade", values)?;
    let agents = ["rollout", "status", "-n", NAMESPACE, "daemonset/dmvpn-agent", "--timeout=120s"];
    cluster.kubectl(&agents).map(drop)
}

fn helm(cluster: &Cluster, verb: &str, values: &[&str]) -> Result {
    let mut arguments = vec![verb, RELEASE, CHART, "-n", NAMESPACE, "--wait", "--timeout", "180s"];
    let standard = standard_values();
    for value in standard.iter().map(String::as_str).chain(values.iter().copied()) {
        arguments.extend(["--set", value]);
    }
    cluster.helm(&arguments).map(drop)
}

/// The chart of this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/kube-dmvpn");

/// What the lab says to the chart: its image, and which Secrets may be read.
#[must_use]
pub fn standard_values() -> [String; 5] {
    let (repository, tag) = image::OURS.rsplit_once(':').unwrap_or((image::OURS, "latest"));
    [
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
        "image.pullPolicy=Never".to_owned(),
        format!("secrets={{{CA}-trust,{KEY}}}"),
        format!("caSecrets={{{CA}}}"),
    ]
}

/// Keeps what a node's agent says, for a story that fails, and reads captures by its keys. Of a node that is added later,
/// who adds it has to ask for that.
pub fn watch(lab: &Lab, machine: &Machine) -> Result {
    let run = machine.path("/run/kube-dmvpn")?;
    lab.keys().add_source(move || exported_keys(&run));
    let (logs, name) = (machine.logs().join("pods"), machine.name().to_owned());
    lab.on_failure(move |kept| {
        let pods = fs::read_dir(&logs).into_iter().flatten().flatten();
        for pod in pods.filter(|pod| pod.file_name().to_string_lossy().starts_with("kube-dmvpn_")) {
            for container in fs::read_dir(pod.path()).into_iter().flatten().flatten() {
                let to = format!(
                    "{name}-{}-{}.log",
                    pod.file_name().to_string_lossy().split('_').nth(1).unwrap_or_default(),
                    container.file_name().to_string_lossy()
                );
                let mut text = String::new();
                let mut files: Vec<_> = fs::read_dir(container.path())
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|f| f.path())
                    .collect();
                files.sort();
                for file in files {
                    text.push_str(&fs::read_to_string(file).unwrap_or_default());
                }
                let _ = fs::write(kept.join(to), text);
            }
        }
    });
    Ok(())
}

impl Resource {
    /// A hub on every node of a cluster: phase 3, certificates from the operator, BGP, pods announced, and 10.0.0.0/8 as
    /// the summary of everything.
    #[must_use]
    pub fn hub(plan: &Plan) -> Self {
        let mut this = Self::new("DmvpnHub", plan);
        let summaries: &[&str] =
            if plan.dual_stack { &["10.0.0.0/8", "fd00:10::/32"] } else { &["10.0.0.0/8"] };
        this.object["spec"]["routing"] = json!({"bgp": {"asn": 65000, "summaries": summaries}});
        this
    }

    /// A spoke on every node of a cluster, of hubs at these addresses.
    #[must_use]
    pub fn spoke(plan: &Plan, hubs: &[String]) -> Self {
        let mut this = Self::new("DmvpnSpoke", plan);
        let hubs: Vec<Value> =
            hubs.iter().enumerate().map(|(i, hub)| json!({"address": hub, "priority": i})).collect();
        this.object["spec"]["hubs"] = hubs.into();
        this.object["spec"]["routing"] = json!({"bgp": {"asn": 65000 + u32::from(plan.index)}});
        this
    }

    fn new(kind: &str, plan: &Plan) -> Self {
        let trust = format!("{CA}-trust");
        let this = Self {
            object: json!({
                "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": kind, "metadata": {"name": plan.name},
                "spec": {
                    "nodes": {},
                    "tunnel": {"network": "10.200.0.0/16", "addresses": format!("10.200.{}.0/24", plan.index)},
                    "security": {
                        "domain": format!("{}.example.com", plan.name),
                        "authentication": {"certificates": {"caSecret": CA, "trust": trust}},
                    },
                    "announce": {"podCIDRs": {"from": "Node"}},
                },
            }),
        };
        if !plan.dual_stack {
            return this;
        }
        let addresses = format!("fd00:10:200:{}::/64", plan.index);
        this.with(json!({"tunnel": {"networkV6": "fd00:10:200::/48", "addressesV6": addresses}}))
    }

    /// Lays this over the spec: objects are merged, everything else is replaced, `null` removes.
    #[must_use]
    pub fn with(mut self, spec: Value) -> Self {
        merge(&mut self.object["spec"], spec);
        self
    }

    /// Under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.object["metadata"]["name"] = name.into();
        self
    }

    /// Another phase. Phase 2 needs the specific prefixes, so a hub's summary goes.
    #[must_use]
    pub fn phase(self, phase: u8) -> Self {
        let summaries = if phase == 2 && self.object["kind"] == "DmvpnHub" {
            json!({"routing": {"bgp": {"summaries": null}}})
        } else {
            json!({})
        };
        self.with(json!({"tunnel": {"phase": phase}})).with(summaries)
    }

    /// The agents write keys down, so that captures can be read.
    #[must_use]
    pub fn exporting_keys(self) -> Self {
        self.with(json!({"security": {"exportKeys": true}}))
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        documents(std::slice::from_ref(&self.object))
    }
}

impl Machine {
    /// Asks the agent on this node.
    pub fn ask(&self) -> Result<Ask> {
        Ok(Ask::new(self.name(), &self.path("/run/kube-dmvpn/agent.sock")?))
    }
}

impl Cluster {
    /// The addresses of its nodes, as hubs are named by spokes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.machines().iter().map(|machine| machine.address()).collect()
    }

    /// The tunnel address of each node that has one.
    pub fn tunnel_addresses(&self) -> Result<BTreeMap<String, String>> {
        let nodes = self.get(&["dmvpnnodes"])?;
        let nodes = nodes["items"].as_array().ok_or_else(|| Error::other("no list of DmvpnNodes"))?;
        let of = |node: &Value| {
            let address = node["spec"]["tunnels"][0]["addresses"][0].as_str()?;
            Some((node["metadata"]["name"].as_str()?.to_owned(), address.to_owned()))
        };
        Ok(nodes.iter().filter_map(of).collect())
    }

    /// Waits until none of this cluster's agents has a path to this tunnel address.
    pub fn wait_forgotten(&self, tunnel_address: &str) -> Result {
        for machine in self.machines() {
            wait::until(&format!("{} to forget {tunnel_address}", machine.name()), wait::PATIENCE, || {
                let known = machine.ask()?.peers()?;
                // A spoke remembers for a while whom it lost.
                let has =
                    |p: &&Peer| !p.path.is_empty() && p.tunnel_addresses.iter().any(|a| a == tunnel_address);
                known.iter().find(has).map_or(Ok(()), |peer| Err(Error::other(format!("{peer:?}"))))
            })?;
        }
        Ok(())
    }

    /// Makes a Secret of the release's namespace of these files, in place of what it held.
    pub fn put_secret(&self, name: &str, files: &[(&str, &Path)]) -> Result {
        let entries: Vec<String> =
            files.iter().map(|(entry, file)| format!("--from-file={entry}={}", file.display())).collect();
        let mut arguments = vec!["create", "secret", "generic", name, "--dry-run=client", "-o", "yaml"];
        arguments.extend(entries.iter().map(String::as_str));
        let made = self.kubectl(&arguments)?;
        self.kubectl_with(&made, &["apply", "-n", NAMESPACE, "-f", "-"]).map(drop)
    }

    /// Waits until a resource of this cluster's name is ready on all nodes.
    pub fn wait_overlay(&self, kind: &str) -> Result {
        self.wait_overlay_of(kind, &self.plan().name)
    }

    /// Waits until this resource is ready on all nodes.
    pub fn wait_overlay_of(&self, kind: &str, name: &str) -> Result {
        let what = format!("{kind} {name} to be ready");
        self.wait_for(&what, PATIENCE, &[kind, name], |object| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.filter(|c| c["type"] == "Ready").find_map(|c| c["status"].as_str());
            let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            if ready == Some("True") && current { Ok(()) } else { Err(object["status"].to_string()) }
        })
    }

    /// Waits until each node has a BGP session with so many hubs.
    pub fn wait_joined(&self, hubs: usize) -> Result {
        for machine in self.machines() {
            let what = format!("{hubs} BGP sessions of {}", machine.name());
            wait::until(&what, PATIENCE, || {
                let neighbours = machine.ask()?.tunnel()?.bgp_neighbours;
                let up = neighbours.iter().filter(|n| n.state == "Established").count();
                if up >= hubs { Ok(()) } else { Err(Error::other(format!("{neighbours:?}"))) }
            })?;
        }
        Ok(())
    }
}
