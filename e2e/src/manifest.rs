//! Manifests of hubs and spokes, short to write in a story and complete in the file.

use serde_json::{Value, json};

/// A `DmvpnHub` or `DmvpnSpoke`, or several objects for one file.
#[derive(Clone, Debug)]
pub struct Manifest {
    object: Value,
    others: Vec<Value>,
}

impl Manifest {
    /// A hub with this tunnel address in 10.200.0.0/16, phase 3, in the clear.
    #[must_use]
    pub fn hub(tunnel_address: &str) -> Self {
        Self::new("DmvpnHub", tunnel_address)
    }

    /// A spoke with this tunnel address that registers with hubs at these underlay addresses, the first preferred.
    #[must_use]
    pub fn spoke(tunnel_address: &str, hubs: &[&str]) -> Self {
        let hubs: Vec<Value> =
            hubs.iter().enumerate().map(|(i, hub)| json!({"address": hub, "priority": i})).collect();
        Self::new("DmvpnSpoke", tunnel_address).with(json!({"hubs": hubs}))
    }

    fn new(kind: &str, tunnel_address: &str) -> Self {
        let object = json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": "lab"},
            "spec": {
                "tunnel": {"network": "10.200.0.0/16", "addresses": format!("{tunnel_address}/32"), "phase": 3},
                "security": {"mode": "None"},
            },
        });
        Self { object, others: Vec::new() }
    }

    /// Lays this over the spec: objects are merged, everything else is replaced, `null` removes.
    #[must_use]
    pub fn with(mut self, spec: Value) -> Self {
        merge(&mut self.object["spec"], spec);
        self
    }

    /// Another phase.
    #[must_use]
    pub fn phase(self, phase: u8) -> Self {
        self.with(json!({"tunnel": {"phase": phase}}))
    }

    /// The built-in BGP speaker, announcing these prefixes.
    #[must_use]
    pub fn bgp(self, asn: u32, prefixes: &[&str]) -> Self {
        self.with(json!({"routing": {"bgp": {"asn": asn}}, "announce": {"prefixes": prefixes}}))
    }

    /// (Hub) announces these in place of what they cover.
    #[must_use]
    pub fn summaries(self, prefixes: &[&str]) -> Self {
        self.with(json!({"routing": {"bgp": {"summaries": prefixes}}}))
    }

    /// Routes by hand, and what this node has behind it.
    #[must_use]
    pub fn routes(self, routes: &[(&str, &str)], prefixes: &[&str]) -> Self {
        let routes: Vec<Value> =
            routes.iter().map(|(prefix, via)| json!({"prefix": prefix, "via": via})).collect();
        self.with(json!({"routing": {"static": routes}, "announce": {"prefixes": prefixes}}))
    }

    /// Cisco's plain-text authentication, with its Secret.
    #[must_use]
    pub fn authentication(mut self, key: &str) -> Self {
        self.others.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nhrp-key"}, "stringData": {"key": key},
        }));
        self.with(json!({"nhrp": {"authenticationSecret": "nhrp-key"}}))
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        // JSON is YAML, should the pretty form ever fail.
        let yaml = |object| serde_saphyr::to_string(object).unwrap_or_else(|_| format!("{object:#}\n"));
        let documents: Vec<String> = std::iter::once(&self.object).chain(&self.others).map(yaml).collect();
        documents.join("---\n")
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_merged() {
        let spoke = Manifest::spoke("10.200.1.1", &["198.51.100.1"])
            .phase(2)
            .bgp(65001, &["10.1.0.0/24"])
            .with(json!({"tunnel": {"key": 42}}));
        let spec = &spoke.object["spec"];
        assert_eq!(spec["tunnel"]["addresses"], "10.200.1.1/32");
        assert_eq!(spec["tunnel"]["phase"], 2);
        assert_eq!(spec["tunnel"]["key"], 42);
        assert_eq!(spec["hubs"][0]["address"], "198.51.100.1");
    }
}
