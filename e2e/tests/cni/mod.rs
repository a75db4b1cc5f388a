//! A node with an agent, and a container runtime made of `cnitool`, for the stories of the CNI plugin.

#![allow(dead_code, reason = "no story uses all of it")]

use lab::kubernetes::{binaries, tool};
use lab::{Agent, Error, Lab, Manifest, Node, Result, agent};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The network's name.
pub(crate) const NETWORK: &str = "pods";
/// The hub's tunnel address: what pods reach by the overlay.
pub(crate) const FAR: &str = "10.200.0.1";
/// The table that keeps pods from the overlay.
pub(crate) const TABLE: &str = "dmvpn-pods";

/// A hub, and a spoke that is a node with pods.
pub(crate) struct Rig {
    pub(crate) hub: Agent,
    pub(crate) agent: Agent,
    pub(crate) node: Node,
    folder: PathBuf,
    plugins: PathBuf,
}

impl Rig {
    pub(crate) fn build(lab: &Lab) -> Result<Self> {
        Self::with(lab, &[])
    }

    /// The agent has further arguments.
    pub(crate) fn with(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        tool("cnitool")?;
        let hub = lab.site("hub", &["198.51.100.1"])?;
        let node = lab.site("node", &["203.0.113.1"])?;
        let back = [("10.244.1.0/24", "10.200.1.1")];
        let hub = Agent::start(lab, &hub, &Manifest::hub(FAR).routes(&back, &[]))?;
        hub.ask().wait_ready()?;
        let agent = Agent::prepare(lab, &node, arguments)?;
        agent.apply(
            &Manifest::spoke("10.200.1.1", &["198.51.100.1"])
                .routes(&[("10.0.0.0/8", FAR)], &["10.244.1.0/24"])
                .with(json!({"tunnel": {"mtu": 1300}, "protectedPrefixes": ["10.0.0.0/8"]})),
        )?;
        agent.launch()?;
        agent.ask().wait_hubs(1)?;
        let folder = lab.directory().join("cni");
        let plugins = agent::binary("dmvpn-cni")?;
        let plugins = plugins.parent().map(PathBuf::from).unwrap_or_default();
        for name in ["net.d", "lib", "addresses", "plugins"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        }
        Ok(Self { hub, agent, node, folder, plugins })
    }

    /// The folder of network configurations.
    pub(crate) fn configurations(&self) -> PathBuf {
        self.folder.join("net.d")
    }

    /// Writes the network's configuration.
    pub(crate) fn configure(&self, version: &str, plugins: &[Value]) -> Result {
        let list = json!({"cniVersion": version, "name": NETWORK, "plugins": plugins});
        let file = self.configurations().join("10-pods.conflist");
        fs::write(&file, list.to_string()).map_err(Error::io(format!("write {}", file.display())))
    }

    /// The cluster's plugin.
    pub(crate) fn bridge(&self) -> Value {
        json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": self.host_local(Some("10.244.1.0/24"))})
    }

    /// Ours, after it.
    pub(crate) fn chained(&self) -> Value {
        json!({
            "type": "dmvpn-cni", "runDir": self.agent.run_directory(),
            "capabilities": {"io.kubernetes.cri.pod-annotations": true}
        })
    }

    /// Ours, with an interface of its own.
    pub(crate) fn standalone(&self) -> Value {
        json!({"type": "dmvpn-cni", "runDir": self.agent.run_directory(), "ipam": self.host_local(None)})
    }

