//! NAT detection (RFC 7296 §2.23): both ends say from where and to where they send, as hashes.
//!
//! We ask for ESP in UDP even where there is no NAT by giving a false source: the peer then sees a NAT in front of us.
//! RFC 7296 knows no other way to ask.

use crate::Message;
use crate::codes::NotifyType;
use crate::crypto::nat::detection_hash;
use crate::payload::{Notify, Payload};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Who is behind a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Nat {
    /// The peer (or it asks for encapsulation, and says so).
    pub peer: bool,
    /// We.
    pub us: bool,
}

impl Nat {
    /// Is there one?
    pub(crate) const fn any(self) -> bool {
        self.peer || self.us
    }
}

/// SPIs of the IKE SA as they stand in the message's header: the initiator's, the responder's.
pub(crate) type Spis = (u64, u64);

/// The two notifications. `local` is none if we don't know our address, or want to be taken for one behind a NAT.
pub(crate) fn notifies(spis: Spis, local: Option<SocketAddr>, remote: SocketAddr) -> [Payload; 2] {
    // As strongSwan does: nobody sends from there.
    let source = local.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    [(NotifyType::NAT_DETECTION_SOURCE_IP, source), (NotifyType::NAT_DETECTION_DESTINATION_IP, remote)]
        .map(|(kind, end)| Payload::Notify(Notify::new(kind, detection_hash(spis, end).to_vec())))
}

/// What the peer's notifications tell. Without any the peer knows nothing of NATs, and we assume that there is none.
pub(crate) fn detect(message: &Message, spis: Spis, local: Option<SocketAddr>, remote: SocketAddr) -> Nat {
    let differs = |kind: NotifyType, end: Option<SocketAddr>| {
        let expected = end.map(|end| detection_hash(spis, end));
        let mut told = message.notifies().filter(|n| n.kind == kind).peekable();
        //= rfc7296#2.23
        //# If none of the NAT_DETECTION_SOURCE_IP payload(s) received matches the expected value ... it means that the
        //# system sending those payloads is behind a NAT
        match expected {
            Some(expected) => told.peek().is_some() && told.all(|n| n.data != expected),
            None => false,
        }
    };
    Nat {
        peer: differs(NotifyType::NAT_DETECTION_SOURCE_IP, Some(remote)),
        us: differs(NotifyType::NAT_DETECTION_DESTINATION_IP, local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;
    use crate::codes::ExchangeType;

    const SPIS: Spis = (5, 0);

    fn message(payloads: [Payload; 2]) -> Message {
        let header = Header {
            initiator_spi: 5,
            responder_spi: 0,
            exchange: ExchangeType::IKE_SA_INIT,
            initiator: true,
            response: false,
            message_id: 0,
        };
        Message { header, payloads: payloads.to_vec() }
    }

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_nat_is_seen_where_there_is_none() {
        let (a, b) = (end("192.0.2.1:4500"), end("192.0.2.2:4500"));
        let seen = detect(&message(notifies(SPIS, Some(a), b)), SPIS, Some(b), a);
        assert_eq!(seen, Nat::default());
    }

    #[test]
    fn a_nat_before_the_sender_changes_its_source() {
        let (inside, outside, b) = (end("10.0.0.1:4500"), end("192.0.2.1:1024"), end("192.0.2.2:4500"));
        let seen = detect(&message(notifies(SPIS, Some(inside), b)), SPIS, Some(b), outside);
        assert_eq!(seen, Nat { peer: true, us: false });
    }

    #[test]
    fn a_nat_before_the_receiver_changes_its_destination() {
        let (a, outside, inside) = (end("192.0.2.1:4500"), end("192.0.2.2:4500"), end("10.0.0.2:4500"));
        let seen = detect(&message(notifies(SPIS, Some(a), outside)), SPIS, Some(inside), a);
        assert_eq!(seen, Nat { peer: false, us: true });
    }

    #[test]
    fn forced_encapsulation_looks_like_a_nat_before_the_sender() {
        let (a, b) = (end("192.0.2.1:4500"), end("192.0.2.2:4500"));
        let seen = detect(&message(notifies(SPIS, None, b)), SPIS, Some(b), a);
        assert_eq!(seen, Nat { peer: true, us: false });
    }
}
