//! The operator on a real API server, with the rights that the chart gives it and nothing else. Nodes are objects only.

use identity::pki::{Authority, Claims, Confines, Described, Request, Validity, describe};
use lab::kubernetes::ControlPlane;
use lab::kubernetes::overlay::NAMESPACE;
use lab::wait::until;
use lab::{Error, Result, heavy_story, story};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(60);

fn hub(more: &str) -> String {
    format!(
        "{{apiVersion: kube-dmvpn.io/v1alpha1, kind: DmvpnHub, metadata: {{name: hq}}, spec: {{
            nodes: {{matchLabels: {{hub: 'true'}}}},
            tunnel: {{network: 10.200.0.0/16, addresses: 10.200.0.0/24}},
            security: {{mode: None}}{more}}}}}"
    )
}

fn spoke(more: &str) -> String {
    format!(
        "{{apiVersion: kube-dmvpn.io/v1alpha1, kind: DmvpnSpoke, metadata: {{name: hq-spokes}}, spec: {{
            nodes: {{}}, hubs: [{{hubRef: hq}}],
            tunnel: {{network: 10.200.0.0/16, addresses: 10.200.16.0/20}},
            security: {{mode: None}}, announce: {{podCIDRs: {{from: Node}}}}{more}}}}}"
    )
}

