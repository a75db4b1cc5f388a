//! Project Wycheproof's vectors for what is composed here: what must not be accepted, above all.

use super::prf::mac;
use super::{Group, InvalidPublicValue, KeyPair};
use rand::{TryCryptoRng, TryRng};
use sha2::{Sha256, Sha384};
use std::convert::Infallible;
use wycheproof::{TestResult, ecdh, mac, xdh};

/// An RNG that says a private key.
struct Says(Vec<u8>);

impl TryRng for Says {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are made of octets")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are made of octets")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Says {}

#[test]
fn x25519() {
    let mut checked = 0;
    for group in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let pair = KeyPair::generate(Group::X25519, &mut Says(test.private_key.to_vec()));
            let agreed = pair.agree(&test.public_key);
            if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
                // RFC 7748 leaves it open; refused here.
                assert_eq!(agreed, Err(InvalidPublicValue), "{test:?}");
            } else {
                assert_ne!(test.result, TestResult::Invalid);
                assert_eq!(*agreed.unwrap(), *test.shared_secret, "{}", test.tc_id);
            }
            checked += 1;
        }
    }
    assert!(checked > 500);
}

#[test]
fn ecp_256() {
    ecp(Group::Ecp256, 32, ecdh::TestName::EcdhSecp256r1Ecpoint);
}

#[test]
fn ecp_384() {
    ecp(Group::Ecp384, 48, ecdh::TestName::EcdhSecp384r1Ecpoint);
}

fn ecp(group: Group, octets: usize, name: ecdh::TestName) {
    let (mut agreed, mut refused) = (0, 0);
    for set in ecdh::TestSet::load(name).unwrap().test_groups {
        for test in set.tests {
            let digits = test.private_key.iter().skip_while(|b| **b == 0).copied().collect::<Vec<_>>();
            let mut private = vec![0; octets - digits.len()];
            private.extend(digits);
            let pair = KeyPair::generate(group, &mut Says(private));
            // IKE has uncompressed points, and no mark before them.
            let point = test.public_key.strip_prefix(&[4]).unwrap_or(&test.public_key);
            match pair.agree(point) {
                Ok(secret) => {
                    assert_eq!(*secret, *test.shared_secret, "{}", test.tc_id);
                    assert_ne!(test.result, TestResult::Invalid, "{}", test.tc_id);
                    agreed += 1;
                }
                Err(InvalidPublicValue) => {
                    let compressed = test.flags.contains(&ecdh::TestFlag::CompressedPoint);
                    assert!(compressed || test.result == TestResult::Invalid, "{test:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(agreed > 200 && refused > 5, "{agreed} {refused}");
}

#[test]
fn hmac() {
    for name in [mac::TestName::HmacSha256, mac::TestName::HmacSha384] {
        let mut checked = 0;
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let parts = test.msg.split_at(test.msg.len() / 2);
                let full = match name {
                    mac::TestName::HmacSha256 => mac::<Sha256>(&test.key, &[parts.0, parts.1]),
                    _ => mac::<Sha384>(&test.key, &[parts.0, parts.1]),
                };
                let same = full[..group.tag_size / 8] == **test.tag;
                assert_eq!(same, test.result == TestResult::Valid, "{}", test.tc_id);
                checked += 1;
            }
        }
        assert!(checked > 100);
    }
}
