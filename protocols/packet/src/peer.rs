//! A peer's slot in the datapath's tables, and the link-layer address that names it on the TAP.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A slot of the peer table. The generation tells a peer from the one that had the slot before it, so that a frame
/// sent by a stale neighbour entry is recognised (and carried by the hub) instead of reaching a stranger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId {
    /// Index of the slot, below [`PeerId::MAX_INDEX`].
    pub index: u32,
    /// How often the slot was reused, modulo 256.
    pub generation: u8,
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// "By the hub, whichever carries now": what the datapath answers to an ARP or ND query for a next hop that has no
/// direct path. `02` is the locally administered bit.
pub const BY_HUB_MAC: Mac = [0x02, 0x64, 0xff, 0xff, 0xff, 0xff];

/// The address of our own end of the TAP, the same on every node: it never leaves the node.
pub const OWN_MAC: Mac = [0x02, 0x64, 0xff, 0xff, 0xff, 0xfe];

impl PeerId {
    /// Slots are numbered below this.
    pub const MAX_INDEX: u32 = 1 << 24;

    /// The link-layer address that names this peer on the TAP: `02:64`, the generation, the index.
    #[must_use]
    pub const fn mac(self) -> Mac {
        let i = self.index.to_be_bytes();
        [0x02, 0x64, self.generation, i[1], i[2], i[3]]
    }

    /// The peer that a link-layer address names, unless it is not one of ours, or one of the two special ones.
    #[must_use]
    pub fn from_mac(mac: Mac) -> Option<Self> {
        if mac[..2] != [0x02, 0x64] || mac == BY_HUB_MAC || mac == OWN_MAC {
            return None;
        }
        Some(Self { index: u32::from_be_bytes([0, mac[3], mac[4], mac[5]]), generation: mac[2] })
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_names_one_peer() {
        let id = PeerId { index: 0x0001_0203, generation: 7 };
        assert_eq!(id.mac(), [0x02, 0x64, 7, 1, 2, 3]);
        assert_eq!(PeerId::from_mac(id.mac()), Some(id));
        assert_eq!(PeerId::from_mac(BY_HUB_MAC), None);
        assert_eq!(PeerId::from_mac(OWN_MAC), None);
        assert_eq!(PeerId::from_mac([0; 6]), None);
    }
}