fn make_nodes(plane: &ControlPlane, numbers: impl IntoIterator<Item = usize>) -> Result {
    let nodes: Vec<Value> = numbers
        .into_iter()
        .map(|number| {
            let labels = if number == 0 { json!({"hub": "true"}) } else { json!({}) };
            plane.node_object(&format!("n-{number}"), &labels, number)
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string();
    plane.kubectl_with(&list, &["create", "-f", "-"]).map(drop)
}

/// Tunnel address of each node.
fn addresses(plane: &ControlPlane) -> Result<BTreeMap<String, String>> {
    let nodes = plane.get(&["dmvpnnodes"])?;
    let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
    Ok(nodes
        .iter()
        .filter_map(|node| {
            let address = node["spec"]["tunnels"][0]["addresses"][0].as_str()?;
            Some((node["metadata"]["name"].as_str()?.to_owned(), address.to_owned()))
        })
        .collect())
}

/// Waits until exactly these nodes have an address.
fn wait_for_nodes(plane: &ControlPlane, numbers: &[usize]) -> Result<BTreeMap<String, String>> {
    let wanted: BTreeSet<String> = numbers.iter().map(|number| format!("n-{number}")).collect();
    until("the nodes' addresses", PATIENCE, || match addresses(plane) {
        Ok(addresses) if addresses.keys().eq(wanted.iter()) => Ok(addresses),
        Ok(addresses) => {
            std::thread::sleep(Duration::from_millis(300));
            Err(format!("{addresses:?}"))
        }
        Err(error) => Err(error.to_string()),
    })
}

fn condition(object: &Value, type_: &str) -> (String, String, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn nodes_keep_their_addresses_over_churn_restarts_and_another_leader_and_deletion_hangs_nowhere() {
    story("operator_addresses", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&[])?;
        make_nodes(&plane, 0..4)?;
        plane.apply(&hub(""))?;
        plane.apply(&spoke(""))?;
        let first = plane.operator("first", 9478)?;
        let before = wait_for_nodes(&plane, &[0, 1, 2, 3])?;
        assert_eq!(before["n-0"], "10.200.0.1", "{before:?}");
        assert_eq!(before["n-1"], "10.200.16.1", "{before:?}");

        // The hub's node is the hub of the others, and what a node's pods have is announced.
        let told = plane.get(&["dmvpnnode", "n-2"])?;
        let tunnel = &told["spec"]["tunnels"][0];
        assert_eq!(tunnel["hubs"][0]["tunnelAddress"], "10.200.0.1", "{tunnel}");
        assert_eq!(tunnel["hubs"][0]["address"], "192.168.1.0");
        assert_eq!(tunnel["announce"], json!(["10.1.2.0/24"]));
        assert_eq!(told["metadata"]["ownerReferences"][0]["kind"], "Node");

        // Another takes over when the leader is lost, and nobody moves.
        let second = plane.operator("second", 9479)?;
        first.wait_until_it_leads(&plane)?;
        first.kill()?;
        plane.kubectl(&["delete", "node", "n-1"])?;
        make_nodes(&plane, 4..6)?;
        let after = wait_for_nodes(&plane, &[0, 2, 3, 4, 5])?;
        second.wait_until_it_leads(&plane)?;
        for name in ["n-0", "n-2", "n-3"] {
            assert_eq!(after[name], before[name]);
        }
        assert_eq!(after.values().collect::<BTreeSet<_>>().len(), 5, "{after:?}");

        // Status, in words that say what to do.
        let status =
            plane.wait_for(
                "a status",
                PATIENCE,
                &["dmvpnspoke", "hq-spokes"],
                |spoke| match spoke["status"]["summary"]["nodes"].as_str() {
                    Some("0/4") => Ok(spoke.clone()),
                    _ => Err(spoke["status"].to_string()),
                },
            )?;
        assert_eq!(condition(&status, "Accepted").0, "True", "{status}");
        assert_eq!(condition(&status, "Ready").1, "NoNodeReady");
        assert_eq!(status["status"]["observedGeneration"], status["metadata"]["generation"]);

        // A mistake is said, and takes no tunnel away.
        plane.apply(&spoke("").replace("hubRef: hq", "hubRef: nowhere"))?;
        plane.wait_for("the mistake's condition", PATIENCE, &["dmvpnspoke", "hq-spokes"], |spoke| {
            let (accepted, reason, message) = condition(spoke, "Accepted");
            let said = accepted == "False" && reason == "ReferenceMissing" && message.contains("nowhere");
            if said { Ok(()) } else { Err(spoke["status"].to_string()) }
        })?;
        assert_eq!(addresses(&plane)?, after);
        let events = plane.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?;
        assert!(events.contains("ReferenceMissing"), "{events}");

        // Tunnels leave the nodes first, then the resource goes.
        plane.kubectl(&["delete", "dmvpnspoke", "hq-spokes", "--timeout=30s"])?;
        assert_eq!(addresses(&plane)?.into_keys().collect::<Vec<_>>(), ["n-0"]);
        plane.kubectl(&["delete", "dmvpnhub", "hq", "--timeout=30s"])?;
        assert!(addresses(&plane)?.is_empty());
        Ok(())
    });
}

#[test]
fn uninstalling_first_leaves_nothing_that_hangs() {
    story("operator_uninstall", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        // The hook is a Job, and nothing runs Jobs here: it is run by hand, with the rights of an administrator.
        plane.install_chart(&["uninstall.enabled=false"])?;
        make_nodes(&plane, 0..3)?;
        plane.apply(&hub(""))?;
        plane.apply(&spoke(""))?;
        let operator = plane.operator("operator", 9478)?;
        wait_for_nodes(&plane, &[0, 1, 2])?;
        let finalizers = || -> Result<String> {
            plane.kubectl(&["get", "dmvpnhubs,dmvpnspokes", "-o", "jsonpath={.items[*].metadata.finalizers}"])
        };
        until("finalizers", PATIENCE, || match finalizers() {
            Ok(all) if all.matches("kube-dmvpn.io/cleanup").count() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;

        let mut uninstall = plane.operator_command("hook", &["uninstall"])?;
        uninstall.env("KUBECONFIG", plane.kubeconfig());
        plane.output(&mut uninstall, "")?;
        assert_eq!(finalizers()?, "");
        assert!(addresses(&plane)?.is_empty());
        // The operator still runs, and puts nothing back.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(finalizers()?, "");
        assert!(!operator.leads(&plane)?);
        drop(operator);
        plane.kubectl(&["delete", "dmvpnhubs,dmvpnspokes", "--all", "--timeout=10s"])?;
        Ok(())
    });
}

#[test]
fn a_node_in_two_networks_survives_an_outage_of_the_api_server_and_a_conflict_takes_nothing_away() {
    story("operator_outage", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&["policies.overlaps=Off"])?;
        make_nodes(&plane, 0..3)?;
        let other = |more: &str| {
            spoke(more)
                .replace("hq-spokes", "other")
                .replace("hubRef: hq", "address: 198.51.100.1")
                .replace("10.200.", "10.201.")
                .replace("addresses: 10.201.16.0/20", "addresses: 10.201.16.0/20, interface: dmvpn1")
                .replace("{mode: None},", "{mode: None}, underlay: {port: 4755},")
        };
        plane.apply(&hub(""))?;
        plane.apply(&spoke(""))?;
        plane.apply(&other(""))?;
        let operator = plane.operator("operator", 9478)?;
        let told = |numbers: &[usize]| -> Result<Value> {
            wait_for_nodes(&plane, numbers)?;
            Ok(plane.get(&["dmvpnnode", "n-1"])?["spec"].clone())
        };
        let before = told(&[0, 1, 2])?;
        let names: Vec<_> = [0, 1].map(|i| before["tunnels"][i]["name"].clone()).into();
        assert_eq!(names, ["hq-spokes", "other"]);
        assert_eq!(before["tunnels"][1]["addresses"][0], "10.201.16.2", "n-0 has the first");

        // While the API server is away the operator gives its lead up; afterwards it goes on as it was.
        plane.kill("kube-apiserver")?;
        std::thread::sleep(Duration::from_secs(20));
        plane.start_api()?;
        make_nodes(&plane, 3..4)?;
        assert_eq!(told(&[0, 1, 2, 3])?, before);
        operator.wait_until_it_leads(&plane)?;

        // Two that want one interface: who has it keeps it, and both say so.
        plane.apply(&other("").replace("dmvpn1", "dmvpn0"))?;
        for resource in ["hq-spokes", "other"] {
            plane.wait_for("the conflict", PATIENCE, &["dmvpnspoke", resource], |spoke| {
                let (conflict, reason, message) = condition(spoke, "Conflict");
                let said = conflict == "True" && reason == "SameNode" && message.contains("dmvpn0");
                if said { Ok(()) } else { Err(spoke["status"].to_string()) }
            })?;
        }
        let (accepted, reason, _) = condition(&plane.get(&["dmvpnspoke", "other"])?, "Accepted");
        assert_eq!((accepted.as_str(), reason.as_str()), ("False", "Conflicts"));
        assert_eq!(condition(&plane.get(&["dmvpnspoke", "hq-spokes"])?, "Accepted").0, "True");
        assert_eq!(told(&[0, 1, 2, 3])?, before);

        // Gateways announce for all: one node of the four. The others have no tunnel of this resource any more.
        plane.kubectl(&["label", "node", "n-2", "gateway=yes"])?;
        let gateways = "announce: {mode: Gateways, gateways: {matchLabels: {gateway: 'yes'}}, toGateways: [10.0.0.0/8], podCIDRs: {from: Node}}";
        plane.apply(&spoke("").replace("announce: {podCIDRs: {from: Node}}", gateways))?;
        let other_of = |node: u8| json!(["other", [format!("10.1.{node}.0/24")]]);
        for (node, tunnels) in
            [("n-2", json!([["hq-spokes", ["10.1.0.0/22"]], other_of(2)])), ("n-1", json!([other_of(1)]))]
        {
            plane.wait_for("what gateways announce", PATIENCE, &["dmvpnnode", node], |node| {
                let all = node["spec"]["tunnels"].as_array().into_iter().flatten();
                let announced: Value =
                    all.map(|tunnel| json!([tunnel["name"], tunnel["announce"]])).collect();
                if announced == tunnels { Ok(()) } else { Err(node["spec"].to_string()) }
            })?;
        }
        let gateway = &plane.get(&["dmvpnnode", "n-1"])?["spec"]["byGateways"];
        assert_eq!(
            (&gateway[0]["name"], &gateway[0]["via"][0]["node"]),
            (&json!("hq-spokes"), &json!("n-2"))
        );
        Ok(())
    });
}

