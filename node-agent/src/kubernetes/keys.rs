//! Names of the files that a node's certificate and key lie in.

/// The certificate, and those between it and a root.
pub(super) const CERTIFICATE: &str = "tls.crt";
