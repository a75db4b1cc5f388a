//! One message, from any bytes. Shared by the fuzz target and the replay of its corpus.

use dmvpn_ikev2::codes::ExchangeType;
use dmvpn_ikev2::crypto::{Cipher, Fragment, Group, Integrity, Opener, SideKeys};
use dmvpn_ikev2::fragment::Reassembly;
use dmvpn_ikev2::payload::Payload;
use dmvpn_ikev2::proposal::{self, EspProposals, IkeProposals, Stage};
use dmvpn_ikev2::{Header, Identification, Message, rules};

/// What decodes must encode, and decode to the same again. Nothing that is then done with it panics.
pub fn check(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_length(bytes)] {
        let Ok(message) = Message::decode(&bytes) else { continue };
        let again = message.encode().expect("as long as it was, or shorter");
        assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
        read(&message);
        open(&bytes);
        reassemble(message.header, &bytes);
    }
}

/// The bytes with a header that is right about version and length, so that damage elsewhere is looked at.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(version) = bytes.get_mut(17) {
        *version = 0x20;
    }
    let length = u32::try_from(bytes.len()).expect("shorter than 4 GiB").to_be_bytes();
    if let Some(field) = bytes.get_mut(24..28) {
        field.copy_from_slice(&length);
    }
    bytes
}

/// All that is asked of a message.
fn read(message: &Message) {
    let Header { exchange, response, .. } = message.header;
    let _ = rules::check(exchange, response, &message.payloads);
    let _ = rules::check(ExchangeType::IKE_AUTH, response, &message.payloads);
    for payload in &message.payloads {
        match payload {
            Payload::SecurityAssociation(proposals) => {
                assert!(proposal::describe(proposals).len() < 500);
                let ike = IkeProposals::parse(&["aes256gcm16-prfsha384-x25519", "aes128-sha256-modp2048"]);
                let ike = ike.expect("names of ours");
                if let Some(choice) = ike.select(proposals) {
                    assert!(choice.answer(&[]).transforms.len() <= 12);
                }
                let _ = ike.accept(proposals);
                let esp = EspProposals::parse(&["aes128gcm16", "aes128-sha256"]).expect("names of ours");
                for stage in [Stage::Auth, Stage::Create(Group::X25519)] {
                    let _ = esp.select(proposals, stage);
                    let _ = esp.accept(proposals, stage);
                }
            }
            Payload::IdInitiator(id) | Payload::IdResponder(id) => {
                if let Ok(known) = Identification::try_from(id) {
                    let _ = known.to_string();
                }
            }
            other => drop(format!("{other:?}")),
        }
    }
}

/// Nobody has the keys, so nothing opens; not even with an ICV of 128 bits that is guessed.
fn open(bytes: &[u8]) {
    for cipher in [Cipher::Aes128Gcm16, Cipher::ChaCha20Poly1305, Cipher::Aes256Cbc(Integrity::HmacSha384)] {
        let keys = SideKeys {
            integrity: vec![1; cipher.integrity_key_len()].into(),
            encryption: vec![2; cipher.key_len()].into(),
            authentication: Vec::new().into(),
        };
        assert!(Opener::new(cipher, keys).open(bytes).is_err());
    }
}

/// The bytes as fragments: three octets say number, total, and length of each.
fn reassemble(header: Header, bytes: &[u8]) {
    let mut reassembly = Reassembly::default();
    let mut rest = bytes;
    while let Some(([number, total, length], behind)) = rest.split_first_chunk() {
        let (data, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let (first, number, total) =
            (dmvpn_ikev2::codes::PayloadType::SA, u16::from(*number), u16::from(*total));
        let _ = reassembly.add(Fragment { header, first, number, total, data: data.to_vec() });
    }
}