/// A request of the agent of `node`, made with the token of its pod; what the operator made of it.
fn ask(plane: &ControlPlane, node: &str, name: &str, about: Value, claims: &Claims) -> Result<Value> {
    let (request, _key) = Request::make(claims).map_err(|e| Error::other(e.0))?;
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name, "annotations": about},
        "spec": {
            "signerName": "kube-dmvpn.io/node", "request": base64(request.as_bytes()),
            "usages": ["digital signature", "client auth"], "expirationSeconds": 86400,
        },
    });
    let file = plane.folder().join(format!("{name}.json"));
    std::fs::write(&file, request.to_string()).map_err(Error::io("write a request"))?;
    let file = file.display().to_string();
    let agent = plane.kubeconfig_of("dmvpn-agent", Some(&format!("agent-{node}")))?;
    plane.kubectl_as(&agent, &["create", "-f", &file])?;
    plane.wait_for("an answer", PATIENCE, &["csr", name], |csr| {
        let settled = csr["status"]["certificate"].is_string()
            || ["Denied", "Failed"].iter().any(|type_| condition(csr, type_).0 == "True");
        if settled { Ok(csr.clone()) } else { Err(csr["status"].to_string()) }
    })
}

fn base64(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, octet| word << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let six = (word >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

fn denied(csr: &Value, reason: &str) {
    let (status, said, message) = condition(csr, "Denied");
    assert_eq!((status.as_str(), said.as_str()), ("True", reason), "{message}");
    assert!(csr["status"]["certificate"].is_null());
}

#[test]
fn an_agent_gets_the_certificate_of_its_own_node_and_no_other() {
    story("operator_certificates", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&["secrets={roots}", "caSecrets={ca,foreign-ca,missing-ca}"])?;
        make_nodes(&plane, 0..2)?;
        for node in ["n-0", "n-1"] {
            plane.apply(
                &json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": format!("agent-{node}"), "namespace": NAMESPACE},
                    "spec": {
                        "serviceAccountName": "dmvpn-agent", "nodeName": node,
                        "containers": [{"name": "agent", "image": "none", "resources": {}}],
                    },
                })
                .to_string(),
            )?;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?.as_secs();
        let validity = Validity { not_before: now - 3600, not_after: now + 30 * 86_400 };
        let failed = |e: identity::CertificateError| Error::other(e.0);
        let root = Authority::root("roots", validity).map_err(failed)?;
        for (secret, domain) in [("ca", "hq.example.com"), ("foreign-ca", "branch.example.com")] {
            let confines = Confines {
                domains: vec![domain.into()],
                tunnel_addresses: vec!["10.200.0.0/16".parse().map_err(Error::other)?],
                prefixes: vec!["10.1.0.0/16".parse().map_err(Error::other)?],
            };
            let ca = root.intermediate(secret, &confines, validity).map_err(failed)?;
            let data = json!({"tls.crt": ca.chain_pem(), "tls.key": ca.key_pem().as_str()});
            let metadata = json!({"name": secret, "namespace": NAMESPACE});
            let object =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
            plane.apply(&object.to_string())?;
        }
        let security = |ca: &str| {
            format!(
                "security: {{domain: hq.example.com, authentication: \
                 {{certificates: {{issuedBy: Operator, caSecret: {ca}, trust: roots}}}}}}"
            )
        };
        let none = "security: {mode: None}";
        plane.apply(&hub("").replace(none, &security("ca")))?;
        plane.apply(&spoke("").replace(none, &security("ca")))?;
        let _operator = plane.operator("operator", 9478)?;
        wait_for_nodes(&plane, &[0, 1])?;

        let about = |node: &str| json!({"kube-dmvpn.io/node": node, "kube-dmvpn.io/tunnel": "hq-spokes"});
        let good = Claims {
            name: "n-1.hq.example.com".into(),
            tunnel_addresses: vec!["10.200.16.1".parse().map_err(Error::other)?],
            prefixes: vec!["10.1.1.0/24".parse().map_err(Error::other)?],
        };
        let signed = ask(&plane, "n-1", "good", about("n-1"), &good)?;
        let (approved, ..) = condition(&signed, "Approved");
        assert_eq!(approved, "True");
        let chain = plane.kubectl(&[
            "get",
            "csr",
            "good",
            "-o",
            "go-template={{.status.certificate | base64decode}}",
        ])?;
        let described = describe(chain.as_bytes()).map_err(failed)?;
        let [Described::Certificate(own), Described::Certificate(_)] = described.as_slice() else {
            return Err(Error::other(format!("{described:?}")));
        };
        assert_eq!(own.names, ["n-1.hq.example.com"]);
        assert!(own.validity.1.abs_diff(now + 86_400) < 600, "expirationSeconds is honoured");

        let more = Claims { prefixes: vec!["10.1.0.0/16".parse().map_err(Error::other)?], ..good.clone() };
        denied(&ask(&plane, "n-1", "more", about("n-1"), &more)?, "WrongClaims");
        let other = Claims { name: "n-0.hq.example.com".into(), ..good.clone() };
        denied(&ask(&plane, "n-1", "other-name", about("n-1"), &other)?, "WrongClaims");
        // For another node an agent cannot even ask, by the chart's policy.
        let refused = ask(&plane, "n-0", "other-node", about("n-1"), &good).map(drop);
        assert!(refused.is_err_and(|e| e.to_string().contains("own node only")));

        // A CA that is confined to another cluster says so, where people look for it.
        let authority = |reason: &str, words: &str| {
            plane.wait_for("what is said of the CA", PATIENCE, &["dmvpnspoke", "hq-spokes"], |spoke| {
                let (healthy, said, message) = condition(spoke, "AuthorityHealthy");
                let as_wanted = healthy == "False" && said == reason && message.contains(words);
                if as_wanted { Ok(()) } else { Err(spoke["status"].to_string()) }
            })
        };
        // It has 30 days, less the seconds since.
        authority("CAExpiresSoon", "what it signs ends with it")?;
        plane.apply(&spoke("").replace(none, &security("foreign-ca")))?;
        authority("CARefuses", "branch.example.com")?;
        let events = plane.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?;
        assert!(events.contains("CAExpiresSoon"), "{events}");
        denied(&ask(&plane, "n-1", "foreign", about("n-1"), &good)?, "CARefuses");
        plane.wait_for("the condition", PATIENCE, &["dmvpnspoke", "hq-spokes"], |spoke| {
            let (issued, reason, message) = condition(spoke, "CertificatesIssued");
            let said = issued == "False" && reason == "CARefuses" && message.contains("branch.example.com");
            if said { Ok(()) } else { Err(spoke["status"].to_string()) }
        })?;

        // A CA that is not there is waited for.
        plane.apply(&spoke("").replace(none, &security("missing-ca")))?;
        authority("CAUnusable", "missing-ca, which caSecret names, is not there")?;
        let late = std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&plane, "n-1", "late", about("n-1"), &good));
            plane.wait_for("the condition", PATIENCE, &["dmvpnspoke", "hq-spokes"], |spoke| {
                let (_, reason, message) = condition(spoke, "CertificatesIssued");
                let said = reason == "CAUnusable" && message.contains("missing-ca");
                if said { Ok(()) } else { Err(spoke["status"].to_string()) }
            })?;
            let mut ca = plane.get(&["secret", "ca", "-n", NAMESPACE])?;
            ca["metadata"] = json!({"name": "missing-ca", "namespace": NAMESPACE});
            plane.apply(&ca.to_string())?;
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        assert!(late["status"]["certificate"].is_string(), "{late}");
        Ok(())
    });
}

