//! What can be wrong with the bytes of a message.

use crate::codes::PayloadType;

/// Why a message could not be read: the bytes are to blame. One that was protected and still is malformed was made so
/// by the peer (RFC 7296 §2.21.2: INVALID_SYNTAX); one in the clear may have been made by anybody, and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Malformed {
    /// The message, or a payload, ends before its fields do.
    #[error("ends too early")]
    Truncated,
    /// A payload, or the message, has octets after its last field.
    #[error("octets after the last field")]
    Trailing,
    /// The header's length is not the datagram's.
    #[error("length in the header is wrong")]
    Length,
    /// Major version is not 2.
    #[error("major version is not 2")]
    Version,
    /// A payload is said to be shorter than its own header.
    #[error("payload length is impossible")]
    PayloadLength,
    /// More payloads than we read.
    #[error("too many payloads")]
    TooManyPayloads,
    /// SK or SKF is not the last payload, or stands within another.
    #[error("encrypted payload is not the last one")]
    EncryptedNotLast,
    /// A proposal is numbered 0, or the mark of the last one is wrong.
    #[error("proposals are not in order")]
    ProposalOrder,
    /// More proposals than we read.
    #[error("too many proposals")]
    TooManyProposals,
    /// A proposal has not as many transforms as it says, or the mark of the last one is wrong.
    #[error("count of transforms is wrong")]
    TransformCount,
    /// A key length attribute is not a number of 16 bits.
    #[error("key length attribute is malformed")]
    KeyLength,
    /// An SPI has an impossible size.
    #[error("SPI size is wrong")]
    SpiSize,
    /// A nonce is not 16 to 256 octets (RFC 7296 §2.10, §3.9).
    #[error("nonce size is wrong")]
    NonceSize,
    /// A traffic selector has not the length of its type, or its range is upside down.
    #[error("traffic selector is malformed")]
    Selector,
    /// Fragment numbers are impossible (RFC 7383 §2.5).
    #[error("fragment number is impossible")]
    FragmentNumber,
    /// A decrypted body is shorter than its padding.
    #[error("padding is longer than what it pads")]
    Padding,
    /// A payload that we don't know has the critical bit set (RFC 7296 §2.5).
    #[error("payload type {} is critical, and unknown", .0.0)]
    Critical(PayloadType),
}

impl Malformed {
    /// A name for metrics, never changed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::Length => "length",
            Self::Version => "version",
            Self::PayloadLength => "payload_length",
            Self::TooManyPayloads => "too_many_payloads",
            Self::EncryptedNotLast => "encrypted_not_last",
            Self::ProposalOrder => "proposal_order",
            Self::TooManyProposals => "too_many_proposals",
            Self::TransformCount => "transform_count",
            Self::KeyLength => "key_length",
            Self::SpiSize => "spi_size",
            Self::NonceSize => "nonce_size",
            Self::Selector => "selector",
            Self::FragmentNumber => "fragment_number",
            Self::Padding => "padding",
            Self::Critical(_) => "critical",
        }
    }
}

/// What we were about to send does not fit the wire's lengths: our own misuse, or far too long a certificate chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message is longer than its fields can say")]
pub struct TooLong;
