//! The chart on a real API server: what it renders is taken, what users write wrong is refused with the words that help,
//! and agents are held to their own node.

use lab::kubernetes::ControlPlane;
use lab::{Error, Lab, Result, story};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../crds/tests/rules/cases.rs"]
mod cases;

const NAMESPACE: &str = "kube-dmvpn";
const RELEASE: &[&str] = &["kube-dmvpn", "--namespace", NAMESPACE];

/// Everything that can be switched on and needs nothing that is not in every cluster.
const ALL: &str = "metrics.enabled=true,metrics.dashboard.enabled=true,operator.replicas=2,operator.networkPolicy.enabled=true,\
    agent.cni.enabled=true,certManager.enabled=true,agent.apiServer.host=192.0.2.1,agent.workers=2,agent.logLevel=debug,\
    image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000,secrets={a,b},caSecrets={c},commonLabels.x=y";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> String {
    root().join("charts/kube-dmvpn").display().to_string()
}

/// An API server with the chart's objects. There are no nodes: no pod runs.
fn installed(lab: &Lab, settings: &[&str]) -> Result<ControlPlane> {
    let api = ControlPlane::alone(lab, "api")?;
    let chart = chart();
    let mut words = [&["install"], RELEASE, &[&chart, "--create-namespace"]].concat();
    for setting in settings {
        words.extend(["--set", setting]);
    }
    api.helm(&words)?;
    for crd in ["dmvpnhubs", "dmvpnspokes", "dmvpnnodes"] {
        let crd = format!("crd/{crd}.kube-dmvpn.io");
        api.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd])?;
    }
    Ok(api)
}

/// What an API server says to this object: `Err` is its refusal.
fn offer(api: &ControlPlane, object: &Value) -> std::result::Result<String, String> {
    let words = ["create", "--dry-run=server", "-f", "-"];
    api.kubectl_with(&object.to_string(), &words).map_err(|e| e.to_string())
}

#[test]
fn the_chart_has_no_lint_and_an_api_server_takes_all_that_it_renders() {
    story("kubernetes_chart_renders", |lab| {
        let api = ControlPlane::alone(lab, "api")?;
        api.kubectl(&["create", "namespace", NAMESPACE])?;
        let chart = chart();
        api.helm(&["lint", "--strict", &chart, "--set", ALL])?;
        // What the rest refers to.
        for template in ["templates/crds.yaml", "templates/serviceaccounts.yaml"] {
            let text = api.helm(&[&["template"], RELEASE, &[&chart, "--show-only", template]].concat())?;
            api.kubectl_with(&text, &["apply", "--server-side", "-f", "-"])?;
        }
        for settings in ["agent.logFormat=json", ALL, "agent.privileged=true,policies.overlaps=Warn"] {
            let words = [&["template"], RELEASE, &[chart.as_str(), "--set", settings]].concat();
            let rendered = api.helm(&words)?;
            let said = api.kubectl_with(
                &rendered,
                &["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"],
            )?;
            assert!(said.contains("daemonset.apps/dmvpn-agent serverside-applied"), "{settings}: {said}");
        }
        Ok(())
    });
}

#[test]
fn wrong_values_are_refused_before_anything_is_installed() {
    story("kubernetes_chart_values", |lab| {
        let api = ControlPlane::alone(lab, "api")?;
        let chart = chart();
        for (setting, words) in [
            ("agent.logFormat=xml", "at '/agent/logFormat': value must be one of 'text', 'json'"),
            ("agents.logFormat=json", "additional properties 'agents' not allowed"),
            ("secrets={Not_a_name}", "at '/secrets/0'"),
            ("policies.overlaps=deny", "value must be one of 'Deny', 'Warn', 'Off'"),
            ("agent.stateDir=var", "at '/agent/stateDir'"),
            ("agent.maxSurge=0", "at '/agent/maxSurge'"),
            ("image.repository=a:b", "at '/image/repository'"),
            ("agent.apiServer.port=6443", "at '/agent/apiServer'"),
            ("secrets={ca},caSecrets={ca}", "every agent could read the key of your CA"),
            ("metrics.serviceMonitor.enabled=true", "needs metrics.enabled"),
        ] {
            let refused = api.helm(&[&["template"], RELEASE, &[chart.as_str(), "--set", setting]].concat());
            let said =
                refused.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("{setting} was accepted"));
            assert!(said.contains(words), "{setting}: {said}");
        }
        Ok(())
    });
}

