//! ESP (RFC 4303) in transport mode, as pure functions over buffers: seal and open in place, the replay window,
//! sequence numbers and lifetimes. Keys come from IKEv2; who owns an SA, and where packets go, is the dataplane's.
//!
//! | for | see |
//! |---|---|
//! | sending | [`Sealer`], [`Lifetime`] |
//! | receiving | [`spi_of`], [`Wrapped`], [`Opener`] |
//! | how much room a packet takes | [`Suite::header_len`], [`Suite::sealed_len`], [`Suite::largest_payload`] |
//! | the handover to another process | [`Sealer::sequence`], [`Sealer::jump`], [`Opener::window`], [`Opener::resume`] |
//!
//! ```
//! use dmvpn_esp::{Keys, Opener, Sealer, Suite};
//!
//! let keys = Keys { spi: 0x1000, suite: Suite::Aes128Gcm16, esn: false, material: vec![7; 20].into() };
//! let (mut sealer, mut opener) = (Sealer::new(&keys)?, Opener::new(&keys)?);
//!
//! let mut buffer = [0; 100];
//! let payload = sealer.header_len();
//! buffer[payload..payload + 5].copy_from_slice(b"hello");
//! let length = sealer.seal(&mut buffer, 5, 47)?;
//!
//! let opened = opener.open(&mut buffer[..length])?;
//! assert_eq!((&buffer[opened.payload], opened.next_header, opened.sequence), (&b"hello"[..], 47, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An SA has one owner in each direction, so both types are plain `&mut`; nothing here allocates per packet, branches on
//! a secret, or panics on bytes from the network.
#![forbid(unsafe_code)]

mod aead;
mod cbc_hmac;
mod cipher;
mod error;
mod header;
mod keys;
mod lifetime;
mod opener;
mod sealer;
#[cfg(test)]
mod second;
mod suite;
#[cfg(test)]
mod testing;
mod window;
#[cfg(test)]
mod wycheproof;

pub use error::{BadKeys, OpenError, SealError};
pub use header::{Header, Wrapped, spi_of};
pub use keys::Keys;
pub use lifetime::{Lifetime, Limits};
pub use opener::{Opened, Opener};
pub use sealer::Sealer;
pub use suite::Suite;
pub use window::{ReplayWindow, WINDOW};

/// The next header of a dummy packet, which is to be dropped without a word (RFC 4303 §2.6).
pub const NO_NEXT_HEADER: u8 = 59;

/// SPIs below this are reserved by IANA (RFC 4303 §2.1); 0 on UDP port 4500 announces an IKE message.
pub const FIRST_SPI: u32 = 256;
