//! Bounds of everything that a peer can make grow.

/// Peers of all kinds.
pub(crate) const MAX_PEERS: usize = 16_384;
/// Peers that nobody registered, configured or made a hub: who asked, or was asked for.
pub(crate) const MAX_SPOKES: usize = 4_096;
/// Paths of one peer.
pub(crate) const MAX_CANDIDATES: usize = 6;
/// Tunnel addresses of one peer.
pub(crate) const MAX_ADDRESSES: usize = 4;
/// Shortcuts, in all states.
pub(crate) const MAX_SHORTCUTS: usize = 4_096;
/// Resolutions under way.
pub(crate) const MAX_RESOLVING: usize = 256;
