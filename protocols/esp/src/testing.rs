//! What the tests of this crate share.

use crate::{Keys, Opener, Sealer, Suite};

/// Octets written as hexadecimal digits, with any white space between.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn keys(suite: Suite, esn: bool) -> Keys {
    let material = (0..).take(suite.key_len()).collect::<Vec<u8>>().into();
    Keys { spi: 0xc0ff_ee01, suite, esn, material }
}

/// Both ends of one direction.
pub(crate) fn both(suite: Suite, esn: bool) -> (Sealer, Opener) {
    let keys = keys(suite, esn);
    (Sealer::new(&keys).unwrap(), Opener::new(&keys).unwrap())
}

/// A GRE packet, sealed.
pub(crate) fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; sealer.sealed_len(payload.len())];
    packet[sealer.header_len()..][..payload.len()].copy_from_slice(payload);
    sealer.seal(&mut packet, payload.len(), 47).unwrap();
    packet
}
