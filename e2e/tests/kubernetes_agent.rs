//! What the agent says to an API server and to a kubelet, without a kubelet: nodes are objects only, and the tunnel has no
//! datapath.

use identity::pki::{Authority, Confines, Validity};
use lab::kubernetes::overlay::NAMESPACE;
use lab::kubernetes::{ControlPlane, LoneAgent};
use lab::narration::ensure;
use lab::wait::until;
use lab::{Error, Result, story};
use serde_json::json;
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a table that somebody removed may be missing.
const SOON: Duration = Duration::from_secs(10);

/// Names of Nodes and of our resources may be longer than the value of a label.
const NODE: &str =
    "node-of-a-cloud-that-likes-long-names-0123456789.region-far-away.compute.internal.example.net";
const SPOKE: &str =
    "a-spoke-whose-name-says-where-it-is-what-it-is-for-and-who-is-to-be-called-when-it-is-down";

#[test]
fn long_names_two_agents_of_one_node_and_a_firewall_that_flushes_everything() {
    story("kubernetes_agent", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&["secrets={roots}", "caSecrets={ca}"])?;
        secrets(&plane)?;
        plane.apply(&plane.node_object(NODE, &json!({}), 1).to_string())?;
        let spoke = json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnSpoke", "metadata": {"name": SPOKE},
            "spec": {
                "nodes": {}, "hubs": [{"address": "198.51.100.1"}],
                "tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.16.0/24"},
                "security": {"domain": "example.net", "authentication": {"certificates": {
                    "issuedBy": "Operator", "caSecret": "ca", "trust": "roots",
                }}},
                "announce": {"podCIDRs": {"from": "Node"}},
            },
        });
        plane.apply(&spoke.to_string())?;
        let _operator = plane.operator("operator", 9478)?;

        // A node's address, as Kubernetes puts it into an argument.
        let first = plane.agent("first", NODE, "::1:9477")?;
        certificate(&plane)?;
        until("the first agent's answer", PATIENCE, || match first.probe().map_err(|e| e.to_string())? {
            said if said == "ok\n" => Ok(()),
            other => Err(other),
        })?;
        flushed(&plane, &first)?;

        // In an upgrade the second waits for the first, and both are well.
        let second = plane.agent("second", NODE, "::1:9477")?;
        until("the second agent to stand by", PATIENCE, || {
            match second.probe().map_err(|e| e.to_string())? {
                said if said.starts_with("standing by") => Ok(()),
                other => Err(other),
            }
        })?;
        ensure(first.probe()? == "ok\n", "the first is not well")?;
        first.end()?;
        until("the second agent to run", PATIENCE, || match second.probe().map_err(|e| e.to_string())? {
            said if said == "ok\n" => Ok(()),
            other => Err(other),
        })?;
        until("the second agent to have the port", PATIENCE, || second.get(&plane, "/healthz")).map(drop)
    });
}

/// A CA for everything, and what it is judged by.
fn secrets(plane: &ControlPlane) -> Result {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?.as_secs();
    let validity = Validity { not_before: now - 3600, not_after: now + 365 * 86_400 };
    let failed = |e: identity::CertificateError| Error::other(e.0);
    let root = Authority::root("roots", validity).map_err(failed)?;
    let confines = Confines {
        domains: vec!["example.net".into()],
        tunnel_addresses: vec!["10.200.16.0/24".parse().map_err(Error::other)?],
        prefixes: vec!["10.1.0.0/16".parse().map_err(Error::other)?],
    };
    let ca = root.intermediate("ca", &confines, validity).map_err(failed)?;
    for (name, data) in [
        ("ca", json!({"tls.crt": ca.chain_pem(), "tls.key": ca.key_pem().as_str()})),
        ("roots", json!({"ca.crt": root.chain_pem()})),
    ] {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
        plane.apply(&secret.to_string())?;
    }
    Ok(())
}

/// The node's certificate is signed: its request says in full whom it is for, and is found by labels.
fn certificate(plane: &ControlPlane) -> Result {
    let requests = ["csr", "--selector", "kube-dmvpn.io/node,kube-dmvpn.io/tunnel"];
    plane.wait_for("the certificate", PATIENCE, &requests, |list| {
        let request = &list["items"][0];
        let about = &request["metadata"]["annotations"];
        let named = about["kube-dmvpn.io/node"] == NODE && about["kube-dmvpn.io/tunnel"] == SPOKE;
        let signed = request["status"]["certificate"].is_string();
        if named && signed { Ok(()) } else { Err(request.to_string()) }
    })?;
    plane.wait_for("a healthy CA", PATIENCE, &["dmvpnspoke", SPOKE], |spoke| {
        let mut conditions = spoke["status"]["conditions"].as_array().into_iter().flatten();
        let healthy = conditions.any(|c| c["type"] == "AuthorityHealthy" && c["status"] == "True");
        if healthy { Ok(()) } else { Err(spoke["status"].to_string()) }
    })
}

/// Whatever somebody does to the tables, the agent's is put back, and that is counted.
fn flushed(plane: &ControlPlane, agent: &LoneAgent) -> Result {
    let there = || {
        let listed =
            plane.node().run("nft", &["list", "table", "inet", "dmvpn"]).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        if text.contains("10.1.1.0/24") { Ok(()) } else { Err(text) }
    };
    until("the table that keeps sources", PATIENCE, there)?;
    for disturbance in [&["flush", "ruleset"][..], &["flush", "table", "inet", "dmvpn"]] {
        plane.node().run("nft", disturbance)?;
        until(&format!("the table after nft {}", disturbance.join(" ")), SOON, there)?;
    }
    let metrics = agent.get(plane, "/metrics")?;
    let count = metrics.lines().find(|l| l.starts_with("dmvpn_disturbances_total{what=\"nftables_table\"}"));
    let counted = count.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    ensure(counted == Some(2), &format!("counted: {count:?}"))
}
