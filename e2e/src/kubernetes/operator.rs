//! The operator beside an API server without nodes: as a process of its namespace, with the rights that the chart gives.

use super::control_plane::ControlPlane;
use super::overlay::{CHART, NAMESPACE, RELEASE};
use crate::agent::binary;
use crate::error::{Error, Result};
use crate::wait;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A Lease is free when a candidate, which looks every three seconds or so, has seen it unchanged for fifteen; and then
/// there is a slow machine.
const TAKEN_OVER: Duration = Duration::from_secs(25);

/// A running operator.
pub struct Operator {
    child: Child,
    port: u16,
}

impl ControlPlane {
    /// Installs the chart, with these values besides. Without kubelets its pods stay pending: it is about the CRDs, the
    /// policies and everybody's rights.
    pub fn install_chart(&self, values: &[&str]) -> Result {
        let mut arguments = vec!["install", RELEASE, CHART, "-n", NAMESPACE, "--create-namespace"];
        for value in values {
            arguments.extend(["--set", value]);
        }
        self.helm(&arguments).map(drop)
    }

    /// A Node object of this name, as a kubelet and the controllers would have made it; its pods are 10.`a`.`b`.0/24.
    pub fn node_object(&self, name: &str, labels: &Value, number: usize) -> Value {
        let (a, b) = (number / 256 + 1, number % 256);
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "spec": {"podCIDR": format!("10.{a}.{b}.0/24"), "podCIDRs": [format!("10.{a}.{b}.0/24")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.{a}.{b}")}]},
        })
    }

    /// A kubeconfig of a service account of the release, by a token that is bound to this pod (or to none).
    pub fn kubeconfig_of(&self, account: &str, pod: Option<&str>) -> Result<PathBuf> {
        let mut arguments = vec!["create", "token", account, "-n", NAMESPACE, "--duration=1h"];
        if let Some(pod) = pod {
            arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
        }
        let token = self.kubectl(&arguments)?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": self.url(), "certificate-authority": self.pki().file("ca.crt"),
            }}],
            "users": [{"name": "lab", "user": {"token": token.trim()}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        let path = self.folder().join(format!("{account}-{}.kubeconfig", pod.unwrap_or("unbound")));
        fs::write(&path, config.to_string()).map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path)
    }

    /// The operator, with the rights of its service account, told these arguments.
    pub fn operator_command(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("dmvpn-operator")?);
        command
            .env("KUBECONFIG", self.kubeconfig_of("dmvpn-operator", None)?)
            .args(["--namespace", NAMESPACE, "--identity", name])
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Starts an operator that serves its metrics on this port of the loopback.
    pub fn operator(&self, name: &str, port: u16) -> Result<Operator> {
        let metrics = format!("127.0.0.1:{port}");
        let mut command = self.operator_command(name, &["--metrics", &metrics])?;
        let log = self.folder().join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io(format!("open {}", log.display())))?;
        let child = self.node().spawn(command.stderr(log))?;
        Ok(Operator { child, port })
    }

    /// What an operator has written into its log.
    pub fn operator_log(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Operator {
    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever held, in MiB.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.map_err(Error::io("read the operator's status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib / 1024)
            .ok_or_else(|| Error::other("the kernel doesn't say how much memory it held"))
    }

    /// Its metrics.
    pub fn metrics(&self, plane: &ControlPlane) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let output = plane.node().run("curl", &["-sf", "--max-time", "5", &url])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything it has written to the API server, its Lease and Events aside.
    pub fn writes(&self, plane: &ControlPlane) -> Result<u64> {
        let metrics = self.metrics(plane)?;
        let lines = metrics.lines().filter(|line| line.starts_with("dmvpn_operator_writes_total{"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Does it lead?
    pub fn leads(&self, plane: &ControlPlane) -> Result<bool> {
        // Not just any place: the words that describe the metric begin like its line.
        Ok(self.metrics(plane)?.lines().any(|line| line == "dmvpn_operator_leader 1"))
    }

    /// Waits until it leads.
    pub fn wait_until_it_leads(&self, plane: &ControlPlane) -> Result {
        wait::until("the operator's lead", TAKEN_OVER, || match self.leads(plane) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it stands by".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Kills it, as a lost machine would.
    pub fn kill(mut self) -> Result {
        self.child.kill().and_then(|()| self.child.wait()).map_err(Error::io("kill the operator"))?;
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
