//! Messages on a stream: a little-endian u32 of octets, and so many octets of postcard.
//!
//! There are keys in some of them, so that octets are wiped as soon as they are read.

use crate::messages::MAX_MESSAGE;
use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

/// Why a stream can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end says a message is longer than [`MAX_MESSAGE`].
    #[error("a message of {0} octets is too long")]
    TooLong(usize),
    /// The octets are no message: another version, most likely.
    #[error("a message can't be understood: {0}")]
    Encoding(#[from] postcard::Error),
}

/// Appends one message with its length.
///
/// # Errors
/// [`Error::TooLong`]; then nothing is appended.
pub fn append<T: Serialize>(to: &mut Vec<u8>, message: &T) -> Result<(), Error> {
    // Measured first: a vector that grows leaves copies of keys behind.
    let length = postcard::serialize_with_flavor(message, Size::default())?;
    if length > MAX_MESSAGE {
        return Err(Error::TooLong(length));
    }
    to.reserve(4 + length);
    to.extend_from_slice(&(length as u32).to_le_bytes());
    *to = postcard::to_extend(message, std::mem::take(to))?;
    Ok(())
}

/// Octets of room that are kept between messages.
const KEPT: usize = 256 << 10;

/// Octets that arrived, of which messages are taken.
#[derive(Debug, Default)]
pub struct Incoming {
    octets: Vec<u8>,
    taken: usize,
}

impl Incoming {
    /// More octets arrived.
    pub fn push(&mut self, octets: &[u8]) {
        let rest = self.octets.len() - self.taken;
        if self.octets.capacity() < rest + octets.len() {
            // Growing by itself would leave a copy behind.
            let mut larger = Vec::with_capacity(2 * (rest + octets.len()));
            larger.extend_from_slice(self.octets.get(self.taken..).unwrap_or_default());
            std::mem::replace(&mut self.octets, larger).zeroize();
        } else {
            self.octets.copy_within(self.taken.., 0);
            self.octets.get_mut(rest..).unwrap_or_default().zeroize();
            self.octets.truncate(rest);
        }
        self.taken = 0;
        self.octets.extend_from_slice(octets);
    }

    /// Takes the next message, if all of it is here.
    ///
    /// # Errors
    /// [`Error`]; the stream is of no more use.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let rest = self.octets.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(Error::TooLong(length));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = postcard::from_bytes(message)?;
        let end = self.taken + 4 + length;
        self.octets.get_mut(self.taken..end).unwrap_or_default().zeroize();
        self.taken = end;
        if end == self.octets.len() && self.octets.capacity() > KEPT {
            // Checkpoints of thousands of peers are rare: their room is better given back.
            *self = Self::default();
        }
        Ok(Some(message))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Request, ToDatapath};

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let sent: Vec<_> = (0..3)
            .map(|number| ToDatapath { number, request: Request::StoreCheckpoint(vec![7; 100].into()) })
            .collect();
        let mut stream = Vec::new();
        for message in &sent {
            append(&mut stream, message).unwrap();
        }
        for size in [1, 3, 50, 1000] {
            let mut incoming = Incoming::default();
            let mut received = Vec::new();
            for piece in stream.chunks(size) {
                incoming.push(piece);
                while let Some(message) = incoming.take::<ToDatapath>().unwrap() {
                    received.push(message);
                }
            }
            assert_eq!(received, sent);
        }
    }

    #[test]
    fn nothing_is_left_of_a_message_that_was_read() {
        let secret = ToDatapath { number: 1, request: Request::StoreCheckpoint(vec![0xa5; 100].into()) };
        let mut stream = Vec::new();
        append(&mut stream, &secret).unwrap();
        append(&mut stream, &secret).unwrap();
        let mut incoming = Incoming::default();
        for piece in stream.chunks(150) {
            incoming.push(piece);
            while incoming.take::<ToDatapath>().unwrap().is_some() {}
        }
        assert!(!incoming.octets.contains(&0xa5));
    }

    #[test]
    fn an_absurd_length_ends_the_stream() {
        let mut incoming = Incoming::default();
        incoming.push(&u32::MAX.to_le_bytes());
        assert!(matches!(incoming.take::<ToDatapath>(), Err(Error::TooLong(_))));
    }
}
