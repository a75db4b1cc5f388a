//! How many handshakes a second one core of a hub has: `cargo run --release -p dmvpn-ikev2 --example handshakes`.
//!
//! Spokes and hub are in one process; what the hub spends is measured alone.

#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use claims::Identity;
use dmvpn_ikev2::{
    Address, Authentication, CertificateError, Config, Credentials, Endpoint, HashAlgorithm, Identification,
    LocalPort, TransmitKind,
};
use packet::{Instant, Path};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const SPOKES: u32 = 2_000;

struct Key(String);

impl Credentials for Key {
    fn local_id(&self) -> Identification {
        Identification::Fqdn(self.0.clone())
    }
    fn chain(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn authorities(&self) -> Vec<[u8; 20]> {
        Vec::new()
    }
    fn sign(&self, _: &[HashAlgorithm], _: &[u8]) -> Result<Authentication, CertificateError> {
        Err(CertificateError("no key".to_owned()))
    }
    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(b"a pre-shared key".to_vec()))
    }
    fn verify(
        &self,
        _: u64,
        _: &Identification,
        _: &[Vec<u8>],
        _: &[u8],
        _: &Authentication,
    ) -> Result<Identity, CertificateError> {
        Err(CertificateError("no roots".to_owned()))
    }
    fn still_holds(&self, _: u64, _: &Identity) -> Result<(), CertificateError> {
        Ok(())
    }
}

fn main() {
    let now = Instant::from_nanos(1);
    let hub = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let config = |local| Config {
        ike: vec!["aes128gcm16-prfsha256-x25519".to_owned()],
        local: vec![local],
        limits: dmvpn_ikev2::config::Limits { cookie_from: 10_000, half_open: 10_000, sessions: 20_000 },
        ..Config::default()
    };
    let mut endpoint =
        Endpoint::new(config(hub), Arc::new(Key("hub".to_owned())), [1; 32], now).expect("config");
    let mut spent = Duration::ZERO;
    for spoke in 0..SPOKES {
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + spoke));
        let mut seed = [2; 32];
        seed[..4].copy_from_slice(&spoke.to_be_bytes());
        let name = Arc::new(Key(format!("spoke{spoke}.example.com")));
        let mut peer = Endpoint::new(config(ip), name, seed, now).expect("config");
        peer.connect(now, Path::udp(hub, 4500), None);
        loop {
            let mut moved = false;
            while let Some(transmit) = peer.poll_transmit() {
                let TransmitKind::Message(message) = transmit.kind else { continue };
                let from = Address { remote: SocketAddr::new(ip, 4500), local: LocalPort::NatTraversal };
                let start = std::time::Instant::now();
                endpoint.handle_packet(now, from, &message);
                while endpoint.poll_event().is_some() {}
                spent += start.elapsed();
                moved = true;
            }
            while let Some(transmit) = endpoint.poll_transmit() {
                let TransmitKind::Message(message) = transmit.kind else { continue };
                let from = Address { remote: SocketAddr::new(hub, 4500), local: LocalPort::NatTraversal };
                peer.handle_packet(now, from, &message);
                while peer.poll_event().is_some() {}
                moved = true;
            }
            if !moved {
                break;
            }
        }
    }
    let up = endpoint.sessions().filter(|s| s.state == "Established").count();
    let rate = f64::from(SPOKES) / spent.as_secs_f64();
    println!("{up} of {SPOKES} spokes are up; {rate:.0} handshakes a second on one core (PSK, X25519)");
}
