//! Pods that talk: what stories send traffic between.

use super::cluster::Cluster;
use crate::error::Result;
use crate::topology::Node;
use crate::traffic::Ping;
use serde_json::{Value, json};
use std::time::Duration;

/// A pod to be run.
#[derive(Clone, Debug)]
pub struct PodPlan {
    name: String,
    node: Option<String>,
    command: Vec<String>,
    annotations: Value,
}

impl PodPlan {
    /// A pod that waits.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            command: vec!["sleep".to_owned(), "2147483647".to_owned()],
            annotations: json!({}),
        }
    }

    /// A pod that serves this page on port 80, and logs who asks.
    #[must_use]
    pub fn web(name: &str, page: &str) -> Self {
        let serve = format!("mkdir -p /www && echo '{page}' > /www/index.html && exec httpd -f -v -h /www");
        Self { command: vec!["sh".to_owned(), "-c".to_owned(), serve], ..Self::new(name) }
    }

    /// On this node.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    /// With another command of busybox.
    #[must_use]
    pub fn command(self, command: &[&str]) -> Self {
        Self { command: command.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "annotations": self.annotations, "labels": {"app": self.name}},
            "spec": {
                "nodeName": self.node, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "main", "image": "localhost/busybox:dev", "imagePullPolicy": "Never",
                    "command": self.command,
                }],
            },
        })
    }
}

/// A running pod.
pub struct Pod {
    /// Its name; it is in the namespace `default`.
    pub name: String,
    /// Its IPv4 address.
    pub address: String,
    /// Its IPv6 address, where the cluster has that.
    pub address_v6: Option<String>,
    /// The Node it runs on.
    pub on: String,
    node: Node,
}

impl Pod {
    /// Its network namespace, as a host of the lab: pings and flows begin and end there.
    #[must_use]
    pub const fn host(&self) -> &Node {
        &self.node
    }

    /// Each of the two answers the other.
    pub fn expect_talk(&self, other: &Self) -> Result {
        Ping::times(3).expect(self.host(), &other.address)?;
        Ping::times(3).expect(other.host(), &self.address).map(drop)
    }
}

impl Cluster {
    /// Runs a pod and waits until it does.
    pub fn run_pod(&self, plan: &PodPlan) -> Result<Pod> {
        self.apply(&plan.object().to_string())?;
        self.pod(&plan.name)
    }

    /// A pod of this name, when it runs: after a reboot of its node it has another address.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let what = format!("pod {name} to run");
        self.wait_for(&what, Duration::from_secs(60), &["pod", name], |pod| {
            let status = &pod["status"];
            let container = &status["containerStatuses"][0];
            let id = container["containerID"].as_str().and_then(|id| id.strip_prefix("containerd://"));
            let (Some(address), Some(on), Some(id)) =
                (status["podIP"].as_str(), pod["spec"]["nodeName"].as_str(), id)
            else {
                return Err(status.to_string());
            };
            if !container["state"]["running"].is_object() {
                return Err(status.to_string());
            }
            // What the API server says may be older than the machine's last boot.
            let namespace = self.machine_named(on).and_then(|machine| machine.container(id));
            let node = self.router().adopt(name, namespace.map_err(|e| e.to_string())?);
            let address_v6 = status["podIPs"][1]["ip"].as_str().map(str::to_owned);
            Ok(Pod {
                name: name.to_owned(),
                address: address.to_owned(),
                address_v6,
                on: on.to_owned(),
                node,
            })
        })
    }

    /// Runs a command in a pod, and returns what it printed.
    pub fn in_pod(&self, pod: &str, command: &[&str]) -> Result<String> {
        self.exec("default", pod, "", command)
    }

    /// Fetches a page from within a pod, in five seconds or not at all.
    pub fn fetch(&self, pod: &str, host: &str) -> Result<String> {
        // Debian's static busybox dies of its own `wget -T`.
        self.in_pod(pod, &["timeout", "5", "wget", "-q", "-O", "-", &format!("http://{host}/")])
    }

    /// What a pod wrote to its log.
    pub fn pod_log(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod])
    }
}
