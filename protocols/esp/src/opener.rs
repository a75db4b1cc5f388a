//! Receiving: an ESP packet becomes its payload where it lies (RFC 4303 §3.4).

use crate::cipher::{self, Cipher, Place};
use crate::suite::TRAILER_LEN;
use crate::window::{ReplayWindow, Verdict};
use crate::{BadKeys, Header, Keys, NO_NEXT_HEADER, OpenError, Suite};
use std::fmt;
use std::ops::Range;
use zerocopy::FromBytes;

/// The inbound direction of an SA.
pub struct Opener {
    cipher: Box<dyn Cipher>,
    suite: Suite,
    spi: u32,
    esn: bool,
    window: ReplayWindow,
}

/// What was in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where in the packet the payload lies now.
    pub payload: Range<usize>,
    /// What it is: an IP protocol number.
    pub next_header: u8,
    /// The whole sequence number.
    pub sequence: u64,
}

impl Opened {
    /// Is it a dummy, sent only to hide how much is sent? It is authentic, and to be dropped without a word (§2.6).
    #[inline]
    #[must_use]
    pub const fn is_dummy(&self) -> bool {
        self.next_header == NO_NEXT_HEADER
    }
}

impl Opener {
    /// For keys that nothing was received with.
    pub fn new(keys: &Keys) -> Result<Self, BadKeys> {
        Self::resume(keys, ReplayWindow::default())
    }

    /// For keys that another process received with until now. Without its window, everything it received could be
    /// replayed to us.
    pub fn resume(keys: &Keys, window: ReplayWindow) -> Result<Self, BadKeys> {
        Ok(Self::with_cipher(keys, window, cipher::new(keys)?))
    }

    pub(crate) fn with_cipher(keys: &Keys, window: ReplayWindow, cipher: Box<dyn Cipher>) -> Self {
        let &Keys { spi, suite, esn, material: _ } = keys;
        Self { cipher, suite, spi, esn, window }
    }

    /// The SPI in its packets.
    #[inline]
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// Its cipher.
    #[inline]
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// What it has received, for whoever takes it over.
    #[inline]
    #[must_use]
    pub const fn window(&self) -> &ReplayWindow {
        &self.window
    }

    /// Opens a packet in place. After an error its octets may be garbage.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        let (header, rest) = Header::mut_from_prefix(packet).map_err(|_| OpenError::TooShort)?;
        let (iv, rest) = rest.split_at_mut_checked(self.suite.iv_len()).ok_or(OpenError::TooShort)?;
        let body = rest.len().checked_sub(self.suite.icv_len()).ok_or(OpenError::TooShort)?;
        let (body, icv) = rest.split_at_mut_checked(body).ok_or(OpenError::TooShort)?;
        if body.len() < TRAILER_LEN {
            return Err(OpenError::TooShort);
        }
        if header.spi.get() != self.spi {
            return Err(OpenError::WrongSpi);
        }
        if !body.len().is_multiple_of(self.suite.alignment()) {
            return Err(OpenError::BadLength);
        }

        //= rfc4303#3.4.3
        // Rejecting duplicates before decrypting; the window is updated only if the integrity verification succeeds.
        let sequence = self.number(header.sequence.get()).ok_or(OpenError::TooOld)?;
        match self.window.check(sequence) {
            Verdict::New => {}
            Verdict::Seen => return Err(OpenError::Replayed),
            Verdict::TooOld => return Err(OpenError::TooOld),
        }
        let place = Place { spi: self.spi, sequence, esn: self.esn };
        self.cipher.open(place, iv, body, icv).map_err(|cipher::Refused| OpenError::Forged)?;
        self.window.accept(sequence);

        let (length, next_header) = read_trailer(body).ok_or(OpenError::BadPadding)?;
        let start = self.suite.header_len();
        Ok(Opened { payload: start..start + length, next_header, sequence })
    }

    #[inline]
    fn number(&self, low: u32) -> Option<u64> {
        if self.esn { self.window.infer(low) } else { Some(low.into()) }
    }
}

/// Octets of the payload, and what it is.
//= rfc4303#2.4
// The receiver SHOULD inspect the Padding field. (By now it is authentic, so that its octets tell nobody anything.)
#[inline]
fn read_trailer(body: &[u8]) -> Option<(usize, u8)> {
    let (rest, &[pad_len, next_header]) = body.split_last_chunk::<TRAILER_LEN>()?;
    let length = rest.len().checked_sub(pad_len.into())?;
    let padding = rest.get(length..)?;
    padding.iter().zip(1..=u8::MAX).all(|(octet, wanted)| *octet == wanted).then_some((length, next_header))
}

impl fmt::Debug for Opener {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:08x} {}, {})", self.spi, self.suite, self.window.highest())
    }
}
