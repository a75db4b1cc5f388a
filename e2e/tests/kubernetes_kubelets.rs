//! What a kubelet may do to the overlay, whoever has taken its node: by trying, on an API server with NodeRestriction.

use lab::kubernetes::overlay::NAMESPACE;
use lab::kubernetes::{ControlPlane, Operator};
use lab::wait::{PATIENCE, until};
use lab::{Error, Lab, Result, story};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The label that chooses hubs, as the documents tell people to name it.
const HUB: &str = "node-restriction.kubernetes.io/kube-dmvpn-hub";

#[test]
fn a_kubelet_makes_its_node_no_hub_and_gets_no_token_or_certificate_of_another() {
    story("kubernetes_kubelets_confined", |lab| {
        let scene = Scene::new(lab)?;
        scene.a_node_is_no_hub_by_its_kubelet()?;
        scene.a_token_is_that_of_the_own_nodes_agent()?;
        scene.nothing_is_read_and_nothing_signed()
    });
}

/// Nodes a and b with an agent's pod each, an operator, and the kubelet of a, taken.
struct Scene {
    plane: ControlPlane,
    kubelet: PathBuf,
    _operator: Operator,
}

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&["caSecrets={dmvpn-ca}"])?;
        plane.kubectl(&["create", "secret", "generic", "dmvpn-ca", "-n", NAMESPACE, "--from-literal=k=v"])?;
        for (number, node) in ["a", "b"].into_iter().enumerate() {
            plane.apply(&plane.node_object(node, &json!({}), number).to_string())?;
            plane.apply(&agent_pod(node).to_string())?;
        }
        plane.apply(&hub().to_string())?;
        let kubelet = kubelet(&plane, "a")?;
        let operator = plane.operator("operator", 9478)?;
        Ok(Self { plane, kubelet, _operator: operator })
    }

    fn attempt(&self, words: &[&str]) -> Result<String> {
        self.plane.kubectl_as(&self.kubelet, words)
    }

    fn a_node_is_no_hub_by_its_kubelet(&self) -> Result {
        let label = format!("{HUB}=true");
        self.plane.kubectl(&["label", "node", "b", &label])?;
        self.wait_for_hubs(&["b"])?;

        // Labels of its own choice it may set, and may not choose hubs by them; those by which hubs are chosen it may not.
        self.attempt(&["label", "node", "a", "example.com/role=hub"])?;
        for label in [&label, "node-role.kubernetes.io/hub=true"] {
            refused(self.attempt(&["label", "node", "a", label]), "is not allowed to modify labels");
        }
        refused(self.attempt(&["label", "node", "b", &format!("{HUB}-")]), "only its own Node object");
        refused(self.attempt(&["delete", "node", "a"]), "cannot delete resource \"nodes\"");
        // Nor is a node born a hub, by a kubelet that registers it so (--node-labels).
        let born = self.file("born.json", &self.plane.node_object("c", &json!({HUB: "true"}), 2))?;
        let said = self.plane.kubectl_as(&kubelet(&self.plane, "c")?, &["create", "-f", &born]);
        refused(said, "is not allowed to set the following labels");

        // Who may label nodes makes a hub, at once, and by then the operator has seen all that was tried before.
        self.plane.apply(&self.plane.node_object("d", &json!({HUB: "true"}), 3).to_string())?;
        self.wait_for_hubs(&["b", "d"])
    }

    fn a_token_is_that_of_the_own_nodes_agent(&self) -> Result {
        // The authorizer hears of the pod a moment after it was made.
        until("the token of its own node's agent", PATIENCE, || self.token(Some("agent-a")))?;
        refused(self.token(Some("agent-b")), "scheduled on a different node");
        refused(self.token(None), "not bound to a pod");
        refused(
            self.attempt(&["create", "token", "dmvpn-operator", "-n", NAMESPACE]),
            "no relationship found",
        );
        Ok(())
    }

    fn nothing_is_read_and_nothing_signed(&self) -> Result {
        refused(self.attempt(&["get", "secret", "dmvpn-ca", "-n", NAMESPACE]), "no relationship found");
        refused(self.attempt(&["get", "dmvpnnodes"]), "cannot list resource \"dmvpnnodes\"");
        refused(self.attempt(&["delete", "dmvpnhub", "hq"]), "cannot delete resource \"dmvpnhubs\"");
        let request = self.file("request.json", &self.request("a")?)?;
        let said = self.attempt(&["create", "-f", &request]);
        refused(said, "signer kube-dmvpn.io/node is for agents of kube-dmvpn only, not for system:node:a");
        Ok(())
    }

    /// Waits until these nodes, and no others, are told to be hubs.
    fn wait_for_hubs(&self, wanted: &[&str]) -> Result {
        self.plane.wait_for("the hubs", PATIENCE, &["dmvpnnodes"], |nodes| {
            let nodes = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_hub = |node: &&Value| {
                node["spec"]["tunnels"].as_array().is_some_and(|t| t.iter().any(|t| t["role"] == "Hub"))
            };
            let hubs: Vec<_> =
                nodes.iter().filter(is_hub).filter_map(|n| n["metadata"]["name"].as_str()).collect();
            if hubs == wanted { Ok(()) } else { Err(format!("{hubs:?}")) }
        })
    }

    /// Asks for a token of the agents' service account, bound to this pod.
    fn token(&self, pod: Option<&str>) -> Result<String> {
        let mut words = vec!["create", "token", "dmvpn-agent", "-n", NAMESPACE];
        let uid;
        if let Some(pod) = pod {
            uid = self.plane.kubectl(&[
                "get",
                "pod",
                pod,
                "-n",
                NAMESPACE,
                "-o",
                "jsonpath={.metadata.uid}",
            ])?;
            words.extend(["--bound-object-kind=Pod", "--bound-object-name", pod, "--bound-object-uid", &uid]);
        }
        self.attempt(&words)
    }

    /// A request for a node's certificate, as its agent would file it.
    fn request(&self, node: &str) -> Result<Value> {
        let claims = identity::pki::Claims { name: format!("{node}.example.com"), ..Default::default() };
        let (pem, _key) = identity::pki::Request::make(&claims).map_err(|e| Error::other(e.0))?;
        let request = self.plane.output(Command::new("base64").arg("-w0"), &pem)?;
        let about = json!({"kube-dmvpn.io/node": node, "kube-dmvpn.io/tunnel": "hq"});
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "of-a-kubelet", "annotations": about},
            "spec": {"signerName": "kube-dmvpn.io/node", "usages": ["client auth"], "request": request},
        }))
    }

    /// Writes an object into a file, for programs that read one.
    fn file(&self, name: &str, object: &Value) -> Result<String> {
        let file = self.plane.folder().join(name);
        fs::write(&file, object.to_string()).map_err(Error::io(format!("write {}", file.display())))?;
        Ok(file.display().to_string())
    }
}

/// The kubeconfig of a node's kubelet.
fn kubelet(plane: &ControlPlane, node: &str) -> Result<PathBuf> {
    let (name, user) = (format!("kubelet-{node}"), format!("system:node:{node}"));
    plane.pki().kubeconfig(&name, &user, Some("system:nodes"), &plane.url())
}

fn hub() -> Value {
    json!({
        "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnHub", "metadata": {"name": "hq"},
        "spec": {
            "nodes": {"matchLabels": {HUB: "true"}}, "security": {"mode": "None"},
            "tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.0.0/24"},
        },
    })
}

fn agent_pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("agent-{node}"), "namespace": NAMESPACE},
        "spec": {
            "serviceAccountName": "dmvpn-agent", "nodeName": node,
            "containers": [{"name": "agent", "image": "none", "resources": {}}],
        },
    })
}

#[track_caller]
fn refused(outcome: Result<String>, words: &str) {
    match outcome {
        Ok(said) => panic!("accepted ({said}), and should be refused: {words}"),
        Err(said) => assert!(said.to_string().contains(words), "expected: {words}\ngot: {said}"),
    }
}