#[test]
fn every_rule_says_on_a_real_api_server_what_to_write() {
    story("kubernetes_rules", |lab| {
        // The rules of the CRDs alone.
        let api = installed(lab, &["policies.overlaps=Off,policies.hubLabels=Off,uninstall.enabled=false"])?;
        for (object, field, message) in cases::broken() {
            let said =
                offer(&api, &object).err().unwrap_or_else(|| panic!("accepted, though {field}: {message}"));
            // kubectl prints on one line what the rule says.
            assert!(said.contains(message), "{field}: expected {message}\ngot {said}\nfor {object}");
            let field = field.replace(".pinned.a", ".pinned[a]"); // maps are written so
            assert!(said.contains(&field), "expected {field}\ngot {said}");
        }
        for object in cases::right() {
            offer(&api, &object).unwrap_or_else(|said| panic!("{said}\nfor {object}"));
        }
        let explained = api.kubectl(&["explain", "dmvpnhub.spec.tunnel.phase"])?;
        assert!(explained.contains("all traffic goes by the hub"), "{explained}");
        Ok(())
    });
}

#[test]
fn every_sample_of_the_docs_passes_a_dry_run() {
    story("kubernetes_samples", |lab| {
        let api = installed(lab, &["uninstall.enabled=false"])?;
        let mut seen = 0;
        for folder in ["docs/samples", "docs/kubernetes/samples"] {
            for entry in fs::read_dir(root().join(folder)).map_err(Error::io(format!("read {folder}")))? {
                let path = entry.map_err(Error::io(format!("read {folder}")))?.path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    let file = path.display().to_string();
                    api.kubectl(&["create", "--dry-run=server", "-f", &file])?;
                    seen += 1;
                }
            }
        }
        assert!(seen >= 14, "only {seen} samples were found");
        Ok(())
    });
}

/// A kubeconfig for the agents' service account, with a token bound to a pod on that node, or to none.
fn agent(lab: &Lab, api: &ControlPlane, node: Option<&str>) -> Result<PathBuf> {
    let mut words = vec!["create", "token", "dmvpn-agent", "-n", NAMESPACE];
    let pod = node.map(|node| format!("agent-{node}"));
    if let (Some(node), Some(pod)) = (node, &pod) {
        api.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}).to_string())?;
        api.apply(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}, "spec": {
                "serviceAccountName": "dmvpn-agent", "nodeName": node, "containers": [{"name": "c", "image": "none"}]}})
            .to_string(),
        )?;
        words.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
    }
    let token = api.kubectl(&words)?;
    let file = lab.directory().join(format!("{}.kubeconfig", node.unwrap_or("nobody")));
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.url(), "certificate-authority": api.pki().file("ca.crt")}}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&file, text.to_string()).map_err(Error::io(format!("write {}", file.display())))?;
    Ok(file)
}

fn try_as(
    api: &ControlPlane,
    who: &Path,
    input: &Value,
    words: &[&str],
) -> std::result::Result<String, String> {
    let mut command = api.kubectl_command(who).map_err(|e| e.to_string())?;
    command.args(words);
    api.output(&mut command, &input.to_string()).map_err(|e| e.to_string())
}