/// Nodes that a leader is about to tell when it dies.
const CROWD: usize = 300;
/// Writes that an operator has under way at a time.
const AT_ONCE: usize = 16;

#[test]
fn a_leader_that_dies_while_it_writes_is_followed_by_one_that_gives_no_address_and_writes_nothing_twice() {
    story("operator_takeover", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&[])?;
        make_nodes(&plane, 0..CROWD)?;
        plane.apply(&hub(""))?;
        let first = plane.operator("first", 9478)?;
        wait_for_nodes(&plane, &[0])?;
        let second = plane.operator("second", 9479)?;
        until("the second to stand by", PATIENCE, || match second.leads(&plane) {
            Ok(false) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;

        // It dies when it has told a third of the nodes, with writes under way.
        plane.apply(&spoke(""))?;
        until("a third of the nodes to be told", PATIENCE, || match first.writes(&plane) {
            Ok(writes) if writes >= CROWD as u64 / 3 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        first.kill()?;
        let killed = Instant::now();
        let before = addresses(&plane)?;
        println!("{} of {CROWD} nodes were told when the leader died", before.len());
        assert!(before.len() < CROWD, "it was killed too late");

        // While nobody leads, nodes that were told go, and others come.
        let gone: Vec<&str> =
            before.keys().map(String::as_str).filter(|name| *name != "n-0").take(2).collect();
        plane.kubectl(&[&["delete", "node"], gone.as_slice()].concat())?;
        make_nodes(&plane, CROWD..CROWD + 10)?;
        second.wait_until_it_leads(&plane)?;
        println!("the other leads {:.1?} after that", killed.elapsed());

        let left: Vec<usize> =
            (0..CROWD + 10).filter(|number| !gone.contains(&format!("n-{number}").as_str())).collect();
        let after = wait_for_nodes(&plane, &left)?;
        println!("all are told {:.1?} after that", killed.elapsed());
        assert_eq!(after.values().collect::<BTreeSet<_>>().len(), left.len(), "given twice: {after:?}");
        for (name, address) in before.iter().filter(|(name, _)| !gone.contains(&name.as_str())) {
            assert_eq!(after.get(name), Some(address), "{name} has moved");
        }
        // One write for each node. What was under way when the leader died may have been counted and not kept, and the
        // garbage collector and the operator may both remove what was a node's.
        let writes = plane.writes()?.remove("dmvpnnodes").unwrap_or_default();
        let most = CROWD + 10 + AT_ONCE + 2 * gone.len();
        println!("{writes} writes of DmvpnNodes for {} nodes", CROWD + 10);
        assert!(writes <= most as u64, "{writes} writes of DmvpnNodes, more than {most}");
        Ok(())
    });
}

/// Nodes of the measurement.
const MANY: usize = 1000;

#[test]
fn a_thousand_nodes_are_told_from_cold_in_half_a_minute() {
    heavy_story("operator_scale", |lab| {
        let plane = ControlPlane::alone(lab, "api")?;
        plane.install_chart(&[])?;
        make_nodes(&plane, 0..MANY)?;
        plane.apply(&hub(""))?;
        plane.apply(&spoke(""))?;
        let started = Instant::now();
        let operator = plane.operator("operator", 9478)?;
        let written = until("all nodes", Duration::from_secs(120), || {
            let count = operator.metrics(&plane).map_err(|e| e.to_string())?;
            let line =
                count.lines().find(|line| line.contains("kind=\"DmvpnNode\"") && line.contains("objects"));
            std::thread::sleep(Duration::from_millis(100));
            match line {
                Some(line) if line.ends_with(&format!(" {MANY}")) => Ok(started.elapsed()),
                other => Err(format!("{other:?}")),
            }
        })?;
        let given = addresses(&plane)?;
        assert_eq!(given.values().collect::<BTreeSet<_>>().len(), MANY);
        std::thread::sleep(Duration::from_secs(20));
        let (memory, writes) = (operator.memory()?, operator.writes(&plane)?);
        println!("{MANY} nodes in {:.1} s, {memory} MiB, {writes} writes", written.as_secs_f64());
        assert!(written <= Duration::from_secs(30), "{written:?}");
        assert!(memory <= 256, "{memory} MiB");
        assert!(writes <= 2 * MANY as u64, "{writes} writes");
        let idle = std::env::var("DMVPN_IDLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
        std::thread::sleep(Duration::from_secs(idle));
        assert_eq!(operator.writes(&plane)?, writes, "written while nothing changed");
        Ok(())
    });
}
