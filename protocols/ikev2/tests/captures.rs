//! What strongSwan sent decrypts, decodes, and encodes to the same octets again; its keys, AUTH and hashes are ours.
#![allow(missing_docs)]

use aes_gcm::aead::{Aead, KeyInit, Payload as AeadPayload};
use dmvpn_ikev2::codes::{ExchangeType, GroupId, NotifyType, PayloadType};
use dmvpn_ikev2::crypto::{
    Cipher, Group, IkeKeys, IkeSuite, KeyPair, Nonces, Opened, Opener, Prf, Sealer, auth, nat,
};
use dmvpn_ikev2::payload::{AddressRange, Payload, TrafficSelector};
use dmvpn_ikev2::proposal::{EspProposals, IkeProposals, Stage};
use dmvpn_ikev2::{Header, Identification, Message, rules};
use pcap_file::pcap::PcapReader;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

const SUITE: IkeSuite = IkeSuite { cipher: Cipher::Aes128Gcm16, prf: Prf::HmacSha256, group: Group::X25519 };
const PSK: &[u8] = b"interop-psk-0123456789";

/// An IKE message on its way.
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

fn captures() -> Vec<Datagram> {
    let files: [&[u8]; 2] = [include_bytes!("vectors/trap.pcap"), include_bytes!("vectors/natt.pcap")];
    files.iter().flat_map(|file| datagrams(file)).collect()
}

fn datagrams(capture: &[u8]) -> Vec<Datagram> {
    let mut reader = PcapReader::new(capture).unwrap();
    let mut found = Vec::new();
    while let Some(packet) = reader.next_packet() {
        found.extend(ike(&packet.unwrap().data));
    }
    found
}

/// Ethernet, IPv4, UDP 500, or UDP 4500 with the non-ESP marker.
fn ike(frame: &[u8]) -> Option<Datagram> {
    let ip = frame.get(14..).filter(|ip| frame[12..14] == [8, 0] && ip[9] == 17)?;
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let udp = ip.get(usize::from(ip[0] & 15) * 4..length)?;
    let end = |at: usize, port: usize| {
        let address: [u8; 4] = ip[at..at + 4].try_into().unwrap();
        SocketAddr::from((Ipv4Addr::from(address), u16::from_be_bytes([udp[port], udp[port + 1]])))
    };
    let (from, to) = (end(12, 0), end(16, 2));
    let bytes = match to.port() {
        500 => udp.get(8..)?,
        4500 => udp.get(12..).filter(|_| udp[8..12] == [0; 4])?,
        _ => return None,
    };
    Some(Datagram { from, to, bytes: bytes.to_vec() })
}

type Named = BTreeMap<String, Vec<u8>>;
type BySpis = BTreeMap<(u64, u64), Named>;
type BySpi = BTreeMap<u32, Vec<u8>>;

/// `secrets.txt`: by IKE SPIs, and by ESP SPI.
fn secrets() -> (BySpis, BySpi) {
    let (mut ike, mut esp) = (BySpis::new(), BySpi::new());
    let mut current = (0, 0);
    for line in include_str!("vectors/secrets.txt").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ike", initiator, responder] => {
                let spi = |word| u64::from_str_radix(word, 16).unwrap();
                current = (spi(initiator), spi(responder));
            }
            ["esp", spi, key] => drop(esp.insert(u32::from_str_radix(spi, 16).unwrap(), unhex(key))),
            [name, value] if !name.starts_with('#') => {
                ike.entry(current).or_default().insert((*name).to_owned(), unhex(value));
            }
            _ => {}
        }
    }
    (ike, esp)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// One IKE SA of the captures, put together.
struct Exchange {
    request: Datagram,
    response: Datagram,
    protected: Vec<Datagram>,
    keys: IkeKeys,
    logged: Named,
}

impl Exchange {
    fn init(&self) -> (Message, Message) {
        let decode = |datagram: &Datagram| Message::decode(&datagram.bytes).unwrap();
        (decode(&self.request), decode(&self.response))
    }

    fn opener(&self, initiator: bool) -> Opener {
        Opener::new(SUITE.cipher, self.keys.side(initiator).clone())
    }

    fn opened(&self) -> Vec<Message> {
        let open = |datagram: &Datagram| {
            let header = Header::decode(&datagram.bytes).unwrap();
            match self.opener(header.initiator).open(&datagram.bytes) {
                Ok(Opened::Message(message)) => message,
                other => panic!("{other:?}"),
            }
        };
        self.protected.iter().map(open).collect()
    }

    /// The messages of IKE_AUTH.
    fn auth(&self) -> (Message, Message) {
        let find = |response| {
            let wanted =
                |m: &Message| m.header.exchange == ExchangeType::IKE_AUTH && m.header.response == response;
            self.opened().into_iter().find(wanted).unwrap()
        };
        (find(false), find(true))
    }
}

