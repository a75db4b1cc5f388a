//! Who a node is: certificates with their claims (DNS name, tunnel addresses, address blocks of RFC 3779), checked along
//! the chain; revocation; signatures of RFC 7427; and pre-shared keys for those who have no certificates.
//!
//! ```text
//! certificates  what an IKE endpoint asks for (ikev2::Credentials): sign, judge a peer, judge it again
//!   key         our private key
//!   chain       from a peer's certificates to one of our roots, and every rule on the way
//!     certificate  one certificate, with the extensions we know read and the rest noted
//!     blocks       address blocks (RFC 3779): which prefixes
//!     names        name constraints (RFC 5280 §4.2.1.10)
//!     crl          revocation lists
//!   signature   algorithms by their identifiers, for certificates and for AUTH alike
//! shared_key    the same for a pre-shared key
//! pki           makes roots, confined intermediates, node certificates and revocation lists
//! ```
//!
//! Path validation is ours because no library does what is needed: rustls-webpki refuses the critical extension of RFC
//! 3779, and what understands that extension is made for routing registries (see the ADR on certificates).
#![forbid(unsafe_code)]

mod blocks;
mod certificate;
mod certificates;
mod chain;
mod crl;
mod key;
mod names;
pub mod pki;
mod shared_key;
mod signature;
mod text;

pub use certificates::Certificates;
pub use chain::Revocation;
pub use shared_key::SharedKey;

pub use ikev2::CertificateError;

fn refused(text: impl Into<String>) -> CertificateError {
    CertificateError(text.into())
}
