//! Who a node is: certificates with their claims (DNS name, tunnel addresses, address blocks of RFC 3779), checked along
//! the chain; revocation; signatures of RFC 7427; and pre-shared keys for those who have no certificates.
#![forbid(unsafe_code)]

mod shared_key;

pub use shared_key::SharedKey;
