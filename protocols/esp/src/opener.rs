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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both, keys, sealed};
    use crate::{Sealer, WINDOW};

    fn every() -> impl Iterator<Item = (Suite, bool)> {
        Suite::ALL.into_iter().flat_map(|suite| [(suite, false), (suite, true)])
    }

    /// A packet with exactly this behind the header, sealed by hand.
    fn sealed_body(suite: Suite, sequence: u64, body: &[u8]) -> Vec<u8> {
        let keys = keys(suite, false);
        let place = Place { spi: keys.spi, sequence, esn: false };
        let (mut iv, mut body, mut icv) = (vec![0; suite.iv_len()], body.to_vec(), vec![0; suite.icv_len()]);
        cipher::new(&keys).unwrap().seal(place, &mut iv, &mut body, &mut icv).unwrap();
        [&place.header()[..], &iv, &body, &icv].concat()
    }

    //= rfc4303#3.4.3
    // Rejecting duplicates before decrypting; the window is updated only if the integrity verification succeeds.
    #[test]
    fn a_replayed_packet_is_refused_before_it_is_decrypted() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let packet = sealed(&mut sealer, b"hello");
            assert!(opener.open(&mut packet.clone()).is_ok());
            let mut again = packet.clone();
            assert_eq!(opener.open(&mut again), Err(OpenError::Replayed));
            assert_eq!(again, packet);
        }
    }

    #[test]
    fn a_forged_packet_does_not_move_the_window() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let mut true_one = sealed(&mut sealer, b"hello");
            let mut forged = true_one.clone();
            forged[7] = 200;
            assert_eq!(opener.open(&mut forged), Err(OpenError::Forged));
            assert_eq!(opener.window(), &ReplayWindow::default());
            assert!(opener.open(&mut true_one).is_ok());
        }
    }

    #[test]
    fn no_bit_of_a_packet_can_be_flipped() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let packet = sealed(&mut sealer, b"hello");
            for bit in 0..packet.len() * 8 {
                let mut changed = packet.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let wanted = match bit / 8 {
                    0..4 => OpenError::WrongSpi,
                    // Number 1 became 0.
                    7 if changed[7] == 0 => OpenError::Replayed,
                    _ => OpenError::Forged,
                };
                assert_eq!(opener.open(&mut changed), Err(wanted), "{suite} bit {bit}");
            }
            assert_eq!(opener.window(), &ReplayWindow::default());
            assert!(opener.open(&mut packet.clone()).is_ok());
        }
    }

    #[test]
    fn a_truncated_packet_is_refused_at_every_length() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let packet = sealed(&mut sealer, b"hello, here are forty octets of payload.");
            for length in 0..packet.len() {
                let wanted = match length.checked_sub(suite.header_len() + suite.icv_len()) {
                    None | Some(0 | 1) => OpenError::TooShort,
                    Some(body) if body % suite.alignment() != 0 => OpenError::BadLength,
                    Some(_) => OpenError::Forged,
                };
                assert_eq!(opener.open(&mut packet.clone()[..length]), Err(wanted), "{suite} {length}");
            }
            let mut longer = [&packet[..], &[0; 16]].concat();
            assert_eq!(opener.open(&mut longer), Err(OpenError::Forged));
        }
    }

    #[test]
    fn a_packet_sent_back_to_its_sender_is_refused() {
        for suite in Suite::ALL {
            let (mut sealer, _) = both(suite, false);
            let packet = sealed(&mut sealer, b"hello");
            let mut other = keys(suite, false);
            *other.material.last_mut().unwrap() ^= 1;
            let same_spi = Opener::new(&other).unwrap().open(&mut packet.clone());
            assert_eq!(same_spi, Err(OpenError::Forged));
            other.spi = 0xbeef;
            let own_spi = Opener::new(&other).unwrap().open(&mut packet.clone());
            assert_eq!(own_spi, Err(OpenError::WrongSpi));
        }
    }

    #[test]
    fn a_packet_as_late_as_the_window_is_wide_is_too_old() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let mut packets: Vec<_> = (0..=WINDOW).map(|_| sealed(&mut sealer, b"")).collect();
            assert!(opener.open(&mut packets[WINDOW as usize]).is_ok());
            assert_eq!(
                opener.open(&mut packets[0]),
                Err(if esn { OpenError::Forged } else { OpenError::TooOld })
            );
            assert_eq!(opener.open(&mut packets[1]).unwrap().sequence, 2);
            assert_eq!(opener.open(&mut packets[1]), Err(OpenError::Replayed));
        }
    }

    //= rfc4303#A2.2
    // If the low half is at or above the bottom of the window it belongs to the window, else to the subspace above it.
    #[test]
    fn extended_numbers_pass_the_end_of_the_low_half() {
        for suite in Suite::ALL {
            let (mut sealer, _) = both(suite, true);
            sealer.jump((1 << 32) - 3);
            let mut window = ReplayWindow::default();
            window.accept(sealer.sequence());
            let mut opener = Opener::resume(&keys(suite, true), window).unwrap();
            let mut packets: Vec<_> = (0..4).map(|_| sealed(&mut sealer, b"hello")).collect();
            let low = packets.iter().map(|packet| Header::parse(packet).unwrap().0.sequence.get());
            assert_eq!(low.collect::<Vec<_>>(), [0xffff_fffe, 0xffff_ffff, 0, 1]);
            // Out of order, across the border in both directions.
            for (at, sequence) in [(3, 0x1_0000_0001), (0, 0xffff_fffe), (2, 0x1_0000_0000), (1, 0xffff_ffff)]
            {
                assert_eq!(opener.open(&mut packets[at]).unwrap().sequence, sequence, "{suite}");
            }
            assert_eq!(opener.open(&mut packets[3]), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn a_packet_of_a_number_subspace_ago_is_not_authentic() {
        for suite in Suite::ALL {
            let (mut sealer, mut opener) = both(suite, true);
            sealer.jump(9_999);
            let old = sealed(&mut sealer, b"hello");
            assert_eq!(opener.open(&mut old.clone()).unwrap().sequence, 10_000);
            sealer.jump((1 << 32) - 9_901);
            assert_eq!(opener.open(&mut sealed(&mut sealer, b"hello")).unwrap().sequence, (1 << 32) + 100);
            // Its low half means number 2^32 + 10,000 by now, which it is not.
            assert_eq!(opener.open(&mut old.clone()), Err(OpenError::Forged));
        }
    }

    #[test]
    fn both_ends_must_agree_on_esn() {
        for suite in Suite::ALL {
            let (mut sealer, _) = both(suite, true);
            let mut opener = Opener::new(&keys(suite, false)).unwrap();
            assert_eq!(opener.open(&mut sealed(&mut sealer, b"hello")), Err(OpenError::Forged));
        }
    }

    //= rfc4303#2.6
    // The protocol value 59 (which means "no next header") is used to designate a dummy packet.
    #[test]
    fn a_dummy_is_reported_as_one() {
        let (mut sealer, mut opener) = both(Suite::Aes128Gcm16, false);
        let mut packet = [0; 100];
        let length = sealer.seal(&mut packet, 30, NO_NEXT_HEADER).unwrap();
        assert!(opener.open(&mut packet[..length]).unwrap().is_dummy());
        assert!(!opener.open(&mut sealed(&mut sealer, b"hello")).unwrap().is_dummy());
    }

    //= rfc4303#2.4
    // The receiver SHOULD inspect the Padding field.
    #[test]
    fn padding_that_is_not_counted_from_one_is_refused() {
        for suite in Suite::ALL {
            let mut opener = Opener::new(&keys(suite, false)).unwrap();
            let bad: [[u8; 16]; 4] = [
                [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 3, 47],
                [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1, 2, 4, 3, 47],
                [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 15, 47],
                [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 255, 47],
            ];
            for (sequence, body) in (1..).zip(bad) {
                let mut packet = sealed_body(suite, sequence, &body);
                assert_eq!(opener.open(&mut packet), Err(OpenError::BadPadding), "{suite} {sequence}");
            }
            // It was authentic, so that its number is used.
            assert_eq!(opener.window().highest(), 4);
        }
    }

    #[test]
    fn more_padding_than_needed_is_fine() {
        for suite in Suite::ALL {
            let mut opener = Opener::new(&keys(suite, false)).unwrap();
            let body: Vec<u8> = (1..=254).chain([254, 47]).collect();
            let opened = opener.open(&mut sealed_body(suite, 1, &body)).unwrap();
            assert!(opened.payload.is_empty());
        }
    }

    #[test]
    fn a_successor_refuses_what_its_predecessor_received() {
        for (suite, esn) in every() {
            let (mut sealer, mut opener) = both(suite, esn);
            let mut packets: Vec<_> = (0..100).map(|_| sealed(&mut sealer, b"hello")).collect();
            let received = packets.clone();
            for packet in packets.iter_mut().step_by(2) {
                assert!(opener.open(packet).is_ok());
            }
            let stored = postcard::to_stdvec(opener.window()).unwrap();
            let mut successor =
                Opener::resume(&keys(suite, esn), postcard::from_bytes(&stored).unwrap()).unwrap();
            for (at, mut packet) in received.into_iter().enumerate() {
                let wanted = if at % 2 == 0 { Err(OpenError::Replayed) } else { Ok(at as u64 + 1) };
                assert_eq!(successor.open(&mut packet).map(|opened| opened.sequence), wanted);
            }
        }
    }

    #[test]
    fn an_sa_is_small() {
        assert!(size_of::<Opener>() <= 640, "{}", size_of::<Opener>());
        assert!(size_of::<Sealer>() <= 64, "{}", size_of::<Sealer>());
    }
}