#[test]
fn an_agent_writes_about_its_own_node_only_and_reads_no_ca() {
    story("kubernetes_agents_confined", |lab| {
        let api = installed(lab, &["secrets={dmvpn-psk},caSecrets={dmvpn-ca},uninstall.enabled=false"])?;
        let (a, nobody) = (agent(lab, &api, Some("a"))?, agent(lab, &api, None)?);
        for node in ["a", "b"] {
            let object = json!({"apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnNode", "metadata": {"name": node}, "spec": {}});
            api.apply(&object.to_string())?;
        }
        for secret in ["dmvpn-psk", "dmvpn-ca", "other"] {
            api.kubectl(&["create", "secret", "generic", secret, "-n", NAMESPACE, "--from-literal=k=v"])?;
        }

        let status = |node: &str| json!({"apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnNode", "metadata": {"name": node}, "status": {"agentVersion": "1"}});
        let apply =
            ["apply", "--server-side", "--subresource=status", "--field-manager=kube-dmvpn-agent", "-f", "-"];
        // A policy acts a moment after it was made.
        lab::wait::until("the policy", lab::wait::PATIENCE, || {
            try_as(&api, &a, &status("b"), &apply).map_or_else(Ok, |_| Err("not in force yet".to_owned()))
        })?;
        try_as(&api, &a, &status("a"), &apply).map_err(Error::other)?;
        refused(
            try_as(&api, &a, &status("b"), &apply),
            "the agent of node a writes the status of DmvpnNode a only, not b/status",
        );
        refused(try_as(&api, &nobody, &status("a"), &apply), "an agent must use the token of its own pod");
        let spec = ["apply", "--server-side", "-f", "-"];
        refused(try_as(&api, &a, &status("a"), &spec), "cannot patch resource \"dmvpnnodes\"");

        let request = request(&api)?;
        let csr = |signer: &str, node: &str| {
            let annotations = json!({"kube-dmvpn.io/node": node, "kube-dmvpn.io/tunnel": "t"});
            json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                "metadata": {"generateName": "dmvpn-", "annotations": annotations},
                "spec": {"signerName": signer, "usages": ["client auth"], "request": request}})
        };
        let create = ["create", "-f", "-"];
        let ours = "kube-dmvpn.io/node";
        try_as(&api, &a, &csr(ours, "a"), &create).map_err(Error::other)?;
        refused(
            try_as(&api, &a, &csr(ours, "b"), &create),
            "the agent of node a asks for certificates of its own node only",
        );
        refused(
            try_as(&api, &nobody, &csr(ours, "a"), &create),
            "an agent must use the token of its own pod",
        );
        let kubelets = "kubernetes.io/kube-apiserver-client-kubelet";
        refused(
            try_as(&api, &a, &csr(kubelets, "a"), &create),
            "agents of kube-dmvpn ask signer kube-dmvpn.io/node only",
        );
        let mut without = csr(ours, "a");
        without["metadata"]["annotations"] = json!({"kube-dmvpn.io/node": "a"});
        refused(try_as(&api, &a, &without, &create), "annotation kube-dmvpn.io/tunnel must name the tunnel");
        refused(
            offer(&api, &csr(ours, "a")),
            "signer kube-dmvpn.io/node is for agents of kube-dmvpn only, not for admin",
        );
        offer(&api, &csr("example.com/other", "a")).map_err(Error::other)?;

        let secret = |name: &str| try_as(&api, &a, &Value::Null, &["get", "secret", name, "-n", NAMESPACE]);
        secret("dmvpn-psk").map_err(Error::other)?;
        refused(secret("dmvpn-ca"), "cannot get resource \"secrets\"");
        refused(secret("other"), "cannot get resource \"secrets\"");
        refused(
            try_as(&api, &a, &Value::Null, &["get", "secrets", "-n", NAMESPACE]),
            "cannot list resource \"secrets\"",
        );
        refused(try_as(&api, &a, &Value::Null, &["get", "nodes"]), "cannot list resource \"nodes\"");
        refused(try_as(&api, &a, &Value::Null, &["get", "pods", "-A"]), "cannot list resource \"pods\"");
        Ok(())
    });
}

fn refused(outcome: std::result::Result<String, String>, words: &str) {
    match outcome {
        Ok(said) => panic!("accepted ({said}), and should be refused: {words}"),
        Err(said) => assert!(said.contains(words), "expected: {words}\ngot: {said}"),
    }
}

/// A certificate request of some key, as a CertificateSigningRequest has it: its PEM in base64.
fn request(api: &ControlPlane) -> Result<String> {
    let claims = identity::pki::Claims { name: "a.example.com".to_owned(), ..Default::default() };
    let (pem, _) = identity::pki::Request::make(&claims).map_err(Error::other)?;
    api.output(Command::new("base64").arg("-w0"), &pem)
}