    /// Addresses; without a subnet, what the agent says.
    pub(crate) fn host_local(&self, subnet: Option<&str>) -> Value {
        let mut ipam = json!({"type": "host-local", "dataDir": self.folder.join("addresses")});
        if let Some(subnet) = subnet {
            ipam["subnet"] = json!(subnet);
            ipam["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        }
        ipam
    }

    /// Addresses that are given out.
    pub(crate) fn given_out(&self) -> usize {
        let folder = self.folder.join("addresses").join(NETWORK);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("10.")).count()
    }

    /// Runs `cnitool VERB` for a pod.
    pub(crate) fn cnitool(&self, verb: &str, pod: &Node) -> Result<Value> {
        self.cnitool_as(verb, pod, "eth0", &json!({}))
    }

    /// The same for another interface, or a pod with annotations.
    pub(crate) fn cnitool_as(
        &self,
        verb: &str,
        pod: &Node,
        interface: &str,
        annotations: &Value,
    ) -> Result<Value> {
        // cnitool keeps results in /var/lib/cni, which is not ours to write to.
        let script =
            "mount --bind \"$LIB\" /var/lib && exec \"$TOOL\" \"$VERB\" \"$NETWORK\" \"/run/netns/$POD\"";
        let capabilities = json!({"io.kubernetes.cri.pod-annotations": annotations});
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .env("LIB", self.folder.join("lib"))
            .env("TOOL", tool("cnitool")?)
            .env("VERB", verb)
            .env("NETWORK", NETWORK)
            .env("POD", pod.namespace().name())
            .env("NETCONFPATH", self.configurations())
            .env("CNI_PATH", self.path())
            .env("CNI_IFNAME", interface)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", pod.name()))
            .env("CAP_ARGS", capabilities.to_string());
        let output = self.node.namespace().enter(|| command.output())?.map_err(Error::io("run cnitool"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(Error::other(format!("cnitool {verb}: {said} {stderr}")));
        }
        if said.trim().is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_str(&said).map_err(Error::other)
        }
    }

    /// Calls our plugin as a runtime would. Returns whether it succeeded, and what it said.
    pub(crate) fn call(&self, verb: &str, pod: Option<&Node>, input: &Value) -> Result<(bool, Value)> {
        let mut parameters = vec![("CNI_IFNAME", "eth0".to_owned())];
        if let Some(pod) = pod {
            parameters.push(("CNI_CONTAINERID", container(pod)));
            parameters.push(("CNI_NETNS", format!("/run/netns/{}", pod.namespace().name())));
        }
        self.call_with(verb, &parameters, input).map(|said| (said.fine, said.output))
    }

    /// The same with these parameters and no others.
    pub(crate) fn call_with(&self, verb: &str, parameters: &[(&str, String)], input: &Value) -> Result<Said> {
        let mut command = Command::new(self.plugins.join("dmvpn-cni"));
        command.env("CNI_COMMAND", verb).env("CNI_PATH", self.path());
        command.envs(parameters.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.node.spawn(&mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.to_string().as_bytes()).map_err(Error::io("write to the plugin"))?;
        }
        let output = child.wait_with_output().map_err(Error::io("wait for the plugin"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = if said.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&said).map_err(Error::other)?
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Said { fine: output.status.success(), output: said, stderr })
    }

    /// MTU of the pod's default routes.
    pub(crate) fn default_mtu(&self, pod: &Node) -> Result<Option<u64>> {
        let routes = pod.namespace().ip_json("route show default")?;
        Ok(routes[0]["metrics"][0]["mtu"].as_u64())
    }

    /// The rules that keep pods from the overlay, as `nft` shows them; empty when there are none.
    pub(crate) fn rules(&self) -> String {
        let shown = self.node.run("nft", &["list", "table", "inet", TABLE]);
        shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// A plugin of this story's own, found before all others.
    pub(crate) fn plugin(&self, name: &str, script: &str) -> Result {
        let file = self.folder.join("plugins").join(name);
        fs::write(&file, script)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
            .map_err(Error::io(format!("write {}", file.display())))
    }

    /// What plugins find in CNI_PATH.
    pub(crate) fn path(&self) -> String {
        let own = self.folder.join("plugins");
        format!("{}:{}:{}", own.display(), binaries().display(), self.plugins.display())
    }
}

/// What came of a call.
pub(crate) struct Said {
    /// It succeeded.
    pub(crate) fine: bool,
    /// What it wrote to its standard output; null: nothing.
    pub(crate) output: Value,
    /// And to its standard error.
    pub(crate) stderr: String,
}

/// A container ID for a pod.
pub(crate) fn container(pod: &Node) -> String {
    format!("container-{}", pod.name())
}

/// The node's ends of pairs that our plugin made.
pub(crate) fn links(node: &Node) -> Result<Vec<String>> {
    let links = node.namespace().ip_json("link show")?;
    let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    Ok(names
        .filter(|name| name.starts_with("dmv") && !name.starts_with("dmvpn"))
        .map(str::to_owned)
        .collect())
}
