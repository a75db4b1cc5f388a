//! Names that the operator, the agents, the CNI plugin and the chart agree on; the only place that has them.

/// `spec.signerName` of the CertificateSigningRequests that agents file and the operator signs.
pub const SIGNER: &str = "kube-dmvpn.io/node";

/// Name of the Node that an object is about: as an annotation, and, to select by, as a label of [`label_value`].
pub const NODE: &str = "kube-dmvpn.io/node";

/// Name of the tunnel (in `DmvpnNode.spec.tunnels`) that an object is about; in the same two ways.
pub const TUNNEL: &str = "kube-dmvpn.io/tunnel";

/// Finalizer of `DmvpnHub` and `DmvpnSpoke`: their tunnels leave the nodes first.
pub const FINALIZER: &str = "kube-dmvpn.io/cleanup";

/// Annotation of a Namespace or a Pod: [`OVERLAY_ENABLED`] or [`OVERLAY_DISABLED`]. The Pod's own wins.
pub const OVERLAY_ANNOTATION: &str = "kube-dmvpn.io/overlay";

/// Value of [`OVERLAY_ANNOTATION`]: the pod uses the overlay (the default).
pub const OVERLAY_ENABLED: &str = "enabled";

/// Value of [`OVERLAY_ANNOTATION`]: no packet of the pod goes into the overlay or comes from it.
pub const OVERLAY_DISABLED: &str = "disabled";

/// Field manager of what the operator applies.
pub const OPERATOR: &str = "kube-dmvpn-operator";

/// Field manager of what an agent applies.
pub const AGENT: &str = "kube-dmvpn-agent";

/// Namespace of the release, unless the chart was installed into another.
pub const NAMESPACE: &str = "kube-dmvpn";

/// Name of the agents' ServiceAccount.
pub const AGENT_ACCOUNT: &str = "dmvpn-agent";

/// Key under `UserInfo.extra` that names the Node a bound service account token belongs to.
pub const TOKEN_NODE: &str = "authentication.kubernetes.io/node-name";

/// The longest value of a label. Names of Nodes and of our resources may be four times as long.
const MAX_LABEL: usize = 63;

/// A name as the value of a label: itself, or if it is too long for that, its beginning and a hash of the whole.
#[must_use]
pub fn label_value(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    // FNV-1a: the label is to select by; what an object is about is believed from its annotation.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let begin: String = name.chars().take(MAX_LABEL - 17).collect();
    format!("{begin}-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_for_a_label_is_still_told_from_others() {
        assert_eq!(label_value("a-1"), "a-1");
        let names = ["a", "b"].map(|last| format!("{}.{last}", "node-with-a-long-name".repeat(6)));
        let values = names.each_ref().map(|name| label_value(name));
        assert!(values.iter().all(|value| value.len() == MAX_LABEL), "{values:?}");
        assert!(values[0] != values[1] && values[0].starts_with("node-with-a-long-name"), "{values:?}");
        assert_eq!(label_value(&"n".repeat(63)), "n".repeat(63));
    }
}
