//! An agent beside an API server without kubelets: as a process of its namespace, with the rights of the agent's pod on
//! one node, and without a datapath. For what it says to the API server and to a kubelet.

use super::control_plane::ControlPlane;
use super::overlay::NAMESPACE;
use crate::agent::binary;
use crate::error::{Error, Result};
use crate::netns;
use serde_json::json;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running agent. It ends with the story.
pub struct LoneAgent {
    child: Child,
    probe: PathBuf,
    metrics: String,
}

impl ControlPlane {
    /// Starts the agent of pod `pod` on this node, with metrics at `metrics` (`ADDRESS:PORT`). All of one control plane
    /// share a run and a state directory, as pods of one node do.
    pub fn agent(&self, pod: &str, node: &str, metrics: &str) -> Result<LoneAgent> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE},
            "spec": {
                "serviceAccountName": "dmvpn-agent", "nodeName": node,
                "containers": [{"name": "agent", "image": "none", "resources": {}}],
            },
        });
        self.apply(&object.to_string())?;
        let (folder, probe) = (self.folder(), self.folder().join(format!("{pod}.sock")));
        let log = folder.join(format!("{pod}.log"));
        let log = File::create(&log).map_err(Error::io(format!("open {}", log.display())))?;
        let mut command = Command::new(binary("dmvpn-agent")?);
        command
            .env("KUBECONFIG", self.kubeconfig_of("dmvpn-agent", Some(pod))?)
            .args(["--kubernetes", "--namespace", NAMESPACE, "--datapath", "external", "--node", node])
            .args(["--metrics", metrics])
            .arg("--run-dir")
            .arg(folder.join("agent-run"))
            .arg("--state-dir")
            .arg(folder.join("agent-state"))
            .arg("--probe-socket")
            .arg(&probe)
            .stdin(Stdio::null())
            .stderr(log);
        Ok(LoneAgent { child: self.node().spawn(&mut command)?, probe, metrics: metrics.to_owned() })
    }
}

impl LoneAgent {
    /// What it says to a kubelet's probe; an error: it is not well.
    pub fn probe(&self) -> Result<String> {
        let mut command = Command::new(binary("dmvpn-agent")?);
        command.arg("probe").arg("--probe-socket").arg(&self.probe);
        Ok(String::from_utf8_lossy(&netns::run(&mut command)?.stdout).into_owned())
    }

    /// What its port says, whoever has that now. `ADDRESS` of an IPv6 address is in brackets in a URL.
    pub fn get(&self, plane: &ControlPlane, path: &str) -> Result<String> {
        let (address, port) = self.metrics.rsplit_once(':').unwrap_or_default();
        let url = match address.contains(':') {
            true => format!("http://[{address}]:{port}{path}"),
            false => format!("http://{address}:{port}{path}"),
        };
        let output = plane.node().run("curl", &["-sf", "-g", "--max-time", "5", &url])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends it, as a kubelet does.
    pub fn end(mut self) -> Result {
        netns::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        self.child.wait().map(drop).map_err(Error::io("wait for the agent"))
    }
}

impl Drop for LoneAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
