//! Each thing that a person must change is said in words that name it.

use crds::manifest::read_text;
use dmvpn_plan::{
    AddressKind, HubNode, Member, Network, NodeFacts, NodePlan, PlanError, PlanErrors, node, standalone,
};
use std::collections::BTreeMap;

const SPOKE: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: branch-a}
spec:
  hubs: [{address: 198.51.100.1}]
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {mode: None}
";

const HUB: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnHub
metadata: {name: hq}
spec:
  tunnel: {network: 10.201.0.0/16, addresses: 10.201.0.1/32, interface: dmvpn1}
  underlay: {port: 4755}
  security: {mode: None}
";

fn plan(text: &str) -> Result<crds::DmvpnNodeSpec, PlanErrors> {
    standalone(&read_text("t", text).unwrap(), &NodeFacts::named("a-1"))
}

fn said(text: &str) -> Vec<String> {
    plan(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_node_can_be_in_two_networks() {
    let spec = plan(&format!("{SPOKE}---\n{HUB}")).unwrap();
    let names: Vec<_> = spec.tunnels.iter().map(|t| (t.name.as_str(), t.underlay.port)).collect();
    assert_eq!(names, [("branch-a", 4754), ("hq", 4755)]);
}

#[test]
fn the_port_follows_the_mode() {
    let encrypted =
        SPOKE.replace("{mode: None}", "{authentication: {preSharedKey: {secret: 'file:/etc/psk'}}}");
    assert_eq!(plan(&encrypted).unwrap().tunnels[0].underlay.port, 4500);
    assert_eq!(plan(SPOKE).unwrap().tunnels[0].underlay.port, 4754);
}

#[test]
fn an_empty_folder_says_what_to_write() {
    assert_eq!(
        said("# nothing"),
        ["no DmvpnHub or DmvpnSpoke among the manifests: write one (docs/samples has examples)"]
    );
}

#[test]
fn one_machine_has_no_gateways() {
    let gateways = "  announce: {mode: Gateways, gateways: {}, prefixes: [10.1.0.0/16]}\n";
    assert_eq!(
        said(&format!("{SPOKE}{gateways}")),
        [
            "DmvpnSpoke branch-a: spec.announce.mode: Gateways chooses among a cluster's nodes, and this is one machine: leave mode and gateways out"
        ]
    );
}

#[test]
fn labels_mean_nothing_without_kubernetes() {
    assert_eq!(plan(&SPOKE.replace("  hubs:", "  nodes: {}\n  hubs:")).unwrap().tunnels.len(), 1);
    assert_eq!(
        said(&SPOKE.replace("  hubs:", "  nodes: {matchLabels: {a: b}}\n  hubs:")),
        [
            "DmvpnSpoke branch-a: spec.nodes selects by labels, and a machine without Kubernetes has none: leave spec.nodes out"
        ]
    );
}

#[test]
fn a_range_needs_a_pinned_address() {
    assert_eq!(
        said(&SPOKE.replace("10.200.16.1/32", "10.200.16.0/24")),
        [
            "DmvpnSpoke branch-a: spec.tunnel.addresses 10.200.16.0/24 has room for several nodes, and without Kubernetes nobody gives them out: write the address of node a-1 there as a single host (/32), or spec.tunnel.pinned: {a-1: ADDRESS}"
        ]
    );
    let pinned =
        SPOKE.replace("addresses: 10.200.16.1/32", "addresses: 10.200.16.0/24, pinned: {a-1: 10.200.16.9}");
    assert_eq!(
        plan(&pinned).unwrap().tunnels[0].addresses,
        ["10.200.16.9".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn pins_of_others_do_not_help() {
    assert_eq!(
        said(&SPOKE.replace("addresses: 10.200.16.1/32", "pinned: {b-1: 10.200.16.9}")),
        ["DmvpnSpoke branch-a: no tunnel address for node a-1: add it to spec.tunnel.pinned"]
    );
    assert_eq!(
        said(&SPOKE.replace("addresses: 10.200.16.1/32", "pinned: {a-1: 10.200.16.9, b-1: 10.200.16.9}")),
        [
            "DmvpnSpoke branch-a: nodes a-1 and b-1 are both pinned to 10.200.16.9: pin one of them to another address"
        ]
    );
}

#[test]
fn a_networks_own_address_is_refused() {
    for address in ["10.200.0.0", "10.200.255.255"] {
        assert_eq!(
            said(&SPOKE.replace("10.200.16.1/32", &format!("{address}/32"))),
            [format!(
                "DmvpnSpoke branch-a: node a-1 cannot have tunnel address {address}, which is 10.200.0.0/16's own or its broadcast address: choose another"
            )]
        );
    }
}

#[test]
fn tunnels_of_a_node_must_differ() {
    for (from, to, expected) in [
        (
            "name: hq",
            "name: branch-a",
            "DmvpnHub branch-a and DmvpnSpoke branch-a both select node a-1, and share a name that tells its tunnels apart: rename one",
        ),
        (
            "dmvpn1",
            "dmvpn0",
            "DmvpnHub hq and DmvpnSpoke branch-a both want interface dmvpn0 on node a-1: give one another spec.tunnel.interface",
        ),
        (
            "4755",
            "4754",
            "DmvpnHub hq and DmvpnSpoke branch-a both want UDP port 4754 on node a-1: give one another spec.underlay.port, on all its hubs and spokes",
        ),
        (
            "10.201.0",
            "10.200.0",
            "DmvpnHub hq and DmvpnSpoke branch-a overlap in their tunnel networks 10.200.0.0/16 and 10.200.0.0/16 on node a-1: a node can be in both only if they are apart",
        ),
    ] {
        assert_eq!(said(&format!("{SPOKE}---\n{}", HUB.replace(from, to))), [expected]);
    }
}

#[test]
fn an_underlay_address_inside_the_overlay_is_refused() {
    for (from, to, field, address) in [
        ("198.51.100.1", "10.200.0.1", "spec.hubs[0].address", "10.200.0.1"),
        (
            "  security:",
            "  underlay: {address: 10.200.3.3}\n  security:",
            "spec.underlay.address",
            "10.200.3.3",
        ),
        (
            "  security:",
            "  underlay: {advertise: {a-1: 10.200.3.3}}\n  security:",
            "spec.underlay.advertise.a-1",
            "10.200.3.3",
        ),
        (
            "  security:",
            "  staticPeers: [{tunnelAddress: 10.200.3.1, nbma: 10.200.3.3}]\n  security:",
            "spec.staticPeers[0].nbma",
            "10.200.3.3",
        ),
    ] {
        assert_eq!(
            said(&SPOKE.replace(from, to)),
            [format!(
                "DmvpnSpoke branch-a: {field} {address} lies in the tunnel network 10.200.0.0/16, so outer packets would go into their own tunnel: write the address on the underlay"
            )]
        );
    }
}

#[test]
fn node_addresses_come_from_the_node() {
    let text = SPOKE.replace("  security:", "  underlay: {addressFrom: ExternalIP}\n  security:");
    assert_eq!(
        said(&text),
        [
            "DmvpnSpoke branch-a: node a-1 has no address of type ExternalIP: write spec.underlay.interface, or another spec.underlay.addressFrom"
        ]
    );
    let addresses = vec![
        (AddressKind::InternalIP, "10.0.0.5".parse().unwrap()),
        (AddressKind::ExternalIP, "203.0.113.5".parse().unwrap()),
    ];
    let facts = NodeFacts { addresses, ..NodeFacts::named("a-1") };
    let spec = standalone(&read_text("t", &text).unwrap(), &facts).unwrap();
    assert_eq!(spec.tunnels[0].underlay.address, Some("203.0.113.5".parse().unwrap()));
}

#[test]
fn a_hub_of_this_cluster_is_known_to_kubernetes_alone() {
    assert_eq!(
        said(&SPOKE.replace("{address: 198.51.100.1}", "{hubRef: hq}")),
        [
            "DmvpnSpoke branch-a: spec.hubs[0].hubRef names DmvpnHub hq, whose nodes only Kubernetes knows: write the hub's address instead"
        ]
    );
}

#[test]
fn a_hub_that_is_not_in_this_cluster_is_said_to_be_missing() {
    let text = SPOKE.replace("{address: 198.51.100.1}", "{hubRef: hq}");
    let manifests = read_text("t", &text).unwrap();
    let network = Network::from(&manifests.spokes[0].spec);
    let member = Member { name: "branch-a", network, addresses: vec![[10, 200, 16, 1].into()] };
    let errors = node(&NodeFacts::named("a-1"), &[member], Some(&BTreeMap::new())).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "DmvpnSpoke branch-a: spec.hubs[0].hubRef names DmvpnHub hq, which is not in this cluster: write the hub's address instead"
    );
}

#[test]
fn a_mistake_in_one_resource_leaves_the_tunnels_of_others_alone() {
    let manifests = read_text("t", &format!("{SPOKE}---\n{}", HUB.replace("dmvpn1", "dmvpn0"))).unwrap();
    let facts = NodeFacts::named("a-1");
    let spoke = Network::from(&manifests.spokes[0].spec);
    let hub = Network::from(&manifests.hubs[0].spec);
    let mut plan = NodePlan::new("a-1");
    let member = Member { name: "branch-a", network: spoke, addresses: vec![[10, 200, 16, 1].into()] };
    plan.add(&facts, &member, None).unwrap();
    let member = Member { name: "hq", network: hub, addresses: vec![[10, 201, 0, 1].into()] };
    let PlanErrors(errors) = plan.add(&facts, &member, None).unwrap_err();
    assert!(matches!(errors.as_slice(), [PlanError::SameInterface { .. }]), "{errors:?}");
    let tunnels: Vec<_> = plan.finish().tunnels.into_iter().map(|tunnel| tunnel.name).collect();
    assert_eq!(tunnels, ["branch-a"]);
}

#[test]
fn hub_refs_become_their_nodes_except_this_one() {
    let manifests = read_text(
        "t",
        &SPOKE.replace("{address: 198.51.100.1}", "{hubRef: hq, priority: 5}, {address: 192.0.2.9}"),
    )
    .unwrap();
    let hub = |node: &str, last: u8| HubNode {
        address: [198, 51, 100, last].into(),
        port: 4754,
        tunnel_address: [10, 200, 0, last].into(),
        identity: node.to_owned(),
    };
    let refs = BTreeMap::from([("hq".to_owned(), vec![hub("hq-1", 1), hub("a-1", 2), hub("hq-3", 3)])]);
    let network = Network::from(&manifests.spokes[0].spec);
    let member = Member { name: "branch-a", network, addresses: vec![[10, 200, 16, 1].into()] };
    let spec = node(&NodeFacts::named("a-1"), &[member], Some(&refs)).unwrap();
    let hubs: Vec<_> = spec.tunnels[0]
        .hubs
        .iter()
        .map(|h| (h.address.as_str(), h.identity.as_deref(), h.priority))
        .collect();
    assert_eq!(
        hubs,
        [("192.0.2.9", None, 0), ("198.51.100.1", Some("hq-1"), 5), ("198.51.100.3", Some("hq-3"), 5)]
    );
}

#[test]
fn one_hub_by_two_spellings_is_one_hub() {
    assert_eq!(
        said(
            &SPOKE.replace(
                "{address: 198.51.100.1}",
                "{address: hub.example.com}, {address: Hub.example.com.}"
            )
        ),
        [
            "DmvpnSpoke branch-a: spec.hubs[1] is the hub hub.example.com, which stands in the list already: remove one"
        ]
    );
}

#[test]
fn pod_ranges_need_a_source() {
    assert_eq!(
        said(&SPOKE.replace("  security:", "  announce: {podCIDRs: {from: Calico}}\n  security:")),
        [
            "DmvpnSpoke branch-a: spec.announce.podCIDRs.from: Calico needs Kubernetes: write from: Static and cidrs, or leave podCIDRs out"
        ]
    );
    let text = SPOKE.replace(
        "  security:",
        "  announce: {podCIDRs: {from: Static, cidrs: [10.7.0.0/16]}, prefixes: [10.2.0.0/16]}\n  security:",
    );
    assert_eq!(
        plan(&text).unwrap().tunnels[0].announce,
        ["10.2.0.0/16".parse().unwrap(), "10.7.0.0/16".parse::<ipnet::IpNet>().unwrap()]
    );
}

#[test]
fn secrets_must_be_there_with_their_entries() {
    let spoke = SPOKE.replace("  security:", "  nhrp: {authenticationSecret: k}\n  security:");
    let secret = |entry: &str| {
        format!("{spoke}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: k}}\nstringData: {{{entry}}}\n")
    };
    assert_eq!(
        said(&spoke),
        [
            "DmvpnSpoke branch-a: spec.nhrp.authenticationSecret names Secret k, which is not among the manifests: add it, or write file:/path"
        ]
    );
    assert_eq!(
        said(&secret("psk: x")),
        [
            "DmvpnSpoke branch-a: spec.nhrp.authenticationSecret names Secret k, which has no entry key: add key to its stringData"
        ]
    );
    assert_eq!(
        said(&secret("key: ninechars")),
        [
            "DmvpnSpoke branch-a: spec.nhrp.authenticationSecret: the entry key of Secret k has 9 octets: NHRP authentication is 1 to 8 octets long"
        ]
    );
    assert!(plan(&secret("key: s3cret")).is_ok());
    let psk = SPOKE.replace("{mode: None}", "{authentication: {preSharedKey: {secret: psk}}}");
    assert_eq!(
        said(&psk),
        [
            "DmvpnSpoke branch-a: spec.security.authentication.preSharedKey.secret names Secret psk, which is not among the manifests: add it, or write file:/path"
        ]
    );
}

#[test]
fn all_mistakes_are_said_at_once() {
    let text = SPOKE
        .replace("10.200.16.1/32", "10.200.16.0/24")
        .replace("198.51.100.1", "10.200.0.1")
        .replace("{mode: None}", "{mode: None}\n  nhrp: {authenticationSecret: k}");
    assert_eq!(said(&text).len(), 3, "{:#?}", said(&text));
}

#[test]
fn an_ipv6_only_node_has_a_router_id_that_stays() {
    let text = SPOKE
        .replace("10.200.0.0/16", "fd00:c8::/64")
        .replace("10.200.16.1/32", "fd00:c8::16/128")
        .replace("  security:", "  routing: {bgp: {asn: 65010}}\n  security:");
    let id = plan(&text).unwrap().tunnels[0].bgp.as_ref().unwrap().router_id;
    assert_eq!(plan(&text).unwrap().tunnels[0].bgp.as_ref().unwrap().router_id, id);
    assert!(!id.is_unspecified());
}

const ISSUED: &str =
    "{authentication: {certificates: {issuedBy: Secret, secret: 'node-{node}', trust: roots}}}";
const PAIR: &str = "---
apiVersion: v1
kind: Secret
metadata: {name: node-a-1}
stringData: {tls.crt: chain, tls.key: key}
---
apiVersion: v1
kind: Secret
metadata: {name: roots}
stringData: {ca.crt: roots}
";

#[test]
fn a_nodes_own_secret_is_named_by_the_node() {
    let spec = plan(&format!("{}{PAIR}", SPOKE.replace("{mode: None}", ISSUED))).unwrap();
    let authentication = spec.tunnels[0].security.authentication.clone().unwrap();
    assert_eq!(authentication.certificates.unwrap().secret.as_deref(), Some("node-a-1"));
    assert_eq!(
        said(&SPOKE.replace("{mode: None}", ISSUED)),
        [
            "DmvpnSpoke branch-a: spec.security.authentication.certificates.trust names Secret roots, which is not among the manifests: add it, or write file:/path",
            "DmvpnSpoke branch-a: spec.security.authentication.certificates.secret names Secret node-a-1, which is not among the manifests: add it, or write file:/path",
        ]
    );
}

#[test]
fn nobody_signs_certificates_without_kubernetes() {
    for (issued_by, more) in [("Operator", "caSecret: ca"), ("CertManager", "issuerRef: {name: ca}")] {
        let certificates = format!(
            "{{authentication: {{certificates: {{issuedBy: {issued_by}, {more}, trust: 'file:/etc/roots'}}}}}}"
        );
        assert_eq!(
            said(&SPOKE.replace("{mode: None}", &certificates)),
            [format!(
                "DmvpnSpoke branch-a: spec.security.authentication.certificates.issuedBy: {issued_by} needs Kubernetes: write issuedBy: Secret, and secret: the Secret (tls.crt, tls.key) of this node's certificate, or file:/folder (dmvpnctl pki makes them)"
            )]
        );
    }
}

#[test]
fn encrypted_tunnels_share_no_port() {
    let psk = "{authentication: {preSharedKey: {secret: 'file:/etc/psk'}}}";
    let (spoke, hub) = (SPOKE.replace("{mode: None}", psk), HUB.replace("{mode: None}", psk));
    assert_eq!(plan(&spoke).unwrap().tunnels[0].underlay.ike_port, Some(500));
    assert_eq!(plan(SPOKE).unwrap().tunnels[0].underlay.ike_port, None);
    assert_eq!(
        said(&format!("{spoke}---\n{hub}")),
        [
            "DmvpnHub hq and DmvpnSpoke branch-a both want UDP port 500 for IKE on node a-1: write spec.underlay.ikePort: 0 into one that has no foreign routers among its peers, or another port"
        ]
    );
    let without = hub.replace("port: 4755", "port: 4755, ikePort: 0");
    assert_eq!(plan(&format!("{spoke}---\n{without}")).unwrap().tunnels.len(), 2);
    let same = hub.replace("port: 4755", "port: 500");
    assert_eq!(
        said(&same),
        [
            "DmvpnHub hq: spec.underlay.port and spec.underlay.ikePort are both 500: write another into one of them (4500 and 500 are what routers expect)"
        ]
    );
}
