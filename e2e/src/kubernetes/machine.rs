//! A node of a cluster: containerd, kubelet and kube-proxy in namespaces of their own.

use super::control_plane::ControlPlane;
use super::{binaries, cgroup, pki};
use crate::error::{Error, Result};
use crate::netns::{self, Namespace};
use crate::topology::{Lab, Node};
use crate::wait::{self, PATIENCE};
use ipnet::Ipv4Net;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What becomes process 1 of a node.
const BOOT: &str = include_str!("../../kubernetes/node.sh");

/// How long a node may take to be ready while others start.
const READY: Duration = Duration::from_secs(120);

/// How kube-proxy works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// By iptables rules (which the kernel keeps as nftables).
    #[default]
    Iptables,
    /// By nftables.
    Nftables,
    /// Not at all: Services do not work.
    None,
}

/// A node of a cluster. Clones are the same node; it ends with the lab, or when it is shut down.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    folder: PathBuf,
    addresses: Mutex<Vec<String>>,
    pods: Vec<String>,
    cluster: String,
    proxy: Proxy,
    images: PathBuf,
    process: Mutex<Option<Running>>,
}

struct Running {
    /// `unshare`, outside.
    child: Child,
    /// Process 1 of the node, as the machine numbers it.
    init: u32,
}

impl Machine {
    /// Prepares the files of a node whose namespace is connected already.
    pub(super) fn prepare(
        lab: &Lab,
        node: Node,
        control: &ControlPlane,
        (addresses, pods): (Vec<String>, Vec<String>),
        proxy: Proxy,
        images: &Path,
    ) -> Result<Self> {
        let folder = node.directory()?;
        let user = format!("system:node:{}", node.name());
        let write = |name: &str, text: String| pki::write(&folder.join(name), &text);
        let server = control.url();
        let kubelet = control.pki().kubeconfig(node.name(), &user, Some("system:nodes"), &server)?;
        let copied = |from: &Path, name: &str| {
            fs::copy(from, folder.join(name)).map_err(Error::io(format!("copy {}", from.display())))
        };
        copied(&kubelet, "kubelet.kubeconfig")?;
        // A file for each node: another's kube-proxy reads its own at any time.
        let proxy_of = format!("{}-proxy", node.name());
        let of_proxy = control.pki().kubeconfig(&proxy_of, "system:kube-proxy", None, &server)?;
        copied(&of_proxy, "proxy.kubeconfig")?;
        write("containerd.toml", containerd())?;
        write("kubelet.yaml", kubelet_yaml(&control.pki().file("ca.crt"), node.namespace().name()))?;
        write("conflist", conflist(&pods))?;
        write("boot", BOOT.to_owned())?;
        fs::set_permissions(folder.join("boot"), fs::Permissions::from_mode(0o755))
            .map_err(Error::io("make the boot script executable"))?;
        let (logs, name) = (folder.join("disk/var/log"), node.name().to_owned());
        lab.on_failure(move |kept| {
            for log in ["kubelet", "containerd", "kube-proxy"] {
                let _ = fs::copy(logs.join(format!("{log}.log")), kept.join(format!("{name}-{log}.log")));
            }
        });
        let images = images.to_owned();
        // 10.2.1.0/24 of 10.2.0.0/16. kube-proxy masquerades what comes to a Service from elsewhere, such as from a node
        // whose way to Services is, before they are translated, the overlay's.
        let network: Ipv4Net = pods.iter().find_map(|range| range.parse().ok()).unwrap_or_default();
        let cluster = Ipv4Net::new(network.addr(), 16).map_err(Error::other)?.trunc().to_string();
        let (addresses, process) = (Mutex::new(addresses), Mutex::default());
        let inner = Inner { node, folder, addresses, pods, cluster, proxy, images, process };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts the node, as after it was switched on.
    pub fn boot(&self) -> Result {
        let Inner { node, folder, .. } = &*self.inner;
        self.inner.forget()?;
        cgroup::create(node.namespace().name())?;
        let _ = fs::remove_file(folder.join("booted"));
        let log = folder.join("boot.log");
        let failed = || Error::io(format!("open {}", log.display()));
        let out = File::options().create(true).append(true).open(&log).map_err(failed())?;
        let err = out.try_clone().map_err(failed())?;
        let proxy = match self.inner.proxy {
            Proxy::Iptables => "iptables",
            Proxy::Nftables => "nftables",
            Proxy::None => "none",
        };
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(folder.join("boot"))
            .env("ROOT", folder)
            .env("NAME", node.name())
            .env("ADDRESSES", self.addresses().join(","))
            .env("BIN", binaries())
            .env("IMAGES", &self.inner.images)
            .env("PROXY", proxy)
            .env("CLUSTER", &self.inner.cluster)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child = node.spawn(&mut command)?;
        let outer = child.id();
        *self.lock() = Some(Running { child, init: 0 });
        let init = wait::until(&format!("process 1 of {}", node.name()), PATIENCE, || {
            let path = format!("/proc/{outer}/task/{outer}/children");
            let children = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            children.trim().parse::<u32>().map_err(|_| "it is not there".to_owned())
        })?;
        if let Some(running) = &mut *self.lock() {
            running.init = init;
        }
        let booted = folder.join("booted");
        wait::until(&format!("{} to boot; its words are in {}", node.name(), log.display()), READY, || {
            if booted.exists() {
                return Ok(());
            }
            let ended = self.lock().as_mut().is_none_or(|r| !matches!(r.child.try_wait(), Ok(None)));
            let said = fs::read_to_string(&log).unwrap_or_default();
            Err(format!("{}{}", if ended { "it has ended: " } else { "" }, said.trim()))
        })
    }

    /// Takes it off the network and kills everything on it, at once, as a loss of power.
    pub fn power_off(&self) {
        self.inner.power_off();
    }

    /// What its addresses are from its next boot on.
    pub(super) fn readdress(&self, addresses: Vec<String>) {
        *self.inner.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// The Node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.node.name()
    }

    /// Its network namespace.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Its IPv4 address within the cluster.
    #[must_use]
    pub fn address(&self) -> String {
        self.addresses().swap_remove(0)
    }

    /// All its addresses within the cluster, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.inner.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The prefixes of its pods: IPv4, and IPv6 where the cluster has it.
    #[must_use]
    pub fn pods(&self) -> &[String] {
        &self.inner.pods
    }

    /// Runs a program on it to its end, and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init()?.to_string(), "-m", "-u", "-n", "-p", "--", program])
            .args(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", binaries().display()));
        Ok(String::from_utf8_lossy(&netns::run(&mut command)?.stdout).into_owned())
    }

    /// A file or folder of it, by its path there, as this process can open it.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.init()?)))
    }

