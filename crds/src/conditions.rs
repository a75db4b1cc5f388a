//! Condition types and reasons, the only place that names them. A condition's message says the cause and the next step.

/// Packets were forwarded by the overlay.
pub const READY: &str = "Ready";
/// (Spoke) at least one hub holds our registration.
pub const HUBS_REACHABLE: &str = "HubsReachable";
/// Every overlay packet is encrypted.
pub const ENCRYPTED: &str = "Encrypted";
/// Another identity holds our tunnel address (NHRP code 14).
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// A peer's identity was asserted and not proven (pre-shared key, or no encryption).
pub const IDENTITY_UNVERIFIED: &str = "IdentityUnverified";
/// The resource makes sense and was turned into per-node configuration.
pub const ACCEPTED: &str = "Accepted";
/// Two resources want the same thing: an interface, a port, a tunnel address. Who had it first keeps it.
pub const CONFLICT: &str = "Conflict";
/// (`issuedBy: Operator`) nodes' certificates are signed when they are asked for.
pub const CERTIFICATES_ISSUED: &str = "CertificatesIssued";
/// (`issuedBy: Operator`) the CA can sign whatever the nodes need, and will for a while.
pub const AUTHORITY_HEALTHY: &str = "AuthorityHealthy";

/// Reasons, by the condition they stand in. CamelCase, as the API conventions ask.
pub mod reasons {
    /// `Ready`: packets were forwarded.
    pub const FORWARDING: &str = "Forwarding";
    /// `Ready`: just started, nothing forwarded yet.
    pub const STARTING: &str = "Starting";
    /// `Ready`: no hub answers.
    pub const NO_HUB: &str = "NoHub";
    /// `Ready`: the kernel refused something we need.
    pub const KERNEL_REFUSED: &str = "KernelRefused";
    /// `Ready`: no gateway of the cluster answers, or none is on a link of this node.
    pub const NO_GATEWAY: &str = "NoGateway";
    /// `Ready`: the datapath process is gone or doesn't answer.
    pub const DATAPATH_DOWN: &str = "DatapathDown";
    /// `Ready`: no selected node is ready.
    pub const NO_NODE_READY: &str = "NoNodeReady";
    /// `Ready`: some selected nodes are not.
    pub const SOME_NODES_NOT_READY: &str = "SomeNodesNotReady";
    /// `Ready`: no node is selected.
    pub const NO_NODE_SELECTED: &str = "NoNodeSelected";
    /// `Ready`: the Node itself is not ready, so that nothing is known of its tunnels.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// `Ready` and others: no agent has reported yet.
    pub const NOT_REPORTED: &str = "NotReported";
    /// `HubsReachable`: registered.
    pub const REGISTERED: &str = "Registered";
    /// `HubsReachable`: the hub's name doesn't resolve.
    pub const NAME_NOT_RESOLVED: &str = "NameNotResolved";
    /// `HubsReachable`: nothing comes back.
    pub const NO_ANSWER: &str = "NoAnswer";
    /// `HubsReachable`: the hub said no.
    pub const REGISTRATION_REFUSED: &str = "RegistrationRefused";
    /// `HubsReachable`: NHRP authentication differs.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// `Encrypted`: every peer's path is under an SA.
    pub const ALL_ENCRYPTED: &str = "AllEncrypted";
    /// `Encrypted`: `mode: None` was asked for.
    pub const ASKED_FOR_NONE: &str = "AskedForNone";
    /// `AddressConflict`: the hub answered 14.
    pub const UNIQUE_ADDRESS_TAKEN: &str = "UniqueAddressTaken";
    /// `AddressConflict`: none.
    pub const NO_CONFLICT: &str = "NoConflict";
    /// `IdentityUnverified`: pre-shared key.
    pub const PRE_SHARED_KEY: &str = "PreSharedKey";
    /// `IdentityUnverified`: no encryption.
    pub const NO_ENCRYPTION: &str = "NoEncryption";
    /// `IdentityUnverified`: certificates.
    pub const CERTIFICATES: &str = "Certificates";
    /// `Accepted`: it was.
    pub const PLANNED: &str = "Planned";
    /// `Accepted`: it can't be carried out as written.
    pub const INVALID: &str = "Invalid";
    /// `Accepted`: no free tunnel address is left.
    pub const ADDRESSES_EXHAUSTED: &str = "AddressesExhausted";
    /// `Accepted`: a Secret, hub or other thing it names is missing.
    pub const REFERENCE_MISSING: &str = "ReferenceMissing";
    /// `Accepted` (node): nobody has signed the node's certificate yet.
    pub const CERTIFICATE_PENDING: &str = "CertificatePending";
    /// `Accepted` (node): the signer refused the node's certificate.
    pub const CERTIFICATE_DENIED: &str = "CertificateDenied";
    /// `Accepted` (node): the agent runs what the specification says.
    pub const APPLIED: &str = "Applied";
    /// `Accepted`: another resource has what this one wants; see `Conflict`.
    pub const CONFLICTS: &str = "Conflicts";
    /// `Conflict`: two resources select the same nodes and cannot both have what they want there.
    pub const SAME_NODE: &str = "SameNode";
    /// `Conflict`: two resources of one DMVPN give out the same tunnel addresses.
    pub const ADDRESSES_OVERLAP: &str = "AddressesOverlap";
    /// `CertificatesIssued`: the last request was signed.
    pub const SIGNED: &str = "Signed";
    /// `CertificatesIssued`: no node has asked yet.
    pub const NOT_ASKED: &str = "NotAsked";
    /// `CertificatesIssued`, `AuthorityHealthy`: the Secret of the CA is missing or cannot be used.
    pub const CA_UNUSABLE: &str = "CAUnusable";
    /// `CertificatesIssued`, `AuthorityHealthy`: the CA may not issue for what the nodes are to claim.
    pub const CA_REFUSES: &str = "CARefuses";
    /// `AuthorityHealthy`: the CA has run out.
    pub const CA_EXPIRED: &str = "CAExpired";
    /// `AuthorityHealthy`: what the CA signs now ends before its time, with the CA.
    pub const CA_EXPIRES_SOON: &str = "CAExpiresSoon";
    /// `AuthorityHealthy`: it can.
    pub const USABLE: &str = "Usable";
}
