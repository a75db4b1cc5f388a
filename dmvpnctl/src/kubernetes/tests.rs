//! With a kubectl that is a script: it writes down what it was asked, and answers from files.

use super::cli::{Cli, Cluster, words};
use super::error::Error;
use super::kubectl::Kubectl;
use super::{Command, gather};
use crate::cli::Output;
use clap::{CommandFactory as _, Parser as _};
use serde_json::json;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

/// A kubectl of which `answers` says what it prints when all of a line's first word occur among its arguments.
fn fake(answers: &[(&str, &str)]) -> (TempDir, Kubectl) {
    let folder = tempfile::tempdir().unwrap();
    let mut script =
        format!("#!/bin/sh\necho \"$@\" >>{}\ncase \"$*\" in\n", folder.path().join("asked").display());
    for (index, (pattern, answer)) in answers.iter().enumerate() {
        let file = folder.path().join(format!("answer{index}"));
        std::fs::write(&file, answer).unwrap();
        script.push_str(&format!("*{}*) cat {} ;;\n", pattern.replace(' ', "\\ "), file.display()));
    }
    script.push_str("*) echo \"no answer for $*\" >&2; exit 1 ;;\nesac\n");
    let program = folder.path().join("kubectl");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster { context: Some("c1".into()), namespace: "ns".into(), ..Cluster::default() };
    let kubectl = Kubectl::with_program(program, cluster);
    (folder, kubectl)
}

fn asked(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("asked")).unwrap()
}