fn exchanges() -> Vec<Exchange> {
    let mut all = captures();
    let (ike, _) = secrets();
    ike.into_iter()
        .map(|(spis, logged)| {
            let header = |d: &Datagram| Header::decode(&d.bytes).unwrap();
            let mut mine = all.extract_if(.., |d| header(d).initiator_spi == spis.0).collect::<Vec<_>>();
            let protected = mine.split_off(2);
            let response = mine.pop().unwrap();
            let request = mine.pop().unwrap();
            assert_eq!(header(&response).responder_spi, spis.1);
            let (first, second) =
                (Message::decode(&request.bytes).unwrap(), Message::decode(&response.bytes).unwrap());
            let nonces = Nonces { initiator: first.nonce().unwrap(), responder: second.nonce().unwrap() };
            let keys = IkeKeys::initial(SUITE, &logged["shared"], nonces, spis);
            Exchange { request, response, protected, keys, logged }
        })
        .collect()
}

#[test]
fn every_clear_message_encodes_to_the_same_octets() {
    let all = captures();
    assert_eq!(all.len(), 26);
    for datagram in &all {
        let message = Message::decode(&datagram.bytes).unwrap();
        assert_eq!(message.encode().unwrap(), datagram.bytes);
    }
}

#[test]
fn keys_from_the_shared_secret_are_those_that_charon_logged() {
    let all = exchanges();
    assert_eq!(all.len(), 4);
    for exchange in all {
        let (keys, logged) = (&exchange.keys, &exchange.logged);
        assert_eq!(*keys.derivation, logged["SK_d"]);
        assert_eq!(*keys.initiator.encryption, logged["SK_ei"]);
        assert_eq!(*keys.responder.encryption, logged["SK_er"]);
        assert_eq!(*keys.initiator.authentication, logged["SK_pi"]);
        assert_eq!(*keys.responder.authentication, logged["SK_pr"]);
        assert!(keys.initiator.integrity.is_empty() && keys.responder.integrity.is_empty());
    }
}

#[test]
fn every_protected_message_opens_and_encodes_to_the_same_plaintext() {
    let mut count = 0;
    for exchange in exchanges() {
        for (datagram, message) in exchange.protected.iter().zip(exchange.opened()) {
            // Decrypted once more by hand: header 28, generic payload header 4, IV 8.
            let keys = exchange.keys.side(message.header.initiator);
            let (key, salt) = keys.encryption.split_at(16);
            let cipher = aes_gcm::Aes128Gcm::new_from_slice(key).unwrap();
            let nonce = [salt, &datagram.bytes[32..40]].concat();
            let nonce = aes_gcm::Nonce::try_from(nonce.as_slice()).unwrap();
            let sealed = AeadPayload { msg: &datagram.bytes[40..], aad: &datagram.bytes[..32] };
            let plaintext = cipher.decrypt(&nonce, sealed).unwrap();
            let padding = usize::from(*plaintext.last().unwrap());
            let again = message.encode().unwrap();
            assert_eq!(again[28..], plaintext[..plaintext.len() - 1 - padding]);
            count += 1;
        }
    }
    assert_eq!(count, 18);
}

#[test]
fn messages_of_either_side_don_t_open_with_the_other_side_s_keys() {
    for exchange in exchanges() {
        for datagram in &exchange.protected {
            let header = Header::decode(&datagram.bytes).unwrap();
            assert!(exchange.opener(!header.initiator).open(&datagram.bytes).is_err());
        }
    }
}

#[test]
fn what_we_seal_for_an_exchange_of_theirs_opens() {
    for exchange in exchanges() {
        for message in exchange.opened() {
            let (mut rng, initiator) = (StdRng::seed_from_u64(1), message.header.initiator);
            let mut sealer = Sealer::new(SUITE.cipher, exchange.keys.side(initiator).clone(), &mut rng);
            let sealed = sealer.seal(&message.header, &message.payloads, &mut rng).unwrap();
            assert_eq!(exchange.opener(initiator).open(&sealed), Ok(Opened::Message(message)));
        }
    }
}

#[test]
fn auth_by_the_shared_key_is_theirs_on_both_sides() {
    for exchange in exchanges() {
        let (init, answer) = exchange.init();
        let (request, response) = exchange.auth();
        let sides = [
            (&exchange.request, answer.nonce().unwrap(), request.id_initiator().unwrap(), true, &request),
            (&exchange.response, init.nonce().unwrap(), response.id_responder().unwrap(), false, &response),
        ];
        for (datagram, nonce, id, initiator, message) in sides {
            let key = &exchange.keys.side(initiator).authentication;
            let octets = auth::signed_octets(SUITE.prf, &datagram.bytes, nonce, key, id);
            let theirs = &message.authentication().unwrap().data;
            assert_eq!(&auth::shared_key(SUITE.prf, PSK, &octets), theirs);
            assert!(auth::shared_key_matches(SUITE.prf, PSK, &octets, theirs));
            assert!(!auth::shared_key_matches(SUITE.prf, b"another", &octets, theirs));
        }
    }
}

