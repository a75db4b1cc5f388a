//! kubectl and Helm, as a cluster's administrator runs them.

use super::control_plane::ControlPlane;
use super::tool;
use crate::error::{Error, Result};
use crate::netns;
use crate::wait;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

impl ControlPlane {
    /// Runs kubectl and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with("", arguments)
    }

    /// Runs kubectl with this on its standard input.
    pub fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command(&self.kubeconfig())?;
        command.args(arguments);
        self.output(&mut command, input)
    }

    /// Runs kubectl as the user of another kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command(kubeconfig)?;
        command.args(arguments);
        self.output(&mut command, "")
    }

    /// `kubectl get ... -o json`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).map_err(Error::other)
    }

    /// `kubectl apply` of one or several objects, in YAML or JSON.
    pub fn apply(&self, objects: &str) -> Result<String> {
        self.kubectl_with(objects, &["apply", "-f", "-"])
    }

    /// Runs a command in a pod (`name`, `deployment/name`, `daemonset/name`).
    pub fn exec(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", "-n", namespace, pod];
        if !container.is_empty() {
            arguments.extend(["-c", container]);
        }
        arguments.push("--");
        self.kubectl(&[&arguments, command].concat())
    }

    /// Waits until an object, asked for as in [`Self::get`], is as wanted; an error says what is wrong with it.
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        object: &[&str],
        mut wanted: impl FnMut(&Value) -> std::result::Result<T, String>,
    ) -> Result<T> {
        wait::until(what, patience, || {
            let seen = self.get(object).map_err(|e| e.to_string()).and_then(|object| wanted(&object));
            // Each question starts a program: not more of them than needed.
            if seen.is_err() {
                std::thread::sleep(Duration::from_millis(200));
            }
            seen
        })
    }

    /// Runs Helm and returns what it printed.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tool("helm")?);
        let home = self.folder().join("helm");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &home);
        }
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        self.output(&mut command, "")
    }

    /// kubectl, to be run in this node's namespace (by [`ControlPlane::node`]).
    pub fn kubectl_command(&self, kubeconfig: &Path) -> Result<Command> {
        let mut command = Command::new(tool("kubectl")?);
        // kubectl writes what it discovers to $HOME; plugins find kubectl by PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let plugins = self.folder().with_file_name("bin");
        command
            .env("HOME", self.folder())
            .env("KUBECONFIG", kubeconfig)
            .env("PATH", format!("{}:{}:{path}", super::binaries().display(), plugins.display()));
        Ok(command)
    }

    /// Runs a program in this node's namespace to its end.
    pub fn output(&self, command: &mut Command, input: &str) -> Result<String> {
        let output = self.node().namespace().enter(|| netns::feed(command, input))??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
