//! Manifests of hubs and spokes, short to write in a story and complete in the file.

use crate::security::{self, Proof};
use ipnet::IpNet;
use serde_json::{Value, json};

/// A `DmvpnHub` or `DmvpnSpoke`, or several objects for one file.
#[derive(Clone, Debug)]
pub struct Manifest {
    object: Value,
    others: Vec<Value>,
    proof: Proof,
    /// The pre-shared key.
    key: String,
    /// What its certificate says in place of what it announces.
    certified: Option<Vec<IpNet>>,
}

impl Manifest {
    /// A hub with this tunnel address in 10.200.0.0/16, phase 3, protected as the story is.
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
            },
        });
        let key = security::SHARED_KEY.to_owned();
        Self { object, others: Vec::new(), proof: Proof::None, key, certified: None }
            .proven_by(security::proof())
    }

    /// In the clear, whatever falls to the story.
    #[must_use]
    pub fn clear(self) -> Self {
        self.proven_by(Proof::None)
    }

    /// Protected like this, whatever falls to the story.
    #[must_use]
    pub fn proven_by(mut self, proof: Proof) -> Self {
        self.object["spec"]["security"] = security::spec(proof);
        Self { proof, ..self }
    }

    /// How it is protected.
    #[must_use]
    pub const fn proof(&self) -> Proof {
        self.proof
    }

    /// With this pre-shared key.
    #[must_use]
    pub fn shared_key(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }

    /// With a certificate for these prefixes.
    #[must_use]
    pub fn certified_for(self, prefixes: &[&str]) -> Self {
        Self { certified: Some(prefixes.iter().filter_map(|p| p.parse().ok()).collect()), ..self }
    }

    /// What its node's certificate says.
    #[must_use]
    pub fn claims(&self, name: &str) -> identity::pki::Claims {
        let claims = security::claims(name, self);
        match &self.certified {
            Some(prefixes) => identity::pki::Claims { prefixes: prefixes.clone(), ..claims },
            None => claims,
        }
    }

    /// The specification.
    #[must_use]
    pub fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    /// Is it a hub's?
    #[must_use]
    pub fn is_hub(&self) -> bool {
        self.object["kind"] == "DmvpnHub"
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
        let mut all = vec![self.object.clone()];
        all.extend(self.others.iter().cloned());
        if self.proof == Proof::SharedKey {
            all.push(security::shared_key(&self.key));
        }
        documents(&all)
    }
}

/// A file of several objects.
pub(crate) fn documents(objects: &[Value]) -> String {
    // JSON is YAML, should the pretty form ever fail.
    let yaml = |object| serde_saphyr::to_string(object).unwrap_or_else(|_| format!("{object:#}\n"));
    objects.iter().map(yaml).collect::<Vec<_>>().join("---\n")
}

pub(crate) fn merge(into: &mut Value, from: Value) {
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