fn pod(name: &str, node: &str, created: &str, running: bool, deleted: bool) -> serde_json::Value {
    let state =
        if running { json!({"running": {}}) } else { json!({"waiting": {"reason": "CrashLoopBackOff"}}) };
    json!({
        "metadata": {"name": name, "creationTimestamp": created, "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
        "spec": {"nodeName": node, "containers": [{"name": "agent"}, {"name": "datapath"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "agent", "restartCount": 1, "state": state}]},
    })
}

fn pods(items: &[serde_json::Value]) -> String {
    json!({"items": items}).to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn it_is_about_a_cluster_when_called_as_a_plugin_or_when_asked_to() {
    let about = |line: &[&str]| words(line.iter().map(OsString::from)).map(|words| words.len());
    assert_eq!(about(&["/usr/local/bin/kubectl-dmvpn", "status"]), Some(2));
    assert_eq!(about(&["dmvpnctl", "--kubernetes", "status"]), Some(2));
    assert_eq!(about(&["dmvpnctl", "status"]), None);
    assert_eq!(about(&["dmvpnctl", "pki", "show", "--kubernetes"]), None);
    assert_eq!(about(&[]), None);
}

#[test]
fn commands_become_words_for_the_nodes_own_dmvpnctl() {
    let inside = |line: &str| {
        let line = ["kubectl-dmvpn"].into_iter().chain(line.split(' '));
        let cli = Cli::try_parse_from(line).unwrap();
        cli.command.inside().map(|(node, words)| format!("{node}: {}", words.join(" ")))
    };
    for (line, expected) in [
        ("peers a-1", "a-1: peers"),
        ("peers a-1 -i dmvpn1", "a-1: peers --interface dmvpn1"),
        ("sa a-1", "a-1: sa"),
        ("path a-1 10.2.3.4", "a-1: path 10.2.3.4"),
        ("path a-1 10.1.0.1 10.2.3.4", "a-1: path 10.1.0.1 10.2.3.4"),
        ("watch a-1 --history 5", "a-1: watch --history 5"),
        ("diagnose a-1", "a-1: diagnose"),
        ("capture a-1 -c 7 --context x", "a-1: capture --count 7"),
        ("clear a-1 sa b-2 --interface dmvpn0", "a-1: clear sa b-2 --interface dmvpn0"),
        ("clear a-1", "a-1: clear"),
    ] {
        assert_eq!(inside(line).as_deref(), Some(expected));
    }
    for line in ["status", "status a-1", "diagnose", "gather"] {
        assert_eq!(inside(line), None, "{line}");
    }
}

#[test]
fn the_cluster_may_be_named_anywhere() {
    for line in [
        ["kubectl-dmvpn", "--context", "c", "-n", "ns", "status"],
        ["kubectl-dmvpn", "status", "--context", "c", "-n", "ns"],
    ] {
        let Cluster { context, namespace, .. } = Cli::try_parse_from(line).unwrap().cluster;
        assert_eq!((context.as_deref(), namespace.as_str()), (Some("c"), "ns"));
    }
    let Cli { cluster, command, .. } = Cli::try_parse_from(["kubectl-dmvpn", "status"]).unwrap();
    assert_eq!(cluster.namespace, "kube-dmvpn");
    assert!(matches!(command, Command::Status { node: None, no_agents: false }));
}

#[test]
fn the_youngest_pod_that_runs_and_stays_is_asked() {
    let list = pods(&[
        pod("old", "a-1", "2026-01-01T00:00:00Z", true, false),
        pod("young", "a-1", "2026-01-02T00:00:00Z", true, false),
        pod("crashing", "a-1", "2026-01-03T00:00:00Z", false, false),
        pod("leaving", "a-1", "2026-01-04T00:00:00Z", true, true),
    ]);
    let (folder, kubectl) = fake(&[("get pods", &list)]);
    assert_eq!(kubectl.agent_of("a-1").unwrap(), "young");
    let asked = asked(&folder);
    assert!(asked.starts_with("--context c1 --namespace ns get pods --selector"), "{asked}");
    assert!(asked.contains("--field-selector spec.nodeName=a-1"), "{asked}");
    assert_eq!(kubectl.agents().unwrap(), [("a-1".to_owned(), "young".to_owned())]);
}

#[test]
fn a_pod_that_does_not_run_is_named_with_its_state() {
    let (_folder, kubectl) =
        fake(&[("get pods", &pods(&[pod("p", "a-1", "2026-01-01T00:00:00Z", false, false)]))]);
    let error = kubectl.agent_of("a-1").unwrap_err().to_string();
    assert_eq!(
        error,
        "the agent on node a-1 does not run: pod p is CrashLoopBackOff; see kubectl -n ns describe pod p"
    );
}

#[test]
fn a_node_without_an_agent_is_said() {
    let (_folder, kubectl) = fake(&[("get pods", &pods(&[]))]);
    assert!(
        matches!(kubectl.agent_of("a-1").unwrap_err(), Error::NoAgent { node, namespace } if node == "a-1" && namespace == "ns")
    );
}

#[test]
fn kubectl_is_said_to_be_missing() {
    let kubectl = Kubectl::with_program("/nonexistent/kubectl", Cluster::default());
    assert!(matches!(kubectl.output(&["version"]).unwrap_err(), Error::NoKubectl { .. }));
}

#[test]
fn kubectls_own_words_are_shown() {
    let (_folder, kubectl) = fake(&[]);
    let error = kubectl.output(&["get", "nodes"]).unwrap_err().to_string();
    assert_eq!(error, "kubectl get nodes: no answer for --context c1 --namespace ns get nodes");
}

#[test]
fn nodes_are_diagnosed_side_by_side_and_shown_in_order() {
    let list = pods(&[
        pod("pod-b", "b-1", "2026-01-01T00:00:00Z", true, false),
        pod("pod-a", "a-1", "2026-01-01T00:00:00Z", true, false),
    ]);
    let (folder, kubectl) = fake(&[
        ("get pods", &list),
        ("exec pod-a", "all 3 checks passed\n"),
        ("exec pod-b", "all 4 checks passed\n"),
    ]);
    let mut out = Vec::new();
    super::diagnose::all(&kubectl, Output::Table, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a-1\nall 3 checks passed\n\nb-1\nall 4 checks passed\n");
    assert!(asked(&folder).contains("exec pod-a --container agent -- /usr/bin/dmvpnctl diagnose"));
}

#[test]
fn a_report_has_what_could_be_had_and_no_secret() {
    let list = pods(&[pod("pod-a", "a-1", "2026-01-01T00:00:00Z", true, false)]);
    let (folder, kubectl) = fake(&[
        ("get pods --selector", &list),
        ("--previous", "panicked with psk=hunter2\n"),
        ("logs pod-a", "ready\n"),
        ("exec pod-a", "{}\n"),
        ("get nodes", "items: []\n"),
        ("get secrets", "NAME  TYPE\n"),
    ]);
    let path = folder.path().join("report.tar.gz");
    assert_eq!(gather::gather(&kubectl, Some(&path), 10).unwrap(), path);
    let files = unpack(&path);
    let file =
        |name: &str| files.iter().find(|(path, _)| path.ends_with(name)).map(|(_, text)| text.as_str());
    assert_eq!(file("/nodes.yaml"), Some("items: []\n"));
    assert_eq!(file("/logs/pod-a/datapath.log"), Some("ready\n"));
    assert_eq!(file("/logs/pod-a/agent-previous.log"), Some("panicked with psk= (redacted)\n"));
    assert_eq!(file("/agents/a-1/sa.json"), Some("{}\n"));
    assert!(file("/errors.txt").unwrap().contains("dmvpnhubs.yaml: "));
    let asked = asked(&folder);
    assert!(
        asked.lines().any(|line| line.ends_with("get secrets")),
        "their contents were asked for: {asked}"
    );
}

fn unpack(path: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.push((entry.path().unwrap().display().to_string(), text));
    }
    files
}
