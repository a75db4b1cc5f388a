//! How many handshakes a second one core of a hub has when everybody proves himself by a chain of ECDSA P-256:
//! `cargo run --release -p dmvpn-identity --example certified_handshakes`.
//!
//! Root, a confined CA and a certificate of its own for each spoke. Spokes and hub are in one process; what the hub
//! spends is measured alone.

#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use dmvpn_identity::pki::{Authority, Claims, Confines, Validity};
use dmvpn_identity::{CertificateError, Certificates};
use ikev2::{Address, Config, Endpoint, LocalPort, TransmitKind};
use packet::{Instant, Path};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const SPOKES: u32 = 2_000;
/// Seconds since 1970.
const UNIX: u64 = 1_800_000_000;
const VALID: Validity = Validity { not_before: UNIX - 86_400, not_after: UNIX + 86_400 };
const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

struct Pki {
    root: Authority,
    ca: Authority,
}

impl Pki {
    fn new() -> Result<Self, CertificateError> {
        let root = Authority::root("Example root", VALID)?;
        let confines = Confines {
            domains: vec!["example.com".to_owned()],
            tunnel_addresses: vec!["10.200.0.0/16".parse().expect("a network")],
            prefixes: vec!["10.0.0.0/8".parse().expect("a network")],
        };
        let ca = root.intermediate("HQ", &confines, VALID)?;
        Ok(Self { root, ca })
    }

    fn node(&self, number: u32) -> Result<Certificates, CertificateError> {
        let [_, _, high, low] = number.to_be_bytes();
        let claims = Claims {
            name: format!("n{number}.example.com"),
            tunnel_addresses: vec![Ipv4Addr::new(10, 200, high, low).into()],
            prefixes: vec![format!("10.{high}.{low}.0/24").parse().expect("a network")],
        };
        let made = self.ca.node(&claims, VALID)?;
        let root = self.root.chain_pem();
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.as_bytes(), b"")
    }
}

fn config(local: IpAddr) -> Config {
    Config {
        ike: vec!["aes128gcm16-prfsha256-x25519".to_owned()],
        local: vec![local],
        limits: ikev2::config::Limits { cookie_from: 10_000, half_open: 10_000, sessions: 20_000 },
        ..Config::default()
    }
}

fn endpoint(credentials: Certificates, local: IpAddr, seed: u32, now: Instant) -> Endpoint {
    let mut octets = [7; 32];
    octets[..4].copy_from_slice(&seed.to_be_bytes());
    let mut endpoint = Endpoint::new(config(local), Arc::new(credentials), octets, now).expect("config");
    endpoint.set_wall_clock(now, UNIX);
    endpoint
}

fn main() -> Result<(), CertificateError> {
    let now = Instant::from_nanos(1);
    let pki = Pki::new()?;
    let mut hub = endpoint(pki.node(0)?, HUB, 0, now);
    let mut spent = Duration::ZERO;
    for number in 1..=SPOKES {
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        let mut spoke = endpoint(pki.node(number)?, ip, number, now);
        spoke.connect(now, Path::udp(HUB, 4500), Some("n0.example.com".to_owned()));
        loop {
            let mut moved = false;
            while let Some(message) = sent(&mut spoke) {
                let start = std::time::Instant::now();
                hub.handle_packet(now, from(ip), &message);
                while hub.poll_event().is_some() {}
                spent += start.elapsed();
                moved = true;
            }
            while let Some(message) = sent(&mut hub) {
                spoke.handle_packet(now, from(HUB), &message);
                while spoke.poll_event().is_some() {}
                moved = true;
            }
            if !moved {
                break;
            }
        }
    }
    let up = hub.sessions().filter(|s| s.state == "Established").count();
    let rate = f64::from(SPOKES) / spent.as_secs_f64();
    println!(
        "{up} of {SPOKES} spokes are up; {rate:.0} handshakes a second on one core (chains of ECDSA P-256, X25519)"
    );
    Ok(())
}

fn from(ip: IpAddr) -> Address {
    Address { remote: SocketAddr::new(ip, 4500), local: LocalPort::NatTraversal }
}

/// The next message of an end.
fn sent(end: &mut Endpoint) -> Option<Vec<u8>> {
    loop {
        match end.poll_transmit()?.kind {
            TransmitKind::Message(message) => return Some(message),
            TransmitKind::Keepalive => {}
        }
    }
}
