//! The life of a release as its administrator sees it: `kubectl dmvpn`, `helm test`, and an end that leaves nothing on the
//! nodes.

use lab::kubernetes::overlay::{NAMESPACE, RELEASE};
use lab::kubernetes::{Cluster, ControlPlane, Machine, Overlay, Plan, Pod, PodPlan, connect, two_clusters};
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Error, Result, story};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::process::Command;

#[test]
fn kubectl_dmvpn_asks_every_node_and_uninstalling_leaves_the_nodes_as_they_were() {
    story("kubernetes_uninstall", |lab| {
        let [hub, a] = &two_clusters(lab, Plan::new("a", 2))?;
        // A pod on each node first, so that they have all that the cluster's own plugin makes.
        let client = a.run_pod(&PodPlan::new("client").on("a-1"))?;
        a.run_pod(&PodPlan::new("other").on("a-2"))?;
        let before = traces(a)?;

        let overlay = Overlay::new(lab)?;
        overlay.install(lab, hub, &[])?;
        overlay.install(lab, a, &["agent.cni.enabled=true"])?;
        connect(hub, a)?;
        let web = hub.run_pod(&PodPlan::web("web", "hello"))?;
        assert_eq!(a.fetch("client", &web.address)?, "hello\n");
        assert_ne!(traces(a)?, before, "what is looked for is there while it runs");

        look(a, &web.address, &client.address)?;
        gather(a)?;
        capture(a, &client, &web.address)?;
        watch(a)?;
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
    Ok(())
}

/// A report has everything but what is secret.
fn gather(a: &ControlPlane) -> Result {
    // As people do it: where it does not belong.
    a.kubectl(&["annotate", "dmvpnspoke", "a", "example.com/token=hunter2", "example.com/contact=noc"])?;
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
    assert!(text.contains("dmvpn-ca") && text.contains("contact: noc"), "names are no secret");
    assert!(text.contains("token: (redacted)") && !text.contains("hunter2"), "a token is in the report");
    let ca = a.get(&["secret", "dmvpn-ca", "-n", NAMESPACE])?;
    let key = ca["data"]["tls.key"].as_str().filter(|key| key.len() > 60).map(|key| key[..60].to_owned());
    let key = key.ok_or_else(|| Error::other("the CA has no key"))?;
    assert!(!text.contains("PRIVATE KEY") && !text.contains(&key), "a key is in the report");
    Ok(())
}

/// Packets of the overlay in clear, while they go.
fn capture(a: &ControlPlane, client: &Pod, far: &str) -> Result {
    let file = a.folder().join("capture.pcapng");
    let open = File::create(&file).map_err(Error::io("make a file"))?;
    let mut command = a.kubectl_command(&a.kubeconfig())?;
    let mut capturing =
        a.node().spawn(command.args(["dmvpn", "capture", "a-1", "--count", "30"]).stdout(open))?;
    wait::until("thirty packets", 2 * PATIENCE, || {
        Ping::times(5).expect(client.host(), far)?;
        match capturing.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(Error::other(format!("{other:?}"))),
        }
    })?;
    let mut reader = File::open(&file)
        .map_err(Error::io("open the capture"))
        .and_then(|file| PcapNgReader::new(file).map_err(Error::other))?;
    let mut goes = BTreeMap::<(Ipv4Addr, Ipv4Addr), u32>::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.map_err(Error::other)? {
            let address =
                |at: usize| <[u8; 4]>::try_from(packet.data.get(at..at + 4)?).ok().map(Ipv4Addr::from);
            if let (Some(from), Some(to)) = (address(12), address(16)) {
                *goes.entry((from, to)).or_default() += 1;
            }
        }
    }
    let [near, far] = [&client.address, far].map(|text| text.parse::<Ipv4Addr>().map_err(Error::other));
    let (near, far) = (near?, far?);
    assert_eq!(goes.values().sum::<u32>(), 30, "{goes:?}");
    assert!(goes.contains_key(&(near, far)) && goes.contains_key(&(far, near)), "{goes:?}");
    Ok(())
}

/// What happens, as it happens.
fn watch(a: &ControlPlane) -> Result {
    let file = a.folder().join("watch");
    let open = File::create(&file).map_err(Error::io("make a file"))?;
    let mut command = a.kubectl_command(&a.kubeconfig())?;
    let mut watching =
        a.node().spawn(command.args(["dmvpn", "watch", "a-1", "--history", "3"]).stdout(open))?;
    let lines = |least: usize| {
        wait::until(&format!("{least} lines of what happens"), PATIENCE, || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.lines().count() >= least { Ok(text) } else { Err(text) }
        })
    };
    lines(3)?;
    a.kubectl(&["dmvpn", "clear", "a-1", "sa"])?;
    let text = lines(4)?;
    assert!(text.lines().all(|line| line.contains("dmvpn0")), "{text}");
    let _ = watching.kill();
    let _ = watching.wait();
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
