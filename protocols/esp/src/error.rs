//! What can go wrong, by blame.

/// Keys that no SA can be made of: control is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Keying material of the wrong length.
    #[error("the suite takes {needed} octets of keying material, not {given}")]
    Material {
        /// Octets that the suite takes.
        needed: usize,
        /// Octets that were given.
        given: usize,
    },
    /// A reserved SPI.
    #[error("SPIs below 256 are reserved")]
    Spi,
}

/// Why a packet could not be sealed: our own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sequence number would cycle. The SA is used up, and should have been replaced long ago.
    #[error("all sequence numbers of the SA are used")]
    Exhausted,
    /// The buffer is too small.
    #[error("the buffer is too small: {needed} octets needed")]
    NoRoom {
        /// Octets of the sealed packet.
        needed: usize,
    },
    /// The cipher refused, as it does for packets of more than 2^36 octets.
    #[error("the cipher refused")]
    Cipher,
}

/// Why a packet was not opened. Each is a reason to count. Only a packet that was authentic moves the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Shorter than the headers, the trailer and the ICV.
    #[error("too short for ESP")]
    TooShort,
    /// Not this SA's packet: the caller mixed them up, or took too few octets of the SPI for the choice.
    #[error("another SA's SPI")]
    WrongSpi,
    /// The ciphertext is no whole number of cipher blocks.
    #[error("not a whole number of cipher blocks")]
    BadLength,
    /// Received before.
    #[error("replayed")]
    Replayed,
    /// So far behind the newest packet that it cannot be told whether it was received before.
    #[error("left of the replay window")]
    TooOld,
    /// Not sealed by whoever has the key, or changed since.
    #[error("not authentic")]
    Forged,
    /// Authentic, but the padding is not 1, 2, 3, .. or is longer than the packet: a broken peer.
    #[error("impossible padding")]
    BadPadding,
}
