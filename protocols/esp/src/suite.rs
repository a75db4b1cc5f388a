//! The ciphers of ESP.

use serde::{Deserialize, Serialize};
use std::fmt;

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
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
