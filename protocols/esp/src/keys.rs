//! What IKEv2 hands over for one direction of an SA.

use crate::Suite;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// One direction of an SA: its number and its secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The SPI in the packets, chosen by whoever receives them. In one that we hand out, the lowest bits are the index
    /// of the worker that owns the SA.
    pub spi: u32,
    /// The cipher.
    pub suite: Suite,
    /// 64-bit sequence numbers (RFC 4303 §2.2.1)?
    pub esn: bool,
    /// [`Suite::key_len`] octets; wiped when dropped.
    pub material: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Keys {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let esn = if self.esn { "-esn" } else { "" };
        write!(f, "Keys({:08x} {}{esn})", self.spi, self.suite)
    }
}
