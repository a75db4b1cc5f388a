//! Cryptography of IKEv2: what RFC 7296 composes of primitives, which are libraries'.
//!
//! In the order of an exchange: a key pair and the shared secret ([`KeyPair`]), the keys of the IKE SA ([`IkeKeys`]),
//! the protection of its messages ([`Sealer`], [`Opener`]), the octets that AUTH covers ([`auth`]), the keys of its
//! child SAs ([`IkeKeys::child`]).

pub mod auth;
mod cipher;
mod dh;
mod keys;
mod modp;
pub mod nat;
mod prf;
mod protection;
#[cfg(test)]
mod wycheproof;

pub use cipher::{Cipher, Integrity};
pub use dh::{Group, InvalidPublicValue, KeyPair};
pub use keys::{ChildKeys, IkeKeys, Nonces, SideKeys};
pub use prf::Prf;

pub use protection::{Fragment, MAX_FRAGMENTS, OpenError, Opened, Opener, SealError, Sealer};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Secret octets, wiped when dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct IkeSuite {
    /// Protects messages.
    pub cipher: Cipher,
    /// Derives keys.
    pub prf: Prf,
    /// Agrees on a secret.
    pub group: Group,
}
