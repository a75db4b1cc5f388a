//! What can be wrong with the bytes of a packet.

/// Why bytes are not the packet they should be. The sender, or the way, is to blame; never our own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer octets than the headers need.
    #[error("shorter than its headers")]
    Truncated,
    /// A version field says something we don't know.
    #[error("unknown version")]
    Version,
    /// A header length field is below the minimum.
    #[error("impossible header length")]
    HeaderLength,
    /// A total length field is shorter than the headers, or longer than what arrived.
    #[error("total length does not match what arrived")]
    TotalLength,
    /// A checksum does not match.
    #[error("wrong checksum")]
    Checksum,
    /// A bit is set that must be zero.
    #[error("a reserved bit is set")]
    Reserved,
    /// More IPv6 extension headers than anyone needs.
    #[error("too many extension headers")]
    ExtensionHeaders,
    /// Not the protocol, or not the combination of protocols, that was announced.
    #[error("not the protocol that was announced")]
    Protocol,
}

/// The buffer handed in is too small for what is to be written: our own misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is too small: {needed} octets needed")]
pub struct NoRoom {
    /// How many octets would have been needed.
    pub needed: usize,
}
