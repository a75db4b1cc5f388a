//! Thousands of spokes in one process: each has the real engine, its own key and certificate, and its own UDP port at one
//! address, as spokes behind a NAT have. What a datapath does for control they do themselves, one packet at a time: ESP,
//! and answers to probes. Nothing lies behind them.

use crate::error::{Error, Result};
use crate::security::{self, Pki};
use crate::topology::Node;
use dmvpn::{Action, Config, Credentials, Event, HubConfig, Input, NhrpConfig, Phase, Security, Tunnel};
use esp::{Opener, Sealer, Wrapped};
use identity::Certificates;
use identity::pki::Claims;
use ikev2::{Address, LocalPort, TransmitKind};
use nhrp::{NhsId, Quirks};
use packet::gre;
use packet::probe::{Kind, Probe};
use packet::{Instant, Path};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;

/// The port of a hub.
const HUB_PORT: u16 = 4500;
/// The first spoke's port.
const FIRST_PORT: u16 = 20_000;
const GRE: u8 = 47;
/// Before an IKE message at a port that ESP uses too (RFC 3948 §2.2).
const MARKER: [u8; 4] = [0; 4];

/// Spokes in a thread of their own; they end when it is dropped.
pub struct Crowd {
    up: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Starts the spokes of these numbers at `node`, which has this address. The tunnel address of number 0 is
    /// 10.200.32.1.
    pub fn start(
        node: &Node,
        pki: &Pki,
        address: Ipv4Addr,
        hub: Ipv4Addr,
        numbers: Range<u16>,
    ) -> Result<Self> {
        let bind = || numbers.clone().map(|n| UdpSocket::bind((address, FIRST_PORT + n))).collect();
        let sockets: std::io::Result<Vec<UdpSocket>> = node.namespace().enter(bind)?;
        let sockets = sockets.map_err(Error::io("bind a spoke's port"))?;
        let roots = pki.root_pem();
        let spokes = numbers.zip(sockets).map(|(n, socket)| {
            socket.set_nonblocking(true).map_err(Error::io("a spoke's socket"))?;
            Ok((Spoke::new(n, pki, &roots, (address, hub))?, socket))
        });
        let spokes = spokes.collect::<Result<Vec<_>>>()?;
        let (stop, stopped) = watch::channel(false);
        let up = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&up);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start a runtime"))?;
        let thread = thread::spawn(move || {
            runtime.block_on(async move {
                let lives = spokes.into_iter().map(|(spoke, socket)| {
                    tokio::spawn(spoke.live(socket, Arc::clone(&count), stopped.clone()))
                });
                for life in lives.collect::<Vec<_>>() {
                    let _ = life.await;
                }
            });
        });
        Ok(Self { up, stop, thread: Some(thread) })
    }

    /// Spokes that are registered with the hub and reach it, as they see it.
    #[must_use]
    pub fn up(&self) -> usize {
        self.up.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Spoke {
    tunnel: Tunnel,
    own: IpAddr,
    inbound: HashMap<u32, (Path, Opener)>,
    outbound: HashMap<Path, Sealer>,
    started: std::time::Instant,
    is_up: bool,
}

impl Spoke {
    fn new(n: u16, pki: &Pki, roots: &str, (address, hub): (Ipv4Addr, Ipv4Addr)) -> Result<Self> {
        let own = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 32, 1)) + u32::from(n));
        let claims =
            Claims { name: format!("crowd-{n}"), tunnel_addresses: vec![own.into()], prefixes: vec![] };
        let made = pki.node(&claims)?;
        let credentials =
            Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), roots.as_bytes(), b"");
        let credentials = Credentials(Arc::new(credentials.map_err(Error::other)?));
        let ike = ikev2::Config {
            local: vec![address.into()],
            ports: (0, FIRST_PORT + n),
            ..ikev2::Config::default()
        };
        let config = Config {
            identity: claims.name,
            networks: vec!["10.200.0.0/16".parse().map_err(Error::other)?],
            addresses: vec![own.into()],
            phase: Phase::Three,
            hub: false,
            nbma_address: address.into(),
            udp_port: FIRST_PORT + n,
            hubs: vec![HubConfig {
                id: NhsId(0),
                name: hub.to_string(),
                tunnel_address: None,
                priority: 0,
                paths: vec![Path::udp(hub.into(), HUB_PORT)],
                identity: Some("hub1".to_owned()),
            }],
            static_peers: Vec::new(),
            nhrp: NhrpConfig {
                holding_time: Duration::from_secs(600),
                authentication: None,
                unique: true,
                group: None,
                quirks: Quirks::default(),
            },
            admission: Vec::new(),
            behind: Some(Vec::new()),
            mtu: 1400,
            idle_timeout: Duration::from_secs(60),
            security: Some(Security { ike, credentials }),
        };
        let started = std::time::Instant::now();
        let now = since(started);
        let mut tunnel = Tunnel::new(config, rand::random(), now, 1).map_err(Error::other)?;
        tunnel.handle_input(now, Input::WallClock(security::now()));
        let (inbound, outbound) = Default::default();
        Ok(Self { tunnel, own: own.into(), inbound, outbound, started, is_up: false })
    }

    /// Registers, and stays registered.
    async fn live(mut self, socket: UdpSocket, up: Arc<AtomicUsize>, mut stopped: watch::Receiver<bool>) {
        let Ok(socket) = tokio::net::UdpSocket::from_std(socket) else { return };
        let mut buffer = vec![0; 2048];
        loop {
            self.act(&socket);
            self.count(&up);
            let now = since(self.started);
            let wait = self.tunnel.poll_timeout().map_or(Duration::from_secs(60), |at| at.since(now));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.tunnel.handle_timeout(since(self.started)),
                received = socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received
                        && let Some(datagram) = buffer.get_mut(..length)
                    {
                        self.receive(from, datagram, &socket);
                    }
                }
                _ = stopped.changed() => return,
            }
        }
    }

    fn count(&mut self, up: &AtomicUsize) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                Event::HubUp { .. } if !std::mem::replace(&mut self.is_up, true) => {
                    up.fetch_add(1, Ordering::Relaxed);
                }
                Event::HubDown { .. } if std::mem::take(&mut self.is_up) => {
                    up.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }

    /// Does what the engine wants. What the kernel refuses, or has no room for, is lost as on any network.
    fn act(&mut self, socket: &tokio::net::UdpSocket) {
        while let Some(action) = self.tunnel.poll_action() {
            match action {
                Action::Transmit { path, protocol, payload } => {
                    self.send(path, gre::Protocol(protocol), &payload, socket);
                }
                Action::TransmitIke(transmit) => {
                    let datagram = match transmit.kind {
                        TransmitKind::Message(message) => [&MARKER[..], &message].concat(),
                        TransmitKind::Keepalive => vec![0xff],
                    };
                    let _ = socket.try_send_to(&datagram, transmit.address.remote);
                }
                Action::AddInboundSa { path, keys } => {
                    if let Ok(opener) = Opener::new(&keys) {
                        self.inbound.insert(keys.spi, (path, opener));
                    }
                }
                Action::RemoveInboundSa { spi } => drop(self.inbound.remove(&spi)),
                Action::SetOutboundSa { path, keys, .. } => {
                    if let Ok(sealer) = Sealer::new(&keys) {
                        self.outbound.insert(path, sealer);
                    }
                }
                Action::RemoveOutboundSa { path, .. } => drop(self.outbound.remove(&path)),
                // There is no kernel here, and no table.
                _ => {}
            }
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &mut [u8], socket: &tokio::net::UdpSocket) {
        let path = Path::udp(from.ip(), from.port());
        let input = match Wrapped::of(datagram) {
            Wrapped::Ike(message) => {
                let address = Address { remote: from, local: LocalPort::NatTraversal };
                Some(Input::Ike { address, message: message.to_vec() })
            }
            Wrapped::Esp(spi) => match self.inbound.get_mut(&spi) {
                Some((path, opener)) => {
                    let path = *path;
                    let Ok(opened) = opener.open(datagram) else { return };
                    datagram.get(opened.payload).and_then(|inner| self.inner(path, inner, socket))
                }
                None => Some(Input::UnknownSpi { path, spi }),
            },
            Wrapped::Keepalive | Wrapped::Malformed => None,
        };
        if let Some(input) = input {
            self.tunnel.handle_input(since(self.started), input);
        }
    }

    /// What was sealed: for the engine, unless it is a question that a datapath answers.
    fn inner(&mut self, path: Path, packet: &[u8], socket: &tokio::net::UdpSocket) -> Option<Input> {
        let (header, payload) = gre::decode(packet).ok()?;
        if header.protocol == gre::Protocol::NHRP {
            return Some(Input::Nhrp { path, payload: payload.to_vec() });
        }
        let probe = Probe::parse(payload).filter(|probe| probe.destination == self.own)?;
        if probe.kind == Kind::Reply {
            return Some(Input::Echo { path, packet: payload.to_vec() });
        }
        let mut reply = vec![0; probe.packet_len()];
        probe.reply().write(&mut reply).ok()?;
        self.send(path, gre::Protocol::IPV4, &reply, socket);
        None
    }

    fn send(&mut self, path: Path, protocol: gre::Protocol, payload: &[u8], socket: &tokio::net::UdpSocket) {
        let Some(sealer) = self.outbound.get_mut(&path) else { return };
        let plain = [&[0, 0][..], &protocol.0.to_be_bytes(), payload].concat();
        let mut sealed = vec![0; sealer.sealed_len(plain.len())];
        let start = sealer.header_len();
        let Some(room) = sealed.get_mut(start..start + plain.len()) else { return };
        room.copy_from_slice(&plain);
        if sealer.seal(&mut sealed, plain.len(), GRE).is_ok() {
            let to = SocketAddr::new(path.remote, path.port().unwrap_or(HUB_PORT));
            let _ = socket.try_send_to(&sealed, to);
        }
    }
}

/// The clock of the engines; 0 is a moment that never was.
fn since(start: std::time::Instant) -> Instant {
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(nanos.saturating_add(1_000_000_000))
}
