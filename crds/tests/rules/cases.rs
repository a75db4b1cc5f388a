//! Resources that break one rule each, with the message that says so, and resources that are right. For our own reader, and
//! for an API server.

use serde_json::{Value, json};

pub(super) fn hub() -> Value {
    json!({
        "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnHub", "metadata": {"name": "hq"},
        "spec": {"tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.0.1/32"}, "security": {"mode": "None"}}
    })
}

fn spoke() -> Value {
    let mut spoke = hub();
    spoke["kind"] = "DmvpnSpoke".into();
    spoke["spec"]["hubs"] = json!([{"address": "198.51.100.1"}]);
    spoke
}

/// JSON merge patch (RFC 7386): null removes.
fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    target.as_object_mut().unwrap().remove(name);
                } else {
                    merge(&mut target[name], value);
                }
            }
        }
        other => *target = other.clone(),
    }
}

fn hub_with(patch: Value) -> Value {
    let mut object = hub();
    merge(&mut object["spec"], &patch);
    object
}

fn spoke_with(patch: Value) -> Value {
    let mut object = spoke();
    merge(&mut object["spec"], &patch);
    object
}

const CIDR: &str = "write an IP network, such as 10.200.0.0/16 or fd00:c8::/64";
const ADDRESS: &str = "write an IP address, such as 10.200.16.1 or fd00:c8::1, without a prefix length";
const SECRET: &str =
    "write the name of a Secret (lower-case letters, digits, '-', '.'), or without Kubernetes file:/path";
const DURATION: &str = "write a duration, such as 600s, 10m, 1h30m or 500ms";
const INTERFACE: &str = "write a name of 1 to 15 letters, digits, '_', '.' or '-', such as dmvpn0 (all and default mean something else to the kernel)";
const IDENTITY: &str = "write a DNS name, or '*.' for one label and the domain it is in, such as '*.branch.example.com'; '*' alone is everyone";
const MTU: &str = "write auto, or the octets of an inner IP packet: 576 to 9216";
const HUB_ADDRESS: &str =
    "write an IP address or a DNS name, such as 198.51.100.2 or hub1.example.com; a port goes into port";
const HOLDING: &str = "write whole seconds from 3s to 65535s, such as 600s or 10m";