    /// Its `/var/log`, which is there as long as the lab.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.inner.folder.join("disk/var/log")
    }

    /// Makes containerd know an image archive.
    pub fn import(&self, archive: &Path) -> Result {
        let archive = archive.display().to_string();
        self.run("ctr", &["-n", "k8s.io", "images", "import", "--local", &archive]).map(drop)
    }

    /// The network namespace of a container.
    pub(super) fn container(&self, id: &str) -> Result<Namespace> {
        let tasks = self.run("ctr", &["-n", "k8s.io", "tasks", "ls"])?;
        let task = tasks.lines().map(|l| l.split_whitespace()).find_map(|mut words| {
            let found = words.next() == Some(id);
            words.next().filter(|_| found).map(str::to_owned)
        });
        let pid = task.ok_or_else(|| Error::other(format!("no container {id} on {}", self.name())))?;
        let name = format!("{}/{id}", self.name());
        Namespace::adopt(&name, &self.path(&format!("/proc/{pid}/ns/net"))?)
    }

    fn init(&self) -> Result<u32> {
        let init = self.lock().as_ref().map(|running| running.init);
        init.ok_or_else(|| Error::other(format!("{} is switched off", self.name())))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.inner.lock()
    }
}

/// A machine without power answers nothing, not even that nobody listens.
const MUTE: &str = "table netdev power {
  chain off { type filter hook ingress device eth0 priority -500; policy drop; }
}
";

impl Inner {
    fn power_off(&self) {
        // The lab may have ended before it.
        let _ = self.node.namespace().nft(MUTE);
        if let Some(mut running) = self.lock().take() {
            // Process 1 goes with `unshare` (--kill-child), and all of the node with process 1.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        self.node.namespace().kill_processes();
        cgroup::remove_containers(&self.containers());
    }

    /// The ids of the containers that it has, or had when its power went.
    fn containers(&self) -> Vec<String> {
        let tasks = self.folder.join("disk/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io");
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        tasks.filter_map(|task| task.file_name().into_string().ok()).collect()
    }

    /// A kernel begins with the machine: of the one before, nothing is left but how the machine is wired.
    fn forget(&self) -> Result {
        let namespace = self.node.namespace();
        let links = namespace.ip_json("link show")?;
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        let made: Vec<_> = names.filter(|name| !["lo", "eth0"].contains(name)).collect();
        for name in made {
            // The other end of a pair that is gone already.
            let _ = namespace.ip(&[&format!("link del {name}")]);
        }
        for version in ["-4", "-6"] {
            namespace.run("ip", &[version, "route", "flush", "table", "all", "type", "unreachable"])?;
        }
        namespace.nft("flush ruleset\n")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Containers' layers are overlays, and the limits of a machine that may not raise its own are respected.
fn containerd() -> String {
    let runc = binaries().join("runc");
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/pause:dev"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{}"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
"#,
        runc.display()
    )
}

/// No cgroups for classes of pods, and no eviction by disk: neither can be known in a namespace.
fn kubelet_yaml(ca: &Path, cgroup: &str) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {}}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 1Mi, nodefs.available: "0%", imagefs.available: "0%"}}
resolvConf: ""
syncFrequency: 5s
"#,
        ca.display()
    )
}

/// As hard as users' clusters: whatever leaves the pods' own prefixes is masqueraded.
fn conflist(pods: &[String]) -> String {
    let ranges: Vec<_> = pods.iter().map(|range| serde_json::json!([{"subnet": range}])).collect();
    let config = serde_json::json!({
        "cniVersion": "1.0.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "ranges": ranges}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}
