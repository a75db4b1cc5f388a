//! Why a message was dropped: every reason has a variant, and every drop is counted by it.

use serde::{Deserialize, Serialize};

/// Why a received message came to nothing. Grouped by blame; see [`Error::blame`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
pub enum Error {
    // Bad bytes.
    /// The message ends before its fields do, or before its own packet size.
    #[error("message ends too early")]
    Truncated,
    /// `ar$op.version` is not 1.
    #[error("NHRP version is not 1")]
    Version,
    /// The ones-complement sum over the message is not zero.
    #[error("checksum is wrong")]
    Checksum,
    /// `ar$pktsz` is shorter than the fixed header.
    #[error("packet size is impossible")]
    PacketSize,
    /// `ar$afn` is neither IPv4 nor IPv6.
    #[error("NBMA address family is neither IPv4 nor IPv6")]
    AddressFamily,
    /// `ar$pro.type` is neither IPv4 nor IPv6.
    #[error("protocol type is neither IPv4 nor IPv6")]
    ProtocolType,
    /// `ar$op.type` is unknown.
    #[error("message type is unknown")]
    MessageType,
    /// An address is neither absent nor as long as an IP address.
    #[error("address has an impossible length")]
    AddressLength,
    /// An NBMA address is of the E.164 kind, or its reserved bit is set.
    #[error("NBMA address is not an IP address")]
    AddressType,
    /// Source or destination protocol address is absent.
    #[error("a protocol address is missing")]
    MissingAddress,
    /// A client information entry, or the list of them, is malformed.
    #[error("client information entry is malformed")]
    ClientInformation,
    /// `ar$extoff` points outside the message or into its mandatory part.
    #[error("extension offset is impossible")]
    ExtensionOffset,
    /// An extension is longer than what is left of the message.
    #[error("extension is malformed")]
    Extension,
    /// A Traffic Indication without a readable IP header in it.
    #[error("triggering packet is unreadable")]
    Trigger,

    // The peer misbehaved.
    /// No authentication extension, though we require one.
    #[error("authentication is missing")]
    AuthenticationMissing,
    /// Wrong password, or the extension is repeated.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// More messages than this peer may send.
    #[error("peer sends too many messages")]
    RateLimited,
    /// We are the source of a message that should not come back to us.
    #[error("our own message came back")]
    OwnMessage,
    /// Our address is in the transit record (RFC 2332 §5.3.2, §5.3.3).
    #[error("message has passed here before")]
    Loop,
    /// Hop count ran out (RFC 2332 §5.1).
    #[error("hop count exceeded")]
    HopCount,
    /// It would have to go back to where it came from.
    #[error("message would go back to its sender")]
    Reflected,
    /// A reply came by a path that was not asked.
    #[error("reply by an unexpected path")]
    WrongPath,
    /// A reply to a request never made (RFC 2332 §5.2.7, code 10).
    #[error("unsolicited reply")]
    Unsolicited,
    /// A reply that was already handled.
    #[error("duplicate reply")]
    Duplicate,
    /// The source address belongs to another peer than the sender.
    #[error("source address belongs to another peer")]
    SpoofedSource,
    /// A message that must carry a client information entry has none, or too many.
    #[error("wrong number of client information entries")]
    EntryCount,
    /// A reply lacks what it must tell (who answers).
    #[error("reply is incomplete")]
    Incomplete,
    /// The answer claims what the responder may not.
    #[error("answer is not authorised")]
    AnswerDenied,
    /// A compulsory extension we don't know (RFC 2332 §5.3, code 1).
    #[error("unknown compulsory extension")]
    UnknownExtension,
    /// A Traffic Indication from who is not our server.
    #[error("indication from a stranger")]
    UnknownSender,

    // Nothing in common.
    /// Addressed to a server, and we are none.
    #[error("we are not a server")]
    NotServer,
    /// There is no way to where it must go.
    #[error("no way to its destination")]
    NoRoute,
    /// An indication about traffic that came from the overlay: never resolved for (RFC 2332 §6.4).
    #[error("indication about traffic that is not ours")]
    NotOurTraffic,

    // Our own doing.
    /// What we would send does not fit a message.
    #[error("message to send is too large")]
    TooLarge,
}

/// Who is to blame for a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Bytes that are no NHRP.
    Bytes,
    /// A peer that breaks the protocol, or claims too much.
    Peer,
    /// Two configurations that don't meet.
    Mismatch,
    /// Ourselves.
    Us,
}

impl Error {
    /// Who is to blame.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Truncated
            | Self::Version
            | Self::Checksum
            | Self::PacketSize
            | Self::AddressFamily
            | Self::ProtocolType
            | Self::MessageType
            | Self::AddressLength
            | Self::AddressType
            | Self::MissingAddress
            | Self::ClientInformation
            | Self::ExtensionOffset
            | Self::Extension
            | Self::Trigger => Blame::Bytes,
            Self::NotServer | Self::NoRoute | Self::NotOurTraffic => Blame::Mismatch,
            Self::TooLarge => Blame::Us,
            _ => Blame::Peer,
        }
    }

    /// A name for metrics: lower case with underscores, never changed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::Checksum => "checksum",
            Self::PacketSize => "packet_size",
            Self::AddressFamily => "address_family",
            Self::ProtocolType => "protocol_type",
            Self::MessageType => "message_type",
            Self::AddressLength => "address_length",
            Self::AddressType => "address_type",
            Self::MissingAddress => "missing_address",
            Self::ClientInformation => "client_information",
            Self::ExtensionOffset => "extension_offset",
            Self::Extension => "extension",
            Self::Trigger => "trigger",
            Self::AuthenticationMissing => "authentication_missing",
            Self::AuthenticationFailed => "authentication_failed",
            Self::RateLimited => "rate_limited",
            Self::OwnMessage => "own_message",
            Self::Loop => "loop",
            Self::HopCount => "hop_count",
            Self::Reflected => "reflected",
            Self::WrongPath => "wrong_path",
            Self::Unsolicited => "unsolicited",
            Self::Duplicate => "duplicate",
            Self::SpoofedSource => "spoofed_source",
            Self::EntryCount => "entry_count",
            Self::Incomplete => "incomplete",
            Self::AnswerDenied => "answer_denied",
            Self::UnknownExtension => "unknown_extension",
            Self::UnknownSender => "unknown_sender",
            Self::NotServer => "not_server",
            Self::NoRoute => "no_route",
            Self::NotOurTraffic => "not_our_traffic",
            Self::TooLarge => "too_large",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_variants() {
        for error in [Error::Truncated, Error::WrongPath, Error::NotOurTraffic, Error::TooLarge] {
            let variant = format!("{error:?}");
            assert_eq!(error.name().replace('_', ""), variant.to_lowercase());
        }
    }

    #[test]
    fn blame_is_where_it_belongs() {
        assert_eq!(Error::Checksum.blame(), Blame::Bytes);
        assert_eq!(Error::Loop.blame(), Blame::Peer);
        assert_eq!(Error::NotServer.blame(), Blame::Mismatch);
        assert_eq!(Error::TooLarge.blame(), Blame::Us);
    }
}
