//! `gather`: what a bug report needs, in one archive.
//!
//! Nothing is fetched that holds a secret: of Secrets only the table that kubectl prints. What could not be had is said in
//! `errors.txt`; a report about half a cluster is better than none.

use super::error::Error;
use super::kubectl::Kubectl;
use super::pods::{ALL, Pods};
use super::redact::redact;
use crate::cli::Output;
use crate::text::moment;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is asked of the API server: the file, and the words for kubectl.
const QUESTIONS: [(&str, &[&str]); 14] = [
    ("versions.yaml", &["version", "--output", "yaml"]),
    ("nodes.yaml", &["get", "nodes", "--output", "yaml"]),
    ("crds.txt", &["get", "crds", "--output", "wide"]),
    ("dmvpnhubs.yaml", &["get", "dmvpnhubs.kube-dmvpn.io", "--output", "yaml"]),
    ("dmvpnspokes.yaml", &["get", "dmvpnspokes.kube-dmvpn.io", "--output", "yaml"]),
    ("dmvpnnodes.yaml", &["get", "dmvpnnodes.kube-dmvpn.io", "--output", "yaml"]),
    ("workloads.yaml", &["get", "daemonsets,deployments,jobs,pods", "--selector", ALL, "--output", "yaml"]),
    ("pods.txt", &["get", "pods", "--output", "wide"]),
    ("describe.txt", &["describe", "pods", "--selector", ALL]),
    ("leases.yaml", &["get", "leases", "--output", "yaml"]),
    ("secrets.txt", &["get", "secrets"]), // a table of names, types and ages, made by the API server
    (
        "csrs.txt",
        &["get", "certificatesigningrequests", "--selector", "kube-dmvpn.io/node", "--output", "wide"],
    ),
    ("events-release.txt", &["get", "events", "--sort-by", ".metadata.creationTimestamp"]),
    ("policies.yaml", &["get", "validatingadmissionpolicies", "--selector", ALL, "--output", "yaml"]),
];

/// What every agent is asked.
const ANSWERS: [&str; 6] = ["status", "peers", "cache", "shortcuts", "sa", "diagnose"];

/// Events of every namespace, of which those about us are kept: what is cluster-wide has its events in `default`.
const EVENTS: [&str; 5] = ["get", "events", "--all-namespaces", "--output", "json"];

/// Writes the archive and returns its path.
pub(super) fn gather(kubectl: &Kubectl, file: Option<&Path>, lines: u32) -> Result<PathBuf, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = stem(u64::try_from(now.as_millis()).unwrap_or_default());
    let path = file.map_or_else(|| PathBuf::from(format!("{name}.tar.gz")), Path::to_path_buf);
    let failed = |source| Error::Archive { file: path.display().to_string(), source };
    let mut report = Report::default();
    report.add("dmvpnctl.txt", &format!("dmvpnctl {}\n", env!("CARGO_PKG_VERSION")));
    for (file, words) in QUESTIONS {
        report.ask(kubectl, file, words);
    }
    match kubectl.json::<Value>(&EVENTS) {
        Ok(events) => report.add("events.json", &pretty(&ours(events))),
        Err(error) => report.failed("events.json", &error.to_string()),
    }
    logs(kubectl, lines, &mut report);
    agents(kubectl, &mut report);
    report.finish();
    let out = File::create(&path).map_err(failed)?;
    write(out, &name, now.as_secs(), &report.files).map_err(failed)?;
    Ok(path)
}

/// Files of the report, redacted.
#[derive(Debug, Default)]
struct Report {
    files: Vec<(String, String)>,
    errors: String,
}

impl Report {
    fn add(&mut self, file: &str, text: &str) {
        self.files.push((file.to_owned(), redact(text)));
    }

    fn failed(&mut self, file: &str, why: &str) {
        let _ = writeln!(self.errors, "{file}: {why}");
    }

