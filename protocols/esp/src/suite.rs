//! The ciphers of ESP.

use crate::Header;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Octets of pad length and next header.
pub(crate) const TRAILER_LEN: usize = 2;

/// How packets of an SA are protected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Suite {
    /// AES-128-GCM with a 16-octet ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-256-GCM with a 16-octet ICV (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-128-CBC with HMAC-SHA-256-128 (RFC 3602, RFC 4868): for old routers, off by default.
    Aes128CbcSha256,
    /// AES-256-CBC with HMAC-SHA-256-128 (RFC 3602, RFC 4868): for old routers, off by default.
    Aes256CbcSha256,
}

impl Suite {
    /// All suites, best first.
    pub const ALL: [Self; 5] = [
        Self::Aes128Gcm16,
        Self::Aes256Gcm16,
        Self::ChaCha20Poly1305,
        Self::Aes128CbcSha256,
        Self::Aes256CbcSha256,
    ];

    /// Its name, as strongSwan users know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::Aes128CbcSha256 => "aes128-sha256",
            Self::Aes256CbcSha256 => "aes256-sha256",
        }
    }

    /// Octets of keying material that IKEv2 derives for one direction: the cipher's key, then its salt (AEAD) or the
    /// integrity key (RFC 7296 §2.17, RFC 5282).
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16 + 4,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + 4,
            Self::Aes128CbcSha256 => 16 + 32,
            Self::Aes256CbcSha256 => 32 + 32,
        }
    }

    /// Is it one cipher for secrecy and integrity?
    #[must_use]
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305)
    }

    /// Octets of the IV in each packet.
    #[inline]
    #[must_use]
    pub const fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// Octets of the ICV at the end of each packet.
    #[inline]
    #[must_use]
    pub const fn icv_len(self) -> usize {
        16
    }

    /// What the ciphertext is a multiple of, in octets: a cipher block, and at least four (RFC 4303 §2.4).
    #[inline]
    #[must_use]
    pub const fn alignment(self) -> usize {
        if self.is_aead() { 4 } else { 16 }
    }

    /// Octets before the payload: SPI, sequence number and IV.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        Header::LEN + self.iv_len()
    }

    /// Octets of the packet that a payload of this many octets becomes.
    #[inline]
    #[must_use]
    pub const fn sealed_len(self, payload: usize) -> usize {
        let mask = self.alignment() - 1;
        let body = payload.saturating_add(TRAILER_LEN + mask) & !mask;
        body.saturating_add(self.header_len() + self.icv_len())
    }

    /// Octets of the longest payload whose packet is no longer than `room`, for the MTU of a tunnel; `None` if not even an
    /// empty payload fits.
    #[must_use]
    pub const fn largest_payload(self, room: usize) -> Option<usize> {
        let Some(body) = room.checked_sub(self.header_len() + self.icv_len()) else { return None };
        (body & !(self.alignment() - 1)).checked_sub(TRAILER_LEN)
    }

    /// Octets that a packet is longer than its payload, at most.
    #[must_use]
    pub const fn overhead(self) -> usize {
        self.header_len() + self.alignment() - 1 + TRAILER_LEN + self.icv_len()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_as_long_as_its_parts() {
        let all = |payload| Suite::ALL.map(|suite| suite.sealed_len(payload));
        assert_eq!(all(0), [36, 36, 36, 56, 56]);
        assert_eq!(all(2), [36, 36, 36, 56, 56]);
        assert_eq!(all(3), [40, 40, 40, 56, 56]);
        assert_eq!(all(14), [48, 48, 48, 56, 56]);
        assert_eq!(all(15), [52, 52, 52, 72, 72]);
        assert_eq!(all(1400), [1436, 1436, 1436, 1448, 1448]);
    }

    #[test]
    fn the_largest_payload_fits_and_one_octet_more_does_not() {
        for suite in Suite::ALL {
            for room in 0..300 {
                let Some(payload) = suite.largest_payload(room) else {
                    assert!(suite.sealed_len(0) > room);
                    continue;
                };
                assert!(suite.sealed_len(payload) <= room);
                assert!(suite.sealed_len(payload + 1) > room);
            }
        }
    }

    #[test]
    fn the_overhead_is_reached_and_never_exceeded() {
        for suite in Suite::ALL {
            let most = (0..64).map(|payload| suite.sealed_len(payload) - payload).max();
            assert_eq!(most, Some(suite.overhead()), "{suite}");
        }
    }

    #[test]
    fn an_impossible_length_does_not_overflow() {
        for suite in Suite::ALL {
            assert!(suite.sealed_len(usize::MAX) > usize::MAX - 64);
        }
    }
}
