//! Fragments of a message put together again (RFC 7383 §2.6).

use crate::codes::PayloadType;
use crate::crypto::{Fragment, MAX_FRAGMENTS};
use crate::malformed::Malformed;
use crate::message::{Header, Message};
use crate::payload::{self, Place};
use crate::reader::Reader;

/// Octets that are kept of a message that isn't whole.
const MAX_OCTETS: usize = 32 * 1024;

/// Why a fragment came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FragmentError {
    /// It is there already.
    #[error("fragment is there already")]
    Duplicate,
    /// It belongs to a set of fewer, larger fragments than the one we collect: sent before, and overtaken.
    #[error("fragment is of a set that was given up")]
    Stale,
    /// The message would have more fragments, or more octets, than we keep.
    #[error("fragments of too long a message")]
    TooLong,
    /// All are there, and the message is malformed.
    #[error("the peer sent a malformed message: {0}")]
    Inner(Malformed),
}

/// Collects the fragments of one message at a time: of the one of our requests that is being answered, or of the
/// peer's next request. Keep one for each direction, and give it only fragments of the message ID that is expected.
#[derive(Default, Debug)]
pub struct Reassembly {
    collected: Option<Collected>,
}

#[derive(Debug)]
struct Collected {
    header: Header,
    first: PayloadType,
    parts: Vec<Option<Vec<u8>>>,
    octets: usize,
}

impl Reassembly {
    /// Takes a fragment in; returns the message once it is whole, and is empty again then.
    ///
    /// # Errors
    /// The fragment is dropped.
    pub fn add(&mut self, fragment: Fragment) -> Result<Option<Message>, FragmentError> {
        let Fragment { header, first, number, total, data } = fragment;
        if total > MAX_FRAGMENTS {
            return Err(FragmentError::TooLong);
        }
        //= rfc7383#2.6
        // More fragments than before: the sender cut the message anew, smaller, and what came before is of no use.
        self.collected.take_if(|c| c.header != header || c.parts.len() < usize::from(total));
        let collected = self.collected.get_or_insert_with(|| Collected::new(header, total));
        if collected.parts.len() > usize::from(total) {
            return Err(FragmentError::Stale);
        }
        collected.add(first, number, data)?;
        if collected.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        self.collected.take().map(Collected::join).transpose()
    }

    /// Forgets what was collected.
    pub fn clear(&mut self) {
        self.collected = None;
    }
}

impl Collected {
    fn new(header: Header, total: u16) -> Self {
        Self { header, first: PayloadType::NONE, parts: vec![None; usize::from(total)], octets: 0 }
    }

    fn add(&mut self, first: PayloadType, number: u16, data: Vec<u8>) -> Result<(), FragmentError> {
        let part = usize::from(number).checked_sub(1).and_then(|index| self.parts.get_mut(index));
        let part = part.ok_or(FragmentError::Inner(Malformed::FragmentNumber))?;
        if part.is_some() {
            return Err(FragmentError::Duplicate);
        }
        if self.octets + data.len() > MAX_OCTETS {
            return Err(FragmentError::TooLong);
        }
        self.octets += data.len();
        *part = Some(data);
        if number == 1 {
            self.first = first;
        }
        Ok(())
    }

    fn join(self) -> Result<Message, FragmentError> {
        let chain: Vec<u8> = self.parts.into_iter().flatten().flatten().collect();
        let mut reader = Reader::new(&chain);
        let payloads =
            payload::read_chain(self.first, &mut reader, Place::Inner).map_err(FragmentError::Inner)?;
        Ok(Message { header: self.header, payloads })
    }
}