/// What is broken, and the field and message that say so.
pub(super) fn broken() -> Vec<(Value, &'static str, &'static str)> {
    let tunnel = |tunnel: Value| hub_with(json!({"tunnel": tunnel}));
    let security = |security: Value| hub_with(json!({"security": security}));
    let certificates = |certificates: Value| {
        security(json!({"mode": "Encrypted", "authentication": {"certificates": certificates}}))
    };
    let psk = |more: Value| {
        let mut object = json!({"mode": "Encrypted", "authentication": {"preSharedKey": {"secret": "psk"}}});
        merge(&mut object, &more);
        security(object)
    };
    let one_hub = |entry: Value| spoke_with(json!({"hubs": [entry]}));
    let bgp = |bgp: Value| hub_with(json!({"routing": {"bgp": bgp}}));
    vec![
        // Text
        (tunnel(json!({"network": "10.200.0.0"})), "spec.tunnel.network", CIDR),
        (
            tunnel(json!({"network": "10.200.0.1/16"})),
            "spec.tunnel.network",
            "write the network without host bits, such as 10.200.0.0/16 for 10.200.0.1/16",
        ),
        (tunnel(json!({"pinned": {"a": "10.200.0.1/24"}})), "spec.tunnel.pinned.a", ADDRESS),
        (
            hub_with(json!({"nhrp": {"authenticationSecret": "Not A Name"}})),
            "spec.nhrp.authenticationSecret",
            SECRET,
        ),
        (bgp(json!({"asn": 1, "holdTime": "90"})), "spec.routing.bgp.holdTime", DURATION),
        (tunnel(json!({"interface": "a/b"})), "spec.tunnel.interface", INTERFACE),
        (tunnel(json!({"interface": "all"})), "spec.tunnel.interface", INTERFACE),
        (hub_with(json!({"admission": [{"identity": "a.*.b"}]})), "spec.admission[0].identity", IDENTITY),
        // Tunnel
        (
            tunnel(json!({"networkV6": "10.201.0.0/16", "addressesV6": "10.201.0.0/24"})),
            "spec.tunnel",
            "networkV6 is the IPv6 network beside an IPv4 network; write an IPv6-only overlay into network alone",
        ),
        (
            tunnel(json!({"addressesV6": "fd00::/64"})),
            "spec.tunnel",
            "addressesV6 needs networkV6; in an IPv6-only overlay write it into addresses",
        ),
        (
            tunnel(json!({"pinnedV6": {"a": "fd00::1"}})),
            "spec.tunnel",
            "pinnedV6 needs networkV6; in an IPv6-only overlay write it into pinned",
        ),
        (
            tunnel(json!({"addresses": null})),
            "spec.tunnel",
            "say which tunnel addresses nodes take: addresses (a part of network, such as 10.200.16.0/24), or pinned for each node",
        ),
        (
            tunnel(json!({"networkV6": "fd00::/64"})),
            "spec.tunnel",
            "networkV6 needs addressesV6 (a part of it), or pinnedV6 for each node",
        ),
        (tunnel(json!({"addresses": "10.201.0.0/24"})), "spec.tunnel", "addresses must lie within network"),
        (tunnel(json!({"addresses": "10.0.0.0/8"})), "spec.tunnel", "addresses must lie within network"),
        (
            tunnel(json!({"networkV6": "fd00::/64", "addressesV6": "fd01::/80"})),
            "spec.tunnel",
            "addressesV6 must lie within networkV6",
        ),
        (
            tunnel(json!({"pinned": {"a": "10.201.0.1"}})),
            "spec.tunnel",
            "pinned addresses must lie within network",
        ),
        (
            tunnel(json!({"networkV6": "fd00::/64", "pinnedV6": {"a": "fd01::1"}})),
            "spec.tunnel",
            "pinnedV6 addresses must lie within networkV6",
        ),
        (
            tunnel(json!({"networkV6": "fd00::/64", "addressesV6": "fd00::/80", "mtu": 1000})),
            "spec.tunnel",
            "IPv6 needs an mtu of at least 1280; write 1280 or more, or auto",
        ),
        (tunnel(json!({"mtu": 100})), "spec.tunnel.mtu", MTU),
        (tunnel(json!({"mtu": 9217})), "spec.tunnel.mtu", MTU),
        (tunnel(json!({"mtu": "big"})), "spec.tunnel.mtu", MTU),
        // Underlay
        (
            hub_with(json!({"underlay": {"interface": "eth0", "address": "192.0.2.1"}})),
            "spec.underlay",
            "keep one of addressFrom, interface and address",
        ),
        // Security
        (
            hub_with(json!({"security": null})),
            "spec.security",
            "encryption needs credentials: set authentication.certificates or authentication.preSharedKey; an unencrypted overlay must be asked for with mode: None",
        ),
        (
            security(json!({"authentication": {}})),
            "spec.security.authentication",
            "write either certificates or preSharedKey",
        ),
        (
            certificates(json!({"trust": "roots"})),
            "spec.security.authentication.certificates",
            "caSecret goes with issuedBy: Operator: name the Secret (tls.crt, tls.key) of the CA that signs the nodes' certificates",
        ),
        (
            certificates(json!({"trust": "roots", "caSecret": "ca", "secret": "node"})),
            "spec.security.authentication.certificates",
            "secret goes with issuedBy: Secret: name the Secret (tls.crt, tls.key) that holds the node's own certificate",
        ),
        (
            certificates(json!({"trust": "roots", "issuedBy": "CertManager"})),
            "spec.security.authentication.certificates",
            "issuerRef goes with issuedBy: CertManager: name the Issuer or ClusterIssuer",
        ),
        (
            certificates(json!({
                "trust": "roots", "issuedBy": "Secret", "secret": "node", "issuedAfter": "2026-11-23T01:00:00Z",
            })),
            "spec.security.authentication.certificates",
            "issuedAfter renews certificates that nodes ask for; with issuedBy: Secret, replace the Secret",
        ),
        (
            psk(json!({"ike": ["aes128-sha1-modp2048"]})),
            "spec.security.ike",
            "DES, 3DES, MD5, SHA-1, NULL and groups below modp2048 don't exist here; write such as aes256gcm16-prfsha384-x25519, or aes256-sha256-modp2048 for old routers",
        ),
        (
            psk(json!({"esp": ["aes128gcm16", "3des-sha256"]})),
            "spec.security.esp",
            "DES, 3DES, MD5, SHA-1, NULL and groups below modp2048 don't exist here; write aes128gcm16, aes256gcm16 or chacha20poly1305, or aes256-sha256 for old routers",
        ),
        (
            psk(json!({"rekey": {"child": "500ms"}})),
            "spec.security.rekey.child",
            "write a duration from 1s to 24h, such as 1h",
        ),
        (
            psk(json!({"rekey": {"ike": "25h"}})),
            "spec.security.rekey.ike",
            "write a duration from 1s to 24h, such as 4h",
        ),
        // NHRP
        (hub_with(json!({"nhrp": {"holdingTime": "2s"}})), "spec.nhrp.holdingTime", HOLDING),
        (hub_with(json!({"nhrp": {"holdingTime": "20h"}})), "spec.nhrp.holdingTime", HOLDING),
        (hub_with(json!({"nhrp": {"holdingTime": "5500ms"}})), "spec.nhrp.holdingTime", HOLDING),
        (
            hub_with(json!({"nhrp": {"idleTimeout": "25h"}})),
            "spec.nhrp.idleTimeout",
            "write a duration from 1s to 24h, such as 120s or 5m",
        ),
        // Hubs
        (
            one_hub(json!({"priority": 1})),
            "spec.hubs[0]",
            "write either address (an IP address or DNS name) or hubRef (the name of a DmvpnHub in this cluster)",
        ),
        (
            one_hub(json!({"hubRef": "hq", "port": 4754})),
            "spec.hubs[0]",
            "hubRef brings tunnelAddress and port along; leave them out",
        ),
        (
            one_hub(json!({"address": "192.0.2.1", "encapsulation": "Gre", "port": 4754})),
            "spec.hubs[0]",
            "plain GRE has no port; leave port out, or write encapsulation: Udp",
        ),
        (one_hub(json!({"address": "192.0.2.1:4754"})), "spec.hubs[0].address", HUB_ADDRESS),
        (one_hub(json!({"address": "192.0.2"})), "spec.hubs[0].address", HUB_ADDRESS),
        (
            one_hub(json!({"address": "192.0.2.1", "tunnelAddress": "192.0.2.1"})),
            "spec.hubs",
            "a hub's tunnelAddress must lie within tunnel.network; its address on the underlay goes into address",
        ),
        (
            spoke_with(json!({"hubs": [{"address": "192.0.2.1"}, {"address": "192.0.2.1"}]})),
            "spec.hubs",
            "each hub stands in the list once; remove the entry that repeats an address",
        ),
        // Static peers
        (
            hub_with(
                json!({"staticPeers": [{"tunnelAddress": "10.200.0.9", "nbma": "192.0.2.9", "port": 4754}]}),
            ),
            "spec.staticPeers[0]",
            "plain GRE has no port; leave port out, or write encapsulation: Udp",
        ),
        (
            hub_with(json!({"staticPeers": [{"tunnelAddress": "192.0.2.9", "nbma": "192.0.2.9"}]})),
            "spec.staticPeers",
            "a static peer's tunnelAddress must lie within tunnel.network; its address on the underlay goes into nbma",
        ),
        // Routing
        (
            bgp(json!({"asn": 65000, "holdTime": "2s"})),
            "spec.routing.bgp",
            "holdTime is 3s to 65535s, or 0s for none (RFC 4271)",
        ),
        (
            bgp(json!({"asn": 65000, "gracefulRestart": "2h"})),
            "spec.routing.bgp",
            "gracefulRestart is at most 4095s (RFC 4724); 0s turns it off",
        ),
        (
            hub_with(json!({"routing": {"static": [{"prefix": "10.9.0.0/16", "via": "192.0.2.1"}]}})),
            "spec.routing.static",
            "via must be a tunnel address, within tunnel.network",
        ),
        (
            hub_with(
                json!({"tunnel": {"phase": 2}, "routing": {"bgp": {"asn": 65000, "summaries": ["10.0.0.0/8"]}}}),
            ),
            "spec.routing.bgp.summaries",
            "phase 2 needs the specific prefixes with their next hops; leave summaries out, or write phase: 3",
        ),
        (
            spoke_with(json!({"routing": {"bgp": {"asn": 65000, "summaries": ["10.0.0.0/8"]}}})),
            "spec.routing.bgp.summaries",
            "summaries are announced by hubs; write them into the DmvpnHub, and what this spoke has into announce.prefixes",
        ),
        // Announce
        (
            hub_with(json!({"announce": {"mode": "Gateways"}})),
            "spec.announce",
            "gateways goes with mode: Gateways: select the nodes that announce for the whole cluster",
        ),
        (
            spoke_with(json!({"announce": {"toGateways": ["10.9.0.0/16"]}})),
            "spec.announce",
            "toGateways goes with mode: Gateways: it is what nodes without a tunnel send by those that have one",
        ),
        (
            hub_with(json!({"announce": {"podCIDRs": {"from": "Node", "cidrs": ["10.9.0.0/16"]}}})),
            "spec.announce.podCIDRs",
            "cidrs goes with from: Static: list the pods' address ranges there",
        ),
    ]
}

