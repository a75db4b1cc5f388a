//! The hash of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP (RFC 7296 §2.23).

use sha1::{Digest, Sha1};
use std::net::{IpAddr, SocketAddr};

/// The hash of an end as its packets say it is.
///
/// ```text
/// //= rfc7296#2.23
/// The data associated with the NAT_DETECTION_SOURCE_IP notification is a SHA-1 digest of the SPIs (in the order they
/// appear in the header), IP address, and port from which this packet was sent.
/// ```
/// SHA-1 is what the RFC prescribes here, and nothing is trusted by it: whoever forges it makes two ends believe in a
/// NAT that isn't there.
#[must_use]
pub fn detection_hash(spis: (u64, u64), end: SocketAddr) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(spis.0.to_be_bytes());
    hash.update(spis.1.to_be_bytes());
    match end.ip() {
        IpAddr::V4(a) => hash.update(a.octets()),
        IpAddr::V6(a) => hash.update(a.octets()),
    }
    hash.update(end.port().to_be_bytes());
    hash.finalize().into()
}
