//! ESP (RFC 4303) in transport mode, as pure functions over buffers: seal and open in place, the replay window,
//! sequence numbers and lifetimes. Keys come from IKEv2; who owns an SA, and where packets go, is the dataplane's.
#![forbid(unsafe_code)]

mod keys;
mod suite;

pub use keys::Keys;
pub use suite::Suite;
