//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and the pseudo headers of IPv4 (RFC 9293
//! §3.1) and IPv6 (RFC 8200 §8.1).
//!
//! Sums are kept in the machine's own byte order (RFC 1071 §2(B): the sum does not depend on it), in 64 bits, so that
//! the loop over a payload neither swaps nor carries; folding comes last.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A sum under way. Pieces are added in any order, but every piece but the last must have an even length.
#[derive(Clone, Copy, Default, Debug)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// Nothing added yet.
    pub const ZERO: Self = Self(0);

    /// Adds octets. An odd last octet counts as if a zero followed it.
    #[inline]
    pub fn with(self, bytes: &[u8]) -> Self {
        // Eight lanes of 32-bit words in 64-bit accumulators: no carry can be lost below 16 GB, and the compiler turns
        // the body into vector additions.
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut lanes = [0u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = self.0;
        for lane in lanes {
            sum = fold64(sum, lane);
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum = fold64(sum, u64::from(u32::from_ne_bytes(*word)));
        }
        let tail = match *rest {
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c] => u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0])),
            _ => 0,
        };
        Self(fold64(sum, tail))
    }

    /// Adds a 16-bit number as it stands in a packet.
    #[inline]
    pub fn with_u16(self, value: u16) -> Self {
        Self(fold64(self.0, u64::from(value.to_be())))
    }

    /// Adds a 32-bit number as it stands in a packet at an even offset.
    #[inline]
    pub fn with_u32(self, value: u32) -> Self {
        Self(fold64(self.0, u64::from(value.to_be())))
    }

    /// Takes a 16-bit number out again.
    #[inline]
    pub fn without_u16(self, value: u16) -> Self {
        self.with_u16(!value)
    }

    /// The pseudo header of an IPv4 packet.
    pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u32) -> Self {
        Self::ZERO
            .with(&source.octets())
            .with(&destination.octets())
            .with_u16(u16::from(protocol))
            .with_u32(length)
    }

    /// The pseudo header of an IPv6 packet.
    pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u32) -> Self {
        Self::ZERO
            .with(&source.octets())
            .with(&destination.octets())
            .with_u16(u16::from(protocol))
            .with_u32(length)
    }

    /// The pseudo header for two addresses of the same version; `length` is that of the upper-layer packet.
    pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Self {
        let sum = match source {
            IpAddr::V4(a) => Self::ZERO.with(&a.octets()),
            IpAddr::V6(a) => Self::ZERO.with(&a.octets()),
        };
        let sum = match destination {
            IpAddr::V4(a) => sum.with(&a.octets()),
            IpAddr::V6(a) => sum.with(&a.octets()),
        };
        sum.with_u16(u16::from(protocol)).with_u32(length)
    }

    /// The one's complement sum in 16 bits, as a number (big-endian on the wire), not complemented.
    #[inline]
    #[must_use]
    pub fn fold(self) -> u16 {
        let mut s = self.0;
        s = (s & 0xffff_ffff) + (s >> 32);
        s = (s & 0xffff) + (s >> 16);
        s = (s & 0xffff) + (s >> 16);
        s = (s & 0xffff) + (s >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
        u16::from_be(s as u16)
    }

    /// The checksum to write into a header.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum to write into a UDP header, where zero means "none" and is sent as all ones (RFC 768).
    #[inline]
    #[must_use]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            c => c,
        }
    }

    /// Is this the sum of something that contains its own right checksum?
    #[inline]
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum of one piece of bytes.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.with(bytes).finish()
}

/// The checksum after a 16-bit word it covers changed from `old` to `new` (RFC 1624 equation 3).
#[inline]
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    // HC' = ~(~HC + ~m + m')
    let mut s = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    {
        !(s as u16)
    }
}

/// Adds with the carry brought round, so that nothing is lost however much is added.
#[inline]
const fn fold64(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.with(&bytes).fold(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates() {
        // §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xFFFF.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn all_ones_lose_no_carry() {
        let bytes = vec![0xff; 65535];
        assert_eq!(checksum(&bytes), naive(&bytes));
    }

    #[test]
    fn a_udp_checksum_is_never_zero() {
        assert_eq!(Sum::ZERO.with(&[0xff, 0xff]).finish(), 0);
        assert_eq!(Sum::ZERO.with(&[0xff, 0xff]).finish_udp(), 0xffff);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn pieces_sum_like_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..500), at in 0usize..250
        ) {
            let at = (2 * at).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(at);
            prop_assert_eq!(Sum::ZERO.with(b).with(a).finish(), checksum(&bytes));
        }

        #[test]
        fn an_update_equals_a_fresh_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..64), at in 0usize..4, new: u16
        ) {
            bytes[0] |= 1; // A sum of all zeros is the one case where +0 and -0 differ.
            let at = 2 * at + 2 - 2 * usize::from(at == 3);
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), checksum(&bytes));
        }
    }
}
