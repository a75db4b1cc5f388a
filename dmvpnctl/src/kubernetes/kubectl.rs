//! The user's kubectl.

use super::cli::Cluster;
use super::error::Error;
use super::pods::{Pods, SELECTOR};
use crate::cli::Output;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

/// What an agent's pod is asked with.
const DMVPNCTL: &str = "/usr/bin/dmvpnctl";

/// How many nodes are asked at a time.
const AT_A_TIME: usize = 8;

/// The user's kubectl, pointed at a cluster.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    program: OsString,
    cluster: Cluster,
}

impl Kubectl {
    pub(super) fn new(cluster: Cluster) -> Self {
        let program = std::env::var_os("KUBECTL").filter(|program| !program.is_empty());
        Self { program: program.unwrap_or_else(|| "kubectl".into()), cluster }
    }

    #[cfg(test)]
    pub(super) fn with_program(program: impl Into<OsString>, cluster: Cluster) -> Self {
        Self { program: program.into(), cluster }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.cluster.namespace
    }

    fn command(&self, words: &[&str]) -> Command {
        let Cluster { kubeconfig, context, user, namespace } = &self.cluster;
        let mut command = Command::new(&self.program);
        if let Some(kubeconfig) = kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        for (option, value) in [("--context", context), ("--as", user)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        command.args(["--namespace", namespace]).args(words);
        command
    }

    /// What kubectl prints, and its exit code's verdict; what it complains of is the error.
    pub(super) fn output(&self, words: &[&str]) -> Result<String, Error> {
        let done = self.command(words).stdin(Stdio::null()).output().map_err(|e| self.missing(e))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.trim();
        if said.contains("doesn't have a resource type") {
            return Err(Error::NotInstalled);
        }
        let message = if said.is_empty() { format!("failed with {}", done.status) } else { said.to_owned() };
        Err(Error::Kubectl { command: words.join(" "), message })
    }

    /// What kubectl prints, as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, Error> {
        let text = self.output(words)?;
        serde_json::from_str(&text).map_err(|error| Error::NotJson {
            program: self.program.to_string_lossy().into_owned(),
            command: words.join(" "),
            reason: error.to_string(),
        })
    }

    /// The pod by which the agent of a node can be asked.
    pub(super) fn agent_of(&self, node: &str) -> Result<String, Error> {
        let on = format!("spec.nodeName={node}");
        let pods: Pods =
            self.json(&["get", "pods", "--selector", SELECTOR, "--field-selector", &on, "--output", "json"])?;
        match (pods.best(), pods.items.first()) {
            (Some(pod), _) => Ok(pod.metadata.name.clone()),
            (None, Some(pod)) => Err(Error::AgentDown {
                node: node.to_owned(),
                pod: pod.metadata.name.clone(),
                namespace: self.namespace().to_owned(),
                state: pod.state().to_owned(),
            }),
            (None, None) => {
                Err(Error::NoAgent { node: node.to_owned(), namespace: self.namespace().to_owned() })
            }
        }
    }

    /// Every node with an agent, and the pod to ask.
    pub(super) fn agents(&self) -> Result<Vec<(String, String)>, Error> {
        let pods: Pods = self.json(&["get", "pods", "--selector", SELECTOR, "--output", "json"])?;
        Ok(pods.best_of_each())
    }

    /// Runs dmvpnctl in a pod on our own standard streams; its exit code is ours.
    pub(super) fn exec(&self, pod: &str, output: Output, words: &[String]) -> Result<ExitCode, Error> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = self.command(&exec_words(pod, output, &words)).status().map_err(|e| self.missing(e))?;
        Ok(match status.code() {
            Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            None => ExitCode::FAILURE,
        })
    }

    /// The same for us to read. What it printed counts even where it failed: `diagnose` fails when a check does.
    pub(super) fn ask(&self, pod: &str, output: Output, words: &[&str]) -> Result<Answer, Error> {
        let done = self
            .command(&exec_words(pod, output, words))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| self.missing(e))?;
        Ok(Answer {
            good: done.status.success(),
            text: String::from_utf8_lossy(&done.stdout).into_owned(),
            complaint: String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        })
    }

    /// Asks several nodes' agents at the same time; the answers come in the order of `agents`.
    pub(super) fn ask_each<T: Send>(
        &self,
        agents: &[(String, String)],
        ask: impl Fn(&Self, &str, &str) -> T + Sync,
    ) -> Vec<T> {
        let mut answers = Vec::with_capacity(agents.len());
        for some in agents.chunks(AT_A_TIME) {
            std::thread::scope(|scope| {
                let asked: Vec<_> =
                    some.iter().map(|(node, pod)| scope.spawn(|| ask(self, node, pod))).collect();
                // A thread that panicked has nothing to say; its node is missing from what is shown.
                answers.extend(asked.into_iter().filter_map(|thread| thread.join().ok()));
            });
        }
        answers
    }

    fn missing(&self, source: std::io::Error) -> Error {
        Error::NoKubectl { program: self.program.to_string_lossy().into_owned(), source }
    }
}

/// What a dmvpnctl in a pod said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub good: bool,
    pub text: String,
    pub complaint: String,
}

fn exec_words<'a>(pod: &'a str, output: Output, words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["exec", pod, "--container", "agent", "--", DMVPNCTL];
    if output == Output::Json {
        all.extend(["--output", "json"]);
    }
    all.extend(words);
    all
}
