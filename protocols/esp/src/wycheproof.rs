//! Project Wycheproof's vectors, run through the code that composes the libraries.

use crate::aead::Aead;
use crate::cbc_hmac::CbcHmac;
use crate::cipher::{Cipher, Place, Refused};
use hmac::Mac;
use wycheproof::{TestResult, aead, cipher, mac};

#[test]
fn aes_gcm() {
    let counts = run_aead(aead::TestName::AesGcm, |key_size| match key_size {
        128 => Some(&ring::aead::AES_128_GCM),
        256 => Some(&ring::aead::AES_256_GCM),
        _ => None,
    });
    assert_eq!(counts, Counts { ran: 133, as_packets: 4 });
}

#[test]
fn chacha20_poly1305() {
    let counts = run_aead(aead::TestName::ChaCha20Poly1305, |_| Some(&ring::aead::CHACHA20_POLY1305));
    assert_eq!(counts, Counts { ran: 316, as_packets: 47 });
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    ran: usize,
    /// Additional data of 8 or 12 octets: as an ESP packet has it.
    as_packets: usize,
}

fn run_aead(
    name: aead::TestName,
    algorithm: impl Fn(usize) -> Option<&'static ring::aead::Algorithm>,
) -> Counts {
    let mut counts = Counts::default();
    for group in aead::TestSet::load(name).unwrap().test_groups {
        let Some(algorithm) = algorithm(group.key_size) else { continue };
        if group.nonce_size != 96 || group.tag_size != 128 {
            continue;
        }
        for test in group.tests {
            check_aead(algorithm, &test, &mut counts);
        }
    }
    counts
}

fn check_aead(algorithm: &'static ring::aead::Algorithm, test: &aead::Test, counts: &mut Counts) {
    let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
    let tag: [u8; 16] = test.tag[..].try_into().unwrap();
    let valid = test.result == TestResult::Valid;
    let (salt, iv) = nonce.split_at(4);
    let aead = Aead::new(algorithm, &[&test.key[..], salt].concat()).unwrap();

    let mut body = test.ct.to_vec();
    assert_eq!(aead.decrypt(nonce, &test.aad, &mut body, tag).is_ok(), valid, "{test:?}");
    if valid {
        assert_eq!(body, test.pt[..], "{test:?}");
        assert_eq!(aead.encrypt(nonce, &test.aad, &mut body), Ok(tag), "{test:?}");
        assert_eq!(body, test.ct[..], "{test:?}");
    }
    counts.ran += 1;

    let Some(place) = place(&test.aad) else { return };
    let mut body = test.ct.to_vec();
    assert_eq!(aead.open(place, iv, &mut body, &tag).is_ok(), valid, "{test:?}");
    if valid {
        assert_eq!(body, test.pt[..], "{test:?}");
    }
    counts.as_packets += 1;
}

/// The packet whose additional data this is.
fn place(additional: &[u8]) -> Option<Place> {
    let (spi, sequence) = additional.split_first_chunk()?;
    let spi = u32::from_be_bytes(*spi);
    if let Ok(low) = sequence.try_into() {
        return Some(Place { spi, sequence: u32::from_be_bytes(low).into(), esn: false });
    }
    let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
    Some(Place { spi, sequence, esn: true })
}

#[test]
fn hmac_sha256_cut_to_128_bits() {
    let mut ran = 0;
    for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
        if (group.key_size, group.tag_size) != (256, 128) {
            continue;
        }
        for test in group.tests {
            let Some(place) = test.msg.get(..8).and_then(place) else { continue };
            let hmac = CbcHmac::<aes::Aes128>::new(&[&[0; 16], &test.key[..]].concat()).unwrap();
            let verified = hmac.authenticate(place, &[], &test.msg[8..]).verify_truncated_left(&test.tag);
            assert_eq!(verified.is_ok(), test.result == TestResult::Valid, "{test:?}");
            ran += 1;
        }
    }
    assert_eq!(ran, 46);
}

#[test]
fn aes_cbc() {
    let mut ran = 0;
    for group in cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap().test_groups {
        for test in group.tests {
            // The bad ones are about PKCS #5 padding, which ESP does not have.
            if test.result != TestResult::Valid {
                continue;
            }
            let padding = 16 - test.pt.len() % 16;
            let plain = [&test.pt[..], &vec![padding as u8; padding]].concat();
            let material = [&test.key[..], &[9; 32]].concat();
            let opened = match group.key_size {
                128 => open_cbc::<aes::Aes128>(&material, &test.nonce, &test.ct),
                256 => open_cbc::<aes::Aes256>(&material, &test.nonce, &test.ct),
                _ => continue,
            };
            assert_eq!(opened, Ok(plain), "{test:?}");
            ran += 1;
        }
    }
    assert_eq!(ran, 48);
}

fn open_cbc<C>(material: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Refused>
where
    C: aes::cipher::KeyInit,
    CbcHmac<C>: Cipher,
{
    let place = Place { spi: 256, sequence: 1, esn: false };
    let cipher = CbcHmac::<C>::new(material).unwrap();
    let icv = cipher.authenticate(place, iv, ciphertext).finalize().into_bytes();
    let mut body = ciphertext.to_vec();
    cipher.open(place, iv, &mut body, &icv[..16]).map(|()| body)
}
