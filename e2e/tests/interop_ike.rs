//! Our IKE alone with strongSwan: no agent and no data, so that a failure of the handshake is told from one of the network.

use ikev2::{Address, Config, Credentials, Endpoint, Event, LocalPort, TransmitKind};
use lab::interop::{Configuration, Guest, PSK, Proof, Start, StrongSwan};
use lab::security::now;
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Node, Result, story};
use packet::{Instant, Path};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

const OURS: &str = "198.51.100.1";
const THEIRS: &str = "198.51.100.11";

/// An endpoint on two sockets of a node.
struct Ike {
    endpoint: Endpoint,
    sockets: [(LocalPort, UdpSocket); 2],
    start: std::time::Instant,
    events: Vec<Event>,
}

impl Ike {
    fn at(
        node: &Node,
        credentials: Arc<dyn Credentials>,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<Self> {
        let bind = |port: u16| {
            let socket = node.namespace().enter(|| UdpSocket::bind((OURS, port)))?;
            let socket = socket.map_err(Error::io("bind"))?;
            socket.set_nonblocking(true).map_err(Error::io("set a socket up"))?;
            Ok::<_, Error>(socket)
        };
        let local = OURS.parse().into_iter().collect();
        let config = change(Config { local, ..Config::default() });
        let mut endpoint =
            Endpoint::new(config, credentials, rand::random(), Instant::ZERO).map_err(Error::other)?;
        endpoint.set_wall_clock(Instant::ZERO, now());
        Ok(Self {
            endpoint,
            sockets: [(LocalPort::Ike, bind(500)?), (LocalPort::NatTraversal, bind(4500)?)],
            start: std::time::Instant::now(),
            events: Vec::new(),
        })
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    /// Exchanges messages until this has happened.
    fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut happened: impl FnMut(&[Event]) -> bool,
    ) -> Result {
        let begin = std::time::Instant::now();
        while !happened(&self.events) {
            if begin.elapsed() > patience {
                return Err(Error::other(format!(
                    "no {what}: {:?}; {:?}",
                    self.events,
                    self.endpoint.counters()
                )));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result {
        let mut buffer = [0; 65_536];
        for (port, socket) in &self.sockets {
            while let Ok((length, remote)) = socket.recv_from(&mut buffer) {
                let message = match port {
                    LocalPort::Ike => &buffer[..length],
                    LocalPort::NatTraversal => match buffer[..length].strip_prefix(&[0; 4]) {
                        Some(message) => message,
                        None => continue,
                    },
                };
                let now = Instant::ZERO + self.start.elapsed();
                self.endpoint.handle_packet(now, Address { remote, local: *port }, message);
            }
        }
        let now = self.now();
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let Some((_, socket)) = self.sockets.iter().find(|(p, _)| *p == transmit.address.local) else {
                continue;
            };
            let data = match (transmit.kind, transmit.address.local) {
                (TransmitKind::Message(message), LocalPort::Ike) => message,
                (TransmitKind::Message(message), LocalPort::NatTraversal) => [&[0; 4][..], &message].concat(),
                (TransmitKind::Keepalive, _) => vec![0xff],
            };
            socket.send_to(&data, transmit.address.remote).map_err(Error::io("send"))?;
        }
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|e| like(e)).count()
    }
}

fn shared_key() -> Result<Arc<dyn Credentials>> {
    let key = identity::SharedKey::new("ours".to_owned(), PSK.as_bytes().to_vec()).map_err(Error::other)?;
    Ok(Arc::new(key))
}

fn certificates(lab: &Lab) -> Result<(Arc<dyn Credentials>, Proof)> {
    let pki = lab.pki()?;
    let claims = |name: &str, prefix: &str| identity::pki::Claims {
        name: name.to_owned(),
        tunnel_addresses: Vec::new(),
        prefixes: prefix.parse().into_iter().collect(),
    };
    let ours = pki.node(&claims("ours.lab.test", "10.1.0.0/16"))?;
    let theirs = pki.node(&claims("theirs.lab.test", "10.2.0.0/16"))?;
    let roots = pki.root_pem();
    let credentials =
        identity::Certificates::new(ours.chain.as_bytes(), ours.key.as_bytes(), roots.as_bytes(), &[]);
    let chain = theirs.chain.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    let proof = Proof::Certificate {
        identity: "theirs.lab.test".to_owned(),
        chain,
        key: theirs.key.to_string(),
        roots: vec![roots],
    };
    Ok((Arc::new(credentials.map_err(Error::other)?), proof))
}

fn boot(lab: &Lab, ike: StrongSwan) -> Result<Guest> {
    let configuration =
        Configuration { address: THEIRS.to_owned(), ike: Some(ike), ..Configuration::default() };
    Guest::boot(lab, "fa", &configuration)
}

fn is_up(event: &Event) -> bool {
    matches!(event, Event::Up { .. })
}

/// Both directions: ours begins, theirs begins; each rekeys child and IKE SA; who began ends it.
fn exchange(lab: &Lab, ours: Arc<dyn Credentials>, theirs: StrongSwan, path: Path) -> Result {
    let node = lab.site("ours", &[OURS])?;
    let guest = boot(lab, theirs)?;
    let mut ike = Ike::at(&node, ours, |c| c)?;
    // Ours begins.
    let now = ike.now();
    ike.endpoint.connect(now, path, None);
    ike.until("session", PATIENCE, |events| events.iter().any(is_up))?;
    let view: Vec<_> = ike.endpoint.sessions().collect();
    println!("{view:?}");
    let children = guest.swanctl("--list-sas")?;
    assert!(children.contains("INSTALLED"), "{children}");
    // Ours rekeys.
    let rekeyed = |ike: bool| {
        move |events: &[Event]| events.iter().any(|e| matches!(e, Event::Rekeyed { ike: i, .. } if *i == ike))
    };
    let spi = view.first().and_then(|v| v.children.first()).map(|c| c.outbound);
    let now = ike.now();
    ike.endpoint.rekey_child(now, spi.ok_or_else(|| Error::other("no child"))?);
    ike.until("rekeyed child", PATIENCE, rekeyed(false))?;
    let now = ike.now();
    ike.endpoint.rekey_ike(now, path);
    ike.until("rekeyed IKE SA", PATIENCE, rekeyed(true))?;
    // Theirs rekeys.
    ike.events.clear();
    guest.swanctl("--rekey --child gre")?;
    ike.until("child rekeyed by theirs", PATIENCE, rekeyed(false))?;
    guest.swanctl("--rekey --ike dmvpn")?;
    ike.until("IKE SA rekeyed by theirs", PATIENCE, rekeyed(true))?;
    assert!(ike.endpoint.is_up(path));
    let now = ike.now();
    ike.endpoint.disconnect(now, path);
    for _ in 0..200 {
        ike.turn()?;
    }
    let left = guest.swanctl("--list-sas")?;
    assert!(left.trim().is_empty(), "{left}");
    // Theirs begins.
    ike.events.clear();
    let begin = std::thread::scope(|scope| {
        let begun = scope.spawn(|| guest.swanctl("--initiate --child gre --timeout 15"));
        let up = ike.until("session begun by theirs", PATIENCE, |events| events.iter().any(is_up));
        for _ in 0..500 {
            ike.turn()?;
        }
        let said = begun.join().unwrap_or_else(|_| Err(Error::other("swanctl")))?;
        up.map(|()| said)
    })?;
    println!("{}", guest.charon_log());
    assert!(begin.contains("completed successfully"), "{begin}");
    assert_eq!(ike.count(|e| matches!(e, Event::Failed { .. })), 0, "{:?}", ike.events);
    wait::until("one session", PATIENCE, || {
        let count = ike.endpoint.sessions().count();
        if count == 1 { Ok(()) } else { Err(Error::other(format!("{count}"))) }
    })
}

fn udp() -> Result<Path> {
    Ok(Path::udp(THEIRS.parse().map_err(Error::other)?, 4500))
}

fn initiated() -> StrongSwan {
    StrongSwan { start: Start::Initiated(OURS.to_owned()), ..StrongSwan::default() }
}

#[test]
fn strongswan_and_our_ike_by_a_pre_shared_key() {
    story("ike_psk", |lab| exchange(lab, shared_key()?, initiated(), udp()?));
}

#[test]
fn strongswan_and_our_ike_by_certificates() {
    story("ike_cert", |lab| {
        let (ours, proof) = certificates(lab)?;
        exchange(lab, ours, StrongSwan { proof, ..initiated() }, udp()?)
    });
}

#[test]
fn strongswan_and_our_ike_with_bare_esp() {
    story("ike_bare", |lab| {
        let path = Path::gre(THEIRS.parse().map_err(Error::other)?);
        exchange(lab, shared_key()?, initiated(), path)
    });
}

#[test]
fn strongswan_with_the_address_block_plugin_and_our_ike() {
    story("ike_addrblock", |lab| {
        let (ours, proof) = certificates(lab)?;
        exchange(lab, ours, StrongSwan { proof, plugins: "x509 addrblock".to_owned(), ..initiated() }, udp()?)
    });
}