#[test]
fn keys_of_children_are_those_that_the_kernel_has() {
    let (_, esp) = secrets();
    for exchange in exchanges() {
        let (init, answer) = exchange.init();
        let nonces = Nonces { initiator: init.nonce().unwrap(), responder: answer.nonce().unwrap() };
        let ours = EspProposals::parse(&["aes128gcm16"]).unwrap();
        let (request, response) = exchange.auth();
        let spi = |message: &Message| {
            let choice = ours.select(message.proposals().unwrap(), Stage::Auth).unwrap();
            assert!(!choice.suite.esn);
            (choice.suite.suite, choice.esp_spi().unwrap())
        };
        let ((suite, initiator_receives), (_, responder_receives)) = (spi(&request), spi(&response));
        let keys = exchange.keys.child(suite, None, nonces);
        assert_eq!(*keys.initiator, esp[&responder_receives]);
        assert_eq!(*keys.responder, esp[&initiator_receives]);
    }
}

#[test]
fn their_proposals_are_chosen_from_and_their_answers_accepted() {
    let ours = IkeProposals::parse(&["aes128gcm16-prfsha256-x25519"]).unwrap();
    for exchange in exchanges() {
        let (init, answer) = exchange.init();
        assert_eq!(ours.select(init.proposals().unwrap()).unwrap().suite, SUITE);
        assert_eq!(ours.accept(answer.proposals().unwrap()).unwrap().suite, SUITE);
        let ke = init.key_exchange().unwrap();
        assert_eq!(ke.group, GroupId::CURVE_25519);
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(KeyPair::generate(Group::X25519, &mut rng).agree(&ke.data).unwrap().len(), 32);
    }
}

#[test]
fn their_messages_keep_the_rules() {
    for exchange in exchanges() {
        let (init, answer) = exchange.init();
        for message in exchange.opened().into_iter().chain([init, answer]) {
            let Header { exchange, response, .. } = message.header;
            assert_eq!(rules::check(exchange, response, &message.payloads), Ok(()));
        }
    }
}

#[test]
fn nat_detection_hashes_are_theirs() {
    for exchange in exchanges() {
        let (init, answer) = exchange.init();
        for (datagram, message) in [(&exchange.request, init), (&exchange.response, answer)] {
            let spis = (message.header.initiator_spi, message.header.responder_spi);
            let found = |kind| message.notify(kind).unwrap().data.clone();
            let to = nat::detection_hash(spis, datagram.to);
            assert_eq!(found(NotifyType::NAT_DETECTION_DESTINATION_IP), to);
            // Forced encapsulation hashes port 0 and address 0 instead of the source (natt.pcap's IKE SA).
            let from = nat::detection_hash(spis, datagram.from);
            let forced = message.header.initiator_spi == 0x4630_1240_85a2_1795;
            assert_eq!(found(NotifyType::NAT_DETECTION_SOURCE_IP) != from, forced);
        }
    }
}

#[test]
fn trap_initiators_ask_for_the_gre_key_first_and_for_gre_then() {
    for exchange in exchanges() {
        let (request, response) = exchange.auth();
        let (initiator, responder) = request.selectors().unwrap();
        let shown = format!("{initiator:?} {responder:?}");
        assert!(shown.contains("[gre"), "{shown}");
        let (initiator, responder) = response.selectors().unwrap();
        for (selectors, end) in [(initiator, &exchange.request.from), (responder, &exchange.request.to)] {
            let narrowed: Vec<TrafficSelector> = vec![AddressRange::gre(end.ip()).into()];
            assert_eq!(selectors, narrowed);
        }
    }
}

#[test]
fn identities_are_read() {
    for exchange in exchanges() {
        let (request, response) = exchange.auth();
        let initiator = Identification::try_from(request.id_initiator().unwrap()).unwrap();
        assert_eq!(initiator, Identification::Address(exchange.request.from.ip()));
        let responder = Identification::try_from(response.id_responder().unwrap()).unwrap();
        assert_eq!(responder, Identification::Address(exchange.request.to.ip()));
    }
}

#[test]
fn the_line_for_wireshark_has_both_keys() {
    let exchange = exchanges().remove(0);
    assert_eq!(
        exchange.keys.wireshark((0x1903_ff65_9eb2_ce99, 0x5c40_5023_5b57_d281)),
        "1903ff659eb2ce99,5c4050235b57d281,f39df25e110549ba000debf6dd171dbad9c96703,\
         8e839c55b415eba270b971b69355fec6896a7292,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\
         \"NONE [RFC4306]\""
    );
}

#[test]
fn a_damaged_message_never_opens() {
    let exchange = exchanges().remove(0);
    let datagram = &exchange.protected[0];
    let opener = exchange.opener(Header::decode(&datagram.bytes).unwrap().initiator);
    for octet in 0..datagram.bytes.len() {
        let mut damaged = datagram.bytes.clone();
        damaged[octet] ^= 0x10;
        assert!(opener.open(&damaged).is_err(), "octet {octet}");
    }
}

#[test]
fn sk_is_the_only_payload_outside() {
    for exchange in exchanges() {
        for datagram in &exchange.protected {
            let outer = Message::decode(&datagram.bytes).unwrap();
            let kinds: Vec<PayloadType> = outer.payloads.iter().map(Payload::kind).collect();
            assert_eq!(kinds, [PayloadType::SK]);
        }
    }
}