    fn ask(&mut self, kubectl: &Kubectl, file: &str, words: &[&str]) {
        match kubectl.output(words) {
            Ok(text) => self.add(file, &text),
            Err(error) => self.failed(file, &error.to_string()),
        }
    }

    fn finish(&mut self) {
        if !self.errors.is_empty() {
            let errors = std::mem::take(&mut self.errors);
            self.add("errors.txt", &errors);
        }
    }
}

fn logs(kubectl: &Kubectl, lines: u32, report: &mut Report) {
    let pods: Pods = match kubectl.json(&["get", "pods", "--selector", ALL, "--output", "json"]) {
        Ok(pods) => pods,
        Err(error) => return report.failed("logs", &error.to_string()),
    };
    let tail = format!("--tail={lines}");
    for pod in &pods.items {
        for container in &pod.spec.containers {
            let (pod_name, name) = (pod.metadata.name.as_str(), container.name.as_str());
            let words = ["logs", pod_name, "--container", name, "--timestamps", &tail];
            report.ask(kubectl, &format!("logs/{pod_name}/{name}.log"), &words);
            let restarted =
                |status: &super::pods::ContainerStatus| status.name == name && status.restart_count > 0;
            if pod.status.container_statuses.iter().any(restarted) {
                let words = [&words[..], &["--previous"]].concat();
                report.ask(kubectl, &format!("logs/{pod_name}/{name}-previous.log"), &words);
            }
        }
    }
}

fn agents(kubectl: &Kubectl, report: &mut Report) {
    let agents = match kubectl.agents() {
        Ok(agents) => agents,
        Err(error) => return report.failed("agents", &error.to_string()),
    };
    let answers = kubectl.ask_each(&agents, |kubectl, node, pod| {
        ANSWERS.map(|verb| (format!("agents/{node}/{verb}.json"), kubectl.ask(pod, Output::Json, &[verb])))
    });
    for (file, answer) in answers.into_iter().flatten() {
        match answer {
            Ok(answer) if answer.text.is_empty() => report.failed(&file, &answer.complaint),
            Ok(answer) => report.add(&file, &answer.text),
            Err(error) => report.failed(&file, &error.to_string()),
        }
    }
}

/// Events about our resources, or by us.
fn ours(mut events: Value) -> Value {
    let about_us = |event: &Value| {
        let says = |pointer: &str, start: &str| {
            event.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.starts_with(start))
        };
        says("/involvedObject/apiVersion", "kube-dmvpn.io/")
            || says("/reportingComponent", "kube-dmvpn")
            || says("/source/component", "kube-dmvpn")
            || says("/reportingComponent", "dmvpn")
    };
    if let Some(items) = events.get_mut("items").and_then(Value::as_array_mut) {
        items.retain(about_us);
    }
    events
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `kube-dmvpn-20261122-211604`.
fn stem(unix_ms: u64) -> String {
    let digits: String = moment(unix_ms).chars().filter(char::is_ascii_digit).collect();
    let (day, time) = (digits.get(..8).unwrap_or_default(), digits.get(8..14).unwrap_or_default());
    format!("kube-dmvpn-{day}-{time}")
}

fn write(out: impl Write, folder: &str, seconds: u64, files: &[(String, String)]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (file, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o644);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("{folder}/{file}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_others_stay_at_home() {
        let events = json!({"items": [
            {"involvedObject": {"apiVersion": "kube-dmvpn.io/v1alpha1"}},
            {"involvedObject": {"apiVersion": "v1"}, "reportingComponent": "kube-dmvpn-agent"},
            {"involvedObject": {"apiVersion": "v1"}, "reportingComponent": "kubelet", "message": "of others"},
        ]});
        let kept = ours(events);
        assert_eq!(kept["items"].as_array().map(Vec::len), Some(2));
        assert!(!kept.to_string().contains("of others"));
    }

    #[test]
    fn the_archive_is_named_by_its_time() {
        assert_eq!(stem(951_782_400_000), "kube-dmvpn-20000229-000000");
    }
}