#[test]
fn resources_whose_tunnel_addresses_overlap_are_refused() {
    story("kubernetes_overlaps", |lab| {
        let api = installed(lab, &["uninstall.enabled=false"])?;
        let hub = |name: &str, tunnel: Value| {
            json!({"apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnHub", "metadata": {"name": name},
                "spec": {"tunnel": tunnel, "security": {"mode": "None"}}})
        };
        let spoke = |name: &str, tunnel: Value| {
            let mut spoke = hub(name, tunnel);
            spoke["kind"] = "DmvpnSpoke".into();
            spoke["spec"]["hubs"] = json!([{"address": "192.0.2.1"}]);
            spoke
        };
        let of = |addresses: &str| json!({"network": "10.200.0.0/16", "addresses": addresses});
        api.apply(&hub("hq", of("10.200.0.0/24")).to_string())?;
        api.apply(&spoke("a", of("10.200.16.0/24")).to_string())?;
        let both = "spec.tunnel: the addresses 10.200.0.128/25 overlap with those of DmvpnHub hq (10.200.0.0/24) in the same DMVPN";
        lab::wait::until("the policy", lab::wait::PATIENCE, || {
            match offer(&api, &spoke("b", of("10.200.0.128/25"))) {
                Err(said) if said.contains(both) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        refused(
            offer(&api, &hub("other", of("10.200.16.7/32"))),
            "overlap with those of DmvpnSpoke a (10.200.16.0/24)",
        );
        offer(&api, &spoke("b", of("10.200.17.0/24"))).map_err(Error::other)?;
        let mut keyed = of("10.200.0.0/24");
        keyed["key"] = 7.into();
        offer(&api, &hub("keyed", keyed)).map_err(Error::other)?;
        // What is there already may change, and lose its finalizer.
        api.apply(&hub("hq", of("10.200.0.0/25")).to_string())?;
        refused(
            api.apply(&hub("hq", of("10.200.0.0/19")).to_string()).map_err(|e| e.to_string()),
            "overlap with those of DmvpnSpoke a",
        );

        let (mut hub, mut spoke) =
            (hub("chosen", of("10.200.1.0/24")), spoke("chosen", of("10.200.18.0/24")));
        let strict = |object: &Value| {
            let words = ["create", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
            api.kubectl_with(&object.to_string(), &words).map_err(|e| e.to_string())
        };
        hub["spec"]["nodes"] = json!({"matchLabels": {"role": "yes"}});
        refused(strict(&hub), "a kubelet can give its node the label role, and so make it a hub");
        // Any node may be a spoke. Not any may announce what is behind all others.
        spoke["spec"]["nodes"] = json!({"matchLabels": {"role": "yes"}});
        strict(&spoke).map_err(Error::other)?;
        let role = json!([{"key": "role", "operator": "Exists"}]);
        spoke["spec"]["announce"] = json!({"mode": "Gateways", "gateways": {"matchExpressions": role}});
        refused(strict(&spoke), "a kubelet can give its node the label role, and so make it a gateway");
        let good = json!({"matchLabels": {"node-restriction.kubernetes.io/role": "yes"}});
        (hub["spec"]["nodes"], spoke["spec"]["announce"]["gateways"]) = (good.clone(), good);
        strict(&hub).and_then(|_| strict(&spoke)).map_err(Error::other)?;
        Ok(())
    });
}

#[test]
fn pods_pass_the_restricted_profile_but_for_what_agents_need() {
    story("kubernetes_pod_security", |lab| {
        let api = ControlPlane::alone(lab, "api")?;
        api.kubectl(&["create", "namespace", NAMESPACE])?;
        api.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted"])?;
        let chart = chart();
        // Each with its reason in docs/kubernetes/rbac.md.
        let nodes = vec![
            "host namespaces",
            "unrestricted capabilities",
            "restricted volume types",
            "runAsNonRoot != true",
            "runAsUser=0",
        ];
        let templates = [
            ("templates/agent-daemonset.yaml", nodes.clone()),
            ("templates/cleanup-hook.yaml", nodes),
            ("templates/operator-deployment.yaml", vec![]),
            ("templates/tests/ready.yaml", vec![]),
            ("templates/uninstall-hook.yaml", vec![]),
        ];
        let all = api.helm(&[&["template"], RELEASE, &[chart.as_str()]].concat())?;
        let with_pods: BTreeSet<&str> = all
            .split("\n---\n")
            .filter(|document| {
                document.contains("\n      containers:") || document.contains("\n  containers:")
            })
            .filter_map(|document| {
                document.lines().find_map(|line| line.strip_prefix("# Source: kube-dmvpn/"))
            })
            .collect();
        assert_eq!(with_pods, templates.iter().map(|(template, _)| *template).collect());
        for (template, exceptions) in templates {
            let words = [&["template"], RELEASE, &[chart.as_str(), "--show-only", template]].concat();
            let rendered = api.helm(&words)?;
            api.kubectl(&["create", "serviceaccount", "dmvpn-operator", "-n", NAMESPACE]).ok();
            let said = api
                .kubectl_with(&rendered, &["create", "--dry-run=server", "--warnings-as-errors", "-f", "-"]);
            match (said, exceptions.is_empty()) {
                (Ok(_), true) => {}
                (Ok(_), false) => panic!("{template} needs no exception any more: take them off the list"),
                (Err(said), true) => panic!("{template}: {said}"),
                (Err(said), false) => assert_eq!(violations(&said.to_string()), exceptions, "{said}"),
            }
        }
        Ok(())
    });
}

/// `would violate PodSecurity "restricted:latest": a (why, more), b (why)` are `a` and `b`.
fn violations(said: &str) -> Vec<String> {
    let list = said.split_once("latest\": ").map_or("", |(_, list)| list.lines().next().unwrap_or_default());
    let (mut depth, mut outside) = (0, String::new());
    for c in list.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside.split(',').map(|violation| violation.trim().to_owned()).collect()
}

#[test]
fn an_upgrade_brings_new_fields_and_uninstalling_leaves_what_users_wrote() {
    story("kubernetes_chart_upgrade", |lab| {
        let api = installed(lab, &["uninstall.enabled=false"])?;
        let next = lab.directory().join("next");
        let copied = Command::new("cp").arg("-r").arg(chart()).arg(&next).status();
        assert!(copied.is_ok_and(|status| status.success()));
        let crd = next.join("files/crds/dmvpnhubs.yaml");
        let text = fs::read_to_string(&crd).map_err(Error::io("read the CRD"))?;
        // As the next version's generated CRD would have it.
        let (before, after) =
            text.split_once("              tunnel:\n").ok_or_else(|| Error::other("no spec.tunnel"))?;
        let new = format!(
            "{before}              newField:\n                type: string\n              tunnel:\n{after}"
        );
        fs::write(&crd, new).map_err(Error::io("write the CRD"))?;
        let next = next.display().to_string();

        let mut hub = cases::hub();
        hub["spec"]["newField"] = "kept".into();
        refused(
            api.kubectl_with(&hub.to_string(), &["apply", "--validate=strict", "-f", "-"])
                .map_err(|e| e.to_string()),
            "unknown field \"spec.newField\"",
        );
        let off = ["--set", "uninstall.enabled=false"];
        api.helm(&[&["upgrade"], RELEASE, &[next.as_str()], &off].concat())?;
        lab::wait::until("the new field", lab::wait::PATIENCE, || {
            api.kubectl_with(&hub.to_string(), &["apply", "--validate=strict", "-f", "-"])
        })?;
        assert_eq!(api.get(&["dmvpnhub", "hq"])?["spec"]["newField"], "kept");

        api.helm(&["rollback", "kube-dmvpn", "1", "--namespace", NAMESPACE])?;
        api.helm(&["uninstall", "kube-dmvpn", "--namespace", NAMESPACE])?;
        assert_eq!(api.get(&["dmvpnhub", "hq"])?["spec"]["tunnel"]["network"], "10.200.0.0/16");
        // Whoever installs again finds them.
        api.helm(&[&["install"], RELEASE, &[&chart()], &off].concat())?;
        api.get(&["dmvpnhub", "hq"])?;
        Ok(())
    });
}
