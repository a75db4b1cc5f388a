//! How stations of an encrypted network are configured.

use dmvpn::{Credentials, Security};
use identity::SharedKey;
use std::net::IpAddr;
use std::sync::Arc;

/// The port shared by IKE and ESP in UDP (RFC 3948).
pub(crate) const PORT: u16 = 4500;

/// A station of this name, which knows the one key.
pub(crate) fn shared_key(name: &str, local: IpAddr) -> Security {
    let key = SharedKey::new(name, b"the key of the virtual network".to_vec()).expect("a name and a key");
    Security {
        ike: ikev2::Config { local: vec![local], ..ikev2::Config::default() },
        credentials: Credentials(Arc::new(key)),
    }
}
