//! Ranges of pods where Calico and Cilium keep them: their kinds on a real API server, of the shape that their own CRDs
//! have, and objects as they write them. Neither of them runs here.

use lab::kubernetes::ControlPlane;
use lab::{Result, story};
use serde_json::{Value, json};
use std::time::Duration;

/// The operator looks for a kind that is not there yet every half minute.
const PATIENCE: Duration = Duration::from_secs(60);

fn crd(group: &str, version: &str, kind: &str, plural: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    })
}

/// As in `crd.projectcalico.org_blockaffinities.yaml`: `deleted` is a string.
fn block_affinities() -> Value {
    let text = json!({"type": "string"});
    let spec = json!({
        "type": "object", "required": ["cidr", "deleted", "node", "state"],
        "properties": {"cidr": text, "deleted": text, "node": text, "state": text, "type": text},
    });
    crd("crd.projectcalico.org", "v1", "BlockAffinity", "blockaffinities", &spec)
}

/// The part of `ciliumnodes.yaml` that is about ranges.
fn cilium_nodes() -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let pool = json!({"type": "object", "required": ["pool"], "properties": {"pool": {"type": "string"}, "cidrs": texts}});
    let pools = json!({"type": "object", "properties": {"allocated": {"type": "array", "items": pool}}});
    let ipam = json!({"type": "object", "properties": {"podCIDRs": texts, "pools": pools}});
    crd(
        "cilium.io",
        "v2",
        "CiliumNode",
        "ciliumnodes",
        &json!({"type": "object", "properties": {"ipam": ipam}}),
    )
}

fn block(name: &str, node: &str, cidr: &str, state: &str, deleted: &str) -> Value {
    json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity", "metadata": {"name": name},
        "spec": {"node": node, "cidr": cidr, "state": state, "deleted": deleted, "type": "host"},
    })
}

fn cilium_node(name: &str, ipam: Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}, "spec": {"ipam": ipam}})
}

fn spoke(name: &str, from: &str, number: u8) -> Value {
    json!({
        "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnSpoke", "metadata": {"name": name},
        "spec": {
            "nodes": {}, "hubs": [{"address": "198.51.100.1"}], "security": {"mode": "None"},
            "underlay": {"port": 4750 + u16::from(number)},
            "tunnel": {"network": format!("10.20{number}.0.0/16"), "addresses": format!("10.20{number}.1.0/24"),
                "interface": format!("dmvpn{number}")},
            "announce": {"podCIDRs": {"from": from}},
        },
    })
}

/// Waits until a node is to announce exactly this by the tunnel of a resource.
fn announces(plane: &ControlPlane, node: &str, resource: &str, prefixes: &[&str]) -> Result {
    let what = format!("{node} to announce {prefixes:?} by {resource}");
    plane.wait_for(&what, PATIENCE, &["dmvpnnode", node], |told| {
        let tunnels = told["spec"]["tunnels"].as_array().cloned().unwrap_or_default();
        let tunnel = tunnels.into_iter().find(|tunnel| tunnel["name"] == resource).unwrap_or_default();
        let wanted = if prefixes.is_empty() { Value::Null } else { json!(prefixes) };
        if tunnel["name"] == resource && tunnel["announce"] == wanted {
            Ok(())
        } else {
            Err(tunnel.to_string())
        }
    })
}

#[test]
fn ranges_of_pods_are_taken_from_calico_and_cilium_as_they_come_and_go() {
    story("kubernetes_pod_ranges", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&[])?;
        for (number, name) in ["n-0", "n-1"].into_iter().enumerate() {
            plane.apply(&plane.node_object(name, &json!({}), number).to_string())?;
        }
        plane.apply(&spoke("by-calico", "Calico", 0).to_string())?;
        plane.apply(&spoke("by-cilium", "Cilium", 1).to_string())?;
        let _operator = plane.operator("operator", 9478)?;

        // Resources may be there before the plugin is.
        plane.wait_for(
            "the reason why nothing is announced",
            PATIENCE,
            &["dmvpnspoke", "by-calico"],
            |spoke| {
                let conditions = spoke["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
                match accepted {
                    Some(c) if c["reason"] == "ReferenceMissing" => Ok(()),
                    _ => Err(spoke["status"].to_string()),
                }
            },
        )?;
        for crd in [block_affinities(), cilium_nodes()] {
            plane.apply(&crd.to_string())?;
            let name = format!("crd/{}", crd["metadata"]["name"].as_str().unwrap_or_default());
            plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name])?;
        }
        let all = json!({"apiVersion": "v1", "kind": "List", "items": [
            block("n-0-1", "n-0", "10.4.1.0/26", "confirmed", "false"),
            block("n-0-2", "n-0", "10.4.1.128/26", "confirmed", "false"),
            block("n-1-1", "n-1", "10.4.2.0/26", "confirmed", "false"),
            block("n-1-2", "n-1", "10.4.2.64/26", "pending", "false"),
            cilium_node("n-0", json!({"podCIDRs": ["10.5.0.0/24"]})),
            cilium_node("n-1", json!({"pools": {"allocated": [{"pool": "default", "cidrs": ["10.5.1.0/27"]}]}})),
        ]});
        plane.apply(&all.to_string())?;
        announces(&plane, "n-0", "by-calico", &["10.4.1.0/26", "10.4.1.128/26"])?;
        announces(&plane, "n-1", "by-calico", &["10.4.2.0/26"])?;
        announces(&plane, "n-0", "by-cilium", &["10.5.0.0/24"])?;
        announces(&plane, "n-1", "by-cilium", &["10.5.1.0/27"])?;

        // A block is given back, another is taken; a pool grows.
        plane.apply(&block("n-0-2", "n-0", "10.4.1.128/26", "pendingDeletion", "false").to_string())?;
        plane.kubectl(&["delete", "blockaffinity", "n-1-1"])?;
        plane.apply(&block("n-1-2", "n-1", "10.4.2.64/26", "confirmed", "false").to_string())?;
        let grown =
            json!({"pools": {"allocated": [{"pool": "default", "cidrs": ["10.5.1.0/27", "10.5.1.64/27"]}]}});
        plane.apply(&cilium_node("n-1", grown).to_string())?;
        announces(&plane, "n-0", "by-calico", &["10.4.1.0/26"])?;
        announces(&plane, "n-1", "by-calico", &["10.4.2.64/26"])?;
        announces(&plane, "n-1", "by-cilium", &["10.5.1.0/27", "10.5.1.64/27"])
    });
}
