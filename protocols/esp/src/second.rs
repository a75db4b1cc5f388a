//! A second opinion on the AEADs, from other libraries and composed by itself. Both implementations must make the same
//! bytes of the same input, and open what the other sealed.

use crate::cipher::{Cipher, Place, Refused};
use crate::{Keys, Opener, ReplayWindow, Sealer, Suite};
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use proptest::prelude::*;

struct Second<A> {
    aead: A,
    salt: Vec<u8>,
}

impl<A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Send + Sync + 'static> Second<A> {
    fn boxed(material: &[u8]) -> Box<dyn Cipher> {
        let (key, salt) = material.split_at(material.len() - 4);
        Box::new(Self { aead: A::new_from_slice(key).unwrap(), salt: salt.to_vec() })
    }

    fn nonce(&self, iv: &[u8]) -> Nonce<A> {
        Nonce::<A>::try_from(&[&self.salt, iv].concat()[..]).unwrap()
    }
}

impl<A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Send + Sync + 'static> Cipher for Second<A> {
    fn seal(&self, place: Place, iv: &mut [u8], body: &mut [u8], icv: &mut [u8]) -> Result<(), Refused> {
        iv.copy_from_slice(&place.sequence.to_be_bytes());
        let nonce = self.nonce(iv);
        let tag = self.aead.encrypt_inout_detached(&nonce, &additional(place), body.into()).unwrap();
        icv.copy_from_slice(&tag);
        Ok(())
    }

    fn open(&self, place: Place, iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), Refused> {
        let (nonce, tag) = (self.nonce(iv), Tag::<A>::try_from(icv).unwrap());
        let opened = self.aead.decrypt_inout_detached(&nonce, &additional(place), body.into(), &tag);
        opened.map_err(|_| Refused)
    }
}

fn additional(place: Place) -> Vec<u8> {
    let mut data = place.spi.to_be_bytes().to_vec();
    if place.esn {
        data.extend(place.sequence.to_be_bytes());
    } else {
        data.extend(u32::try_from(place.sequence).unwrap().to_be_bytes());
    }
    data
}

fn second(keys: &Keys) -> Box<dyn Cipher> {
    match keys.suite {
        Suite::Aes128Gcm16 => Second::<Aes128Gcm>::boxed(&keys.material),
        Suite::Aes256Gcm16 => Second::<Aes256Gcm>::boxed(&keys.material),
        Suite::ChaCha20Poly1305 => Second::<ChaCha20Poly1305>::boxed(&keys.material),
        Suite::Aes128CbcSha256 | Suite::Aes256CbcSha256 => unreachable!("one implementation"),
    }
}

fn any_keys() -> impl Strategy<Value = Keys> {
    let suites = [Suite::Aes128Gcm16, Suite::Aes256Gcm16, Suite::ChaCha20Poly1305];
    (256..=u32::MAX, proptest::sample::select(suites.to_vec()), any::<bool>(), any::<[u8; 36]>()).prop_map(
        |(spi, suite, esn, octets)| {
            let material = octets[..suite.key_len()].to_vec().into();
            Keys { spi, suite, esn, material }
        },
    )
}

proptest! {
    #[test]
    fn both_implementations_make_the_same_packet_and_open_it(
        keys in any_keys(),
        before in any::<u64>(),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        next_header: u8,
    ) {
        // Without ESN there are 32 bits; with it, the receiver's window stands where the sender does.
        let before = if keys.esn { before.clamp(1, u64::MAX - 1) } else { before % u64::from(u32::MAX - 1) };
        let mut window = ReplayWindow::default();
        window.accept(before);
        let sealers = [Sealer::new(&keys).unwrap(), Sealer::with_cipher(&keys, second(&keys))];
        let packets = sealers.map(|mut sealer| {
            sealer.jump(before);
            let mut packet = vec![0; sealer.sealed_len(payload.len())];
            packet[sealer.header_len()..][..payload.len()].copy_from_slice(&payload);
            assert_eq!(sealer.seal(&mut packet, payload.len(), next_header), Ok(packet.len()));
            packet
        });
        prop_assert_eq!(&packets[0], &packets[1]);
        let first = Opener::resume(&keys, window.clone()).unwrap();
        for mut opener in [first, Opener::with_cipher(&keys, window, second(&keys))] {
            let mut packet = packets[0].clone();
            let opened = opener.open(&mut packet).unwrap();
            prop_assert_eq!(&packet[opened.payload], &payload[..]);
            prop_assert_eq!((opened.next_header, opened.sequence), (next_header, before + 1));
        }
    }

    #[test]
    fn both_implementations_refuse_a_changed_packet(
        keys in any_keys(),
        length in 0..200usize,
        place: proptest::sample::Index,
        change in 1..=u8::MAX,
    ) {
        let mut sealer = Sealer::new(&keys).unwrap();
        let mut packet = vec![0; sealer.sealed_len(length)];
        sealer.seal(&mut packet, length, 47).unwrap();
        let at = place.index(packet.len());
        packet[at] ^= change;
        let first = Opener::new(&keys).unwrap();
        for mut opener in [first, Opener::with_cipher(&keys, ReplayWindow::default(), second(&keys))] {
            prop_assert!(opener.open(&mut packet.clone()).is_err());
            prop_assert_eq!(opener.window(), &ReplayWindow::default());
        }
    }
}
