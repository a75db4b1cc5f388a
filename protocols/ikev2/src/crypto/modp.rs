//! MODP-2048 (RFC 3526 §3), for old routers: constant-time exponentiation by `crypto-bigint`.

use super::Secret;
use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{U256, U2048, const_monty_params};
use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const_monty_params!(
    Modp2048,
    U2048,
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
     ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
     ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f\
     83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
     e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510\
     15728e5a8aacaa68ffffffffffffffff",
    "The prime of group 14."
);

type Element = ConstMontyForm<Modp2048, { U2048::LIMBS }>;

/// Octets of a public value and of the shared secret.
pub(super) const LEN: usize = 256;

/// An exponent of 256 bits: twice the strength of the group, and more (RFC 3526 §8).
pub(super) struct Exponent(U256);

impl Exponent {
    pub(super) fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut octets = Zeroizing::new([0; 32]);
        rng.fill_bytes(octets.as_mut());
        Self(U256::from_be_slice(octets.as_ref()))
    }

    /// 2^x.
    pub(super) fn public(&self) -> Vec<u8> {
        self.power(&Element::new(&U2048::from_u8(2))).to_vec()
    }

    /// y^x, if y is a public value that somebody may have.
    pub(super) fn agree(&self, peer: &[u8]) -> Option<Secret> {
        let peer: &[u8; LEN] = peer.try_into().ok()?;
        let peer = U2048::from_be_slice(peer);
        let last = modulus().wrapping_sub(&U2048::ONE);
        //= rfc6989#2.1
        // The value must be in the legal range, 1 < y < p-1: then it is of the large subgroup, or of the whole group.
        (peer > U2048::ONE && peer < last).then(|| self.power(&Element::new(&peer)))
    }

    fn power(&self, base: &Element) -> Secret {
        let mut result = base.pow_bounded_exp(&self.0, U256::BITS).retrieve();
        let octets = Zeroizing::new(result.to_be_bytes());
        result.zeroize();
        Zeroizing::new(octets.as_ref().to_vec())
    }
}

impl Drop for Exponent {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Exponent {}

fn modulus() -> U2048 {
    use crypto_bigint::modular::ConstMontyParams;
    *Modp2048::PARAMS.modulus().as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_leave_no_choice_are_refused() {
        let exponent = Exponent(U256::from_u64(12345));
        let refused = [
            U2048::ZERO,
            U2048::ONE,
            modulus().wrapping_sub(&U2048::ONE),
            modulus(),
            modulus().wrapping_add(&U2048::ONE),
        ];
        for value in refused {
            assert!(exponent.agree(value.to_be_bytes().as_ref()).is_none(), "{value}");
        }
        assert!(exponent.agree(&[1; LEN - 1]).is_none());
        assert!(exponent.agree(&[1; LEN]).is_some());
    }

    #[test]
    fn both_sides_get_the_same_secret() {
        let (a, b) = (Exponent(U256::MAX), Exponent(U256::from_u64(3)));
        assert_eq!(a.agree(&b.public()), b.agree(&a.public()));
        assert_eq!(Exponent(U256::from_u64(10)).public(), U2048::from_u64(1024).to_be_bytes().as_ref());
    }
}
