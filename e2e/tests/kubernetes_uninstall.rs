//! The life of a release as its administrator sees it: `kubectl dmvpn`, `helm test`, and an end that leaves nothing on the
//! nodes.

use lab::kubernetes::overlay::{NAMESPACE, RELEASE};
use lab::kubernetes::{Cluster, ControlPlane, Image, Machine, Overlay, Plan, PodPlan, Resource, image};
use lab::{Error, Result, story};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn kubectl_dmvpn_asks_every_node_and_uninstalling_leaves_the_nodes_as_they_were() {
    story("kubernetes_uninstall", |lab| {
        Image::ours()?.write(&image::folder(lab)?)?;
        let clusters = Cluster::start_all(lab, &[Plan::new("hub", 1).nodes(1), Plan::new("a", 2)])?;
        let [hub, a] = &clusters[..] else { unreachable!("two clusters") };
        // A pod on each node first, so that they have all that the cluster's own plugin makes.
        let client = a.run_pod(&PodPlan::new("client").on("a-1"))?;
        a.run_pod(&PodPlan::new("other").on("a-2"))?;
        let before = traces(a)?;

        let overlay = Overlay::new(lab)?;
        overlay.install(lab, hub, &[])?;
        overlay.install(lab, a, &["agent.cni.enabled=true"])?;
        hub.apply(&Resource::hub(hub.plan()).text())?;
        a.apply(&Resource::spoke(a.plan(), &hub.addresses()).text())?;
        hub.wait_overlay("dmvpnhub")?;
        a.wait_overlay("dmvpnspoke")?;
        a.wait_joined(1)?;
        let web = hub.run_pod(&PodPlan::web("web", "hello"))?;
        assert_eq!(a.fetch("client", &web.address)?, "hello\n");
        assert_ne!(traces(a)?, before, "what is looked for is there while it runs");

        look(a, &web.address, &client.address)?;
        a.helm(&["test", RELEASE, "--namespace", NAMESPACE])?;

        a.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", "240s"])?;
        let after = traces(a)?;
        for (what, before) in &before {
            assert_eq!(after.get(what), Some(before), "{what} was changed");
        }
        // What users wrote stays, and nothing holds it.
        let spoke = a.get(&["dmvpnspoke", "a"])?;
        assert_eq!(spoke["metadata"]["finalizers"], Value::Null);
        a.kubectl(&["delete", "dmvpnspoke", "a", "--timeout=10s"])?;
        a.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
        let left = a.kubectl(&[
            "get",
            "clusterroles,clusterrolebindings,validatingadmissionpolicies",
            "-o",
            "name",
        ])?;
        assert!(!left.contains("dmvpn"), "{left}");
        Ok(())
    });
}

/// What people ask.
fn look(a: &ControlPlane, far: &str, near: &str) -> Result {
    let status = a.kubectl(&["dmvpn", "status"])?;
    let line = status.lines().find(|line| line.starts_with("a-1 ")).unwrap_or_default();
    for word in ["10.200.2.", "hub-1.hub.example.com", " Up ", "aes128gcm16"] {
        assert!(line.contains(word), "{word} is missing:\n{status}");
    }
    assert!(status.lines().any(|line| line.starts_with("a-2 ")), "{status}");
    let rows: Value =
        serde_json::from_str(&a.kubectl(&["dmvpn", "status", "-o", "json"])?).map_err(Error::other)?;
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    let without = a.kubectl(&["dmvpn", "status", "--no-agents"])?;
    assert!(without.contains("a-1") && !without.contains("aes128gcm16"), "{without}");

    assert!(a.kubectl(&["dmvpn", "status", "a-1"])?.contains("dmvpn0 (a): spoke, phase 3"));
    for words in
        [&["peers", "a-1"][..], &["cache", "a-1"], &["sa", "a-1", "-o", "json"], &["shortcuts", "a-2"]]
    {
        a.kubectl(&[&["dmvpn"], words].concat())?;
    }
    for words in [&["path", "a-1", far][..], &["path", "a-1", near, far]] {
        let path = a.kubectl(&[&["dmvpn"], words].concat())?;
        assert!(path.contains(far) && path.contains("by hub 203.0.113.17"), "{path}");
    }
    let diagnosed = diagnose(a)?;
    for node in ["a-1\n", "a-2\n"] {
        assert!(diagnosed.contains(node), "{diagnosed}");
    }
    assert!(!diagnosed.contains("cannot be asked"), "{diagnosed}");
    a.kubectl(&["dmvpn", "clear", "a-1", "10.1.0.0/16"])?;

    let unknown = a.kubectl(&["dmvpn", "peers", "nobody"]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(unknown.contains("no agent runs on node nobody"), "{unknown}");
    let nowhere =
        a.kubectl(&["dmvpn", "diagnose", "-n", "default"]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(nowhere.contains("no agent runs in namespace default"), "{nowhere}");

    let archive = a.folder().join("report.tar.gz").display().to_string();
    a.kubectl(&["dmvpn", "gather", "--out", &archive])?;
    let list = a.output(Command::new("tar").args(["tzf", &archive]), "")?;
    for file in [
        "dmvpnnodes.yaml",
        "agents/a-1/status.json",
        "agents/a-2/diagnose.json",
        "secrets.txt",
        "agent.log",
        "datapath.log",
        "operator.log",
    ] {
        assert!(list.contains(file), "{file} is missing in\n{list}");
    }
    assert!(!list.contains("errors.txt"), "{list}");
    let text = a.output(Command::new("tar").args(["xOzf", &archive]), "")?;
    assert!(!text.contains("PRIVATE KEY"), "a key is in the report");
    Ok(())
}

/// What `kubectl dmvpn diagnose` says. It ends with an error where a check fails, which is another story's matter.
fn diagnose(a: &ControlPlane) -> Result<String> {
    let kubectl = a.kubectl_command(&a.kubeconfig())?;
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" dmvpn diagnose || true"]).arg(kubectl.get_program());
    command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    a.output(&mut command, "")
}

/// What might be left on the nodes of a cluster.
fn traces(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for machine in cluster.machines() {
        for (what, words) in LOOKS {
            let (program, arguments) =
                words.split_first().ok_or_else(|| Error::other("nothing to look with"))?;
            all.insert(format!("{} {what}", machine.name()), calm(&machine.run(program, arguments)?));
        }
        all.insert(format!("{} files", machine.name()), files(&machine)?);
    }
    Ok(all)
}

const LOOKS: [(&str, &[&str]); 6] = [
    ("interfaces", &["ip", "-br", "link", "show"]),
    ("routes", &["ip", "route", "show", "table", "all"]),
    ("IPv6 routes", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules", &["ip", "rule"]),
    ("tables of rules", &["nft", "list", "tables"]),
    ("CNI configuration", &["sh", "-c", "cat /etc/cni/net.d/*"]),
];

/// Without what comes and goes with pods.
fn calm(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("veth")).map(str::trim).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Files of ours; the empty folders that pods mount stay.
fn files(machine: &Machine) -> Result<String> {
    let find = "find /run/kube-dmvpn /var/lib/kube-dmvpn -mindepth 1 2>/dev/null; ls /opt/cni/bin /etc/cni/net.d; true";
    machine.run("sh", &["-c", find])
}
