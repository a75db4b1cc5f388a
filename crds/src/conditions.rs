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
    /// `Ready`: the datapath process is gone or doesn't answer.
    pub const DATAPATH_DOWN: &str = "DatapathDown";
    /// `Ready`: no selected node is ready.
    pub const NO_NODE_READY: &str = "NoNodeReady";
    /// `Ready`: some selected nodes are not.
    pub const SOME_NODES_NOT_READY: &str = "SomeNodesNotReady";
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
}
