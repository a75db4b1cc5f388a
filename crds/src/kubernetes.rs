//! Names that the operator, the agents, the CNI plugin and the chart agree on; the only place that has them.

/// `spec.signerName` of the CertificateSigningRequests that agents file and the operator signs.
pub const SIGNER: &str = "kube-dmvpn.io/node";

/// Label: name of the Node that an object is about.
pub const NODE_LABEL: &str = "kube-dmvpn.io/node";

/// Label: name of the tunnel (in `DmvpnNode.spec.tunnels`) that an object is about.
pub const TUNNEL_LABEL: &str = "kube-dmvpn.io/tunnel";

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
