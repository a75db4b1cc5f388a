//! Cutting a byte stream into messages, and the messages without an inner life (RFC 4271 §4.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Marker (16 octets of ones)                 |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          Length               |      Type     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use crate::error::{Code, Notification, Subcode};
use crate::family::Family;

pub(crate) const HEADER: usize = 19;
/// The longest message; RFC 8654's extended messages are not offered.
pub(crate) const MAX: usize = 4096;

/// A message type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Open,
    Update,
    Notification,
    Keepalive,
    /// RFC 2918.
    RouteRefresh,
}

impl Kind {
    const fn from_wire(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// Lengths that this type can have (RFC 4271 §6.1, RFC 7313 §5).
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX),
            Self::Update => (23, MAX),
            Self::Notification => (21, MAX),
            Self::Keepalive => (HEADER, HEADER),
            Self::RouteRefresh => (23, MAX),
        }
    }
}

/// Octets that arrived and are not a whole message yet. Holds less than one message between calls of `next` until it
/// says that there is none.
#[derive(Default, Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    read: usize,
}

impl Input {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message: its type and what follows the header.
    pub(crate) fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Notification> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let (marker, [high, low, kind]) = (&header[..16], [header[16], header[17], header[18]]);
        if marker.iter().any(|octet| *octet != 0xff) {
            return Err(Notification::NOT_SYNCHRONIZED);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(HEADER..=MAX).contains(&length) {
            return Err(Notification::BAD_LENGTH.with(&[high, low]));
        }
        let kind = Kind::from_wire(kind).ok_or_else(|| Notification::BAD_TYPE.with(&[kind]))?;
        let (least, most) = kind.lengths();
        if !(least..=most).contains(&length) {
            return Err(Notification::BAD_LENGTH.with(&[high, low]));
        }
        let Some(body) = rest.get(..length - HEADER) else { return Ok(None) };
        let body = body.to_vec();
        self.read += length;
        Ok(Some((kind, body)))
    }
}

/// A message around `body`, which is short enough by construction.
pub(crate) fn wrap(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&[0xff; 16]);
    message.extend_from_slice(&length.to_be_bytes());
    message.push(kind.to_wire());
    message.extend_from_slice(body);
    message
}

pub(crate) fn keepalive() -> Vec<u8> {
    wrap(Kind::Keepalive, &[])
}

/// RFC 4271 §4.5.
pub(crate) fn write_notification(notification: &Notification) -> Vec<u8> {
    let mut body = vec![notification.code.0, notification.subcode.0];
    body.extend(notification.data.iter().take(MAX - HEADER - 2));
    wrap(Kind::Notification, &body)
}

/// RFC 4271 §4.5. Only the first octets of the data are kept: they are for people.
pub(crate) fn read_notification(body: &[u8]) -> Notification {
    let (code, subcode, data) = match body {
        [code, subcode, data @ ..] => (*code, *subcode, data),
        [code] => (*code, 0, &[][..]),
        [] => (0, 0, &[][..]),
    };
    let data = data.get(..data.len().min(128)).unwrap_or_default().to_vec();
    Notification { code: Code(code), subcode: Subcode(subcode), data }
}

/// RFC 2918 §4. `None`: nothing that we answer: a family we don't carry, or a mark of RFC 7313, which is not offered.
pub(crate) fn read_route_refresh(body: &[u8]) -> Option<Family> {
    match body {
        [high, low, 0, safi] => Family::from_wire(u16::from_be_bytes([*high, *low]), *safi),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let mut input = Input::default();
        let mut stream = keepalive();
        stream.extend(write_notification(&Notification::SHUTDOWN));
        for octet in &stream[..20] {
            input.push(&[*octet]);
            if octet != &4 {
                assert_eq!(input.next(), Ok(None));
            } else {
                assert_eq!(input.next(), Ok(Some((Kind::Keepalive, vec![]))));
            }
        }
        input.push(&stream[20..]);
        let (kind, body) = input.next().unwrap().unwrap();
        assert_eq!((kind, read_notification(&body)), (Kind::Notification, Notification::SHUTDOWN));
    }

    #[test]
    fn header_errors_have_their_subcodes() {
        let error = |change: fn(&mut Vec<u8>)| {
            let mut message = keepalive();
            change(&mut message);
            let mut input = Input::default();
            input.push(&message);
            input.next().unwrap_err()
        };
        assert_eq!(error(|m| m[3] = 0), Notification::NOT_SYNCHRONIZED);
        assert_eq!(error(|m| m[17] = 18), Notification::BAD_LENGTH.with(&[0, 18]));
        assert_eq!(error(|m| m[17] = 20), Notification::BAD_LENGTH.with(&[0, 20]));
        assert_eq!(error(|m| m[16] = 0x10), Notification::BAD_LENGTH.with(&[0x10, 19]));
        assert_eq!(error(|m| m[18] = 6), Notification::BAD_TYPE.with(&[6]));
    }
}
