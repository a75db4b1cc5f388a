//! What a handshake costs on one core, part by part: `cargo run --release -p dmvpn-ikev2 --example primitives`.
#![allow(missing_docs, clippy::disallowed_methods)] // it measures

use dmvpn_ikev2::codes::ExchangeType;
use dmvpn_ikev2::crypto::{
    Cipher, Group, IkeKeys, IkeSuite, KeyPair, Nonces, Opener, Prf, Sealer, auth, nat,
};
use dmvpn_ikev2::payload::{AddressRange, AuthPayload, IdPayload, KeyExchange, Payload};
use dmvpn_ikev2::proposal::{EspProposals, IkeProposals, Stage};
use dmvpn_ikev2::{AuthMethod, Authentication, Header, Identification, Message};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::hint::black_box;
use std::time::{Duration, Instant};

const NONCE: [u8; 32] = [3; 32];
const NONCES: Nonces<'_> = Nonces { initiator: &NONCE, responder: &NONCE };
const SPIS: (u64, u64) = (1, 2);

fn main() {
    let mut rng = StdRng::seed_from_u64(1);
    println!("microseconds on one core");
    for group in Group::ALL {
        let peer = KeyPair::generate(group, &mut rng);
        let ours = KeyPair::generate(group, &mut rng);
        measure(&format!("{group}: key pair"), || drop(KeyPair::generate(group, &mut rng)));
        measure(&format!("{group}: agree"), || drop(black_box(ours.agree(peer.public()))));
    }
    for (cipher, prf) in [(Cipher::Aes128Gcm16, Prf::HmacSha256), (Cipher::Aes256Gcm16, Prf::HmacSha384)] {
        responder(IkeSuite { cipher, prf, group: Group::X25519 });
    }
}

/// All that a responder does for one peer with a shared key, but for keeping state.
fn responder(suite: IkeSuite) {
    println!("{suite}");
    let mut rng = StdRng::seed_from_u64(1);
    let (init, auth_request, keys) = requests(suite, &mut rng);
    let Message { header, payloads } = Message::decode(&init).expect("made here");
    measure("  decode IKE_SA_INIT", || drop(black_box(Message::decode(&init))));
    let names = [suite.to_string()];
    let proposals = IkeProposals::parse(&names).expect("named by us");
    measure("  choose a proposal", || {
        let Some(Payload::SecurityAssociation(offered)) = payloads.first() else { return };
        drop(black_box(proposals.select(offered)));
    });
    measure("  NAT detection hash", || {
        black_box(nat::detection_hash(SPIS, "192.0.2.1:4500".parse().expect("an address")));
    });
    let message = Message { header, payloads };
    measure("  encode IKE_SA_INIT", || drop(black_box(message.encode())));
    measure("  derive the keys", || drop(black_box(IkeKeys::initial(suite, &NONCE, NONCES, SPIS))));
    let opener = Opener::new(suite.cipher, keys.initiator.clone());
    measure("  open IKE_AUTH", || drop(black_box(opener.open(&auth_request))));
    let id = id();
    measure("  one AUTH by shared key", || {
        let key = &keys.initiator.authentication;
        let octets = auth::signed_octets(suite.prf, &init, &NONCE, key, &id);
        black_box(auth::shared_key_matches(suite.prf, &NONCE, &octets, &NONCE));
    });
    measure("  keys of a child", || drop(black_box(keys.child(esp::Suite::Aes128Gcm16, None, NONCES))));
    let mut sealer = Sealer::new(suite.cipher, keys.responder.clone(), &mut rng);
    let answer = auth_payloads();
    measure("  seal IKE_AUTH", || drop(black_box(sealer.seal(&header, &answer, &mut rng))));
    let whole = measure("  all of it", || {
        let message = Message::decode(&init).expect("made here");
        let choice = proposals.select(message.proposals().unwrap_or_default()).expect("ours");
        let pair = KeyPair::generate(choice.suite.group, &mut rng);
        let shared = pair.agree(&message.key_exchange().expect("there").data).expect("good");
        for end in ["192.0.2.1:4500", "192.0.2.2:4500"] {
            let end = end.parse().expect("an address");
            black_box((nat::detection_hash((1, 0), end), nat::detection_hash(SPIS, end)));
        }
        black_box(message.encode()).expect("short");
        black_box(IkeKeys::initial(suite, &shared, NONCES, SPIS));
        black_box(opener.open(&auth_request)).expect("sealed here");
        for _ in 0..2 {
            let octets = auth::signed_octets(suite.prf, &init, &NONCE, &NONCE, &id);
            black_box(auth::shared_key(suite.prf, &NONCE, &octets));
        }
        black_box(keys.child(esp::Suite::Aes128Gcm16, None, NONCES));
        black_box(sealer.seal(&header, &answer, &mut rng)).expect("short");
    });
    println!("  {:.0} handshakes a second", 1e6 / whole);
}

/// IKE_SA_INIT and IKE_AUTH as a peer sends them.
fn requests(suite: IkeSuite, rng: &mut StdRng) -> (Vec<u8>, Vec<u8>, IkeKeys) {
    let header = Header {
        initiator_spi: SPIS.0,
        responder_spi: SPIS.1,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let pair = KeyPair::generate(suite.group, rng);
    let proposals = IkeProposals::parse(&[suite.to_string()]).expect("named by us");
    let payloads = vec![
        Payload::SecurityAssociation(proposals.offer(None)),
        Payload::KeyExchange(KeyExchange { group: suite.group.id(), data: pair.public().to_vec() }),
        Payload::Nonce(NONCE.to_vec()),
    ];
    let init = Message { header, payloads }.encode().expect("short");
    let keys = IkeKeys::initial(suite, &NONCE, NONCES, SPIS);
    let mut sealer = Sealer::new(suite.cipher, keys.initiator.clone(), rng);
    let header = Header { exchange: ExchangeType::IKE_AUTH, message_id: 1, ..header };
    let auth = sealer.seal(&header, &auth_payloads(), rng).expect("short");
    (init, auth, keys)
}

fn id() -> IdPayload {
    IdPayload::from(&Identification::Fqdn("node-1.east.example.com".to_owned()))
}

fn auth_payloads() -> Vec<Payload> {
    let esp = EspProposals::parse(&["aes128gcm16", "aes256gcm16"]).expect("named by us");
    let selector = || vec![AddressRange::gre([192, 0, 2, 1].into()).into()];
    let proof = Authentication { method: AuthMethod::SharedKey, data: NONCE.to_vec() };
    vec![
        Payload::IdInitiator(id()),
        Payload::Authentication(AuthPayload::from(proof)),
        Payload::SecurityAssociation(esp.offer(1, Stage::Auth)),
        Payload::SelectorsInitiator(selector()),
        Payload::SelectorsResponder(selector()),
    ]
}

/// The best of some rounds, in microseconds: what else the machine does is not the question.
fn measure(what: &str, mut run: impl FnMut()) -> f64 {
    let best = (0..15)
        .map(|_| {
            let (start, mut times) = (Instant::now(), 0u32);
            while start.elapsed() < Duration::from_millis(10) {
                run();
                times += 1;
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:36}{best:9.1}");
    best
}