/// What is right.
pub(super) fn right() -> Vec<Value> {
    vec![
        hub_with(json!({})),
        hub_with(json!({"tunnel": {"network": "fd00::/64", "addresses": "fd00::1/128", "mtu": 1280}})),
        hub_with(json!({"tunnel": {"networkV6": "fd00::/64", "pinnedV6": {"a": "fd00::1"}, "mtu": "auto"}})),
        hub_with(json!({"tunnel": {"addresses": null, "pinned": {"a": "10.200.0.7"}, "mtu": "1400"}})),
        hub_with(
            json!({"security": {"mode": "Encrypted", "authentication": {"preSharedKey": {"secret": "file:/etc/psk"}}}}),
        ),
        hub_with(json!({"underlay": {"ikePort": 0}, "security": {
            "mode": "Encrypted", "authentication": {"preSharedKey": {"secret": "psk"}},
            "ike": ["aes256-sha256-modp2048", "aes128gcm16-prfsha256-ecp256"], "esp": ["aes256-sha256", "aes128gcm16-x25519"],
            "rekey": {"child": "10s"}, "exportKeys": true,
        }})),
        hub_with(
            json!({"routing": {"bgp": {"asn": 4294967295_u32, "holdTime": "0s", "gracefulRestart": "0s"}}}),
        ),
        hub_with(
            json!({"announce": {"mode": "Gateways", "gateways": {}, "toGateways": ["10.8.0.0/16"], "podCIDRs": {"from": "Static", "cidrs": ["10.9.0.0/16"]}}}),
        ),
        hub_with(
            json!({"staticPeers": [{"tunnelAddress": "10.200.0.9", "nbma": "192.0.2.9", "encapsulation": "Udp", "port": 4754}]}),
        ),
        hub_with(
            json!({"admission": [{"identity": "*"}, {"identity": "*.Example.com"}, {"identity": "a-1"}]}),
        ),
        spoke_with(
            json!({"hubs": [{"hubRef": "hq"}, {"address": "2001:db8::1"}, {"address": "hub.example.com."}, {"address": "localhost"}]}),
        ),
        spoke_with(
            json!({"hubs": [{"address": "192.0.2.1", "tunnelAddress": "10.200.0.1", "encapsulation": "Gre"}]}),
        ),
    ]
}
