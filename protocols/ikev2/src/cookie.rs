//! Cookies: strangers prove that they receive where they say they are, before they cost us anything (RFC 7296 §2.6).

use crate::Address;
use hmac::{Hmac, KeyInit, Mac};
use packet::Instant;
use rand::Rng;
use sha2::Sha256;
use std::net::IpAddr;
use std::time::Duration;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret is used so long, and honoured once more as long.
const LIFETIME: Duration = Duration::from_secs(60);

/// Octets of a cookie. RFC 7296 §2.6 allows 1 to 64.
const LEN: usize = 32;

type Secret = Zeroizing<[u8; 32]>;

/// Makes and checks cookies; keeps nothing about those who got one.
pub(crate) struct Cookies {
    current: Secret,
    previous: Secret,
    since: Instant,
}

impl Cookies {
    pub(crate) fn new(rng: &mut impl Rng, now: Instant) -> Self {
        Self { current: secret(rng), previous: secret(rng), since: now }
    }

    /// The cookie for an initiator.
    ///
    /// ```text
    /// //= rfc7296#2.6
    /// Cookie = <VersionIDofSecret> | Hash(Ni | IPi | SPIi | <secret>)
    /// ```
    /// The version is left out: there are two secrets, and both are tried.
    pub(crate) fn make(
        &mut self,
        rng: &mut impl Rng,
        now: Instant,
        from: Address,
        spi: u64,
        nonce: &[u8],
    ) -> Vec<u8> {
        self.turn(rng, now);
        compute(&self.current, from, spi, nonce).to_vec()
    }

    /// Is this a cookie that we gave to this initiator, lately?
    pub(crate) fn check(
        &mut self,
        rng: &mut impl Rng,
        now: Instant,
        from: Address,
        spi: u64,
        nonce: &[u8],
        cookie: &[u8],
    ) -> bool {
        self.turn(rng, now);
        let current = compute(&self.current, from, spi, nonce).ct_eq(cookie);
        let previous = compute(&self.previous, from, spi, nonce).ct_eq(cookie);
        (current | previous).into()
    }

    //= rfc7296#2.6
    //# The responder should change the value of <secret> frequently, especially if under attack.
    fn turn(&mut self, rng: &mut impl Rng, now: Instant) {
        let age = now.since(self.since);
        if age >= LIFETIME {
            let old = std::mem::replace(&mut self.current, secret(rng));
            self.previous = if age < 2 * LIFETIME { old } else { secret(rng) };
            self.since = now;
        }
    }
}

fn secret(rng: &mut impl Rng) -> Secret {
    let mut octets = Zeroizing::new([0; 32]);
    rng.fill_bytes(octets.as_mut());
    octets
}

fn compute(secret: &Secret, from: Address, spi: u64, nonce: &[u8]) -> [u8; LEN] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_slice()) else { return [0; LEN] };
    mac.update(&spi.to_be_bytes());
    match from.remote.ip() {
        IpAddr::V4(a) => mac.update(&a.octets()),
        IpAddr::V6(a) => mac.update(&a.octets()),
    }
    mac.update(&from.remote.port().to_be_bytes());
    mac.update(nonce);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalPort;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn address(text: &str) -> Address {
        Address { remote: text.parse().unwrap(), local: LocalPort::NatTraversal }
    }

    #[test]
    fn a_cookie_is_good_for_its_initiator_alone() {
        let mut rng = StdRng::from_seed([1; 32]);
        let now = Instant::from_nanos(1);
        let mut cookies = Cookies::new(&mut rng, now);
        let (from, nonce) = (address("192.0.2.1:4500"), [7; 32]);
        let cookie = cookies.make(&mut rng, now, from, 5, &nonce);
        assert!(cookies.check(&mut rng, now, from, 5, &nonce, &cookie));
        assert!(!cookies.check(&mut rng, now, address("192.0.2.2:4500"), 5, &nonce, &cookie));
        assert!(!cookies.check(&mut rng, now, address("192.0.2.1:4501"), 5, &nonce, &cookie));
        assert!(!cookies.check(&mut rng, now, from, 6, &nonce, &cookie));
        assert!(!cookies.check(&mut rng, now, from, 5, &[8; 32], &cookie));
        assert!(!cookies.check(&mut rng, now, from, 5, &nonce, &cookie[..31]));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret_and_not_two() {
        let mut rng = StdRng::from_seed([1; 32]);
        let now = Instant::from_nanos(1);
        let mut cookies = Cookies::new(&mut rng, now);
        let (from, nonce) = (address("192.0.2.1:4500"), [7; 32]);
        let cookie = cookies.make(&mut rng, now, from, 5, &nonce);
        assert!(cookies.check(&mut rng, now + LIFETIME, from, 5, &nonce, &cookie));
        assert!(!cookies.check(&mut rng, now + 2 * LIFETIME, from, 5, &nonce, &cookie));
    }
}
