//! Finalizers of hubs and spokes: their tunnels leave the nodes first, and nothing ever hangs for longer than that. Pure.

use crate::decide::is_of;
use crate::world::{Declared, World};
use crds::kubernetes::FINALIZER;
use plan::ResourceName;
use serde_json::{Value, json};

/// The patch of a resource's metadata that is due now.
pub fn step(declared: &Declared, world: &World) -> Option<Value> {
    let held = has(declared);
    match declared.is_deleted() {
        false if !held => Some(patch(declared, true)),
        // Agents are not waited for: one that is away reads what it is told when it is back.
        true if held && !in_use(&declared.name(), world) => Some(patch(declared, false)),
        _ => None,
    }
}

/// Is our finalizer there?
pub fn has(declared: &Declared) -> bool {
    declared.metadata().finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// A patch that leaves others' finalizers as they are, of no effect if somebody else was faster.
pub fn patch(declared: &Declared, wanted: bool) -> Value {
    let others = declared.metadata().finalizers.iter().flatten().filter(|f| *f != FINALIZER);
    let ours = wanted.then(|| FINALIZER.to_owned());
    let finalizers: Vec<String> = others.cloned().chain(ours).collect();
    json!({
        "metadata": {
            "finalizers": finalizers,
            "resourceVersion": declared.metadata().resource_version,
        }
    })
}

fn in_use(resource: &ResourceName, world: &World) -> bool {
    world.dmvpn_nodes.values().any(|node| {
        let tunnels = node.spec.tunnels.iter().map(|tunnel| (&tunnel.name, tunnel.role));
        let by_gateways = node.spec.by_gateways.iter().map(|told| (&told.name, told.role));
        tunnels.chain(by_gateways).any(|(name, role)| is_of(name, role, resource))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::DmvpnNode;
    use crds::node::{NodeTunnel, Role};
    use plan::ResourceKind;
    use serde_json::json;
    use std::sync::Arc;

    fn hub(metadata: Value) -> Declared {
        let object = json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnHub", "metadata": metadata,
            "spec": {"tunnel": {"network": "10.200.0.0/16", "addresses": "10.200.0.0/24"}, "security": {"mode": "None"}}
        });
        Declared::read(ResourceKind::Hub, serde_json::from_value(object).unwrap())
    }

    fn world_with(role: Role) -> World {
        let tunnel = json!({
            "name": "hq", "role": role, "interface": "dmvpn0", "networks": ["10.200.0.0/16"],
            "addresses": ["10.200.0.1"], "identity": "n", "phase": 3, "ttl": 64, "underlay": {"port": 4754},
            "security": {"mode": "None"}, "nhrp": {}
        });
        let tunnel: NodeTunnel = serde_json::from_value(tunnel).unwrap();
        let node = DmvpnNode::new("n", crds::DmvpnNodeSpec { tunnels: vec![tunnel], ..Default::default() });
        World { dmvpn_nodes: [("n".to_owned(), Arc::new(node))].into(), ..World::default() }
    }

    const DELETED: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn the_finalizer_comes_beside_those_of_others() {
        let declared = hub(json!({"name": "hq", "resourceVersion": "7", "finalizers": ["x/y"]}));
        let patch = step(&declared, &World::default()).unwrap();
        assert_eq!(patch["metadata"], json!({"finalizers": ["x/y", FINALIZER], "resourceVersion": "7"}));
    }

    #[test]
    fn a_deleted_resource_waits_until_its_tunnels_are_gone() {
        let metadata = json!({"name": "hq", "deletionTimestamp": DELETED, "finalizers": [FINALIZER, "x/y"]});
        let declared = hub(metadata);
        assert_eq!(step(&declared, &world_with(Role::Hub)), None);
        let patch = step(&declared, &World::default()).unwrap();
        assert_eq!(patch["metadata"]["finalizers"], json!(["x/y"]));
    }

    #[test]
    fn a_spoke_of_the_same_name_does_not_hold_a_hub() {
        let declared = hub(json!({"name": "hq", "deletionTimestamp": DELETED, "finalizers": [FINALIZER]}));
        assert!(step(&declared, &world_with(Role::Spoke)).is_some());
    }

    #[test]
    fn a_deleted_resource_gets_no_finalizer_any_more() {
        let declared = hub(json!({"name": "hq", "deletionTimestamp": DELETED, "finalizers": ["x/y"]}));
        assert_eq!(step(&declared, &World::default()), None);
    }
}
